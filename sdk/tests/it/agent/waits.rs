//! Every wait ends, with the reason if it cannot end well.

use super::world::{World, channel_of, event, numbered, soon, texts, transcript};
use futures_util::StreamExt;
use parking_lot::Mutex;
use skytale_proto::Code;
use skytale_sdk::{Agent, AgentError, Channel, Event, TokenError, TokenFn, TokenSource, TokenSubject, VaultKey};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};

/// An account that issues tokens, or refuses with a reason.
#[derive(Default)]
struct Account {
    refuses: Mutex<Option<Code>>,
}

impl Account {
    fn provider(self: &Arc<Self>, world: &World) -> TokenSource {
        let (account, mint) = (Arc::clone(self), Arc::clone(&world.mint));
        TokenSource::new(TokenFn::new(move |subject: TokenSubject| {
            let token = match *account.refuses.lock() {
                Some(code) => Err(TokenError::new(code, "refused by the test")),
                None => Ok(mint.token(&subject)),
            };
            async move { token }
        }))
    }
}

fn code<T>(result: Result<T, AgentError>) -> Option<Code> {
    result.err().map(|error| error.code())
}

/// Returns the result of each wait that needs a session.
async fn waits(agent: &Agent, channel: &Channel) -> Vec<Option<Code>> {
    let sent = channel.send("waits").await.expect("in the outbox");
    let mut messages = channel.messages();
    let stranger = skytale_proto::AgentId::from_bytes([7; 32]);
    vec![
        code(soon("connected", agent.connected()).await),
        code(soon("caught up", agent.caught_up()).await),
        code(soon("flushed", agent.flushed()).await),
        code(soon("channel caught up", channel.caught_up()).await),
        code(soon("next", messages.next()).await),
        code(soon("delivered", sent.delivered()).await),
        code(soon("add", channel.add(&[stranger])).await),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vault_is_not_opened_with_a_wrong_key() {
    let world = World::new().await;
    world.open("alice").await.close(Duration::from_secs(1)).await;
    let mut config = world.config("alice");
    config.key = VaultKey::raw([8; 32]);
    let opened = soon("an answer", Agent::open(config)).await;
    assert_eq!(code(opened), Some(Code::VaultKey));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waits_end_with_the_reason_if_the_api_key_is_wrong_and_go_on_once_it_is_right() {
    let world = World::new().await;
    let account = Arc::new(Account::default());
    *account.refuses.lock() = Some(Code::KeyUnknown);
    let mut config = world.config("alice");
    config.tokens = account.provider(&world);
    let alice = Agent::open(config).await.expect("opened");
    let channel = alice.create_channel("test").await.expect("made");
    alice.connect().await.expect("begun");
    let ended = waits(&alice, &channel).await;
    assert_eq!(ended, vec![Some(Code::KeyUnknown); ended.len()]);
    assert!(!alice.is_connected());
    // Also in another process that works through this one.
    let mut config = world.config("alice");
    config.tokens = account.provider(&world);
    let guest = soon("attached", Agent::open_or_attach(config)).await.expect("attached");
    assert!(guest.is_attached());
    let theirs = guest.channel(channel.id()).await.expect("known");
    assert_eq!(waits(&guest, &theirs).await, ended);
    let sent = theirs.sent(theirs.send("theirs").await.expect("in the outbox").frame_id());
    let sent = sent.await.expect("known").expect("waits");
    // Nothing that was sent is lost.
    assert_eq!(channel.outbox().await.expect("listed").len(), 4);

    let mut events = alice.events();
    *account.refuses.lock() = None;
    event(&mut events, "connected", |event| {
        matches!(event, Event::Connected { .. })
    })
    .await;
    soon("connected", alice.connected()).await.expect("a session");
    soon("all out", alice.flushed()).await.expect("flushed");
    soon("connected", guest.connected()).await.expect("a session");
    soon("delivered", sent.delivered()).await.expect("delivered");
    soon("current", guest.caught_up()).await.expect("current");
    assert_eq!(texts(&transcript(&channel).await), ["waits", "waits", "theirs"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waits_end_when_the_api_key_is_revoked_meanwhile_and_the_inbox_is_given_first() {
    let world = World::new().await;
    let account = Arc::new(Account::default());
    let alice = world.agent("alice").await;
    // So short that the account is asked before each session.
    world.mint.life_s.store(20, Ordering::Relaxed);
    let mut config = world.config("bob");
    config.tokens = account.provider(&world);
    let bob = Agent::open(config).await.expect("opened");
    bob.connect().await.expect("begun");
    soon("bob current", bob.caught_up()).await.expect("current");
    let channels = channel_of(&[&alice, &bob]).await;
    channels[0].send_many(numbered("m", 0..3)).await.expect("sent");
    soon("all out", alice.flushed()).await.expect("flushed");
    super::world::reach(&channels[1], channels[0].cursor().await.expect("a cursor")).await;

    let (waiter, mut events) = (bob.clone(), bob.events());
    *account.refuses.lock() = Some(Code::KeyRevoked);
    world.stop_relay().await;
    // Until then he believes that he is current.
    event(&mut events, "bob disconnected", |event| {
        matches!(event, Event::Disconnected { .. })
    })
    .await;
    let waiting = tokio::spawn(async move { waiter.connected().await.and(waiter.caught_up().await) });
    world.start_relay().await;
    let waited = soon("the waiter", waiting).await.expect("no panic");
    assert_eq!(code(waited), Some(Code::KeyRevoked));
    let mut messages = channels[1].messages();
    for number in 0..3 {
        let message = soon("a message", messages.next()).await.expect("a message");
        assert_eq!(message.payload, format!("m {number}"));
    }
    assert_eq!(code(soon("the reason", messages.next()).await), Some(Code::KeyRevoked));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_end_when_the_agent_is_removed_after_the_rest_was_given() {
    let world = World::new().await;
    let (alice, bob) = (world.agent("alice").await, world.agent("bob").await);
    let channels = channel_of(&[&alice, &bob]).await;
    let mut waiting = channels[1].messages();
    let waiting = tokio::spawn(async move {
        let mut texts = Vec::new();
        loop {
            match waiting.next().await {
                Ok(message) => texts.push(String::from_utf8(message.payload.to_vec()).expect("text")),
                Err(error) => return (texts, error.code(), waiting),
            }
        }
    });
    channels[0].send_many(numbered("m", 0..5)).await.expect("sent");
    let removed = channels[0].remove(&[bob.id()]).await.expect("queued");
    soon("removed", removed.delivered()).await.expect("delivered");
    let expected: Vec<_> = (0..5).map(|number| format!("m {number}")).collect();
    let (texts, ended, mut messages) = soon("the reader", waiting).await.expect("no panic");
    assert_eq!((texts, ended), (expected, Code::ChannelLeft));
    // It was not acknowledged, so it comes again; then the stream ends.
    let stream: Vec<_> = soon("the stream", channels[1].messages().into_stream().collect()).await;
    assert_eq!(stream.len(), 6);
    assert_eq!(
        stream.into_iter().filter_map(code).collect::<Vec<_>>(),
        [Code::ChannelLeft]
    );
    soon("current", channels[1].caught_up())
        .await
        .expect("as far as it may read");

    // The same reader goes on when the agent is added again.
    let mut events = bob.events();
    let added = soon("added", channels[0].add(&[bob.id()])).await.expect("claimed");
    soon("delivered", added.delivered()).await.expect("delivered");
    event(&mut events, "joined", |event| matches!(event, Event::Joined { .. })).await;
    channels[0].send("again").await.expect("sent");
    let message = soon("a message", messages.next()).await.expect("a message");
    assert_eq!(message.payload, "again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closed_agent_says_so() {
    let world = World::new().await;
    let (alice, bob) = (world.agent("alice").await, world.agent("bob").await);
    let channels = channel_of(&[&alice, &bob]).await;
    soon("all out", alice.flushed()).await.expect("flushed");
    alice.disconnect().await;
    let sent = channels[0].send("waits").await.expect("in the outbox");
    let (agent, mut messages) = (alice.clone(), channels[0].messages());
    let waiting = tokio::spawn(async move {
        tokio::join!(
            agent.connected(),
            agent.caught_up(),
            agent.flushed(),
            async { messages.next().await.map(drop) },
            async { sent.delivered().await.map(drop) },
        )
    });
    tokio::task::yield_now().await;
    soon("closed", alice.close(Duration::from_secs(1))).await;
    let (connected, current, flushed, next, delivered) = soon("the waits", waiting).await.expect("no panic");
    for ended in [connected, current, flushed, next, delivered] {
        assert_eq!(code(ended), Some(Code::Closed));
    }
    assert_eq!(code(alice.connect().await), Some(Code::Closed));
    assert_eq!(code(channels[0].send("late").await), Some(Code::Closed));
    assert_eq!(
        code(channels[0].ack(skytale_proto::Offset::ZERO).await),
        Some(Code::Closed)
    );
    assert_eq!(code(alice.create_channel("late").await), Some(Code::Closed));
    assert_eq!(code(soon("again", alice.connected()).await), Some(Code::Closed));
    // Closing twice, and ending what has ended, is nothing.
    soon("closed", alice.close(Duration::from_secs(1))).await;
    soon("disconnected", alice.disconnect()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_channels_of_a_dropped_agent_are_closed() {
    let world = World::new().await;
    let (alice, bob) = (world.agent("alice").await, world.agent("bob").await);
    let channels = channel_of(&[&alice, &bob]).await;
    soon("all out", alice.flushed()).await.expect("flushed");
    let (mut messages, mut events) = (channels[0].messages(), alice.events());
    let waiting = tokio::spawn(async move { messages.next().await.map(drop) });
    tokio::task::yield_now().await;
    world.stop_relay().await;
    let sent = channels[0].send("waits").await.expect("in the outbox");
    drop(alice);
    assert_eq!(code(soon("delivered", sent.delivered()).await), Some(Code::Closed));
    assert_eq!(code(soon("next", waiting).await.expect("no panic")), Some(Code::Closed));
    assert_eq!(code(channels[0].send("late").await), Some(Code::Closed));
    assert_eq!(
        code(soon("caught up", channels[0].caught_up()).await),
        Some(Code::Closed)
    );
    while soon("events end", events.next()).await.is_some() {}
    // The vault is free, though the channel lives, and has what was sent.
    world.start_relay().await;
    let alice = world.agent("alice").await;
    soon("all out", alice.flushed()).await.expect("flushed");
    let again = alice.channel(channels[0].id()).await.expect("in the vault");
    assert_eq!(texts(&transcript(&again).await), ["waits"]);
}

/// Runs a function with its own runtime, on its own thread.
async fn elsewhere<T: Send + 'static>(mut runtime: Builder, work: impl FnOnce(Runtime) -> T + Send + 'static) -> T {
    let done = tokio::task::spawn_blocking(move || work(runtime.build().expect("a runtime")));
    soon("done elsewhere", done).await.expect("no panic")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_whose_runtime_is_gone_says_so_and_is_connected_in_another() {
    let world = World::new().await;
    let alice = world.open("alice").await;
    let mut events = alice.events();
    let agent = alice.clone();
    let mut first = Builder::new_multi_thread();
    first.worker_threads(1).enable_all();
    let connected = elsewhere(first, move |runtime| {
        let connected = runtime.block_on(async { agent.connect().await.and(agent.caught_up().await) });
        (connected, runtime)
    });
    let (connected, runtime) = connected.await;
    connected.expect("current");
    let waiter = alice.clone();
    let channel = alice.create_channel("test").await.expect("made");
    let mut messages = channel.messages();
    let waiting = tokio::spawn(async move { messages.next().await.map(drop) });
    tokio::task::spawn_blocking(move || drop(runtime))
        .await
        .expect("dropped");

    let gone = Some(Code::Environment);
    assert_eq!(code(soon("the waiter", waiting).await.expect("no panic")), gone);
    assert_eq!(code(soon("connected", waiter.connected()).await), gone);
    assert!(!alice.is_connected() && alice.relay().is_none());
    let sent = channel.send("queued meanwhile").await.expect("in the outbox");
    soon("connected", alice.connect()).await.expect("begun here");
    soon("delivered", sent.delivered()).await.expect("delivered");
    soon("closed", alice.close(Duration::from_secs(5))).await;
    while soon("events end", events.next()).await.is_some() {}
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_whose_runtime_nobody_runs_is_closed_all_the_same() {
    let world = World::new().await;
    let alice = world.open("alice").await;
    let agent = alice.clone();
    let mut idle = Builder::new_current_thread();
    idle.enable_all();
    let (connected, runtime) = elsewhere(idle, move |runtime| {
        let connected = runtime.block_on(async { agent.connect().await.and(agent.caught_up().await) });
        (connected, runtime)
    })
    .await;
    connected.expect("current");
    soon("closed", alice.close(Duration::from_secs(1))).await;
    assert!(!alice.is_connected());
    world.open("alice").await;
    runtime.shutdown_background();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_runtime_without_what_is_needed_gives_an_error() {
    let world = World::new().await;
    let alice = world.open("alice").await;
    let channel = alice.create_channel("test").await.expect("made");
    let with = |change: fn(&mut Builder)| {
        let mut builder = Builder::new_current_thread();
        change(&mut builder);
        builder
    };
    let runtimes = [
        with(|_| {}),
        with(|builder| _ = builder.enable_time()),
        with(|builder| _ = builder.enable_io()),
    ];
    for runtime in runtimes {
        let agent = alice.clone();
        let begun = elsewhere(runtime, move |runtime| runtime.block_on(agent.connect())).await;
        assert!(matches!(begun, Err(AgentError::Environment { .. })), "{begun:?}");
    }
    let stranger = skytale_proto::AgentId::from_bytes([7; 32]);
    let of = channel.clone();
    let added = elsewhere(with(|_| {}), move |runtime| runtime.block_on(of.add(&[stranger]))).await;
    let Err(AgentError::NotAdded { source, .. }) = &added else {
        panic!("{added:?}")
    };
    assert!(matches!(**source, AgentError::Environment { .. }), "{added:?}");
    // Without any runtime, too; what needs none works.
    let (agent, of) = (alice.clone(), channel.clone());
    let alone = std::thread::spawn(move || {
        let begun = futures_util::FutureExt::now_or_never(agent.connect());
        (begun, without_runtime(of.send("works offline")))
    });
    let (begun, sent) = alone.join().expect("no panic");
    assert!(matches!(begun, Some(Err(AgentError::Environment { .. }))), "{begun:?}");
    let sent = sent.expect("in the outbox");
    // And here, where all is there, it connects.
    soon("connected", alice.connect()).await.expect("a socket");
    soon("delivered", sent.delivered()).await.expect("delivered");
    let agent = alice.clone();
    let closed = elsewhere(with(|_| {}), move |runtime| {
        runtime.block_on(agent.close(Duration::from_secs(1)));
    });
    soon("closed from a bare runtime", closed).await;
}

/// Waits for a future on this thread, without a runtime.
fn without_runtime<F: Future>(future: F) -> F::Output {
    struct Unpark(std::thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Arc::new(Unpark(std::thread::current())).into();
    let mut future = std::pin::pin!(future);
    loop {
        match future.as_mut().poll(&mut std::task::Context::from_waker(&waker)) {
            std::task::Poll::Ready(output) => return output,
            std::task::Poll::Pending => std::thread::park(),
        }
    }
}
