//! Agents that move from one node of a fleet to another, and lose nothing.

use crate::behind::BehindStore;
use crate::client::{Agent, Client, Gone, closed, soon};
use crate::fixture::{Fixture, config, message};
use skytale_log_store::{LogStore, MemoryStore};
use skytale_proto::rest::Jwks;
use skytale_proto::session::{control_event::Event, notice};
use skytale_proto::token::TokenSigner;
use skytale_proto::{Code, Frame, Offset};
use skytale_relay_node::TrustSource;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

const FRAMES: usize = 400;
/// Frames on their way at once.
const WINDOW: usize = 16;

/// Two nodes over one log, of one fleet: what one agent may do at one of them, it may do at the other.
async fn two() -> [Fixture; 2] {
    let store = Arc::new(MemoryStore::new());
    two_over(store.clone(), store).await
}

async fn two_over(first: Arc<dyn LogStore>, second: Arc<dyn LogStore>) -> [Fixture; 2] {
    let seed = || zeroize::Zeroizing::new([9; 32]);
    let keys = || {
        let keys = vec![TokenSigner::from_seed(seed()).jwk()];
        TrustSource::Static(Jwks { keys })
    };
    let one = Fixture::trusting(config(), first, TokenSigner::from_seed(seed()), keys()).await;
    let two = Fixture::trusting(config(), second, TokenSigner::from_seed(seed()), keys()).await;
    let two = Fixture {
        account: one.account,
        key: one.key,
        ..two
    };
    [one, two]
}

/// State of the node, as far as its agents know it.
#[derive(Clone)]
struct Drain(watch::Receiver<bool>);

impl Drain {
    /// Frames of so many to send now: the last ones are sent once the drain has begun.
    fn allows(&self, frames: usize) -> usize {
        if *self.0.borrow() { frames } else { frames - WINDOW }
    }

    async fn begun(&mut self) {
        soon(self.0.wait_for(|begun| *begun)).await.expect("it begins");
    }
}

/// Appends frames in order until all are acknowledged or the node takes no more; how many are acknowledged then.
async fn append_all(
    client: &Client,
    frames: &[Frame],
    mut acked: usize,
    progress: &watch::Sender<usize>,
    drain: &mut Drain,
) -> usize {
    let mut appends = client.appends().await;
    let mut sent = acked;
    while acked < frames.len() {
        if acked == drain.allows(frames.len()) {
            drain.begun().await;
        }
        while sent < drain.allows(frames.len()) && sent - acked < WINDOW {
            if appends.send(&frames[sent]).await.is_err() {
                break;
            }
            sent += 1;
        }
        match appends.answer().await {
            Ok(Ok(_)) => acked += 1,
            Ok(Err(refusal)) => {
                assert_eq!(refusal.known_code(), Some(Code::Draining));
                assert!(refusal.retryable);
                break;
            }
            Err(gone) => {
                assert_eq!(gone.code(), Some(Code::Draining), "{gone:?}");
                break;
            }
        }
        progress.send_replace(acked);
    }
    acked
}

/// One agent's work: it appends to its channel at the first node until that is over, then at the second. Gives how many
/// frames the first one acknowledged.
async fn work(nodes: Arc<[Fixture; 2]>, agent: Agent, progress: watch::Sender<usize>, mut drain: Drain) -> usize {
    let token = nodes[0].token(&agent);
    let client = Client::start(&agent, &nodes[0].relay(), &token)
        .await
        .expect("a session");
    let channel = nodes[0].channel(&agent, &client).await;
    let frame = |n| message(channel, agent.id, 1, format!("{n}"));
    let frames: Vec<Frame> = (0..FRAMES).map(frame).collect();
    let mut follow = client.subscribe(channel.log(), Offset::FIRST, true).await;
    let first = append_all(&client, &frames, 0, &progress, &mut drain).await;
    // It has read some of what it wrote.
    let mut cursor = Offset::FIRST;
    for _ in 0..first / 2 {
        match follow.entry().await {
            Ok(entry) => cursor = entry.offset,
            Err(Gone::Connection(Some(Code::Draining)) | Gone::Stream(Some(Code::Draining))) => break,
            Err(gone) => panic!("{gone:?}"),
        }
    }
    client.leave();

    // The same token, and the same cursor.
    let client = Client::start(&agent, &nodes[1].relay(), &token)
        .await
        .expect("a session");
    let mut follow = client.subscribe(channel.log(), cursor, true).await;
    assert_eq!(append_all(&client, &frames, first, &progress, &mut drain).await, FRAMES);
    for n in cursor.get() - 1..FRAMES as u64 {
        let entry = follow.entry().await.expect("an entry");
        assert_eq!(entry.offset.get(), n + 2);
        assert_eq!(&entry.payload, frames[n as usize].encoded());
    }
    // Each is there once, in the order in which it was sent.
    let replayed = client.replay(channel.log(), Offset::FIRST).await;
    let found: Vec<_> = replayed.entries.iter().map(|entry| &entry.payload).collect();
    assert_eq!(found, frames.iter().map(Frame::encoded).collect::<Vec<_>>());
    client.leave();
    first
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_moves_agents_under_load_and_none_loses_a_send() {
    let nodes = Arc::new(two().await);
    let mut working = Vec::new();
    let mut progress = Vec::new();
    let (drains, drain) = watch::channel(false);
    for _ in 0..4 {
        let (told, watched) = watch::channel(0);
        working.push(tokio::spawn(work(
            nodes.clone(),
            Agent::new().await,
            told,
            Drain(drain.clone()),
        )));
        progress.push(watched);
    }
    for watched in &mut progress {
        soon(watched.wait_for(|acked| *acked >= FRAMES / 10))
            .await
            .expect("it works");
    }
    let drained = nodes[0].node.drain(Duration::from_secs(50));
    // In this order: what it has said when it is first polled is before what the agents learn.
    tokio::join!(biased; soon(drained), async { drains.send_replace(true) });
    assert_eq!(nodes[0].node.sessions(), 0);
    for work in working {
        let first = soon(work).await.expect("nothing went wrong");
        assert!(first < FRAMES, "each was in the middle of it");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_ends_sessions_that_have_nothing_open_and_waits_for_the_others() {
    let fixture = Arc::new(Fixture::new().await);
    let (_, mut idle) = fixture.agent().await;
    let (alice, mut busy) = fixture.agent().await;
    let channel = fixture.channel(&alice, &busy).await;
    let mut follow = busy.subscribe(channel.log(), Offset::ZERO, true).await;
    follow.caught_up().await;
    let draining = tokio::spawn({
        let fixture = fixture.clone();
        // Nobody waits for that.
        async move { fixture.node.drain(Duration::from_secs(3_600)).await }
    });
    for client in [&mut idle, &mut busy] {
        let Event::Notice(notice) = client.event().await.expect("an event") else {
            panic!("a notice")
        };
        assert_eq!(notice.kind(), notice::Kind::Drain);
    }
    assert_eq!(idle.refused().await, Some(Code::Draining));
    assert_eq!(closed(&idle.connection).await, Some(Code::Draining));
    // The other one reads on, until it has closed what it had open.
    assert_eq!(busy.replay(channel.log(), Offset::ZERO).await.offsets(), [1]);
    drop(follow);
    assert_eq!(closed(&busy.connection).await, Some(Code::Draining));
    soon(draining).await.expect("drained");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cursor_from_a_node_that_is_ahead_is_waited_for_and_not_called_wrong() {
    let store = Arc::new(MemoryStore::new());
    let behind = BehindStore::new(store.clone(), Offset::new(2));
    let [ahead, second] = two_over(store, behind.clone()).await;
    let (alice, a) = ahead.agent().await;
    let channel = ahead.channel(&alice, &a).await;
    for offset in 2..6 {
        let frame = message(channel, alice.id, 1, format!("{offset}"));
        assert_eq!(a.append(&frame).await.expect("appended").offset, offset);
    }
    let b = second.session(&alice, &second.claims(&alice)).await;
    // It does not know, and says so: an agent that comes again, or goes elsewhere, is right.
    let refused = b.replay(channel.log(), Offset::new(4)).await.refusal.expect("refused");
    assert_eq!(refused.known_code(), Some(Code::CatchingUp));
    assert!(refused.retryable && refused.retry_after_ms > 0, "{refused:?}");

    behind.follow();
    let replayed = b.replay(channel.log(), Offset::new(4)).await;
    assert_eq!(
        (replayed.offsets(), replayed.caught_up),
        (vec![5], Some(Offset::new(5)))
    );
    let refused = b.replay(channel.log(), Offset::new(9)).await.refusal.expect("refused");
    assert_eq!(
        (refused.known_code(), refused.offset),
        (Some(Code::CursorBeyondHead), 5)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_has_caught_up_with_all_nodes_or_learns_that_nobody_can_say() {
    let store = Arc::new(MemoryStore::new());
    let behind = BehindStore::new(store.clone(), Offset::new(2));
    let [ahead, second] = two_over(store, behind.clone()).await;
    let (alice, a) = ahead.agent().await;
    let channel = ahead.channel(&alice, &a).await;
    for offset in 2..6 {
        let frame = message(channel, alice.id, 1, format!("{offset}"));
        assert_eq!(a.append(&frame).await.expect("appended").offset, offset);
    }
    let b = second.session(&alice, &second.claims(&alice)).await;
    let replayed = b.replay(channel.log(), Offset::ZERO).await;
    assert_eq!((replayed.offsets(), replayed.is_confirmed), (vec![1, 2], false));
    assert_eq!(replayed.caught_up, Some(Offset::new(2)));

    behind.follow();
    let replayed = b.replay(channel.log(), Offset::ZERO).await;
    assert_eq!((replayed.offsets(), replayed.is_confirmed), (vec![1, 2, 3, 4, 5], true));
    assert_eq!(replayed.caught_up, Some(Offset::new(5)));
}
