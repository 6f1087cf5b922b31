//! A relay node that dies, drains, restarts.

use super::account::Account;
use super::nodes::Fleet;
use crate::agent::world::{channel_of, event, soon};
use skytale_proto::Code;
use skytale_sdk::{Agent, Event, Events};
use std::time::Duration;

/// Returns the events about sessions since.
async fn told(agent: &Agent, mut events: Events) -> Vec<Event> {
    agent.close(Duration::from_secs(10)).await;
    let mut told = Vec::new();
    while let Some(event) = soon("events end", events.next()).await {
        let alarm = matches!(
            event,
            Event::Gap { .. } | Event::Divergence { .. } | Event::EntryUnreadable { .. } | Event::SendFailed { .. }
        );
        assert!(!alarm, "{event:?}");
        let of_sessions = matches!(
            event,
            Event::Connected { .. } | Event::Disconnected { .. } | Event::Moved { .. } | Event::ConnectFailed { .. }
        );
        if of_sessions {
            told.push(event);
        }
    }
    // The last one is by the close.
    assert!(matches!(
        told.pop(),
        Some(Event::Disconnected { code: Code::Closed, .. })
    ));
    told
}

async fn stream(account: &Account, numbers: &[usize], count: usize) {
    for round in 0..count {
        for number in numbers {
            account.send(*number, format!("agent {number} says {round}")).await;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_whose_relay_is_killed_goes_on_at_the_next() {
    // Longer than a healthy node takes on an overloaded machine; QUIC's own timeout comes later, with another code.
    let fleet = Fleet::new(2, 3_000).await;
    let agents = fleet.agents(2).await;
    let channels = channel_of(&agents.iter().collect::<Vec<_>>()).await;
    let here = fleet.node_with(&agents[0]).await;
    let there = 1 - here;
    let (mut moved, events) = (agents[0].events(), agents[0].events());
    let account = Account::of(&agents, &channels);
    stream(&account, &[0, 1], 20).await;
    fleet.nodes[here].kill();
    stream(&account, &[0, 1], 20).await;
    event(&mut moved, "moved", |event| matches!(event, Event::Moved { .. })).await;
    stream(&account, &[0, 1], 20).await;
    account.settle(&fleet).await;
    assert_eq!(fleet.node_of(&agents[0]), Some(there));

    let told = told(&agents[0], events).await;
    let [
        Event::Disconnected {
            code: Code::KeepaliveLost,
            ..
        },
        Event::Connected { relay, .. },
        Event::Moved {
            from,
            to,
            code: Code::KeepaliveLost,
            ..
        },
    ] = &told[..]
    else {
        panic!("{told:?}");
    };
    assert_eq!(
        (*relay, *from, *to),
        (fleet.endpoint(there), fleet.endpoint(here), fleet.endpoint(there))
    );
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agents_leave_a_draining_relay_before_it_stops_and_lose_nothing() {
    let fleet = Fleet::new(2, 15_000).await;
    let agents = fleet.agents(3).await;
    let channels = channel_of(&agents.iter().collect::<Vec<_>>()).await;
    let here = fleet.node_with(&agents[0]).await;
    let there = 1 - here;
    let leaving: Vec<&Agent> = agents
        .iter()
        .filter(|agent| fleet.node_of(agent) == Some(here))
        .collect();
    let events: Vec<Events> = leaving.iter().map(|agent| agent.events()).collect();
    let account = Account::of(&agents, &channels);
    let drain = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        channels[0].rotate().await.expect("queued");
        fleet.nodes[here].drain(Duration::from_secs(60)).await;
        assert_eq!(fleet.nodes[here].sessions(), 0, "all left by themselves");
        fleet.nodes[here].stop().await;
    };
    tokio::join!(stream(&account, &[0, 1, 2], 100), drain);
    account.settle(&fleet).await;
    for (agent, events) in leaving.into_iter().zip(events) {
        let told = told(agent, events).await;
        let [
            Event::Connected { relay, .. },
            Event::Moved {
                from,
                to,
                code: Code::Draining,
                ..
            },
        ] = &told[..]
        else {
            panic!("there was a session all the time: {told:?}");
        };
        assert_eq!(
            (*relay, *from, *to),
            (fleet.endpoint(there), fleet.endpoint(here), fleet.endpoint(there))
        );
    }
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_stays_where_it_works_though_a_nearer_relay_is_back() {
    let fleet = Fleet::new(2, 15_000).await;
    fleet.nodes[0].kill();
    // The first one named is dead: the second is found all the same.
    let agents = [fleet.agent("alice", 0).await, fleet.agent("bob", 1).await];
    let channels = channel_of(&agents.iter().collect::<Vec<_>>()).await;
    assert_eq!(fleet.node_of(&agents[0]), Some(1));
    let events = agents[0].events();
    fleet.nodes[0].start().await;
    let account = Account::of(&agents, &channels);
    for _ in 0..20 {
        stream(&account, &[0, 1], 2).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    account.settle(&fleet).await;
    assert_eq!(told(&agents[0], events).await, [], "no flapping");
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fleet_that_is_all_gone_is_waited_for() {
    let fleet = Fleet::new(2, 500).await;
    let agents = fleet.agents(2).await;
    let channels = channel_of(&agents.iter().collect::<Vec<_>>()).await;
    let mut events = agents[0].events();
    let account = Account::of(&agents, &channels);
    for node in &fleet.nodes {
        node.kill();
    }
    stream(&account, &[0, 1], 20).await;
    for _ in 0..2 {
        event(&mut events, "no relay", |event| {
            matches!(event, Event::ConnectFailed { .. })
        })
        .await;
    }
    fleet.nodes[1].start().await;
    account.settle(&fleet).await;
    fleet.end().await;
}
