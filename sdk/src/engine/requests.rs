//! Additions that wait to be accepted: the agent that made them may claim KeyPackages, but is not trusted to add this
//! agent without a request.
//!
//! ```text
//!   a Welcome --join--> trusted? --yes--> in the channel
//!                          |                  ^
//!                          no                 | accept_request, and its bundle once more
//!                          v                  |
//!                       request --------------+
//!                          |
//!                          +-- decline_request, and its bundle once more --> in the group, unseen --> asked to leave --> forgotten
//!                                                                                 |                               ^
//!                                                                                 +-- a day without an answer ----+
//! ```
//!
//! Nothing of the channel is read until the addition is accepted: the Welcome stays where it is. An agent that declines
//! must enter the group to leave it, as others encrypt for it until then. Such a channel is followed but never shown:
//! its messages are not stored, and only the driver gets its events.

use super::channel::Channel;
use super::clock::millis;
use super::consent::{self, put_value, value};
use super::outbox::{Intent, Place};
use super::transact::{Tx, now_ms};
use super::{ChannelState, Engine, EngineError, Event};
use crate::vault::{Durability, VaultError, id, integer, unsigned};
use rusqlite::{Connection, OptionalExtension, params};
use serde::{Deserialize, Serialize};
use skytale_proto::{AccountId, AgentId, ChannelId, FrameId, Offset};
use std::collections::BTreeSet;
use std::time::Duration;

/// Maximum number of pending requests, so that agents that may claim but are not trusted cannot fill the vault. Further
/// ones are recorded as unused Welcomes.
const REQUESTS_MAX: i64 = 256;
/// Maximum number of pending requests by agents of one account, so that it leaves room for others.
const REQUESTS_OF_ACCOUNT_MAX: i64 = 64;
/// Number of the newest Welcomes that wait for one channel. The oldest one is kept as well: later ones may be useless.
const WELCOMES_OF_CHANNEL_MAX: i64 = 3;
/// Time after which an agent forgets a channel that it declined and that did not let it go.
const DECLINED_FOR: Duration = Duration::from_secs(24 * 3_600);
/// Number of claimers whose accounts are remembered: the latest ones.
const CLAIMERS_MAX: i64 = 4_096;

/// The name of a value in the vault. Persisted: keep stable.
const TRUST: &str = "trust";

/// Agents that may add this one to a channel without a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Trust {
    /// Agents of its own account.
    pub account: bool,
    /// Agents that it has named.
    pub contacts: bool,
    /// All agents; overrides the other fields.
    pub anyone: bool,
    /// Agents of these accounts.
    pub accounts: Vec<AccountId>,
    /// These agents.
    pub agents: Vec<AgentId>,
}

impl Trust {
    /// Trusts nobody: every addition waits to be accepted.
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
    /// The agent that made the addition, proven by a signature; `None` if the log no longer has the bundle.
    pub by: Option<AgentId>,
    /// The account of that agent, according to the relay node.
    pub account: Option<AccountId>,
    /// Number of members of the group at that time, including this agent.
    pub members: Option<u32>,
    /// Time since which it waits, unix milliseconds by this machine's clock.
    pub since_ms: u64,
}

impl JoinRequest {
    /// Creates a request for a channel with only the bundle's offset known, for tests of applications.
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

    /// Creates a request with the present time.
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

/// Decision about a Welcome. Persisted: keep stable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    None = 0,
    Waits = 1,
    Accepted = 2,
    Declined = 3,
}

impl Engine {
    /// Returns which agents may add this one without a request.
    pub fn trust(&self) -> Result<Trust, EngineError> {
        value(self.vault.sql(), TRUST)
    }

    /// Sets which agents may add this one without a request. Pending requests keep waiting.
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

    /// Lists the pending requests, oldest first. Each channel has at most one: the latest.
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

    /// Accepts an addition: the agent joins the channel by its bundle, which [`Engine::pending_joins`] lists again.
    pub fn accept_request(&mut self, channel: ChannelId) -> Result<(), EngineError> {
        self.decide(channel, Decision::Accepted)
    }

    /// Declines an addition: the agent enters the group by its bundle, which [`Engine::pending_joins`] lists again,
    /// leaves it at once, and then forgets the channel. Nothing of it is shown.
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

    /// Returns declined channels that the agent is leaving. They are followed, but not shown.
    pub fn declined(&self) -> Result<BTreeSet<ChannelId>, EngineError> {
        self.vault
            .sql()
            .prepare_cached("SELECT c.id FROM declined d JOIN channel c ON c.no = d.channel")?
            .query_map([], |row| row.get::<_, Vec<u8>>(0))?
            .map(|channel| Ok(id(&channel?)?))
            .collect()
    }

    /// Gives up declined channels that have not let this agent go for a day since its request to leave is in the log: it
    /// leaves them for itself, whatever their members do. Returns these channels.
    pub fn give_up_declined(&mut self) -> Result<Vec<ChannelId>, EngineError> {
        let now_ms = self.clocks.now_ms();
        let until = now_ms.saturating_sub(millis(DECLINED_FOR));
        let sql = self.vault.sql();
        let is_new: bool = sql
            .prepare_cached(
                "SELECT EXISTS (SELECT 1 FROM declined WHERE since_ms = 0 AND NOT EXISTS (SELECT 1 FROM outbox o WHERE o.channel = declined.channel))",
            )?
            .query_row([], |row| row.get(0))?;
        if is_new {
            let now = integer(now_ms.max(1))?;
            self.transact(Durability::Later, |tx| {
                tx.sql
                    .prepare_cached(
                        "UPDATE declined SET since_ms = ?1
                         WHERE since_ms = 0 AND NOT EXISTS (SELECT 1 FROM outbox o WHERE o.channel = declined.channel)",
                    )?
                    .execute([now])?;
                Ok(())
            })?;
        }
        let overdue: Vec<ChannelId> = self
            .vault
            .sql()
            .prepare_cached(
                "SELECT c.id FROM declined d JOIN channel c ON c.no = d.channel WHERE d.since_ms BETWEEN 1 AND ?1",
            )?
            .query_map([integer(until)?], |row| row.get::<_, Vec<u8>>(0))?
            .map(|channel| Ok::<_, EngineError>(id(&channel?)?))
            .collect::<Result<_, _>>()?;
        let mut given_up = Vec::new();
        for channel in overdue {
            if self.channel(channel)?.state != ChannelState::Left {
                self.transact_on(channel, Durability::Now, |tx, channel| tx.leave_for_itself(channel))?;
                given_up.push(channel);
            }
        }
        Ok(given_up)
    }

    /// Forgets declined channels that were left. Returns whether there were any.
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
    /// Records the account of an agent that has claimed one of this agent's KeyPackages.
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

    /// Returns the decision about a Welcome.
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

    /// Whether another agent may add this one without a request, with that agent's account if it is known.
    ///
    /// Its signature proves its identity; the relay node names its account. If the account is unknown and the owner
    /// never allowed other accounts, only agents of the own account can have claimed a KeyPackage.
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

    /// Holds a Welcome until the owner decides. Returns whether there was room for it.
    pub(super) fn hold_request(&mut self, request: JoinRequest) -> Result<bool, EngineError> {
        let room = self
            .sql
            .prepare_cached(
                "SELECT count(DISTINCT channel) < ?3, count(DISTINCT channel) FILTER (WHERE account IS ?4) < ?5
                 FROM pending_join WHERE decision = ?1 AND channel <> ?2",
            )?
            .query_row(
                params![
                    Decision::Waits as i64,
                    request.channel.as_bytes(),
                    REQUESTS_MAX,
                    request.account.as_ref().map(AccountId::as_bytes),
                    REQUESTS_OF_ACCOUNT_MAX,
                ],
                |row| Ok(row.get::<_, bool>(0)? && row.get::<_, bool>(1)?),
            )?;
        if !room {
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
        self.sql
            .prepare_cached(
                "DELETE FROM pending_join WHERE channel = ?1 AND decision = ?2 AND at NOT IN
                 (SELECT at FROM pending_join WHERE channel = ?1 AND decision = ?2 ORDER BY at DESC LIMIT ?3)
                 AND at > (SELECT min(at) FROM pending_join WHERE channel = ?1 AND decision = ?2)",
            )?
            .execute(params![
                channel.as_bytes(),
                Decision::Waits as i64,
                WELCOMES_OF_CHANNEL_MAX
            ])?;
        self.events.push(Event::Requested {
            channel,
            offset,
            by,
            account,
        });
        Ok(true)
    }

    /// Completes a decision once this agent has entered the group: to stay, or to leave it.
    pub(super) fn settle_decision(&mut self, channel: &mut Channel, decision: Decision) -> Result<(), EngineError> {
        channel.is_declined = decision == Decision::Declined;
        if !channel.is_declined {
            self.sql
                .prepare_cached("DELETE FROM declined WHERE channel = ?1")?
                .execute([channel.no])?;
            return Ok(());
        }
        self.sql
            .prepare_cached("INSERT INTO declined (channel) VALUES (?1) ON CONFLICT DO UPDATE SET since_ms = 0")?
            .execute([channel.no])?;
        channel.position.state = ChannelState::Leaving;
        self.queue(channel, Intent::Leave, FrameId::generate(), &[], Place::Back)?;
        Ok(())
    }
}
