//! The cost of calls, counted in steps of SQLite's machine, never in time.

use super::faults::relay::{self, Agent, Relay, channel_of};
use super::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Machine steps that are counted as one.
const GRAIN: i32 = 8;
/// Bytes of frames per turn, as a session requests them.
const TURN_BYTES: usize = 256 * 1024;

/// Returns the steps that a call takes in the vault's database.
pub(super) fn steps<T>(engine: &mut Engine, call: impl FnOnce(&mut Engine) -> T) -> (u64, T) {
    let count = Arc::new(AtomicU64::new(0));
    let counting = Arc::clone(&count);
    let each = move || {
        counting.fetch_add(1, Ordering::Relaxed);
        false
    };
    engine.sql().progress_handler(GRAIN, Some(each));
    let result = call(engine);
    engine.sql().progress_handler(GRAIN, None::<fn() -> bool>);
    (count.load(Ordering::Relaxed), result)
}

/// An agent that is alone in a channel, with that many messages of one byte in its outbox.
fn queue(relay: &Relay, messages: usize) -> (Agent, ChannelId) {
    let mut agent = Agent::new();
    let channel = channel_of(relay, &mut [&mut agent]);
    let payloads = vec![Bytes::from_static(b"x"); messages];
    agent.engine().send_many(channel, &payloads).expect("queued");
    (agent, channel)
}

#[test]
fn a_turn_of_a_long_outbox_costs_what_one_of_a_short_outbox_does() {
    let relay = Relay::new();
    let turn = |messages| {
        let (mut agent, channel) = queue(&relay, messages);
        agent.reach(channel);
        let (offered, next) = steps(agent.engine(), |engine| engine.next_frames(channel, TURN_BYTES));
        let frames = next.expect("offered").frames;
        assert_eq!(frames.len(), 256);
        let (shown, info) = steps(agent.engine(), |engine| engine.channel(channel));
        assert_eq!(info.expect("known").outbox, messages as u64);
        let again = Bytes::from_static(b"y");
        let (sent, _) = steps(agent.engine(), |engine| engine.send(channel, &again).expect("queued"));
        [offered, shown, sent]
    };
    let (short, long) = (turn(300), turn(6_000));
    for (short, long) in short.into_iter().zip(long) {
        assert!(long <= short + short / 4 + 8, "{long} steps, and {short} with few");
    }
}

#[test]
fn a_commit_costs_no_more_because_the_outbox_is_long() {
    let relay = Relay::new();
    let commit = |messages| {
        let (mut agent, channel) = queue(&relay, messages);
        let mut other = Agent::new();
        other.stock_up(&relay);
        let package = agent.claim(&relay, other.id());
        // Ahead of all messages, as if it had been asked for first.
        agent.engine().add(channel, vec![package]).expect("queued");
        let to_front = "UPDATE outbox SET seq = -1 WHERE kind = 3";
        assert_eq!(agent.engine().sql().execute(to_front, []), Ok(1));
        agent.reach(channel);
        let (offered, _) = steps(agent.engine(), |_| ());
        assert_eq!(offered, 0);
        let (built, next) = steps(agent.engine(), |engine| engine.next_frames(channel, TURN_BYTES));
        let frames = next.expect("offered").frames;
        assert_eq!(frames.len(), 1);
        for frame in frames {
            let id = frame.frame.header().id;
            let outcome = relay.outcome(frame.frame);
            agent.engine().outcome(channel, id, outcome).expect("taken");
        }
        let cursor = agent.engine().cursor(channel).expect("known");
        let records = relay.entries(channel.log(), cursor);
        let (merged, _) = steps(agent.engine(), |engine| {
            engine.process_entries(channel, &records).expect("merged")
        });
        [built, merged]
    };
    let (short, long) = (commit(300), commit(6_000));
    for (short, long) in short.into_iter().zip(long) {
        assert!(long <= short + short / 4 + 8, "{long} steps, and {short} with few");
    }
}

#[test]
fn sending_costs_in_proportion_to_the_messages() {
    let drain = |messages| {
        let relay = Relay::new();
        let (mut agent, channel) = queue(&relay, messages);
        let mut all = 0;
        loop {
            agent.reach(channel);
            let (offered, next) = steps(agent.engine(), |engine| engine.next_frames(channel, TURN_BYTES));
            let frames = next.expect("offered").frames;
            all += offered;
            if frames.is_empty() {
                break;
            }
            for frame in frames {
                let id = frame.frame.header().id;
                let outcome = relay.outcome(frame.frame);
                all += steps(agent.engine(), |engine| engine.outcome(channel, id, outcome)).0;
            }
            let cursor = agent.engine().cursor(channel).expect("known");
            let records = relay.entries(channel.log(), cursor);
            all += steps(agent.engine(), |engine| engine.process_entries(channel, &records)).0;
            all += steps(agent.engine(), |engine| engine.channel(channel)).0;
        }
        assert_eq!(agent.engine().channel(channel).expect("known").outbox, 0);
        all
    };
    let (few, many) = (drain(1_024), drain(4_096));
    assert!(many <= few * 5, "{many} steps for 4,096 messages, and {few} for 1,024");
}

#[test]
fn a_listed_failure_is_counted_once() {
    let relay = Relay::new();
    let (mut agent, channel) = queue(&relay, 3);
    let engine = agent.engine();
    let failed = |engine: &mut Engine| engine.channel(channel).expect("known").failed;
    let (waiting, _) = engine.outbox_page(channel, i64::MIN, u64::MAX).expect("listed");
    let ids: Vec<_> = waiting.iter().map(|queued| queued.frame_id).collect();
    for id in &ids {
        let outcome = Outcome::Refused {
            code: Code::FrameTooLarge,
            retryable: false,
        };
        engine.outcome(channel, *id, outcome).expect("taken");
    }
    assert_eq!(failed(engine), 3);
    assert!(engine.dismiss(channel, ids[0]).expect("dismissed"));
    assert!(!engine.dismiss(channel, ids[0]).expect("known"));
    assert_eq!(failed(engine), 2);
    engine.retry(channel, ids[1]).expect("queued").expect("there");
    assert_eq!(failed(engine), 1);
    assert_eq!(engine.channel(channel).expect("known").outbox, 1);
    // The vault says the same.
    agent.crash();
    let info = agent.engine().channel(channel).expect("known");
    assert_eq!((info.failed, info.outbox), (1, 1));
    let _ = relay::FRAMES_BYTES;
}
