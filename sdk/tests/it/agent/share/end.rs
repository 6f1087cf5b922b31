//! The end of sharing: for the owner, for its guests, for the next owner.

use super::super::world::{World, channel_of, numbered, soon};
use super::{attach, open_or_attach, socket};
use skytale_proto::{AgentId, Code, Offset};
use skytale_sdk::{Agent, AgentError};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_that_closes_tells_its_guests_and_the_next_owner_delivers_what_they_queued() {
    let world = World::new().await;
    let owner = world.open("alice").await;
    let guest = attach(&world, "alice").await;
    let channel = guest.create_channel("test").await.expect("made");
    let id = channel.id();
    // Offline: it stays in the outbox.
    let sent = channel.send("kept").await.expect("queued");
    let frame_id = sent.frame_id();
    let waiting = tokio::spawn({
        let (guest, channel) = (guest.clone(), channel.clone());
        let mut messages = channel.messages();
        async move {
            tokio::join!(
                async { guest.caught_up().await.map(drop) },
                async { guest.flushed().await.map(drop) },
                async { channel.caught_up().await.map(drop) },
                async { sent.delivered().await.map(drop) },
                async { messages.next().await.map(drop) },
            )
        }
    });
    // They have begun to wait.
    channel.info().await.expect("known");
    soon("closed", owner.close(Duration::from_secs(5))).await;
    let (a, b, c, d, e) = soon("waits end", waiting).await.expect("no panic");
    for ended in [a, b, c, d, e] {
        let error = ended.expect_err("ended");
        assert!(matches!(error, AgentError::OwnerGone { unknown: false }), "{error:?}");
        assert_eq!((error.code(), error.is_retryable()), (Code::VaultOwnerGone, true));
    }
    let error = channel.send("not taken").await.expect_err("gone");
    assert_eq!(error.code(), Code::VaultOwnerGone);
    assert!(guest.events().next().await.is_none());
    assert!(!socket(&world, "alice").exists());

    let alice = open_or_attach(world.config("alice")).await.expect("opened");
    assert!(!alice.is_attached());
    // What is left of the owner before takes nothing from the one now.
    drop((owner, guest));
    assert!(socket(&world, "alice").exists());
    attach(&world, "alice").await;
    alice.connect().await.expect("a socket");
    let channel = alice.channel(id).await.expect("known");
    let sent = channel.sent(frame_id).await.expect("known").expect("known");
    soon("delivered", sent.delivered()).await.expect("delivered");
    let history = channel.history(Offset::ZERO, 10).await.expect("read");
    assert_eq!(history.len(), 1, "what was refused was not queued");
    attach(&world, "alice").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_at_closing_are_either_done_and_answered_or_refused() {
    let world = World::new().await;
    let mut expected = 0;
    for round in 0..8_u32 {
        let owner = world.open("alice").await;
        let guest = attach(&world, "alice").await;
        let channel = match guest.channels().await.expect("listed").first() {
            Some(info) => guest.channel(info.id).await.expect("known"),
            None => guest.create_channel("test").await.expect("made"),
        };
        let sending: Vec<_> = (0..20)
            .map(|number| {
                let channel = channel.clone();
                tokio::spawn(async move { channel.send_many(numbered("m", number * 50..number * 50 + 50)).await })
            })
            .collect();
        // At another moment each time.
        tokio::time::sleep(Duration::from_millis(u64::from(round) * 3)).await;
        soon("closed", owner.close(Duration::MAX)).await;
        for sending in sending {
            match soon("answered", sending).await.expect("no panic") {
                Ok(sent) => expected += sent.len(),
                Err(error) => assert!(matches!(error, AgentError::OwnerGone { unknown: false }), "{error:?}"),
            }
        }
        let owner = world.open("alice").await;
        let queued = owner.outbox().await.expect("listed").len();
        // The Create is the other one.
        assert_eq!(queued, expected + 1, "round {round}");
        owner.close(Duration::ZERO).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropping_the_owner_removes_the_socket_and_ends_its_guests_waits() {
    let world = World::new().await;
    let owner = world.open("alice").await;
    let guest = attach(&world, "alice").await;
    let waiting = tokio::spawn({
        let guest = guest.clone();
        async move { guest.caught_up().await }
    });
    let channel = guest.create_channel("test").await.expect("made");
    // A request that is being done does not keep the agent, either.
    let stranger = AgentId::from_bytes([7; 32]);
    let adding = tokio::spawn(async move { channel.add(&[stranger]).await });
    guest.channels().await.expect("listed");
    let clone = owner.clone();
    drop(owner);
    guest.channels().await.expect("a clone is the same agent");
    drop(clone);
    assert!(!socket(&world, "alice").exists());
    let ended = soon("the wait ends", waiting).await.expect("no panic");
    assert!(
        matches!(ended, Err(AgentError::OwnerGone { unknown: false })),
        "{ended:?}"
    );
    let ended = soon("the request ends", adding).await.expect("no panic");
    assert!(matches!(ended, Err(AgentError::OwnerGone { .. })), "{ended:?}");
    let again = open_or_attach(world.config("alice")).await.expect("opened");
    assert!(!again.is_attached());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_channels_of_a_dropped_guest_are_of_no_use_and_the_owner_goes_on() {
    let world = World::new().await;
    let owner = world.open("alice").await;
    let guest = attach(&world, "alice").await;
    let channel = guest.create_channel("test").await.expect("made");
    let mut messages = channel.messages();
    let waiting = tokio::spawn(async move { messages.next().await.map(drop) });
    let clone = guest.clone();
    drop(guest);
    channel.send("by a clone").await.expect("queued");
    drop(clone);
    let ended = soon("the wait ends", waiting).await.expect("no panic");
    for ended in [ended, soon("an end", channel.send("late")).await.map(drop)] {
        assert!(
            matches!(ended, Err(AgentError::OwnerGone { unknown: false })),
            "{ended:?}"
        );
    }
    let here = owner.channel(channel.id()).await.expect("known");
    here.send("goes on").await.expect("queued");
    // With the Create.
    assert_eq!(here.outbox().await.expect("listed").len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_socket_is_private_and_a_stale_one_is_replaced() {
    let world = World::new().await;
    let path = socket(&world, "alice");
    drop(UnixListener::bind(&path).expect("bound"));
    let owner = world.open("alice").await;
    let mode = std::fs::metadata(&path).expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    attach(&world, "alice").await;
    owner.close(Duration::ZERO).await;
    assert!(!path.exists());

    // What is no socket is nobody's to replace; the agent does its work without.
    std::fs::write(&path, b"mine").expect("written");
    let owner = world.open("alice").await;
    owner.create_channel("test").await.expect("made");
    owner.close(Duration::ZERO).await;
    assert_eq!(std::fs::read(&path).expect("there"), b"mine");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unshared_vault_is_in_use_and_the_error_names_the_process() {
    let world = World::new().await;
    let _owner = Agent::open(world.config("alice").with_sharing(false))
        .await
        .expect("opened");
    assert!(!socket(&world, "alice").exists());
    for opened in [
        Agent::open(world.config("alice")).await,
        open_or_attach(world.config("alice")).await,
    ] {
        let error = opened.expect_err("in use");
        assert_eq!(error.code(), Code::VaultInUse);
        let text = error.to_string();
        assert!(text.contains(&format!("({})", std::process::id())), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_opened_without_a_runtime_is_shared() {
    let world = World::new().await;
    let config = world.config("alice");
    // Opened where there is no runtime at all, and its thread does nothing any more.
    let owner = std::thread::spawn(move || futures_executor(Agent::open(config)))
        .join()
        .expect("no panic")
        .expect("opened");
    let guest = attach(&world, "alice").await;
    guest.connect().await.expect("a socket");
    let bob = world.agent("bob").await;
    soon("current", guest.caught_up()).await.expect("current");
    let channels = channel_of(&[&guest, &bob]).await;
    soon(
        "delivered",
        channels[0].send("hello").await.expect("queued").delivered(),
    )
    .await
    .expect("delivered");
    drop(owner);
}

/// Polls with nothing but this thread.
fn futures_executor<F: Future>(future: F) -> F::Output {
    struct Unpark(std::thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = std::task::Waker::from(std::sync::Arc::new(Unpark(std::thread::current())));
    let mut context = std::task::Context::from_waker(&waker);
    let mut future = std::pin::pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            std::task::Poll::Ready(output) => return output,
            std::task::Poll::Pending => std::thread::park(),
        }
    }
}
