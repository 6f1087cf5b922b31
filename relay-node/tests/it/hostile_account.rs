//! An account that takes more than its part, with as many agents as it likes: others are served as before, and it learns why it is
//! refused.

use crate::client::{Agent, Client, closed, soon};
use crate::fixture::{Fixture, commit, config, create, message};
use crate::stepping::{SteppingStore, body};
use crate::witness::Witness;
use iroh::endpoint::VarInt;
use skytale_log_store::faulty::FaultyStore;
use skytale_proto::session::Refusal;
use skytale_proto::{AccountId, AgentId, ChannelId, Code, Frame, Offset, limits};
use std::sync::Arc;
use std::time::Duration;

/// An agent of this account, with a session.
async fn agent_of(fixture: &Fixture, account: AccountId) -> (Agent, Client) {
    fixture.agent_with(|claims| claims.acct = account).await
}

/// Waits until so many frames wait for their turn.
async fn until_waiting(fixture: &Fixture, frames: usize) {
    soon(async {
        while fixture.node.appends_waiting() != frames {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}

/// Returns the refusals of frames that are sent at once.
async fn refusals(client: &Client, frames: impl IntoIterator<Item = Frame>) -> Vec<Refusal> {
    let mut appends = client.appends().await;
    let mut sent = 0;
    for frame in frames {
        appends.send(&frame).await.expect("sent");
        sent += 1;
    }
    let mut refused = Vec::new();
    for _ in 0..sent {
        refused.extend(appends.answer().await.expect("answered").err());
    }
    refused
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_an_accounts_agents_goes_before_anothers_frame_for_one_turn_alone() {
    const AGENTS: usize = 8;
    const FRAMES: usize = 300;
    const ROUNDS: usize = 20;
    const BODY: usize = 1_000;
    const WINDOW: usize = 64 * 1024;
    // A frame weighs its bytes and 1 KiB more; a turn is 64 KiB.
    const IN_WINDOW: usize = WINDOW / (BODY + 1_024) + 1;
    const IN_TURN: usize = IN_WINDOW;
    let mut config = config();
    config.limits.frames_per_second = 1_000_000;
    config.limits.bytes_per_second = 1 << 30;
    config.limits.append_window_bytes = WINDOW as u64;
    let store = Arc::new(SteppingStore::new());
    let fixture = Fixture::over(config, store.clone()).await;
    let (alice, a) = fixture.agent().await;
    let channel = fixture.channel(&alice, &a).await;
    let mallory = AccountId::generate();
    let mut flooders = Vec::new();
    for _ in 0..AGENTS {
        let (agent, client) = agent_of(&fixture, mallory).await;
        let channel = fixture.channel(&agent, &client).await;
        flooders.push((agent, client, channel));
    }
    store.begin_steps();
    let flood: Vec<_> = flooders
        .into_iter()
        .map(|(agent, client, channel)| tokio::spawn(flood(agent, client, channel, FRAMES, BODY)))
        .collect();
    // One frame of each stream waits, and all that the store is given is there.
    until_waiting(&fixture, AGENTS).await;
    assert!(store.came() <= IN_WINDOW, "{} frames in the store", store.came());

    let mut appends = a.appends().await;
    for round in 0..ROUNDS {
        let frame = message(channel, alice.id, 1, body(BODY));
        appends.send(&frame).await.expect("sent");
        until_waiting(&fixture, AGENTS + 1).await;
        let before = store.came();
        let mut answered = 0;
        loop {
            let author = store.step().await.expect("the store has frames");
            if author == alice.id {
                break;
            }
            answered += 1;
            assert!(
                answered <= IN_WINDOW + IN_TURN,
                "round {round}: {answered} frames of the flood went before"
            );
            // Room in the store goes to the next one.
            soon(store.until_came(before + answered)).await;
        }
        assert_eq!(soon(appends.verdict()).await, None);
        // The place that its own frame had goes to the flood.
        soon(store.until_came(before + answered + 1)).await;
    }
    // Nothing of the flood is lost: it is served, in its turns.
    soon(async {
        store.end_steps().await;
        for flooder in flood {
            while !flooder.is_finished() {
                store.end_steps().await;
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            flooder.await.expect("all is acknowledged");
        }
    })
    .await;
    assert_eq!(fixture.node.appends_waiting(), 0);
}

/// Appends as fast as it may, and has all of it acknowledged.
async fn flood(agent: Agent, client: Client, channel: ChannelId, frames: usize, bytes: usize) {
    let mut appends = client.appends().await;
    for _ in 0..frames {
        appends
            .send(&message(channel, agent.id, 1, body(bytes)))
            .await
            .expect("sent");
    }
    for _ in 0..frames {
        assert_eq!(appends.verdict().await, None);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn room_in_the_store_is_free_again_though_nobody_reads_the_answers() {
    let mut config = config();
    config.limits.append_window_bytes = 64 * 1024;
    let store = Arc::new(SteppingStore::new());
    let fixture = Fixture::over(config, store.clone()).await;
    let bob = Agent::with_stream_window(256).await;
    let mut claims = fixture.claims(&bob);
    claims.acct = AccountId::generate();
    let b = fixture.session(&bob, &claims).await;
    let bobs = fixture.channel(&bob, &b).await;
    let (alice, a) = fixture.agent().await;
    let channel = fixture.channel(&alice, &a).await;
    store.begin_steps();
    // There is no room for answers on these streams, so that nobody looks at the verdicts.
    let mut unread = Vec::new();
    for _ in 0..4 {
        let mut appends = b.appends().await;
        for _ in 0..100 {
            let _ = appends.send(&message(bobs, bob.id, 1, body(1_000))).await;
        }
        unread.push(appends);
    }
    until_waiting(&fixture, unread.len()).await;
    let mut appends = a.appends().await;
    appends
        .send(&message(channel, alice.id, 1, body(1_000)))
        .await
        .expect("sent");
    until_waiting(&fixture, unread.len() + 1).await;
    soon(async {
        while store.step().await != Some(alice.id) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    assert_eq!(soon(appends.verdict()).await, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_has_one_rate_whatever_number_of_its_agents_append() {
    const AGENTS: usize = 4;
    let mut config = config();
    // A burst of 50 for an agent and of 10 for its account, and so little a second that a slow test gains nothing by it.
    config.limits.frames_per_second = 5;
    config.limits.account_frames_per_second = Some(1);
    config.limits.burst_s = 10;
    let fixture = Fixture::with(config).await;
    let mallory = AccountId::generate();
    let mut refused = Vec::new();
    for _ in 0..AGENTS {
        let (agent, client) = agent_of(&fixture, mallory).await;
        // Within its own rate, each of them.
        let frames = (0..45).map(|_| create(ChannelId::generate(), agent.id));
        refused.extend(refusals(&client, frames).await);
    }
    assert!(refused.len() > 45, "{} refused", refused.len());
    for refusal in &refused {
        assert_eq!(
            (refusal.known_code(), refusal.retryable),
            (Some(Code::AccountRateLimited), true)
        );
        assert!(refusal.retry_after_ms > 0, "it says how long to wait");
    }
    // Another account has a rate of its own.
    let (alice, a) = fixture.agent().await;
    fixture.channel(&alice, &a).await;
    // After the wait it goes on.
    let (agent, client) = agent_of(&fixture, mallory).await;
    let frame = create(ChannelId::generate(), agent.id);
    soon(async {
        while let Err(refusal) = client.append(&frame).await {
            tokio::time::sleep(Duration::from_millis(refusal.retry_after_ms)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_that_are_refused_are_read_no_faster_than_those_that_are_taken() {
    const AGENTS: u32 = 4;
    const FRAMES: u32 = 8_000;
    let mut config = config();
    config.limits.frames_per_second = 1;
    config.limits.burst_s = 1;
    let fixture = Fixture::with(config).await;
    let mallory = AccountId::generate();
    let mut floods = Vec::new();
    for _ in 0..AGENTS {
        let (agent, client) = agent_of(&fixture, mallory).await;
        floods.push(async move {
            let frame = create(ChannelId::generate(), agent.id);
            refusals(&client, (0..FRAMES).map(|_| frame.clone())).await.len()
        });
    }
    let begun = std::time::Instant::now();
    let flooding = futures_util::future::join_all(floods);
    let refused: usize = flooding.await.into_iter().sum();
    assert!(refused as u32 >= AGENTS * (FRAMES - 1) - 1, "{refused}");
    // Twice the rate of an account by default.
    let least = Duration::from_secs((AGENTS * FRAMES).into()) / (2 * 4 * limits::FRAMES_PER_SECOND);
    let took = begun.elapsed() + Duration::from_millis(10);
    assert!(took >= least, "{took:?} for {refused} refused frames");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bundle_is_charged_for_each_of_its_welcomes() {
    const RECIPIENTS: u8 = 60;
    let mut config = config();
    // A channel and one bundle are all of a burst, and a minute passes before there is room for another bundle.
    config.limits.account_frames_per_second = Some(1);
    config.limits.burst_s = u32::from(RECIPIENTS) + 2;
    let fixture = Fixture::with(config).await;
    let (mallory, client) = agent_of(&fixture, AccountId::generate()).await;
    let channel = fixture.channel(&mallory, &client).await;
    let bundle = |first: u8| {
        let added: Vec<AgentId> = (0..RECIPIENTS).map(|n| AgentId::from_bytes([first + n; 32])).collect();
        commit(channel, mallory.id, 1, &added, &[])
    };
    // The log's verdict on the first one does not matter: it was charged.
    let _ = client.append(&bundle(1)).await;
    let refused = client
        .append(&bundle(100))
        .await
        .expect_err("its account is over its rate");
    assert_eq!(refused.known_code(), Some(Code::AccountRateLimited));
    assert!(refused.retry_after_ms > 0);
    let (alice, a) = fixture.agent().await;
    fixture.channel(&alice, &a).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_accounts_connections_are_bounded_and_the_newest_is_refused() {
    let mut config = config();
    config.limits.account_connections_max = Some(2);
    let fixture = Fixture::with(config).await;
    let witness = Witness::start(&fixture).await;
    let mallory = AccountId::generate();
    let (first, mut one) = agent_of(&fixture, mallory).await;
    let (second, two) = agent_of(&fixture, mallory).await;
    let third = Agent::new().await;
    let mut claims = fixture.claims(&third);
    claims.acct = mallory;
    let token = fixture.signer.sign(&claims);
    let refused = Client::start(&third, &fixture.relay(), &token)
        .await
        .err()
        .expect("no room");
    assert_eq!(
        refused.refusal.as_ref().and_then(Refusal::known_code),
        Some(Code::AccountConnections)
    );
    assert_eq!(refused.closed, Some(Code::AccountConnections));
    // Those that there are go on, and an agent that connects again takes the place of its own older session.
    fixture.channel(&second, &two).await;
    let mut claims = fixture.claims(&first);
    claims.acct = mallory;
    let again = fixture.session(&first, &claims).await;
    assert_eq!(one.refused().await, Some(Code::SessionReplaced));
    assert!(Client::start(&third, &fixture.relay(), &token).await.is_err());
    again.leave();
    soon(async { while Client::start(&third, &fixture.relay(), &token).await.is_err() {} }).await;
    witness.leave().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_of_an_address_that_say_nothing_are_bounded() {
    const SILENT: usize = 4;
    let mut config = config();
    config.limits.address_connections_max = Some(SILENT as u32);
    // None of them is given up while the test runs.
    config.session.hello_timeout_ms = 120_000;
    let fixture = Fixture::with(config).await;
    let mut witness = Witness::start(&fixture).await;
    let mut silent = Vec::new();
    for _ in 0..SILENT {
        let agent = Agent::new().await;
        let connection = agent.connect(&fixture.relay()).await.expect("connected");
        silent.push((agent, connection));
    }
    let refused = Agent::new().await;
    let connection = refused.connect(&fixture.relay()).await.expect("told");
    assert_eq!(closed(&connection).await, Some(Code::AddressConnections));
    // Sessions go on, and those that wait are not harmed: one of them says its Hello, and its place is free.
    witness.is_served().await;
    let (agent, connection) = silent.pop().expect("one");
    assert!(connection.close_reason().is_none());
    let hello = agent.hello(&connection, &fixture.token(&agent));
    let session = Client::start_on(&agent, connection, hello).await.expect("a session");
    fixture.channel(&agent, &session).await;
    fixture.agent().await;
    // Nor is a place kept of those that leave.
    for (_, connection) in &silent {
        connection.close(VarInt::from_u32(0), b"");
    }
    soon(Box::pin(async {
        for _ in 0..SILENT {
            let agent = Agent::new().await;
            let token = fixture.token(&agent);
            while Client::start(&agent, &fixture.relay(), &token).await.is_err() {}
        }
    }))
    .await;
    witness.leave().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_stores_so_many_bytes_and_refused_frames_do_not_count() {
    const BODY: usize = 600_000;
    let mut config = config();
    config.limits.account_stored_bytes_max = Some(1024 * 1024);
    let fixture = Fixture::with(config).await;
    let witness = Witness::start(&fixture).await;
    let (mallory, client) = agent_of(&fixture, AccountId::generate()).await;
    let channel = fixture.channel(&mallory, &client).await;
    for _ in 0..3 {
        let stale = client.append(&message(channel, mallory.id, 7, body(BODY))).await;
        assert_eq!(
            stale.err().and_then(|refusal| refusal.known_code()),
            Some(Code::StaleEpoch)
        );
    }
    client
        .append(&message(channel, mallory.id, 1, body(BODY)))
        .await
        .expect("appended");
    let over = client
        .append(&message(channel, mallory.id, 1, body(BODY)))
        .await
        .expect_err("no room");
    assert_eq!((over.known_code(), over.retryable), (Some(Code::AccountStored), true));
    assert!(over.retry_after_ms > 0);
    client
        .append(&message(channel, mallory.id, 1, "small"))
        .await
        .expect("it fits");
    // It reads as before, and others append.
    assert_eq!(client.replay(channel.log(), Offset::ZERO).await.offsets(), [1, 2, 3]);
    witness.leave().await;
}

/// In a fleet they stay in the stream.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_frames_and_repeated_ones_count_where_the_store_keeps_them() {
    const BODY: usize = 300_000;
    let mut config = config();
    config.limits.account_stored_bytes_max = Some(1024 * 1024);
    let store = FaultyStore::new();
    store.keep_refused();
    let fixture = Fixture::over(config, store).await;
    let witness = Witness::start(&fixture).await;
    let (mallory, client) = agent_of(&fixture, AccountId::generate()).await;
    let channel = fixture.channel(&mallory, &client).await;
    let stale = client.append(&message(channel, mallory.id, 7, body(BODY))).await;
    assert_eq!(
        stale.err().and_then(|refusal| refusal.known_code()),
        Some(Code::StaleEpoch)
    );
    let taken = message(channel, mallory.id, 1, body(BODY));
    client.append(&taken).await.expect("appended");
    assert!(client.append(&taken).await.expect("known").duplicate);
    let over = client.append(&taken).await.expect_err("no room");
    assert_eq!(over.known_code(), Some(Code::AccountStored));
    witness.leave().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_makes_so_many_channels_a_day_and_goes_on_in_those() {
    let mut config = config();
    config.limits.account_channels_per_day = 3;
    let fixture = Fixture::with(config).await;
    let witness = Witness::start(&fixture).await;
    let mallory = AccountId::generate();
    let (agent, client) = agent_of(&fixture, mallory).await;
    let channel = fixture.channel(&agent, &client).await;
    // One that is there already is none.
    for _ in 0..5 {
        let again = client.append(&create(channel, agent.id)).await;
        assert_eq!(
            again.err().and_then(|refusal| refusal.known_code()),
            Some(Code::LogExists)
        );
    }
    let (other, of_other) = agent_of(&fixture, mallory).await;
    fixture.channel(&other, &of_other).await;
    fixture.channel(&other, &of_other).await;
    let unmade = ChannelId::generate();
    for (agent, client) in [(&agent, &client), (&other, &of_other)] {
        let refused = client
            .append(&create(unmade, agent.id))
            .await
            .expect_err("as many as it may");
        assert_eq!(
            (refused.known_code(), refused.retryable),
            (Some(Code::AccountChannels), false)
        );
    }
    client
        .append(&message(channel, agent.id, 1, "goes on"))
        .await
        .expect("appended");
    witness.leave().await;
}
