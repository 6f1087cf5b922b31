//! Relay nodes that can replay, but not append.

use super::account::Account;
use super::nodes::Fleet;
use crate::agent::world::{channel_of, event, soon};
use skytale_log_store::StoreError;
use skytale_log_store::faulty::Way;
use skytale_proto::Code;
use skytale_sdk::Event;
use std::time::Duration;

/// Replay goes on, nothing is appended: as where the node's own way to the log is cut.
fn refused() -> Way {
    Way::Refused(StoreError::Io {
        doing: "asking the log".into(),
        error: "no answer".into(),
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_relay_cannot_append_goes_out_at_another() {
    let fleet = Fleet::new(2, 15_000).await;
    let agents = fleet.agents(2).await;
    let channels = channel_of(&agents.iter().collect::<Vec<_>>()).await;
    let mut events = agents[0].events();
    let account = Account::of(&agents, &channels);
    let here = fleet.node_with(&agents[0]).await;
    let there = 1 - here;
    fleet.nodes[here].store.appends(refused());
    for round in 0..50 {
        for number in [0, 1] {
            account.send(number, format!("agent {number} says {round}")).await;
        }
    }
    let mut disconnected = false;
    let moved = event(&mut events, "moved", |event| {
        disconnected |= matches!(event, Event::Disconnected { .. });
        matches!(event, Event::Moved { .. })
    })
    .await;
    let Event::Moved { to, code, .. } = moved else {
        unreachable!()
    };
    assert_eq!((to, code), (fleet.endpoint(there), Code::RelayInternal));
    assert!(!disconnected, "there was a session all the time");
    account.settle(&fleet).await;
    assert_eq!(fleet.node_of(&agents[0]), Some(there));
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_no_relay_can_append_waits_in_the_outbox_and_goes_out_when_one_can() {
    let fleet = Fleet::new(2, 15_000).await;
    let agents = fleet.agents(2).await;
    let channels = channel_of(&agents.iter().collect::<Vec<_>>()).await;
    let (mut events, mut held) = (agents[0].events(), agents[0].events());
    // What the additions brought with them is out.
    for agent in &agents {
        soon("all out", agent.flushed()).await.expect("flushed");
    }
    let account = Account::of(&agents, &channels);
    for node in &fleet.nodes {
        node.store.appends(refused());
    }
    for round in 0..50 {
        for number in [0, 1] {
            account.send(number, format!("agent {number} says {round}")).await;
        }
    }
    // Here, elsewhere, and then not to and fro all the time.
    event(&mut events, "moved", |event| matches!(event, Event::Moved { .. })).await;
    for _ in 0..6 {
        let id = channels[0].id();
        event(
            &mut held,
            "held",
            |event| matches!(event, Event::SendHeld { channel, code: Code::RelayInternal, .. } if *channel == id),
        )
        .await;
    }
    let waiting = channels[0].outbox().await.expect("listed");
    assert_eq!(waiting.len(), 50);
    let kept_out: usize = fleet.nodes.iter().map(|node| node.store.kept_out()).sum();
    assert!(kept_out > 0);
    for node in &fleet.nodes {
        node.store.appends(Way::Through);
    }
    account.settle(&fleet).await;
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_whose_nearest_relay_is_not_ready_goes_on_at_the_next() {
    let fleet = Fleet::new(2, 15_000).await;
    // As a node that has just started, and whose streams do not answer.
    let store = &fleet.nodes[0].store;
    store.reads(Way::Refused(StoreError::CatchingUp { home: "0/0".into() }));
    store.appends(Way::Refused(StoreError::HomeUnreachable {
        home: "0/0".into(),
        reason: "no answer".into(),
    }));
    let alice = fleet.agent("alice", 0).await;
    assert_eq!(fleet.node_of(&alice), Some(1));
    let channels = channel_of(&[&alice]).await;
    let sent = channels[0].send("here").await.expect("sent");
    soon("delivered", sent.delivered()).await.expect("delivered");
    soon("closed", alice.close(Duration::from_secs(10))).await;
    fleet.end().await;
}
