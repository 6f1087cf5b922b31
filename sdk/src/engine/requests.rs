//! Additions that wait to be accepted: the agent was added by someone who may claim its KeyPackages, and whom it does not
//! trust to add it without asking.
//!
//! ```text
//!   a Welcome --join--> trusted? --yes--> in the channel
//!                          |                  ^
//!                          no                 | accept_request, and its bundle once more
//!                          v                  |
//!                       request --------------+
//!                          |
//!                          +-- decline_request, and its bundle once more --> in the group, unseen --> asked to leave --> forgotten
//! ```
//!
//! Until it is accepted nothing of the channel is read: the Welcome stays where it is. Who declines has to be in the group
//! to leave it, as others encrypt for it until then. Such a channel is followed and never shown: its messages are not kept,
//! and its events are for the driver alone.

use super::channel::Channel;
use super::consent::{self, put_value, value};
use super::outbox::{Intent, Place};
use super::transact::{Tx, now_ms};
use super::{ChannelState, Engine, EngineError, Event};
use crate::vault::{Durability, VaultError, id, integer, unsigned};
use rusqlite::{Connection, OptionalExtension, params};
use serde::{Deserialize, Serialize};
use skytale_proto::{AccountId, AgentId, ChannelId, FrameId, Offset};
use std::collections::BTreeSet;

/// Requests that wait at once. Who may claim and is not trusted fills no vault: what comes beyond them is recorded as a
/// Welcome that was not used.
const REQUESTS_MAX: i64 = 256;
/// Claimers whose accounts are remembered, those who claimed last.
const CLAIMERS_MAX: i64 = 4_096;

/// The name of a value in the vault. Persisted: keep stable.
const TRUST: &str = "trust";

/// Who may add this agent to a channel without asking it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Trust {
    /// The agents of its own account.
    pub account: bool,
    /// Agents that it has given a name to.
    pub contacts: bool,
    /// Everyone. It goes before the rest.
    pub anyone: bool,
    /// These accounts' agents.
    pub accounts: Vec<AccountId>,
    /// These agents.
    pub agents: Vec<AgentId>,
}

impl Trust {
    /// Nobody: every addition waits to be accepted.
    pub const fn nobody() -> Self {
        Self {
            account: false,
            contacts: false,
            anyone: false,
            accounts: Vec::new(),
            agents: Vec::new(),
        }
    }
}

impl Default for Trust {
    fn default() -> Self {
        Self {
            account: true,
            contacts: true,
            anyone: false,
            accounts: Vec::new(),
            agents: Vec::new(),
        }
    }
}

/// An addition that waits to be accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct JoinRequest {
    /// The channel.
    pub channel: ChannelId,
    /// The bundle that added this agent.
    pub offset: Offset,
    /// Who added it, proven by a signature; `None` where the log no longer keeps the bundle.
    pub by: Option<AgentId>,
    /// The account of who added it. The relay node says so.
    pub account: Option<AccountId>,
    /// Members of the group then, this agent included.
    pub members: Option<u32>,
    /// Since when it waits, unix milliseconds by this machine's clock.
    pub since_ms: u64,
}

impl JoinRequest {
    /// To a channel, by a bundle of which nothing else is known, for tests of what an application does with it.
    pub const fn new(channel: ChannelId, offset: Offset) -> Self {
        Self {
            channel,
            offset,
            by: None,
            account: None,
            members: None,
            since_ms: 0,
        }
    }

    /// One that is made now.
    pub(super) fn now(
        channel: ChannelId,
        offset: Offset,
        by: Option<AgentId>,
        account: Option<AccountId>,
        members: Option<u32>,
    ) -> Self {
        Self {
            channel,
            offset,
            by,
            account,
            members,
            since_ms: now_ms(),
        }
    }
}

/// What was decided about a Welcome. Persisted: keep stable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    None = 0,
    Waits = 1,
    Accepted = 2,
    Declined = 3,
}

impl Engine {
    /// Who may add this agent without asking.
    pub fn trust(&self) -> Result<Trust, EngineError> {
        value(self.vault.sql(), TRUST)
    }

    /// Says who may add this agent without asking, from now on. Requests that wait go on waiting.
    pub fn set_trust(&mut self, trust: &Trust) -> Result<(), EngineError> {
        let mut trust = trust.clone();
        trust.accounts.sort_unstable();
        trust.accounts.dedup();
        trust.agents.sort_unstable();
        trust.agents.dedup();
        let listed = trust.accounts.len() + trust.agents.len();
        if listed > skytale_proto::limits::CLAIM_RULE_MAX {
            return Err(EngineError::Consent {
                problem: format!("{listed} accounts and agents are more than can be listed"),
            });
        }
        self.transact(Durability::Now, |tx| put_value(tx.sql, TRUST, &trust))?;
        Ok(())
    }

    /// Additions that wait to be accepted, oldest first. One a channel: the latest.
    pub fn requests(&self) -> Result<Vec<JoinRequest>, EngineError> {
        self.vault
            .sql()
            .prepare_cached(
                "SELECT channel, max(at), adder, account, members, held_ms FROM pending_join WHERE decision = ?1
                 GROUP BY channel ORDER BY min(no)",
            )?
            .query_map([Decision::Waits as i64], |row| {
                Ok((
                    row.get::<_, Vec<u8>>(0)?,
                    row.get::<_, i64>(1)?,
                    row.get::<_, Option<Vec<u8>>>(2)?,
                    row.get::<_, Option<Vec<u8>>>(3)?,
                    row.get::<_, Option<u32>>(4)?,
                    row.get::<_, i64>(5)?,
                ))
            })?
            .map(|row| {
                let (channel, at, by, account, members, since) = row?;
                Ok(JoinRequest {
                    channel: id(&channel)?,
                    offset: Offset::new(unsigned(at)?),
                    by: by.map(|by| id(&by)).transpose()?,
                    account: account.map(|account| id(&account)).transpose()?,
                    members,
                    since_ms: unsigned(since)?,
                })
            })
            .collect()
    }

    /// Accepts an addition: the channel is joined by its bundle, which is among [`Engine::pending_joins`] again.
    pub fn accept_request(&mut self, channel: ChannelId) -> Result<(), EngineError> {
        self.decide(channel, Decision::Accepted)
    }

    /// Declines an addition: the group is entered by its bundle, which is among [`Engine::pending_joins`] again, to leave it at
    /// once, and forgotten when that is done. Nothing of it is shown.
    pub fn decline_request(&mut self, channel: ChannelId) -> Result<(), EngineError> {
        self.decide(channel, Decision::Declined)
    }

    fn decide(&self, channel: ChannelId, decision: Decision) -> Result<(), EngineError> {
        let (decided, _) = self.transact(Durability::Now, |tx| {
            Ok(tx
                .sql
                .prepare_cached("UPDATE pending_join SET decision = ?1 WHERE channel = ?2 AND decision = ?3")?
                .execute(params![decision as i64, channel.as_bytes(), Decision::Waits as i64])?)
        })?;
        match decided {
            0 => Err(EngineError::RequestUnknown { channel }),
            _ => Ok(()),
        }
    }

    /// Channels that were declined and are being left. They are to be followed, and not shown.
    pub fn declined(&self) -> Result<BTreeSet<ChannelId>, EngineError> {
        self.vault
            .sql()
            .prepare_cached("SELECT c.id FROM declined d JOIN channel c ON c.no = d.channel")?
            .query_map([], |row| row.get::<_, Vec<u8>>(0))?
            .map(|channel| Ok(id(&channel?)?))
            .collect()
    }

    /// Forgets declined channels that were left. Whether there were any.
    pub fn forget_declined(&mut self) -> Result<bool, EngineError> {
        let mut any = false;
        for channel in self.declined()? {
            if self.channel(channel)?.state == ChannelState::Left {
                self.forget(channel)?;
                any = true;
            }
        }
        Ok(any)
    }
}

/// Whether a channel was declined.
pub(super) fn is_declined(sql: &Connection, channel_no: i64) -> Result<bool, EngineError> {
    Ok(sql
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM declined WHERE channel = ?1)")?
        .query_row([channel_no], |row| row.get(0))?)
}

impl Tx<'_> {
    /// A claim of a KeyPackage of this agent: whose account it was made by.
    pub(super) fn note_claimer(&self, agent: &AgentId, account: &AccountId, at: Offset) -> Result<(), EngineError> {
        self.sql
            .prepare_cached("INSERT OR REPLACE INTO claimer (agent, account, at) VALUES (?1, ?2, ?3)")?
            .execute(params![agent.as_bytes(), account.as_bytes(), integer(at.get())?])?;
        self.sql
            .prepare_cached(
                "DELETE FROM claimer WHERE at < (SELECT at FROM claimer ORDER BY at DESC LIMIT 1 OFFSET ?1)",
            )?
            .execute([CLAIMERS_MAX])?;
        Ok(())
    }

    fn account_of(&self, agent: &AgentId) -> Result<Option<AccountId>, EngineError> {
        let account: Option<Vec<u8>> = self
            .sql
            .prepare_cached("SELECT account FROM claimer WHERE agent = ?1")?
            .query_row([agent.as_bytes()], |row| row.get(0))
            .optional()?;
        Ok(account.map(|account| id(&account)).transpose()?)
    }

    /// What was decided about a Welcome.
    pub(super) fn decision(&self, channel: ChannelId, at: Offset) -> Result<Decision, EngineError> {
        let decision: Option<i64> = self
            .sql
            .prepare_cached("SELECT decision FROM pending_join WHERE channel = ?1 AND at = ?2")?
            .query_row(params![channel.as_bytes(), integer(at.get())?], |row| row.get(0))
            .optional()?;
        match decision.unwrap_or_default() {
            0 => Ok(Decision::None),
            1 => Ok(Decision::Waits),
            2 => Ok(Decision::Accepted),
            3 => Ok(Decision::Declined),
            _ => Err(VaultError::damaged("decision about a request").into()),
        }
    }

    /// Whether this agent may be added by another one without being asked, and that one's account as far as it is known.
    ///
    /// Who it is, its signature says; which account it has, the relay node. Where that is not known, the agent's log has given
    /// its KeyPackages to nobody but agents of its own account as long as the owner never allowed others.
    pub(super) fn trusts(&self, by: Option<&AgentId>) -> Result<(bool, Option<AccountId>), EngineError> {
        let trust: Trust = value(self.sql, TRUST)?;
        let theirs = by.map(|by| self.account_of(by)).transpose()?.flatten();
        let is_contact = || {
            let Some(by) = by else { return Ok(false) };
            self.sql
                .prepare_cached("SELECT EXISTS (SELECT 1 FROM contact WHERE agent = ?1)")?
                .query_row([by.as_bytes()], |row| row.get(0))
        };
        let is_trusted = trust.anyone
            || by.is_some_and(|by| trust.agents.contains(by))
            || theirs.is_some_and(|theirs| trust.accounts.contains(&theirs))
            || (trust.account
                && match theirs {
                    Some(_) => theirs == consent::account(self.sql)?,
                    None => !consent::was_ever_open(self.sql)?,
                })
            || (trust.contacts && is_contact()?);
        Ok((is_trusted, theirs))
    }

    /// Has a Welcome wait for the owner's word. Whether there was room for it.
    pub(super) fn hold_request(&mut self, request: JoinRequest) -> Result<bool, EngineError> {
        let waiting: i64 = self
            .sql
            .prepare_cached("SELECT count(*) FROM pending_join WHERE decision = ?1")?
            .query_row([Decision::Waits as i64], |row| row.get(0))?;
        if waiting >= REQUESTS_MAX {
            return Ok(false);
        }
        let JoinRequest {
            channel,
            offset,
            by,
            account,
            members,
            since_ms,
        } = request;
        self.sql
            .prepare_cached(
                "UPDATE pending_join SET decision = ?3, adder = ?4, account = ?5, members = ?6, held_ms = ?7
                 WHERE channel = ?1 AND at = ?2",
            )?
            .execute(params![
                channel.as_bytes(),
                integer(offset.get())?,
                Decision::Waits as i64,
                by.as_ref().map(AgentId::as_bytes),
                account.as_ref().map(AccountId::as_bytes),
                members,
                integer(since_ms)?,
            ])?;
        self.events.push(Event::Requested {
            channel,
            offset,
            by,
            account,
        });
        Ok(true)
    }

    /// This agent is in a group that it was added to: for good, or to leave it.
    pub(super) fn settle_decision(&mut self, channel: &mut Channel, decision: Decision) -> Result<(), EngineError> {
        channel.is_declined = decision == Decision::Declined;
        if !channel.is_declined {
            self.sql
                .prepare_cached("DELETE FROM declined WHERE channel = ?1")?
                .execute([channel.no])?;
            return Ok(());
        }
        self.sql
            .prepare_cached("INSERT INTO declined (channel) VALUES (?1) ON CONFLICT DO NOTHING")?
            .execute([channel.no])?;
        channel.position.state = ChannelState::Leaving;
        self.queue(channel, Intent::Leave, FrameId::generate(), &[], Place::Back)?;
        Ok(())
    }
}
