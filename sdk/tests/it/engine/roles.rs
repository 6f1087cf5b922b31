//! Roles and rights, in order and in races, with lying members.

use super::relay::{Agent, Relay, assert_agree, governed_channel_of, settle};
use proptest::prelude::*;
use skytale_proto::{AgentId, ChannelId, Code, Detail, Frame, FrameId, Header, Holders, Policy, Right};
use skytale_sdk::{ChannelState, Event, PolicyChange};
use std::collections::BTreeSet;

fn promote(agents: &[AgentId]) -> PolicyChange {
    PolicyChange::promote(agents)
}

fn demote(agents: &[AgentId]) -> PolicyChange {
    PolicyChange::demote(agents)
}

/// Checks that the relay node and every agent have the same policy and members.
fn assert_same(relay: &Relay, channel: ChannelId, agents: &mut [&mut Agent]) {
    let folded = relay.folded(channel);
    let roster: Vec<AgentId> = folded.roster().collect();
    for agent in agents {
        assert_eq!(agent.engine().members(channel).expect("known"), roster);
        assert_eq!(agent.engine().policy(channel).expect("known").as_ref(), folded.policy());
    }
}

#[test]
fn a_new_channel_is_governed_by_its_creator_and_by_those_it_promotes() {
    let relay = Relay::new();
    let (mut a, mut b, mut c) = (Agent::new(), Agent::new(), Agent::new());
    let channel = governed_channel_of(&relay, &mut [&mut a, &mut b, &mut c]);
    assert_eq!(b.engine().policy(channel).expect("known"), Some(Policy::new(a.id())));
    let refused = b.engine().remove(channel, &[c.id()]).map_err(|error| error.code());
    assert_eq!(refused, Err(Code::PolicyForbids));
    let own = b.id();
    let refused = b.engine().change_policy(channel, &promote(&[own]));
    assert_eq!(refused.map_err(|error| error.code()), Err(Code::PolicyForbids));
    let stranger = AgentId::from_bytes([7; 32]);
    let refused = a.engine().change_policy(channel, &promote(&[stranger]));
    assert_eq!(refused.map_err(|error| error.code()), Err(Code::NoSuchMember));

    a.engine().change_policy(channel, &promote(&[b.id()])).expect("queued");
    settle(&relay, channel, &mut [&mut a, &mut b, &mut c]);
    let is_told = |event: &Event| matches!(event, Event::RoleChanged { agent, is_admin: true, .. } if *agent == b.id());
    assert!(c.take_events().iter().any(is_told));
    let closed = PolicyChange::set(&[(Right::Add, Holders::Admins)]);
    b.engine().change_policy(channel, &closed).expect("queued");
    settle(&relay, channel, &mut [&mut a, &mut b, &mut c]);
    assert!(
        c.take_events()
            .iter()
            .any(|event| matches!(event, Event::PolicyChanged { .. }))
    );
    let mut d = Agent::new();
    d.stock_up(&relay);
    let package = c.claim(&relay, d.id());
    let refused = c.engine().add(channel, vec![package]).map_err(|error| error.code());
    assert_eq!(refused, Err(Code::PolicyForbids));
    // Again is not needed.
    let again = b.engine().change_policy(channel, &closed).expect("queued");
    b.engine().remove(channel, &[c.id()]).expect("queued");
    settle(&relay, channel, &mut [&mut a, &mut b, &mut c]);
    let is_unneeded = |event: &Event| matches!(event, Event::Unneeded { frame_id, .. } if *frame_id == again);
    assert!(b.take_events().iter().any(is_unneeded));
    assert_eq!(c.engine().channel(channel).expect("known").state, ChannelState::Left);
    assert_same(&relay, channel, &mut [&mut a, &mut b]);
    assert_agree(channel, &mut [&mut a, &mut b]);
}

#[test]
fn the_last_admin_names_another_before_it_leaves() {
    let relay = Relay::new();
    let (mut a, mut b, mut c) = (Agent::new(), Agent::new(), Agent::new());
    let channel = governed_channel_of(&relay, &mut [&mut a, &mut b, &mut c]);
    let code = |left: Result<FrameId, skytale_sdk::EngineError>| left.map(drop).map_err(|error| error.code());
    assert_eq!(code(a.engine().leave(channel)), Err(Code::LastAdmin));
    let own = a.id();
    assert_eq!(
        code(a.engine().change_policy(channel, &demote(&[own]))),
        Err(Code::LastAdmin)
    );
    a.engine().change_policy(channel, &promote(&[b.id()])).expect("queued");
    settle(&relay, channel, &mut [&mut a, &mut b, &mut c]);
    a.engine().leave(channel).expect("queued");
    // No admin lets it go.
    settle(&relay, channel, &mut [&mut a, &mut c]);
    assert_eq!(a.engine().channel(channel).expect("known").state, ChannelState::Left);
    settle(&relay, channel, &mut [&mut b, &mut c]);
    assert_eq!(b.engine().admins(channel).expect("known"), [b.id()]);
    assert_same(&relay, channel, &mut [&mut b, &mut c]);
    // Both of two admins at once: all that are left are admins.
    b.engine().change_policy(channel, &promote(&[c.id()])).expect("queued");
    settle(&relay, channel, &mut [&mut b, &mut c]);
    let mut d = Agent::new();
    d.stock_up(&relay);
    let package = b.claim(&relay, d.id());
    b.engine().add(channel, vec![package]).expect("queued");
    settle(&relay, channel, &mut [&mut b, &mut c, &mut d]);
    b.engine().leave(channel).expect("another admin is there");
    c.engine().leave(channel).expect("another admin is there");
    settle(&relay, channel, &mut [&mut b, &mut c, &mut d]);
    // One of them may have found in time that it is the last.
    let mut left: Vec<&mut Agent> = vec![&mut d];
    for agent in [&mut b, &mut c] {
        if agent.engine().channel(channel).expect("known").state == ChannelState::Active {
            left.push(agent);
        }
    }
    assert!(!left[0].engine().admins(channel).expect("known").is_empty());
    assert_same(&relay, channel, &mut left);
}

#[test]
fn an_admin_that_is_demoted_meanwhile_removes_nobody() {
    let relay = Relay::new();
    let (mut a, mut b, mut c) = (Agent::new(), Agent::new(), Agent::new());
    let channel = governed_channel_of(&relay, &mut [&mut a, &mut b, &mut c]);
    a.engine().change_policy(channel, &promote(&[b.id()])).expect("queued");
    settle(&relay, channel, &mut [&mut a, &mut b, &mut c]);
    let removal = b.engine().remove(channel, &[c.id()]).expect("an admin");
    a.engine().change_policy(channel, &demote(&[b.id()])).expect("queued");
    a.push(&relay, channel);
    settle(&relay, channel, &mut [&mut b, &mut a, &mut c]);
    let failed = b.engine().failed(channel).expect("listed");
    let failed: Vec<_> = failed.iter().map(|failed| (failed.frame_id, failed.code)).collect();
    assert_eq!(failed, [(removal, Code::PolicyForbids)]);
    assert!(a.engine().members(channel).expect("known").contains(&c.id()));
    assert_same(&relay, channel, &mut [&mut a, &mut b, &mut c]);
}

const AGENTS: usize = 4;

#[derive(Clone, Copy, Debug)]
enum Step {
    Send(usize),
    Rotate(usize),
    Add(usize, usize),
    Remove(usize, usize),
    Leave(usize),
    Promote(usize, usize),
    Demote(usize, usize),
    Restrict(usize, usize, bool),
    Pull(usize, usize),
    Push(usize),
    PushAndLose(usize),
    Crash(usize),
    Lie(usize, Lie),
    /// An agent that is on the roster only by a lie appends unreadable entries.
    Ghost(u8),
}

#[derive(Clone, Copy, Debug)]
enum Lie {
    AddsGhost,
    Removes(usize),
    Strikes(usize),
    MakesItselfTheOnlyAdmin,
}

fn step() -> impl Strategy<Value = Step> {
    let who = 0..AGENTS;
    let pair = || (0..AGENTS, 0..AGENTS);
    let lie = prop_oneof![
        2 => Just(Lie::AddsGhost),
        1 => who.clone().prop_map(Lie::Removes),
        1 => who.clone().prop_map(Lie::Strikes),
        1 => Just(Lie::MakesItselfTheOnlyAdmin),
    ];
    prop_oneof![
        5 => who.clone().prop_map(Step::Send),
        1 => who.clone().prop_map(Step::Rotate),
        1 => pair().prop_map(|(a, b)| Step::Add(a, b)),
        1 => pair().prop_map(|(a, b)| Step::Remove(a, b)),
        1 => who.clone().prop_map(Step::Leave),
        2 => pair().prop_map(|(a, b)| Step::Promote(a, b)),
        1 => pair().prop_map(|(a, b)| Step::Demote(a, b)),
        1 => (who.clone(), 0..3usize, any::<bool>()).prop_map(|(a, right, admins)| Step::Restrict(a, right, admins)),
        4 => (who.clone(), 1..6usize).prop_map(|(a, n)| Step::Pull(a, n)),
        5 => who.clone().prop_map(Step::Push),
        1 => who.clone().prop_map(Step::PushAndLose),
        1 => who.clone().prop_map(Step::Crash),
        2 => (who, lie).prop_map(|(a, lie)| Step::Lie(a, lie)),
        2 => (0..3u8).prop_map(Step::Ghost),
    ]
}

fn ghost() -> AgentId {
    AgentId::from_bytes([0xee; 32])
}

/// Appends an entry of a malicious member: a lying header over an unreadable body.
fn lie(relay: &Relay, channel: ChannelId, author: AgentId, detail: Detail) -> bool {
    let header = Header {
        log: channel.log(),
        id: FrameId::generate(),
        author,
        parent: relay.folded(channel).handshake_head(),
        detail,
    };
    relay.append(Frame::new(header, &b"junk"[..]).expect("a frame")).is_ok()
}

fn header_of(lie: Lie, author: AgentId, ids: &[AgentId], relay: &Relay, channel: ChannelId) -> Option<Detail> {
    let folded = relay.folded(channel);
    let roster: BTreeSet<AgentId> = folded.roster().collect();
    if !roster.contains(&author) {
        return None;
    }
    let mut commit = (Vec::new(), Vec::new(), None, None);
    match lie {
        Lie::AddsGhost if !roster.contains(&ghost()) => commit.0.push(ghost()),
        Lie::Removes(whom) if ids[whom] != author => commit.1.push(ids[whom]),
        Lie::Strikes(whom) if ids[whom] != author => {
            let left = roster.iter().filter(|agent| **agent != ids[whom]).copied().collect();
            commit.2 = Some(left);
        }
        Lie::MakesItselfTheOnlyAdmin => commit.3 = Some(Policy::new(author)),
        _ => return None,
    }
    let (adds, removes, roster, policy) = commit;
    Some(Detail::Commit {
        adds,
        removes,
        recipients: Vec::new(),
        roster,
        policy,
    })
}

fn run(steps: &[Step]) {
    let relay = Relay::new();
    let mut agents: Vec<Agent> = (0..AGENTS).map(|_| Agent::new()).collect();
    let channel = {
        let mut all: Vec<&mut Agent> = agents.iter_mut().collect();
        governed_channel_of(&relay, &mut all)
    };
    let ids: Vec<AgentId> = agents.iter().map(Agent::id).collect();
    // A member that has lied does nothing else: its own engine does not decide its fate.
    let mut turned: BTreeSet<usize> = BTreeSet::new();
    for step in steps {
        let who = match *step {
            Step::Send(who) | Step::Rotate(who) | Step::Add(who, _) | Step::Remove(who, _) | Step::Leave(who) => {
                Some(who)
            }
            Step::Promote(who, _) | Step::Demote(who, _) | Step::Restrict(who, ..) | Step::Pull(who, _) => Some(who),
            Step::Push(who) | Step::PushAndLose(who) | Step::Crash(who) | Step::Lie(who, _) => Some(who),
            Step::Ghost(_) => None,
        };
        if who.is_some_and(|who| turned.contains(&who)) {
            continue;
        }
        match *step {
            Step::Send(who) => drop(agents[who].engine().send(channel, b"text")),
            Step::Rotate(who) => drop(agents[who].engine().update_keys(channel)),
            Step::Add(who, whom) if who != whom && !turned.contains(&whom) => {
                agents[whom].stock_up(&relay);
                let package = agents[who].claim(&relay, ids[whom]);
                drop(agents[who].engine().add(channel, vec![package]));
            }
            Step::Remove(who, whom) if who != whom => drop(agents[who].engine().remove(channel, &[ids[whom]])),
            Step::Leave(who) => {
                drop(agents[who].engine().leave(channel));
                drop(agents[who].engine().leave_alone(channel));
            }
            Step::Promote(who, whom) => drop(agents[who].engine().change_policy(channel, &promote(&[ids[whom]]))),
            Step::Demote(who, whom) => drop(agents[who].engine().change_policy(channel, &demote(&[ids[whom]]))),
            Step::Restrict(who, right, admins) => {
                let holders = if admins { Holders::Admins } else { Holders::Members };
                // Never so that a lie may take everybody off the roster.
                let right = [Right::Add, Right::Invite, Right::Trim][right];
                let change = PolicyChange::set(&[(right, holders)]);
                drop(agents[who].engine().change_policy(channel, &change));
            }
            Step::Pull(who, limit) => {
                agents[who].read_own_log(&relay);
                agents[who].pull(&relay, channel, limit);
            }
            Step::Push(who) => drop(agents[who].push(&relay, channel)),
            Step::PushAndLose(who) => {
                if let Ok(next) = agents[who].next_frames(channel, 4_096) {
                    for frame in next.frames {
                        let _ = relay.append(frame.frame);
                    }
                    agents[who].engine().connection_lost();
                }
            }
            Step::Crash(who) => agents[who].crash(),
            Step::Lie(who, what) => {
                let folded = relay.folded(channel);
                let admins = folded
                    .policy()
                    .map(|policy| policy.admins().clone())
                    .unwrap_or_default();
                let honest = |agent: &AgentId| {
                    (0..AGENTS).any(|other| ids[other] == *agent && other != who && !turned.contains(&other))
                };
                // Where no honest admin is there, nobody has to be obeyed by the log; and one of two stays honest.
                let governed = folded.roster().any(|agent| honest(&agent) && admins.contains(&agent));
                if governed
                    && turned.len() + 2 < AGENTS
                    && let Some(detail) = header_of(what, ids[who], &ids, &relay, channel)
                    && spares_the_last_admin(&detail, &admins, &honest)
                    && lie(&relay, channel, ids[who], detail)
                {
                    turned.insert(who);
                }
            }
            Step::Ghost(kind) => {
                let detail = match kind {
                    0 => Detail::Message,
                    1 => Detail::Proposal,
                    _ => Detail::Commit {
                        adds: Vec::new(),
                        removes: Vec::new(),
                        recipients: Vec::new(),
                        roster: None,
                        policy: None,
                    },
                };
                lie(&relay, channel, ghost(), detail);
            }
            Step::Add(..) | Step::Remove(..) => {}
        }
    }
    let mut honest: Vec<&mut Agent> = agents
        .iter_mut()
        .enumerate()
        .filter_map(|(who, agent)| (!turned.contains(&who)).then_some(agent))
        .collect();
    settle(&relay, channel, &mut honest);
    check(&relay, channel, honest);
}

/// Whether a lie leaves an honest admin: a lying admin may remove everybody, and then nobody is left to correct it.
fn spares_the_last_admin(detail: &Detail, admins: &BTreeSet<AgentId>, honest: &impl Fn(&AgentId) -> bool) -> bool {
    let Detail::Commit { removes, roster, .. } = detail else {
        return true;
    };
    let stays =
        |agent: &&AgentId| !removes.contains(agent) && roster.as_ref().is_none_or(|roster| roster.contains(agent));
    admins.iter().filter(|agent| honest(agent)).any(|agent| stays(&agent))
}

fn check(relay: &Relay, channel: ChannelId, mut honest: Vec<&mut Agent>) {
    let members = |agent: &mut Agent| match agent.engine().channel(channel).expect("known").state {
        ChannelState::Left => None,
        _ => Some(agent.engine().members(channel).expect("known")),
    };
    // If all of them leave, the group has ended, and nobody commits any more.
    if honest.iter_mut().all(|agent| members(agent).is_none()) {
        return;
    }
    let roster: Vec<AgentId> = relay.folded(channel).roster().collect();
    let mut present: Vec<&mut Agent> = Vec::new();
    for agent in honest.drain(..) {
        if let Some(members) = members(agent) {
            assert_eq!(members, roster, "the roster is the group");
            present.push(agent);
        } else {
            assert!(!roster.contains(&agent.id()), "nobody left that is on the roster");
        }
    }
    assert!(!roster.contains(&ghost()));
    assert_same(relay, channel, &mut present);
    // Everybody who is there is heard by everybody: nobody is locked out.
    for agent in &mut present {
        agent.send(channel, "the last word");
    }
    settle(relay, channel, &mut present);
    for agent in &mut present {
        agent.send(channel, "and another");
    }
    settle(relay, channel, &mut present);
    for agent in &mut present {
        assert_eq!(agent.engine().channel(channel).expect("known").outbox, 0);
        let last = agent.texts(channel);
        let words = last.iter().filter(|text| *text == "the last word").count();
        assert!(last.len() >= 2 && words >= 1);
    }
    if !present.is_empty() {
        assert_agree(channel, &mut present);
    }
}

/// Returns the settings; `PROPTEST_CASES` sets more cases.
fn config() -> ProptestConfig {
    let config = ProptestConfig {
        max_shrink_iters: 200,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    match std::env::var_os("PROPTEST_CASES") {
        Some(_) => config,
        None => ProptestConfig { cases: 24, ..config },
    }
}

#[test]
fn a_policy_is_put_back_before_it_is_changed() {
    run(&[
        Step::Promote(0, 3),
        Step::PushAndLose(0),
        Step::Lie(0, Lie::MakesItselfTheOnlyAdmin),
        Step::Pull(3, 1),
        Step::Promote(3, 1),
    ]);
}

#[test]
fn an_admin_that_lies_while_it_leaves_is_put_right() {
    run(&[
        Step::Promote(0, 1),
        Step::Push(0),
        Step::Pull(0, 1),
        Step::Leave(0),
        Step::Push(0),
        Step::Lie(0, Lie::MakesItselfTheOnlyAdmin),
    ]);
}

#[test]
fn who_is_removed_while_it_is_struck_learns_it() {
    run(&[Step::Remove(0, 2), Step::Lie(1, Lie::Strikes(2))]);
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn in_the_end_the_log_and_all_members_agree_on_members_and_roles(
        steps in proptest::collection::vec(step(), 1..60),
    ) {
        run(&steps);
    }
}
