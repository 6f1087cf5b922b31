//! Relay nodes that are reachable and answer pings, but do not serve requests.

use super::account::Account;
use super::nodes::Fleet;
use crate::agent::world::{channel_of, event, soon};
use skytale_log_store::StoreError;
use skytale_log_store::faulty::Way;
use skytale_proto::Code;
use skytale_sdk::{Agent, Event, Events};
use std::time::{Duration, Instant};

/// Longer than a healthy node takes on an overloaded machine.
const PATIENCE: Duration = Duration::from_secs(8);

async fn fleet(count: usize) -> Fleet {
    // These nodes answer pings: no session is to be lost.
    let mut fleet = Fleet::new(count, 15_000).await;
    fleet.answer_timeout = PATIENCE;
    fleet
}

fn lost() -> Way {
    Way::Lost(StoreError::Io {
        doing: "test".into(),
        error: "lost".into(),
    })
}

fn unreachable() -> Way {
    Way::Refused(StoreError::HomeUnreachable {
        home: "0/0".into(),
        reason: "test".into(),
    })
}

async fn stream(account: &Account, numbers: &[usize], count: usize) {
    for round in 0..count {
        for number in numbers {
            account.send(*number, format!("agent {number} says {round}")).await;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Returns the most moves within a time among relay nodes of which none is better: to each of the others once, and then
/// only to one whose pause is over. The first pause is 5 s long, and each further one twice as long as the one before.
fn moves_max(others: usize, time: Duration) -> usize {
    let (mut most, mut pause) = (others, Duration::from_secs(5));
    while pause <= time {
        most += 1;
        pause *= 2;
    }
    most
}

/// Closes an agent, and returns its moves, the number of silent relay nodes, and the number of times without a session.
async fn told(agent: &Agent, mut events: Events) -> (Vec<Code>, usize, usize) {
    agent.close(Duration::from_secs(10)).await;
    let (mut moves, mut silent, mut disconnected) = (Vec::new(), 0, 0);
    while let Some(event) = soon("events end", events.next()).await {
        match event {
            Event::Moved { code, .. } => moves.push(code),
            Event::RelaySilent { code, .. } => {
                assert_eq!(code, Code::Unanswered);
                silent += 1;
            }
            Event::Disconnected { code, .. } if code != Code::Closed => disconnected += 1,
            Event::Gap { .. } | Event::Divergence { .. } | Event::SendFailed { .. } => panic!("{event:?}"),
            _ => {}
        }
    }
    (moves, silent, disconnected)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_that_gives_no_verdicts_is_left_and_what_it_had_is_an_entry_once() {
    for way in [Way::Silent, lost()] {
        let fleet = fleet(2).await;
        let agents = fleet.agents(2).await;
        let channels = channel_of(&agents.iter().collect::<Vec<_>>()).await;
        let here = fleet.node_with(&agents[0]).await;
        let (mut moved, events) = (agents[0].events(), agents[0].events());
        let account = Account::of(&agents, &channels);
        stream(&account, &[0, 1], 20).await;
        fleet.nodes[here].store.appends(way.clone());
        stream(&account, &[0, 1], 20).await;
        event(&mut moved, "moved", |event| matches!(event, Event::Moved { .. })).await;
        stream(&account, &[0, 1], 20).await;
        // What it had is reported, or given up, when nobody waits for it there.
        fleet.nodes[here].store.appends(Way::Through);
        fleet.nodes[here].store.tell();
        account.settle(&fleet).await;
        assert_eq!(fleet.node_of(&agents[0]), Some(1 - here));
        let told = told(&agents[0], events).await;
        assert_eq!((told.0, told.2), (vec![Code::Unanswered], 0), "{way:?}");
        fleet.end().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_that_never_answers_a_read_is_left_by_who_comes_and_by_who_is_there() {
    let fleet = fleet(2).await;
    let agents = fleet.agents(2).await;
    let channels = channel_of(&agents.iter().collect::<Vec<_>>()).await;
    let account = Account::of(&agents, &channels);
    stream(&account, &[0, 1], 10).await;
    let here = fleet.node_with(&agents[0]).await;
    let mut moved = agents[0].events();
    fleet.nodes[here].store.reads(Way::Silent);
    // Who is there and sends learns that it is in the log, and does not see it come.
    stream(&account, &[0, 1], 10).await;
    let seen = event(&mut moved, "moved", |event| matches!(event, Event::Moved { .. })).await;
    assert!(
        matches!(
            seen,
            Event::Moved {
                code: Code::Unanswered,
                ..
            }
        ),
        "{seen:?}"
    );
    // Who comes gets no replay.
    let carol = fleet.agent("carol", here).await;
    assert_eq!(fleet.node_of(&carol), Some(1 - here));
    stream(&account, &[0, 1], 10).await;
    account.settle(&fleet).await;
    fleet.nodes[here].store.reads(Way::Through);
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_that_says_that_it_cannot_has_answered() {
    let fleet = fleet(2).await;
    let agents = fleet.agents(2).await;
    let channels = channel_of(&agents.iter().collect::<Vec<_>>()).await;
    let began = Instant::now();
    let (mut held, events) = (agents[0].events(), agents[0].events());
    let account = Account::of(&agents, &channels);
    for node in &fleet.nodes {
        node.store.appends(unreachable());
    }
    stream(&account, &[0, 1], 20).await;
    // For much longer than an answer is waited for.
    let id = channels[0].id();
    let (mut times, mut moves) = (0, Vec::new());
    while times < 6 || began.elapsed() < 2 * PATIENCE {
        event(&mut held, "held", |event| {
            if let Event::Moved { code, .. } = event {
                moves.push(*code);
            }
            matches!(event, Event::SendHeld { channel, code: Code::HomeUnreachable, .. } if *channel == id)
        })
        .await;
        times += 1;
    }
    // Elsewhere once, and then not to and fro.
    let most = moves_max(fleet.nodes.len() - 1, began.elapsed());
    assert!(moves.len() <= most, "{moves:?}");
    for node in &fleet.nodes {
        node.store.appends(Way::Through);
    }
    account.settle(&fleet).await;
    let (_, silent, disconnected) = told(&agents[0], events).await;
    assert_eq!((silent, disconnected), (0, 0));
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_all_are_silent_agents_do_not_run_to_and_fro() {
    let mut fleet = fleet(3).await;
    fleet.answer_timeout = Duration::from_secs(1);
    let agents = fleet.agents(2).await;
    let channels = channel_of(&agents.iter().collect::<Vec<_>>()).await;
    let began = Instant::now();
    let (mut silent, events) = (agents[0].events(), agents[0].events());
    let account = Account::of(&agents, &channels);
    for node in &fleet.nodes {
        node.store.appends(lost());
    }
    stream(&account, &[0, 1], 20).await;
    let mut moves = Vec::new();
    for _ in 0..8 {
        event(&mut silent, "silent", |event| {
            if let Event::Moved { code, .. } = event {
                moves.push(*code);
            }
            matches!(event, Event::RelaySilent { .. })
        })
        .await;
    }
    // Each of the others once, and the first again after its pause.
    let most = moves_max(fleet.nodes.len() - 1, began.elapsed());
    assert!(moves.len() <= most, "{moves:?}");
    for node in &fleet.nodes {
        node.store.appends(Way::Through);
        node.store.tell();
    }
    account.settle(&fleet).await;
    let (_, silent, disconnected) = told(&agents[0], events).await;
    assert!(silent >= 8 && disconnected == 0, "{silent} {disconnected}");
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_that_is_the_only_one_is_waited_for() {
    let fleet = fleet(1).await;
    let agents = fleet.agents(2).await;
    let channels = channel_of(&agents.iter().collect::<Vec<_>>()).await;
    let (mut silent, events) = (agents[0].events(), agents[0].events());
    let account = Account::of(&agents, &channels);
    fleet.nodes[0].store.appends(Way::Silent);
    stream(&account, &[0, 1], 20).await;
    for _ in 0..2 {
        event(&mut silent, "silent", |event| {
            matches!(event, Event::RelaySilent { .. })
        })
        .await;
    }
    fleet.nodes[0].store.appends(Way::Through);
    account.settle(&fleet).await;
    let (moves, silent, disconnected) = told(&agents[0], events).await;
    assert!(moves.is_empty() && silent >= 2 && disconnected == 0);
    fleet.end().await;
}
