//! A channel whose members each work with their own node, with a record of its messages.

use super::super::replicas::{Replicas, account, channel_at, close};
use crate::agent::world::{channel_of, reach, soon, texts, transcript};
use crate::ratchets::{Ratchets, leaves};
use prost::Message as _;
use skytale_log_store::faulty::Way;
use skytale_proto::wire::Bundle;
use skytale_proto::{ChannelId, Detail, Frame, FrameId, Kind, Offset};
use skytale_sdk::{Agent, Channel, ChannelState, Lost, Standing};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// As the agents' settings have it.
const KEY: [u8; 32] = [9; 32];
const POLL: Duration = Duration::from_millis(20);

pub(super) struct Room {
    pub(super) replicas: Replicas,
    pub(super) agents: Vec<Agent>,
    pub(super) channels: Vec<Channel>,
    pub(super) id: ChannelId,
    /// All entries that ever existed.
    log: BTreeMap<Offset, Frame>,
    /// Sent messages.
    said: BTreeSet<FrameId>,
    ratchets: Ratchets,
}

pub(super) fn name(number: usize) -> String {
    format!("agent-{number}")
}

impl Room {
    /// As many members as nodes, each with the node of its number.
    pub(super) async fn of(count: usize) -> Self {
        let replicas = Replicas::start(&account().await, count).await;
        let mut agents = Vec::new();
        for number in 0..count {
            agents.push(replicas.agent(&name(number), number).await);
        }
        let channels = channel_of(&agents.iter().collect::<Vec<_>>()).await;
        let mut room = Self {
            id: channels[0].id(),
            replicas,
            agents,
            channels,
            log: BTreeMap::new(),
            said: BTreeSet::new(),
            ratchets: Ratchets::default(),
        };
        for agent in &room.agents {
            soon("all out", agent.flushed()).await.expect("flushed");
        }
        for number in 0..count {
            room.say(number, &format!("{number} is here")).await;
        }
        let all: Vec<usize> = (0..count).collect();
        room.all_reach(&all).await;
        room.learn(0).await;
        room
    }

    pub(super) async fn say(&mut self, number: usize, text: &str) -> Offset {
        let sent = self.channels[number].send(text.to_owned()).await.expect("queued");
        self.said.insert(sent.frame_id());
        let delivered = soon(text, sent.delivered()).await.expect("delivered");
        delivered.offset().expect("a message has a place")
    }

    /// Puts a message into the outbox, to go out when it can.
    pub(super) async fn queue(&mut self, number: usize, text: &str) {
        let sent = self.channels[number].send(text.to_owned()).await.expect("queued");
        self.said.insert(sent.frame_id());
    }

    /// Waits until members have read all that any of them has.
    pub(super) async fn all_reach(&self, members: &[usize]) {
        let mut last = Offset::ZERO;
        for member in members {
            last = last.max(self.channels[*member].cursor().await.expect("a cursor"));
        }
        for member in members {
            reach(&self.channels[*member], last).await;
        }
    }

    /// Learns the secrets of the epoch that a member is in, for the search at the end.
    pub(super) async fn learn(&mut self, member: usize) {
        let file = self.replicas.vault(&name(member)).with_extension("copy");
        self.agents[member].backup(&file, true).await.expect("a copy");
        self.ratchets.learn(&file, &KEY);
    }

    pub(super) async fn standing(&self, member: usize) -> Standing {
        self.channels[member].info().await.expect("known").standing
    }

    pub(super) async fn stands(&self, member: usize, wanted: Standing) {
        let waiting = async {
            while self.standing(member).await != wanted {
                tokio::time::sleep(POLL).await;
            }
        };
        soon(&format!("member {member} to be {wanted:?}"), waiting).await;
    }

    /// Waits until a member knows that it is none any more.
    pub(super) async fn has_left(&self, member: usize) {
        let waiting = async {
            while self.channels[member].info().await.expect("known").state != ChannelState::Left {
                tokio::time::sleep(POLL).await;
            }
        };
        soon(&format!("member {member} to know of its removal"), waiting).await;
    }

    /// Takes down what is in the log, before any of it is given up.
    async fn keep_log(&mut self) {
        let after = self.log.keys().next_back().copied().unwrap_or(Offset::ZERO);
        self.log.extend(self.replicas.entries(self.id, after).await);
    }

    /// Members that are away miss a commit and messages before and after it; then all of that is given up. Gives the last
    /// entry that is gone.
    pub(super) async fn lose_a_commit(&mut self, away: &[usize]) -> Offset {
        for member in away {
            self.agents[*member].disconnect().await;
        }
        self.say(0, "before the commit").await;
        let rotated = self.channels[0].rotate().await.expect("queued");
        soon("rotated", rotated.delivered()).await.expect("delivered");
        self.say(0, "after the commit").await;
        let here: Vec<usize> = (0..self.agents.len()).filter(|member| !away.contains(member)).collect();
        self.all_reach(&here).await;
        self.learn(0).await;
        self.give_up().await
    }

    /// Gives up all of the channel's log.
    pub(super) async fn give_up(&mut self) -> Offset {
        self.keep_log().await;
        self.replicas.trim(self.id.log()).await
    }

    /// Holds back frames of a kind at nodes, until they are released.
    pub(super) fn hold(&self, nodes: &[usize], kind: Kind) {
        for node in nodes {
            self.replicas.fleet.nodes[*node].store.hold(Some(kind));
        }
    }

    /// Waits until each of these nodes holds a frame back that fits, and gives them.
    pub(super) async fn held(&self, nodes: &[usize], what: &str, fits: impl Fn(&Frame) -> bool) -> Vec<Frame> {
        let log = self.id.log();
        let mut found = Vec::new();
        for node in nodes {
            let store = &self.replicas.fleet.nodes[*node].store;
            let waiting = async {
                loop {
                    let held = store.held().into_iter();
                    if let Some(frame) = held.filter(|frame| frame.header().log == log).find(&fits) {
                        return frame;
                    }
                    tokio::time::sleep(POLL).await;
                }
            };
            found.push(soon(&format!("{what}, held back at node {node}"), waiting).await);
        }
        found
    }

    pub(super) fn let_go(&self, nodes: &[usize]) {
        for node in nodes {
            self.replicas.fleet.nodes[*node].store.hold(None);
        }
    }

    /// Sets whether agents at these nodes are shown the log.
    pub(super) fn shows(&self, nodes: &[usize], shows: bool) {
        for node in nodes {
            let way = if shows { Way::Through } else { Way::Silent };
            self.replicas.fleet.nodes[*node].store.reads(way);
        }
    }

    /// Releases the frames held back at these nodes at the same moment. No agent there is shown anything before all of
    /// them have been appended.
    pub(super) async fn race(&self, nodes: &[usize]) {
        let stores = nodes.iter().map(|node| &self.replicas.fleet.nodes[*node].store);
        let counts: Vec<_> = stores.map(|store| (store, store.frames())).collect();
        self.shows(nodes, false);
        self.let_go(nodes);
        for (store, before) in counts {
            soon("appended", store.taken(before + 1)).await;
        }
        self.shows(nodes, true);
    }

    /// Waits until all of these frames are entries.
    pub(super) async fn are_entries(&mut self, frames: &[Frame]) {
        let waiting = async {
            loop {
                self.keep_log().await;
                if frames.iter().all(|frame| self.log.values().any(|entry| entry == frame)) {
                    return;
                }
                tokio::time::sleep(POLL).await;
            }
        };
        soon("entries", waiting).await;
    }

    /// The commit at an offset or behind it, when there is one.
    pub(super) async fn commit_after(&mut self, offset: Offset) -> (Offset, Frame) {
        let waiting = async {
            loop {
                self.keep_log().await;
                let mut later = self.log.range(offset.next()..);
                if let Some((at, frame)) = later.find(|(_, frame)| frame.header().kind() == Kind::Commit) {
                    return (*at, frame.clone());
                }
                tokio::time::sleep(POLL).await;
            }
        };
        soon("a commit", waiting).await
    }

    /// Ends everybody, gives the vaults what `change` does to them, and opens them again, not connected.
    pub(super) async fn while_closed(&mut self, change: impl FnOnce(&Replicas)) {
        self.channels.clear();
        for agent in std::mem::take(&mut self.agents) {
            close(agent).await;
        }
        change(&self.replicas);
        for number in 0..self.replicas.fleet.nodes.len() {
            let agent = self.replicas.open(&name(number), number).await;
            self.channels.push(channel_at(&agent, self.id).await);
            self.agents.push(agent);
        }
    }

    pub(super) async fn connect(&self, members: &[usize]) {
        for member in members {
            self.agents[*member].connect().await.expect("a socket");
        }
    }

    /// Checks that exactly these members are current: each sends and is read by all, they are in one group, and each
    /// has read every message or knows that it lost it. Nobody has used a key twice.
    pub(super) async fn holds(mut self, members: &[usize]) {
        for member in members {
            self.stands(*member, Standing::Current).await;
            soon("all out", self.agents[*member].flushed()).await.expect("flushed");
        }
        for member in members {
            self.say(*member, &format!("{member} is back")).await;
        }
        self.all_reach(members).await;
        self.learn(members[0]).await;
        let mut ids: Vec<_> = members.iter().map(|member| self.agents[*member].id()).collect();
        ids.sort_unstable();
        let first = &self.channels[members[0]];
        let (info, digest) = (
            first.info().await.expect("known"),
            first.digest().await.expect("a digest"),
        );
        for member in members {
            let channel = &self.channels[*member];
            let theirs = channel.info().await.expect("known");
            assert_eq!(
                (theirs.epoch, theirs.cursor),
                (info.epoch, info.cursor),
                "member {member}"
            );
            assert_eq!(theirs.handshake_head, info.handshake_head, "member {member}");
            assert_eq!(channel.digest().await.expect("a digest"), digest, "member {member}");
            assert_eq!(channel.members().await.expect("known"), ids, "member {member}");
            assert_eq!(channel.failed().await.expect("listed"), [], "member {member}");
            assert_eq!(channel.divergences().await.expect("listed"), [], "member {member}");
            assert_eq!(
                channel.unreadable(Offset::ZERO, 100).await.expect("listed"),
                [],
                "member {member}"
            );
            let last: Vec<String> = texts(&transcript(channel).await);
            let said: BTreeSet<&String> = last[last.len() - members.len()..].iter().collect();
            let expected: Vec<String> = members.iter().map(|member| format!("{member} is back")).collect();
            assert_eq!(said, expected.iter().collect(), "member {member}");
        }
        self.keep_log().await;
        for member in members {
            self.is_told_exactly(*member).await;
        }
        self.ends(members).await;
    }

    /// Each message was read, or its offset was reported as lost; and nothing else was.
    async fn is_told_exactly(&self, member: usize) {
        let channel = &self.channels[member];
        let read: BTreeMap<Offset, FrameId> = transcript(channel)
            .await
            .into_iter()
            .map(|m| (m.offset, m.frame_id))
            .collect();
        let lost: Vec<Lost> = channel.lost().await.expect("listed");
        let is_lost = |offset: &Offset| lost.iter().any(|lost| (lost.first..=lost.last).contains(offset));
        for (offset, frame) in &self.log {
            let header = frame.header();
            if header.kind() == Kind::Message && self.said.contains(&header.id) {
                let is_read = read.get(offset) == Some(&header.id);
                assert!(
                    is_read != is_lost(offset),
                    "member {member}: message at {offset}: read {is_read}, told lost {}: {lost:?}",
                    is_lost(offset)
                );
            }
        }
        for lost in &lost {
            let is_message = |(_, frame): (&Offset, &Frame)| frame.header().kind() == Kind::Message;
            assert!(
                self.log.range(lost.first..=lost.last).any(is_message),
                "member {member}: {lost:?}"
            );
        }
    }

    /// Closes everybody. Checks that no vault has more leaves than there are members, and that no ratchet key was used
    /// twice in any frame offered to any node.
    async fn ends(mut self, members: &[usize]) {
        self.channels.clear();
        for agent in self.agents {
            close(agent).await;
        }
        for member in members {
            let vault = self.replicas.vault(&name(*member));
            assert_eq!(leaves(&vault, &KEY), [members.len()], "leaves at member {member}");
            self.ratchets.learn(&vault, &KEY);
        }
        let offered = self.replicas.offered();
        let of_channel = offered.iter().filter(|frame| frame.header().log == self.id.log());
        let keys = self
            .ratchets
            .search(of_channel)
            .unwrap_or_else(|problem| panic!("{problem}"));
        assert!(keys > self.said.len(), "{keys} keys were searched");
        self.replicas.end().await;
    }
}

/// Whether a frame reboots the group.
pub(super) fn is_reboot(frame: &Frame) -> bool {
    Bundle::decode(frame.body().clone()).is_ok_and(|bundle| bundle.reboot)
}

/// Agents that a commit adds, by its header.
pub(super) fn adds(frame: &Frame) -> BTreeSet<skytale_proto::AgentId> {
    match &frame.header().detail {
        Detail::Commit { adds, .. } => adds.iter().copied().collect(),
        _ => BTreeSet::new(),
    }
}
