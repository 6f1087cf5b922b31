//! A member that breaks the rules, and a relay that forges entries of others.

mod returns;
mod roster;
mod signatures;

use super::relay::{Agent, Relay, assert_agree, channel_of, settle};
use bytes::Bytes;
use ed25519_dalek::{Signer as _, SigningKey};
use openmls::prelude::tls_codec::{Deserialize as _, Serialize as _};
use openmls::prelude::*;
use openmls_rust_crypto::OpenMlsRustCrypto;
use openmls_traits::signatures::{Signer, SignerError};
use openmls_traits::types::SignatureScheme;
use prost::Message as _;
use skytale_proto::wire::{Bundle, Envelope};
use skytale_proto::{AgentId, ChannelId, Code, Detail, Digest, Frame, FrameId, Header, Offset, Policy};
use skytale_sdk::internals::engine::ClaimedPackage;
use skytale_sdk::{Event, UnreadableCause};

/// An identity key.
struct Key(SigningKey);

impl Key {
    fn of(secret: [u8; 32]) -> Self {
        Self(SigningKey::from_bytes(&secret))
    }

    fn public(&self) -> [u8; 32] {
        self.0.verifying_key().to_bytes()
    }

    fn signature(&self, payload: &[u8]) -> [u8; 64] {
        self.0.sign(payload).to_bytes()
    }
}

impl Signer for Key {
    fn sign(&self, payload: &[u8]) -> Result<Vec<u8>, SignerError> {
        Ok(self.signature(payload).to_vec())
    }

    fn signature_scheme(&self) -> SignatureScheme {
        SignatureScheme::ED25519
    }
}

/// A member with OpenMLS in its own hands.
struct Rogue {
    provider: OpenMlsRustCrypto,
    key: Key,
    group: Option<MlsGroup>,
    channel: ChannelId,
    head: Offset,
}

fn capabilities() -> Capabilities {
    Capabilities::new(
        Some(&[ProtocolVersion::Mls10]),
        Some(&[Ciphersuite::MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519]),
        Some(&[ExtensionType::LastResort, ExtensionType::Unknown(0xF5C2)]),
        None,
        Some(&[CredentialType::Basic]),
    )
}

/// Creates a KeyPackage that names `name` and is signed with `key`.
fn key_package(provider: &OpenMlsRustCrypto, key: &Key, name: AgentId) -> KeyPackage {
    let credential = CredentialWithKey {
        credential: BasicCredential::new(name.as_bytes().to_vec()).into(),
        signature_key: SignaturePublicKey::from(key.public().as_slice()),
    };
    let suite = Ciphersuite::MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519;
    KeyPackage::builder()
        .key_package_lifetime(Lifetime::init(0, u64::MAX))
        .leaf_node_capabilities(capabilities())
        .build(suite, provider, key, credential)
        .expect("built")
        .into_key_package()
}

fn package_frame(owner: AgentId, package: &KeyPackage) -> Bytes {
    let header = Header {
        log: owner.log(),
        id: FrameId::generate(),
        author: owner,
        parent: Offset::ZERO,
        detail: Detail::KeyPackage {
            last_resort: false,
            account: None,
        },
    };
    let body = package.tls_serialize_detached().expect("encodes");
    Frame::new(header, body).expect("a frame").encoded().clone()
}

impl Rogue {
    /// A rogue in a channel with `agents`, added by the first of them.
    fn among(relay: &Relay, agents: &mut [&mut Agent]) -> Self {
        let channel = channel_of(relay, agents);
        Self::within(relay, channel, agents)
    }

    /// A rogue in a channel that there is.
    fn within(relay: &Relay, channel: ChannelId, agents: &mut [&mut Agent]) -> Self {
        let mut rogue = Self {
            provider: OpenMlsRustCrypto::default(),
            key: Key::of([66; 32]),
            group: None,
            channel,
            head: Offset::ZERO,
        };
        let package = key_package(&rogue.provider, &rogue.key, rogue.id());
        let claimed = ClaimedPackage {
            agent: rogue.id(),
            frame: package_frame(rogue.id(), &package),
        };
        agents[0].engine().add(channel, vec![claimed]).expect("queued");
        settle(relay, channel, agents);
        let entries = relay.entries(channel.log(), Offset::ZERO);
        let commits = entries.iter().filter_map(|record| {
            let frame = Frame::decode(record.payload.clone()).expect("a frame");
            matches!(frame.header().detail, Detail::Commit { .. }).then_some((record, frame))
        });
        let (bundle, frame) = commits.last().expect("the bundle");
        let body = Bundle::decode(frame.body().clone()).expect("a bundle");
        let message = MlsMessageIn::tls_deserialize_exact(&body.welcome).expect("a message");
        let MlsMessageBodyIn::Welcome(welcome) = message.extract() else {
            panic!("not a Welcome");
        };
        let config = MlsGroupJoinConfig::builder()
            .wire_format_policy(PURE_CIPHERTEXT_WIRE_FORMAT_POLICY)
            .use_ratchet_tree_extension(true)
            .build();
        let staged = StagedWelcome::new_from_welcome(&rogue.provider, &config, welcome, None).expect("a welcome");
        rogue.group = Some(staged.into_group(&rogue.provider).expect("a group"));
        rogue.head = bundle.offset;
        for agent in agents.iter_mut() {
            agent.take_events();
        }
        rogue
    }

    fn id(&self) -> AgentId {
        AgentId::from_bytes(self.key.public())
    }

    fn frame(&self, author: AgentId, id: FrameId, detail: Detail, body: Vec<u8>) -> Frame {
        let header = Header {
            log: self.channel.log(),
            id,
            author,
            parent: self.head,
            detail,
        };
        Frame::new(header, body).expect("a frame")
    }

    /// An encrypted message.
    fn message(&mut self, envelope: &Envelope) -> Vec<u8> {
        let group = self.group.as_mut().expect("a group");
        let message = group.create_message(&self.provider, &self.key, &envelope.encode_to_vec());
        message.expect("encrypted").to_bytes().expect("encodes")
    }

    /// The leaf of a member.
    fn leaf_of(&self, agent: AgentId) -> LeafNodeIndex {
        let members = self.group.as_ref().expect("a group").members();
        let is_its = |member: &Member| member.signature_key == agent.as_bytes();
        members.into_iter().find(is_its).expect("a member").index
    }

    /// A commit that is not merged: the body of a bundle.
    fn commit(&mut self, packages: Vec<KeyPackage>, removed: Vec<LeafNodeIndex>) -> Vec<u8> {
        self.commit_with(packages, removed, None)
    }

    /// As [`Rogue::commit`], with other extensions of the group's context.
    fn commit_with(
        &mut self,
        packages: Vec<KeyPackage>,
        removed: Vec<LeafNodeIndex>,
        policy: Option<&Policy>,
    ) -> Vec<u8> {
        let group = self.group.as_mut().expect("a group");
        let mut builder = group.commit_builder().propose_adds(packages).propose_removals(removed);
        if let Some(policy) = policy {
            let kind = ExtensionType::Unknown(0xF5C2);
            let bytes = [&[1], policy.to_bytes().as_slice()].concat();
            let extensions = Extensions::from_vec(vec![
                Extension::RequiredCapabilities(RequiredCapabilitiesExtension::new(&[kind], &[], &[])),
                Extension::Unknown(0xF5C2, UnknownExtension(bytes)),
            ]);
            builder = builder
                .propose_group_context_extensions(extensions.expect("extensions"))
                .expect("proposed");
        }
        let bundle = builder
            .force_self_update(true)
            .load_psks(self.provider.storage())
            .expect("loaded")
            .build(self.provider.rand(), self.provider.crypto(), &self.key, |_| true)
            .expect("built")
            .stage_commit(&self.provider)
            .expect("staged");
        let welcome = bundle
            .to_welcome_msg()
            .map(|welcome| welcome.to_bytes().expect("encodes"));
        let (commit, _, _) = bundle.into_contents();
        let body = Bundle {
            commit: commit.to_bytes().expect("encodes").into(),
            welcome: welcome.unwrap_or_default().into(),
            ..Bundle::default()
        };
        group.clear_pending_commit(self.provider.storage()).expect("cleared");
        body.encode_to_vec()
    }
}

fn commit(adds: &[AgentId], removes: &[AgentId]) -> Detail {
    Detail::Commit {
        adds: adds.to_vec(),
        removes: removes.to_vec(),
        recipients: adds.to_vec(),
        roster: None,
        policy: None,
    }
}

fn envelope(frame_id: FrameId) -> Envelope {
    Envelope {
        frame_id: Bytes::copy_from_slice(frame_id.as_bytes()),
        payload: Bytes::from_static(b"from the rogue"),
        ..Envelope::default()
    }
}

/// Both agents judge the last entry alike, and go on talking.
fn assert_refused(relay: &Relay, channel: ChannelId, a: &mut Agent, b: &mut Agent, header_lied: bool) {
    let epoch = a.engine().epoch(channel).expect("known");
    settle(relay, channel, &mut [a, b]);
    for agent in [&mut *a, &mut *b] {
        let events = agent.take_events();
        let unreadable = events
            .iter()
            .filter(|event| matches!(event, Event::EntryUnreadable { .. }));
        assert_eq!(unreadable.count(), 1, "{events:?}");
        let lied = events.iter().any(|event| matches!(event, Event::HeaderLied { .. }));
        assert_eq!(lied, header_lied, "{events:?}");
        assert_cause(agent, channel, &events, header_lied);
        assert_eq!(agent.engine().epoch(channel).expect("known"), epoch);
    }
    let texts = a.texts(channel).len();
    a.send(channel, "still here");
    b.engine().update_keys(channel).expect("queued");
    b.send(channel, "me too");
    settle(relay, channel, &mut [a, b]);
    assert_eq!(b.texts(channel).len(), texts + 2);
    assert_eq!(a.transcript(channel), b.transcript(channel));
    assert_agree(channel, &mut [a, b]);
}

/// The cause in the event is the one that is kept.
fn assert_cause(agent: &mut Agent, channel: ChannelId, events: &[Event], header_lied: bool) {
    let told = events.iter().find_map(|event| match event {
        Event::EntryUnreadable { offset, cause, .. } => Some((*offset, *cause)),
        _ => None,
    });
    let (offset, cause) = told.expect("told");
    agent.crash();
    let kept = agent
        .engine()
        .unreadable(Some(channel), offset.previous(), 1)
        .expect("listed");
    assert_eq!((kept[0].offset, kept[0].cause), (offset, cause));
    assert_eq!(cause == UnreadableCause::HeaderLied, header_lied, "{cause}: {kept:?}");
}

/// Both agents judge the last entry alike, as one that changes nothing in the group; the roster is the group again, without its
/// author, and they go on talking.
fn assert_contained(relay: &Relay, rogue: &Rogue, a: &mut Agent, b: &mut Agent, header_lied: bool) {
    let channel = rogue.channel;
    settle(relay, channel, &mut [a, b]);
    for agent in [&mut *a, &mut *b] {
        let events = agent.take_events();
        let unreadable = events
            .iter()
            .filter(|event| matches!(event, Event::EntryUnreadable { .. }));
        assert_eq!(unreadable.count(), 1, "{events:?}");
        let lied = events.iter().any(|event| matches!(event, Event::HeaderLied { .. }));
        assert_eq!(lied, header_lied, "{events:?}");
    }
    let mut members = vec![a.id(), b.id()];
    members.sort_unstable();
    assert_eq!(a.engine().members(channel).expect("known"), members);
    assert_eq!(relay.folded(channel).roster().collect::<Vec<_>>(), members);
    a.send(channel, "still here");
    b.engine().update_keys(channel).expect("queued");
    b.send(channel, "me too");
    settle(relay, channel, &mut [a, b]);
    assert_eq!(a.transcript(channel), b.transcript(channel));
    assert_eq!(a.texts(channel).len(), 2);
    assert_agree(channel, &mut [a, b]);
}

#[test]
fn garbage_from_a_member_is_recorded_and_passed_over() {
    let relay = Relay::new();
    let (mut a, mut b) = (Agent::new(), Agent::new());
    for detail in [Detail::Message, Detail::Proposal, commit(&[], &[])] {
        let rogue = Rogue::among(&relay, &mut [&mut a, &mut b]);
        let id = FrameId::generate();
        let frame = rogue.frame(rogue.id(), id, detail, b"garbage".to_vec());
        let offset = relay.append(frame).expect("the relay reads no MLS").offset;
        assert_refused(&relay, rogue.channel, &mut a, &mut b, false);
        b.crash();
        let recorded = b
            .engine()
            .unreadable(Some(rogue.channel), Offset::ZERO, 10)
            .expect("listed");
        assert_eq!(recorded.len(), 1);
        assert_eq!((recorded[0].offset, recorded[0].frame_id), (offset, Some(id)));
        // A purge up to it leaves it, one past it takes it with the messages.
        for (before, left) in [(offset, 1), (Offset::MAX, 0)] {
            b.engine().ack(rogue.channel, Offset::MAX).expect("acked");
            let _ = b.engine().purge(rogue.channel, before, u32::MAX).expect("purged");
            b.crash();
            let listed = b.engine().unreadable(Some(rogue.channel), Offset::ZERO, 10);
            assert_eq!(listed.expect("listed").len(), left);
        }
    }
}

#[test]
fn a_commit_that_adds_a_forged_leaf_is_refused_by_all() {
    let relay = Relay::new();
    let (mut a, mut b, mut victim) = (Agent::new(), Agent::new(), Agent::new());
    let mut rogue = Rogue::among(&relay, &mut [&mut a, &mut b]);
    victim.stock_up(&relay);
    let forger = Key::of([67; 32]);
    let forged = key_package(&rogue.provider, &forger, victim.id());
    // A member that is asked to add it refuses before anything is sent.
    let claimed = ClaimedPackage {
        agent: victim.id(),
        frame: package_frame(victim.id(), &forged),
    };
    let refused = a
        .engine()
        .add(rogue.channel, vec![claimed])
        .map_err(|error| error.code());
    assert_eq!(refused, Err(Code::KeyPackageForeign));
    let body = rogue.commit(vec![forged], vec![]);
    let frame = rogue.frame(rogue.id(), FrameId::generate(), commit(&[victim.id()], &[]), body);
    relay.append(frame).expect("the relay reads no MLS");
    assert_contained(&relay, &rogue, &mut a, &mut b, false);
    assert!(!a.engine().members(rogue.channel).expect("known").contains(&victim.id()));
}

#[test]
fn a_header_that_hides_an_addition_or_a_removal_is_refused_by_all() {
    let relay = Relay::new();
    let (mut a, mut b, mut c) = (Agent::new(), Agent::new(), Agent::new());
    c.stock_up(&relay);
    let accomplice = Key::of([68; 32]);
    let accomplice_id = AgentId::from_bytes(accomplice.public());
    for case in 0..3 {
        let mut rogue = Rogue::among(&relay, &mut [&mut a, &mut b]);
        let (body, detail) = match case {
            0 => {
                let package = key_package(&rogue.provider, &accomplice, accomplice_id);
                (rogue.commit(vec![package], vec![]), commit(&[], &[]))
            }
            1 => {
                let members = rogue.group.as_ref().expect("a group").members();
                let of_b = |member: &Member| member.signature_key == b.id().as_bytes();
                let leaf = members.into_iter().find(of_b).expect("b").index;
                (rogue.commit(vec![], vec![leaf]), commit(&[], &[]))
            }
            _ => {
                let claim = Header {
                    log: c.id().log(),
                    id: FrameId::generate(),
                    author: rogue.id(),
                    parent: Offset::ZERO,
                    detail: Detail::KeyPackageClaim { account: None },
                };
                relay
                    .append(Frame::new(claim, Bytes::new()).expect("a frame"))
                    .expect("claimed");
                (rogue.commit(vec![], vec![]), commit(&[c.id()], &[]))
            }
        };
        relay
            .append(rogue.frame(rogue.id(), FrameId::generate(), detail, body))
            .expect("the relay reads no MLS");
        assert_contained(&relay, &rogue, &mut a, &mut b, true);
    }
    // The Welcome that the last of them promised is none; the agent learns and goes on.
    c.read_own_log(&relay);
    assert!(c.take_events().iter().any(|event| matches!(
        event,
        Event::EntryUnreadable {
            channel: None,
            cause: UnreadableCause::Welcome,
            ..
        }
    )));
    assert_eq!(c.engine().pending_joins().expect("listed"), []);
}

#[test]
fn a_message_under_another_frame_id_or_author_is_refused_by_all() {
    let relay = Relay::new();
    let (mut a, mut b) = (Agent::new(), Agent::new());
    let mut rogue = Rogue::among(&relay, &mut [&mut a, &mut b]);
    let body = rogue.message(&envelope(FrameId::generate()));
    let frame = rogue.frame(rogue.id(), FrameId::generate(), Detail::Message, body);
    relay.append(frame).expect("the relay reads no MLS");
    assert_refused(&relay, rogue.channel, &mut a, &mut b, true);

    let mut rogue = Rogue::among(&relay, &mut [&mut a, &mut b]);
    let id = FrameId::generate();
    let body = rogue.message(&envelope(id));
    // Under the name of `b`: to `b` it is something that it never sent, to `a` a header that lies.
    relay
        .append(rogue.frame(b.id(), id, Detail::Message, body))
        .expect("the relay reads no MLS");
    settle(&relay, rogue.channel, &mut [&mut a, &mut b]);
    for agent in [&mut a, &mut b] {
        assert!(
            agent
                .take_events()
                .iter()
                .any(|event| matches!(event, Event::EntryUnreadable { .. }))
        );
        assert!(agent.texts(rogue.channel).is_empty());
    }
    assert_agree(rogue.channel, &mut [&mut a, &mut b]);
}

#[test]
fn a_digest_that_is_not_so_is_told() {
    let relay = Relay::new();
    let (mut a, mut b) = (Agent::new(), Agent::new());
    let mut rogue = Rogue::among(&relay, &mut [&mut a, &mut b]);
    for _ in 0..2 {
        let id = FrameId::generate();
        let lie = Envelope {
            offset: rogue.head.get(),
            digest: Bytes::from(vec![1; 32]),
            ..envelope(id)
        };
        let body = rogue.message(&lie);
        relay
            .append(rogue.frame(rogue.id(), id, Detail::Message, body))
            .expect("accepted");
    }
    settle(&relay, rogue.channel, &mut [&mut a, &mut b]);
    let divergence = Event::Divergence {
        channel: rogue.channel,
        offset: rogue.head,
        author: rogue.id(),
        ours: None,
        theirs: Some(Digest::from_bytes([1; 32])),
    };
    for agent in [&mut a, &mut b] {
        let events = agent.take_events();
        let told: Vec<_> = events
            .iter()
            .filter(|event| matches!(event, Event::Divergence { .. }))
            .collect();
        // The first is the evidence; it is not told again for each message after it.
        assert_eq!(told.len(), 1, "{events:?}");
        match (told[0], &divergence) {
            (
                Event::Divergence {
                    offset,
                    author,
                    ours: Some(_),
                    theirs,
                    ..
                },
                Event::Divergence {
                    offset: at,
                    author: by,
                    theirs: said,
                    ..
                },
            ) => {
                assert_eq!((offset, author, theirs), (at, by, said));
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(agent.texts(rogue.channel).len(), 2);
    }
}

#[test]
fn an_entry_in_this_agents_name_that_it_did_not_send_is_told() {
    let relay = Relay::new();
    let (mut a, mut b) = (Agent::new(), Agent::new());
    let rogue = Rogue::among(&relay, &mut [&mut a, &mut b]);
    // Under the very frame id of a message that waits in the outbox.
    let id = a.send(rogue.channel, "the true one");
    relay
        .append(rogue.frame(a.id(), id, Detail::Message, b"forged".to_vec()))
        .expect("the relay reads no MLS");
    settle(&relay, rogue.channel, &mut [&mut a, &mut b]);
    let events = a.take_events();
    assert!(events.iter().any(|event| matches!(event, Event::HeaderLied { .. })));
    assert!(
        events
            .iter()
            .any(|event| matches!(event, Event::SendFailed { frame_id, .. } if *frame_id == id))
    );
    assert!(b.texts(rogue.channel).is_empty());
    assert_eq!(a.engine().failed(rogue.channel).expect("listed").len(), 1);
    a.send(rogue.channel, "and on");
    settle(&relay, rogue.channel, &mut [&mut a, &mut b]);
    assert_eq!(b.texts(rogue.channel), ["and on"]);
    assert_agree(rogue.channel, &mut [&mut a, &mut b]);
}

#[test]
fn a_key_package_of_an_older_version_is_judged_by_the_time_in_its_frames_id() {
    let mut a = Agent::new();
    let channel = a.engine().create_channel("test").expect("made");
    let key = Key::of([5; 32]);
    let owner = AgentId::from_bytes(key.public());
    let package = key_package(&OpenMlsRustCrypto::default(), &key, owner);
    let body = package.tls_serialize_detached().expect("encoded");
    let mut offered = |id: FrameId| {
        let header = Header {
            log: owner.log(),
            id,
            author: owner,
            parent: Offset::ZERO,
            detail: Detail::KeyPackage {
                last_resort: false,
                account: None,
            },
        };
        let frame = Frame::new(header, body.clone()).expect("a frame");
        let claimed = ClaimedPackage {
            agent: owner,
            frame: frame.encoded().clone(),
        };
        a.engine()
            .add(channel, vec![claimed])
            .map(drop)
            .map_err(|error| error.code())
    };
    let now = FrameId::generate();
    // The first 48 bits are milliseconds: 2^33 of them are 99 days.
    let mut bytes = *now.as_bytes();
    let then = u64::from_be_bytes([0, 0, bytes[0], bytes[1], bytes[2], bytes[3], bytes[4], bytes[5]]) - (1 << 33);
    bytes[..6].copy_from_slice(&then.to_be_bytes()[2..]);
    assert_eq!(offered(FrameId::from_bytes(bytes)), Err(Code::KeyPackageExpired));
    assert_eq!(offered(now), Ok(()));
}
