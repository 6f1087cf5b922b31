//! Problems as people see them: losses, contradictions, and remedies.

use super::relay::{Agent, FRAMES_BYTES, Relay, channel_of, settle};
use skytale_proto::{Code, Offset};
use skytale_sdk::internals::engine::{Fate, Outcome};
use skytale_sdk::{Event, LostReason, Problem, Standing};

#[test]
fn what_the_log_no_longer_keeps_is_a_problem_with_its_range_of_the_agents_own_log_too() {
    let relay = Relay::new();
    let (mut a, mut b) = (Agent::new(), Agent::new());
    let channel = channel_of(&relay, &mut [&mut a, &mut b]);
    assert_eq!(b.engine().problems(Some(channel)).expect("listed"), []);
    assert_eq!(b.engine().problems(None).expect("listed"), []);
    let first = relay.head(channel.log()).next();
    for text in ["one", "two", "three"] {
        a.send(channel, text);
    }
    settle(&relay, channel, &mut [&mut a]);
    let last = relay.head(channel.log());
    relay.trim(channel.log(), last);
    let own = b.id().log();
    let cursor = b.engine().agent_cursor();
    a.claim(&relay, b.id());
    relay.trim(own, relay.head(own));
    settle(&relay, channel, &mut [&mut a, &mut b]);
    b.read_own_log(&relay);

    let problems = b.engine().problems(Some(channel)).expect("listed");
    let [problem] = problems.as_slice() else {
        panic!("{problems:?}")
    };
    assert_eq!(problem.offsets(), Some((first, last)));
    assert_eq!((problem.name(), problem.code()), ("lost", Code::Trimmed));
    assert_eq!(
        problem.describe(),
        format!("messages {first} to {last} are gone: the log no longer kept them")
    );
    assert!(!problem.is_divergence() && !problem.is_standing());

    let problems = b.engine().problems(None).expect("listed");
    let [Problem::Lost(lost)] = problems.as_slice() else {
        panic!("{problems:?}")
    };
    assert_eq!((lost.first, lost.reason), (cursor.next(), LostReason::Trimmed));
    // It is in the vault.
    b.crash();
    assert_eq!(b.engine().problems(None).expect("listed"), problems);
}

#[test]
fn a_member_that_is_out_of_sync_says_since_when_and_whether_it_has_asked() {
    let relay = Relay::new();
    let (mut a, mut b) = (Agent::new(), Agent::new());
    let channel = channel_of(&relay, &mut [&mut a, &mut b]);
    a.engine().update_keys(channel).expect("queued");
    a.send(channel, "gone");
    settle(&relay, channel, &mut [&mut a]);
    relay.trim(channel.log(), relay.head(channel.log()));
    settle(&relay, channel, &mut [&mut b]);
    let problems = b.engine().problems(Some(channel)).expect("listed");
    let standing = problems.iter().find(|problem| problem.is_standing());
    let Some(Problem::OutOfSync { asked: Some(_), .. }) = standing else {
        panic!("{problems:?}")
    };
    settle(&relay, channel, &mut [&mut a, &mut b]);
    assert_eq!(b.engine().channel(channel).expect("known").standing, Standing::Current);
    let problems = b.engine().problems(Some(channel)).expect("listed");
    assert!(
        problems.iter().all(|problem| matches!(problem, Problem::Lost(_))) && !problems.is_empty(),
        "{problems:?}"
    );
}

#[test]
fn a_send_that_the_log_took_where_it_went_back_is_not_called_failed() {
    let relay = Relay::new();
    let (mut a, mut b) = (Agent::new(), Agent::new());
    let channel = channel_of(&relay, &mut [&mut a, &mut b]);
    for text in ["one", "two"] {
        b.send(channel, text);
    }
    settle(&relay, channel, &mut [&mut a, &mut b]);
    let cursor = a.engine().cursor(channel).expect("known");
    let id = a.send(channel, "where the log went back");
    let given = a.engine().next_frames(channel, FRAMES_BYTES).expect("given");
    assert_eq!(given.frames.len(), 1);
    a.take_events();
    // The log has put it where this agent was shown "two".
    let events = a
        .engine()
        .outcome(channel, id, Outcome::Appended { offset: cursor })
        .expect("taken");
    let told = Event::RolledBack {
        channel: Some(channel),
        kept: cursor.previous(),
        cursor,
    };
    assert_eq!(events, [told]);
    assert_eq!(a.engine().failed(channel).expect("listed"), []);
    assert_eq!(a.engine().fate(channel, id).expect("known"), Some(Fate::Waiting));

    // After a restart the log says that it has it already: the same holds.
    a.crash();
    a.engine().reached_head(channel).expect("taken");
    let given = a.engine().next_frames(channel, FRAMES_BYTES).expect("given");
    assert_eq!(given.frames.len(), 1);
    let events = a
        .engine()
        .outcome(channel, id, Outcome::Duplicate { offset: cursor })
        .expect("taken");
    assert_eq!(events, []);
    assert_eq!(a.engine().fate(channel, id).expect("known"), Some(Fate::Waiting));
    let problems = a.engine().problems(Some(channel)).expect("listed");
    let [problem @ Problem::RolledBack(_)] = problems.as_slice() else {
        panic!("{problems:?}")
    };
    assert_eq!(problem.code(), Code::CursorBeyondHead);
    assert!(problem.is_divergence());
}

#[test]
fn a_relay_that_makes_up_where_a_send_is_cannot_call_an_honest_log_rolled_back_for_good() {
    let relay = Relay::new();
    let (mut a, mut b) = (Agent::new(), Agent::new());
    let channel = channel_of(&relay, &mut [&mut a, &mut b]);
    b.send(channel, "one");
    settle(&relay, channel, &mut [&mut a, &mut b]);
    let cursor = a.engine().cursor(channel).expect("known");
    // A relay node that lags, or lies.
    let events = a.engine().log_is_short(channel, cursor.previous()).expect("recorded");
    assert_eq!(events.len(), 1);
    assert_eq!(
        a.engine().log_is_short(channel, cursor.previous()).expect("known"),
        [],
        "told once"
    );
    assert_eq!(
        a.engine()
            .log_is_short(channel, Offset::new(1_000))
            .expect("no evidence"),
        []
    );
    assert!(a.engine().rollback(Some(channel)).expect("read").is_some());
    // A member that was shown the same log proves that nothing is missing.
    b.send(channel, "two");
    settle(&relay, channel, &mut [&mut a, &mut b]);
    assert_eq!(a.engine().rollback(Some(channel)).expect("read"), None);
    a.crash();
    assert_eq!(a.engine().problems(Some(channel)).expect("listed"), []);
}

#[test]
fn an_own_log_that_is_short_is_told_once_and_until_it_has_gone_on() {
    let relay = Relay::new();
    let mut a = Agent::new();
    a.stock_up(&relay);
    a.read_own_log(&relay);
    let cursor = a.engine().agent_cursor();
    assert!(cursor > Offset::new(1));
    assert_eq!(a.engine().agent_log_is_short(cursor).expect("no evidence"), []);
    assert_eq!(
        a.engine().agent_log_is_short(Offset::new(1)).expect("recorded").len(),
        1
    );
    assert_eq!(a.engine().agent_log_is_short(Offset::new(1)).expect("known"), []);
    a.crash();
    let problems = a.engine().problems(None).expect("listed");
    let [problem @ Problem::RolledBack(_)] = problems.as_slice() else {
        panic!("{problems:?}")
    };
    assert_eq!(problem.offsets(), Some((Offset::new(2), cursor)));
    a.engine().agent_log_reached().expect("kept");
    assert_eq!(a.engine().problems(None).expect("listed"), []);
}
