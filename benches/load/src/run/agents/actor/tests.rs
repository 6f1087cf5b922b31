//! Behaviour of agents without a relay node.

use super::super::tests::{ROOM, stage, stage_at};
use super::*;
use futures_util::future::{FutureExt as _, ready};
use skytale_proto::{ChannelMode, FrameId};
use skytale_workload::Channel as Room;
use tokio::net::TcpListener;

/// An API that answers nobody.
struct Mute(TcpListener);

async fn actor(dir: &std::path::Path) -> (Actor, Arc<Open>, Mute) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    let stage = stage_at(dir, &url).await;
    let open = Arc::new(Open::new(&stage.base, 0, None));
    (Actor::new(stage, 0).0, open, Mute(listener))
}

/// Comes, and has no session.
async fn come(actor: &mut Actor, open: &Arc<Open>, api: &Mute) {
    // What came from the life before.
    while api.0.accept().now_or_never().is_some() {}
    tokio::select! {
        _ = actor.come(Duration::ZERO, open) => panic!("it has a session"),
        // It has done by then what it does offline.
        asked = api.0.accept() => drop(asked.expect("a connection")),
    }
}

/// Does the append of an event: those of the plan come after three others.
async fn append(actor: &mut Actor, frame: Frame, number: usize) {
    let open = Arc::new(Open::new(&actor.stage.base, 3 + number, None));
    let append = actor.append(Duration::ZERO, 200, &frame, open);
    append.await.expect("it is in the outbox");
}

fn create() -> Frame {
    Frame::Create {
        channel: Room(0),
        mode: ChannelMode::Mls,
    }
}

/// Appends that were sent, acknowledged and given up, and agents online.
fn counts(stage: &Stage) -> [u64; 4] {
    let tallies = &stage.base.tallies;
    [&tallies.sent, &tallies.acknowledged, &tallies.given_up, &tallies.online]
        .map(|tally| tally.load(Ordering::Relaxed))
}

#[tokio::test]
async fn an_agent_that_never_had_a_session_does_not_go_offline() {
    let dir = tempfile::tempdir().expect("a folder");
    let (mut actor, open, api) = actor(dir.path()).await;
    come(&mut actor, &open, &api).await;
    assert!(actor.life.is_some());
    actor.go_away().await;
    assert_eq!(counts(&actor.stage), [0; 4]);
}

#[tokio::test]
async fn what_was_not_in_the_log_is_taken_up_when_its_agent_comes_back() {
    let dir = tempfile::tempdir().expect("a folder");
    let (mut actor, open, api) = actor(dir.path()).await;
    come(&mut actor, &open, &api).await;
    append(&mut actor, create(), 0).await;
    append(&mut actor, Frame::Message(Room(0)), 1).await;
    for _ in 0..2 {
        assert_eq!((actor.waiting.len(), actor.left.len()), (2, 0));
        actor.go_away().await;
        assert_eq!((actor.waiting.len(), actor.left.len()), (0, 2));
        // The events are done without them.
        assert_eq!(Arc::strong_count(&open), 1);
        come(&mut actor, &open, &api).await;
    }
    actor.go_away().await;
    assert_eq!(counts(&actor.stage), [2, 0, 0, 0]);
    assert_eq!(actor.stage.judge.faults().0, Vec::<String>::new());
}

#[tokio::test]
async fn a_message_that_a_vault_has_lost_is_a_fault() {
    let dir = tempfile::tempdir().expect("a folder");
    let (mut actor, open, api) = actor(dir.path()).await;
    come(&mut actor, &open, &api).await;
    append(&mut actor, create(), 0).await;
    append(&mut actor, Frame::Message(Room(0)), 1).await;
    actor.go_away().await;
    for part in actor.left.iter_mut().flat_map(|append| &mut append.parts) {
        if let Part::Message(_, frame) = part {
            *frame = FrameId::generate();
        }
    }
    come(&mut actor, &open, &api).await;
    actor.go_away().await;
    assert_eq!(counts(&actor.stage), [2, 0, 1, 0]);
    let (faults, count) = actor.stage.judge.faults();
    assert_eq!(count, 1);
    assert!(faults[0].contains("has lost message"), "{faults:?}");
}

#[tokio::test]
async fn a_commit_that_adds_and_removes_is_sent_once() {
    let dir = tempfile::tempdir().expect("a folder");
    let (mut actor, open, api) = actor(dir.path()).await;
    come(&mut actor, &open, &api).await;
    append(&mut actor, create(), 0).await;
    for agent in [1, 2] {
        actor.stage.ids[agent].send_replace(Some(AgentId::from_bytes([agent as u8; 32])));
    }
    let open = Arc::new(Open::new(&actor.stage.base, 4, None));
    let stage = Arc::clone(&actor.stage);
    let commit = actor.commit(Duration::ZERO, 0, &[Number(1)], &[Number(2)], open);
    // Without a session there are no KeyPackages.
    let removed = async {
        while counts(&stage)[0] < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        _ = commit => {}
        () = removed => {}
    }
    assert_eq!(counts(&actor.stage)[0], 2);
    actor.go_away().await;
}

fn commit(number: usize) -> Append {
    let part = |number, is_add| Part::Change(ROOM, FrameId::generate(), vec![number], is_add);
    Append {
        place: 3 + number,
        planned: Duration::ZERO,
        author: AgentId::from_bytes([1; 32]),
        message: None,
        parts: vec![part(2, false), part(1, true)],
        is_counted: true,
    }
}

fn waits<const N: usize>(ends: [Result<u64, AgentError>; N]) -> Vec<Wait> {
    let offset = |end: Result<u64, AgentError>| end.map(|offset| Some(Offset::new(offset)));
    ends.into_iter().map(|end| ready(offset(end)).boxed()).collect()
}

fn failed() -> AgentError {
    AgentError::SendFailed {
        frame_id: FrameId::generate(),
        code: Code::ChannelLeft,
    }
}

#[tokio::test]
async fn a_commit_that_adds_and_removes_is_acknowledged_once_when_both_are() {
    let dir = tempfile::tempdir().expect("a folder");
    let stage = stage(dir.path()).await;
    let settle = |append: Append, waits| append.settle(Arc::clone(&stage), 0, waits);
    assert!(settle(commit(0), waits([Ok(4), Ok(5)])).await.is_none());
    assert_eq!(counts(&stage), [1, 1, 0, 0]);
    let changed = |agent: u32| stage.present.lock().changes[&(agent, ROOM)].clone();
    assert_eq!(changed(1).into_iter().collect::<Vec<_>>(), [(Offset::new(5), true)]);
    assert_eq!(changed(2).into_iter().collect::<Vec<_>>(), [(Offset::new(4), false)]);
    // Its author went away in between, and came back.
    let left = settle(commit(1), waits([Ok(6), Err(AgentError::Closed)])).await;
    assert_eq!(counts(&stage), [1, 1, 0, 0]);
    let left = left.expect("a part is left");
    assert_eq!(left.parts.len(), 1);
    assert!(settle(left, waits([Ok(7)])).await.is_none());
    assert_eq!(counts(&stage), [2, 2, 0, 0]);
    // It is given up once, if one part fails or both.
    assert!(settle(commit(2), waits([Ok(8), Err(failed())])).await.is_none());
    assert_eq!(counts(&stage), [3, 2, 1, 0]);
    assert!(settle(commit(3), waits([Err(failed()), Err(failed())])).await.is_none());
    assert_eq!(counts(&stage), [4, 2, 2, 0]);
}
