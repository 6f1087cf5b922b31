//! Deletes a left channel from the vault.

use super::channel::one;
use super::{ChannelId, ChannelState, Engine, EngineError, Offset};
use crate::vault::{Durability, message_id};
use rusqlite::params;

/// Number of messages deleted per transaction.
const PIECE: u32 = 1_024;
/// Tables with rows of channels, by the channel's number.
const TABLES: [&str; 17] = [
    "outbox",
    "failed",
    "unreadable",
    "digest",
    "divergence",
    "lost",
    "rollback",
    "settled",
    "replaced",
    "change",
    "leaving",
    "purged",
    "undone",
    "rejoin",
    "deferred",
    "declined",
    "invitation",
];

impl Engine {
    /// Permanently deletes a channel that this agent has left from the vault, with all its data, including unread
    /// messages. The log and the other members are not affected. If a member adds this agent again, the channel is a
    /// new one to it.
    pub fn forget(&mut self, channel: ChannelId) -> Result<(), EngineError> {
        let (position, no) = one(self.vault.sql(), channel)?;
        if position.state != ChannelState::Left {
            return Err(EngineError::NotLeft { channel });
        }
        let (first, end) = (message_id(no, Offset::ZERO)?, message_id(no + 1, Offset::ZERO)?);
        // One piece at a time: a deletion takes its own length in the write-ahead log until it is done.
        loop {
            let (gone, _) = self.transact(Durability::Later, |tx| {
                Ok(tx
                    .sql
                    .prepare_cached(
                        "DELETE FROM message WHERE id IN (SELECT id FROM message WHERE id > ?1 AND id < ?2 LIMIT ?3)",
                    )?
                    .execute(params![first, end, PIECE])?)
            })?;
            if gone == 0 {
                break;
            }
        }
        self.transact(Durability::Now, |tx| {
            for table in TABLES.iter().chain(&["once"]) {
                tx.sql
                    .prepare_cached(&format!("DELETE FROM {table} WHERE channel = ?1"))?
                    .execute([no])?;
            }
            tx.sql
                .prepare_cached("DELETE FROM channel WHERE no = ?1")?
                .execute([no])?;
            Ok(())
        })?;
        self.loaded.remove(&channel);
        self.reached.remove(&channel);
        self.retained.forgotten(channel);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::EngineConfig;
    use crate::vault::VaultKey;
    use std::collections::BTreeSet;

    #[test]
    fn nothing_of_a_forgotten_channel_stays_in_any_table() {
        let folder = tempfile::tempdir().expect("a folder");
        let key = VaultKey::raw([7; 32]);
        let mut engine = Engine::open(&folder.path().join("vault"), key, EngineConfig::default()).expect("opens");
        let channel = engine.create_channel("plans").expect("made");
        engine.send_once(channel, "one", b"hello").expect("queued");
        assert!(matches!(engine.forget(channel), Err(EngineError::NotLeft { .. })));
        engine.leave(channel).expect("asked");
        engine.leave_alone(channel).expect("gone");
        engine.forget(channel).expect("forgotten");
        assert!(engine.channels().expect("listed").is_empty());
        assert!(matches!(
            engine.forget(channel),
            Err(EngineError::ChannelUnknown { .. })
        ));

        // Every table with rows of channels must be in the list.
        let sql = engine.vault.sql();
        let mut tables = sql
            .prepare(
                "SELECT m.name FROM sqlite_master m JOIN pragma_table_info(m.name) c
                 WHERE m.type = 'table' AND c.name = 'channel'",
            )
            .expect("a query");
        let tables = tables.query_map([], |row| row.get::<_, String>(0)).expect("tables");
        let tables: BTreeSet<String> = tables.collect::<Result<_, _>>().expect("tables");
        // `pending_join` uses the channel's id: data from the agent's own log does not belong to the channel.
        let known = TABLES
            .iter()
            .chain(&["once", "pending_join"])
            .map(|name| (*name).to_owned());
        assert_eq!(tables, known.collect());
        for table in TABLES.iter().chain(&["once", "channel", "message"]) {
            let rows: i64 = sql
                .query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0))
                .expect("counted");
            assert_eq!(rows, 0, "{table}");
        }
    }
}
