//! Random schedules of failures: restored or copied vaults, retention, crashes, races. In the end every member has
//! recovered, and knows which entries it cannot read.

use super::relay::{Agent, Relay, assert_agree, channel_of, settle};
use proptest::prelude::*;
use skytale_proto::{AgentId, ChannelId, Detail, Frame, FrameId, Offset, Record};
use skytale_sdk::{ChannelState, Event, Standing};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

const AGENTS: usize = 3;
/// Maximum number of rounds, with an operator's word, in which all members must recover.
const ROUNDS_MAX: usize = 12;

type Files = Vec<(PathBuf, Vec<u8>)>;

#[derive(Clone, Copy, Debug)]
enum Step {
    Send(usize),
    Rotate(usize),
    Remove(usize, usize),
    Add(usize, usize),
    Pull(usize, usize),
    /// Reads to the head and appends.
    Meet(usize),
    /// Appends, and loses the answers.
    PushAndLose(usize),
    Crash(usize),
    /// Copies the vault.
    Copy(usize),
    /// Replaces the vault by the last copy, like a person that copies a file.
    PutBack(usize),
    /// Replaces the vault by the last copy, like a snapshot of the disk.
    RollBack(usize),
    /// Starts a second process with the last copy; it reads and sends with [`Step::Second`].
    Fork(usize),
    Second(usize),
    /// Trims a part of the log, in quarters of its present entries.
    Trim(usize),
    /// Trims all of an agent's own log.
    TrimOwn(usize),
    Reboot(usize),
    TakeTurn(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let who = 0..AGENTS;
    let pair = (0..AGENTS, 0..AGENTS);
    prop_oneof![
        6 => who.clone().prop_map(Step::Send),
        2 => who.clone().prop_map(Step::Rotate),
        1 => pair.clone().prop_map(|(a, b)| Step::Remove(a, b)),
        1 => pair.prop_map(|(a, b)| Step::Add(a, b)),
        2 => (who.clone(), 1..6usize).prop_map(|(a, n)| Step::Pull(a, n)),
        6 => who.clone().prop_map(Step::Meet),
        2 => who.clone().prop_map(Step::PushAndLose),
        1 => who.clone().prop_map(Step::Crash),
        2 => who.clone().prop_map(Step::Copy),
        1 => who.clone().prop_map(Step::PutBack),
        2 => who.clone().prop_map(Step::RollBack),
        1 => who.clone().prop_map(Step::Fork),
        2 => who.clone().prop_map(Step::Second),
        1 => (1..5usize).prop_map(Step::Trim),
        1 => who.clone().prop_map(Step::TrimOwn),
        1 => who.clone().prop_map(Step::Reboot),
        1 => who.prop_map(Step::TakeTurn),
    ]
}

/// An agent, its copy, and a second process with that copy.
struct Player {
    agent: Agent,
    /// Whether the session has reached the channel's head, so that queued frames may go out.
    reached: bool,
    copy: Option<Files>,
    second: Option<Box<Player>>,
}

impl Player {
    fn new(agent: Agent) -> Self {
        Self {
            agent,
            reached: false,
            copy: None,
            second: None,
        }
    }

    fn pull(&mut self, relay: &Relay, channel: ChannelId, limit: usize) {
        self.agent.read_own_log(relay);
        self.agent.pull(relay, channel, limit);
        let cursor = self.agent.engine().cursor(channel).expect("known");
        self.reached |= cursor >= relay.head(channel.log());
    }

    fn meet(&mut self, relay: &Relay, channel: ChannelId) {
        self.pull(relay, channel, usize::MAX);
        if self.reached {
            self.agent.push(relay, channel);
        }
    }
}

struct Story {
    relay: Relay,
    channel: ChannelId,
    players: Vec<Player>,
    /// Sent messages.
    sent: BTreeMap<FrameId, (AgentId, String)>,
    /// All entries that ever existed.
    log: BTreeMap<Offset, Record>,
    /// Deliveries that any agent saw, with their offsets.
    delivered: BTreeSet<(FrameId, Offset)>,
    /// Agents whose vault existed twice, at the same time or one after the other.
    copied: BTreeSet<AgentId>,
}

impl Story {
    fn new() -> Self {
        let relay = Relay::new();
        let mut agents: Vec<Agent> = (0..AGENTS).map(|_| Agent::new()).collect();
        let mut all: Vec<&mut Agent> = agents.iter_mut().collect();
        let channel = channel_of(&relay, &mut all);
        Self {
            relay,
            channel,
            players: agents.into_iter().map(Player::new).collect(),
            sent: BTreeMap::new(),
            log: BTreeMap::new(),
            delivered: BTreeSet::new(),
            copied: BTreeSet::new(),
        }
    }

    fn keep_log(&mut self) {
        let log = self.channel.log();
        let after = self.log.keys().next_back().copied().unwrap_or(Offset::ZERO);
        let after = after.max(self.relay.status(log).first.previous());
        let fresh = self.relay.entries(log, after);
        self.log.extend(fresh.into_iter().map(|record| (record.offset, record)));
    }

    fn note(&mut self, events: Vec<Event>) {
        for event in events {
            if let Event::Delivered { frame_id, offset, .. } = event
                && self.sent.contains_key(&frame_id)
            {
                self.delivered.insert((frame_id, offset));
            }
        }
    }

    fn send(&mut self, who: usize, second: bool, text: &str) {
        let player = &mut self.players[who];
        let player = match (second, player.second.as_deref_mut()) {
            (true, Some(second)) => second,
            _ => player,
        };
        if let Ok(id) = player.agent.engine().send(self.channel, text.as_bytes()) {
            self.sent.insert(id, (player.agent.id(), text.to_owned()));
        }
    }

    fn step(&mut self, number: usize, step: Step) {
        let (channel, ids) = (self.channel, self.ids());
        if let Step::PutBack(who) | Step::RollBack(who) | Step::Fork(who) = step {
            self.copied.insert(ids[who]);
        }
        if let Step::Send(who) = step {
            return self.send(who, false, &format!("{who}: {number}"));
        }
        if let Step::Second(who) = step {
            self.send(who, true, &format!("{who} again: {number}"));
        }
        let Self { relay, players, .. } = self;
        match step {
            Step::Send(_) => {}
            Step::Rotate(who) => drop(players[who].agent.engine().update_keys(channel)),
            Step::Remove(who, whom) if who != whom => {
                drop(players[who].agent.engine().remove(channel, &[ids[whom]]));
            }
            Step::Add(who, whom) if who != whom => add(relay, channel, players, who, whom),
            Step::Remove(..) | Step::Add(..) => {}
            Step::Pull(who, limit) => players[who].pull(relay, channel, limit),
            Step::Meet(who) => players[who].meet(relay, channel),
            Step::PushAndLose(who) => {
                let player = &mut players[who];
                player.pull(relay, channel, usize::MAX);
                if player.reached
                    && let Ok(next) = player.agent.next_frames(channel, 4_096)
                {
                    player.agent.events.extend(next.events);
                    for frame in next.frames {
                        let _ = relay.append(frame.frame);
                    }
                    player.agent.engine().connection_lost();
                    player.reached = false;
                }
            }
            Step::Crash(who) => {
                players[who].agent.crash();
                players[who].reached = false;
            }
            Step::Copy(who) => {
                players[who].copy = Some(players[who].agent.vault_files());
                players[who].reached = false;
            }
            Step::PutBack(who) | Step::RollBack(who) => {
                let player = &mut players[who];
                if let Some(copy) = &player.copy {
                    match step {
                        Step::PutBack(_) => player.agent.put_back(copy),
                        _ => player.agent.roll_back(copy),
                    }
                    player.reached = false;
                }
            }
            Step::Fork(who) => {
                let player = &mut players[who];
                if let Some(copy) = &player.copy {
                    let mut second = player.agent.second(copy);
                    second.roll_back_to(copy);
                    let before = player.second.replace(Box::new(Player::new(second)));
                    let events = before.map(|mut before| before.agent.take_events());
                    self.note(events.unwrap_or_default());
                }
            }
            Step::Second(who) => {
                if let Some(second) = players[who].second.as_deref_mut() {
                    second.meet(relay, channel);
                }
            }
            Step::Trim(quarters) => {
                let (first, head) = (relay.status(channel.log()).first, relay.head(channel.log()));
                let up_to = first.get() + (head.get() - first.get()) * quarters as u64 / 4;
                self.keep_log();
                self.relay.trim(channel.log(), Offset::new(up_to));
            }
            Step::TrimOwn(who) => {
                let log = ids[who].log();
                if relay.head(log) >= relay.status(log).first {
                    relay.trim(log, relay.head(log));
                }
            }
            Step::Reboot(who) => {
                // By hand, by somebody who cannot follow the group.
                let player = &mut players[who];
                if standing(&mut player.agent, channel) == Some(Standing::OutOfSync) {
                    drop(player.agent.engine().reboot(channel, Vec::new()));
                }
            }
            Step::TakeTurn(who) => drop(players[who].agent.engine().take_turn(channel)),
        }
    }

    fn ids(&self) -> Vec<AgentId> {
        self.players.iter().map(|player| player.agent.id()).collect()
    }

    /// Ends second processes. The others wait for each other; an operator decides which copy continues, and reboots the
    /// group if nobody is left in it.
    fn end(&mut self) {
        for who in 0..AGENTS {
            if let Some(mut second) = self.players[who].second.take() {
                self.note(second.agent.take_events());
            }
        }
        let channel = self.channel;
        for round in 0..ROUNDS_MAX {
            self.settle();
            let mut busy = false;
            let mut current = 0;
            for player in &mut self.players {
                let engine = player.agent.engine();
                let info = engine.channel(channel).expect("known");
                if info.state != ChannelState::Active {
                    continue;
                }
                match info.standing {
                    Standing::Current => current += 1,
                    Standing::Renewing => busy = true,
                    Standing::Superseded => {
                        let events = engine.take_over().expect("taken");
                        player.agent.events.extend(events);
                        busy = true;
                    }
                    Standing::OutOfSync => {
                        busy = true;
                        if engine.reboot_turn(channel).expect("known") == Some(0) {
                            engine.reboot(channel, Vec::new()).expect("queued");
                        }
                    }
                    standing => panic!("{standing:?}"),
                }
            }
            if !busy {
                return;
            }
            if round > ROUNDS_MAX / 2 {
                match current {
                    0 => self.reboot_by_hand(),
                    _ => self.add_again_by_hand(),
                }
            }
        }
        let standings: Vec<_> = (self.players.iter_mut())
            .map(|player| player.agent.engine().channel(channel).expect("known"))
            .collect();
        panic!("not everybody is back: {standings:#?}");
    }

    /// Handles that nobody is left whom the out-of-sync members knew: a member removes and adds them, like a person
    /// would.
    fn add_again_by_hand(&mut self) {
        let (channel, ids) = (self.channel, self.ids());
        let is = |player: &mut Player, wanted| standing(&mut player.agent, channel) == Some(wanted);
        let Some(member) = (0..AGENTS).find(|who| is(&mut self.players[*who], Standing::Current)) else {
            return;
        };
        for (who, id) in ids.into_iter().enumerate() {
            if is(&mut self.players[who], Standing::OutOfSync) {
                drop(self.players[member].agent.engine().remove(channel, &[id]));
                self.settle();
                add(&self.relay, channel, &mut self.players, member, who);
                self.settle();
            }
        }
    }

    fn reboot_by_hand(&mut self) {
        let channel = self.channel;
        let out = |player: &mut Player| standing(&mut player.agent, channel) == Some(Standing::OutOfSync);
        if let Some(player) = self.players.iter_mut().find_map(|player| out(player).then_some(player)) {
            drop(player.agent.engine().reboot(channel, Vec::new()));
        }
    }

    fn settle(&mut self) {
        let mut all: Vec<&mut Agent> = self.players.iter_mut().map(|player| &mut player.agent).collect();
        settle(&self.relay, self.channel, &mut all);
    }

    fn check(&mut self) {
        self.keep_log();
        let events: Vec<Event> = (self.players.iter_mut())
            .flat_map(|player| player.agent.events.clone())
            .collect();
        self.note(events);
        let stretches = self.stretches();
        let first = self.relay.status(self.channel.log()).first;
        for player in &mut self.players {
            let agent = &mut player.agent;
            let history = agent.history(self.channel);
            let mut places: BTreeMap<FrameId, Offset> = BTreeMap::new();
            for message in &history {
                // What a vault had queued before it was copied is sent again where the log gave up what its copy sent.
                let sent_again = |offset| offset < first && self.copied.contains(&message.author);
                let before = places.insert(message.frame_id, message.offset);
                assert!(before.is_none_or(sent_again), "a message is shown twice: {history:?}");
            }
            let seen: BTreeMap<Offset, FrameId> = (history.iter())
                .map(|message| (message.offset, message.frame_id))
                .collect();
            for message in &history {
                let (author, text) = &self.sent[&message.frame_id];
                assert_eq!((&message.author, text.as_bytes()), (author, message.payload.as_ref()));
            }
            let engine = agent.engine();
            let lost = engine.lost(Some(self.channel)).expect("listed");
            let is_lost = |offset: Offset| lost.iter().any(|lost| (lost.first..=lost.last).contains(&offset));
            let unreadable = engine
                .unreadable(Some(self.channel), Offset::ZERO, 10_000)
                .expect("listed");
            let info = engine.channel(self.channel).expect("known");
            if info.state == ChannelState::Active {
                assert_eq!(info.outbox, 0);
            }
            let own = agent.id();
            for (offset, record) in &self.log {
                let frame = Frame::decode(record.payload.clone()).expect("a frame");
                let header = frame.header();
                if header.detail != Detail::Message || *offset > info.cursor {
                    continue;
                }
                // A member that reads finds nothing that it cannot decrypt: so no key of a ratchet was used twice.
                let broken = unreadable.iter().find(|entry| entry.offset == *offset);
                assert_eq!(broken, None, "{own} cannot read a message of {}", header.author);
                let may_read = stretches[&own].iter().any(|(from, to)| (*from..=*to).contains(offset));
                if may_read && self.sent.contains_key(&header.id) && !seen.contains_key(offset) {
                    assert!(
                        is_lost(*offset),
                        "{offset} vanished at {own}: {lost:?} {:?}",
                        agent.events
                    );
                }
            }
            for (frame_id, offset) in &self.delivered {
                let record = &self.log[offset];
                let frame = Frame::decode(record.payload.clone()).expect("a frame");
                assert_eq!(frame.header().id, *frame_id, "delivered elsewhere than told");
            }
        }
    }

    /// Returns the offsets that each agent may read, by the headers.
    fn stretches(&self) -> BTreeMap<AgentId, Vec<(Offset, Offset)>> {
        let mut stretches: BTreeMap<AgentId, Vec<(Offset, Offset)>> = BTreeMap::new();
        let ids = self.ids();
        for id in &ids {
            stretches.entry(*id).or_default();
        }
        for (offset, record) in &self.log {
            let frame = Frame::decode(record.payload.clone()).expect("a frame");
            match &frame.header().detail {
                Detail::Create { .. } => {
                    stretches
                        .entry(frame.header().author)
                        .or_default()
                        .push((*offset, Offset::MAX));
                }
                Detail::Commit { adds, removes, .. } => {
                    for gone in removes.iter().filter(|agent| !adds.contains(agent)) {
                        if let Some(last) = stretches.entry(*gone).or_default().last_mut() {
                            last.1 = *offset;
                        }
                    }
                    for added in adds.iter().filter(|agent| !removes.contains(agent)) {
                        stretches.entry(*added).or_default().push((*offset, Offset::MAX));
                    }
                }
                _ => {}
            }
        }
        stretches
    }

    /// Checks that every member can send and is read by all.
    fn talk(&mut self) {
        let (channel, relay) = (self.channel, &self.relay);
        let active =
            |player: &mut Player| player.agent.engine().channel(channel).expect("known").state == ChannelState::Active;
        let mut members: Vec<&mut Agent> = Vec::new();
        for player in &mut self.players {
            if active(player) {
                members.push(&mut player.agent);
            }
        }
        // Digests come with messages: after one from each, all have the same.
        for word in ["the last word", "and another"] {
            let mut said: Vec<FrameId> = members.iter_mut().map(|member| member.send(channel, word)).collect();
            settle(relay, channel, &mut members);
            said.sort_unstable();
            for member in &mut members {
                let history = member.history(channel);
                let info = member.engine().channel(channel).expect("known");
                let (log, standing) = (relay.head(channel.log()), info.standing);
                assert!(
                    info.outbox == 0 && history.len() >= said.len(),
                    "{standing:?} at {} of {log}: {} wait; {:?}",
                    info.cursor,
                    info.outbox,
                    member.events
                );
                let mut last: Vec<FrameId> = (history[history.len() - said.len()..].iter())
                    .map(|message| message.frame_id)
                    .collect();
                last.sort_unstable();
                assert_eq!(last, said);
            }
        }
        if !members.is_empty() {
            assert_agree(channel, &mut members);
        }
    }
}

fn standing(agent: &mut Agent, channel: ChannelId) -> Option<Standing> {
    let info = agent.engine().channel(channel).expect("known");
    (info.state == ChannelState::Active).then_some(info.standing)
}

fn add(relay: &Relay, channel: ChannelId, players: &mut [Player], who: usize, whom: usize) {
    let whose = players[whom].agent.id();
    players[whom].agent.read_own_log(relay);
    players[whom].agent.stock_up(relay);
    let package = players[who].agent.claim(relay, whose);
    drop(players[who].agent.engine().add(channel, vec![package]));
}

fn run(steps: &[Step]) {
    let mut story = Story::new();
    for (number, step) in steps.iter().enumerate() {
        story.step(number, *step);
    }
    story.end();
    story.check();
    story.talk();
}

/// Returns the settings: few cases by default, since a schedule uses real encryption and real files; `PROPTEST_CASES`
/// sets more.
fn config() -> ProptestConfig {
    let config = ProptestConfig {
        max_shrink_iters: 400,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    match std::env::var_os("PROPTEST_CASES") {
        Some(_) => config,
        // The same schedules each time.
        None => ProptestConfig {
            cases: 24,
            rng_seed: proptest::test_runner::RngSeed::Fixed(7),
            ..config
        },
    }
}

#[test]
fn a_vault_put_back_twice_whose_owner_begins_the_group_again() {
    use Step::{Copy, Meet, PutBack, Reboot};
    run(&[
        Copy(2),
        PutBack(2),
        Meet(2),
        PutBack(2),
        Meet(2),
        Reboot(2),
        Meet(2),
        Meet(2),
    ]);
}

#[test]
fn a_commit_queued_before_a_copy_and_made_by_the_other_is_known_again() {
    run(&[
        Step::Rotate(1),
        Step::Copy(1),
        Step::Meet(1),
        Step::PutBack(1),
        Step::Send(0),
    ]);
}

#[test]
fn a_vault_that_takes_over_is_told_what_it_passed_over() {
    run(&[
        Step::Copy(1),
        Step::Send(1),
        Step::Fork(1),
        Step::Meet(1),
        Step::Send(0),
        Step::Second(1),
    ]);
}

#[test]
fn a_member_that_lost_entries_and_renews_still_doubts_what_it_cannot_apply() {
    run(&[
        Step::Send(0),
        Step::Meet(0),
        Step::Trim(4),
        Step::Send(0),
        Step::Meet(0),
        Step::Meet(1),
        Step::Trim(2),
    ]);
}

#[test]
fn who_begins_a_group_again_is_told_what_it_missed_before() {
    run(&[
        Step::Copy(2),
        Step::Rotate(1),
        Step::Fork(2),
        Step::Meet(1),
        Step::Second(2),
        Step::Trim(3),
    ]);
}

#[test]
fn who_was_removed_by_a_commit_that_is_gone_learns_it() {
    run(&[
        Step::Remove(0, 1),
        Step::Pull(0, 1),
        Step::Send(0),
        Step::Meet(0),
        Step::Meet(0),
        Step::Trim(3),
    ]);
}

#[test]
fn own_messages_of_another_copy_among_entries_that_are_gone_cost_new_keys() {
    run(&[
        Step::Copy(2),
        Step::Send(2),
        Step::Meet(2),
        Step::Meet(0),
        Step::Meet(1),
        Step::Trim(4),
        Step::RollBack(2),
        Step::Send(2),
    ]);
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn everybody_returns_and_knows_what_it_missed(steps in proptest::collection::vec(step(), 1..60)) {
        run(&steps);
    }
}

#[test]
fn a_member_whose_removal_is_gone_while_others_went_on_knows_it_in_the_end() {
    use Step::{Copy, Crash, Fork, Meet, Remove, Second, Send, Trim};
    run(&[
        Remove(2, 1),
        Send(0),
        Crash(0),
        Send(0),
        Meet(2),
        Copy(2),
        Fork(2),
        Meet(0),
        Meet(2),
        Trim(3),
        Second(2),
        Send(0),
    ]);
}

#[test]
fn a_group_begins_again_without_a_member_whose_removal_is_gone() {
    use Step::{Crash, Meet, Remove, Send, Trim};
    run(&[Send(0), Remove(1, 2), Crash(0), Meet(1), Trim(4)]);
    run(&[Remove(2, 0), Meet(2), Trim(1), Trim(3)]);
}

#[test]
fn who_is_on_the_roster_and_in_nobodys_group_is_added_again() {
    use Step::{Add, Copy, Meet, PushAndLose, Remove, Rotate, Send, Trim};
    run(&[
        Rotate(0),
        Remove(2, 1),
        PushAndLose(1),
        Send(0),
        Meet(2),
        Copy(0),
        Add(0, 1),
        Meet(0),
        Meet(0),
        Trim(4),
    ]);
}
