//! Start, life and end of a session.

use super::peer::{Script, connect, connect_until, now_s, within};
use skytale_proto::session::{
    Limits, Notice, Ping, Refusal, Started, TokenAccepted, control_event, control_request, notice,
};
use skytale_proto::{Code, limits};
use skytale_sdk::RelayError;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(200);

#[tokio::test]
async fn a_hello_brings_the_token_and_starts_a_session() {
    let script = Script::run(|mut peer| {
        Box::pin(async move {
            assert_eq!(peer.hello.token, "first");
            peer.start(LONG, now_s() + 600).await;
            peer.connection.closed().await;
        })
    })
    .await;
    let (session, endpoint) = connect(&script.relay).await.expect("a session");
    assert_eq!(session.info().keepalive, LONG);
    assert_eq!(session.info().relay_version, "peer");
    within(session.close()).await;
    assert!(matches!(within(session.ended()).await, RelayError::Closed));
    endpoint.close().await;
    script.end().await;
}

#[tokio::test]
async fn limits_beyond_the_formats_are_not_believed() {
    let script = Script::run(|mut peer| {
        Box::pin(async move {
            let started = Started {
                limits: Some(Limits {
                    frame_bytes_max: u64::MAX,
                    append_in_flight_bytes_max: u64::MAX,
                    key_packages_max: u32::MAX,
                    ..Limits::default()
                }),
                keepalive_ms: u64::MAX,
                ..Started::default()
            };
            peer.control.event(control_event::Event::Started(started)).await;
            peer.connection.closed().await;
        })
    })
    .await;
    let (session, _endpoint) = connect(&script.relay).await.expect("a session");
    let info = session.info();
    assert_eq!(info.frame_bytes_max, limits::FRAME_BYTES_MAX);
    assert_eq!(info.append_in_flight_bytes_max, limits::APPEND_IN_FLIGHT_BYTES_MAX);
    assert_eq!(info.key_packages_max, limits::KEY_PACKAGES_MAX);
    assert!(info.keepalive <= Duration::from_secs(300));
    session.close().await;
    script.end().await;
}

#[tokio::test]
async fn a_refused_hello_says_why() {
    let script = Script::run(|mut peer| {
        Box::pin(async move {
            let refusal = Refusal::because(Code::TokenExpired, "ended\u{1b}[31m an hour ago").after(SHORT);
            peer.control.event(control_event::Event::Refusal(refusal)).await;
            peer.connection.closed().await;
        })
    })
    .await;
    let error = connect(&script.relay).await.expect_err("a refusal");
    assert_eq!(error.code(), Code::TokenExpired);
    assert!(error.is_retryable());
    assert_eq!(error.retry_after(), Some(SHORT));
    assert!(
        !error.to_string().contains('\u{1b}'),
        "no control characters reach a terminal"
    );
    script.end().await;
}

#[tokio::test]
async fn a_close_with_a_code_is_a_refusal() {
    let script = Script::run(|peer| {
        Box::pin(async move {
            peer.connection.close(Code::TooManyConnections.number().into(), b"full");
        })
    })
    .await;
    let error = connect(&script.relay).await.expect_err("a refusal");
    assert_eq!(error.code(), Code::TooManyConnections);
    script.end().await;
}

#[tokio::test]
async fn an_oversize_answer_is_refused_by_its_length() {
    let script = Script::run(|mut peer| {
        Box::pin(async move {
            peer.control.write_raw(u32::MAX.to_be_bytes().to_vec().into()).await;
            peer.connection.closed().await;
        })
    })
    .await;
    let error = connect(&script.relay).await.expect_err("an error");
    assert_eq!(error.code(), Code::MessageTooLarge);
    script.end().await;
}

#[tokio::test]
async fn garbage_for_an_answer_is_an_error() {
    let script = Script::run(|mut peer| {
        Box::pin(async move {
            peer.control
                .write_raw(vec![0, 0, 0, 4, 0xff, 0xff, 0xff, 0xff].into())
                .await;
            peer.connection.closed().await;
        })
    })
    .await;
    let error = connect(&script.relay).await.expect_err("an error");
    assert_eq!(error.code(), Code::MessageMalformed);
    script.end().await;
}

#[tokio::test]
async fn a_silent_relay_is_pinged_and_then_given_up() {
    let script = Script::run(|mut peer| {
        Box::pin(async move {
            peer.start(SHORT, now_s() + 600).await;
            assert!(matches!(
                peer.control.request().await,
                control_request::Request::Ping(_)
            ));
            // Not a word: the connection is up, but nobody is there.
            peer.connection.closed().await;
        })
    })
    .await;
    let (session, _endpoint) = connect(&script.relay).await.expect("a session");
    assert_eq!(within(session.ended()).await.code(), Code::KeepaliveLost);
    script.end().await;
}

#[tokio::test]
async fn a_relay_that_answers_pings_keeps_its_session() {
    let script = Script::run(|mut peer| {
        Box::pin(async move {
            // Longer than an answer takes on an overloaded machine.
            peer.start(Duration::from_secs(2), now_s() + 600).await;
            for _ in 0..3 {
                let control_request::Request::Ping(Ping { nonce }) = peer.control.request().await else {
                    panic!("a ping");
                };
                let pong = skytale_proto::session::Pong { nonce };
                peer.control.event(control_event::Event::Pong(pong)).await;
            }
            peer.control
                .event(control_event::Event::Refusal(Refusal::because(Code::Draining, "done")))
                .await;
            peer.connection.closed().await;
        })
    })
    .await;
    let (session, _endpoint) = connect(&script.relay).await.expect("a session");
    assert_eq!(within(session.ended()).await.code(), Code::Draining);
    script.end().await;
}

#[tokio::test]
async fn pings_of_the_relay_are_answered_with_their_nonce() {
    let script = Script::run(|mut peer| {
        Box::pin(async move {
            peer.start(LONG, now_s() + 600).await;
            for nonce in [3, 1, u64::MAX] {
                peer.control.event(control_event::Event::Ping(Ping { nonce })).await;
                let control_request::Request::Pong(pong) = peer.control.request().await else {
                    panic!("a pong");
                };
                assert_eq!(pong.nonce, nonce);
            }
        })
    })
    .await;
    let (session, _endpoint) = connect(&script.relay).await.expect("a session");
    script.end().await;
    within(session.ended()).await;
}

#[tokio::test]
async fn a_token_is_refreshed_in_band_before_its_end() {
    // A fifth of it is left at the refresh: longer than an overloaded machine takes.
    const LIFE_S: u64 = 30;
    let script = Script::run(|mut peer| {
        Box::pin(async move {
            let ends = now_s() + LIFE_S;
            peer.start(LONG, ends).await;
            let control_request::Request::TokenRefresh(refresh) = peer.control.request().await else {
                panic!("a refresh");
            };
            assert!(now_s() <= ends, "refreshed before its end");
            assert_eq!(refresh.token, "second");
            let token_expires_s = now_s() + 600;
            peer.control
                .event(control_event::Event::TokenAccepted(TokenAccepted { token_expires_s }))
                .await;
            peer.control.event(control_event::Event::Ping(Ping { nonce: 1 })).await;
            assert!(
                matches!(peer.control.request().await, control_request::Request::Pong(_)),
                "the session goes on"
            );
        })
    })
    .await;
    let (session, _endpoint) = connect_until(&script.relay, now_s() + LIFE_S).await.expect("a session");
    script.end().await;
    within(session.ended()).await;
}

#[tokio::test]
async fn a_relay_that_cannot_check_a_token_now_keeps_its_session_and_is_given_the_token_again() {
    let script = Script::run(|mut peer| {
        Box::pin(async move {
            peer.start(LONG, now_s() + 3).await;
            for code in [Code::TrustStale, Code::TokenKeyUnknown] {
                let request = peer.control.request().await;
                assert!(
                    matches!(request, control_request::Request::TokenRefresh(_)),
                    "{request:?}"
                );
                let refusal = Refusal::because(code, "not now");
                peer.control.event(control_event::Event::Refusal(refusal)).await;
            }
            let control_request::Request::TokenRefresh(_) = peer.control.request().await else {
                panic!("a refresh");
            };
            let token_expires_s = now_s() + 600;
            peer.control
                .event(control_event::Event::TokenAccepted(TokenAccepted { token_expires_s }))
                .await;
            peer.control.event(control_event::Event::Ping(Ping { nonce: 1 })).await;
            let request = peer.control.request().await;
            assert!(
                matches!(request, control_request::Request::Pong(_)),
                "the session goes on"
            );
            // Another refusal is the session's end.
            let refusal = Refusal::because(Code::TrustStale, "the API does not answer");
            peer.control.event(control_event::Event::Refusal(refusal)).await;
            peer.connection.closed().await;
        })
    })
    .await;
    let (session, _endpoint) = connect_until(&script.relay, now_s() + 3).await.expect("a session");
    let ended = within(session.ended()).await;
    assert_eq!(ended.code(), Code::TrustStale);
    script.end().await;
}

#[tokio::test]
async fn a_notice_that_the_token_ends_brings_a_refresh() {
    let script = Script::run(|mut peer| {
        Box::pin(async move {
            peer.start(LONG, now_s() + 600).await;
            let notice = Notice {
                kind: notice::Kind::TokenEnding.into(),
                ..Notice::default()
            };
            peer.control.event(control_event::Event::Notice(notice)).await;
            assert!(matches!(
                peer.control.request().await,
                control_request::Request::TokenRefresh(_)
            ));
        })
    })
    .await;
    let (session, _endpoint) = connect(&script.relay).await.expect("a session");
    script.end().await;
    within(session.ended()).await;
}

#[tokio::test]
async fn a_drain_notice_is_told() {
    let script = Script::run(|mut peer| {
        Box::pin(async move {
            peer.start(LONG, now_s() + 600).await;
            let notice = Notice {
                kind: notice::Kind::Drain.into(),
                within_ms: 5_000,
                ..Notice::default()
            };
            peer.control.event(control_event::Event::Notice(notice)).await;
            peer.connection.closed().await;
        })
    })
    .await;
    let (session, _endpoint) = connect(&script.relay).await.expect("a session");
    let mut draining = session.draining();
    let within_time = *within(draining.wait_for(Option::is_some)).await.expect("a notice");
    assert_eq!(within_time, Some(Duration::from_secs(5)));
    session.close().await;
    script.end().await;
}

#[tokio::test]
async fn a_session_that_the_relay_ends_says_why() {
    let script = Script::run(|mut peer| {
        Box::pin(async move {
            peer.start(LONG, now_s() + 600).await;
            let refusal = Refusal::because(Code::TokenRevoked, "key revoked");
            peer.control.event(control_event::Event::Refusal(refusal)).await;
            let _ = peer.control.send.finish();
            let _ = peer.control.send.stopped().await;
            peer.connection.close(0_u32.into(), b"");
        })
    })
    .await;
    let (session, _endpoint) = connect(&script.relay).await.expect("a session");
    assert_eq!(within(session.ended()).await.code(), Code::TokenRevoked);
    script.end().await;
}

#[tokio::test]
async fn nobody_at_the_address_is_an_error_that_can_be_tried_again() {
    let script = Script::run(|_peer| Box::pin(async {})).await;
    let mut relay = script.relay.clone();
    relay.addresses = vec!["127.0.0.1:9".parse().expect("an address")];
    let error = connect(&relay).await.expect_err("nobody");
    assert_eq!(error.code(), Code::Offline);
    assert!(error.is_retryable());
}
