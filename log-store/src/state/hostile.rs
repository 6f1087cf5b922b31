//! Effects on a roster of headers that lie, or ask for more than their authors may; and their repair.

use super::{LogState, Refused, Verdict};
use crate::store::Access;
use skytale_proto::{
    AccountId, AgentId, ChannelId, ChannelMode, Code, Detail, FrameId, Header, Holders, LogId, Offset, Policy, Right,
    limits,
};

const CHANNEL: LogId = LogId::Channel(ChannelId::from_bytes([0xc4; 16]));
const ALICE: AgentId = AgentId::from_bytes([1; 32]);
const BOB: AgentId = AgentId::from_bytes([2; 32]);
const MALLORY: AgentId = AgentId::from_bytes([7; 32]);
const GHOST: AgentId = AgentId::from_bytes([9; 32]);

/// A commit, on the head of the log that it is for.
#[derive(Default)]
struct Commit<'a> {
    adds: &'a [AgentId],
    removes: &'a [AgentId],
    roster: Option<&'a [AgentId]>,
    policy: Option<Policy>,
}

fn header(author: AgentId, parent: Offset, detail: Detail) -> Header {
    Header {
        log: CHANNEL,
        id: FrameId::generate(),
        author,
        parent,
        detail,
    }
}

fn give(state: &mut LogState, author: AgentId, detail: Detail) -> Result<Offset, Refused> {
    let parent = match detail {
        Detail::Create { .. } | Detail::Trim { .. } => Offset::ZERO,
        _ => state.handshake_head(),
    };
    match state.apply(&header(author, parent, detail), None) {
        Verdict::Appended { offset, .. } => Ok(offset),
        Verdict::Refused(refused) => Err(refused),
        Verdict::Duplicate { .. } => unreachable!("nothing was seen"),
    }
}

fn commit(state: &mut LogState, author: AgentId, commit: Commit<'_>) -> Result<Offset, Code> {
    let detail = Detail::Commit {
        adds: commit.adds.to_vec(),
        removes: commit.removes.to_vec(),
        recipients: Vec::new(),
        roster: commit.roster.map(<[AgentId]>::to_vec),
        policy: commit.policy,
    };
    give(state, author, detail).map_err(|refused| refused.code())
}

/// A channel of Alice, who is its admin, Bob and Mallory.
fn channel(policy: Option<Policy>) -> LogState {
    let mut state = LogState::new(CHANNEL);
    let create = Detail::Create {
        mode: ChannelMode::Mls,
        account: None,
        policy,
    };
    give(&mut state, ALICE, create).expect("made");
    let adds = &[BOB, MALLORY];
    let added = commit(
        &mut state,
        ALICE,
        Commit {
            adds,
            ..Commit::default()
        },
    );
    assert_eq!(added, Ok(Offset::new(2)));
    state
}

fn roster(state: &LogState) -> Vec<AgentId> {
    assert_eq!(LogState::decode(state.encode()).as_ref(), Ok(state));
    state.roster().collect()
}

#[test]
fn a_ghost_is_struck_with_the_liar_and_can_do_nothing_meanwhile() {
    let mut state = channel(Some(Policy::new(ALICE)));
    // The header of a commit that adds nobody.
    let adds = &[GHOST];
    commit(
        &mut state,
        MALLORY,
        Commit {
            adds,
            ..Commit::default()
        },
    )
    .expect("the fold reads no MLS");
    assert_eq!(roster(&state), [ALICE, BOB, MALLORY, GHOST]);
    let ghosts = [
        Commit {
            removes: &[ALICE],
            ..Commit::default()
        },
        Commit {
            removes: &[BOB],
            ..Commit::default()
        },
        // A correction that is none takes no admin off.
        Commit {
            roster: Some(&[GHOST]),
            ..Commit::default()
        },
        Commit {
            policy: Some(Policy::open(GHOST)),
            ..Commit::default()
        },
        Commit {
            roster: Some(&[ALICE, BOB, MALLORY, GHOST]),
            policy: Some(Policy::new(GHOST)),
            ..Commit::default()
        },
    ];
    for ghosts in ghosts {
        assert_eq!(commit(&mut state, GHOST, ghosts), Err(Code::PolicyForbids));
    }
    // Bob is no admin. A correction is everybody's.
    let correction = Commit {
        removes: &[MALLORY],
        roster: Some(&[ALICE, BOB]),
        ..Commit::default()
    };
    let at = commit(&mut state, BOB, correction).expect("corrected");
    assert_eq!(roster(&state), [ALICE, BOB]);
    for gone in [GHOST, MALLORY] {
        assert_eq!(give(&mut state, gone, Detail::Message), Err(Refused::NotMember));
        let access = state.access(gone, AccountId::from_bytes([0; 16]), at);
        assert_eq!(access, Access::NotMember { next: None });
    }
}

#[test]
fn who_was_struck_by_a_lie_and_is_put_back_reads_what_it_missed() {
    let mut state = channel(None);
    let removes = &[BOB];
    commit(
        &mut state,
        MALLORY,
        Commit {
            removes,
            ..Commit::default()
        },
    )
    .expect("a lie");
    assert_eq!(give(&mut state, BOB, Detail::Message), Err(Refused::NotMember));
    let reads = |state: &LogState, after: u64| state.access(BOB, AccountId::from_bytes([0; 16]), Offset::new(after));
    assert_eq!(reads(&state, 3), Access::NotMember { next: None });
    give(&mut state, ALICE, Detail::Message).expect("appended");
    let correction = Commit {
        removes: &[MALLORY],
        roster: Some(&[ALICE, BOB]),
        ..Commit::default()
    };
    commit(&mut state, ALICE, correction).expect("corrected");
    assert_eq!(roster(&state), [ALICE, BOB]);
    assert_eq!(reads(&state, 3), Access::Readable { until: None });
    give(&mut state, BOB, Detail::Message).expect("appended");
}

#[test]
fn only_admins_do_what_the_policy_keeps_for_them() {
    let mut state = channel(Some(Policy::new(ALICE)));
    let remove = || Commit {
        removes: &[BOB],
        ..Commit::default()
    };
    assert_eq!(commit(&mut state, MALLORY, remove()), Err(Code::PolicyForbids));
    let trim = Detail::Trim { up_to: Offset::FIRST };
    let refused = give(&mut state, MALLORY, trim.clone()).expect_err("no admin");
    assert_eq!((refused.code(), refused.agent()), (Code::PolicyForbids, None));
    // Removed and added again in one commit, as for a member that rejoins.
    let rejoins = Commit {
        adds: &[BOB],
        removes: &[BOB],
        ..Commit::default()
    };
    commit(&mut state, MALLORY, rejoins).expect("rejoined");
    // Any member may let go an agent that asked to leave.
    give(&mut state, BOB, Detail::Proposal).expect("asked");
    commit(&mut state, MALLORY, remove()).expect("let go");
    // An admin may keep additions for admins, too.
    let mut closed = Policy::new(ALICE);
    closed.set(Right::Add, Holders::Admins);
    let close = |policy| Commit {
        policy: Some(policy),
        ..Commit::default()
    };
    assert_eq!(
        commit(&mut state, MALLORY, close(closed.clone())),
        Err(Code::PolicyForbids)
    );
    commit(&mut state, ALICE, close(closed)).expect("changed");
    let adds = &[GHOST];
    let add = Commit {
        adds,
        ..Commit::default()
    };
    assert_eq!(commit(&mut state, MALLORY, add), Err(Code::PolicyForbids));
    give(&mut state, ALICE, trim).expect("trimmed");
}

#[test]
fn an_admin_that_is_demoted_loses_a_race() {
    let mut policy = Policy::new(ALICE);
    policy.promote(MALLORY);
    let mut state = channel(Some(policy));
    let head = state.handshake_head();
    let demote = Commit {
        policy: Some(Policy::new(ALICE)),
        ..Commit::default()
    };
    commit(&mut state, ALICE, demote).expect("changed");
    let detail = Detail::Commit {
        adds: Vec::new(),
        removes: vec![BOB],
        recipients: Vec::new(),
        roster: None,
        policy: None,
    };
    let late = state.apply(&header(MALLORY, head, detail), None);
    assert!(
        matches!(late, Verdict::Refused(Refused::StaleHandshake { .. })),
        "{late:?}"
    );
    let removes = &[BOB];
    let again = commit(
        &mut state,
        MALLORY,
        Commit {
            removes,
            ..Commit::default()
        },
    );
    assert_eq!(again, Err(Code::PolicyForbids));
}

#[test]
fn a_policy_that_an_admin_lied_about_is_put_back_by_one_who_was_an_admin() {
    let mut before = Policy::new(ALICE);
    before.promote(MALLORY);
    let mut state = channel(Some(before.clone()));
    let policy = |policy: &Policy, roster| Commit {
        roster,
        policy: Some(policy.clone()),
        ..Commit::default()
    };
    // Mallory's header says that Mallory alone is an admin; and buries that under another commit.
    commit(&mut state, MALLORY, policy(&Policy::new(MALLORY), None)).expect("a lie");
    commit(&mut state, MALLORY, Commit::default()).expect("appended");
    let all: &[AgentId] = &[ALICE, BOB, MALLORY];
    // Not without saying that it corrects, not to something else, not by one who was none.
    assert_eq!(
        commit(&mut state, ALICE, policy(&before, None)),
        Err(Code::PolicyForbids)
    );
    let other = Policy::new(ALICE);
    assert_eq!(
        commit(&mut state, ALICE, policy(&other, Some(all))),
        Err(Code::PolicyForbids)
    );
    assert_eq!(
        commit(&mut state, BOB, policy(&before, Some(all))),
        Err(Code::PolicyForbids)
    );
    commit(&mut state, ALICE, policy(&before, Some(all))).expect("put back");
    assert_eq!(state.policy(), Some(&before));
    let removes = &[MALLORY];
    commit(
        &mut state,
        ALICE,
        Commit {
            removes,
            ..Commit::default()
        },
    )
    .expect("removed");
    // A change that is contested is kept with the state.
    let mut shared = Policy::new(ALICE);
    shared.promote(BOB);
    commit(&mut state, ALICE, policy(&shared, None)).expect("promoted");
    commit(&mut state, ALICE, policy(&Policy::new(BOB), None)).expect("handed over");
    commit(&mut state, BOB, Commit::default()).expect("appended");
    roster(&state);
}

#[test]
fn a_channel_without_admins_is_everybodys() {
    let mut state = channel(Some(Policy::new(ALICE)));
    give(&mut state, ALICE, Detail::Proposal).expect("asked to leave");
    let let_go = Commit {
        removes: &[ALICE],
        policy: Some(Policy::new(ALICE).with_admins(|_| false)),
        ..Commit::default()
    };
    commit(&mut state, BOB, let_go).expect("let go");
    let removes = &[MALLORY];
    commit(
        &mut state,
        BOB,
        Commit {
            removes,
            ..Commit::default()
        },
    )
    .expect("all are admins");
    assert_eq!(roster(&state), [BOB]);
}

#[test]
fn a_channel_of_before_policies_allows_everything_to_members() {
    let mut state = channel(None);
    assert_eq!(state.policy(), None);
    let removes = &[ALICE];
    commit(
        &mut state,
        MALLORY,
        Commit {
            removes,
            ..Commit::default()
        },
    )
    .expect("removed");
    let policy = Some(Policy::new(BOB));
    commit(
        &mut state,
        BOB,
        Commit {
            policy,
            ..Commit::default()
        },
    )
    .expect("the first policy");
    let removes = &[BOB];
    let refused = commit(
        &mut state,
        MALLORY,
        Commit {
            removes,
            ..Commit::default()
        },
    );
    assert_eq!(refused, Err(Code::PolicyForbids));
}

#[test]
fn an_admin_that_lies_again_and_again_does_not_bury_the_policy_before_its_lies() {
    let mut before = Policy::new(ALICE);
    before.promote(MALLORY);
    let mut state = channel(Some(before.clone()));
    let policy = |policy: Policy, roster| Commit {
        roster,
        policy: Some(policy),
        ..Commit::default()
    };
    let lie = |state: &mut LogState| {
        for number in 10..40 {
            let mut lie = Policy::new(MALLORY);
            lie.promote(AgentId::from_bytes([number; 32]));
            commit(state, MALLORY, policy(lie, None)).expect("a lie");
        }
    };
    let all: &[AgentId] = &[ALICE, BOB, MALLORY];
    lie(&mut state);
    assert_eq!(roster(&state), all);
    commit(&mut state, ALICE, policy(before.clone(), Some(all))).expect("put back");
    assert_eq!(state.policy(), Some(&before));
    // Back to the true one in between, and away from it: that is no new beginning.
    lie(&mut state);
    commit(&mut state, MALLORY, policy(before.clone(), None)).expect("true for once");
    lie(&mut state);
    commit(&mut state, ALICE, policy(before.clone(), Some(all))).expect("put back");
    assert_eq!(state.policy(), Some(&before));
}

/// Each list is as long as it may be, over a roster that as many as possible were on. Looking for each agent of one list in
/// another, one after the other, would be half a thousand million comparisons for a commit.
#[test]
fn the_longest_lists_cost_no_more_than_their_length() {
    let numbered = |from: usize| -> Vec<AgentId> {
        let ids = from..from + limits::ROSTER_CHANGE_MAX;
        let id = |number: usize| {
            let mut bytes = [0xff; 32];
            bytes[..8].copy_from_slice(&(number as u64).to_be_bytes());
            AgentId::from_bytes(bytes)
        };
        ids.map(id).collect()
    };
    let mut state = channel(None);
    let mut from = 0;
    while from + limits::ROSTER_CHANGE_MAX + 8 < limits::ROSTER_HISTORY_MAX {
        let agents = numbered(from);
        let adds = Commit {
            adds: &agents,
            ..Commit::default()
        };
        commit(&mut state, MALLORY, adds).expect("added");
        let removes = Commit {
            removes: &agents,
            ..Commit::default()
        };
        commit(&mut state, MALLORY, removes).expect("removed");
        from += agents.len();
    }
    for round in 0..8 {
        let removes = numbered(round * limits::ROSTER_CHANGE_MAX);
        let corrects = Commit {
            removes: &removes,
            roster: Some(&[MALLORY]),
            ..Commit::default()
        };
        commit(&mut state, MALLORY, corrects).expect("corrected");
        assert_eq!(roster(&state), [MALLORY]);
    }
    // And refused ones: who may not add or remove names as many.
    let mut state = channel(Some(Policy::new(ALICE)));
    let (agents, mut turned) = (numbered(0), numbered(0));
    turned.reverse();
    for _ in 0..8 {
        let both = Commit {
            adds: &agents,
            removes: &turned,
            ..Commit::default()
        };
        commit(&mut state, MALLORY, both).expect_err("nobody that it removes is there");
    }
    assert_eq!(roster(&state), [ALICE, BOB, MALLORY]);
}
