//! Rules on claims of an agent's KeyPackages: agents that may claim, their number, and the Welcomes that are entries.
//! Played by those who would have more.

use super::{LogState, Refused, Verdict};
use crate::store::ClaimedPackage;
use skytale_proto::{AccountId, AgentId, Allowed, ChannelId, ClaimRule, Detail, FrameId, Header, Offset, limits};

const VICTIM: AgentId = AgentId::from_bytes([0x0b; 32]);
const MALLORY: AgentId = AgentId::from_bytes([0x3a; 32]);
const HOME: AccountId = AccountId::from_bytes([1; 16]);
const FOREIGN: AccountId = AccountId::from_bytes([2; 16]);

fn agent(number: u32) -> AgentId {
    let mut bytes = [0xa6; 32];
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    AgentId::from_bytes(bytes)
}

fn account(number: u32) -> AccountId {
    let mut bytes = [0xac; 16];
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    AccountId::from_bytes(bytes)
}

fn by(author: AgentId, detail: Detail) -> Header {
    Header {
        log: VICTIM.log(),
        id: FrameId::generate(),
        author,
        parent: Offset::ZERO,
        detail,
    }
}

fn package(last_resort: bool) -> Header {
    let account = Some(HOME);
    by(VICTIM, Detail::KeyPackage { last_resort, account })
}

fn claim(author: AgentId, account: AccountId) -> Header {
    let account = Some(account);
    by(author, Detail::KeyPackageClaim { account })
}

fn policy(author: AgentId, rule: ClaimRule) -> Header {
    by(author, Detail::KeyPackagePolicy { account: HOME, rule })
}

fn welcome(author: AgentId, channel: u8, bundle: u64, returns: bool) -> Header {
    let channel = ChannelId::from_bytes([channel; 16]);
    Header::welcome(author, channel, Offset::new(bundle), VICTIM, returns)
}

/// The log of an agent with packages on offer.
fn stocked(singles: usize) -> LogState {
    let mut state = LogState::new(VICTIM.log());
    for _ in 0..singles {
        accept(&mut state, &package(false));
    }
    accept(&mut state, &package(true));
    state
}

fn accept(state: &mut LogState, frame: &Header) -> Option<ClaimedPackage> {
    match state.apply(frame, None) {
        Verdict::Appended { effects, .. } => effects.claimed,
        other => panic!("not accepted: {other:?}"),
    }
}

/// A refusal moves nothing.
fn refuse(state: &mut LogState, frame: &Header) -> Refused {
    let before = state.clone();
    match state.apply(frame, None) {
        Verdict::Refused(refused) => {
            assert_eq!(*state, before);
            refused
        }
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn a_stranger_claims_nothing_and_an_agent_of_the_account_does() {
    let mut state = stocked(3);
    for _ in 0..100 {
        assert_eq!(refuse(&mut state, &claim(MALLORY, FOREIGN)), Refused::ClaimNotAllowed);
    }
    let nameless = by(MALLORY, Detail::KeyPackageClaim { account: None });
    assert_eq!(refuse(&mut state, &nameless), Refused::ClaimNotAllowed);
    assert!(accept(&mut state, &claim(agent(1), HOME)).is_some());
    assert_eq!(state.key_packages().live, 2);
}

#[test]
fn before_an_account_is_known_nobody_has_one_to_claim_with() {
    let mut state = LogState::new(VICTIM.log());
    let old = by(
        VICTIM,
        Detail::KeyPackage {
            last_resort: false,
            account: None,
        },
    );
    accept(&mut state, &old);
    assert_eq!(refuse(&mut state, &claim(MALLORY, HOME)), Refused::ClaimNotAllowed);
}

#[test]
fn a_rule_is_the_owners_alone_and_the_newest_is_in_force() {
    let mut state = stocked(9);
    assert_eq!(
        refuse(&mut state, &policy(MALLORY, ClaimRule::Anyone)),
        Refused::NotMember
    );
    let listed = Allowed::new([FOREIGN], [agent(7)]).expect("a list");
    accept(&mut state, &policy(VICTIM, ClaimRule::Listed(listed)));
    assert_eq!(
        refuse(&mut state, &claim(MALLORY, account(3))),
        Refused::ClaimNotAllowed
    );
    for (claimer, of) in [
        (MALLORY, FOREIGN),
        (agent(7), account(3)),
        (agent(1), HOME),
        (VICTIM, HOME),
    ] {
        assert!(accept(&mut state, &claim(claimer, of)).is_some());
    }
    accept(&mut state, &policy(VICTIM, ClaimRule::Anyone));
    assert!(accept(&mut state, &claim(agent(9), account(9))).is_some());
    accept(&mut state, &policy(VICTIM, ClaimRule::Account));
    assert_eq!(refuse(&mut state, &claim(MALLORY, FOREIGN)), Refused::ClaimNotAllowed);
    // A Trim gives up the entry, not the rule.
    let up_to = state.head();
    accept(&mut state, &by(VICTIM, Detail::Trim { up_to }));
    accept(&mut state, &package(false));
    assert_eq!(refuse(&mut state, &claim(MALLORY, FOREIGN)), Refused::ClaimNotAllowed);
    assert_eq!(LogState::decode(state.encode()), Ok(state));
}

#[test]
fn who_may_claim_and_claims_without_end_makes_few_entries() {
    let mut state = stocked(60);
    accept(&mut state, &policy(VICTIM, ClaimRule::Anyone));
    let before = state.head().get();
    for number in 0..4_000 {
        let claimer = agent(number % 100);
        match state.apply(&claim(claimer, FOREIGN), None) {
            Verdict::Appended { .. } | Verdict::Duplicate { .. } => {}
            Verdict::Refused(refused) => assert_eq!(refused, Refused::ClaimsUnspent),
        }
    }
    let made = state.head().get() - before;
    assert_eq!(made, 2 * limits::CLAIMS_BY_ACCOUNT_MAX as u64);
    assert_eq!(state.key_packages().live as usize, 60 - limits::CLAIMS_BY_ACCOUNT_MAX);
    // Others still get their own.
    assert!(
        !accept(&mut state, &claim(agent(1), HOME))
            .expect("a package")
            .last_resort
    );
}

#[test]
fn the_last_resort_is_given_to_an_agent_by_one_entry_until_it_is_replaced() {
    let mut state = stocked(0);
    let taken = accept(&mut state, &claim(agent(1), HOME)).expect("a package");
    let at = state.head();
    for _ in 0..3_950 {
        assert_eq!(
            state.apply(&claim(agent(1), HOME), None),
            Verdict::Duplicate { offset: at }
        );
        assert_eq!(state.claimed_by(at), Some(taken));
    }
    assert_eq!(state.head(), at);
    // Two answers may be for two channels.
    accept(&mut state, &welcome(agent(1), 0xc4, 1, false));
    accept(&mut state, &welcome(agent(1), 0xc5, 1, false));
    assert_eq!(
        state.apply(&claim(agent(1), HOME), None),
        Verdict::Duplicate { offset: at }
    );
    accept(&mut state, &package(true));
    let newer = accept(&mut state, &claim(agent(1), HOME)).expect("a package");
    assert_eq!((newer.last_resort, newer.offset), (true, state.head().previous()));
}

#[test]
fn consent_withdrawn_is_withdrawn_for_the_last_resort_too() {
    let mut state = stocked(0);
    accept(&mut state, &policy(VICTIM, ClaimRule::Anyone));
    accept(&mut state, &claim(MALLORY, FOREIGN));
    accept(&mut state, &policy(VICTIM, ClaimRule::Account));
    assert_eq!(refuse(&mut state, &claim(MALLORY, FOREIGN)), Refused::ClaimNotAllowed);
    // Nor is an earlier claim good for anything.
    assert_eq!(
        refuse(&mut state, &welcome(MALLORY, 0xc4, 1, false)),
        Refused::WelcomeUnclaimed
    );
}

#[test]
fn consent_withdrawn_is_withdrawn_for_channels_that_the_agent_was_welcomed_to() {
    let mut state = stocked(2);
    accept(&mut state, &policy(VICTIM, ClaimRule::Anyone));
    accept(&mut state, &claim(MALLORY, FOREIGN));
    accept(&mut state, &welcome(MALLORY, 0xc4, 1, false));
    accept(&mut state, &claim(agent(1), HOME));
    accept(&mut state, &welcome(agent(1), 0xc5, 1, false));
    // Until then they need no claim, whoever sends them.
    accept(&mut state, &welcome(MALLORY, 0xc4, 2, true));
    accept(&mut state, &welcome(agent(3), 0xc4, 3, false));
    accept(&mut state, &policy(VICTIM, ClaimRule::Account));
    let unclaimed = Refused::WelcomeUnclaimed;
    for returns in [false, true] {
        for author in [MALLORY, agent(3)] {
            let more = welcome(author, 0xc4, 4, returns);
            assert!(!state.expects_welcome(&more));
            assert_eq!(refuse(&mut state, &more), unclaimed);
        }
        // Channels of agents that may claim are as before.
        accept(&mut state, &welcome(agent(3), 0xc5, 2 + u64::from(returns), returns));
    }
    assert_eq!(LogState::decode(state.encode()), Ok(state.clone()));
    // One of its own account's stays so, although a stranger added the agent there again.
    accept(&mut state, &policy(VICTIM, ClaimRule::Anyone));
    accept(&mut state, &claim(MALLORY, FOREIGN));
    accept(&mut state, &welcome(MALLORY, 0xc5, 5, false));
    accept(&mut state, &policy(VICTIM, ClaimRule::Account));
    accept(&mut state, &welcome(agent(3), 0xc5, 6, false));
    // Somebody who may claim brings it there again.
    accept(&mut state, &claim(agent(1), HOME));
    accept(&mut state, &welcome(agent(1), 0xc4, 5, false));
    accept(&mut state, &welcome(MALLORY, 0xc4, 6, true));
}

#[test]
fn all_other_accounts_together_are_bounded_and_the_owners_is_not_among_them() {
    let mut state = stocked(0);
    accept(&mut state, &policy(VICTIM, ClaimRule::Anyone));
    let before = state.head().get();
    for number in 0..3 * limits::CLAIMS_BY_OTHERS_MAX as u32 {
        let _ = state.apply(&claim(agent(number), account(number)), None);
    }
    assert_eq!(state.head().get() - before, limits::CLAIMS_BY_OTHERS_MAX as u64);
    assert_eq!(refuse(&mut state, &claim(MALLORY, FOREIGN)), Refused::ClaimsUnspent);
    assert!(accept(&mut state, &claim(agent(1), HOME)).is_some());
    assert_eq!(LogState::decode(state.encode()), Ok(state));
}

#[test]
fn a_welcome_without_a_claim_is_no_entry_and_leaves_an_empty_log() {
    for number in 0..limits::ROSTER_CHANGE_MAX as u32 {
        let nobody = agent(number);
        let mut state = LogState::new(nobody.log());
        let welcome = Header::welcome(
            MALLORY,
            ChannelId::from_bytes([1; 16]),
            Offset::FIRST,
            nobody,
            number % 2 == 0,
        );
        assert_eq!(refuse(&mut state, &welcome), Refused::WelcomeUnclaimed);
        assert_eq!(state, LogState::new(nobody.log()));
    }
}

#[test]
fn a_welcome_spends_one_claim_of_its_author() {
    let mut state = stocked(4);
    accept(&mut state, &claim(agent(1), HOME));
    assert_eq!(
        refuse(&mut state, &welcome(agent(2), 0xc4, 3, false)),
        Refused::WelcomeUnclaimed
    );
    accept(&mut state, &welcome(agent(1), 0xc4, 3, false));
    assert_eq!(
        refuse(&mut state, &welcome(agent(1), 0xc5, 3, false)),
        Refused::WelcomeUnclaimed
    );
    // Back in a channel that it was welcomed to: the member that answers has claimed nothing, or for another channel.
    accept(&mut state, &claim(agent(1), HOME));
    accept(&mut state, &welcome(agent(1), 0xc4, 5, true));
    accept(&mut state, &welcome(agent(2), 0xc4, 7, true));
    accept(&mut state, &welcome(agent(1), 0xc5, 3, false));
}

#[test]
fn who_was_put_on_a_roster_without_a_welcome_does_not_return() {
    let mut state = LogState::new(VICTIM.log());
    assert_eq!(
        refuse(&mut state, &welcome(MALLORY, 0xc4, 9, true)),
        Refused::WelcomeUnclaimed
    );
}

#[test]
fn an_entry_of_a_time_before_claims_had_to_be_there_is_read_again() {
    let mut state = LogState::new(VICTIM.log());
    let old = welcome(MALLORY, 0xc4, 9, false);
    assert!(matches!(
        state.replay(&old),
        Verdict::Appended {
            offset: Offset::FIRST,
            ..
        }
    ));
    assert_eq!(state.head(), Offset::FIRST);
    // A frame that was never an entry is none now.
    assert!(matches!(
        state.replay(&policy(MALLORY, ClaimRule::Anyone)),
        Verdict::Refused(Refused::NotMember)
    ));
}
