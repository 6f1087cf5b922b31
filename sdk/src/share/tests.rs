//! Guests that have proven the key, but misbehave.

use super::frame::{self, BYTES_MAX, Frame, Kind};
use super::hello::{Greeted, introduce};
use super::message::{Fault, decode, encode};
use super::operation::Request;
use super::place::Place;
use crate::agent::{Agent, AgentConfig, AgentError};
use crate::event::Event;
use crate::net::{TokenError, TokenFn, TokenSubject};
use crate::vault::{VaultKey, share_key};
use skytale_proto::{ChannelId, Code, Offset};
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixStream;
use tokio::time::timeout;
use zeroize::Zeroizing;

const KEY: [u8; 32] = [9; 32];

async fn soon<F: Future>(future: F) -> F::Output {
    timeout(Duration::from_secs(90), future).await.expect("in time")
}

fn config(folder: &Path) -> AgentConfig {
    let offline = TokenFn::new(|_: TokenSubject| async { Err(TokenError::new(Code::Offline, "no network")) });
    AgentConfig::new(folder.join("agent.vault"), VaultKey::raw(KEY), offline)
}

/// An agent with a channel that has a large message.
async fn owner() -> (TempDir, Agent, ChannelId) {
    let folder = tempfile::tempdir().expect("a folder");
    let owner = Agent::open(config(folder.path())).await.expect("opened");
    let channel = owner.create_channel("test").await.expect("made");
    channel.send("hello").await.expect("queued");
    let id = channel.id();
    (folder, owner, id)
}

async fn proven(folder: &Path) -> UnixStream {
    let place = Place::beside(&folder.join("agent.vault")).expect("a place");
    let mut stream = place.connect().await.expect("connected");
    match introduce(&mut stream, &share_key(&Zeroizing::new(KEY))).await {
        Ok(Greeted::In(_)) => stream,
        _ => panic!("not let in"),
    }
}

async fn say(stream: &mut UnixStream, kind: Kind, id: u64, body: &[u8]) {
    let frame = frame::encode(kind, id, body).expect("small enough");
    stream.write_all(&frame).await.expect("written");
}

async fn ask(stream: &mut UnixStream, id: u64, request: &Request) {
    say(stream, Kind::Request, id, &encode(request).expect("encoded")).await;
}

/// Returns the answer to a request; skips other frames.
async fn answer(stream: &mut UnixStream, id: u64) -> Frame {
    soon(async {
        loop {
            let frame = frame::read(stream, BYTES_MAX, None)
                .await
                .expect("read")
                .expect("a frame");
            if frame.id == id {
                return frame;
            }
        }
    })
    .await
}

fn fault(frame: &Frame) -> AgentError {
    assert_eq!(frame.kind, Some(Kind::Fault));
    decode::<Fault>(&frame.body).expect("a fault").into()
}

async fn works(folder: &Path) {
    let guest = soon(Agent::open_or_attach(config(folder))).await.expect("attached");
    assert!(guest.is_attached());
    assert_eq!(soon(guest.channels()).await.expect("listed").len(), 1);
}

#[tokio::test]
async fn unknown_requests_are_refused_and_the_connection_goes_on() {
    let (folder, owner, channel) = owner().await;
    let mut guest = proven(folder.path()).await;
    for body in [
        &b""[..],
        b"\xff",
        b"\x80",
        b"\xa1\x67unknown\xa0",
        b"\xa1\x64info\xa1\x67channel\x00",
        &[0x9f; 10_000],
    ] {
        say(&mut guest, Kind::Request, 1, body).await;
        assert_eq!(fault(&answer(&mut guest, 1).await).code(), Code::VaultOwnerVersion);
    }
    // Kinds that a guest does not say, ids that are not there, a kind that nobody knows.
    for kind in [
        Kind::Hello,
        Kind::Welcome,
        Kind::Answer,
        Kind::Settled,
        Kind::Event,
        Kind::Cancel,
    ] {
        say(&mut guest, kind, 77, b"\x00").await;
    }
    let mut unknown = frame::encode(Kind::Request, 5, b"").expect("small");
    unknown[4] = 200;
    guest.write_all(&unknown).await.expect("written");
    // One id for two requests: the second is refused, the first goes on.
    ask(&mut guest, 8, &Request::flushed {}).await;
    ask(&mut guest, 8, &Request::cursor { channel }).await;
    assert_eq!(fault(&answer(&mut guest, 8).await).code(), Code::BadRequest);
    ask(&mut guest, 9, &Request::cursor { channel }).await;
    let cursor: Offset = decode(&answer(&mut guest, 9).await.body).expect("an offset");
    assert_eq!(cursor, Offset::ZERO);
    works(folder.path()).await;
    soon(owner.close(Duration::from_secs(1))).await;
}

#[tokio::test]
async fn an_oversized_length_ends_the_connection() {
    let (folder, _owner, _) = owner().await;
    let mut guest = proven(folder.path()).await;
    let mut head = frame::encode(Kind::Request, 1, b"").expect("small");
    head[..4].copy_from_slice(&u32::MAX.to_be_bytes());
    guest.write_all(&head).await.expect("written");
    let ended = soon(async {
        loop {
            match frame::read(&mut guest, BYTES_MAX, None).await {
                Ok(Some(_)) => {}
                ended => return ended,
            }
        }
    })
    .await;
    assert!(ended.is_err() || ended.is_ok_and(|frame| frame.is_none()));
    works(folder.path()).await;
}

#[tokio::test]
async fn a_guest_learns_why_the_owner_is_offline_without_waiting_for_the_next_attempt() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut config = config(folder.path());
    config.driver.backoff_min = Duration::from_secs(3_600);
    config.driver.backoff_max = Duration::from_secs(3_600);
    let owner = Agent::open(config.clone()).await.expect("opened");
    let mut events = owner.events();
    owner.connect().await.expect("a socket");
    let failed = soon(events.next()).await.expect("open");
    assert!(matches!(failed, Event::ConnectFailed { .. }), "{failed:?}");
    let guest = Agent::open_or_attach(config).await.expect("attached");
    let mut events = guest.events();
    guest.connect().await.expect("connects");
    assert_eq!(soon(events.next()).await.expect("open"), failed);
    assert!(!guest.is_connected());
}

#[tokio::test]
async fn stalled_guests_delay_neither_other_guests_nor_the_end() {
    let (folder, owner, channel) = owner().await;
    let mut stalled = Vec::new();
    // In the middle of a large request, with a share of the memory for all of them.
    for _ in 0..2 {
        let mut guest = proven(folder.path()).await;
        let mut head = frame::encode(Kind::Request, 1, &[0; 1_000]).expect("small");
        let claimed = u32::try_from(BYTES_MAX).expect("small enough");
        head[..4].copy_from_slice(&claimed.to_be_bytes());
        guest.write_all(&head).await.expect("written");
        stalled.push(guest);
    }
    // Asks all the time and never reads an answer, until nothing more is taken from it.
    let mut guest = proven(folder.path()).await;
    let request = Request::outbox_page {
        channel,
        from: i64::MIN,
    };
    for id in 1.. {
        if timeout(Duration::from_secs(1), ask(&mut guest, id, &request))
            .await
            .is_err()
        {
            break;
        }
    }
    stalled.push(guest);
    // Waits for ever, more often than it may.
    let mut guest = proven(folder.path()).await;
    for id in (1..=4_096).chain([5_000]) {
        ask(&mut guest, id, &Request::flushed {}).await;
    }
    assert_eq!(fault(&answer(&mut guest, 5_000).await).code(), Code::VaultInUse);
    ask(&mut guest, 6_000, &Request::cursor { channel }).await;
    assert_eq!(answer(&mut guest, 6_000).await.kind, Some(Kind::Answer));
    stalled.push(guest);

    works(folder.path()).await;
    soon(owner.close(Duration::from_secs(1))).await;
    let _again = soon(Agent::open(config(folder.path())))
        .await
        .expect("the vault is free");
    drop(stalled);
}

#[tokio::test]
async fn if_the_owner_dies_before_it_answers_the_outcome_is_unknown() {
    let (folder, owner, channel) = owner().await;
    let guest = Agent::open_or_attach(config(folder.path())).await.expect("attached");
    let channel = guest.channel(channel).await.expect("known");
    // The owner's thread is busy; the socket ends, as it does with a process that is killed.
    let (go, wait) = std::sync::mpsc::channel::<()>();
    owner.occupy(wait).await;
    let sending = tokio::spawn({
        let channel = channel.clone();
        async move { channel.send("perhaps").await.map(drop) }
    });
    let reading = tokio::spawn(async move { channel.info().await.map(drop) });
    // Both are on their way, from one guest.
    while owner.shared_calls() < 3 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    drop(owner);
    let sent = soon(sending).await.expect("no panic").expect_err("cut off");
    assert!(matches!(sent, AgentError::OwnerGone { unknown: true }), "{sent:?}");
    assert_eq!((sent.code(), sent.is_retryable()), (Code::OutcomeUnknown, false));
    let read = soon(reading).await.expect("no panic").expect_err("cut off");
    assert!(matches!(read, AgentError::OwnerGone { unknown: false }), "{read:?}");
    assert!(read.is_retryable());
    drop(go);
}
