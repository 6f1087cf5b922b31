//! One call, one transaction.

use super::channel::Channel;
use super::{Engine, EngineConfig, EngineError, Event};
use crate::mls::{self, Identity, Provider};
use crate::vault::{Durability, VaultError};
use rusqlite::Connection;
use skytale_proto::ChannelId;
use std::time::{SystemTime, UNIX_EPOCH};

/// State of a transaction.
pub(super) struct Tx<'a> {
    /// The database, with a transaction open.
    pub(super) sql: &'a Connection,
    pub(super) provider: &'a Provider<'a>,
    pub(super) identity: &'a Identity,
    pub(super) config: &'a EngineConfig,
    pub(super) events: Vec<Event>,
}

impl Tx<'_> {
    /// Fails if the group's storage has failed: OpenMLS's verdict on its input is then not to be trusted.
    pub(super) fn storage_is_sound(&self) -> Result<(), EngineError> {
        self.provider
            .failure()
            .map_or(Ok(()), |failure| Err(storage_failed(failure)))
    }
}

/// Converts a failed read of the group's storage.
pub(super) fn storage_failed(failure: mls::Failure) -> EngineError {
    match failure.is_damage {
        true => VaultError::damaged(format!("the group's storage: {}", failure.reason)).into(),
        false => VaultError::io("the group's storage", failure.reason).into(),
    }
}

impl Engine {
    /// Runs `change` in a transaction of its own, and returns its result with its events.
    pub(super) fn transact<T>(
        &self,
        durability: Durability,
        change: impl FnOnce(&mut Tx<'_>) -> Result<T, EngineError>,
    ) -> Result<(T, Vec<Event>), EngineError> {
        let sql = self.vault.sql();
        let provider = Provider::new(&self.crypto, sql);
        self.crypto.signatures().start();
        let transaction = self.vault.begin(durability)?;
        let mut tx = Tx {
            sql,
            provider: &provider,
            identity: &self.identity,
            config: &self.config,
            events: Vec::new(),
        };
        let result = change(&mut tx);
        tx.storage_is_sound()?;
        let result = result?;
        let events = tx.events;
        provider.flush()?;
        if self.crypto.signatures().is_awaited() {
            // Most of a commit is encrypting and writing pages. While other threads verify, that is done ahead; without
            // the commit's own page they are nothing.
            sql.cache_flush().map_err(VaultError::from)?;
        }
        // Nothing leaves the transaction before the signatures of its messages have been verified.
        if !self.crypto.signatures().settle() {
            return Err(EngineError::mls("verifying signatures", "one of a batch is not valid"));
        }
        transaction.commit()?;
        Ok((result, events))
    }

    /// Runs `change` on a channel in a transaction of its own. If that fails, the channel in memory has changed while
    /// the vault has not: it is discarded, and loaded again when needed.
    pub(super) fn transact_on<T>(
        &mut self,
        id: ChannelId,
        durability: Durability,
        change: impl FnOnce(&mut Tx<'_>, &mut Channel) -> Result<T, EngineError>,
    ) -> Result<(T, Vec<Event>), EngineError> {
        let mut channel = self.take(id)?;
        let result = self.transact(durability, |tx| {
            let result = change(tx, &mut channel)?;
            // Verified elsewhere while this thread writes.
            tx.provider.hand_over_signatures();
            if let Some(group) = channel.group.as_mut() {
                mls::settle_secrets(group, tx.provider)?;
            }
            channel.save(tx.sql, tx.provider)?;
            Ok(result)
        })?;
        self.put_back(channel);
        Ok(result)
    }

    /// Takes a channel out of memory; loads it if needed.
    pub(super) fn take(&mut self, id: ChannelId) -> Result<Channel, EngineError> {
        if let Some(channel) = self.loaded.remove(&id) {
            return Ok(channel);
        }
        let provider = Provider::new(&self.crypto, self.vault.sql());
        Channel::load(self.vault.sql(), &provider, id)?.ok_or(EngineError::ChannelUnknown { channel: id })
    }

    /// Puts back a channel that agrees with the vault.
    pub(super) fn put_back(&mut self, channel: Channel) {
        while self.loaded.len() >= self.config.channels_loaded_max.max(1) {
            // A channel with nothing in flight is cheapest to forget.
            let idle = self.loaded.iter().find(|(_, channel)| channel.offered.in_flight == 0);
            let Some(id) = idle.or_else(|| self.loaded.iter().next()).map(|(id, _)| *id) else {
                break;
            };
            self.loaded.remove(&id);
        }
        self.loaded.insert(channel.id, channel);
    }

    /// Returns a channel in memory; loads it if needed.
    pub(super) fn loaded(&mut self, id: ChannelId) -> Result<&mut Channel, EngineError> {
        let channel = self.take(id)?;
        self.put_back(channel);
        self.loaded
            .get_mut(&id)
            .ok_or(EngineError::ChannelUnknown { channel: id })
    }
}

/// Returns the current time, unix milliseconds.
pub(super) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
