//! Leaving a group without remaining members.

use super::relay::{Agent, FRAMES_BYTES, Relay, assert_agree, channel_of, settle};
use skytale_proto::{ChannelId, Code, Policy, Region};
use skytale_sdk::{ChannelState, Event};

fn state(agent: &mut Agent, channel: ChannelId) -> ChannelState {
    agent.engine().channel(channel).expect("known").state
}

#[test]
fn the_only_member_is_gone_at_once_whatever_it_has_queued() {
    let relay = Relay::new();
    for in_the_log in [false, true] {
        let mut a = Agent::new();
        a.crashes = true;
        let channel = a.engine().create_channel("test").expect("made");
        if in_the_log {
            settle(&relay, channel, &mut [&mut a]);
        }
        let message = a.send(channel, "to nobody");
        let update = a.engine().update_keys(channel).expect("queued");
        let leave = a.engine().leave(channel).expect("queued");
        let events = a.engine().leave_alone(channel).expect("gone");
        assert_eq!(state(&mut a, channel), ChannelState::Left);
        let unneeded = |frame_id| Event::Unneeded { channel, frame_id };
        assert!(
            events.contains(&unneeded(update)) && events.contains(&unneeded(leave)),
            "{events:?}"
        );
        assert!(events.iter().any(|event| matches!(event, Event::Left { .. })));
        // What was to be said is not lost without a word; there is nothing to say of the rest.
        let failed = a.engine().failed(channel).expect("listed");
        assert_eq!(failed.len(), 1);
        assert_eq!((failed[0].frame_id, failed[0].code), (message, Code::ChannelLeft));
        assert_eq!(a.engine().channel(channel).expect("known").outbox, 0);
        assert_eq!(a.engine().leave_alone(channel).expect("asked again"), []);
        assert!(
            a.engine()
                .next_frames(channel, FRAMES_BYTES)
                .expect("asked")
                .frames
                .is_empty()
        );
    }
}

#[test]
fn an_only_member_whose_create_is_on_its_way_is_gone_all_the_same() {
    let relay = Relay::new();
    let mut a = Agent::new();
    let channel = a.engine().create_channel("test").expect("made");
    let frames = a.engine().next_frames(channel, FRAMES_BYTES).expect("built").frames;
    a.engine().leave(channel).expect("queued");
    a.engine().leave_alone(channel).expect("gone");
    for frame in frames {
        let id = frame.frame.header().id;
        let outcome = relay.outcome(frame.frame);
        assert_eq!(a.engine().outcome(channel, id, outcome).expect("heard"), []);
    }
    assert_eq!(state(&mut a, channel), ChannelState::Left);
    a.crash();
    assert_eq!(state(&mut a, channel), ChannelState::Left);
}

#[test]
fn an_only_member_adds_first_whom_it_was_told_to_add() {
    let relay = Relay::new();
    let (mut a, mut b) = (Agent::new(), Agent::new());
    let policy = Policy::open(a.id());
    let channel = a.engine().create_channel_with("test", Region::default(), &policy);
    let channel = channel.expect("made");
    b.stock_up(&relay);
    let package = a.claim(&relay, b.id());
    a.engine().add(channel, vec![package]).expect("queued");
    a.send(channel, "it is yours");
    a.engine().leave(channel).expect("queued");
    assert_eq!(a.engine().leave_alone(channel).expect("not yet"), []);
    settle(&relay, channel, &mut [&mut a, &mut b]);
    assert_eq!(state(&mut a, channel), ChannelState::Left);
    assert_eq!(state(&mut b, channel), ChannelState::Active);
    assert_eq!(b.texts(channel), ["it is yours"]);
    assert_eq!(b.engine().members(channel).expect("known"), [b.id()]);
    assert_eq!(a.engine().failed(channel).expect("listed"), []);
}

#[test]
fn the_last_two_who_ask_in_one_epoch_are_both_gone_though_neither_commits() {
    let relay = Relay::new();
    let (mut a, mut b) = (Agent::new(), Agent::new());
    let channel = channel_of(&relay, &mut [&mut a, &mut b]);
    for agent in [&mut a, &mut b] {
        agent.engine().leave(channel).expect("queued");
        assert_eq!(agent.engine().leave_alone(channel).expect("not alone"), []);
    }
    // The first one's is in the log, and it goes away, as a command does that has said goodbye.
    a.push(&relay, channel);
    b.push(&relay, channel);
    let after_own = 1;
    a.pull(&relay, channel, after_own);
    assert_eq!(state(&mut a, channel), ChannelState::Leaving);
    let head = relay.entries(channel.log(), skytale_proto::Offset::ZERO).len();
    b.pull(&relay, channel, after_own);
    assert_eq!(
        state(&mut b, channel),
        ChannelState::Leaving,
        "its own is not in the log yet"
    );
    settle(&relay, channel, &mut [&mut b]);
    assert_eq!(state(&mut b, channel), ChannelState::Left, "by itself");
    a.crash();
    settle(&relay, channel, &mut [&mut a]);
    assert_eq!(state(&mut a, channel), ChannelState::Left);
    for agent in [&mut a, &mut b] {
        let events = agent.take_events();
        assert!(
            events.iter().any(|event| matches!(event, Event::Left { .. })),
            "{events:?}"
        );
        assert!(
            !events.iter().any(|event| matches!(event, Event::SendFailed { .. })),
            "{events:?}"
        );
    }
    let entries = relay.entries(channel.log(), skytale_proto::Offset::ZERO).len();
    assert_eq!(entries, head, "there was nothing left to append");
}

#[test]
fn who_asks_after_the_other_has_gone_away_ends_by_itself() {
    let relay = Relay::new();
    let (mut a, mut b) = (Agent::new(), Agent::new());
    let channel = channel_of(&relay, &mut [&mut a, &mut b]);
    a.engine().leave(channel).expect("queued");
    settle(&relay, channel, &mut [&mut a]);
    assert_eq!(state(&mut a, channel), ChannelState::Leaving);
    b.engine().leave(channel).expect("queued");
    settle(&relay, channel, &mut [&mut b]);
    assert_eq!(state(&mut b, channel), ChannelState::Left);
    settle(&relay, channel, &mut [&mut a]);
    assert_eq!(state(&mut a, channel), ChannelState::Left);
}

#[test]
fn a_wish_to_leave_that_is_not_in_the_log_ends_no_group() {
    let relay = Relay::new();
    let (mut a, mut b, mut c) = (Agent::new(), Agent::new(), Agent::new());
    let channel = channel_of(&relay, &mut [&mut a, &mut b, &mut c]);
    for agent in [&mut a, &mut b] {
        agent.engine().leave(channel).expect("queued");
        agent.push(&relay, channel);
    }
    // The third one's is built, and not appended yet.
    c.engine().leave(channel).expect("queued");
    let built = c.engine().next_frames(channel, FRAMES_BYTES).expect("built").frames;
    assert_eq!(built.len(), 1);
    c.pull(&relay, channel, usize::MAX);
    assert_eq!(state(&mut c, channel), ChannelState::Leaving);
    assert_eq!(state(&mut a, channel), ChannelState::Leaving);
    c.engine().connection_lost();
    settle(&relay, channel, &mut [&mut c, &mut a, &mut b]);
    for agent in [&mut a, &mut b, &mut c] {
        assert_eq!(state(agent, channel), ChannelState::Left);
    }
}

#[test]
fn two_of_three_who_leave_leave_the_third_its_channel() {
    let relay = Relay::new();
    let (mut a, mut b, mut c) = (Agent::new(), Agent::new(), Agent::new());
    let channel = channel_of(&relay, &mut [&mut a, &mut b, &mut c]);
    for agent in [&mut a, &mut b] {
        agent.engine().leave(channel).expect("queued");
        agent.push(&relay, channel);
    }
    settle(&relay, channel, &mut [&mut a, &mut b, &mut c]);
    assert_eq!(state(&mut a, channel), ChannelState::Left);
    assert_eq!(state(&mut b, channel), ChannelState::Left);
    c.send(channel, "alone now");
    settle(&relay, channel, &mut [&mut c]);
    assert_eq!(c.texts(channel), ["alone now"]);
    assert_eq!(c.engine().members(channel).expect("known"), [c.id()]);
    assert_agree(channel, &mut [&mut c]);
}
