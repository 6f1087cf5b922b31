//! Bounds: what one agent can take, and that others do not feel it.

use crate::admin::get;
use crate::client::{Agent, Gone, Subscription, Wire, id_of, soon};
use crate::fixture::{Fixture, commit, config, message};
use crate::witness::Witness;
use iroh::SecretKey;
use skytale_log_store::faulty::{FaultyStore, Way};
use skytale_proto::session::{AppendResponse, Open, Subscribe, open};
use skytale_proto::{AccountId, AgentId, Code, Offset};
use std::sync::Arc;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_never_reads_holds_a_bounded_part_of_the_log_and_loses_nothing() {
    let store = FaultyStore::new();
    let mut config = config();
    config.limits.bytes_per_second = 1 << 30;
    config.limits.send_window_bytes = 1024 * 1024;
    let fixture = Fixture::over(config, store.clone()).await;
    let mut witness = Witness::start(&fixture).await;
    let (alice, a) = fixture.agent().await;
    let channel = fixture.channel(&alice, &a).await;
    let before = store.read_bytes();
    let stalled = a.subscribe(channel.log(), Offset::ZERO, true).await;
    let mut appends = a.appends().await;
    for _ in 0..32 {
        appends
            .send(&message(channel, alice.id, 1, vec![7; 1_000_000]))
            .await
            .expect("sent");
    }
    for _ in 0..32 {
        assert_eq!(appends.verdict().await, None);
    }
    witness.is_served().await;
    // Bytes that left the store: the client's window, the node's, and one batch.
    let read = store.read_bytes() - before;
    assert!(read < 12_000_000, "{read} bytes were read for one that does not read");
    witness.is_served().await;

    let mut stalled = stalled;
    for offset in 1..=33 {
        assert_eq!(stalled.entry().await.expect("goes on").offset, Offset::new(offset));
    }
    witness.leave().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_readers_that_do_not_read_share_one_bound() {
    let store = FaultyStore::new();
    let mut config = config();
    config.limits.replay_bytes_max = 2 * 1024 * 1024;
    let fixture = Fixture::over(config, store.clone()).await;
    let alice = Agent::with_stream_window(4_096).await;
    let a = fixture.session(&alice, &fixture.claims(&alice)).await;
    let channel = fixture.channel(&alice, &a).await;
    for _ in 0..100 {
        a.append(&message(channel, alice.id, 1, vec![7; 5_000]))
            .await
            .expect("appended");
    }
    let before = store.read_bytes();
    let mut stalled = Vec::new();
    for _ in 0..300 {
        stalled.push(a.subscribe(channel.log(), Offset::ZERO, true).await);
    }
    // The last one begins to read when all others have.
    let last = stalled.last_mut().expect("there are some");
    assert_eq!(last.entry().await.expect("is served").offset, Offset::FIRST);
    let read = store.read_bytes() - before;
    // A batch each would be 77 MB.
    assert!(read < 12_000_000, "{read} bytes were read for 300 that do not read");
    for follow in &mut stalled {
        follow.caught_up().await;
    }
}

/// Returns the bytes read for agents that stall, so that nothing is acknowledged; they get all of it when they go on. Waits until they are
/// more than so many, or without that until no more are read.
async fn read_for_agents_that_stand_still(send_bytes_max: u64, more_than: Option<usize>) -> usize {
    const AGENTS: usize = 48;
    let store = FaultyStore::new();
    let mut config = config();
    config.limits.bytes_per_second = 1 << 30;
    config.limits.send_bytes_max = send_bytes_max;
    let fixture = Arc::new(Fixture::over(config, store.clone()).await);
    let (alice, a) = fixture.agent().await;
    let channel = fixture.channel(&alice, &a).await;

    let (begun, all_begun) = tokio::sync::oneshot::channel();
    let (go_on, may_go_on) = std::sync::mpsc::channel();
    let identities: Vec<SecretKey> = (0..AGENTS).map(|_| SecretKey::generate()).collect();
    let members: Vec<AgentId> = identities.iter().map(id_of).collect();
    a.append(&commit(channel, alice.id, 1, &members, &[]))
        .await
        .expect("added");
    let relay = fixture.clone();
    let agents = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async {
            let mut following = Vec::new();
            for identity in identities {
                let agent = Agent::with_identity(identity).await;
                let client = relay.session(&agent, &relay.claims(&agent)).await;
                let mut subscription = client.subscribe(channel.log(), Offset::new(2), true).await;
                subscription.caught_up().await;
                following.push((agent, client, subscription));
            }
            begun.send(()).expect("somebody waits");
            // Nothing goes on in this thread meanwhile.
            may_go_on.recv().expect("told");
            for (_agent, client, mut subscription) in following {
                for offset in 3..=102 {
                    assert_eq!(subscription.entry().await.expect("goes on").offset, Offset::new(offset));
                }
                client.leave();
            }
        });
    });
    soon(all_begun).await.expect("begun");
    let before = store.read_bytes();
    for _ in 0..100 {
        a.append(&message(channel, alice.id, 2, vec![7; 20_000]))
            .await
            .expect("appended");
    }
    let read = soon(async {
        let mut read = 0;
        loop {
            tokio::time::sleep(Duration::from_millis(500)).await;
            let now = store.read_bytes() - before;
            if more_than.map_or(now > 0 && now == read, |bytes| now > bytes) {
                return now;
            }
            read = now;
        }
    })
    .await;
    go_on.send(()).expect("somebody waits");
    let agents = tokio::task::spawn_blocking(|| agents.join());
    soon(agents).await.expect("joined").expect("all is read");
    read
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_node_keeps_for_agents_that_stand_still_is_shared_by_all() {
    let shared = read_for_agents_that_stand_still(4 * 1024 * 1024, None).await;
    let each_its_own = read_for_agents_that_stand_still(1 << 30, Some(shared * 2)).await;
    assert!(
        shared * 2 < each_its_own,
        "{shared} bytes are read for agents that share, {each_its_own} for others"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn appends_in_flight_are_bounded_and_the_agent_is_held_back() {
    let store = FaultyStore::new();
    let mut config = config();
    config.limits.bytes_per_second = 1 << 30;
    config.limits.append_in_flight_bytes_max = 4 * 1024 * 1024;
    let fixture = Fixture::over(config, store.clone()).await;
    let (alice, a) = fixture.agent().await;
    let channel = fixture.channel(&alice, &a).await;
    let before = store.appended_bytes();
    store.appends(Way::Silent);
    let mut appends = a.appends().await;
    let mut sent = 0;
    let frames: Vec<_> = (0..40)
        .map(|_| message(channel, alice.id, 1, vec![7; 1_000_000]))
        .collect();
    // Sends until the node has taken what it may, and a moment longer.
    tokio::select! {
        () = async {
            for frame in &frames {
                appends.send(frame).await.expect("sent");
                sent += 1;
            }
        } => panic!("nothing held the agent back"),
        () = soon(async {
            while store.appended_bytes() - before < 3_000_000 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }) => {}
    }
    let taken = store.appended_bytes() - before;
    assert!(taken <= 4 * 1024 * 1024, "{taken} bytes in flight");
    assert!(taken >= 3_000_000, "{taken} bytes in flight");

    // Another agent has its own bound.
    let (bob, b) = fixture.agent().await;
    store.appends(Way::Through);
    fixture.channel(&bob, &b).await;
    for _ in 0..sent {
        assert_eq!(appends.verdict().await, None);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_over_the_rate_are_refused_with_a_wait_and_none_overtakes_another() {
    let mut config = config();
    // A burst of 50, and so little a second that a slow test gains nothing by it.
    config.limits.frames_per_second = 1;
    config.limits.burst_s = 50;
    config.limits.account_frames_per_second = Some(1_000);
    let fixture = Fixture::with(config).await;
    let (alice, a) = fixture.agent().await;
    let (bob, b) = fixture.agent().await;
    let channel = fixture.channel(&alice, &a).await;
    let bobs = fixture.channel(&bob, &b).await;
    let mut appends = a.appends().await;
    for n in 0..300u32 {
        appends
            .send(&message(channel, alice.id, 1, n.to_be_bytes().to_vec()))
            .await
            .expect("sent");
    }
    let (mut accepted, mut refused) = (0, 0);
    let mut wait_ms = 0;
    for _ in 0..300 {
        match appends.answer().await.expect("answered") {
            Ok(_) => accepted += 1,
            Err(refusal) => {
                assert_eq!(
                    (refusal.known_code(), refusal.retryable),
                    (Some(Code::RateLimited), true)
                );
                assert!(refusal.retry_after_ms > 0);
                wait_ms = refusal.retry_after_ms;
                refused += 1;
            }
        }
    }
    assert!(accepted >= 49 && refused > 0, "{accepted} accepted, {refused} refused");
    // Others are not held.
    b.append(&message(bobs, bob.id, 1, "in time")).await.expect("appended");
    // Nor is the agent, after the wait, on another stream.
    tokio::time::sleep(Duration::from_millis(wait_ms)).await;
    let frame = message(channel, alice.id, 1, "later");
    appends.send(&frame).await.expect("sent");
    assert_eq!(appends.verdict().await, Some(Code::RateLimited));
    soon(async {
        loop {
            let mut appends = a.appends().await;
            appends.send(&frame).await.expect("sent");
            match appends.answer().await.expect("answered") {
                Ok(_) => break,
                Err(refusal) => tokio::time::sleep(Duration::from_millis(refusal.retry_after_ms)).await,
            }
        }
    })
    .await;
    // A new connection has no new rate.
    let again = fixture.session(&alice, &fixture.claims(&alice)).await;
    let mut appends = again.appends().await;
    for _ in 0..200 {
        appends
            .send(&message(channel, alice.id, 1, "again"))
            .await
            .expect("sent");
    }
    let mut limited = 0;
    for _ in 0..200 {
        limited += u32::from(appends.verdict().await == Some(Code::RateLimited));
    }
    assert!(limited > 50, "{limited} refused");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_over_the_limit_are_refused_and_their_places_are_used_again() {
    let mut config = config();
    config.limits.streams_max = 8;
    let fixture = Fixture::with(config).await;
    let mut witness = Witness::start(&fixture).await;
    let (alice, a) = fixture.agent().await;
    let channel = fixture.channel(&alice, &a).await;
    let mut held = Vec::new();
    soon(async {
        while held.len() < 8 {
            let mut follow = a.subscribe(channel.log(), Offset::ZERO, true).await;
            match follow.event().await {
                Ok(_) => held.push(follow),
                Err(gone) => assert_eq!(gone.code(), Some(Code::TooManyStreams)),
            }
        }
    })
    .await;
    for _ in 0..100 {
        let mut over = a.subscribe(channel.log(), Offset::ZERO, true).await;
        assert_eq!(over.event().await.err(), Some(Gone::Stream(Some(Code::TooManyStreams))));
    }
    witness.is_served().await;
    held.truncate(4);
    soon(async {
        while held.len() < 8 {
            let mut follow = a.subscribe(channel.log(), Offset::ZERO, true).await;
            if follow.event().await.is_ok() {
                held.push(follow);
            }
        }
    })
    .await;
    witness.leave().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_streams_are_served_side_by_side() {
    let fixture = Fixture::new().await;
    let mut witness = Witness::start(&fixture).await;
    let (alice, a) = fixture.agent().await;
    let channel = fixture.channel(&alice, &a).await;
    let subscribe = Open {
        stream: Some(open::Stream::Subscribe(Subscribe {
            log: channel.log().to_bytes().into(),
            after: 1,
            follow: true,
            limit: 0,
        })),
    };
    let mut follows = Vec::new();
    for _ in 0..3_000 {
        let mut wire = Wire::open(&a.connection).await.expect("a stream");
        wire.say(&subscribe).await.expect("sent");
        follows.push(Subscription::new(wire));
    }
    witness.is_served().await;
    for follow in &mut follows {
        assert_eq!(follow.caught_up().await, Offset::FIRST);
    }
    a.append(&message(channel, alice.id, 1, "to all"))
        .await
        .expect("appended");
    for follow in &mut follows {
        assert_eq!(follow.entry().await.expect("live").offset, Offset::new(2));
    }
    witness.leave().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_say_nothing_are_given_back() {
    let mut config = config();
    config.session.hello_timeout_ms = 1_000;
    let fixture = Fixture::with(config).await;
    let (alice, a) = fixture.agent_patiently().await;
    let mut idle = Vec::new();
    for _ in 0..100 {
        let mut wire = Wire::open(&a.connection).await.expect("a stream");
        wire.say_bytes(&[0]).await.expect("sent");
        idle.push(wire);
    }
    for wire in &mut idle {
        assert_eq!(wire.abandoned().await, Some(Code::HelloTimeout));
    }
    fixture.channel(&alice, &a).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_streams_of_an_accounts_agents_are_counted_together() {
    const OWN: usize = 16;
    let mut config = config();
    config.limits.account_streams_max = Some(6);
    let fixture = Fixture::with(config).await;
    // Of another account: its streams are its own.
    let witness = Witness::start(&fixture).await;
    let mallory = AccountId::generate();
    let mut sessions = Vec::new();
    let mut counts = Vec::new();
    for _ in 0..3 {
        let (agent, client) = fixture.agent_with(|claims| claims.acct = mallory).await;
        let mut held = Vec::new();
        for _ in 0..OWN + 4 {
            let mut follow = client.subscribe(agent.id.log(), Offset::ZERO, true).await;
            match soon(follow.event()).await {
                Ok(_) => held.push(follow),
                Err(gone) => assert_eq!(gone.code(), Some(Code::AccountStreams)),
            }
        }
        counts.push(held.len());
        sessions.push((agent, client, held));
    }
    // Each has its own few, and all of them six more.
    assert_eq!(counts, [OWN + 4, OWN + 2, OWN]);
    let (_, ready) = get(&fixture, "/readyz").await;
    assert!(ready.to_string().contains("account_streams_max"), "{ready}");
    witness.leave().await;
    // Places are free again when streams end.
    sessions.remove(0);
    let (agent, client, _held) = &sessions[1];
    soon(async {
        loop {
            let mut follow = client.subscribe(agent.id.log(), Offset::ZERO, true).await;
            match follow.event().await {
                Ok(_) => return,
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_beginning_of_a_stream_is_short() {
    let fixture = Fixture::new().await;
    let (alice, a) = fixture.agent().await;
    let mut wire = Wire::open(&a.connection).await.expect("a stream");
    // The length of a Hello, which this stream is not for.
    let mut bytes = 2_000u32.to_be_bytes().to_vec();
    bytes.extend([0; 1_000]);
    wire.say_bytes(&bytes).await.expect("sent");
    let gone = soon(wire.hear::<AppendResponse>()).await.expect_err("refused");
    assert_eq!(gone.code(), Some(Code::MessageTooLarge));
    fixture.channel(&alice, &a).await;
}
