//! Membership of a channel: added, removed, left, added again; and commits that race.

use super::relay::{Agent, FRAMES_BYTES, Relay, assert_agree, changed, channel_of, settle};
use skytale_proto::{ChannelId, Code};
use skytale_sdk::internals::engine::ClaimedPackage;
use skytale_sdk::{ChannelState, Event};
use std::time::Duration;

#[test]
fn an_agent_that_was_away_catches_up_on_everything() {
    let relay = Relay::new();
    let (mut a, mut b, mut c, mut d) = (Agent::new(), Agent::new(), Agent::new(), Agent::new());
    let channel = channel_of(&relay, &mut [&mut a, &mut b, &mut c]);
    d.stock_up(&relay);
    for round in 0..4 {
        a.send(channel, &format!("a{round}"));
        b.send(channel, &format!("b{round}"));
        match round {
            0 => a.engine().update_keys(channel).map(drop),
            1 => {
                let package = b.claim(&relay, d.id());
                b.engine().add(channel, vec![package]).map(drop)
            }
            2 => a.engine().remove(channel, &[d.id()]).map(drop),
            _ => b.engine().update_keys(channel).map(drop),
        }
        .expect("queued");
        settle(&relay, channel, &mut [&mut a, &mut b, &mut d]);
    }
    assert!(c.texts(channel).is_empty());
    c.crash();
    settle(&relay, channel, &mut [&mut c]);
    assert_eq!(c.texts(channel).len(), 8);
    assert_eq!(c.transcript(channel), a.transcript(channel));
    assert_eq!(b.transcript(channel), a.transcript(channel));
    assert_agree(channel, &mut [&mut a, &mut b, &mut c]);
    assert!(
        c.events
            .iter()
            .all(|event| !matches!(event, Event::EntryUnreadable { .. }))
    );
}

#[test]
fn a_removed_agent_keeps_its_history_and_can_come_back() {
    let relay = Relay::new();
    let (mut a, mut b) = (Agent::new(), Agent::new());
    let channel = channel_of(&relay, &mut [&mut a, &mut b]);
    a.send(channel, "for both");
    settle(&relay, channel, &mut [&mut a, &mut b]);
    b.send(channel, "too late");
    let id = b.id();
    a.engine().remove(channel, &[id]).expect("queued");
    settle(&relay, channel, &mut [&mut a]);
    a.send(channel, "without b");
    settle(&relay, channel, &mut [&mut a, &mut b]);
    assert_eq!(b.engine().channel(channel).expect("known").state, ChannelState::Left);
    assert_eq!(b.texts(channel), ["for both"]);
    let events = b.take_events();
    assert!(events.iter().any(|event| matches!(event, Event::Left { .. })));
    assert!(events.iter().any(|event| matches!(event, Event::SendFailed { .. })));
    assert_eq!(b.engine().failed(channel).expect("listed").len(), 1);
    let refused = b.engine().send(channel, b"x").map_err(|error| error.code());
    assert_eq!(refused, Err(Code::ChannelLeft));

    // Added, removed and added again while it does not look.
    b.stock_up(&relay);
    for _ in 0..2 {
        let package = a.claim(&relay, b.id());
        a.engine().add(channel, vec![package]).expect("queued");
        settle(&relay, channel, &mut [&mut a]);
        a.send(channel, "with b");
        a.engine().remove(channel, &[id]).expect("queued");
        settle(&relay, channel, &mut [&mut a]);
    }
    let package = a.claim(&relay, b.id());
    a.engine().add(channel, vec![package]).expect("queued");
    a.send(channel, "with b again");
    settle(&relay, channel, &mut [&mut a, &mut b]);
    b.send(channel, "here again");
    settle(&relay, channel, &mut [&mut a, &mut b]);
    let texts = b.texts(channel);
    assert_eq!(texts, ["for both", "with b", "with b", "with b again", "here again"]);
    assert_agree(channel, &mut [&mut a, &mut b]);
}

#[test]
fn an_agent_that_leaves_is_removed_by_another() {
    let relay = Relay::new();
    let (mut a, mut b, mut c) = (Agent::new(), Agent::new(), Agent::new());
    let channel = channel_of(&relay, &mut [&mut a, &mut b, &mut c]);
    b.send(channel, "goodbye");
    b.engine().leave(channel).expect("queued");
    let refused = b.engine().send(channel, b"x").map_err(|error| error.code());
    assert_eq!(refused, Err(Code::ChannelLeft));
    a.send(channel, "held back until b is gone");
    settle(&relay, channel, &mut [&mut b]);
    assert_eq!(b.engine().channel(channel).expect("known").state, ChannelState::Leaving);
    b.crash();
    settle(&relay, channel, &mut [&mut c, &mut a, &mut b]);
    assert_eq!(b.engine().channel(channel).expect("known").state, ChannelState::Left);
    let (gone, events) = (b.id(), a.take_events());
    let removed = |event: &Event| matches!(event, Event::MemberRemoved { agent, left: true, .. } if *agent == gone);
    assert!(events.iter().any(removed));
    assert_eq!(a.engine().members(channel).expect("known").len(), 2);
    assert_eq!(c.texts(channel), ["goodbye", "held back until b is gone"]);
    assert_eq!(a.engine().channel(channel).expect("known").outbox, 0);
    assert_eq!(c.engine().channel(channel).expect("known").outbox, 0);
    assert_agree(channel, &mut [&mut a, &mut c]);
}

/// Pulls, and gets the frames to append. Returns the number of commits, and the turn.
fn commits(relay: &Relay, channel: ChannelId, agent: &mut Agent) -> (usize, Option<u32>) {
    agent.pull(relay, channel, usize::MAX);
    let next = agent.next_frames(channel, FRAMES_BYTES).expect("built");
    agent.engine().connection_lost();
    (next.frames.len(), next.turn)
}

#[test]
fn of_a_large_group_one_commits_for_those_who_leave_and_the_others_wait_in_turn() {
    const MEMBERS: usize = 12;
    let relay = Relay::new();
    let mut agents: Vec<Agent> = (0..MEMBERS).map(|_| Agent::new()).collect();
    let channel = channel_of(&relay, &mut agents.iter_mut().collect::<Vec<_>>());
    for leaver in [0, 5] {
        agents[leaver].engine().leave(channel).expect("queued");
        agents[leaver].pull(&relay, channel, usize::MAX);
        agents[leaver].push(&relay, channel);
    }
    for agent in &mut agents {
        agent.pull(&relay, channel, usize::MAX);
        // All have something to say, which waits until those are gone.
        if agent.engine().channel(channel).expect("known").state == ChannelState::Active {
            agent.send(channel, "waits");
        }
    }
    let mut asked: Vec<_> = agents.iter_mut().map(|agent| commits(&relay, channel, agent)).collect();
    // The first of those who stay commits at once; those who leave are the last ones in turn.
    let first = asked.iter().position(|(frames, _)| *frames > 0).expect("one commits");
    assert!(first != 0 && first != 5);
    assert_eq!(asked.remove(first), (1, None));
    assert!(asked.iter().all(|(frames, _)| *frames == 0), "and no other does");
    let mut turns: Vec<u32> = asked.iter().map(|(_, turn)| turn.expect("waits")).collect();
    assert_eq!((turns[0], turns[if first < 5 { 4 } else { 5 }]), (10, 11));
    turns.sort_unstable();
    assert_eq!(turns, (1..12).collect::<Vec<_>>(), "each has its own");
    // Asked once more, they say the same.
    let again = commits(&relay, channel, &mut agents[first]);
    assert_eq!(again, (1, None));

    // The first goes away without appending it. Nobody else commits before its turn.
    for (at, agent) in agents.iter_mut().enumerate().filter(|(at, _)| *at != first) {
        assert_eq!(commits(&relay, channel, agent).0, 0, "{at}");
    }
    let second = (0..MEMBERS)
        .find(|at| *at != first && commits(&relay, channel, &mut agents[*at]).1 == Some(1))
        .expect("one is second");
    agents[second].engine().take_turn(channel).expect("taken");
    agents[second].crash();
    let head = agents[second].engine().handshake_head(channel).expect("known");
    assert!(agents[second].push(&relay, channel));
    for agent in &mut agents {
        agent.pull(&relay, channel, usize::MAX);
        // One that comes too late has nothing to do.
        if agent.engine().channel(channel).expect("known").state == ChannelState::Active {
            assert!(agent.engine().handshake_head(channel).expect("known") > head);
            agent.engine().take_turn(channel).expect("taken");
            assert_eq!(agent.engine().channel(channel).expect("known").outbox, 1, "its message");
        }
    }
    settle(&relay, channel, &mut agents.iter_mut().collect::<Vec<_>>());
    let mut stayed: Vec<&mut Agent> = agents
        .iter_mut()
        .enumerate()
        .filter(|(at, _)| ![0, 5].contains(at))
        .map(|(_, agent)| agent)
        .collect();
    assert_agree(channel, &mut stayed);
    assert_eq!(stayed[0].engine().members(channel).expect("known").len(), MEMBERS - 2);
    assert_eq!(stayed[0].texts(channel).len(), MEMBERS - 2);
}

#[test]
fn all_can_leave_at_once() {
    let relay = Relay::new();
    let (mut a, mut b, mut c) = (Agent::new(), Agent::new(), Agent::new());
    let channel = channel_of(&relay, &mut [&mut a, &mut b, &mut c]);
    for agent in [&mut a, &mut b, &mut c] {
        agent.engine().leave(channel).expect("queued");
        agent.push(&relay, channel);
    }
    settle(&relay, channel, &mut [&mut a, &mut b, &mut c]);
    for agent in [&mut a, &mut b, &mut c] {
        assert_eq!(
            agent.engine().channel(channel).expect("known").state,
            ChannelState::Left
        );
    }
}

#[test]
fn commits_race_a_hundred_times_and_the_first_wins() {
    let relay = Relay::new();
    let (mut a, mut b) = (Agent::new(), Agent::new());
    let channel = channel_of(&relay, &mut [&mut a, &mut b]);
    let before = a.engine().epoch(channel).expect("known");
    for round in 0..100 {
        a.engine().update_keys(channel).expect("queued");
        b.engine().update_keys(channel).expect("queued");
        a.send(channel, &format!("a{round}"));
        b.send(channel, &format!("b{round}"));
        let (first, second) = if round % 2 == 0 {
            (&mut a, &mut b)
        } else {
            (&mut b, &mut a)
        };
        first.push(&relay, channel);
        second.push(&relay, channel);
        settle(&relay, channel, &mut [&mut a, &mut b]);
        assert_agree(channel, &mut [&mut a, &mut b]);
    }
    assert_eq!(a.engine().epoch(channel).expect("known"), before + 200);
    assert_eq!(a.history(channel).len(), 200);
    assert_eq!(a.transcript(channel), b.transcript(channel));
}

#[test]
fn an_addition_that_another_made_first_is_unneeded() {
    let relay = Relay::new();
    let (mut a, mut b, mut c) = (Agent::new(), Agent::new(), Agent::new());
    let channel = channel_of(&relay, &mut [&mut a, &mut b]);
    c.stock_up(&relay);
    let (of_a, of_b) = (a.claim(&relay, c.id()), b.claim(&relay, c.id()));
    a.engine().add(channel, vec![of_a]).expect("queued");
    let unneeded = b.engine().add(channel, vec![of_b]).expect("queued");
    a.push(&relay, channel);
    b.push(&relay, channel);
    settle(&relay, channel, &mut [&mut a, &mut b, &mut c]);
    assert!(b.take_events().contains(&Event::Unneeded {
        channel,
        frame_id: unneeded
    }));
    assert_eq!(c.engine().members(channel).expect("known").len(), 3);
    c.send(channel, "thank you both");
    settle(&relay, channel, &mut [&mut a, &mut b, &mut c]);
    assert_agree(channel, &mut [&mut a, &mut b, &mut c]);
}

#[test]
fn a_commit_that_always_loses_is_given_up() {
    let relay = Relay::new();
    let mut a = Agent::with(changed(|config| {
        config.commit_attempts_max = 3;
    }));
    let mut b = Agent::new();
    let channel = channel_of(&relay, &mut [&mut b, &mut a]);
    let id = a.engine().update_keys(channel).expect("queued");
    for _ in 0..5 {
        if let Ok(next) = a.next_frames(channel, FRAMES_BYTES) {
            a.events.extend(next.events);
        }
        b.engine().update_keys(channel).expect("queued");
        settle(&relay, channel, &mut [&mut b]);
        a.pull(&relay, channel, usize::MAX);
    }
    settle(&relay, channel, &mut [&mut a, &mut b]);
    assert!(a.take_events().contains(&Event::SendFailed {
        channel,
        frame_id: id,
        code: Code::Contended
    }));
}

#[test]
fn key_packages_are_not_lost_and_run_down_to_the_last_resort() {
    let relay = Relay::new();
    let (mut a, mut b) = (Agent::new(), Agent::new());
    let made = b.engine().key_packages_wanted(0, false).expect("made");
    assert_eq!(made.len(), 5);
    // Nothing was appended, and the process ended: the same ones are offered.
    b.crash();
    assert_eq!(b.engine().key_packages_wanted(0, false).expect("made"), made);
    b.stock_up(&relay);
    assert_eq!(relay.key_packages(b.id()), (4, true));
    assert_eq!(b.engine().key_packages_wanted(4, true).expect("made"), []);
    let channels: Vec<_> = (0..7)
        .map(|_| {
            let channel = channel_of(&relay, &mut [&mut a]);
            let package = a.claim(&relay, b.id());
            a.engine().add(channel, vec![package]).expect("queued");
            settle(&relay, channel, &mut [&mut a]);
            channel
        })
        .collect();
    assert_eq!(relay.key_packages(b.id()), (0, true));
    for channel in channels {
        settle(&relay, channel, &mut [&mut b]);
        a.send(channel, "welcome");
        settle(&relay, channel, &mut [&mut a, &mut b]);
        assert_eq!(b.texts(channel), ["welcome"]);
    }
    b.stock_up(&relay);
    assert_eq!(relay.key_packages(b.id()), (4, true));
}

#[test]
fn a_key_package_of_another_or_too_old_is_refused() {
    let relay = Relay::new();
    let mut a = Agent::with(changed(|config| {
        config.key_package_lifetime = Duration::ZERO;
    }));
    let (mut b, mut c, mut d) = (Agent::new(), Agent::new(), Agent::new());
    let channel = channel_of(&relay, &mut [&mut c]);
    let own = channel_of(&relay, &mut [&mut a]);
    b.stock_up(&relay);
    d.stock_up(&relay);
    std::thread::sleep(Duration::from_millis(5));
    let package = a.claim(&relay, b.id());
    let refused = a.engine().add(own, vec![package.clone()]).map_err(|error| error.code());
    assert_eq!(refused, Err(Code::KeyPackageExpired));
    let foreign = ClaimedPackage {
        agent: d.id(),
        frame: package.frame.clone(),
    };
    let refused = c.engine().add(channel, vec![foreign]).map_err(|error| error.code());
    assert_eq!(refused, Err(Code::KeyPackageForeign));
    c.engine().add(channel, vec![package]).expect("good enough for c");
}
