//! Consent to claims of this agent's KeyPackages: the rule that the owner wants, and the rule in force in the agent's
//! log.
//!
//! ```text
//!   set_consent --> wanted --consent_frame--> the agent's log --outcome, or its entry--> in force
//! ```
//!
//! The log refuses claims by the rule that is in force. Without a rule, only agents of the agent's own account may
//! claim.

use super::transact::Tx;
use super::{Engine, EngineError, Outcome};
use crate::vault::{Durability, VaultError};
use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, params};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use skytale_proto::{AccountId, AgentId, Allowed, ClaimRule, Detail, Frame, FrameId, Header, Offset};

/// Names of values in the vault. Persisted: keep stable.
const ACCOUNT: &str = "account";
const WANTED: &str = "consent";
const IN_FORCE: &str = "consent_in_force";
const FRAME: &str = "consent_frame";
const EVER_OPEN: &str = "consent_ever_open";

/// Agents that may claim an agent's KeyPackages, besides the agents of its own account. An agent that holds a
/// KeyPackage can add its owner to a channel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Consent {
    /// No other agents.
    #[default]
    Account,
    /// The listed ones: at most [`CLAIM_RULE_MAX`](skytale_proto::limits::CLAIM_RULE_MAX) accounts and agents in total.
    Listed {
        /// Accounts, each with all of its agents.
        accounts: Vec<AccountId>,
        /// Agents.
        agents: Vec<AgentId>,
    },
    /// Every agent.
    Anyone,
}

/// An agent's consent, as stored in its vault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ConsentStatus {
    /// The consent set last.
    pub consent: Consent,
    /// Whether the agent's log has it. Until then the previous one is in force.
    pub in_force: bool,
    /// The account that the agent belongs to, once it has had a token.
    pub account: Option<AccountId>,
}

impl Consent {
    /// Returns a short, stable name.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Account => "account",
            Self::Listed { .. } => "listed",
            Self::Anyone => "anyone",
        }
    }

    fn rule(&self) -> Result<ClaimRule, EngineError> {
        match self {
            Self::Account => Ok(ClaimRule::Account),
            Self::Listed { accounts, agents } => Allowed::new(accounts.iter().copied(), agents.iter().copied())
                .map(ClaimRule::Listed)
                .map_err(|error| EngineError::Consent {
                    problem: error.to_string(),
                }),
            Self::Anyone => Ok(ClaimRule::Anyone),
        }
    }

    fn of(rule: &ClaimRule) -> Self {
        match rule {
            ClaimRule::Account => Self::Account,
            ClaimRule::Listed(allowed) => Self::Listed {
                accounts: allowed.accounts().to_vec(),
                agents: allowed.agents().to_vec(),
            },
            ClaimRule::Anyone => Self::Anyone,
        }
    }
}

impl Engine {
    /// Sets the account that this agent's tokens name. Frames that concern consent carry it; a relay node accepts no
    /// other there.
    pub fn set_account(&mut self, account: AccountId) -> Result<(), EngineError> {
        if self.account()? == Some(account) {
            return Ok(());
        }
        self.transact(Durability::Now, |tx| put(tx.sql, ACCOUNT, account.as_bytes()))?;
        Ok(())
    }

    /// Returns this agent's account, once [`Engine::set_account`] has set it.
    pub fn account(&self) -> Result<Option<AccountId>, EngineError> {
        account(self.vault.sql())
    }

    /// Returns which agents may claim this agent's KeyPackages.
    pub fn consent(&self) -> Result<ConsentStatus, EngineError> {
        let sql = self.vault.sql();
        let (wanted, in_force): (Consent, Consent) = (value(sql, WANTED)?, value(sql, IN_FORCE)?);
        Ok(ConsentStatus {
            in_force: wanted == in_force,
            consent: wanted,
            account: account(sql)?,
        })
    }

    /// Sets which agents may claim this agent's KeyPackages. Durable when this returns; in force once the log has the
    /// frame of [`Engine::consent_frame`]. KeyPackages held by agents that may no longer claim are void from then on.
    pub fn set_consent(&mut self, consent: &Consent) -> Result<(), EngineError> {
        // Normalized, as it is read back from the log.
        let consent = Consent::of(&consent.rule()?);
        self.transact(Durability::Now, |tx| {
            put_value(tx.sql, WANTED, &consent)?;
            forget(tx.sql, FRAME)
        })?;
        Ok(())
    }

    /// Returns the frame to append to the agent's own log if the wanted rule is not in force. The frame stays the same
    /// until there is an outcome.
    pub fn consent_frame(&mut self) -> Result<Option<Frame>, EngineError> {
        let status = self.consent()?;
        let Some(account) = status.account.filter(|_| !status.in_force) else {
            return Ok(None);
        };
        if let Some(frame) = kept(self.vault.sql(), FRAME)? {
            return Ok(Some(Frame::decode(frame.into())?));
        }
        let own = self.agent_id();
        let header = Header {
            log: own.log(),
            id: FrameId::generate(),
            author: own,
            parent: Offset::ZERO,
            detail: Detail::KeyPackagePolicy {
                account,
                rule: status.consent.rule()?,
            },
        };
        let frame = Frame::new(header, Bytes::new())?;
        self.transact(Durability::Now, |tx| put(tx.sql, FRAME, frame.encoded()))?;
        Ok(Some(frame))
    }

    /// Handles the relay's answer to a frame of [`Engine::consent_frame`].
    pub fn consent_outcome(&mut self, frame_id: FrameId, outcome: Outcome) -> Result<(), EngineError> {
        self.transact(Durability::Now, |tx| {
            let Some(frame) = kept(tx.sql, FRAME)? else {
                return Ok(());
            };
            let frame = Frame::decode(frame.into())?;
            if frame.header().id != frame_id {
                // An answer for an earlier rule.
                return Ok(());
            }
            match outcome {
                Outcome::Appended { .. } | Outcome::Duplicate { .. } => tx.is_in_force(&frame.header().detail),
                Outcome::Refused { retryable: true, .. } => Ok(()),
                _ => forget(tx.sql, FRAME),
            }
        })?;
        Ok(())
    }
}

impl Tx<'_> {
    /// Handles a rule in the agent's log. It becomes the wanted rule, unless the owner has set another one meanwhile.
    pub(super) fn policy_in_log(&self, frame_id: FrameId, detail: &Detail) -> Result<(), EngineError> {
        let pending = kept(self.sql, FRAME)?
            .map(|frame| Frame::decode(frame.into()))
            .transpose()?;
        if pending.is_some_and(|frame| frame.header().id == frame_id) {
            return self.is_in_force(detail);
        }
        let Detail::KeyPackagePolicy { rule, .. } = detail else {
            return Ok(());
        };
        let (wanted, before): (Consent, Consent) = (value(self.sql, WANTED)?, value(self.sql, IN_FORCE)?);
        let now = Consent::of(rule);
        note_open(self.sql, &now)?;
        put_value(self.sql, IN_FORCE, &now)?;
        if wanted == before {
            // Another copy of this vault set it.
            put_value(self.sql, WANTED, &now)?;
        }
        Ok(())
    }

    fn is_in_force(&self, detail: &Detail) -> Result<(), EngineError> {
        if let Detail::KeyPackagePolicy { rule, .. } = detail {
            let now = Consent::of(rule);
            note_open(self.sql, &now)?;
            put_value(self.sql, IN_FORCE, &now)?;
        }
        forget(self.sql, FRAME)
    }
}

/// Whether agents of other accounts could ever claim a KeyPackage.
pub(super) fn was_ever_open(sql: &Connection) -> Result<bool, EngineError> {
    Ok(kept(sql, EVER_OPEN)?.is_some())
}

fn note_open(sql: &Connection, consent: &Consent) -> Result<(), EngineError> {
    match consent {
        Consent::Account => Ok(()),
        Consent::Listed { .. } | Consent::Anyone => put(sql, EVER_OPEN, &[]),
    }
}

pub(super) fn account(sql: &Connection) -> Result<Option<AccountId>, EngineError> {
    let bytes = kept(sql, ACCOUNT)?;
    let read =
        |bytes: Vec<u8>| AccountId::try_from(bytes.as_slice()).map_err(|_| VaultError::damaged("account").into());
    bytes.map(read).transpose()
}

// ---- values by name

fn kept(sql: &Connection, name: &str) -> Result<Option<Vec<u8>>, EngineError> {
    Ok(sql
        .prepare_cached("SELECT value FROM meta WHERE key = ?1")?
        .query_row([name], |row| row.get(0))
        .optional()?)
}

fn put(sql: &Connection, name: &str, value: &[u8]) -> Result<(), EngineError> {
    sql.prepare_cached("INSERT OR REPLACE INTO meta (key, value) VALUES (?1, ?2)")?
        .execute(params![name, value])?;
    Ok(())
}

fn forget(sql: &Connection, name: &str) -> Result<(), EngineError> {
    sql.prepare_cached("DELETE FROM meta WHERE key = ?1")?.execute([name])?;
    Ok(())
}

pub(super) fn value<T: DeserializeOwned + Default>(sql: &Connection, name: &str) -> Result<T, EngineError> {
    let Some(bytes) = kept(sql, name)? else {
        return Ok(T::default());
    };
    serde_json::from_slice(&bytes).map_err(|error| VaultError::damaged(format!("setting `{name}`: {error}")).into())
}

pub(super) fn put_value(sql: &Connection, name: &str, value: &impl Serialize) -> Result<(), EngineError> {
    let bytes = serde_json::to_vec(value).map_err(|error| VaultError::damaged(format!("setting `{name}`: {error}")))?;
    put(sql, name, &bytes)
}
