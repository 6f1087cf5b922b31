//! [`LogState`] gives, for any frames in any order, the verdicts and the answers of the plain model.

use super::model::{Expected, Model};
use super::{LogState, Verdict};
use bytes::Bytes;
use proptest::prelude::*;
use proptest::sample::Index;
use skytale_proto::{
    AccountId, AgentId, Allowed, ChannelId, ChannelMode, ClaimRule, Detail, FrameId, Header, Holders, LogId, Offset,
    Policy, Right,
};
use std::collections::BTreeSet;

const AGENTS: usize = 5;
const CHANNEL: ChannelId = ChannelId::from_bytes([0xc4; 16]);

fn agent(number: usize) -> AgentId {
    AgentId::from_bytes([number as u8 + 1; 32])
}

fn account(number: u8) -> AccountId {
    AccountId::from_bytes([number; 16])
}

/// A frame to be, told in terms of the log as it is when its turn comes.
#[derive(Clone, Debug)]
struct Step {
    author: Author,
    parent: Parent,
    kind: Action,
    id: Id,
    /// Of a Create: the rights that its policy keeps for admins; 0 for none.
    policy: u8,
}

#[derive(Clone, Debug)]
enum Author {
    Agent(usize),
    /// Somebody on the roster, if anybody is.
    Member(Index),
}

#[derive(Clone, Debug)]
enum Parent {
    HandshakeHead,
    /// Some offset from 1 to a little past the head.
    Any(Index),
}

#[derive(Clone, Debug)]
enum Id {
    New,
    /// Id of an earlier frame, accepted or not.
    Earlier(Index),
    /// An id as Welcomes have them.
    OfWelcome(u8),
}

#[derive(Clone, Debug)]
enum Action {
    Create(Option<u8>),
    /// Removes those of `change` who are on the roster and adds those who are not, `again` removes and adds.
    Change {
        change: u8,
        again: u8,
        recipients: u8,
    },
    /// Says what the roster is after it: a few more, a few fewer, as it may be.
    Correct {
        roster: u8,
        adds: u8,
        policy: Option<(u8, u8)>,
    },
    /// Changes the policy, or with `back` puts an earlier one back.
    Policy {
        rights: u8,
        admins: u8,
        corrects: bool,
        back: Option<Index>,
    },
    /// Adds and removes without a look at the roster.
    Wild {
        adds: u8,
        removes: u8,
    },
    Proposal,
    Message,
    Raw(u8),
    /// An offset from just below those that may be trimmed to just past them.
    Trim(Index),
    /// Whether it is the last resort, and of which account.
    KeyPackage(bool, Option<u8>),
    Claim(Option<u8>),
    Consent(u8, ClaimRule),
    Welcome(u8, u64, bool),
    /// An earlier frame, whole.
    Resend(Index),
    /// A kind that no frame for such a log has; the fold is not told by a frame alone.
    Foreign,
}

fn chosen(mask: u8) -> Vec<AgentId> {
    (0..AGENTS)
        .filter(|number| mask & (1 << number) != 0)
        .map(agent)
        .collect()
}

fn kinds_of_channel() -> impl Strategy<Value = Action> {
    prop_oneof![
        1 => prop::option::of(0..2u8).prop_map(Action::Create),
        6 => any::<[u8; 3]>().prop_map(|[change, again, recipients]| Action::Change {
            change,
            // Seldom, so that it is not in each.
            again: again & recipients,
            recipients,
        }),
        2 => (any::<[u8; 2]>(), prop::option::of(any::<(u8, u8)>())).prop_map(|([roster, adds], policy)| Action::Correct {
            roster,
            adds: adds & roster & adds.rotate_left(3),
            policy,
        }),
        3 => (any::<[u8; 2]>(), any::<bool>(), prop::option::of(any::<Index>())).prop_map(
            |([rights, admins], corrects, back)| Action::Policy { rights, admins, corrects, back }
        ),
        1 => any::<[u8; 2]>().prop_map(|[adds, removes]| Action::Wild { adds, removes: removes & adds.rotate_left(3) }),
        2 => Just(Action::Proposal),
        6 => Just(Action::Message),
        2 => (0..2u8).prop_map(Action::Raw),
        1 => any::<Index>().prop_map(Action::Trim),
        2 => any::<Index>().prop_map(Action::Resend),
        1 => Just(Action::Foreign),
    ]
}

/// Mostly the one that most packages name.
fn some_account() -> impl Strategy<Value = Option<u8>> {
    prop_oneof![6 => Just(Some(0)), 3 => Just(Some(1)), 1 => Just(None)]
}

fn claim_rule() -> impl Strategy<Value = ClaimRule> {
    prop_oneof![
        Just(ClaimRule::Account),
        Just(ClaimRule::Anyone),
        (any::<u8>(), any::<bool>()).prop_map(|(agents, with_account)| {
            let accounts = with_account.then(|| account(1));
            Allowed::new(accounts, chosen(agents)).map_or(ClaimRule::Account, ClaimRule::Listed)
        }),
    ]
}

fn kinds_of_agent_log() -> impl Strategy<Value = Action> {
    prop_oneof![
        6 => (prop::bool::weighted(0.15), some_account()).prop_map(|(last, of)| Action::KeyPackage(last, of)),
        7 => some_account().prop_map(Action::Claim),
        1 => (0..2u8, claim_rule()).prop_map(|(of, rule)| Action::Consent(of, rule)),
        2 => (0..3u8, 1..4u64, any::<bool>()).prop_map(|(channel, offset, returns)| {
            Action::Welcome(channel, offset, returns)
        }),
        1 => any::<Index>().prop_map(Action::Trim),
        2 => any::<Index>().prop_map(Action::Resend),
        1 => Just(Action::Foreign),
    ]
}

fn step(author: impl Strategy<Value = Author>, kind: impl Strategy<Value = Action>) -> impl Strategy<Value = Step> {
    let parent = prop_oneof![
        5 => Just(Parent::HandshakeHead),
        1 => any::<Index>().prop_map(Parent::Any),
    ];
    let id = prop_oneof![
        15 => Just(Id::New),
        1 => any::<Index>().prop_map(Id::Earlier),
        1 => (0..3u8).prop_map(Id::OfWelcome),
    ];
    (author, parent, kind, id, any::<u8>()).prop_map(|(author, parent, kind, id, policy)| Step {
        author,
        parent,
        kind,
        id,
        policy,
    })
}

fn anybody() -> impl Strategy<Value = Author> {
    (0..AGENTS).prop_map(Author::Agent)
}

fn mostly_members() -> impl Strategy<Value = Author> {
    prop_oneof![1 => anybody(), 5 => any::<Index>().prop_map(Author::Member)]
}

/// A log, and steps on it.
fn story() -> impl Strategy<Value = (LogId, Vec<Step>)> {
    let channel = |mode: Option<u8>| {
        let policy = prop_oneof![Just(0u8), any::<u8>()];
        let steps = prop::collection::vec(step(mostly_members(), kinds_of_channel()), 0..80);
        (policy, steps).prop_map(move |(policy, mut steps)| {
            let create = Step {
                author: Author::Agent(0),
                parent: Parent::HandshakeHead,
                kind: Action::Create(mode),
                id: Id::New,
                policy,
            };
            steps.insert(0, create);
            (CHANNEL.log(), steps)
        })
    };
    let owner_often = prop_oneof![3 => Just(Author::Agent(0)), 1 => anybody()];
    prop_oneof![
        6 => channel(None),
        2 => channel(Some(0)),
        // Any first steps.
        1 => prop::collection::vec(step(mostly_members(), kinds_of_channel()), 0..20).prop_map(|steps| (CHANNEL.log(), steps)),
        4 => prop::collection::vec(step(owner_often, kinds_of_agent_log()), 0..80)
            .prop_map(|steps| (agent(0).log(), steps)),
    ]
}

/// A policy with some rights kept for some admins.
fn policy(rights: u8, admins: u8) -> Policy {
    let admins: BTreeSet<AgentId> = chosen(admins).into_iter().collect();
    let mut policy = Policy::from_parts(0, admins).expect("few");
    for (bit, right) in (0..).zip(Right::ALL) {
        if rights & (1 << bit) != 0 {
            policy.set(right, Holders::Admins);
        }
    }
    policy
}

/// The frame that a step is, where the log is as the model says.
fn header(step: &Step, model: &Model, log: LogId, sent: &[Header]) -> Header {
    if let Action::Resend(earlier) = &step.kind
        && !sent.is_empty()
    {
        return earlier.get(sent).clone();
    }
    let parent = match &step.parent {
        Parent::HandshakeHead => model.handshake_head().max(1),
        Parent::Any(offset) => offset.index(model.head() as usize + 2) as u64 + 1,
    };
    let roster = model.roster();
    let author = match &step.author {
        Author::Member(member) if !roster.is_empty() => roster.iter().copied().nth(member.index(roster.len())),
        Author::Member(_) => None,
        Author::Agent(number) => Some(agent(*number)),
    };
    let author = author.unwrap_or(agent(0));
    let detail = match &step.kind {
        Action::Create(mode) => Detail::Create {
            mode: mode.map_or(ChannelMode::Mls, |_| ChannelMode::Raw),
            account: mode.map(account),
            // Half of the channels have one; those of the conformance suite and of before have none.
            policy: (mode.is_none() && sent.is_empty() && step.policy != 0).then(|| policy(step.policy, 1)),
        },
        Action::Change {
            change,
            again,
            recipients,
        } => {
            let again = chosen(*again);
            let others = |agent: &AgentId| *agent != author;
            let mut adds: Vec<_> = chosen(*change)
                .into_iter()
                .filter(|agent| !roster.contains(agent))
                .collect();
            let mut removes: Vec<_> = chosen(*change)
                .into_iter()
                .filter(|agent| roster.contains(agent))
                .collect();
            let both = again
                .into_iter()
                .filter(|agent| roster.contains(agent) && !removes.contains(agent));
            let both: Vec<_> = both.filter(others).collect();
            adds.extend(&both);
            removes.extend(both);
            removes.retain(others);
            let recipients = adds
                .iter()
                .copied()
                .filter(|agent| chosen(*recipients).contains(agent))
                .collect();
            Detail::Commit {
                adds,
                removes,
                recipients,
                roster: None,
                policy: None,
            }
        }
        Action::Correct {
            roster: whole,
            adds,
            policy: new,
        } => {
            let mut whole: Vec<AgentId> = chosen(*whole).into_iter().chain([author]).collect();
            whole.sort_unstable();
            whole.dedup();
            Detail::Commit {
                adds: chosen(*adds),
                // Those that it leaves out, on the roster or not.
                removes: chosen(!*adds)
                    .into_iter()
                    .filter(|agent| !whole.contains(agent))
                    .collect(),
                recipients: Vec::new(),
                roster: Some(whole),
                policy: new.map(|(rights, admins)| policy(rights, admins)),
            }
        }
        Action::Policy {
            rights,
            admins,
            corrects,
            back,
        } => {
            let earlier: Vec<&Policy> = sent
                .iter()
                .filter_map(|header| match &header.detail {
                    Detail::Create { policy, .. } | Detail::Commit { policy, .. } => policy.as_ref(),
                    _ => None,
                })
                .collect();
            let new = match back {
                Some(back) if !earlier.is_empty() => (*back.get(&earlier)).clone(),
                _ => policy(*rights, *admins),
            };
            Detail::Commit {
                adds: Vec::new(),
                removes: Vec::new(),
                recipients: Vec::new(),
                roster: corrects.then(|| roster.iter().copied().collect()),
                policy: Some(new),
            }
        }
        Action::Wild { adds, removes } => Detail::Commit {
            adds: chosen(*adds),
            removes: chosen(*removes),
            recipients: chosen(*adds),
            roster: None,
            policy: None,
        },
        Action::Proposal => Detail::Proposal,
        Action::Message => Detail::Message,
        Action::Raw(number) => Detail::Raw {
            account: account(*number),
        },
        Action::Trim(at) => {
            let kept = model.head() - model.trimmed();
            Detail::Trim {
                up_to: Offset::new(model.trimmed() + at.index(kept as usize + 2) as u64),
            }
        }
        Action::KeyPackage(last_resort, of) => Detail::KeyPackage {
            last_resort: *last_resort,
            account: of.map(account),
        },
        Action::Claim(of) => Detail::KeyPackageClaim {
            account: of.map(account),
        },
        Action::Consent(of, rule) => Detail::KeyPackagePolicy {
            account: account(*of),
            rule: rule.clone(),
        },
        Action::Foreign | Action::Resend(_) if log == CHANNEL.log() => Detail::KeyPackageClaim { account: None },
        Action::Foreign | Action::Resend(_) => Detail::Message,
        Action::Welcome(channel, offset, returns) => Detail::Welcome {
            channel: ChannelId::from_bytes([0xc4 - channel; 16]),
            offset: Offset::new(*offset),
            returns: *returns,
        },
    };
    let id = match &step.id {
        Id::Earlier(earlier) if !sent.is_empty() => earlier.get(sent).id,
        Id::OfWelcome(number) => FrameId::of_welcome(&CHANNEL, Offset::new(u64::from(*number)), &agent(0)),
        Id::New | Id::Earlier(_) => FrameId::from_bytes((sent.len() as u128).to_be_bytes()),
    };
    Header {
        log,
        id,
        author,
        parent: Offset::new(parent),
        detail,
    }
}

fn told(verdict: &Verdict, header: &Header) -> Expected {
    match verdict {
        Verdict::Duplicate { offset } => Expected::Duplicate(offset.get()),
        Verdict::Refused(refused) => Expected::Refused(refused.code(), refused.offset().map(Offset::get)),
        Verdict::Appended { offset, effects } => Expected::Appended {
            offset: offset.get(),
            welcomed: effects
                .welcomes
                .iter()
                .map(|welcome| {
                    let recipient = welcome.log.agent().expect("a Welcome is for an agent");
                    let Detail::Commit { removes, .. } = &header.detail else {
                        panic!("Welcomes come from commits");
                    };
                    let returns = removes.contains(&recipient);
                    assert_eq!(
                        *welcome,
                        Header::welcome(header.author, CHANNEL, *offset, recipient, returns)
                    );
                    recipient
                })
                .collect(),
            claimed: effects
                .claimed
                .map(|claimed| (claimed.offset.get(), claimed.last_resort)),
            trimmed: effects.trimmed.map(Offset::get),
        },
    }
}

/// Compares all answers of a state with the model's.
fn compare(state: &LogState, model: &Model) -> Result<(), TestCaseError> {
    prop_assert_eq!(state.head().get(), model.head());
    prop_assert_eq!(state.handshake_head().get(), model.handshake_head());
    prop_assert_eq!(state.first_available().get(), model.trimmed() + 1);
    prop_assert!(state.roster().eq(model.roster()));
    prop_assert_eq!(state.policy().cloned(), model.policy());
    let status = state.status();
    prop_assert_eq!(status.head, state.head());
    prop_assert_eq!(status.first, state.first_available());
    prop_assert_eq!(status.handshake_head, state.handshake_head());
    // It may say that more is gone than is; never that less is.
    prop_assert!((model.given_up()..=model.trimmed()).contains(&status.given_up.get()));
    let welcomes: Vec<_> = status
        .welcomes
        .iter()
        .map(|(channel, bundle)| (*channel, bundle.get()))
        .collect();
    prop_assert_eq!(welcomes, model.welcomes_given_up());
    let stock = state.key_packages();
    prop_assert_eq!((stock.live as usize, stock.last_resort), model.stock());
    let claims = model.claimed();
    for claim in 0..=model.head() + 1 {
        let claimed = state.claimed_by(Offset::new(claim));
        let claimed = claimed.map(|claimed| (claimed.offset.get(), claimed.last_resort));
        prop_assert_eq!(claimed, claims.get(&claim).copied(), "claim at {}", claim);
    }
    for number in 0..AGENTS + 1 {
        for whose in 0..2 {
            let expected = model.accesses(agent(number), account(whose));
            for (after, expected) in (0..).zip(&expected) {
                let access = state.access(agent(number), account(whose), Offset::new(after));
                prop_assert_eq!(access, *expected, "agent {} after {}", number, after);
            }
            // Nothing is known of later entries: it is as the next one.
            let far = state.access(agent(number), account(whose), Offset::MAX);
            prop_assert_eq!(Some(&far), expected.last());
        }
    }
    Ok(())
}

/// A state at the end of a story.
fn state() -> impl Strategy<Value = (LogState, Vec<Header>)> {
    story().prop_map(|(log, steps)| {
        let (mut state, mut model, mut sent) = (LogState::new(log), Model::new(log), Vec::new());
        for step in &steps {
            let header = header(step, &model, log, &sent);
            state.apply(&header, model.newest(header.id).map(Offset::new));
            model.apply(&header);
            sent.push(header);
        }
        (state, sent)
    })
}

/// The bytes with the checksum that fits them.
fn sealed(mut bytes: Vec<u8>) -> Bytes {
    let end = bytes.len().saturating_sub(4);
    let checksum = crc32c::crc32c(&bytes[..end]);
    bytes.truncate(end);
    bytes.extend(checksum.to_le_bytes());
    bytes.into()
}

/// Bytes give an error, or a state that has exactly these bytes and takes frames like any other.
fn decodes_or_not(bytes: Bytes, frames: &[Header]) -> Result<(), TestCaseError> {
    let Ok(mut state) = LogState::decode(bytes.clone()) else {
        return Ok(());
    };
    prop_assert_eq!(state.encode(), bytes);
    for header in frames {
        let (before, head) = (state.encode(), state.head());
        let header = Header {
            log: state.log(),
            ..header.clone()
        };
        match state.apply(&header, None) {
            Verdict::Appended { offset, .. } => prop_assert_eq!(offset.get(), head.get() + 1),
            Verdict::Duplicate { .. } | Verdict::Refused(_) => prop_assert_eq!(state.encode(), before),
        }
        prop_assert_eq!(LogState::decode(state.encode()), Ok(state.clone()));
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn every_verdict_is_that_of_the_plain_model((log, steps) in story()) {
        let (mut state, mut model, mut sent) = (LogState::new(log), Model::new(log), Vec::new());
        for (number, step) in steps.iter().enumerate() {
            let header = header(step, &model, log, &sent);
            let newest = model.newest(header.id);
            let before = state.encode();

            // An index that has forgotten trimmed entries, and one that has not, lead to the same.
            let mut prompt = state.clone();
            let kept = newest.filter(|offset| *offset > model.trimmed()).map(Offset::new);
            let verdict = prompt.apply(&header, kept);
            prop_assert_eq!(&state.apply(&header, newest.map(Offset::new)), &verdict);
            prop_assert_eq!(&state, &prompt);

            prop_assert_eq!(told(&verdict, &header), model.apply(&header), "frame {:?}", header);
            prop_assert_eq!(state.log(), log);
            prop_assert_eq!(state.head().get(), model.head());
            if !matches!(verdict, Verdict::Appended { .. }) {
                prop_assert_eq!(state.encode(), before, "an entry alone moves the state");
            }
            // A state that is kept and read again goes on as if nothing had been.
            let decoded = LogState::decode(state.encode());
            prop_assert_eq!(decoded.as_ref(), Ok(&state));
            if number % 11 == 0 {
                compare(&state, &model)?;
            }
            sent.push(header);
        }
        compare(&state, &model)?;
    }

    #[test]
    fn a_log_that_got_trims_alone_has_given_up_nothing_more(
        (mut state, _) in state(),
        trims in prop::collection::vec(any::<Index>(), 1..8),
    ) {
        let log = state.log();
        prop_assume!(state.head() > Offset::ZERO);
        let given_up = state.status().given_up;
        let content = state.head();
        for (number, at) in trims.iter().enumerate() {
            let kept = state.head().get() + 1 - state.first_available().get();
            let up_to = Offset::new(state.first_available().get() + at.index(kept as usize) as u64);
            let header = Header {
                log,
                id: FrameId::from_bytes((u128::MAX - number as u128).to_be_bytes()),
                // The store's: no member, whom a policy could forbid it.
                author: AgentId::from_bytes([0; 32]),
                parent: Offset::ZERO,
                detail: Detail::Trim { up_to },
            };
            let applied = state.apply(&header, None);
            prop_assert!(matches!(applied, Verdict::Appended { .. }), "{:?}", applied);
        }
        // A reader that had read all entries has lost nothing.
        prop_assert!(state.status().given_up <= content.max(given_up));
    }

    #[test]
    fn damaged_bytes_are_never_a_state((state, frames) in state(), bit in any::<Index>(), cut in any::<Index>()) {
        let bytes = state.encode();
        let mut flipped = bytes.to_vec();
        let bit = bit.index(flipped.len() * 8);
        flipped[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(LogState::decode(flipped.into()).is_err());
        let cut = cut.index(bytes.len());
        prop_assert!(LogState::decode(bytes.slice(..cut)).is_err());
        prop_assert!(decodes_or_not(sealed(bytes[..cut].to_vec()), &frames).is_ok());
    }

    #[test]
    fn forged_bytes_are_an_error_or_a_sound_state(
        (state, frames) in state(),
        damage in prop::collection::vec((any::<Index>(), prop_oneof![Just(0), Just(1), Just(0xff), any::<u8>()]), 1..4),
    ) {
        let mut bytes = state.encode().to_vec();
        let end = bytes.len() - 4;
        for (at, byte) in damage {
            bytes[at.index(end)] = byte;
        }
        decodes_or_not(sealed(bytes), &frames)?;
    }

    #[test]
    fn any_bytes_are_an_error_or_a_sound_state(rule in 0..5u8, rest in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut bytes = vec![3, rule];
        bytes.extend(rest);
        let _ = LogState::decode(bytes.clone().into());
        decodes_or_not(sealed(bytes), &[])?;
    }
}
