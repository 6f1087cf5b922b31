//! The codec, against prost and against bytes of anyone's making.

use super::proto::{
    Content, EncodedName, Message, Name, NameId, Publish, SessionHeader, SlimHeader, StringName, Subscribe,
    message::MessageType,
};
use super::*;
use bytes::Bytes;
use proptest::prelude::*;
use prost::Message as _;

fn name() -> impl Strategy<Value = Name> {
    let id = proptest::option::of((any::<u64>(), any::<u64>()).prop_map(|(id_0, id_1)| NameId { id_0, id_1 }));
    let encoded = proptest::option::of((any::<[u64; 3]>(), id).prop_map(|([a, b, c], name_id)| EncodedName {
        component_0: a,
        component_1: b,
        component_2: c,
        name_id,
    }));
    let text = proptest::option::of(
        ("\\PC{0,8}", "\\PC{0,8}", "\\PC{0,8}").prop_map(|(a, b, c)| StringName {
            str_component_0: a,
            str_component_1: b,
            str_component_2: c,
        }),
    );
    (encoded, text).prop_map(|(name, str_name)| Name { name, str_name })
}

fn header() -> impl Strategy<Value = SlimHeader> {
    (
        (proptest::option::of(name()), proptest::option::of(name()), "\\PC{0,20}"),
        (any::<u32>(), any::<u32>(), proptest::option::of(any::<u64>())),
        (
            proptest::option::of(any::<bool>()),
            proptest::option::of(any::<[u8; 32]>()),
            any::<[u8; 4]>(),
        ),
    )
        .prop_map(
            |((source, destination, identity), (fanout, ttl, hop), (error, mac, signature))| SlimHeader {
                source,
                destination,
                identity,
                fanout,
                version: "v1".into(),
                ttl,
                recv_from: hop,
                forward_to: hop,
                incoming_conn: hop,
                error,
                header_mac: mac.map(|mac| Bytes::copy_from_slice(&mac)),
                e2e_header_sig: Some(Bytes::copy_from_slice(&signature)),
            },
        )
}

fn message() -> impl Strategy<Value = Message> {
    let session =
        (0..3i32, 0..22i32, any::<u32>(), any::<u32>()).prop_map(|(kind, message, session, id)| SessionHeader {
            session_type: kind,
            session_message_type: message,
            session_id: session,
            message_id: id,
        });
    let metadata = proptest::collection::btree_map("[a-z-]{1,12}", "\\PC{0,8}", 0..4);
    (header(), session, metadata, any::<Vec<u8>>()).prop_map(|(header, session, metadata, blob)| Message {
        message_type: Some(MessageType::Publish(Publish {
            header: Some(header),
            session: Some(session),
            msg: Some(Content {
                content_type: Some(proto::content::ContentType::AppPayload(proto::ApplicationPayload {
                    payload_type: "t".into(),
                    blob: blob.into(),
                })),
            }),
        })),
        metadata,
    })
}

fn publish(bytes: &Bytes) -> super::Publish {
    match Inbound::decode(bytes) {
        Ok(Inbound::Publish(publish)) => publish,
        other => panic!("{other:?}"),
    }
}

proptest! {
    #[test]
    fn a_forwarded_frame_differs_in_the_fields_of_the_hop_alone(message in message(), ttl in 1..9u32) {
        let bytes: Bytes = message.encode_to_vec().into();
        let mut frame = publish(&bytes);
        frame.header = frame.header.for_next_hop(ttl);
        let sent = Message::decode(frame.encode(Some(&[7; 32]))).expect("a message");
        let mut expected = message;
        let Some(MessageType::Publish(Publish { header: Some(header), .. })) = &mut expected.message_type else {
            unreachable!("made above")
        };
        header.ttl = ttl;
        (header.recv_from, header.forward_to, header.incoming_conn) = (None, None, None);
        header.header_mac = Some(Bytes::from_static(&[7; 32]));
        prop_assert_eq!(sent, expected);
    }

    #[test]
    fn fields_of_a_later_version_are_forwarded(message in message(), number in 100..200u32) {
        let mut unknown = Vec::new();
        prost::encoding::string::encode(number, &"later".to_owned(), &mut unknown);
        // In the header, in the publish, in the message.
        let Some(MessageType::Publish(publish_)) = message.message_type.clone() else { unreachable!("made above") };
        let mut header = publish_.header.expect("one").encode_to_vec();
        header.extend(&unknown);
        let mut inner = Vec::new();
        prost::encoding::bytes::encode(1, &header, &mut inner);
        inner.extend(&unknown);
        let mut outer = Vec::new();
        prost::encoding::bytes::encode(3, &inner, &mut outer);
        outer.extend(&unknown);
        let sent = publish(&outer.into()).encode(None);
        let count = sent.windows(unknown.len()).filter(|part| *part == unknown.as_slice()).count();
        prop_assert_eq!(count, 3);
    }

    #[test]
    fn any_bytes_are_a_message_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let bytes = Bytes::from(bytes);
        if let Ok(Inbound::Publish(frame)) = Inbound::decode(&bytes) {
            let again = publish(&frame.encode(None));
            prop_assert_eq!(again.encode(None), frame.encode(None));
        }
    }

    #[test]
    fn a_message_with_one_byte_changed_is_a_message_or_an_error(message in message(), at in any::<prop::sample::Index>(), to in any::<u8>()) {
        let mut bytes = message.encode_to_vec();
        let at = at.index(bytes.len());
        bytes[at] = to;
        let bytes = Bytes::from(bytes);
        // Frames that the bridge takes, prost takes too, and reads alike.
        if let Ok(Inbound::Publish(frame)) = Inbound::decode(&bytes)
            && let Ok(Message { message_type: Some(MessageType::Publish(Publish { header: Some(header), .. })), .. }) = Message::decode(bytes)
        {
            prop_assert_eq!(frame.header.fanout, header.fanout);
            prop_assert_eq!(frame.header.ttl, header.ttl);
        }
    }
}

#[test]
fn a_field_that_must_stand_once_is_refused_twice() {
    let subscribe = Message {
        message_type: Some(MessageType::Subscribe(Subscribe {
            header: Some(SlimHeader::default()),
            subscription_id: 1,
        })),
        ..Message::default()
    };
    let once = subscribe.encode_to_vec();
    assert!(matches!(
        Inbound::decode(&once.clone().into()),
        Ok(Inbound::Subscribe(_))
    ));
    let twice = [once.clone(), once].concat();
    assert_eq!(
        Inbound::decode(&twice.into()).map(|_| ()).expect_err("refused"),
        WireError::Malformed("a field that occurs twice")
    );
}

#[test]
fn hashes_are_those_of_slim() {
    // Seen on the wire of slim-bindings 3.3.8.
    assert_eq!(component_hash("org"), xxhash_rust::xxh64::xxh64(b"org\xff", 0));
}

#[test]
fn what_is_kept_is_what_a_group_says_to_all() {
    use proto::{SessionMessageType as T, SessionType as S};
    let durability = |session: S, kind: T, fanout: u32, id: bool, key: Option<&str>| {
        let mut message = Message {
            message_type: Some(MessageType::Publish(Publish {
                header: Some(SlimHeader {
                    destination: Some(Name {
                        name: Some(EncodedName {
                            component_0: 1,
                            name_id: id.then_some(NameId { id_0: 1, id_1: 2 }),
                            ..EncodedName::default()
                        }),
                        str_name: None,
                    }),
                    fanout,
                    ..SlimHeader::default()
                }),
                session: Some(SessionHeader {
                    session_type: session.into(),
                    session_message_type: kind.into(),
                    ..SessionHeader::default()
                }),
                msg: None,
            })),
            ..Message::default()
        };
        if let Some(key) = key {
            message.metadata.insert(key.into(), "request".into());
        }
        publish(&message.encode_to_vec().into()).durability()
    };
    let durable = |session, kind, fanout, id, key| durability(session, kind, fanout, id, key) == Durability::Durable;
    for kind in [T::Msg, T::GroupUpdate, T::GroupClose, T::UpdateParticipantState] {
        assert!(durable(S::Multicast, kind, 256, true, None), "{kind:?}");
    }
    for kind in [
        T::Heartbeat,
        T::MsgAck,
        T::RtxRequest,
        T::RtxReply,
        T::DiscoveryRequest,
        T::DiscoveryReply,
        T::Unspecified,
    ] {
        assert!(!durable(S::Multicast, kind, 256, true, None), "{kind:?}");
    }
    assert!(!durable(S::Multicast, T::Msg, 1, true, None), "to one application");
    assert!(!durable(S::Multicast, T::Msg, 256, false, None), "to anyone");
    assert!(!durable(S::PointToPoint, T::Msg, 256, true, None));
    for key in ["slimrpc-dir", "rpc-id", "PUBLISH_TO"] {
        assert!(!durable(S::Multicast, T::Msg, 256, true, Some(key)), "{key}");
    }
    assert!(durable(S::Multicast, T::Msg, 256, true, Some("traceparent")));
}
