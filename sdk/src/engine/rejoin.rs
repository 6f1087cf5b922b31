//! Requests to rejoin: this agent's own, and those of other members.
//!
//! A member that is out of sync appends a request with a KeyPackage of its own. An online member commits its removal
//! and addition in one commit, in the same turn as for leaving members; the first commit wins. The request is bound to
//! one handshake head, and signed.

use super::channel::Channel;
use super::outbox::{Intent, OutboxRow, Place};
use super::transact::{Tx, storage_failed};
use super::{EngineError, Event};
use crate::mls;
use crate::vault::{id, integer, unsigned};
use openmls::group::MlsGroup;
use openmls::key_packages::KeyPackage;
use prost::Message as _;
use rusqlite::{Connection, OptionalExtension as _, params};
use skytale_proto::wire::Bundle;
use skytale_proto::{AgentId, Detail, Frame, FrameId, Header, Offset};
use std::collections::BTreeSet;

/// Reason why a Welcome does not lead back into the group.
pub(super) struct NotBack {
    pub(super) reason: String,
    /// Whether no member may move to its group: everyone who can open it comes to the same result.
    pub(super) for_all: bool,
    /// Whether its author was not in the group that this agent knows.
    pub(super) by_stranger: bool,
}

/// Returns the members with pending requests.
pub(super) fn requests(sql: &Connection, channel_no: i64) -> Result<BTreeSet<AgentId>, EngineError> {
    sql.prepare_cached("SELECT agent FROM rejoin WHERE channel = ?1")?
        .query_map([channel_no], |row| row.get::<_, Vec<u8>>(0))?
        .map(|agent| Ok(id(&agent?)?))
        .collect()
}

impl Tx<'_> {
    // ---- this agent's own

    /// Queues a request, before everything else.
    pub(super) fn ask_to_rejoin(&mut self, channel: &mut Channel) -> Result<(), EngineError> {
        if self.waits(channel, Intent::Rejoin)? {
            return Ok(());
        }
        let package = self.key_package_for_rejoin()?;
        let row = self.queue(channel, Intent::Rejoin, FrameId::generate(), &package, Place::Front)?;
        channel.offered.again();
        channel.offered.next_seq = Some(row.seq);
        Ok(())
    }

    pub(super) fn build_rejoin(&mut self, channel: &mut Channel, row: &mut OutboxRow) -> Result<Frame, EngineError> {
        let header = Header {
            log: channel.log(),
            id: row.frame_id,
            author: self.identity.agent_id(),
            parent: channel.position.head,
            detail: Detail::Rejoin,
        };
        let mut refused = channel.returned.clone();
        refused.extend(&channel.offered.strangers);
        let body = mls::RejoinRequest::body(
            self.identity,
            channel.id,
            &header,
            &row.content,
            applied(channel),
            &refused,
        );
        let frame = Frame::new(header, body)?;
        self.built(channel, row, &frame)?;
        Ok(frame)
    }

    /// Tries a commit that adds this agent while it is out of sync. Returns whether its Welcome leads back into the
    /// group.
    pub(super) fn try_rejoin(
        &mut self,
        channel: &mut Channel,
        offset: Offset,
        frame: &Frame,
        bundle: &Bundle,
    ) -> Result<Result<(), NotBack>, EngineError> {
        let scratch = self.provider.scratch(None);
        match mls::welcomed(&scratch, channel.id, frame, &bundle.welcome, self.config.padding_bytes) {
            Ok(welcomed) => {
                if let Some(problem) = unexpected(channel, frame, bundle, &welcomed) {
                    return Ok(Err(NotBack {
                        reason: problem.to_owned(),
                        for_all: true,
                        by_stranger: problem == STRANGER,
                    }));
                }
                let by = frame.header().author;
                self.rejoined(channel, welcomed, &scratch, offset, by)?;
                Ok(Ok(()))
            }
            Err(rejected) => {
                let reason = rejected.into_reason()?;
                match scratch.failure() {
                    Some(failure) => Err(storage_failed(failure)),
                    None => Ok(Err(NotBack {
                        reason,
                        for_all: false,
                        by_stranger: false,
                    })),
                }
            }
        }
    }

    // ---- other members'

    /// Records a member's request in the log.
    pub(super) fn note_request(
        &mut self,
        channel: &mut Channel,
        offset: Offset,
        frame: &Frame,
    ) -> Result<Result<(), String>, EngineError> {
        let author = frame.header().author;
        let request = match mls::RejoinRequest::read(self.provider, channel.id, frame) {
            Ok(request) => request,
            Err(problem) => return Ok(Err(problem)),
        };
        // A member that is out of sync knows its last group: a relay node cannot bring a stranger into the next one.
        let known = |group| mls::members(group).contains(&author);
        if !channel.group.as_ref().is_some_and(known) {
            return Ok(Err("its author is not in the group".into()));
        }
        self.sql
            .prepare_cached(
                "INSERT OR REPLACE INTO rejoin (channel, agent, at, key_package, applied, refused)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            )?
            .execute(params![
                channel.no,
                author.as_bytes(),
                integer(offset.get())?,
                request.key_package,
                integer(request.applied.get())?,
                request.refused
            ])?;
        channel.rejoins.insert(author);
        if author != self.identity.agent_id() {
            self.events.push(Event::MemberOutOfSync {
                channel: channel.id,
                offset,
                agent: author,
            });
        }
        Ok(Ok(()))
    }

    /// Removes requests that are answered or obsolete: their authors were added, removed, or active in this epoch.
    pub(super) fn forget_requests(&self, channel: &mut Channel, agents: &BTreeSet<AgentId>) -> Result<(), EngineError> {
        let answered: Vec<AgentId> = channel.rejoins.intersection(agents).copied().collect();
        for agent in answered {
            self.sql
                .prepare_cached("DELETE FROM rejoin WHERE channel = ?1 AND agent = ?2")?
                .execute(params![channel.no, agent.as_bytes()])?;
            channel.rejoins.remove(&agent);
        }
        Ok(())
    }

    /// Whether a request of another copy of this vault is pending in the log.
    pub(super) fn other_copy_asked(&self, channel: &Channel) -> bool {
        channel.rejoins.contains(&self.identity.agent_id())
    }

    /// Returns the packages of members to be removed and added again with the next commit.
    pub(super) fn rejoining(&self, channel: &Channel, group: &MlsGroup) -> Result<Vec<KeyPackage>, EngineError> {
        let (members, leaving) = (mls::members(group), mls::leavers(group));
        let own = self.identity.agent_id();
        let mut packages = Vec::new();
        for agent in &channel.rejoins {
            if *agent == own
                || !members.contains(agent)
                || leaving.contains(agent)
                || !self.is_known_to(channel, agent)?
            {
                continue;
            }
            // It was checked on arrival.
            if let Some(bytes) = self.requested_with(channel, agent)?
                && let Ok((_, package)) = mls::added_package(self.provider, &bytes)
            {
                packages.push(package);
            }
        }
        Ok(packages)
    }

    /// Whether a requesting member knows this agent from its last group: it accepts no answers from others.
    fn is_known_to(&self, channel: &Channel, agent: &AgentId) -> Result<bool, EngineError> {
        let request: Option<(i64, Vec<u8>)> = self
            .sql
            .prepare_cached("SELECT applied, refused FROM rejoin WHERE channel = ?1 AND agent = ?2")?
            .query_row(params![channel.no, agent.as_bytes()], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })
            .optional()?;
        let (applied, refused) = request.unwrap_or_default();
        if refused
            .chunks(AgentId::LENGTH)
            .any(|refused| refused == self.identity.agent_id().as_bytes())
        {
            return Ok(false);
        }
        let applied = Offset::new(unsigned(applied)?);
        Ok(applied == Offset::ZERO || applied >= channel.position.joined)
    }

    /// Returns the KeyPackage of a member's request.
    pub(super) fn requested_with(&self, channel: &Channel, agent: &AgentId) -> Result<Option<Vec<u8>>, EngineError> {
        Ok(self
            .sql
            .prepare_cached("SELECT key_package FROM rejoin WHERE channel = ?1 AND agent = ?2")?
            .query_row(params![channel.no, agent.as_bytes()], |row| row.get(0))
            .optional()?)
    }
}

const STRANGER: &str = "its author was not in the group that this agent knew";

/// Returns the contradiction between a Welcome's group and this member's knowledge, if there is one.
fn unexpected(channel: &Channel, frame: &Frame, bundle: &Bundle, welcomed: &mls::Welcomed) -> Option<&'static str> {
    let apart = channel.position.recovery.standing.is_apart();
    // Anybody can create a group with this channel's id, and a relay node can show its Welcome: only a member that this
    // agent knew can take it back.
    if let Some(group) = channel.group.as_ref()
        && !mls::members(group).contains(&frame.header().author)
    {
        return Some(STRANGER);
    }
    if bundle.reboot && welcomed.reboot != frame.header().parent.get() {
        return Some("a new beginning at another place than its bundle's");
    }
    if !bundle.reboot
        && (welcomed.reboot < channel.position.reboot || (!apart && welcomed.reboot > channel.position.reboot))
    {
        return Some("a group of the channel that is not its present one");
    }
    let Detail::Commit { adds, removes, .. } = &frame.header().detail else {
        return Some("not a commit");
    };
    if bundle.reboot {
        // The relay accepts removals only of agents on the roster, so nobody can come in this way.
        let mut named: BTreeSet<AgentId> = adds.iter().copied().collect();
        if !named.is_subset(&removes.iter().copied().collect()) {
            return Some("a new beginning that brings in agents who were not in the channel");
        }
        named.insert(frame.header().author);
        if welcomed.members != named {
            return Some("a new beginning with other agents than its header names");
        }
        let (said_roster, said_policy) = match &frame.header().detail {
            Detail::Commit { roster, policy, .. } => (roster.as_ref(), policy.as_ref()),
            _ => (None, None),
        };
        if said_roster.is_some_and(|roster| !roster.iter().eq(&named)) {
            return Some("a new beginning with another roster than its header says");
        }
        let policy = mls::policy(&welcomed.group);
        if said_policy.is_some() && said_policy != policy.as_ref() {
            return Some("a new beginning with another policy than its header says");
        }
        if let Some(group) = channel.group.as_ref().filter(|_| !apart) {
            let kept = mls::policy(group).map(|policy| policy.with_admins(|agent| named.contains(agent)));
            if policy != kept {
                return Some("a new beginning with another policy than the group had");
            }
        }
    }
    match channel.group.as_ref() {
        Some(group) if !apart => {
            let mut allowed = mls::members(group);
            if !bundle.reboot {
                allowed.extend(adds);
            }
            (!welcomed.members.is_subset(&allowed)).then_some("a group with agents that were not in this one")
        }
        _ => None,
    }
}

/// Returns the last epoch whose members this agent knows.
fn applied(channel: &Channel) -> Offset {
    match channel.group {
        Some(_) => channel.position.applied.min(channel.position.head),
        None => Offset::ZERO,
    }
}

/// Whether members that a group knows wait to be added again.
pub(super) fn anyone_waits(channel: &Channel, own: AgentId) -> bool {
    channel.rejoins.iter().any(|agent| *agent != own)
}

/// Reads the content of a bundle.
pub(super) fn read_bundle(frame: &Frame) -> Result<Bundle, String> {
    Bundle::decode(frame.body().clone()).map_err(|error| error.to_string())
}
