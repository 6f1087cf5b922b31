//! Members replace the leaves that they joined with, so that commits stay short.

use super::relay::{Agent, Relay, assert_agree, channel_of, settle};
use prost::Message as _;
use skytale_proto::ChannelId;
use skytale_proto::wire::Bundle;
use skytale_sdk::internals::engine::Outcome;

/// Bytes that one node of a commit's path takes at most, encrypted to one other node.
const PATH_NODE_BYTES: usize = 160;

/// Returns the length of a commit that only replaces an agent's keys, once it is in the log.
fn commit_bytes(relay: &Relay, channel: ChannelId, agents: &mut [Agent], by: usize) -> usize {
    let agent = &mut agents[by];
    agent.engine().update_keys(channel).expect("queued");
    let next = agent.next_frames(channel, usize::MAX).expect("offered");
    let [commit] = next.frames.try_into().map_err(|_| "one frame").expect("a commit");
    let (id, bytes) = (commit.frame.header().id, commit.frame.encoded().len());
    let outcome = relay.outcome(commit.frame);
    agent.engine().outcome(channel, id, outcome).expect("taken");
    rest(relay, channel, agents);
    bytes
}

fn rest(relay: &Relay, channel: ChannelId, agents: &mut [Agent]) {
    settle(relay, channel, &mut agents.iter_mut().collect::<Vec<_>>());
}

fn group(relay: &Relay, members: usize) -> (Vec<Agent>, ChannelId) {
    let mut agents: Vec<Agent> = (0..members).map(|_| Agent::new()).collect();
    let channel = channel_of(relay, &mut agents.iter_mut().collect::<Vec<_>>());
    (agents, channel)
}

#[test]
fn a_commit_is_short_once_members_that_joined_together_have_replaced_their_leaves() {
    const MEMBERS: usize = 64;
    let relay = Relay::new();
    let (mut two, pair) = group(&relay, 2);
    let smallest = commit_bytes(&relay, pair, &mut two, 0);
    let (mut agents, channel) = group(&relay, MEMBERS);
    let before = commit_bytes(&relay, channel, &mut agents, 0);
    // It encrypts to each of them.
    assert!(before > smallest + 60 * (MEMBERS - 4), "{before} bytes");

    // In any order: here neighbours in the tree are far apart.
    let mut commits = 0;
    for number in 0..MEMBERS {
        let at = number * 37 % MEMBERS;
        let epoch = agents[at].engine().epoch(channel).expect("known");
        let Some(members) = agents[at].engine().refresh_due(channel) else {
            continue;
        };
        assert_eq!(members as usize, MEMBERS);
        agents[at].engine().refresh(channel).expect("queued");
        rest(&relay, channel, &mut agents);
        assert_eq!(agents[at].engine().epoch(channel).expect("known"), epoch + 1);
        commits += 1;
    }
    assert_agree(channel, &mut agents.iter_mut().collect::<Vec<_>>());
    // One of each pair of neighbours, and the creator's own had committed.
    assert_eq!(commits, MEMBERS / 2 - 1);
    for agent in &mut agents {
        assert_eq!(agent.engine().refresh_due(channel), None);
    }
    let levels = MEMBERS.ilog2() as usize;
    for by in [0, 17, MEMBERS - 1] {
        let after = commit_bytes(&relay, channel, &mut agents, by);
        let most = smallest + levels * PATH_NODE_BYTES;
        assert!(
            after <= most,
            "{after} bytes, and {most} for {levels} nodes; {before} before"
        );
    }
}

#[test]
fn a_small_group_is_left_alone() {
    let relay = Relay::new();
    let (mut agents, channel) = group(&relay, 31);
    for agent in &mut agents {
        assert_eq!(agent.engine().refresh_due(channel), None);
        agent.engine().refresh(channel).expect("nothing to do");
        assert_eq!(agent.engine().channel(channel).expect("known").outbox, 0);
    }
}

#[test]
fn a_refresh_gives_way_to_every_other_commit() {
    let relay = Relay::new();
    let (mut agents, channel) = group(&relay, 32);
    let due: Vec<usize> = (0..agents.len())
        .filter(|at| agents[*at].engine().refresh_due(channel).is_some())
        .collect();
    let (one, other) = (due[0], due[due.len() - 1]);
    let epoch = agents[one].engine().epoch(channel).expect("known");
    // Two of them at once, and a change that the application wants, which comes first.
    let mut frames = Vec::new();
    for at in [one, other] {
        let agent = &mut agents[at];
        agent.engine().refresh(channel).expect("queued");
        agent.engine().refresh(channel).expect("queued already");
        assert_eq!(agent.engine().channel(channel).expect("known").outbox, 1);
        let next = agent.next_frames(channel, usize::MAX).expect("offered");
        frames.extend(next.frames.into_iter().map(|frame| (at, frame.frame)));
    }
    assert_eq!(frames.len(), 2);
    agents[0].engine().update_keys(channel).expect("queued");
    agents[0].push(&relay, channel);
    for (at, frame) in frames {
        let id = frame.header().id;
        let outcome = relay.outcome(frame);
        assert!(matches!(outcome, Outcome::StaleHandshake { .. }), "{outcome:?}");
        agents[at].engine().outcome(channel, id, outcome).expect("taken");
    }
    rest(&relay, channel, &mut agents);
    for at in [0, one, other] {
        let agent = &mut agents[at];
        assert_eq!(agent.engine().epoch(channel).expect("known"), epoch + 1, "one commit");
        assert_eq!(agent.engine().channel(channel).expect("known").outbox, 0);
        assert!(agent.engine().failed(channel).expect("listed").is_empty());
    }
    // They wait for their next time.
    for at in [one, other] {
        assert_eq!(agents[at].engine().refresh_due(channel), Some(32));
    }
    assert_eq!(agents[0].engine().refresh_due(channel), None);
}

#[test]
fn a_bundle_holds_the_tree_once_however_many_agents_it_adds() {
    const MEMBERS: usize = 40;
    let relay = Relay::new();
    let bundle = |adds: usize| {
        let (mut agents, channel) = group(&relay, MEMBERS);
        let mut packages = Vec::new();
        for _ in 0..adds {
            let mut added = Agent::new();
            added.stock_up(&relay);
            packages.push(agents[0].claim(&relay, added.id()));
        }
        agents[0].engine().add(channel, packages).expect("queued");
        let next = agents[0].next_frames(channel, usize::MAX).expect("offered");
        let body = Bundle::decode(next.frames[0].frame.body().clone()).expect("a bundle");
        (body.commit.len(), body.welcome.len())
    };
    let ((_, one), (_, eleven)) = (bundle(1), bundle(11));
    // A leaf with its keys and credential.
    assert!(one > 200 * MEMBERS, "{one} bytes: the tree is in it");
    // Ten more cost their own leaves and secrets, and no other tree.
    let each = (eleven - one) / 10;
    eprintln!("Welcome for one into {MEMBERS} members: {one} bytes; for each further one {each} bytes");
    assert!(each < 700, "{each} bytes for each further agent");
}
