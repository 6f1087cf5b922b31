//! MLS (RFC 9420), as this SDK uses it: identity, storage, and the rules of a group.

mod group;
mod identity;
mod storage;

pub(crate) use group::{
    CIPHERSUITE, Change, Rejected, added_package, agent_of_leaf, build_commit, check_commit, check_members,
    create_config, group_id, join_config, key_package, leaver, leavers, members, process, read_message, settle_secrets,
    turn, unreadable,
};
pub(crate) use identity::Identity;
#[cfg(test)]
pub(crate) use storage::in_keys;
pub(crate) use storage::{Failure, Storage, StorageError};

use openmls_rust_crypto::RustCrypto;
use openmls_traits::OpenMlsProvider;
use rusqlite::Connection;

/// What OpenMLS needs, for the time of one transaction.
pub(crate) struct Provider<'a> {
    crypto: &'a RustCrypto,
    storage: Storage<'a>,
}

impl<'a> Provider<'a> {
    pub(crate) fn new(crypto: &'a RustCrypto, connection: &'a Connection) -> Self {
        Self {
            crypto,
            storage: Storage::new(connection),
        }
    }

    /// Puts all that OpenMLS wrote into the transaction under way.
    pub(crate) fn flush(&self) -> Result<(), StorageError> {
        self.storage.flush()
    }

    /// Forgets all that OpenMLS wrote.
    pub(crate) fn discard(&self) {
        self.storage.discard();
    }

    /// See [`Storage::failure`].
    pub(crate) fn failure(&self) -> Option<Failure> {
        self.storage.failure()
    }

    /// See [`Storage::defer_secrets`].
    pub(crate) fn defer_secrets(&self) {
        self.storage.defer_secrets();
    }
}

impl<'a> OpenMlsProvider for Provider<'a> {
    type CryptoProvider = RustCrypto;
    type RandProvider = RustCrypto;
    type StorageProvider = Storage<'a>;

    fn storage(&self) -> &Self::StorageProvider {
        &self.storage
    }

    fn crypto(&self) -> &Self::CryptoProvider {
        self.crypto
    }

    fn rand(&self) -> &Self::RandProvider {
        self.crypto
    }
}
