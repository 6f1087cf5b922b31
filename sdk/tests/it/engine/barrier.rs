//! Additions that hold back later messages.

use super::relay::{Agent, Relay, assert_agree, channel_of, settle};
use skytale_proto::{AgentId, ChannelId, Code, Offset};
use skytale_sdk::{ChannelState, Event, QueuedKind};
use std::collections::BTreeSet;
use std::time::Duration;

const MINUTE: Duration = Duration::from_secs(60);
const STRANGER: AgentId = AgentId::from_bytes([7; 32]);

fn ensure(agent: &mut Agent, channel: ChannelId, agents: &[AgentId]) {
    agent.engine().ensure_members(channel, agents).expect("kept");
}

/// Claims a package of another agent, and adds it at its place in the outbox.
fn add(agent: &mut Agent, relay: &Relay, channel: ChannelId, other: &mut Agent) {
    other.stock_up(relay);
    let package = agent.claim(relay, other.id());
    let queued = agent.engine().add_deferred(channel, package).expect("queued");
    assert!(queued.is_some());
}

fn kinds(agent: &mut Agent, channel: ChannelId) -> Vec<QueuedKind> {
    let queued = agent.engine().outbox(channel).expect("listed");
    queued.iter().map(|queued| queued.kind).collect()
}

fn not_added(agent: &mut Agent) -> Vec<(AgentId, Code)> {
    let events = agent.take_events().into_iter();
    events
        .filter_map(|event| match event {
            Event::MemberNotAdded { agent, code, .. } => Some((agent, code)),
            _ => None,
        })
        .collect()
}

fn fail(agent: &mut Agent, channel: ChannelId, other: AgentId, code: Code, hold: Duration) {
    let failed = agent.engine().deferred_failed(channel, other, code, hold);
    agent.events.extend(failed.expect("kept"));
}

#[test]
fn what_is_sent_after_members_were_ensured_is_read_by_them_and_what_was_before_is_not_held_up() {
    for crashes in [false, true] {
        let relay = Relay::new();
        let (mut a, mut b, mut late) = (Agent::new(), Agent::new(), Agent::new());
        let channel = channel_of(&relay, &mut [&mut a, &mut b]);
        a.crashes = crashes;
        a.send(channel, "before");
        let ids = [b.id(), a.id(), late.id(), late.id()];
        ensure(&mut a, channel, &ids);
        ensure(&mut a, channel, &ids);
        a.send(channel, "after");
        assert_eq!(
            kinds(&mut a, channel),
            [QueuedKind::Message, QueuedKind::AddWaiting, QueuedKind::Message],
            "one place for each agent that is missing"
        );
        settle(&relay, channel, &mut [&mut a, &mut b]);
        assert_eq!(b.texts(channel), ["before"]);
        assert_eq!(kinds(&mut a, channel), [QueuedKind::AddWaiting, QueuedKind::Message]);
        a.send(channel, "after, too");
        settle(&relay, channel, &mut [&mut a, &mut b]);
        assert_eq!(b.texts(channel), ["before"]);

        add(&mut a, &relay, channel, &mut late);
        settle(&relay, channel, &mut [&mut a, &mut b, &mut late]);
        assert_eq!(kinds(&mut a, channel), []);
        assert_eq!(late.texts(channel), ["after", "after, too"]);
        assert_eq!(b.texts(channel), ["before", "after", "after, too"]);
        assert_eq!(a.engine().deferred_adds(channel).expect("listed"), []);
        for agent in [&mut a, &mut b, &mut late] {
            let unreadable = agent
                .engine()
                .unreadable(Some(channel), Offset::ZERO, 9)
                .expect("listed");
            assert_eq!(unreadable, []);
        }
        assert_agree(channel, &mut [&mut a, &mut b, &mut late]);
        // Members are fine.
        ensure(&mut a, channel, &ids);
        assert_eq!(kinds(&mut a, channel), []);
    }
}

#[test]
fn each_of_several_additions_holds_back_what_is_behind_it_in_whatever_order_they_are_made() {
    let relay = Relay::new();
    let (mut a, mut b, mut c, mut d) = (Agent::new(), Agent::new(), Agent::new(), Agent::new());
    // Not even the channel's Create is out yet.
    let channel = a.engine().create_channel("test").expect("made");
    a.send(channel, "0");
    ensure(&mut a, channel, &[b.id()]);
    a.send(channel, "1");
    ensure(&mut a, channel, &[c.id(), d.id()]);
    a.send(channel, "2");
    settle(&relay, channel, &mut [&mut a]);
    assert_eq!(a.texts(channel), ["0"]);
    a.crash();
    add(&mut a, &relay, channel, &mut d);
    settle(&relay, channel, &mut [&mut a, &mut d]);
    assert_eq!(a.texts(channel), ["0"]);
    add(&mut a, &relay, channel, &mut b);
    settle(&relay, channel, &mut [&mut a, &mut b, &mut d]);
    assert_eq!(b.texts(channel), ["1"]);
    a.crash();
    add(&mut a, &relay, channel, &mut c);
    settle(&relay, channel, &mut [&mut a, &mut b, &mut c, &mut d]);
    assert_eq!(a.texts(channel), ["0", "1", "2"]);
    assert_eq!(b.texts(channel), ["1", "2"]);
    assert_eq!(
        (c.texts(channel), d.texts(channel)),
        (vec!["2".into()], vec!["2".into()])
    );
    assert_agree(channel, &mut [&mut a, &mut b, &mut c, &mut d]);
}

#[test]
fn an_agent_that_cannot_be_added_holds_back_nothing_for_ever_and_is_told_once() {
    let relay = Relay::new();
    let (mut a, mut b, mut late) = (Agent::new(), Agent::new(), Agent::new());
    let channel = channel_of(&relay, &mut [&mut a, &mut b]);
    let refuses = AgentId::from_bytes([8; 32]);
    ensure(&mut a, channel, &[STRANGER, refuses, late.id()]);
    a.send(channel, "hello");
    // One that has nothing on offer is waited for, over restarts; one that refuses is not.
    let absent = Code::KeyPackagesExhausted;
    fail(&mut a, channel, STRANGER, absent, MINUTE);
    fail(&mut a, channel, refuses, Code::ClaimNotAllowed, Duration::ZERO);
    assert_eq!(not_added(&mut a), [(refuses, Code::ClaimNotAllowed)]);
    a.crash();
    fail(&mut a, channel, STRANGER, absent, MINUTE);
    settle(&relay, channel, &mut [&mut a, &mut b]);
    assert_eq!(b.texts(channel), [""; 0]);
    fail(&mut a, channel, STRANGER, absent, Duration::ZERO);
    fail(&mut a, channel, STRANGER, absent, Duration::ZERO);
    assert_eq!(not_added(&mut a), [(STRANGER, absent)]);
    add(&mut a, &relay, channel, &mut late);
    settle(&relay, channel, &mut [&mut a, &mut b, &mut late]);
    assert_eq!(
        (b.texts(channel), late.texts(channel)),
        (vec!["hello".into()], vec!["hello".into()])
    );
    // They are still wanted, and hold back what is sent after they were asked for once more.
    let waiting = a.engine().deferred_to_try().expect("listed");
    let waiting: BTreeSet<_> = waiting.iter().map(|add| (add.agent, add.holds)).collect();
    assert_eq!(waiting, BTreeSet::from([(STRANGER, false), (refuses, false)]));
    ensure(&mut a, channel, &[STRANGER]);
    a.send(channel, "again");
    let first = a.engine().deferred_to_try().expect("listed")[0];
    assert_eq!((first.agent, first.holds), (STRANGER, true));
    fail(&mut a, channel, STRANGER, absent, MINUTE);
    assert_eq!(not_added(&mut a), [], "it is waited for as long as the first time");
}

#[test]
fn an_addition_that_is_cancelled_or_made_by_another_member_holds_back_nothing() {
    let relay = Relay::new();
    let (mut a, mut b, mut c) = (Agent::new(), Agent::new(), Agent::new());
    let channel = channel_of(&relay, &mut [&mut a, &mut b]);
    ensure(&mut a, channel, &[STRANGER]);
    a.send(channel, "one");
    assert_eq!(a.engine().cancel_add(channel, &[STRANGER]).expect("cancelled"), 1);
    settle(&relay, channel, &mut [&mut a, &mut b]);
    assert_eq!(b.texts(channel), ["one"]);
    // A removal cancels it, too.
    ensure(&mut a, channel, &[STRANGER]);
    a.send(channel, "two");
    a.engine().remove(channel, &[STRANGER]).expect("queued");
    assert_eq!(a.engine().deferred_adds(channel).expect("listed"), []);
    settle(&relay, channel, &mut [&mut a, &mut b]);
    assert_eq!((b.texts(channel).len(), kinds(&mut a, channel)), (2, Vec::new()));

    ensure(&mut a, channel, &[c.id()]);
    a.send(channel, "three");
    c.stock_up(&relay);
    let package = b.claim(&relay, c.id());
    b.engine().add(channel, vec![package]).expect("queued");
    settle(&relay, channel, &mut [&mut a, &mut b, &mut c]);
    assert_eq!(b.texts(channel).len(), 2);
    assert_eq!(a.engine().deferred_to_try().expect("listed"), []);
    settle(&relay, channel, &mut [&mut a, &mut b, &mut c]);
    assert_eq!((b.texts(channel).len(), c.texts(channel)), (3, vec!["three".into()]));
}

#[test]
fn a_member_that_is_being_removed_is_added_again_after_that() {
    let relay = Relay::new();
    let (mut a, mut b) = (Agent::new(), Agent::new());
    let channel = channel_of(&relay, &mut [&mut a, &mut b]);
    let id = b.id();
    a.engine().remove(channel, &[id]).expect("queued");
    a.send(channel, "between");
    ensure(&mut a, channel, &[id]);
    a.send(channel, "after");
    let waiting = a.engine().deferred_to_try().expect("listed");
    assert_eq!(waiting.len(), 1, "it is a member, but not for long");
    add(&mut a, &relay, channel, &mut b);
    settle(&relay, channel, &mut [&mut a, &mut b]);
    assert_eq!(a.texts(channel), ["between", "after"]);
    assert_eq!(b.texts(channel), ["after"]);
    assert_agree(channel, &mut [&mut a, &mut b]);
}

#[test]
fn whoever_leaves_or_is_removed_waits_for_no_additions() {
    let relay = Relay::new();
    let (mut a, mut b, mut c) = (Agent::new(), Agent::new(), Agent::new());
    let channel = channel_of(&relay, &mut [&mut a, &mut b, &mut c]);
    ensure(&mut a, channel, &[STRANGER]);
    a.send(channel, "farewell");
    a.engine().leave(channel).expect("queued");
    settle(&relay, channel, &mut [&mut a, &mut b, &mut c]);
    assert_eq!(b.texts(channel), ["farewell"]);
    let state = a.engine().channel(channel).expect("known").state;
    assert_eq!(state, ChannelState::Left);
    assert_eq!(a.engine().deferred_to_try().expect("listed"), []);

    ensure(&mut b, channel, &[STRANGER]);
    b.send(channel, "too late");
    let id = b.id();
    c.engine().remove(channel, &[id]).expect("queued");
    settle(&relay, channel, &mut [&mut b, &mut c]);
    assert_eq!(kinds(&mut b, channel), []);
    let failed = b.engine().failed(channel).expect("listed");
    assert_eq!((failed.len(), failed[0].code), (1, Code::ChannelLeft));
    // Back in the channel, it waits for nobody whom it was to add before.
    add_now(&mut c, &relay, channel, &mut b);
    settle(&relay, channel, &mut [&mut b, &mut c]);
    b.send(channel, "back");
    settle(&relay, channel, &mut [&mut b, &mut c]);
    assert_eq!(c.texts(channel).last().map(String::as_str), Some("back"));
}

fn add_now(agent: &mut Agent, relay: &Relay, channel: ChannelId, other: &mut Agent) {
    other.stock_up(relay);
    let package = agent.claim(relay, other.id());
    agent.engine().add(channel, vec![package]).expect("queued");
}

#[test]
fn a_member_that_may_not_add_is_told_so_at_once() {
    let relay = Relay::new();
    let (mut a, mut b) = (Agent::new(), Agent::new());
    let channel = super::relay::governed_channel_of(&relay, &mut [&mut a, &mut b]);
    let only_admins = skytale_sdk::PolicyChange::set(&[(skytale_proto::Right::Add, skytale_proto::Holders::Admins)]);
    a.engine().change_policy(channel, &only_admins).expect("queued");
    settle(&relay, channel, &mut [&mut a, &mut b]);
    let ids = [a.id(), STRANGER];
    let refused = b.engine().ensure_members(channel, &ids).map_err(|error| error.code());
    assert_eq!(refused, Err(Code::PolicyForbids));
    b.engine().ensure_members(channel, &ids[..1]).expect("a member already");
    assert_eq!(kinds(&mut b, channel), []);
}
