//! Negotiation and MAC, against a client made here.

use super::*;
use crate::wire::Inbound;
use crate::wire::proto::{self, Link, LinkNegotiationPayload, Message, link::LinkType, message::MessageType};
use bytes::Bytes;
use ml_kem::kem::Decapsulate as _;
use ml_kem::{DecapsulationKey, MlKem768};
use prost::Message as _;
use ring::{agreement, rand};

fn identity() -> Identity {
    Identity {
        slim_version: "3.4.6".into(),
        node_id: "bridge".into(),
    }
}

fn request() -> LinkNegotiationPayload {
    LinkNegotiationPayload {
        link_id: "a-link".into(),
        slim_version: "3.4.6".into(),
        link_ecdh_public_key: vec![9; 32].into(),
        ..LinkNegotiationPayload::default()
    }
}

fn link(request: LinkNegotiationPayload) -> Bytes {
    Link {
        link_type: Some(LinkType::LinkNegotiation(request)),
    }
    .encode_to_vec()
    .into()
}

fn reply(accepted: &Accepted) -> LinkNegotiationPayload {
    let message = Message::decode(accepted.reply.clone()).expect("a message");
    match message.message_type {
        Some(MessageType::Link(Link {
            link_type: Some(LinkType::LinkNegotiation(reply)),
        })) => reply,
        other => panic!("{other:?}"),
    }
}

fn publish() -> proto::Publish {
    proto::Publish {
        header: Some(proto::SlimHeader {
            source: Some(proto::Name {
                name: Some(proto::EncodedName {
                    component_0: 1,
                    ..Default::default()
                }),
                ..Default::default()
            }),
            destination: Some(proto::Name::default()),
            identity: "me".into(),
            fanout: 1,
            ttl: 8,
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn parse(publish: proto::Publish) -> crate::wire::Publish {
    let message = Message {
        message_type: Some(MessageType::Publish(publish)),
        ..Message::default()
    };
    match Inbound::decode(&message.encode_to_vec().into()) {
        Ok(Inbound::Publish(publish)) => publish,
        other => panic!("{other:?}"),
    }
}

fn hybrid(kem: bool) {
    let private =
        agreement::EphemeralPrivateKey::generate(&agreement::X25519, &rand::SystemRandom::new()).expect("a key");
    let mut request = request();
    request.link_ecdh_public_key = Bytes::copy_from_slice(private.compute_public_key().expect("a key").as_ref());
    let mut seed = [0; 64];
    getrandom::fill(&mut seed).expect("random");
    let decapsulation = DecapsulationKey::<MlKem768>::from_seed(seed.into());
    if kem {
        use ml_kem::KeyExport as _;
        request.link_kem_payload = Some(Bytes::copy_from_slice(&decapsulation.encapsulation_key().to_bytes()));
    }
    let accepted = accept(link(request), &identity()).expect("a link");
    assert_eq!(accepted.hybrid, kem);
    let reply = reply(&accepted);
    assert!(reply.is_reply && reply.link_id == "a-link" && reply.link_ecdh_public_key.len() == 32);
    let mut secret = [0; 32];
    let theirs = agreement::UnparsedPublicKey::new(&agreement::X25519, &reply.link_ecdh_public_key);
    agreement::agree_ephemeral(private, &theirs, |shared| secret.copy_from_slice(shared)).expect("agreed");
    let kem_secret = reply.link_kem_payload.map(|ciphertext| {
        assert_eq!(ciphertext.len(), 1_088);
        let shared = decapsulation.decapsulate_slice(&ciphertext).expect("decapsulated");
        let mut secret = zeroize::Zeroizing::new([0; 32]);
        secret.copy_from_slice(&shared);
        secret
    });
    assert_eq!(kem_secret.is_some(), kem);
    let key = negotiate::derive("a-link", &secret, kem_secret.as_ref()).expect("a key");
    let client = LinkMac::new(&key, "a-link");
    let mut frame = parse(publish());
    let mac = client.sign(&frame.header);
    assert!(!accepted.mac.verify(&frame.header), "no MAC yet");
    frame = match Inbound::decode(&frame.encode(Some(&mac))) {
        Ok(Inbound::Publish(frame)) => frame,
        other => panic!("{other:?}"),
    };
    assert!(accepted.mac.verify(&frame.header));
    frame.header.ttl -= 1;
    assert!(!accepted.mac.verify(&frame.header), "the ttl is covered");
}

#[test]
fn both_ends_of_a_link_have_one_key() {
    hybrid(false);
}

#[test]
fn a_client_that_offers_ml_kem_gets_it() {
    hybrid(true);
}

#[test]
fn what_is_no_request_is_refused() {
    let refused = |change: fn(&mut LinkNegotiationPayload)| {
        let mut request = request();
        change(&mut request);
        accept(link(request), &identity()).map(|_| ()).expect_err("refused")
    };
    assert_eq!(refused(|request| request.is_reply = true), NegotiationError::Expected);
    refused(|request| request.link_id.clear());
    refused(|request| request.link_id = "x".repeat(257));
    refused(|request| request.slim_version = "new".into());
    refused(|request| request.slim_version = "1.2".into());
    refused(|request| request.link_ecdh_public_key.clear());
    refused(|request| request.link_kem_payload = Some(vec![1; 10].into()));
    // A point of small order gives a secret that everyone knows.
    assert_eq!(
        refused(|request| request.link_ecdh_public_key = vec![0; 32].into()),
        NegotiationError::Agreement
    );
    assert!(accept(Bytes::new(), &identity()).is_err());
    assert!(accept(Bytes::from_static(&[0xff; 9]), &identity()).is_err());
}

#[test]
fn versions_are_semantic() {
    for (text, fine) in [("3.4.6", true), ("1.0.0-rc.1+x", true), ("1", false), ("a.b.c", false)] {
        let mut request = request();
        request.slim_version = text.into();
        assert_eq!(accept(link(request), &identity()).is_ok(), fine, "{text}");
    }
}
