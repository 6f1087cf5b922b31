//! The caller: API keys, the operator, relay nodes.

mod cache;
mod hash;
mod scope;
mod secret;
mod text;
mod turns;
mod workers;

pub(crate) use cache::VerifiedKeys;
pub(crate) use hash::{Asking, HashError, KeyHasher, RETRY_AFTER};
pub(crate) use scope::{KeyScope, KeyScopes};
pub(crate) use secret::SharedSecret;
pub(crate) use text::{KeyName, KeyText, NewKey};

use skytale_proto::{AccountId, EndpointId, EnrolmentId, KeyId};

/// An API key that was checked, for the length of one request.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    pub key: KeyId,
    pub account: AccountId,
    pub scopes: KeyScopes,
    /// Expiry of the key, unix seconds.
    pub expires_s: Option<u64>,
}

/// An enrolled relay node whose key was checked, for the length of one request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Enrolled {
    pub enrolment: EnrolmentId,
    /// The endpoint that it is bound to, if it is.
    pub endpoint: Option<EndpointId>,
}
