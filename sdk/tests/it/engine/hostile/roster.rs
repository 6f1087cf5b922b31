//! Headers that make the log's roster differ from the group, and members that exceed their rights.

use super::super::relay::{Agent, Relay, assert_agree, changed, governed_channel_of, settle};
use super::{Rogue, assert_contained, commit};
use ed25519_dalek::SigningKey;
use prost::Message as _;
use skytale_log_store::AppendError;
use skytale_proto::wire::Bundle;
use skytale_proto::{AgentId, ChannelId, Code, Detail, Frame, FrameId, Header, Offset, Policy};
use skytale_sdk::{Event, PolicyChange, Standing};

fn ghost() -> AgentId {
    AgentId::from_bytes(SigningKey::from_bytes(&[99; 32]).verifying_key().to_bytes())
}

/// A frame on the log's head, with a body that nobody can read.
fn junk(relay: &Relay, channel: ChannelId, author: AgentId, detail: Detail) -> Result<Offset, Code> {
    let header = Header {
        log: channel.log(),
        id: FrameId::generate(),
        author,
        parent: relay.folded(channel).handshake_head(),
        detail,
    };
    let appended = relay.append(Frame::new(header, &b"junk"[..]).expect("a frame"));
    appended.map(|accepted| accepted.offset).map_err(|error| match error {
        AppendError::Refused(refused) => refused.code(),
        error => panic!("{error}"),
    })
}

fn told(roster: &[AgentId], policy: Option<Policy>) -> Detail {
    let mut roster = roster.to_vec();
    roster.sort_unstable();
    Detail::Commit {
        adds: Vec::new(),
        removes: Vec::new(),
        recipients: Vec::new(),
        roster: Some(roster),
        policy,
    }
}

fn sorted(agents: &[&Agent]) -> Vec<AgentId> {
    let mut ids: Vec<AgentId> = agents.iter().map(|agent| agent.id()).collect();
    ids.sort_unstable();
    ids
}

fn roster(relay: &Relay, channel: ChannelId) -> Vec<AgentId> {
    relay.folded(channel).roster().collect()
}

fn unlisted(adds: &[AgentId]) -> Detail {
    Detail::Commit {
        adds: adds.to_vec(),
        removes: Vec::new(),
        recipients: Vec::new(),
        roster: None,
        policy: None,
    }
}

/// The rogue's header adds the ghost; its content adds nobody.
fn raise_ghost(relay: &Relay, rogue: &mut Rogue) {
    let body = rogue.commit(vec![], vec![]);
    let frame = rogue.frame(rogue.id(), FrameId::generate(), unlisted(&[ghost()]), body);
    relay.append(frame).expect("the relay reads no MLS");
}

#[test]
fn a_ghost_is_struck_with_the_liar_and_what_it_did_is_void() {
    let relay = Relay::new();
    let (mut a, mut b) = (Agent::new(), Agent::new());
    let channel = governed_channel_of(&relay, &mut [&mut a, &mut b]);
    let mut rogue = Rogue::within(&relay, channel, &mut [&mut a, &mut b]);
    let epoch = a.engine().epoch(channel).expect("known");
    raise_ghost(&relay, &mut rogue);
    // The ghost fills the log, moves the handshake head, says that it leaves, and tries to be rid of everybody.
    for _ in 0..20 {
        junk(&relay, channel, ghost(), Detail::Message).expect("on the roster");
    }
    junk(&relay, channel, ghost(), Detail::Proposal).expect("on the roster");
    junk(&relay, channel, ghost(), commit(&[], &[])).expect("on the roster");
    for gone in [a.id(), b.id()] {
        let removal = commit(&[], &[gone]);
        assert_eq!(junk(&relay, channel, ghost(), removal), Err(Code::PolicyForbids));
    }
    let alone = told(&[ghost()], None);
    assert_eq!(junk(&relay, channel, ghost(), alone), Err(Code::PolicyForbids));
    // It strikes Bob, who is no admin, and says so as a correction.
    junk(&relay, channel, ghost(), told(&[a.id(), rogue.id(), ghost()], None)).expect("anybody corrects");
    junk(&relay, channel, ghost(), Detail::Message).expect("on the roster");
    b.send(channel, "while struck");
    settle(&relay, channel, &mut [&mut a, &mut b]);

    let members = sorted(&[&a, &b]);
    assert_eq!(roster(&relay, channel), members);
    for agent in [&mut a, &mut b] {
        assert_eq!(agent.engine().members(channel).expect("known"), members);
        // One commit has put it right.
        assert_eq!(agent.engine().epoch(channel).expect("known"), epoch + 1);
        assert_eq!(
            agent.engine().channel(channel).expect("known").standing,
            Standing::Current
        );
        assert_eq!(agent.engine().failed(channel).expect("listed"), []);
        let events = agent.take_events();
        let count = |wanted: fn(&Event) -> bool| events.iter().filter(|event| wanted(event)).count();
        assert_eq!(
            count(|event| matches!(event, Event::HeaderLied { .. })),
            1,
            "{events:?}"
        );
        assert_eq!(
            count(|event| matches!(event, Event::RosterCorrected { .. })),
            1,
            "{events:?}"
        );
        assert_eq!(
            count(|event| matches!(event, Event::MemberRemoved { .. })),
            1,
            "{events:?}"
        );
        assert_eq!(count(|event| matches!(event, Event::OutOfSync { .. })), 0, "{events:?}");
    }
    for gone in [ghost(), rogue.id()] {
        assert_eq!(junk(&relay, channel, gone, Detail::Message), Err(Code::NotMember));
        assert!(
            relay
                .readable(channel.log(), gone, relay.head(channel.log()).previous())
                .is_empty()
        );
    }
    assert_eq!(a.texts(channel), ["while struck"]);
    a.send(channel, "and on");
    settle(&relay, channel, &mut [&mut a, &mut b]);
    assert_eq!(b.texts(channel), ["while struck", "and on"]);
    assert_agree(channel, &mut [&mut a, &mut b]);
}

/// An encrypted commit (RFC 9420 section 6.3) that nobody made, whose data in clear says that the log has another digest.
fn with_another_digest(channel: ChannelId, epoch: u64, offset: Offset) -> Vec<u8> {
    let mut bytes = vec![0, 1, 0, 2];
    bytes.push(16);
    bytes.extend_from_slice(channel.as_bytes());
    bytes.extend_from_slice(&epoch.to_be_bytes());
    bytes.extend_from_slice(&[3, 40]);
    bytes.extend_from_slice(&offset.get().to_be_bytes());
    bytes.extend_from_slice(&[7; 32]);
    for length in [32, 60] {
        bytes.push(length);
        bytes.extend(std::iter::repeat_n(9, length.into()));
    }
    bytes
}

#[test]
fn a_ghost_is_no_witness_of_another_log() {
    let relay = Relay::new();
    let (mut a, mut b) = (Agent::new(), Agent::new());
    let channel = governed_channel_of(&relay, &mut [&mut a, &mut b]);
    let mut rogue = Rogue::within(&relay, channel, &mut [&mut a, &mut b]);
    raise_ghost(&relay, &mut rogue);
    let mut claim = |author: AgentId| {
        let epoch = a.engine().epoch(channel).expect("known");
        let bundle = Bundle {
            commit: with_another_digest(channel, epoch, Offset::new(2)).into(),
            ..Bundle::default()
        };
        let header = Header {
            log: channel.log(),
            id: FrameId::generate(),
            author,
            parent: relay.folded(channel).handshake_head(),
            detail: commit(&[], &[]),
        };
        relay
            .append(Frame::new(header, bundle.encode_to_vec()).expect("a frame"))
            .expect("on the roster");
        a.pull(&relay, channel, usize::MAX);
        let events = a.take_events();
        events.iter().any(|event| matches!(event, Event::Divergence { .. }))
    };
    assert!(!claim(ghost()), "a relay node that did nothing is blamed");
    // A member's word is reported: who of the two lies cannot be known.
    assert!(claim(b.id()));
}

#[test]
fn a_member_removes_a_ghost_by_hand() {
    let relay = Relay::new();
    let by_hand = changed(|config| {
        config.correct_rosters = false;
    });
    let (mut a, mut b) = (Agent::with(by_hand.clone()), Agent::with(by_hand));
    let channel = governed_channel_of(&relay, &mut [&mut a, &mut b]);
    let mut rogue = Rogue::within(&relay, channel, &mut [&mut a, &mut b]);
    raise_ghost(&relay, &mut rogue);
    settle(&relay, channel, &mut [&mut a, &mut b]);
    assert!(roster(&relay, channel).contains(&ghost()));
    // Not an admin: but the ghost is nobody's member.
    let frame_id = b.engine().remove(channel, &[ghost()]).expect("queued");
    settle(&relay, channel, &mut [&mut a, &mut b]);
    let is_done = |event: &Event| matches!(event, Event::Delivered { frame_id: id, .. } if *id == frame_id);
    assert!(b.take_events().iter().any(is_done));
    assert_eq!(roster(&relay, channel), sorted(&[&a, &b]));
}

#[test]
fn a_lying_removal_locks_nobody_out() {
    let relay = Relay::new();
    let (mut a, mut b) = (Agent::new(), Agent::new());
    let mut rogue = Rogue::among(&relay, &mut [&mut a, &mut b]);
    let channel = rogue.channel;
    let body = rogue.commit(vec![], vec![]);
    let frame = rogue.frame(rogue.id(), FrameId::generate(), commit(&[], &[b.id()]), body);
    relay.append(frame).expect("the relay reads no MLS");
    // On its way when the lie came: the relay node refuses it, and it is not given up.
    let first = b.send(channel, "first");
    b.push(&relay, channel);
    b.pull(&relay, channel, usize::MAX);
    let events = b.take_events();
    let is_told = |event: &Event| matches!(event, Event::LockedOut { by, .. } if *by == rogue.id());
    assert!(events.iter().any(is_told), "{events:?}");
    b.send(channel, "second");
    assert!(!b.push(&relay, channel), "nothing is offered meanwhile");
    b.crash();
    a.send(channel, "said meanwhile");
    settle(&relay, channel, &mut [&mut a, &mut b]);
    assert_eq!(roster(&relay, channel), sorted(&[&a, &b]));
    let events = b.take_events();
    let is_delivered = |event: &Event| matches!(event, Event::Delivered { frame_id, .. } if *frame_id == first);
    assert!(events.iter().any(is_delivered), "{events:?}");
    assert_eq!(b.engine().failed(channel).expect("listed"), []);
    assert_eq!(b.engine().lost(Some(channel)).expect("listed"), []);
    let mut texts = a.texts(channel);
    texts.sort_unstable();
    assert_eq!(texts, ["first", "said meanwhile", "second"]);
    assert_eq!(a.transcript(channel), b.transcript(channel));
    assert_agree(channel, &mut [&mut a, &mut b]);
}

#[test]
fn a_correction_that_is_none_removes_nobody_for_long() {
    let relay = Relay::new();
    let (mut a, mut b) = (Agent::new(), Agent::new());
    let channel = governed_channel_of(&relay, &mut [&mut a, &mut b]);
    let mut rogue = Rogue::within(&relay, channel, &mut [&mut a, &mut b]);
    let body = rogue.commit(vec![], vec![]);
    let struck = told(&[a.id(), rogue.id()], None);
    let frame = rogue.frame(rogue.id(), FrameId::generate(), struck, body);
    relay.append(frame).expect("anybody corrects");
    assert_contained(&relay, &rogue, &mut a, &mut b, true);
}

#[test]
fn a_commit_after_a_lie_that_does_not_correct_it_is_void() {
    let relay = Relay::new();
    let (mut a, mut b) = (Agent::new(), Agent::new());
    let mut rogue = Rogue::among(&relay, &mut [&mut a, &mut b]);
    let channel = rogue.channel;
    let epoch = a.engine().epoch(channel).expect("known");
    raise_ghost(&relay, &mut rogue);
    // Sound, except for leaving the ghost where it is: else an accomplice would make members forget the lie.
    rogue.head = relay.folded(channel).handshake_head();
    let body = rogue.commit(vec![], vec![]);
    relay
        .append(rogue.frame(rogue.id(), FrameId::generate(), commit(&[], &[]), body))
        .expect("the relay reads no MLS");
    settle(&relay, channel, &mut [&mut a, &mut b]);
    assert_eq!(roster(&relay, channel), sorted(&[&a, &b]));
    assert_eq!(a.engine().epoch(channel).expect("known"), epoch + 1);
    assert_agree(channel, &mut [&mut a, &mut b]);
}

#[test]
fn what_a_member_may_not_do_is_void_for_all_members() {
    let relay = Relay::new();
    let (mut a, mut b) = (Agent::new(), Agent::new());
    for case in 0..2 {
        let channel = governed_channel_of(&relay, &mut [&mut a, &mut b]);
        let mut rogue = Rogue::within(&relay, channel, &mut [&mut a, &mut b]);
        let own = Policy::new(rogue.id());
        let (body, honest, hidden) = match case {
            0 => {
                let leaf = rogue.leaf_of(b.id());
                let honest = commit(&[], &[b.id()]);
                (rogue.commit(vec![], vec![leaf]), honest, commit(&[], &[]))
            }
            _ => {
                let honest = Detail::Commit {
                    adds: vec![],
                    removes: vec![],
                    recipients: vec![],
                    roster: None,
                    policy: Some(own.clone()),
                };
                (rogue.commit_with(vec![], vec![], Some(&own)), honest, commit(&[], &[]))
            }
        };
        // The relay node refuses what the header admits.
        let refused = relay.append(rogue.frame(rogue.id(), FrameId::generate(), honest, body.clone()));
        assert_eq!(
            refused.map(drop).map_err(|error| error.code()),
            Err(Code::PolicyForbids)
        );
        // What it hides every member refuses.
        let before = a.engine().policy(channel).expect("known");
        let frame = rogue.frame(rogue.id(), FrameId::generate(), hidden, body);
        relay.append(frame).expect("the relay reads no MLS");
        super::assert_refused(&relay, channel, &mut a, &mut b, false);
        assert!(a.engine().members(channel).expect("known").contains(&b.id()));
        for agent in [&mut a, &mut b] {
            assert_eq!(agent.engine().policy(channel).expect("known"), before);
        }
    }
}

#[test]
fn a_policy_that_an_admin_lied_about_is_put_right() {
    let relay = Relay::new();
    let (mut a, mut b) = (Agent::new(), Agent::new());
    let channel = governed_channel_of(&relay, &mut [&mut a, &mut b]);
    let mut rogue = Rogue::within(&relay, channel, &mut [&mut a, &mut b]);
    // The rogue cannot follow the group further, and need not: its header is all that counts.
    let change = PolicyChange::promote(&[rogue.id()]);
    a.engine().change_policy(channel, &change).expect("queued");
    settle(&relay, channel, &mut [&mut a, &mut b]);
    rogue.head = relay.folded(channel).handshake_head();
    let lie = Detail::Commit {
        adds: vec![],
        removes: vec![],
        recipients: vec![],
        roster: None,
        policy: Some(Policy::new(rogue.id())),
    };
    let frame = rogue.frame(rogue.id(), FrameId::generate(), lie, b"junk".to_vec());
    relay.append(frame).expect("an admin's");
    settle(&relay, channel, &mut [&mut b, &mut a]);
    for _ in 0..2 {
        settle(&relay, channel, &mut [&mut a, &mut b]);
    }
    let policy = Some(Policy::new(a.id()));
    assert_eq!(relay.folded(channel).policy().cloned(), policy);
    assert_eq!(roster(&relay, channel), sorted(&[&a, &b]));
    for agent in [&mut a, &mut b] {
        assert_eq!(agent.engine().policy(channel).expect("known"), policy);
    }
    assert_agree(channel, &mut [&mut a, &mut b]);
}
