//! Attacks on recovery: forged and replayed requests, external commits, reboots, and statuses of a log.

use super::super::relay::{Agent, Relay, assert_agree, channel_of, settle};
use super::{Key, Rogue, assert_refused, commit, key_package};
use bytes::Bytes;
use openmls::prelude::tls_codec::{Deserialize as _, Serialize as _};
use openmls::prelude::*;
use openmls_rust_crypto::OpenMlsRustCrypto;
use prost::Message as _;
use skytale_log_store::AppendError;
use skytale_proto::wire::{Bundle, RejoinRequest};
use skytale_proto::{AgentId, ChannelId, Code, Detail, Digest, Frame, FrameId, Header, Offset};
use skytale_sdk::internals::engine::{LogStatus, Outcome};
use skytale_sdk::{ChannelState, Event, Standing};

const SUITE: Ciphersuite = Ciphersuite::MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519;

/// A request to rejoin in a member's name, signed with any key.
fn request(key: &Key, channel: ChannelId, header: &Header, package: &[u8]) -> Vec<u8> {
    let signed = [
        b"skytale rejoin request 2".as_slice(),
        channel.as_bytes(),
        header.id.as_bytes(),
        &header.parent.get().to_le_bytes(),
        &header.parent.get().to_le_bytes(),
        &Digest::hash_frame(package),
        &Digest::hash_frame(&[]),
    ]
    .concat();
    let body = RejoinRequest {
        key_package: Bytes::copy_from_slice(package),
        signature: Bytes::copy_from_slice(&key.signature(&signed)),
        applied: header.parent.get(),
        refused: Bytes::new(),
    };
    body.encode_to_vec()
}

fn header(channel: ChannelId, author: AgentId, parent: Offset, detail: Detail) -> Header {
    Header {
        log: channel.log(),
        id: FrameId::generate(),
        author,
        parent,
        detail,
    }
}

/// A KeyPackage that an agent has on offer.
fn package_of(relay: &Relay, claimer: &mut Agent, agent: &mut Agent) -> KeyPackage {
    agent.stock_up(relay);
    let claimed = claimer.claim(relay, agent.id());
    let frame = Frame::decode(claimed.frame).expect("a frame");
    let package = KeyPackageIn::tls_deserialize_exact(frame.body()).expect("a key package");
    let crypto = OpenMlsRustCrypto::default();
    package
        .validate(crypto.crypto(), ProtocolVersion::Mls10)
        .expect("valid")
}

fn standing(agent: &mut Agent, channel: ChannelId) -> Standing {
    agent.engine().channel(channel).expect("known").standing
}

fn has(events: &[Event], wanted: impl Fn(&Event) -> bool) -> bool {
    events.iter().any(wanted)
}

/// Both say something, and both read it.
fn assert_talk(relay: &Relay, channel: ChannelId, a: &mut Agent, b: &mut Agent) {
    let sent = [a.send(channel, "still here"), b.send(channel, "me too")];
    settle(relay, channel, &mut [a, b]);
    for agent in [&mut *a, &mut *b] {
        let history = agent.history(channel);
        for id in &sent {
            assert_eq!(history.iter().filter(|message| message.frame_id == *id).count(), 1);
        }
    }
    assert_agree(channel, &mut [a, b]);
}

#[test]
fn a_request_to_rejoin_that_its_author_did_not_sign_is_refused_by_all() {
    let relay = Relay::new();
    let (mut a, mut b) = (Agent::new(), Agent::new());
    for case in 0..3 {
        let rogue = Rogue::among(&relay, &mut [&mut a, &mut b]);
        let (author, name) = match case {
            // In the name of a member, with a package that says so; in its own name, with another's package.
            0 => (b.id(), b.id()),
            1 => (rogue.id(), b.id()),
            _ => (b.id(), rogue.id()),
        };
        let package = key_package(&rogue.provider, &rogue.key, name);
        let package = package.tls_serialize_detached().expect("encodes");
        let header = header(rogue.channel, author, rogue.head, Detail::Rejoin);
        let body = request(&rogue.key, rogue.channel, &header, &package);
        relay
            .append(Frame::new(header, body).expect("a frame"))
            .expect("the relay reads no MLS");
        assert_refused(&relay, rogue.channel, &mut a, &mut b, false);
    }
}

/// Shows that the refusals above and below have the stated reasons, and not a bad forgery in the test.
#[test]
fn what_a_member_asks_for_itself_is_taken() {
    let relay = Relay::new();
    let (mut a, mut b) = (Agent::new(), Agent::new());
    let rogue = Rogue::among(&relay, &mut [&mut a, &mut b]);
    let package = key_package(&rogue.provider, &rogue.key, rogue.id());
    let package = package.tls_serialize_detached().expect("encodes");
    let header = header(rogue.channel, rogue.id(), rogue.head, Detail::Rejoin);
    let body = request(&rogue.key, rogue.channel, &header, &package);
    relay
        .append(Frame::new(header, body).expect("a frame"))
        .expect("appended");
    settle(&relay, rogue.channel, &mut [&mut a, &mut b]);
    let who = rogue.id();
    let back = |event: &Event| matches!(event, Event::MemberRejoined { agent, .. } if *agent == who);
    assert!(has(&a.take_events(), back));

    let rogue = Rogue::among(&relay, &mut [&mut a, &mut b]);
    let id = FrameId::generate();
    let body = rogue.external(&rogue.key, id);
    relay
        .append(rogue.frame(rogue.id(), id, commit(&[], &[]), body))
        .expect("appended");
    settle(&relay, rogue.channel, &mut [&mut a, &mut b]);
    for agent in [&mut a, &mut b] {
        assert!(has(&agent.take_events(), back));
    }
}

#[test]
fn a_request_to_rejoin_that_was_answered_cannot_be_shown_again() {
    let relay = Relay::new();
    let (mut a, mut b) = (Agent::new(), Agent::new());
    let channel = channel_of(&relay, &mut [&mut a, &mut b]);
    a.engine().update_keys(channel).expect("queued");
    settle(&relay, channel, &mut [&mut a]);
    relay.trim(channel.log(), relay.head(channel.log()));
    settle(&relay, channel, &mut [&mut b]);
    let entries = relay.entries(channel.log(), relay.status(channel.log()).first.previous());
    let frames = entries
        .into_iter()
        .map(|record| Frame::decode(record.payload).expect("a frame"));
    let asked = frames
        .filter(|frame| frame.header().detail == Detail::Rejoin)
        .last()
        .expect("a request");
    settle(&relay, channel, &mut [&mut a, &mut b]);
    assert_eq!(standing(&mut b, channel), Standing::Current);
    // As it is: the log knows it, and where it has forgotten it, it is on an older head.
    assert!(relay.append(asked.clone()).expect("known").duplicate);
    relay.trim(channel.log(), relay.head(channel.log()));
    let refused = relay.append(asked.clone()).map_err(|error| error.code());
    assert_eq!(refused.err(), Some(Code::StaleHandshake));
    // In another frame, on the head: nobody signed that.
    let head = a.engine().handshake_head(channel).expect("known");
    let header = header(channel, b.id(), head, Detail::Rejoin);
    relay
        .append(Frame::new(header, asked.body().clone()).expect("a frame"))
        .expect("the relay reads no MLS");
    a.take_events();
    b.take_events();
    assert_refused(&relay, channel, &mut a, &mut b, false);
}

#[test]
fn who_is_not_on_the_roster_cannot_ask_to_rejoin() {
    let relay = Relay::new();
    let (mut a, mut b, mut c) = (Agent::new(), Agent::new(), Agent::new());
    let channel = channel_of(&relay, &mut [&mut a, &mut b]);
    a.engine().remove(channel, &[b.id()]).expect("queued");
    settle(&relay, channel, &mut [&mut a, &mut b]);
    let head = a.engine().handshake_head(channel).expect("known");
    for agent in [&mut b, &mut c] {
        let header = header(channel, agent.id(), head, Detail::Rejoin);
        match relay.append(Frame::new(header, Bytes::from_static(b"let me in")).expect("a frame")) {
            Err(AppendError::Refused(refused)) => assert_eq!(refused.code(), Code::NotMember),
            other => panic!("{other:?}"),
        }
    }
}

impl Rogue {
    /// An external commit on the group, by any agent, sealed as members do.
    fn external(&self, by: &Key, id: FrameId) -> Vec<u8> {
        let group = self.group.as_ref().expect("a group");
        let info = group.export_group_info(self.provider.crypto(), &self.key, true);
        let info = info.expect("exported").tls_serialize_detached().expect("encodes");
        let info = MlsMessageIn::tls_deserialize_exact(&info).expect("a message");
        let MlsMessageBodyIn::GroupInfo(info) = info.extract() else {
            panic!("not a GroupInfo");
        };
        let name = by.public();
        let credential = CredentialWithKey {
            credential: BasicCredential::new(name.to_vec()).into(),
            signature_key: SignaturePublicKey::from(name.as_slice()),
        };
        let aside = OpenMlsRustCrypto::default();
        let leaf = LeafNodeParameters::builder()
            .with_capabilities(super::capabilities())
            .build();
        let config = MlsGroupJoinConfig::builder().use_ratchet_tree_extension(true).build();
        let (_, bundle) = MlsGroup::external_commit_builder()
            .with_config(config)
            .skip_lifetime_validation()
            .build_group(&aside, info, credential)
            .expect("a group")
            .leaf_node_parameters(leaf)
            .load_psks(aside.storage())
            .expect("none")
            .build(aside.rand(), aside.crypto(), by, |_| true)
            .expect("built")
            .finalize(&aside)
            .expect("done");
        let (commit, _, _) = bundle.into_contents();
        let commit = commit.to_bytes().expect("encodes");
        let key = group
            .export_secret(self.provider.crypto(), "skytale external commit", id.as_bytes(), 16)
            .expect("exported");
        let nonce = [3; 12];
        let sealed = self
            .provider
            .crypto()
            .aead_encrypt(SUITE.aead_algorithm(), &key, &commit, &nonce, id.as_bytes());
        let body = Bundle {
            external: [nonce.as_slice(), &sealed.expect("sealed")].concat().into(),
            ..Bundle::default()
        };
        body.encode_to_vec()
    }
}

#[test]
fn an_external_commit_that_is_not_a_members_renewal_is_refused_by_all() {
    let relay = Relay::new();
    let (mut a, mut b) = (Agent::new(), Agent::new());
    let accomplice = Key::of([70; 32]);
    let accomplice_id = AgentId::from_bytes(accomplice.public());
    for case in 0..3 {
        let rogue = Rogue::among(&relay, &mut [&mut a, &mut b]);
        let id = FrameId::generate();
        let (body, detail, lied) = match case {
            // Somebody new comes in, beside the roster and on it.
            0 => (rogue.external(&accomplice, id), commit(&[], &[]), false),
            1 => (rogue.external(&accomplice, id), commit(&[accomplice_id], &[]), false),
            // The rogue's own leaf, under a header that removes another member.
            _ => (rogue.external(&rogue.key, id), commit(&[], &[b.id()]), true),
        };
        relay
            .append(rogue.frame(rogue.id(), id, detail, body))
            .expect("the relay reads no MLS");
        if lied {
            // The roster of the relay has b no more; what a reads of it is refused all the same.
            let epoch = a.engine().epoch(rogue.channel).expect("known");
            settle(&relay, rogue.channel, &mut [&mut a]);
            assert!(has(&a.take_events(), |event| matches!(event, Event::HeaderLied { .. })));
            // One commit puts the roster right, and removes the liar.
            assert_eq!(a.engine().epoch(rogue.channel).expect("known"), epoch + 1);
            settle(&relay, rogue.channel, &mut [&mut a, &mut b]);
            assert_talk(&relay, rogue.channel, &mut a, &mut b);
        } else if case == 1 {
            super::assert_contained(&relay, &rogue, &mut a, &mut b, false);
        } else {
            assert_refused(&relay, rogue.channel, &mut a, &mut b, false);
        }
        assert!(
            !a.engine()
                .members(rogue.channel)
                .expect("known")
                .contains(&accomplice_id)
        );
    }
}

#[test]
fn a_renewal_cannot_be_shown_again_nor_under_another_name() {
    let relay = Relay::new();
    let (mut a, mut b) = (Agent::new(), Agent::new());
    let channel = channel_of(&relay, &mut [&mut a, &mut b]);
    let copy = a.vault_files();
    a.put_back(&copy);
    settle(&relay, channel, &mut [&mut a, &mut b]);
    let head = a.engine().handshake_head(channel).expect("known");
    let renewal = Frame::decode(relay.entries(channel.log(), head.previous()).remove(0).payload).expect("a frame");
    for author in [a.id(), b.id()] {
        a.take_events();
        b.take_events();
        let head = a.engine().handshake_head(channel).expect("known");
        let header = header(channel, author, head, commit(&[], &[]));
        relay
            .append(Frame::new(header, renewal.body().clone()).expect("a frame"))
            .expect("the relay reads no MLS");
        assert_refused(&relay, channel, &mut a, &mut b, false);
    }
}

#[test]
fn a_new_beginning_with_a_stranger_or_at_another_place_is_refused_by_all() {
    let relay = Relay::new();
    let (mut a, mut b) = (Agent::new(), Agent::new());
    let stranger = Key::of([71; 32]);
    let stranger_id = AgentId::from_bytes(stranger.public());
    for case in 0..3 {
        let rogue = Rogue::among(&relay, &mut [&mut a, &mut b]);
        let mut packages = vec![package_of(&relay, &mut b, &mut a), package_of(&relay, &mut a, &mut b)];
        if case < 2 {
            packages.push(key_package(&rogue.provider, &stranger, stranger_id));
        }
        let parent = rogue.head.get() + u64::from(case == 2);
        let id = [rogue.channel.as_bytes().as_slice(), &parent.to_be_bytes()].concat();
        let name = rogue.id();
        let credential = CredentialWithKey {
            credential: BasicCredential::new(name.as_bytes().to_vec()).into(),
            signature_key: SignaturePublicKey::from(name.as_bytes().as_slice()),
        };
        let config = MlsGroupCreateConfig::builder()
            .ciphersuite(SUITE)
            .use_ratchet_tree_extension(true)
            .wire_format_policy(PURE_CIPHERTEXT_WIRE_FORMAT_POLICY)
            .capabilities(super::capabilities())
            .lifetime(Lifetime::init(0, u64::MAX))
            .build();
        let id = GroupId::from_slice(&id);
        let mut group =
            MlsGroup::new_with_group_id(&rogue.provider, &rogue.key, &config, id, credential).expect("a group");
        let (_, welcome, _) = group
            .add_members(&rogue.provider, &rogue.key, &packages)
            .expect("added");
        let body = Bundle {
            welcome: welcome.to_bytes().expect("encodes").into(),
            reboot: true,
            ..Bundle::default()
        };
        let members = vec![a.id(), b.id()];
        let mut adds = members.clone();
        if case == 1 {
            adds.push(stranger_id);
        }
        let detail = Detail::Commit {
            adds,
            removes: members.clone(),
            recipients: members,
            roster: None,
            policy: None,
        };
        relay
            .append(rogue.frame(rogue.id(), FrameId::generate(), detail, body.encode_to_vec()))
            .expect("the relay reads no MLS");
        match case {
            1 => super::assert_contained(&relay, &rogue, &mut a, &mut b, false),
            _ => assert_refused(&relay, rogue.channel, &mut a, &mut b, false),
        }
        for agent in [&mut a, &mut b] {
            assert_eq!(standing(agent, rogue.channel), Standing::Current);
            assert!(
                !agent
                    .engine()
                    .members(rogue.channel)
                    .expect("known")
                    .contains(&stranger_id)
            );
        }
    }
}

#[test]
fn a_member_that_is_added_again_into_another_group_asks_once_more() {
    let relay = Relay::new();
    let (mut a, mut b) = (Agent::new(), Agent::new());
    let mut rogue = Rogue::among(&relay, &mut [&mut a, &mut b]);
    let members = rogue.group.as_ref().expect("a group").members();
    let of_b = |member: &Member| member.signature_key == b.id().as_bytes();
    let leaf = members.into_iter().find(of_b).expect("b").index;
    let again = package_of(&relay, &mut a, &mut b);
    let body = rogue.commit(vec![again], vec![leaf]);
    let mut bundle = Bundle::decode(body.as_slice()).expect("a bundle");
    // The Welcome leads elsewhere.
    let elsewhere = package_of(&relay, &mut a, &mut b);
    let name = rogue.id();
    let credential = CredentialWithKey {
        credential: BasicCredential::new(name.as_bytes().to_vec()).into(),
        signature_key: SignaturePublicKey::from(name.as_bytes().as_slice()),
    };
    let config = MlsGroupCreateConfig::builder()
        .ciphersuite(SUITE)
        .use_ratchet_tree_extension(true)
        .capabilities(super::capabilities())
        .build();
    let mut group = MlsGroup::new(&rogue.provider, &rogue.key, &config, credential).expect("a group");
    let (_, welcome, _) = group
        .add_members(&rogue.provider, &rogue.key, &[elsewhere])
        .expect("added");
    bundle.welcome = welcome.to_bytes().expect("encodes").into();
    let detail = commit(&[b.id()], &[b.id()]);
    relay
        .append(rogue.frame(rogue.id(), FrameId::generate(), detail, bundle.encode_to_vec()))
        .expect("the relay reads no MLS");
    settle(&relay, rogue.channel, &mut [&mut a, &mut b]);
    let events = b.take_events();
    assert!(
        has(&events, |event| matches!(event, Event::OutOfSync { .. })),
        "{events:?}"
    );
    assert!(
        has(&events, |event| matches!(event, Event::Rejoined { .. })),
        "{events:?}"
    );
    assert_eq!(standing(&mut b, rogue.channel), Standing::Current);
    assert_talk(&relay, rogue.channel, &mut a, &mut b);
}

#[test]
fn a_relay_that_says_that_only_trims_are_gone_is_found_out() {
    let relay = Relay::new();
    let (mut a, mut b) = (Agent::new(), Agent::new());
    let channel = channel_of(&relay, &mut [&mut a, &mut b]);
    // So that b knows the digest.
    a.send(channel, "early");
    settle(&relay, channel, &mut [&mut a, &mut b]);
    let cursor = b.engine().cursor(channel).expect("known");
    a.send(channel, "hidden");
    settle(&relay, channel, &mut [&mut a]);
    relay.trim(channel.log(), relay.head(channel.log()));
    let lie = LogStatus {
        given_up: cursor,
        ..relay.status(channel.log())
    };
    b.engine().trimmed(channel, &lie).expect("taken");
    b.take_events();
    a.send(channel, "the next one");
    settle(&relay, channel, &mut [&mut a, &mut b]);
    let events = b.take_events();
    assert!(
        has(&events, |event| matches!(event, Event::Divergence { .. })),
        "{events:?}"
    );
}

#[test]
fn an_own_message_that_is_shown_again_costs_new_keys_and_no_message() {
    let relay = Relay::new();
    let (mut a, mut b) = (Agent::new(), Agent::new());
    let channel = channel_of(&relay, &mut [&mut a, &mut b]);
    a.send(channel, "once");
    settle(&relay, channel, &mut [&mut a, &mut b]);
    let head = relay.head(channel.log());
    let sent = Frame::decode(relay.entries(channel.log(), head.previous()).remove(0).payload).expect("a frame");
    let header = header(channel, a.id(), sent.header().parent, Detail::Message);
    relay
        .append(Frame::new(header, sent.body().clone()).expect("a frame"))
        .expect("the relay reads no MLS");
    settle(&relay, channel, &mut [&mut a, &mut b]);
    let events = a.take_events();
    assert!(
        has(&events, |event| matches!(event, Event::Renewed { .. })),
        "{events:?}"
    );
    assert_eq!(b.texts(channel), ["once"]);
    assert_eq!(a.texts(channel), ["once"]);
    assert_talk(&relay, channel, &mut a, &mut b);
}

#[test]
fn a_relay_cannot_lead_a_member_that_asks_into_a_group_of_its_own() {
    let relay = Relay::new();
    let (mut a, mut b) = (Agent::new(), Agent::new());
    let channel = channel_of(&relay, &mut [&mut a, &mut b]);
    a.engine().update_keys(channel).expect("queued");
    settle(&relay, channel, &mut [&mut a]);
    relay.trim(channel.log(), relay.head(channel.log()));
    b.send(channel, "for members alone");
    settle(&relay, channel, &mut [&mut b]);
    assert_eq!(standing(&mut b, channel), Standing::OutOfSync);
    let cursor = b.engine().cursor(channel).expect("known");
    let requests = relay.entries(channel.log(), cursor.previous());
    let request = Frame::decode(requests[0].payload.clone()).expect("a frame");
    assert_eq!(request.header().detail, Detail::Rejoin);
    let asked = RejoinRequest::decode(request.body().clone()).expect("a request");
    let package = KeyPackageIn::tls_deserialize_exact(&asked.key_package)
        .expect("a key package")
        .validate(OpenMlsRustCrypto::default().crypto(), ProtocolVersion::Mls10)
        .expect("valid");

    // A group with the channel's id, made by nobody who was ever in it.
    let provider = OpenMlsRustCrypto::default();
    let key = Key::of([0x66; 32]);
    let stranger = AgentId::from_bytes(key.public());
    let credential = CredentialWithKey {
        credential: BasicCredential::new(stranger.as_bytes().to_vec()).into(),
        signature_key: SignaturePublicKey::from(stranger.as_bytes().as_slice()),
    };
    let config = MlsGroupCreateConfig::builder()
        .ciphersuite(SUITE)
        .use_ratchet_tree_extension(true)
        .capabilities(super::capabilities())
        .lifetime(Lifetime::init(0, u64::MAX))
        .build();
    let id = GroupId::from_slice(channel.as_bytes());
    let mut group = MlsGroup::new_with_group_id(&provider, &key, &config, id, credential).expect("a group");
    let (made, welcome, _) = group.add_members(&provider, &key, &[package]).expect("added");
    let bundle = Bundle {
        commit: made.to_bytes().expect("encodes").into(),
        welcome: welcome.to_bytes().expect("encodes").into(),
        ..Bundle::default()
    };
    let parent = b.engine().handshake_head(channel).expect("known");
    let header = header(channel, stranger, parent, commit(&[b.id()], &[b.id()]));
    let frame = Frame::new(header, bundle.encode_to_vec()).expect("a frame");
    let mut shown = requests[0].clone();
    shown.offset = cursor.next();
    shown.payload = frame.encoded().clone();
    let processed = b.engine().process_entries(channel, &[shown]).expect("processed");
    assert!(
        !has(&processed.events, |event| matches!(event, Event::Rejoined { .. })),
        "{:?}",
        processed.events
    );
    assert_eq!(standing(&mut b, channel), Standing::OutOfSync);
    let next = b.next_frames(channel, 1 << 20).expect("built").frames;
    let offered = next.iter().map(|frame| frame.frame.header().kind().name());
    assert_eq!(
        offered.collect::<Vec<_>>(),
        ["rejoin"],
        "what it sends is held, and it asks again"
    );
}

#[test]
fn a_relay_that_denies_a_membership_once_costs_the_way_back_and_no_message() {
    let relay = Relay::new();
    let (mut a, mut b) = (Agent::new(), Agent::new());
    let channel = channel_of(&relay, &mut [&mut a, &mut b]);
    a.send(channel, "gone");
    settle(&relay, channel, &mut [&mut a]);
    relay.trim(channel.log(), relay.head(channel.log()));
    b.send(channel, "held");
    b.pull(&relay, channel, usize::MAX);
    assert_eq!(standing(&mut b, channel), Standing::Renewing);
    // Its new keys are offered, and the relay says that it is no member.
    let frames = b.next_frames(channel, 1 << 20).expect("built").frames;
    let denied = Outcome::Refused {
        code: Code::NotMember,
        retryable: false,
    };
    let events = (b.engine().outcome(channel, frames[0].frame.header().id, denied)).expect("taken");
    assert!(
        has(&events, |event| matches!(event, Event::OutOfSync { .. })),
        "{events:?}"
    );
    assert_eq!(b.engine().channel(channel).expect("known").state, ChannelState::Active);
    settle(&relay, channel, &mut [&mut a, &mut b]);
    assert_eq!(standing(&mut b, channel), Standing::Current);
    assert_eq!(a.texts(channel), ["gone", "held"]);
    assert_eq!(b.engine().failed(channel).expect("listed").len(), 0);
}
