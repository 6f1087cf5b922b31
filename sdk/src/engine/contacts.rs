//! Names that this agent gives to other agents. They stay in the vault; nobody else sees them.

use super::{Engine, EngineError};
use crate::vault::{Durability, id};
use rusqlite::{OptionalExtension, params};
use serde::{Deserialize, Serialize};
use skytale_proto::AgentId;

/// The longest name of an agent, in bytes.
pub const CONTACT_BYTES_MAX: usize = 64;
/// Maximum number of names in one vault.
const CONTACTS_MAX: i64 = 10_000;

/// A name that this agent gives to another one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Contact {
    /// The name. Each name has one agent, and each agent has one name.
    pub name: String,
    /// The agent.
    pub agent: AgentId,
}

impl Contact {
    /// Creates a name for an agent.
    pub fn new(name: impl Into<String>, agent: AgentId) -> Self {
        Self {
            name: name.into(),
            agent,
        }
    }
}

impl Engine {
    /// Lists all names, ordered by name.
    pub fn contacts(&self) -> Result<Vec<Contact>, EngineError> {
        self.vault
            .sql()
            .prepare_cached("SELECT name, agent FROM contact ORDER BY name")?
            .query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, Vec<u8>>(1)?)))?
            .map(|row| {
                let (name, agent) = row?;
                Ok(Contact {
                    name,
                    agent: id(&agent)?,
                })
            })
            .collect()
    }

    /// Gives an agent a name: letters, digits, `-`, `_`, `.`, `@`, at most [`CONTACT_BYTES_MAX`] bytes, and nothing that
    /// reads as an id. The previous holder of the name loses it, and the agent loses its previous name.
    pub fn set_contact(&mut self, name: &str, agent: AgentId) -> Result<(), EngineError> {
        check(name)?;
        self.transact(Durability::Now, |tx| {
            let others: i64 = tx.sql.query_row(
                "SELECT count(*) FROM contact WHERE name <> ?1 AND agent <> ?2",
                params![name, agent.as_bytes()],
                |row| row.get(0),
            )?;
            if others >= CONTACTS_MAX {
                return Err(EngineError::Contact {
                    problem: "the vault has 10,000 names, and takes no more",
                });
            }
            tx.sql
                .prepare_cached("INSERT OR REPLACE INTO contact (name, agent) VALUES (?1, ?2)")?
                .execute(params![name, agent.as_bytes()])?;
            Ok(())
        })?;
        Ok(())
    }

    /// Removes a name. Returns the agent that had it.
    pub fn remove_contact(&mut self, name: &str) -> Result<Option<AgentId>, EngineError> {
        let (removed, _) = self.transact(Durability::Now, |tx| {
            tx.sql
                .prepare_cached("DELETE FROM contact WHERE name = ?1 RETURNING agent")?
                .query_row([name], |row| row.get::<_, Vec<u8>>(0))
                .optional()?
                .map(|agent| Ok(id(&agent)?))
                .transpose()
        })?;
        Ok(removed)
    }
}

/// Checks a name. Names are shown beside ids, and accepted instead of ids, so they must not look like one.
fn check(name: &str) -> Result<(), EngineError> {
    let is_plain = |char: char| char.is_alphanumeric() || "-_.@".contains(char);
    let problem = if name.is_empty() {
        "it is empty"
    } else if name.len() > CONTACT_BYTES_MAX {
        "it is longer than 64 bytes"
    } else if !name.chars().all(is_plain) {
        "it has characters other than letters, digits, `-`, `_`, `.` and `@`"
    } else if name.len() >= ID_DIGITS_MIN && name.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        "it reads as the beginning of an id"
    } else {
        return Ok(());
    };
    Err(EngineError::Contact { problem })
}

/// Number of hexadecimal digits from which on a text may be meant as the beginning of an id.
const ID_DIGITS_MIN: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_looks_like_neither_an_id_nor_a_name_with_one() {
        for name in ["alice", "Bob-2", "build.bot_1@ci", "Zoë", "deadbee", "李"] {
            assert!(check(name).is_ok(), "{name}");
        }
        let id = "ab".repeat(32);
        for name in [
            "",
            "alice (0123456789abcdef)",
            "a b",
            "a\tb",
            "a\u{202e}b",
            "deadbeef",
            &id,
            &"x".repeat(65),
        ] {
            assert!(check(name).is_err(), "{name}");
        }
    }
}
