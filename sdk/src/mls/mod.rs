//! The SDK's use of MLS (RFC 9420): identity, storage, and the rules of a group.

mod crypto;
mod external;
mod group;
mod identity;
mod life;
mod policy;
mod rejoin;
mod seen;
mod signatures;
mod storage;
mod tree;

pub(crate) use crypto::Crypto;
pub(crate) use external::{build_external, open_external, seal_external};
pub(crate) use group::{
    Change, Ground, Rejected, added_package, agent_of_leaf, build_commit, check_commit, create_config, group_id,
    key_package, leaver, leavers, members, process, read_message, settle_secrets, take_back_leaves, turn, unreadable,
};
pub(crate) use identity::Identity;
pub(crate) use life::Life;
pub(crate) use policy::policy;
pub(crate) use rejoin::{RejoinRequest, Welcomed, welcomed};
pub(crate) use seen::Seen;
pub use signatures::SignatureCounts;
#[cfg(test)]
pub(crate) use storage::in_keys;
pub(crate) use storage::{Failure, Storage, StorageError};
pub(crate) use tree::{has_first_leaf, is_single};

use openmls_rust_crypto::RustCrypto;
use openmls_traits::OpenMlsProvider;
use rusqlite::Connection;
#[cfg(doc)]
use signatures::Signatures;

/// Provider for OpenMLS, for the time of one transaction.
pub(crate) struct Provider<'a> {
    crypto: &'a Crypto,
    storage: Storage<'a>,
}

impl<'a> Provider<'a> {
    pub(crate) fn new(crypto: &'a Crypto, connection: &'a Connection) -> Self {
        Self {
            crypto,
            storage: Storage::new(connection),
        }
    }

    /// Writes all values of OpenMLS in the current transaction.
    pub(crate) fn flush(&self) -> Result<(), StorageError> {
        self.storage.flush()
    }

    /// See [`Storage::scratch`].
    pub(crate) fn scratch(&self, set_aside: Option<&[u8]>) -> Self {
        Self {
            crypto: self.crypto,
            storage: self.storage.scratch(set_aside),
        }
    }

    /// See [`Storage::absorb`].
    pub(crate) fn absorb(&self, scratch: &Self) {
        self.storage.absorb(&scratch.storage);
    }

    /// See [`Storage::end_set_aside`].
    pub(crate) fn end_set_aside(&self, name: &[u8], take: bool) -> Result<(), StorageError> {
        self.storage.end_set_aside(name, take)
    }

    /// See [`Storage::failure`].
    pub(crate) fn failure(&self) -> Option<Failure> {
        self.storage.failure()
    }

    /// See [`Signatures::allow_batches`].
    pub(crate) fn allow_batches(&self) {
        self.crypto.signatures().allow_batches();
    }

    /// See [`Signatures::hand_over_rest`].
    pub(crate) fn hand_over_signatures(&self) {
        self.crypto.signatures().hand_over_rest();
    }

    /// See [`Signatures::deferring`].
    pub(crate) fn deferring_signatures<T>(&self, process: impl FnOnce() -> T) -> T {
        self.crypto.signatures().deferring(process)
    }

    /// See [`Storage::defer_secrets`].
    pub(crate) fn defer_secrets(&self) {
        self.storage.defer_secrets();
    }
}

impl<'a> OpenMlsProvider for Provider<'a> {
    type CryptoProvider = Crypto;
    type RandProvider = RustCrypto;
    type StorageProvider = Storage<'a>;

    fn storage(&self) -> &Self::StorageProvider {
        &self.storage
    }

    fn crypto(&self) -> &Self::CryptoProvider {
        self.crypto
    }

    fn rand(&self) -> &Self::RandProvider {
        self.crypto.rand()
    }
}
