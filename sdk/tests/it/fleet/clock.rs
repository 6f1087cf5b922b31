//! Relay nodes whose clocks are wrong.

use super::account::Account;
use super::nodes::Fleet;
use crate::agent::world::{channel_of, event, soon};
use skytale_proto::{ChannelId, Code};
use skytale_sdk::internals::raw::{RawClient, RawConfig};
use skytale_sdk::{Agent, Event, RelaySource};
use std::time::Duration;
use zeroize::Zeroizing;

const HOUR: Duration = Duration::from_secs(3_600);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agents_leave_a_node_whose_clock_is_wrong_and_stay_where_all_clocks_are() {
    let fleet = Fleet::new(2, 15_000).await;
    let agents = [fleet.agent("alice", 0).await, fleet.agent("bob", 1).await];
    let channels = channel_of(&agents.iter().collect::<Vec<_>>()).await;
    assert_eq!(fleet.node_of(&agents[0]), Some(0));
    let account = Account::of(&agents, &channels);
    account.send(0, "before".to_owned()).await;

    // Its agent goes without a moment offline, and new ones go past it.
    let (mut events, mut offline) = (agents[0].events(), agents[0].events());
    assert!(fleet.nodes[0].is_ahead_by(HOUR));
    account.send(0, "meanwhile".to_owned()).await;
    let moved = event(&mut events, "moved", |event| matches!(event, Event::Moved { .. })).await;
    let Event::Moved { from, to, code, .. } = moved else {
        panic!("{moved:?}");
    };
    assert_eq!(
        (from, to, code),
        (fleet.endpoint(0), fleet.endpoint(1), Code::ClockWrong)
    );
    let first = event(&mut offline, "a change", |event| {
        matches!(event, Event::Connected { .. } | Event::Disconnected { .. })
    })
    .await;
    assert!(matches!(first, Event::Connected { .. }), "{first:?}");
    let carol = fleet.agent("carol", 0).await;
    assert_eq!(fleet.node_of(&carol), Some(1));

    // Where all clocks are wrong, whoever is there stays and works, and others are taken.
    assert!(fleet.nodes[1].is_ahead_by(HOUR));
    let dave = fleet.agent("dave", 0).await;
    assert!(fleet.node_of(&dave).is_some());
    account.send(1, "all clocks are wrong".to_owned()).await;
    account.settle(&fleet).await;
    assert_eq!(fleet.node_of(&agents[0]), Some(1));

    // A clock that is right again is a node like any.
    assert!(!fleet.nodes[0].is_ahead_by(Duration::ZERO));
    let erin = fleet.agent("erin", 0).await;
    assert_eq!(fleet.node_of(&erin), Some(0));
    for agent in [carol, dave, erin] {
        close(agent).await;
    }
    fleet.end().await;
}

async fn close(agent: Agent) {
    agent.close(Duration::from_secs(10)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_of_raw_logs_leaves_a_node_whose_clock_is_wrong_and_stays_where_all_clocks_are() {
    let fleet = Fleet::new(2, 15_000).await;
    let client = RawClient::open(RawConfig {
        identity: Zeroizing::new([1; 32]),
        endpoint: Zeroizing::new([101; 32]),
        tokens: fleet.directory.spread(0),
        relays: RelaySource::Fixed(fleet.nodes.iter().map(|node| node.relay.clone()).collect()),
        region: None,
        network: Default::default(),
    })
    .await
    .expect("a client");
    let writer = client.writer(ChannelId::generate());
    let append = async |text: &'static str| {
        let pending = writer.append(text.into()).await.expect("queued");
        soon("a receipt", pending.outcome()).await.expect("accepted");
    };
    append("all clocks are right").await;
    assert_eq!(fleet.nodes[0].sessions(), 1);

    assert!(fleet.nodes[0].is_ahead_by(HOUR));
    let moved = async {
        while (fleet.nodes[0].sessions(), fleet.nodes[1].sessions()) != (0, 1) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    soon("it is at the other node", moved).await;
    append("one clock is wrong").await;

    assert!(fleet.nodes[1].is_ahead_by(HOUR));
    for text in ["all", "clocks", "are", "wrong"] {
        append(text).await;
    }
    client.close().await;
    fleet.end().await;
}
