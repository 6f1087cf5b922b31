//! Another key encryption key: the stored seeds of signing keys are encrypted under it, all of them or none.
//!
//! API processes may run meanwhile: each has the signing key in memory and goes on giving tokens, but rotates no more
//! until it is started again with the new key encryption key. Once a process that has the new one rotates, those that
//! have the old one can sign no more, and say so on `/readyz`: start all of them again soon.

use crate::audit::{Action, Actor, Series, Target};
use crate::clock::Clock;
use crate::config::{ConfigError, KeyEncryptionKey};
use crate::request::Meta;
use crate::seal::{self, NONCE_BYTES};
use crate::service::StartError;
use crate::store::{Location, Store, StoreError, signing_keys};
use secrecy::{ExposeSecret as _, SecretString};
use skytale_proto::Code;

/// Result of a rewrap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rewrapped {
    /// Signing keys that are encrypted under the new key now.
    pub rewrapped: usize,
    /// Those that were before: an earlier run was not cut short after all.
    pub already: usize,
}

/// Reason why nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum RewrapError {
    /// The database's URL.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Both keys are the same.
    #[error("the new key encryption key is the old one; make another with `openssl rand -hex 32`")]
    SameKey,
    /// A seed opens under neither key.
    #[error("signing key {kid} is encrypted under neither of the two keys; give the one that the API was started with")]
    WrongKey {
        /// The signing key.
        kid: String,
    },
    /// Nothing is stored.
    #[error("the database has no signing key; the API makes the first one when it starts")]
    NoKeys,
    /// The database or the system.
    #[error("{0}")]
    Environment(String),
}

impl RewrapError {
    /// The code.
    pub const fn code(&self) -> Code {
        match self {
            Self::Config(_) | Self::SameKey | Self::WrongKey { .. } => Code::Config,
            Self::NoKeys | Self::Environment(_) => Code::Environment,
        }
    }
}

impl From<StoreError> for RewrapError {
    fn from(error: StoreError) -> Self {
        Self::Environment(StartError::from(error).to_string())
    }
}

/// Encrypts the signing keys in a database (`sqlite:<path>` or `postgres://...`) under `new` instead of `old`, in one
/// transaction: whatever happens, all of them are under the one or all under the other. Again is no error.
pub async fn rewrap_signing_keys(
    database: &SecretString,
    old: &KeyEncryptionKey,
    new: &KeyEncryptionKey,
) -> Result<Rewrapped, RewrapError> {
    if old.as_bytes() == new.as_bytes() {
        return Err(RewrapError::SameKey);
    }
    let location = Location::parse(database.expose_secret())?;
    if let Location::Sqlite { path } = &location
        && !path.exists()
    {
        return Err(RewrapError::Environment(format!("no database at {}", path.display())));
    }
    let store = Store::open(&location).await?;
    let done = rewrap(&store, old, new).await;
    store.close().await;
    done
}

async fn rewrap(store: &Store, old: &KeyEncryptionKey, new: &KeyEncryptionKey) -> Result<Rewrapped, RewrapError> {
    let (meta, now_s) = (Meta::own(), Clock::system().now_s());
    let mut done = Rewrapped {
        rewrapped: 0,
        already: 0,
    };
    let mut write = store.write().await?;
    let sealed_seeds = signing_keys::lock_sealed(&mut write).await?;
    if sealed_seeds.is_empty() {
        return Err(RewrapError::NoKeys);
    }
    for (kid, sealed) in sealed_seeds {
        let Ok(seed) = seal::open(old, &kid, &sealed) else {
            if seal::open(new, &kid, &sealed).is_err() {
                return Err(RewrapError::WrongKey { kid });
            }
            done.already += 1;
            continue;
        };
        let mut nonce = [0; NONCE_BYTES];
        let failed = |error: &dyn std::fmt::Display| RewrapError::Environment(error.to_string());
        getrandom::fill(&mut nonce).map_err(|error| failed(&error))?;
        let resealed = seal::seal(new, &kid, &seed, nonce).map_err(|error| failed(&error))?;
        signing_keys::reseal(&mut write, &kid, &resealed).await?;
        let action = Action {
            account: None,
            actor: Actor::Operator,
            name: "signing_key.rewrap",
            target: Target::SigningKey(&kid),
            code: None,
            counted: Series::Single,
        };
        action.record(&mut write, &meta, now_s).await?;
        done.rewrapped += 1;
    }
    write.commit().await?;
    Ok(done)
}
