//! Append, subscribe, key packages.

use super::peer::{Peer, Script, connect, now_s, within};
use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use skytale_proto::session::{
    AppendRequest, AppendResponse, Appended, Batch, CaughtUp, KeyPackageClaimed, KeyPackageStock, KeyPackagesRequest,
    KeyPackagesResponse, Refusal, SubscribeEvent, append_response, key_packages_request, key_packages_response, open,
    subscribe_event,
};
use skytale_proto::{AgentId, ChannelId, Code, Detail, Frame, FrameId, Header, LogId, Offset, Record, limits, record};
use skytale_sdk::RelayError;
use skytale_sdk::internals::net::relay::{Appender, KeyPackages, Subscription, SubscriptionItem};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

const LONG: Duration = Duration::from_secs(60);

fn appended(offset: u64) -> AppendResponse {
    let appended = Appended {
        offset,
        time_ms: 5,
        ..Appended::default()
    };
    AppendResponse {
        outcome: Some(append_response::Outcome::Appended(appended)),
    }
}

fn entry(offset: u64) -> Record {
    Record {
        kind: record::KIND_ENTRY,
        offset: Offset::new(offset),
        time_ms: offset,
        payload: Bytes::from(vec![u8::try_from(offset % 251).expect("a byte"); 40]),
    }
}

fn batch(offsets: impl IntoIterator<Item = u64>) -> SubscribeEvent {
    let mut records = BytesMut::new();
    for offset in offsets {
        entry(offset).encode_into(&mut records);
    }
    SubscribeEvent {
        event: Some(subscribe_event::Event::Batch(Batch {
            records: records.freeze(),
        })),
    }
}

async fn started(peer: &mut Peer) {
    peer.start(LONG, now_s() + 600).await;
}

// ---- append

#[tokio::test]
async fn verdicts_come_to_their_frames_in_order() {
    let script = Script::run(|mut peer| {
        Box::pin(async move {
            started(&mut peer).await;
            let (open::Stream::Append(_), mut line) = peer.stream().await else {
                panic!("an append stream");
            };
            for offset in 1..=200_u64 {
                let request: AppendRequest = line.read().await;
                assert_eq!(request.frame, offset.to_be_bytes().to_vec());
            }
            for offset in 1..=200 {
                if offset % 10 == 0 {
                    let refusal = Refusal::because(Code::StaleEpoch, "late").at(Offset::new(offset));
                    let outcome = Some(append_response::Outcome::Refusal(refusal));
                    line.write(&AppendResponse { outcome }).await;
                } else {
                    line.write(&appended(offset)).await;
                }
            }
            peer.connection.closed().await;
        })
    })
    .await;
    let (session, _endpoint) = connect(&script.relay).await.expect("a session");
    let appender = within(Appender::open(&session)).await.expect("a stream");
    let mut pending = Vec::new();
    for offset in 1..=200_u64 {
        let frame = Bytes::from(offset.to_be_bytes().to_vec());
        pending.push(within(appender.append(frame)).await.expect("room"));
    }
    for (offset, pending) in (1..).zip(pending) {
        match within(pending.outcome()).await {
            Ok(receipt) => assert_eq!(receipt.offset, Offset::new(offset)),
            Err(RelayError::Refused(refused)) => {
                assert_eq!(
                    (refused.code(), refused.offset),
                    (Code::StaleEpoch, Offset::new(offset))
                );
                assert_eq!(offset % 10, 0);
            }
            Err(error) => panic!("{error}"),
        }
    }
    session.close().await;
    script.end().await;
}

#[tokio::test]
async fn what_is_in_flight_is_bounded_in_bytes() {
    let ninth_read = Arc::new(Notify::new());
    let told = Arc::clone(&ninth_read);
    let script = Script::run(move |mut peer| {
        Box::pin(async move {
            started(&mut peer).await;
            let (_, mut line) = peer.stream().await;
            let mut bytes = 0;
            // Eight frames of a mebibyte are the bound: the ninth comes only after the first answer.
            for _ in 0..8 {
                bytes += line.read::<AppendRequest>().await.frame.len();
            }
            assert_eq!(bytes, limits::APPEND_IN_FLIGHT_BYTES_MAX);
            let ninth = tokio::time::timeout(Duration::from_millis(300), line.receive.read(&mut [0; 4])).await;
            assert!(ninth.is_err(), "a frame too many was sent");
            line.write(&appended(1)).await;
            line.read::<AppendRequest>().await;
            told.notify_one();
            peer.connection.closed().await;
        })
    })
    .await;
    let (session, _endpoint) = connect(&script.relay).await.expect("a session");
    let appender = within(Appender::open(&session)).await.expect("a stream");
    for _ in 0..9 {
        within(appender.append(Bytes::from(vec![7; limits::FRAME_BYTES_MAX])))
            .await
            .expect("room in the end");
    }
    within(ninth_read.notified()).await;
    session.close().await;
    script.end().await;
}

#[tokio::test]
async fn appends_that_nobody_polls_hold_up_no_other() {
    const ROOM: u64 = 8;
    const HELD: usize = 40;
    /// Those that fill the room, those that were not dropped, and the last one.
    const OUT: u64 = ROOM + HELD as u64 / 2 + 1;
    let begun = Arc::new(Notify::new());
    let answer = Arc::clone(&begun);
    let script = Script::run(move |mut peer| {
        Box::pin(async move {
            started(&mut peer).await;
            let (_, mut line) = peer.stream().await;
            for _ in 0..ROOM {
                line.read::<AppendRequest>().await;
            }
            // None is answered before the others wait for room.
            answer.notified().await;
            for number in 1..=OUT {
                line.write(&appended(number)).await;
                if number + ROOM <= OUT {
                    line.read::<AppendRequest>().await;
                }
            }
            peer.connection.closed().await;
        })
    })
    .await;
    let (session, _endpoint) = connect(&script.relay).await.expect("a session");
    let appender = within(Appender::open(&session)).await.expect("a stream");
    let frame = || Bytes::from(vec![7; limits::FRAME_BYTES_MAX]);
    let mut pending = Vec::new();
    for _ in 0..ROOM {
        pending.push(within(appender.append(frame())).await.expect("room"));
    }
    // Each was begun, is not polled again, and half of them are dropped.
    let mut held: Vec<_> = (0..HELD).map(|_| Box::pin(appender.append(frame()))).collect();
    for append in &mut held {
        assert!(append.now_or_never().is_none(), "there is no room");
    }
    held.truncate(HELD / 2);
    begun.notify_one();
    let last = within(appender.append(frame())).await.expect("room in the end");
    for pending in pending {
        within(pending.outcome()).await.expect("a verdict");
    }
    within(last.outcome()).await.expect("a verdict");
    for append in held {
        let pending = within(append).await.expect("it went out meanwhile");
        within(pending.outcome()).await.expect("a verdict");
    }
    within(appender.settled()).await;
    session.close().await;
    script.end().await;
}

#[tokio::test]
async fn a_lost_connection_makes_appends_ambiguous() {
    let script = Script::run(|mut peer| {
        Box::pin(async move {
            started(&mut peer).await;
            let (_, mut line) = peer.stream().await;
            line.read::<AppendRequest>().await;
            peer.connection.close(0_u32.into(), b"");
        })
    })
    .await;
    let (session, _endpoint) = connect(&script.relay).await.expect("a session");
    let appender = within(Appender::open(&session)).await.expect("a stream");
    let pending = within(appender.append(Bytes::from_static(b"frame")))
        .await
        .expect("room");
    let error = within(pending.outcome()).await.expect_err("no verdict");
    assert!(error.refused().is_none() && error.is_retryable(), "{error}");
    let later = within(appender.append(Bytes::from_static(b"frame"))).await;
    assert!(later.is_err() || within(later.expect("queued").outcome()).await.is_err());
    script.end().await;
}

#[tokio::test]
async fn a_renewed_appender_goes_on_with_one_more_stream_which_its_clones_share() {
    let first_ended = Arc::new(Notify::new());
    let told = Arc::clone(&first_ended);
    let script = Script::run(move |mut peer| {
        Box::pin(async move {
            started(&mut peer).await;
            let (_, mut first) = peer.stream().await;
            assert_eq!(first.read::<AppendRequest>().await.frame, "refused");
            let refusal = Refusal::because(Code::RelayInternal, "not now");
            let outcome = Some(append_response::Outcome::Refusal(refusal));
            first.write(&AppendResponse { outcome }).await;
            let (open::Stream::Append(_), mut second) = peer.stream().await else {
                panic!("an append stream");
            };
            for (offset, frame) in (1..).zip(["again", "a clone's"]) {
                assert_eq!(second.read::<AppendRequest>().await.frame, frame);
                second.write(&appended(offset)).await;
            }
            // Nobody uses the first one any more.
            assert_eq!(first.receive.read(&mut [0; 1]).await.expect("an end"), None);
            told.notify_one();
            peer.connection.closed().await;
        })
    })
    .await;
    let (session, _endpoint) = connect(&script.relay).await.expect("a session");
    let mut appender = within(Appender::open(&session)).await.expect("a stream");
    let mut clone = appender.clone();
    let refused = within(appender.append("refused".into())).await.expect("room");
    let error = within(refused.outcome()).await.expect_err("refused");
    assert!(error.code().holds_log());
    within(appender.renew(&session)).await.expect("a stream");
    within(clone.renew(&session)).await.expect("the same stream");
    for (offset, appender, frame) in [(1, &appender, "again"), (2, &clone, "a clone's")] {
        let pending = within(appender.append(frame.into())).await.expect("room");
        let receipt = within(pending.outcome()).await.expect("appended");
        assert_eq!(receipt.offset, Offset::new(offset));
    }
    within(first_ended.notified()).await;
    session.close().await;
    script.end().await;
}

// ---- subscribe

#[tokio::test]
async fn entries_come_dense_and_then_live() {
    let channel = ChannelId::generate();
    let script = Script::run(move |mut peer| {
        Box::pin(async move {
            started(&mut peer).await;
            let (open::Stream::Subscribe(subscribe), mut line) = peer.stream().await else {
                panic!("a subscribe stream");
            };
            assert_eq!((subscribe.after, subscribe.follow, subscribe.limit), (4, true, 0));
            assert_eq!(LogId::try_from(subscribe.log.as_ref()), Ok(channel.log()));
            line.write(&batch(5..=300)).await;
            let caught_up = subscribe_event::Event::CaughtUp(CaughtUp {
                head: 300,
                unconfirmed: true,
            });
            line.write(&SubscribeEvent { event: Some(caught_up) }).await;
            line.write(&batch([301])).await;
            peer.connection.closed().await;
        })
    })
    .await;
    let (session, _endpoint) = connect(&script.relay).await.expect("a session");
    let opened = Subscription::open(&session, channel.log(), Offset::new(4), true, None);
    let mut subscription = within(opened).await.expect("a subscription");
    let expected: Vec<Record> = (5..=300).map(entry).collect();
    assert_eq!(
        within(subscription.next()).await.expect("entries"),
        Some(SubscriptionItem::Batch(expected))
    );
    let head = Offset::new(300);
    assert_eq!(
        within(subscription.next()).await.expect("the head"),
        Some(SubscriptionItem::CaughtUp {
            head,
            is_confirmed: false
        })
    );
    let live = Some(SubscriptionItem::Batch(vec![entry(301)]));
    assert_eq!(within(subscription.next()).await.expect("an entry"), live);
    session.close().await;
    script.end().await;
}

/// Subscribes after offset 4, gets `answer`, and returns the resulting error.
async fn error_of(answer: Vec<Bytes>, limit: Option<u64>) -> RelayError {
    let script = Script::run(move |mut peer| {
        Box::pin(async move {
            started(&mut peer).await;
            let (_, mut line) = peer.stream().await;
            for bytes in answer {
                line.write_raw(bytes).await;
            }
            peer.connection.closed().await;
        })
    })
    .await;
    let (session, _endpoint) = connect(&script.relay).await.expect("a session");
    let log = ChannelId::generate().log();
    let mut subscription = within(Subscription::open(&session, log, Offset::new(4), true, limit))
        .await
        .expect("opened");
    let error = loop {
        match within(subscription.next()).await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("an end without an error"),
            Err(error) => break error,
        }
    };
    session.close().await;
    script.end().await;
    error
}

fn framed(event: &SubscribeEvent) -> Bytes {
    skytale_proto::session::frame_message(event)
}

#[tokio::test]
async fn a_missing_entry_is_a_gap() {
    let error = error_of(vec![framed(&batch([5, 7]))], None).await;
    assert!(
        matches!(error, RelayError::Gap { expected, found } if expected.get() == 6 && found.get() == 7),
        "{error}"
    );
    assert_eq!(error.code(), Code::Gap);
}

#[tokio::test]
async fn an_entry_twice_is_a_gap_too() {
    let error = error_of(vec![framed(&batch([5])), framed(&batch([5]))], None).await;
    assert_eq!(error.code(), Code::Gap);
}

#[tokio::test]
async fn a_flipped_bit_in_a_record_is_seen() {
    let mut bytes = framed(&batch([5])).to_vec();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    assert_eq!(error_of(vec![bytes.into()], None).await.code(), Code::MessageMalformed);
}

#[tokio::test]
async fn an_empty_batch_more_than_asked_for_and_two_heads_are_refused() {
    let head = |head| {
        framed(&SubscribeEvent {
            event: Some(subscribe_event::Event::CaughtUp(CaughtUp {
                head,
                unconfirmed: false,
            })),
        })
    };
    for (answer, limit) in [
        (vec![framed(&batch([]))], None),
        (vec![framed(&batch([5, 6, 7]))], Some(2)),
        (vec![head(4), head(4)], None),
        (vec![head(3)], None),
        (vec![u32::MAX.to_be_bytes().to_vec().into()], None),
    ] {
        let error = error_of(answer, limit).await;
        assert!(matches!(error, RelayError::Protocol { .. }), "{error}");
    }
}

#[tokio::test]
async fn a_refused_subscription_says_why_and_the_session_goes_on() {
    let script = Script::run(|mut peer| {
        Box::pin(async move {
            started(&mut peer).await;
            let (_, mut line) = peer.stream().await;
            let refusal = Refusal::because(Code::Trimmed, "gone").at(Offset::new(90));
            let event = Some(subscribe_event::Event::Refusal(refusal));
            line.write(&SubscribeEvent { event }).await;
            let (_, mut line) = peer.stream().await;
            line.write(&batch([1])).await;
            peer.connection.closed().await;
        })
    })
    .await;
    let (session, _endpoint) = connect(&script.relay).await.expect("a session");
    let log = ChannelId::generate().log();
    let mut refused = within(Subscription::open(&session, log, Offset::ZERO, true, None))
        .await
        .expect("opened");
    let error = within(refused.next()).await.expect_err("a refusal");
    let refusal = error.refused().expect("a refusal");
    assert_eq!((refusal.code(), refusal.offset), (Code::Trimmed, Offset::new(90)));
    let mut other = within(Subscription::open(&session, log, Offset::ZERO, true, None))
        .await
        .expect("opened");
    assert_eq!(
        within(other.next()).await.expect("entries"),
        Some(SubscriptionItem::Batch(vec![entry(1)]))
    );
    session.close().await;
    script.end().await;
}

// ---- key packages

fn frame(author: AgentId, log: AgentId, detail: Detail) -> Frame {
    let header = Header {
        log: log.log(),
        id: FrameId::generate(),
        author,
        parent: Offset::ZERO,
        detail,
    };
    Frame::new(header, b"body".as_slice()).expect("a frame")
}

fn claimed(frame: &Frame) -> KeyPackagesResponse {
    let claimed = KeyPackageClaimed {
        claim_offset: 9,
        package_offset: 3,
        last_resort: false,
        frame: frame.encoded().clone(),
    };
    KeyPackagesResponse {
        outcome: Some(key_packages_response::Outcome::Claimed(claimed)),
    }
}

#[tokio::test]
async fn a_claim_gives_that_agents_package_and_no_others() {
    let (me, bob, eve) = (
        AgentId::from_bytes([7; 32]),
        AgentId::from_bytes([8; 32]),
        AgentId::from_bytes([9; 32]),
    );
    let package = Detail::KeyPackage {
        last_resort: false,
        account: None,
    };
    let sound = frame(bob, bob, package.clone());
    let answers = [
        claimed(&sound),
        claimed(&frame(eve, eve, package.clone())),
        claimed(&frame(eve, bob, package)),
    ];
    for (number, answer) in answers.into_iter().enumerate() {
        let script = Script::run(move |mut peer| {
            Box::pin(async move {
                started(&mut peer).await;
                let (_, mut line) = peer.stream().await;
                let request: KeyPackagesRequest = line.read().await;
                assert!(matches!(request.request, Some(key_packages_request::Request::Claim(_))));
                line.write(&answer).await;
                peer.connection.closed().await;
            })
        })
        .await;
        let (session, _endpoint) = connect(&script.relay).await.expect("a session");
        let mut packages = within(KeyPackages::open(&session)).await.expect("a stream");
        let claim = frame(me, bob, Detail::KeyPackageClaim { account: None });
        let answer = within(packages.claim(&claim)).await;
        if number == 0 {
            assert_eq!(answer.expect("bob's package").frame, sound);
        } else {
            assert_eq!(answer.map_err(|error| error.code()), Err(Code::MessageMalformed));
        }
        session.close().await;
        script.end().await;
    }
}

#[tokio::test]
async fn stock_and_refusals_are_told() {
    let script = Script::run(|mut peer| {
        Box::pin(async move {
            started(&mut peer).await;
            let (_, mut line) = peer.stream().await;
            line.read::<KeyPackagesRequest>().await;
            let stock = KeyPackageStock {
                live: 12,
                last_resort: true,
            };
            let outcome = Some(key_packages_response::Outcome::Stock(stock));
            line.write(&KeyPackagesResponse { outcome }).await;
            line.read::<KeyPackagesRequest>().await;
            let refusal = Refusal::because(Code::KeyPackagesExhausted, "none left");
            let outcome = Some(key_packages_response::Outcome::Refusal(refusal));
            line.write(&KeyPackagesResponse { outcome }).await;
            peer.connection.closed().await;
        })
    })
    .await;
    let (session, _endpoint) = connect(&script.relay).await.expect("a session");
    let mut packages = within(KeyPackages::open(&session)).await.expect("a stream");
    let stock = within(packages.count()).await.expect("a count");
    assert_eq!((stock.live, stock.last_resort), (12, true));
    let claim = frame(
        AgentId::from_bytes([7; 32]),
        AgentId::from_bytes([8; 32]),
        Detail::KeyPackageClaim { account: None },
    );
    let error = within(packages.claim(&claim)).await.expect_err("a refusal");
    assert_eq!(error.code(), Code::KeyPackagesExhausted);
    session.close().await;
    script.end().await;
}
