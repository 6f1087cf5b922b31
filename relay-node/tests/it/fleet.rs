//! Relay nodes over the stores of a fleet, on real NATS servers: one log, whichever node is asked.

use crate::admin;
use crate::client::{Agent, Client, Replayed, soon};
use crate::fixture::{ACCOUNT, Fixture, claim, commit, config, create, key_package, message};
use crate::key_packages::{ask, claimed};
use skytale_log_store::cluster::{Account, Cluster};
use skytale_log_store::fleet::FleetConfig;
use skytale_log_store::{FleetStore, LogStore};
use skytale_proto::rest::Jwks;
use skytale_proto::session::{Durability, key_packages_request::Request, key_packages_response::Outcome};
use skytale_proto::token::TokenSigner;
use skytale_proto::{AccountId, ChannelId, Code, Detail, Frame, KeyId, LogId, Offset};
use skytale_relay_node::TrustSource;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

/// One node of a fleet.
struct Node {
    fixture: Fixture,
    store: Arc<FleetStore>,
    _dir: TempDir,
}

/// Owner of the agents: the same at all nodes.
#[derive(Clone, Copy)]
struct Owner {
    account: AccountId,
    key: KeyId,
}

fn owner() -> Owner {
    Owner {
        account: ACCOUNT,
        key: KeyId::generate(),
    }
}

impl Node {
    /// A new node with nothing on its disk, that has caught up.
    async fn start(account: &Account, owner: Owner) -> Self {
        Self::start_with(account, owner, |_| {}).await
    }

    async fn start_with(account: &Account, owner: Owner, change: impl FnOnce(&mut FleetConfig)) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let mut settings = account.settings(dir.path());
        change(&mut settings);
        let store = Arc::new(FleetStore::open(settings).await.expect("the store opens"));
        store.ready().await.expect("it catches up");
        let signer = || TokenSigner::from_seed(zeroize::Zeroizing::new([21; 32]));
        let keys = vec![signer().jwk()];
        let trust = TrustSource::Static(Jwks { keys });
        let fixture = Fixture::trusting(config(), store.clone(), signer(), trust).await;
        let fixture = Fixture {
            account: owner.account,
            key: owner.key,
            ..fixture
        };
        Self {
            fixture,
            store,
            _dir: dir,
        }
    }

    /// A session of an agent that may have others elsewhere.
    async fn session(&self, agent: &Agent) -> Client {
        self.fixture.session(agent, &self.fixture.claims(agent)).await
    }

    async fn stop(self) {
        soon(self.fixture.node.shutdown()).await;
        soon(self.store.close()).await.expect("closed");
    }
}

/// Replays a log, again while the node asks for that: it may be behind for a moment.
async fn replay_patiently(client: &Client, log: LogId, after: Offset) -> Replayed {
    soon(Box::pin(async {
        loop {
            let replayed = client.replay(log, after).await;
            if !replayed.refusal.as_ref().is_some_and(|refusal| refusal.retryable) {
                return replayed;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }))
    .await
}

/// Replays a log, which must not be refused.
async fn replay(client: &Client, log: LogId, after: Offset) -> Replayed {
    let replayed = replay_patiently(client, log, after).await;
    assert_eq!(replayed.code(), None, "{replayed:?}");
    replayed
}

/// Appends a frame, again while the node asks for that; its offset.
async fn append_patiently(client: &Client, frame: &Frame) -> u64 {
    soon(Box::pin(async {
        loop {
            match client.append(frame).await {
                Ok(appended) => return appended.offset,
                Err(refusal) => assert!(refusal.retryable, "{refusal:?}"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }))
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_appended_at_one_node_is_read_at_another_with_the_same_cursor() {
    let recorder = admin::recorder();
    let account = Cluster::shared().await.account();
    let owner = owner();
    let (one, two) = (Node::start(&account, owner).await, Node::start(&account, owner).await);
    let (alice, bob, carol) = (Agent::new().await, Agent::new().await, Agent::new().await);
    let (a, b) = (one.session(&alice).await, two.session(&bob).await);
    assert_eq!(a.started.durability(), Durability::QuorumSynced);
    let channel = one.fixture.channel(&alice, &a).await;
    let log = channel.log();

    // A cursor of the one node, taken to the other while that may not be there yet.
    let elsewhere = two.session(&alice).await;
    for offset in 2..52 {
        let appended = a.append(&message(channel, alice.id, 1, format!("{offset}"))).await;
        assert_eq!(appended.expect("appended").offset, offset);
        let at = Offset::new(offset);
        let there = replay(&elsewhere, log, at).await;
        assert_eq!((there.offsets(), there.caught_up), (vec![], Some(at)));
        assert_eq!(replay(&elsewhere, log, at.previous()).await.offsets(), [offset]);
    }
    // One that nobody has given out is still none.
    let none = replay_patiently(&elsewhere, log, Offset::new(99)).await;
    assert_eq!(none.code(), Some(Code::CursorBeyondHead));

    // Access and rosters: an agent added at one is a member at the other, and nobody else is.
    let stranger = replay_patiently(&b, log, Offset::ZERO).await;
    assert_eq!(stranger.code(), Some(Code::NotMember));
    b.append(&key_package(bob.id, false)).await.expect("offered");
    claimed(&a, &claim(bob.id, alice.id)).await;
    let bundle = commit(channel, alice.id, 1, &[bob.id], &[]);
    assert_eq!(a.append(&bundle).await.expect("appended").offset, 52);
    let mut welcomes = b.subscribe(bob.id.log(), Offset::new(2), true).await;
    let welcome = welcomes.entry().await.expect("a welcome");
    let welcome = Frame::decode(welcome.payload).expect("a frame");
    let offset = Offset::new(52);
    assert_eq!(
        welcome.header().detail,
        Detail::Welcome {
            channel,
            offset,
            returns: false,
        }
    );
    let said = b.append(&message(channel, bob.id, 52, "from the other node")).await;
    assert_eq!(said.expect("appended").offset, 53);
    let read = replay(&a, log, offset).await;
    assert_eq!(read.offsets(), [53]);
    let c = two.session(&carol).await;
    let stranger = replay_patiently(&c, log, Offset::ZERO).await;
    assert_eq!(stranger.code(), Some(Code::NotMember));
    let refused = c.append(&message(channel, carol.id, 52, "nobody's")).await;
    assert_eq!(refused.expect_err("refused").known_code(), Some(Code::NotMember));
    let unknown = ChannelId::generate();
    let unknown = replay_patiently(&c, unknown.log(), Offset::ZERO).await;
    assert_eq!(unknown.code(), Some(Code::UnknownLog));

    // Two commits on one head at once, at two nodes: one of them wins, at both.
    for round in 0..10 {
        let head = replay(&a, log, Offset::ZERO).await.caught_up.expect("a head");
        let parent = if round == 0 { 52 } else { head.get() };
        let (mine, theirs) = (
            commit(channel, alice.id, parent, &[], &[]),
            commit(channel, bob.id, parent, &[], &[]),
        );
        let (mine, theirs) = tokio::join!(a.append(&mine), b.append(&theirs));
        let (won, lost) = match (mine, theirs) {
            (Ok(won), Err(lost)) | (Err(lost), Ok(won)) => (won, lost),
            other => panic!("{other:?}"),
        };
        assert_eq!(
            (lost.known_code(), lost.offset),
            (Some(Code::StaleHandshake), won.offset)
        );
    }

    // A removed agent reads up to its removal, and no further, at any node.
    let head = replay(&a, log, Offset::ZERO).await.caught_up.expect("a head").get();
    let removal = a.append(&commit(channel, alice.id, head, &[], &[bob.id])).await;
    let removal = removal.expect("appended").offset;
    a.append(&message(channel, alice.id, removal, "without bob"))
        .await
        .expect("appended");
    let refused = b.append(&message(channel, bob.id, removal, "late")).await;
    assert_eq!(refused.expect_err("refused").known_code(), Some(Code::NotMember));
    let read = replay_patiently(&b, log, offset).await;
    assert_eq!(
        (read.offsets().last(), read.code()),
        (Some(&removal), Some(Code::NotMember))
    );

    // The same entries, with the same times, from both.
    let here = replay(&a, log, Offset::ZERO).await;
    let there = replay(&elsewhere, log, Offset::ZERO).await;
    assert_eq!(here.entries, there.entries);
    assert_eq!(here.offsets(), (1..=removal + 1).collect::<Vec<_>>());

    // A server that lags for a moment is one remark, for that moment.
    let body = soon(async {
        loop {
            let (status, body) = admin::get(&two.fixture, "/readyz").await;
            if (status, &body["remarks"]) == (200, &serde_json::json!([])) {
                return body;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    assert_eq!(body["lag"].as_array().map(Vec::len), Some(2), "{body}");
    let metrics = recorder.render();
    for name in [
        r#"skytale_fleet_follower_lag_messages{shard="0/0"}"#,
        "skytale_fleet_publish_batch_frames",
        "skytale_fleet_publish_seconds",
        "skytale_fleet_followed_messages_total",
    ] {
        assert!(metrics.contains(name), "`{name}` is not in:\n{metrics}");
    }
    one.stop().await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn key_packages_offered_at_one_node_are_claimed_once_each_at_the_others() {
    let account = Cluster::shared().await.account();
    let owner = owner();
    let (one, two) = (Node::start(&account, owner).await, Node::start(&account, owner).await);
    let (alice, bob, carol) = (Agent::new().await, Agent::new().await, Agent::new().await);
    let b = two.session(&bob).await;
    for _ in 0..6 {
        b.append(&key_package(bob.id, false)).await.expect("offered");
    }
    let (a, c) = (one.session(&alice).await, two.session(&carol).await);
    let (mut first, mut second) = (a.key_packages().await, c.key_packages().await);
    let mut taken = Vec::new();
    for _ in 0..3 {
        let claim = |by| Request::Claim(claim(bob.id, by).encoded().clone());
        let (here, there) = tokio::join!(ask(&mut first, claim(alice.id)), ask(&mut second, claim(carol.id)));
        for outcome in [here, there] {
            let Outcome::Claimed(claimed) = outcome else {
                panic!("{outcome:?}")
            };
            taken.push(claimed.package_offset);
        }
    }
    taken.sort_unstable();
    assert_eq!(taken, [1, 2, 3, 4, 5, 6]);
    let refused = ask(&mut first, Request::Claim(claim(bob.id, alice.id).encoded().clone())).await;
    let Outcome::Refusal(refused) = refused else {
        panic!("{refused:?}")
    };
    assert_eq!(refused.known_code(), Some(Code::KeyPackagesExhausted));
    one.stop().await;
    two.stop().await;
}

/// A node in a runtime of its own, which can be torn away under it.
fn doomed(account: Account, owner: Owner) -> (tokio::runtime::Runtime, tokio::sync::oneshot::Receiver<Node>) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let (told, started) = tokio::sync::oneshot::channel();
    runtime.spawn(async move {
        let node = Node::start(&account, owner).await;
        drop(told.send(node));
    });
    (runtime, started)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_gone_in_the_middle_of_it_loses_nothing_and_an_empty_one_takes_its_place() {
    let account = Cluster::shared().await.account();
    let owner = owner();
    let two = Node::start(&account, owner).await;
    let (runtime, started) = doomed(account.clone(), owner);
    let one = soon(started).await.expect("it starts");
    let alice = Agent::new().await;
    let a = one.session(&alice).await;
    let channel = one.fixture.channel(&alice, &a).await;
    let frames: Vec<Frame> = (0..300)
        .map(|n| message(channel, alice.id, 1, format!("{n}")))
        .collect();
    let mut appends = a.appends().await;
    for frame in &frames {
        appends.send(frame).await.expect("sent");
    }
    let mut acked = Vec::new();
    for _ in 0..20 {
        acked.push(appends.answer().await.expect("answered").expect("appended").offset);
    }
    // All at once: nothing is finished, said or closed.
    runtime.shutdown_background();
    drop(one);

    // Frames that were not acknowledged go to the other node, as they were. Some of it had got there.
    let b = two.session(&alice).await;
    let mut appends = b.appends().await;
    for frame in &frames[acked.len()..] {
        appends.send(frame).await.expect("sent");
    }
    for _ in acked.len()..frames.len() {
        acked.push(appends.answer().await.expect("answered").expect("appended").offset);
    }
    assert_eq!(acked, (2..frames.len() as u64 + 2).collect::<Vec<_>>());
    let read = replay(&b, channel.log(), Offset::FIRST).await;
    let read: Vec<_> = read.entries.iter().map(|entry| &entry.payload).collect();
    assert_eq!(read, frames.iter().map(Frame::encoded).collect::<Vec<_>>());

    let three = Node::start(&account, owner).await;
    let c = three.session(&alice).await;
    let there = replay(&c, channel.log(), Offset::ZERO).await.entries;
    assert_eq!(there, replay(&b, channel.log(), Offset::ZERO).await.entries);
    let last = c.append(&message(channel, alice.id, 1, "from the new one")).await;
    assert_eq!(last.expect("appended").offset, frames.len() as u64 + 2);
    two.stop().await;
    three.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_its_streams_a_node_serves_what_it_has_and_tells_agents_to_come_again() {
    let cluster = Cluster::start().await;
    let account = cluster.account();
    let node = Node::start_with(&account, owner(), |settings| {
        settings.append_timeout = Duration::from_secs(2);
        settings.alarm_after = Duration::from_secs(60);
    })
    .await;
    let alice = Agent::new().await;
    let a = node.session(&alice).await;
    let channel = ChannelId::generate();
    assert_eq!(append_patiently(&a, &create(channel, alice.id)).await, 1);
    cluster.kill(0);
    cluster.kill(1);

    let frame = message(channel, alice.id, 1, "kept by its author");
    let refused = a.append(&frame).await.expect_err("no quorum");
    assert_eq!(refused.known_code(), Some(Code::HomeUnreachable), "{refused:?}");
    assert!(refused.retryable && refused.retry_after_ms > 0, "{refused:?}");
    assert_eq!(replay(&a, channel.log(), Offset::ZERO).await.offsets(), [1]);
    // With no server left, the operator learns that the node is not ready, and its agents still read.
    cluster.kill(2);
    soon(async {
        loop {
            let (status, body) = admin::get(&node.fixture, "/readyz").await;
            if status == 503 {
                return assert_eq!(body["reasons"][0]["check"], "store", "{body}");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    assert_eq!(replay(&a, channel.log(), Offset::ZERO).await.offsets(), [1]);

    for server in 0..3 {
        cluster.run(server);
    }
    Box::pin(cluster.settled()).await;
    assert_eq!(append_patiently(&a, &frame).await, 2);
    assert_eq!(
        replay(&a, channel.log(), Offset::FIRST).await.entries[0].payload,
        *frame.encoded()
    );
    soon(async {
        while admin::get(&node.fixture, "/readyz").await.0 != 200 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_channel_of_a_region_that_the_fleet_has_not_is_none() {
    let account = Cluster::shared().await.account();
    let node = Node::start(&account, owner()).await;
    let alice = Agent::new().await;
    let a = node.session(&alice).await;
    let channel = ChannelId::generate_in(skytale_proto::Region(9));
    let created = a.append(&create(channel, alice.id)).await;
    assert_eq!(created.expect_err("refused").known_code(), Some(Code::UnknownLog));
    assert_eq!(
        a.replay(channel.log(), Offset::ZERO).await.code(),
        Some(Code::UnknownLog)
    );
    node.stop().await;
}
