//! One call, one transaction.

use super::channel::Channel;
use super::{Engine, EngineConfig, EngineError, Event};
use crate::mls::{self, Identity, Provider};
use crate::vault::{Durability, VaultError};
use rusqlite::Connection;
use skytale_proto::ChannelId;
use std::time::{SystemTime, UNIX_EPOCH};

/// What a transaction works with.
pub(super) struct Tx<'a> {
    /// The database, with a transaction open.
    pub(super) sql: &'a Connection,
    pub(super) provider: &'a Provider<'a>,
    pub(super) identity: &'a Identity,
    pub(super) config: &'a EngineConfig,
    pub(super) events: Vec<Event>,
}

impl Tx<'_> {
    /// Refuses to go on where the group's storage has failed: what OpenMLS then says of its input is not to be believed.
    pub(super) fn storage_is_sound(&self) -> Result<(), EngineError> {
        self.provider
            .failure()
            .map_or(Ok(()), |failure| Err(storage_failed(failure)))
    }
}

/// A read of the group's storage that failed.
pub(super) fn storage_failed(failure: mls::Failure) -> EngineError {
    match failure.is_damage {
        true => VaultError::damaged(format!("the group's storage: {}", failure.reason)).into(),
        false => VaultError::io("the group's storage", failure.reason).into(),
    }
}

impl Engine {
    /// Runs `change` in a transaction of its own, and gives its result with the events it told.
    pub(super) fn transact<T>(
        &self,
        durability: Durability,
        change: impl FnOnce(&mut Tx<'_>) -> Result<T, EngineError>,
    ) -> Result<(T, Vec<Event>), EngineError> {
        let sql = self.vault.sql();
        let provider = Provider::new(&self.crypto, sql);
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
        transaction.commit()?;
        Ok((result, events))
    }

    /// Runs `change` on a channel in a transaction of its own. Where that fails, the channel in memory has moved on while
    /// the vault has not: it is thrown away, and loaded again when it is needed.
    pub(super) fn transact_on<T>(
        &mut self,
        id: ChannelId,
        durability: Durability,
        change: impl FnOnce(&mut Tx<'_>, &mut Channel) -> Result<T, EngineError>,
    ) -> Result<(T, Vec<Event>), EngineError> {
        let mut channel = self.take(id)?;
        let result = self.transact(durability, |tx| {
            let result = change(tx, &mut channel)?;
            if let Some(group) = channel.group.as_mut() {
                mls::settle_secrets(group, tx.provider)?;
            }
            channel.save(tx.sql, tx.provider)?;
            Ok(result)
        })?;
        self.put_back(channel);
        Ok(result)
    }

    /// Takes a channel out of memory, loading it where it is not there.
    pub(super) fn take(&mut self, id: ChannelId) -> Result<Channel, EngineError> {
        if let Some(channel) = self.loaded.remove(&id) {
            return Ok(channel);
        }
        let provider = Provider::new(&self.crypto, self.vault.sql());
        Channel::load(self.vault.sql(), &provider, id)?.ok_or(EngineError::ChannelUnknown { channel: id })
    }

    /// Puts a channel back that agrees with the vault.
    pub(super) fn put_back(&mut self, channel: Channel) {
        while self.loaded.len() >= self.config.channels_loaded_max.max(1) {
            // One that has nothing on the way is cheapest to forget.
            let idle = self.loaded.iter().find(|(_, channel)| channel.offered.in_flight == 0);
            let Some(id) = idle.or_else(|| self.loaded.iter().next()).map(|(id, _)| *id) else {
                break;
            };
            self.loaded.remove(&id);
        }
        self.loaded.insert(channel.id, channel);
    }

    /// A channel in memory, to look at.
    pub(super) fn loaded(&mut self, id: ChannelId) -> Result<&mut Channel, EngineError> {
        let channel = self.take(id)?;
        self.put_back(channel);
        self.loaded
            .get_mut(&id)
            .ok_or(EngineError::ChannelUnknown { channel: id })
    }
}

/// Unix milliseconds.
pub(super) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
