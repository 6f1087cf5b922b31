//! Single promises of the fold, at its limits and in its format.

use super::given_up::GivenUp;
use super::group::Group;
use super::mailbox::{Claim, Claimer, Mailbox, Welcomed};
use super::roles::Roles;
use super::roster::{Membership, Roster, Stretch};
use super::{LogState, Refused, Rule, StateError, Verdict};
use crate::store::ClaimedPackage;
use bytes::Bytes;
use skytale_proto::{
    AccountId, AgentId, ChannelId, ChannelMode, Code, Detail, FrameId, Header, LogId, Offset, Policy, limits,
};
use std::collections::BTreeMap;

const CHANNEL: LogId = LogId::Channel(ChannelId::from_bytes([0xc4; 16]));
const ALICE: AgentId = AgentId::from_bytes([1; 32]);
const BOB: AgentId = AgentId::from_bytes([2; 32]);
const CAROL: AgentId = AgentId::from_bytes([3; 32]);

fn header(log: LogId, author: AgentId, parent: u64, detail: Detail) -> Header {
    Header {
        log,
        id: FrameId::from_bytes([9; 16]),
        author,
        parent: Offset::new(parent),
        detail,
    }
}

fn create() -> Header {
    let detail = Detail::Create {
        mode: ChannelMode::Mls,
        account: None,
        policy: None,
    };
    header(CHANNEL, ALICE, 0, detail)
}

fn commit(parent: u64, adds: &[AgentId], removes: &[AgentId]) -> Header {
    let detail = Detail::Commit {
        adds: adds.to_vec(),
        removes: removes.to_vec(),
        recipients: Vec::new(),
        roster: None,
        policy: None,
    };
    header(CHANNEL, ALICE, parent, detail)
}

fn trim(log: LogId, up_to: u64) -> Header {
    let up_to = Offset::new(up_to);
    header(log, ALICE, 0, Detail::Trim { up_to })
}

fn package(last_resort: bool) -> Header {
    let account = None;
    header(BOB.log(), BOB, 0, Detail::KeyPackage { last_resort, account })
}

fn claim() -> Header {
    header(BOB.log(), ALICE, 0, Detail::KeyPackageClaim { account: None })
}

/// The state after frames that are all accepted.
fn after(log: LogId, frames: &[Header]) -> LogState {
    let mut state = LogState::new(log);
    for frame in frames {
        accept(&mut state, frame);
    }
    state
}

fn accept(state: &mut LogState, frame: &Header) -> Offset {
    match state.apply(frame, None) {
        Verdict::Appended { offset, .. } => offset,
        other => panic!("not accepted: {other:?}"),
    }
}

fn refuse(state: &mut LogState, frame: &Header) -> Refused {
    match state.apply(frame, None) {
        Verdict::Refused(refused) => refused,
        other => panic!("not refused: {other:?}"),
    }
}

fn many(count: u32) -> Vec<AgentId> {
    let agent = |number: u32| {
        let mut bytes = [0xa6; 32];
        bytes[..4].copy_from_slice(&number.to_be_bytes());
        AgentId::from_bytes(bytes)
    };
    (0..count).map(agent).collect()
}

#[test]
fn a_roster_is_bounded_in_agents() {
    let everyone = many(limits::ROSTER_MAX as u32);
    let (fill, over) = everyone.split_at(limits::ROSTER_MAX - 1);
    let mut state = after(CHANNEL, &[create(), commit(1, fill, &[])]);
    assert_eq!(refuse(&mut state, &commit(2, over, &[])), Refused::RosterFull);
    accept(&mut state, &commit(2, over, &fill[..1]));
    assert_eq!(state.roster().count(), limits::ROSTER_MAX);
    assert_eq!(LogState::decode(state.encode()), Ok(state));
}

#[test]
fn a_roster_is_bounded_in_what_it_remembers_and_a_trim_makes_room() {
    let everyone = many(limits::ROSTER_MAX as u32 - 1);
    let mut state = after(CHANNEL, &[create()]);
    let mut parent = 1;
    let turns = loop {
        match state.apply(&commit(parent, &everyone, &[]), None) {
            Verdict::Appended { offset, .. } => parent = offset.get(),
            Verdict::Refused(refused) => {
                assert_eq!(refused, Refused::RosterFull);
                break parent;
            }
            Verdict::Duplicate { .. } => unreachable!("nothing was seen"),
        }
        // A removal is never refused for what is remembered.
        parent = accept(&mut state, &commit(parent, &[], &everyone)).get();
        // Somebody else's entry, so that the next stretch is not the last one gone on with.
        accept(&mut state, &header(CHANNEL, ALICE, parent, Detail::Message));
    };
    assert_eq!(LogState::decode(state.encode()).as_ref(), Ok(&state));
    assert!(
        state.weight_bytes() < 16 * 1024 * 1024,
        "{} bytes",
        state.weight_bytes()
    );
    accept(&mut state, &trim(CHANNEL, turns));
    accept(&mut state, &commit(parent, &everyone, &[]));
    assert_eq!(state.roster().count(), limits::ROSTER_MAX);
}

#[test]
fn a_removal_undone_by_the_next_entry_leaves_one_stretch() {
    let mut state = after(CHANNEL, &[create(), commit(1, &[BOB], &[])]);
    for parent in (2..2_000).step_by(2) {
        accept(&mut state, &commit(parent, &[], &[BOB]));
        accept(&mut state, &commit(parent + 1, &[BOB], &[]));
    }
    let expected = after(CHANNEL, &[create(), commit(1, &[BOB], &[])]).encode().len();
    assert_eq!(state.encode().len(), expected);
}

#[test]
fn claims_are_remembered_up_to_their_limit() {
    let mut state = after(BOB.log(), &[package(true)]);
    for _ in 0..limits::CLAIMS_REMEMBERED_MAX + 5 {
        accept(&mut state, &claim());
    }
    let taken = ClaimedPackage {
        offset: Offset::FIRST,
        last_resort: true,
    };
    let newest = state.head().get();
    let oldest = newest + 1 - limits::CLAIMS_REMEMBERED_MAX as u64;
    assert_eq!(state.claimed_by(Offset::new(oldest - 1)), None);
    assert_eq!(state.claimed_by(Offset::new(oldest)), Some(taken));
    assert_eq!(state.claimed_by(Offset::new(newest)), Some(taken));
    assert_eq!(LogState::decode(state.encode()), Ok(state));
}

#[test]
fn a_stock_is_bounded() {
    let mut state = LogState::new(BOB.log());
    for _ in 0..limits::KEY_PACKAGES_MAX {
        accept(&mut state, &package(false));
    }
    assert_eq!(refuse(&mut state, &package(false)), Refused::KeyPackagesFull);
    assert_eq!(refuse(&mut state, &package(true)), Refused::KeyPackagesFull);
    accept(&mut state, &claim());
    accept(&mut state, &package(true));
    accept(&mut state, &package(true));
    assert_eq!(refuse(&mut state, &package(false)), Refused::KeyPackagesFull);
    assert_eq!(LogState::decode(state.encode()), Ok(state));
}

#[test]
fn a_frame_for_another_log_is_refused() {
    let mut state = after(CHANNEL, &[create()]);
    let other = LogId::Channel(ChannelId::from_bytes([0xd5; 16]));
    let frame = header(other, ALICE, 1, Detail::Message);
    assert_eq!(refuse(&mut state, &frame).code(), Code::KindRefused);
}

#[test]
fn a_header_that_no_frame_has_changes_nothing() {
    let mut state = LogState::new(CHANNEL);
    for (mode, account) in [
        (ChannelMode::Raw, None),
        (ChannelMode::Mls, Some(AccountId::from_bytes([1; 16]))),
    ] {
        let frame = header(
            CHANNEL,
            ALICE,
            0,
            Detail::Create {
                mode,
                account,
                policy: None,
            },
        );
        assert_eq!(refuse(&mut state, &frame).code(), Code::KindRefused);
    }
    accept(&mut state, &create());
    for frame in [commit(1, &[BOB, CAROL, BOB], &[]), commit(1, &[], &[ALICE, ALICE])] {
        assert_eq!(refuse(&mut state, &frame).code(), Code::RosterChange);
    }
    assert_eq!(
        refuse(
            &mut state,
            &header(CHANNEL, ALICE, 1, Detail::KeyPackageClaim { account: None })
        )
        .code(),
        Code::KindRefused
    );
    assert_eq!(
        refuse(
            &mut LogState::new(BOB.log()),
            &header(BOB.log(), BOB, 0, Detail::Message)
        )
        .code(),
        Code::KindRefused
    );
}

/// A group, a raw channel and an agent's log, each with something in every field.
fn samples() -> [LogState; 4] {
    let raw = Detail::Create {
        mode: ChannelMode::Raw,
        account: Some(AccountId::from_bytes([7; 16])),
        policy: None,
    };
    [
        LogState::new(CHANNEL),
        after(
            CHANNEL,
            &[
                create(),
                commit(1, &[BOB, CAROL], &[]),
                trim(CHANNEL, 1),
                commit(2, &[], &[BOB]),
                header(CHANNEL, CAROL, 4, Detail::Message),
                commit(4, &[BOB], &[]),
            ],
        ),
        after(CHANNEL, &[header(CHANNEL, ALICE, 0, raw)]),
        after(
            BOB.log(),
            &[
                package(false),
                package(true),
                package(false),
                claim(),
                claim(),
                claim(),
                package(false),
            ],
        ),
    ]
}

/// Written by the first version of the format. These never change; a new format gets new ones beside them.
const KEPT: [&str; 4] = [
    "01001101c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4000000000000000001000000000000006e38096e",
    concat!(
        "01011101c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c406000000000000000200000000000000060000000000000003000000",
        "010101010101010101010101010101010101010101010101010101010101010101000000000000000000000002020202",
        "020202020202020202020202020202020202020202020202020202020600000000000000010000000200000000000000",
        "040000000000000003030303030303030303030303030303030303030303030303030303030303030200000000000000",
        "0000000050bc8122",
    ),
    concat!(
        "01021101c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c401000000000000000100000000000000070707070707070707070707",
        "070707076e390c8b",
    ),
    concat!(
        "010321020202020202020202020202020202020202020202020202020202020202020202070000000000000001000000",
        "000000000200000000000000010000000700000000000000030000000400000000000000010000000000000000050000",
        "000000000003000000000000000006000000000000000200000000000000019379b73f",
    ),
];

#[test]
fn what_the_first_version_wrote_is_still_read() {
    for (state, kept) in samples().into_iter().zip(KEPT) {
        let bytes = data_encoding::HEXLOWER.decode(kept.as_bytes()).unwrap();
        let read = LogState::decode(bytes.into()).unwrap();
        // It did not keep what Trims gave up: each entry may have been more than a Trim.
        let (head, first) = (state.head, state.first);
        let given_up = GivenUp::unknown(head, first);
        assert_eq!(
            read,
            LogState {
                given_up,
                ..without_claimers(state)
            }
        );
        // From then on it is kept as this version does.
        assert_eq!(LogState::decode(read.encode()), Ok(read.clone()));
        assert_eq!(read.status().given_up, first.previous());
    }
}

/// Makes a state as versions before the third kept it: without the claimers.
fn without_claimers(mut state: LogState) -> LogState {
    if let Rule::Mailbox(mailbox) = &mut state.rule {
        for claim in &mut mailbox.claims {
            claim.by.agent = AgentId::from_bytes([0; 32]);
        }
    }
    state
}

/// Written by the second version, of [`samples`] and of an agent's log with Welcomes. These never change.
const KEPT_2: [&str; 5] = [
    concat!(
        "02001101c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c400000000000000000100000000000000000000000000000000000000",
        "000000000000000000000000a04e2f2e",
    ),
    concat!(
        "02011101c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c406000000000000000200000000000000010000000000000006000000",
        "000000000500000000000000060000000000000003000000010101010101010101010101010101010101010101010101",
        "010101010101010101000000000000000000000002020202020202020202020202020202020202020202020202020202",
        "020202020600000000000000010000000200000000000000040000000000000003030303030303030303030303030303",
        "03030303030303030303030303030303020000000000000000000000046a533e",
    ),
    concat!(
        "02021101c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c401000000000000000100000000000000000000000000000001000000",
        "00000000000000000000000007070707070707070707070707070707404610f7",
    ),
    concat!(
        "020321020202020202020202020202020202020202020202020202020202020202020202070000000000000001000000",
        "000000000000000000000000070000000000000006000000000000000200000000000000010000000700000000000000",
        "030000000400000000000000010000000000000000050000000000000003000000000000000006000000000000000200",
        "000000000000010000000040b2a051",
    ),
    concat!(
        "020321020202020202020202020202020202020202020202020202020202020202020202030000000000000002000000",
        "000000000100000000000000020000000000000001000000000000000000000000000000000000000000000002000000",
        "c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c401000000000000000200000000000000c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5",
        "02000000000000000700000000000000f5724434",
    ),
];

#[test]
fn what_the_second_version_wrote_is_still_read() {
    let welcome = |channel: u8, bundle| Detail::Welcome {
        channel: ChannelId::from_bytes([channel; 16]),
        offset: Offset::new(bundle),
        returns: false,
    };
    // Nobody had to claim anything then.
    let mut welcomed = LogState::new(BOB.log());
    for frame in [
        header(BOB.log(), ALICE, 0, welcome(0xc4, 2)),
        header(BOB.log(), ALICE, 0, welcome(0xc5, 7)),
        trim(BOB.log(), 1),
    ] {
        let offset = welcomed.head().next();
        assert!(matches!(welcomed.replay(&frame), Verdict::Appended { offset: at, .. } if at == offset));
    }
    assert_eq!(
        welcomed.status().welcomes,
        [(ChannelId::from_bytes([0xc4; 16]), Offset::new(2))]
    );
    for (state, kept) in samples().into_iter().chain([welcomed]).zip(KEPT_2) {
        let bytes = data_encoding::HEXLOWER.decode(kept.as_bytes()).unwrap();
        let read = LogState::decode(bytes.into()).unwrap();
        assert_eq!(read, without_claimers(state));
        // From then on it is kept as this version does.
        assert_eq!(LogState::decode(read.encode()), Ok(read));
    }
}

/// A group with everything that roles have.
fn governed() -> LogState {
    let mut policy = Policy::new(ALICE);
    policy.promote(BOB);
    let created = Detail::Create {
        mode: ChannelMode::Mls,
        account: None,
        policy: Some(policy),
    };
    let changed = Detail::Commit {
        adds: vec![BOB, CAROL],
        removes: Vec::new(),
        recipients: Vec::new(),
        roster: None,
        policy: Some(Policy::new(ALICE)),
    };
    after(
        CHANNEL,
        &[
            header(CHANNEL, ALICE, 0, created),
            header(CHANNEL, ALICE, 1, changed),
            header(CHANNEL, CAROL, 2, Detail::Proposal),
        ],
    )
}

/// Written by the third version, of [`samples`] and of a group with roles. These never change.
const KEPT_3: [&str; 5] = [
    concat!(
        "03001101c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4000000000000000001000000000000000000000000000000000000",
        "00000000000000000000000000fbea945b",
    ),
    concat!(
        "03011101c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4060000000000000002000000000000000100000000000000060000",
        "0000000000050000000000000006000000000000000300000001010101010101010101010101010101010101010101",
        "0101010101010101010101000000000000000000000002020202020202020202020202020202020202020202020202",
        "0202020202020206000000000000000100000002000000000000000400000000000000030303030303030303030303",
        "03030303030303030303030303030303030303030200000000000000000000000000000000df420851",
    ),
    concat!(
        "03021101c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4010000000000000001000000000000000000000000000000010000",
        "00000000000000000000000000070707070707070707070707070707077878989a",
    ),
    concat!(
        "03032102020202020202020202020202020202020202020202020202020202020202020207000000000000000100",
        "00000000000000000000000000000700000000000000060000000000000002000000000000000100000007000000",
        "00000000030000000400000000000000010000000000000000010101010101010101010101010101010101010101",
        "01010101010101010101010005000000000000000300000000000000000101010101010101010101010101010101",
        "01010101010101010101010101010100060000000000000002000000000000000101010101010101010101010101",
        "010101010101010101010101010101010101010000000000000000bc44f6",
    ),
    concat!(
        "03011101c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4030000000000000001000000000000000000000000000000030000",
        "0000000000020000000000000002000000000000000300000001010101010101010101010101010101010101010101",
        "0101010101010101010101000000000000000000000002020202020202020202020202020202020202020202020202",
        "0202020202020202000000000000000000000003030303030303030303030303030303030303030303030303030303",
        "03030303020000000000000000000000031c0100010101010101010101010101010101010101010101010101010101",
        "01010101010101010101010101010101010101010101010101010101010101010101010101011c0200010101010101",
        "0101010101010101010101010101010101010101010101010101020202020202020202020202020202020202020202",
        "0202020202020202020202010000000303030303030303030303030303030303030303030303030303030303030303",
        "5dd1742a",
    ),
];

#[test]
fn what_the_third_version_wrote_is_still_read() {
    for (state, kept) in samples().into_iter().chain([governed()]).zip(KEPT_3) {
        let bytes = data_encoding::HEXLOWER.decode(kept.as_bytes()).unwrap();
        assert_eq!(LogState::decode(bytes.into()), Ok(state));
    }
}

/// Written by the fourth version, of an agent's log with Welcomes. These never change.
const KEPT_4: [&str; 1] = [concat!(
    "04032102020202020202020202020202020202020202020202020202020202020202020206000000000000000100",
    "00000000000000000000000000000600000000000000050000000000000002000000000000000000000001000000",
    "04000000000000000200000000000000010101010101010101010101010101010101010101010101010101010101",
    "0101010002000000c4c4c4c4c4c4c4c4c4c4c4c4c4c4c4c405000000000000000200000000000000010101010101",
    "01010101010101010101010101010101010101010101010101010100c5c5c5c5c5c5c5c5c5c5c5c5c5c5c5c50600",
    "00000000000007000000000000000101010101010101010101010101010101010101010101010101010101010101",
    "0100000028394a5f",
)];

#[test]
fn what_the_fourth_version_wrote_is_still_read() {
    let welcome = |channel: u8, bundle| Detail::Welcome {
        channel: ChannelId::from_bytes([channel; 16]),
        offset: Offset::new(bundle),
        returns: false,
    };
    let frames = [
        package(false),
        package(true),
        claim(),
        claim(),
        header(BOB.log(), ALICE, 0, welcome(0xc4, 2)),
        header(BOB.log(), ALICE, 0, welcome(0xc5, 7)),
    ];
    for (state, kept) in [after(BOB.log(), &frames)].into_iter().zip(KEPT_4) {
        assert_eq!(data_encoding::HEXLOWER.encode(&state.encode()), kept);
        let bytes = data_encoding::HEXLOWER.decode(kept.as_bytes()).unwrap();
        assert_eq!(LogState::decode(bytes.into()), Ok(state));
    }
}

#[test]
fn another_version_is_refused_as_such() {
    for state in samples() {
        let mut bytes = state.encode().to_vec();
        bytes[0] = 5;
        let refused = LogState::decode(bytes.into()).unwrap_err();
        assert_eq!(
            (refused.clone(), refused.code()),
            (StateError::Version { found: 5 }, Code::StoreCorrupt)
        );
    }
    assert!(LogState::decode(Bytes::new()).is_err());
}

/// The states that these make are encoded as they are, and no log has them.
#[test]
fn a_state_that_no_log_has_is_refused() {
    let [_, group, raw, mailbox] = samples();
    let at = Offset::new;
    let is_refused = |state: LogState| match LogState::decode(state.encode()) {
        Err(StateError::Field { .. }) => {}
        other => panic!("expected a refusal of {state:?}, got {other:?}"),
    };
    let with_stretches = |past: &[(u64, u64)], since: Option<u64>| {
        let membership = Membership {
            past: past
                .iter()
                .map(|(from, to)| Stretch {
                    from: at(*from),
                    to: at(*to),
                })
                .collect(),
            since: since.map(at),
        };
        let mut roster = Roster::of(ALICE, at(1));
        roster.insert(BOB, membership);
        let handshake_head = at(6);
        LogState {
            head: at(20),
            first: at(5),
            rule: Rule::Group(Group {
                handshake_head,
                roster,
                roles: Roles::default(),
            }),
            ..group.clone()
        }
    };
    let sound = with_stretches(&[(3, 6), (8, 10)], Some(12));
    assert_eq!(LogState::decode(sound.encode()), Ok(sound));
    for (past, since) in [
        (&[][..], None),
        (&[(6, 6)], None),
        (&[(7, 6)], None),
        (&[(0, 6)], None),
        (&[(2, 4)], None),
        (&[(19, 21)], None),
        (&[(8, 10), (3, 6)], None),
        (&[(3, 6), (7, 10)], None),
        (&[(3, 6), (5, 10)], None),
        (&[(3, 6)], Some(7)),
        (&[(3, 6)], Some(5)),
        (&[(3, 6)], Some(21)),
    ] {
        is_refused(with_stretches(past, since));
    }
    for (head, first) in [(6, 0), (6, 7), (0, 1), ((1 << 63) + 1, 1), (u64::MAX, 1)] {
        for state in [&group, &raw, &mailbox] {
            is_refused(LogState {
                head: at(head),
                first: at(first),
                ..state.clone()
            });
        }
    }
    for handshake_head in [0, 7] {
        let handshake_head = at(handshake_head);
        let roster = Roster::of(ALICE, at(1));
        let roles = Roles::default();
        let rule = Rule::Group(Group {
            handshake_head,
            roster,
            roles,
        });
        is_refused(LogState { rule, ..group.clone() });
    }
    is_refused(LogState {
        log: BOB.log(),
        ..raw.clone()
    });
    is_refused(LogState {
        log: CHANNEL,
        ..mailbox.clone()
    });
    is_refused(LogState {
        rule: Rule::Absent,
        ..group.clone()
    });

    let with_mailbox = |live: &[u64], last_resort: u64, claims: &[(u64, u64)]| LogState {
        head: at(200),
        first: at(5),
        rule: Rule::Mailbox(Mailbox {
            live: live.iter().copied().map(at).collect(),
            last_resort: Some(at(last_resort)),
            claims: claims
                .iter()
                .map(|(claim, offset)| {
                    let (offset, last_resort) = (at(*offset), false);
                    let (agent, account) = (ALICE, None);
                    Claim {
                        at: at(*claim),
                        package: ClaimedPackage { offset, last_resort },
                        by: Claimer { agent, account },
                    }
                })
                .collect(),
            ..Mailbox::default()
        }),
        ..mailbox.clone()
    };
    let with_given_up = |last, content, content_before| LogState {
        given_up: GivenUp {
            last: at(last),
            content: at(content),
            content_before: at(content_before),
        },
        ..group.clone()
    };
    let (first, head) = (group.first.get(), group.head.get());
    let sound = with_given_up(first - 1, head, head - 1);
    assert_eq!(LogState::decode(sound.encode()), Ok(sound));
    for (last, content, before) in [(first, head, head - 1), (0, head + 1, head), (0, head, head), (0, 0, 1)] {
        is_refused(with_given_up(last, content, before));
    }
    let with_welcome = |entry, bundle| LogState {
        rule: Rule::Mailbox(Mailbox {
            welcomes: BTreeMap::from([(
                ChannelId::from_bytes([0xc4; 16]),
                Welcomed {
                    at: at(entry),
                    bundle: at(bundle),
                    by: None,
                },
            )]),
            ..Mailbox::default()
        }),
        ..mailbox.clone()
    };
    let sound = with_welcome(mailbox.head.get(), 1);
    assert_eq!(LogState::decode(sound.encode()), Ok(sound));
    for (entry, bundle) in [(0, 1), (mailbox.head.get() + 1, 1), (1, 0)] {
        is_refused(with_welcome(entry, bundle));
    }
    let sound = with_mailbox(&[5, 7], 6, &[(8, 3), (9, 2)]);
    assert_eq!(LogState::decode(sound.encode()), Ok(sound));
    let full: Vec<u64> = (5..5 + limits::KEY_PACKAGES_MAX as u64).collect();
    for (live, last_resort, claims) in [
        (&[7, 5][..], 6, &[][..]),
        (&[7, 7], 6, &[]),
        (&[4, 7], 6, &[]),
        (&[7, 201], 6, &[]),
        (&full, 150, &[]),
        (&[6], 6, &[]),
        (&[], 4, &[]),
        (&[], 201, &[]),
        (&[], 6, &[(8, 8)]),
        (&[], 6, &[(8, 0)]),
        (&[], 6, &[(4, 3)]),
        (&[], 6, &[(201, 3)]),
        (&[], 6, &[(9, 3), (8, 2)]),
        (&[], 6, &[(8, 3), (8, 2)]),
    ] {
        is_refused(with_mailbox(live, last_resort, claims));
    }
}

#[test]
fn an_agent_twice_on_a_kept_roster_is_refused() {
    let state = after(CHANNEL, &[create()]);
    let encoded = state.encode();
    // The one agent comes last, 44 bytes before the roles (5 bytes) and the checksum.
    let end = encoded.len() - 4 - 5;
    let (before, agent) = encoded[..end].split_at(end - 44);
    let mut bytes = before[..before.len() - 4].to_vec();
    bytes.extend(2u32.to_le_bytes());
    bytes.extend([agent, agent, &[0; 5]].concat());
    let checksum = crc32c::crc32c(&bytes);
    bytes.extend(checksum.to_le_bytes());
    let out_of_order = StateError::Field {
        field: "agent",
        problem: "out of order",
    };
    assert_eq!(LogState::decode(bytes.into()), Err(out_of_order));
}

#[test]
fn a_count_is_not_believed_before_its_bytes_are_there() {
    // A group of one log id and six offsets, then a count of 100,000 agents and nothing behind it.
    let group = &samples()[1];
    let fixed = 3 + 17 + 6 * 8;
    let mut bytes = group.encode()[..fixed].to_vec();
    bytes.extend((limits::ROSTER_HISTORY_MAX as u32).to_le_bytes());
    let checksum = crc32c::crc32c(&bytes);
    bytes.extend(checksum.to_le_bytes());
    assert_eq!(
        LogState::decode(bytes.into()),
        Err(StateError::Short { field: "agents" })
    );
}
