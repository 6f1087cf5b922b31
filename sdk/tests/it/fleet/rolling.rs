//! A rolling restart of everything, under load.

use super::account::Account;
use super::nodes::Fleet;
use crate::agent::world::{channel_of, soon};
use skytale_proto::AgentId;
use skytale_sdk::{Agent, Channel, Event, Sent};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Several agents send, and commit now and then, while `faults` runs; then all is checked.
async fn under_load(fleet: &Fleet, agents: usize, faults: impl Future<Output = ()>) {
    let agents = fleet.agents(agents).await;
    let channels = channel_of(&agents.iter().collect::<Vec<_>>()).await;
    let mut events: Vec<_> = agents.iter().map(Agent::events).collect();
    let account = Account::of(&agents, &channels);
    let over = CancellationToken::new();
    let sending = async {
        let mut round = 0;
        while !over.is_cancelled() {
            for number in 0..agents.len() {
                account.send(number, format!("agent {number} says {round}")).await;
            }
            if round % 40 == 20 {
                channels[round % agents.len()].rotate().await.expect("queued");
            }
            round += 1;
            tokio::time::sleep(Duration::from_millis(15)).await;
        }
    };
    // Adding needs a session, and waits for one where there is none.
    let adding = async {
        while !over.is_cancelled() {
            let channel = agents[0].create_channel("aside").await.expect("made");
            let added = soon("added", add(&channel, agents[1].id())).await;
            soon("delivered", added.delivered()).await.expect("delivered");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    let faults = async {
        faults.await;
        over.cancel();
    };
    tokio::join!(sending, adding, faults);
    assert!(account.sent() > 0);
    account.settle(fleet).await;
    for (agent, events) in agents.iter().zip(&mut events) {
        soon("closed", agent.close(Duration::from_secs(10))).await;
        let mut moves = 0;
        while let Some(event) = soon("events end", events.next()).await {
            match event {
                Event::Moved { .. } => moves += 1,
                Event::Gap { .. } | Event::Divergence { .. } | Event::SendFailed { .. } => panic!("{event:?}"),
                _ => {}
            }
        }
        assert!(moves > 0, "each had its relay node taken away");
    }
}

/// Adds an agent, in as many attempts as it takes: a claim fails if its session ends.
async fn add(channel: &Channel, agent: AgentId) -> Sent {
    loop {
        match channel.add(&[agent]).await {
            Ok(added) => return added,
            Err(error) => assert!(error.is_retryable(), "{error:?}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The agents that are left on other nodes do not matter here: what counts is that somebody serves.
async fn pause() {
    tokio::time::sleep(Duration::from_millis(300)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_of_all_relays_loses_nothing() {
    let fleet = Fleet::new(3, 1_000).await;
    let faults = async {
        for _ in 0..2 {
            for node in &fleet.nodes {
                node.drain(Duration::from_secs(30)).await;
                node.stop().await;
                node.start().await;
                pause().await;
            }
        }
    };
    Box::pin(under_load(&fleet, 4, faults)).await;
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn relays_killed_in_turn_lose_nothing() {
    let fleet = Fleet::new(3, 300).await;
    let faults = async {
        for _ in 0..2 {
            for node in &fleet.nodes {
                node.kill();
                pause().await;
                node.start().await;
                pause().await;
            }
        }
    };
    Box::pin(under_load(&fleet, 4, faults)).await;
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn relays_that_stop_without_a_drain_lose_nothing() {
    let fleet = Fleet::new(3, 1_000).await;
    let faults = async {
        for node in fleet.nodes.iter().chain(&fleet.nodes) {
            node.stop().await;
            pause().await;
            node.start().await;
        }
    };
    Box::pin(under_load(&fleet, 3, faults)).await;
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn relays_that_stand_still_for_a_while_lose_nothing_and_append_nothing_twice() {
    let fleet = Fleet::new(3, 300).await;
    let faults = async {
        for node in fleet.nodes.iter().chain(&fleet.nodes) {
            // Longer than its agents wait: they are elsewhere when it takes what they had sent it.
            node.stand_still(Duration::from_millis(1_500));
            tokio::time::sleep(Duration::from_millis(2_000)).await;
        }
    };
    Box::pin(under_load(&fleet, 3, faults)).await;
    fleet.end().await;
}
