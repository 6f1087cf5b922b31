//! KeyPackages: offered on the append stream, claimed and counted on their own.

use crate::client::{Client, Wire};
use crate::fixture::{Fixture, claim, key_package, message};
use bytes::Bytes;
use skytale_proto::session::{
    KeyPackageCount, KeyPackagesRequest, KeyPackagesResponse, key_packages_request::Request,
    key_packages_response::Outcome,
};
use skytale_proto::{ChannelId, Code, Frame};

pub(crate) async fn ask(wire: &mut Wire, request: Request) -> Outcome {
    wire.say(&KeyPackagesRequest { request: Some(request) })
        .await
        .expect("sent");
    let response: KeyPackagesResponse = wire.hear().await.expect("answered");
    response.outcome.expect("an outcome")
}

async fn claim_one(wire: &mut Wire, frame: &Frame) -> Outcome {
    ask(wire, Request::Claim(frame.encoded().clone())).await
}

/// Claims a package that there must be.
pub(crate) async fn claimed(client: &Client, claim: &Frame) {
    let outcome = claim_one(&mut client.key_packages().await, claim).await;
    assert!(matches!(outcome, Outcome::Claimed(_)), "{outcome:?}");
}

fn code(outcome: &Outcome) -> Option<Code> {
    match outcome {
        Outcome::Refusal(refusal) => refusal.known_code(),
        _ => None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn packages_are_given_out_once_each_then_the_last_resort() {
    let fixture = Fixture::new().await;
    let (alice, a) = fixture.agent().await;
    let (bob, b) = fixture.agent().await;
    let offered = [
        key_package(bob.id, false),
        key_package(bob.id, true),
        key_package(bob.id, false),
    ];
    let mut appends = b.appends().await;
    for (package, offset) in offered.iter().zip(1..) {
        appends.send(package).await.expect("sent");
        assert_eq!(
            appends.answer().await.expect("answered").expect("offered").offset,
            offset
        );
    }
    let mut stock = b.key_packages().await;
    let Outcome::Stock(counted) = ask(&mut stock, Request::Count(KeyPackageCount {})).await else {
        panic!("a stock")
    };
    assert_eq!((counted.live, counted.last_resort), (2, true));

    let mut claims = a.key_packages().await;
    for (package, last_resort) in [(1, false), (3, false), (2, true), (2, true)] {
        let Outcome::Claimed(claimed) = claim_one(&mut claims, &claim(bob.id, alice.id)).await else {
            panic!("a package")
        };
        assert_eq!((claimed.package_offset, claimed.last_resort), (package, last_resort));
        assert_eq!(&claimed.frame, offered[package as usize - 1].encoded());
    }
    let Outcome::Stock(counted) = ask(&mut stock, Request::Count(KeyPackageCount {})).await else {
        panic!("a stock")
    };
    assert_eq!((counted.live, counted.last_resort), (0, true));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_that_comes_again_gets_the_same_package() {
    let fixture = Fixture::new().await;
    let (alice, a) = fixture.agent().await;
    let (bob, b) = fixture.agent().await;
    for _ in 0..2 {
        b.append(&key_package(bob.id, false)).await.expect("offered");
    }
    let mut claims = a.key_packages().await;
    let frame = claim(bob.id, alice.id);
    let first = claim_one(&mut claims, &frame).await;
    assert!(matches!(first, Outcome::Claimed(_)));
    assert_eq!(claim_one(&mut claims, &frame).await, first);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn claims_that_cannot_be_have_their_codes_and_the_stream_goes_on() {
    let fixture = Fixture::new().await;
    let (alice, a) = fixture.agent().await;
    let (bob, b) = fixture.agent().await;
    let mut claims = a.key_packages().await;
    let cases = [
        (claim(bob.id, alice.id), Code::KeyPackagesExhausted),
        (claim(bob.id, bob.id), Code::AuthorMismatch),
        (key_package(alice.id, false), Code::KindRefused),
        (
            message(ChannelId::generate(), alice.id, 1, "no claim"),
            Code::KindRefused,
        ),
    ];
    for (frame, wanted) in cases {
        assert_eq!(code(&claim_one(&mut claims, &frame).await), Some(wanted));
    }
    let garbage = ask(&mut claims, Request::Claim(Bytes::from_static(b"\xff\xff"))).await;
    assert_eq!(code(&garbage), Some(Code::FrameMalformed));
    b.append(&key_package(bob.id, false)).await.expect("offered");
    assert!(matches!(
        claim_one(&mut claims, &claim(bob.id, alice.id)).await,
        Outcome::Claimed(_)
    ));
}
