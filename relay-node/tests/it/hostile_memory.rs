//! Those who make the node hold what they do not finish: the node's room for requests is bounded, they give way, and others are
//! served meanwhile.

use crate::client::{Client, Wire, soon};
use crate::fixture::{Fixture, config, message};
use crate::witness::Witness;
use bytes::Bytes;
use futures_util::future::select_all;
use skytale_proto::session::{AppendOpen, AppendResponse, append_response, open};
use skytale_proto::{AccountId, Code, limits};

/// A request of so many bytes, without its last one.
async fn all_but_the_last_byte(client: &Client, bytes: usize) -> Wire {
    let mut wire = client.open(open::Stream::Append(AppendOpen {})).await;
    let length = u32::try_from(bytes).expect("short").to_be_bytes();
    wire.say_bytes(&length).await.expect("sent");
    wire
}

/// The code that an append stream ends with.
async fn ended(mut wire: Wire) -> Option<Code> {
    match wire.hear::<AppendResponse>().await {
        Ok(AppendResponse {
            outcome: Some(append_response::Outcome::Refusal(refusal)),
        }) => refusal.known_code(),
        Ok(other) => panic!("no refusal: {other:?}"),
        Err(gone) => gone.code(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_are_not_finished_hold_no_more_than_the_nodes_room_and_give_way() {
    const BODY: usize = 1024 * 1024;
    let mut config = config();
    config.limits.receive_bytes_max = 2 * limits::MESSAGE_BYTES_MAX;
    let fixture = Fixture::with(config).await;
    let mut witness = Witness::start(&fixture).await;
    let (alice, a) = fixture.agent().await;
    let channel = fixture.channel(&alice, &a).await;
    let mallory = AccountId::generate();
    let mut stalled = Vec::new();
    let mut sessions = Vec::new();
    // Four times what the node has room for.
    for _ in 0..4 {
        let (_, client) = fixture.agent_with(|claims| claims.acct = mallory).await;
        for _ in 0..4 {
            let mut wire = all_but_the_last_byte(&client, BODY).await;
            stalled.push(tokio::spawn(async move {
                // Once the node stops reading, the rest waits here.
                let sent = wire.say_bytes(&vec![0; BODY - 1]).await;
                match sent {
                    Ok(()) => ended(wire).await,
                    Err(gone) => gone.code(),
                }
            }));
        }
        sessions.push(client);
        witness.is_served().await;
    }
    // Large requests are taken, too: those who do not finish give way to them.
    for parent in 1..=4u8 {
        let body = Bytes::from(vec![parent; 900_000]);
        soon(a.append(&message(channel, alice.id, 1, body)))
            .await
            .expect("appended");
    }
    witness.is_served().await;
    let (first, _, others) = soon(select_all(stalled)).await;
    assert_eq!(first.expect("no panic"), Some(Code::NoRoom), "it gave way");
    for task in others {
        if task.is_finished() {
            assert_eq!(task.await.expect("no panic"), Some(Code::NoRoom));
        } else {
            task.abort();
        }
    }
    // Their sessions go on: a request that is whole is answered.
    let (bob, b) = fixture.agent_with(|claims| claims.acct = mallory).await;
    fixture.channel(&bob, &b).await;
    witness.leave().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_stops_coming_is_given_up_and_its_session_goes_on() {
    let mut config = config();
    config.session.request_timeout_ms = 200;
    let fixture = Fixture::with(config).await;
    let mut witness = Witness::start(&fixture).await;
    let (alice, a) = fixture.agent().await;
    let mut wire = all_but_the_last_byte(&a, 100).await;
    // The node may have given it up already, on a busy machine.
    let _ = wire.say_bytes(&[1; 99]).await;
    assert_eq!(ended(wire).await, Some(Code::RequestLate));
    // Nothing has begun where not even the length is there, and an idle stream is no late one.
    let mut idle = a.open(open::Stream::Append(AppendOpen {})).await;
    idle.say_bytes(&[0, 0]).await.expect("sent");
    let channel = fixture.channel(&alice, &a).await;
    witness.is_served().await;
    a.append(&message(channel, alice.id, 1, "goes on"))
        .await
        .expect("appended");
    idle.send.finish().expect("open");
    assert_eq!(ended(idle).await, Some(Code::MessageMalformed));
    witness.leave().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_room_is_free_again_when_whoever_held_it_is_gone() {
    let mut config = config();
    config.limits.receive_bytes_max = 2 * limits::MESSAGE_BYTES_MAX;
    let fixture = Fixture::with(config).await;
    for _ in 0..20 {
        let (_, client) = fixture.agent().await;
        let mut wire = all_but_the_last_byte(&client, limits::MESSAGE_BYTES_MAX - 1).await;
        wire.say_bytes(&[0; 1_000]).await.expect("sent");
        drop(wire);
        client.leave();
    }
    let (alice, a) = fixture.agent().await;
    let channel = fixture.channel(&alice, &a).await;
    let body = Bytes::from(vec![7; 1_000_000]);
    let appended = soon(a.append(&message(channel, alice.id, 1, body))).await;
    assert!(appended.is_ok(), "{appended:?}");
}
