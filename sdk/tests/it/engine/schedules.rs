//! Random schedules: agents act, go offline, crash and race; in the end all agree.

use super::relay::{Agent, Relay, assert_agree, channel_of, settle};
use proptest::prelude::*;
use skytale_proto::{AgentId, Code};
use skytale_sdk::internals::engine::Outcome;
use skytale_sdk::{ChannelState, Event};
use std::collections::BTreeMap;

const AGENTS: usize = 3;

#[derive(Clone, Copy, Debug)]
enum Step {
    Send(usize),
    Rotate(usize),
    /// The first asks for the second to be removed; it is added again in the end.
    Remove(usize, usize),
    /// The first adds the second, if it is gone.
    Add(usize, usize),
    /// Reads some entries.
    Pull(usize, usize),
    /// Appends what may be appended.
    Push(usize),
    /// Appends, and loses the answers.
    PushAndLose(usize),
    /// Appends this many frames; the relay is too busy for the rest.
    PushUntilBusy(usize, usize),
    Leave(usize),
    /// Does not wait for its turn.
    TakeTurn(usize),
    Crash(usize),
    Ack(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let who = 0..AGENTS;
    prop_oneof![
        6 => who.clone().prop_map(Step::Send),
        2 => who.clone().prop_map(Step::Rotate),
        1 => (who.clone(), who.clone()).prop_map(|(a, b)| Step::Remove(a, b)),
        1 => (who.clone(), who.clone()).prop_map(|(a, b)| Step::Add(a, b)),
        4 => (who.clone(), 1..6usize).prop_map(|(a, n)| Step::Pull(a, n)),
        4 => who.clone().prop_map(Step::Push),
        2 => who.clone().prop_map(Step::PushAndLose),
        2 => (who.clone(), 0..4usize).prop_map(|(a, n)| Step::PushUntilBusy(a, n)),
        1 => who.clone().prop_map(Step::Leave),
        1 => who.clone().prop_map(Step::TakeTurn),
        2 => who.clone().prop_map(Step::Crash),
        1 => who.prop_map(Step::Ack),
    ]
}

fn run(steps: &[Step]) {
    let relay = Relay::new();
    let mut agents: Vec<Agent> = (0..AGENTS).map(|_| Agent::new()).collect();
    let channel = {
        let mut all: Vec<&mut Agent> = agents.iter_mut().collect();
        channel_of(&relay, &mut all)
    };
    let ids: Vec<AgentId> = agents.iter().map(Agent::id).collect();
    let mut sent: BTreeMap<AgentId, Vec<String>> = BTreeMap::new();
    for (n, step) in steps.iter().enumerate() {
        match *step {
            Step::Send(who) => {
                let text = format!("{who}: {n}");
                if agents[who].engine().send(channel, text.as_bytes()).is_ok() {
                    sent.entry(ids[who]).or_default().push(text);
                }
            }
            Step::Rotate(who) => drop(agents[who].engine().update_keys(channel)),
            Step::Remove(who, whom) if who != whom => {
                drop(agents[who].engine().remove(channel, &[ids[whom]]));
            }
            Step::Add(who, whom) if who != whom => {
                agents[whom].stock_up(&relay);
                let package = agents[who].claim(&relay, ids[whom]);
                drop(agents[who].engine().add(channel, vec![package]));
            }
            Step::Pull(who, limit) => {
                agents[who].read_own_log(&relay);
                agents[who].pull(&relay, channel, limit);
            }
            Step::Push(who) => drop(agents[who].push(&relay, channel)),
            Step::PushAndLose(who) => {
                if let Ok(next) = agents[who].next_frames(channel, 4_096) {
                    agents[who].events.extend(next.events);
                    for frame in next.frames {
                        let _ = relay.append(frame.frame);
                    }
                    agents[who].engine().connection_lost();
                }
            }
            Step::PushUntilBusy(who, room) => {
                if let Ok(next) = agents[who].next_frames(channel, 4_096) {
                    agents[who].events.extend(next.events);
                    for (n, frame) in next.frames.into_iter().enumerate() {
                        let id = frame.frame.header().id;
                        let busy = Outcome::Refused {
                            code: Code::RateLimited,
                            retryable: true,
                        };
                        let outcome = if n < room { relay.outcome(frame.frame) } else { busy };
                        let events = agents[who].engine().outcome(channel, id, outcome).expect("taken");
                        agents[who].events.extend(events);
                    }
                }
            }
            Step::Leave(who) => drop(agents[who].engine().leave(channel)),
            Step::TakeTurn(who) => drop(agents[who].engine().take_turn(channel)),
            Step::Crash(who) => agents[who].crash(),
            Step::Ack(who) => {
                let cursor = agents[who].engine().cursor(channel).expect("known");
                agents[who].engine().ack(channel, cursor).expect("kept");
            }
            Step::Remove(..) | Step::Add(..) => {}
        }
    }
    let mut all: Vec<&mut Agent> = agents.iter_mut().collect();
    settle(&relay, channel, &mut all);
    check(&relay, channel, &mut all, &sent);
}

fn check(
    relay: &Relay,
    channel: skytale_proto::ChannelId,
    agents: &mut [&mut Agent],
    sent: &BTreeMap<AgentId, Vec<String>>,
) {
    // Each agent's transcript has every message of the log that it may read: the same, at the same place, once.
    let mut whole: BTreeMap<u64, (AgentId, String)> = BTreeMap::new();
    for agent in agents.iter_mut() {
        for (offset, author, text) in agent.transcript(channel) {
            let seen = whole.entry(offset).or_insert_with(|| (author, text.clone()));
            assert_eq!(*seen, (author, text));
        }
    }
    for (offset, (author, text)) in &whole {
        assert!(sent[author].contains(text), "{offset}: {text} was never sent");
    }
    for (author, texts) in sent {
        let delivered: Vec<&String> = whole
            .values()
            .filter(|(by, _)| by == author)
            .map(|(_, text)| text)
            .collect();
        let agent = agents
            .iter_mut()
            .find(|agent| agent.id() == *author)
            .expect("one of them");
        let failed: Vec<String> = (agent.engine().failed(channel).expect("listed").into_iter())
            .filter_map(|failed| failed.payload)
            .map(|payload| String::from_utf8(payload.to_vec()).expect("text"))
            .collect();
        // In order, none twice, and what is not there is reported as failed.
        let expected: Vec<&String> = texts.iter().filter(|text| !failed.contains(text)).collect();
        assert_eq!(delivered, expected);
        let outbox = agent.engine().channel(channel).expect("known").outbox;
        assert_eq!(outbox, 0);
    }
    for agent in agents.iter_mut() {
        let unreadable = |event: &&Event| {
            matches!(
                event,
                Event::EntryUnreadable { .. } | Event::Divergence { .. } | Event::HeaderLied { .. }
            )
        };
        assert_eq!(agent.events.iter().find(unreadable), None);
        // Every entry that it may read was seen: those in its membership, which the transcript of others bounds.
        let seen: Vec<u64> = agent.transcript(channel).iter().map(|(offset, _, _)| *offset).collect();
        let readable = (whole.keys()).filter(|offset| {
            let before = skytale_proto::Offset::new(**offset).previous();
            let first = relay.readable(channel.log(), agent.id(), before);
            first.first().is_some_and(|record| record.offset.get() == **offset)
        });
        assert_eq!(seen, readable.copied().collect::<Vec<_>>());
    }
    let mut members: Vec<&mut Agent> = Vec::new();
    for agent in agents.iter_mut() {
        if agent.engine().channel(channel).expect("known").state == ChannelState::Active {
            members.push(agent);
        }
    }
    // Digests come with messages: after one from each, all have the same.
    for member in &mut members {
        member.send(channel, "the last word");
    }
    settle(relay, channel, &mut members);
    for member in &mut members {
        member.send(channel, "and another");
    }
    settle(relay, channel, &mut members);
    if !members.is_empty() {
        assert_agree(channel, &mut members);
    }
}

/// Returns the settings: few cases by default, since a schedule uses real encryption and real files; `PROPTEST_CASES`
/// sets more.
fn config() -> ProptestConfig {
    let config = ProptestConfig {
        max_shrink_iters: 300,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    match std::env::var_os("PROPTEST_CASES") {
        Some(_) => config,
        None => ProptestConfig { cases: 24, ..config },
    }
}

#[test]
fn a_commit_on_its_way_is_not_replaced_by_one_for_those_who_leave() {
    run(&[
        Step::Leave(2),
        Step::Send(1),
        Step::Push(2),
        Step::Rotate(1),
        Step::PushAndLose(1),
        Step::Pull(1, 1),
        Step::PushAndLose(1),
    ]);
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn in_the_end_all_agree(steps in proptest::collection::vec(step(), 1..80)) {
        run(&steps);
    }
}
