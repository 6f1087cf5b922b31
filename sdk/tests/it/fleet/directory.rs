//! The list of relay nodes: its source, and its use while there is no new one.

use super::nodes::{Directory, Fleet};
use crate::agent::world::{channel_of, event, soon};
use skytale_proto::{Code, Region};
use skytale_sdk::{Agent, Event};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_starts_while_the_api_is_away_goes_on_with_what_its_vault_has() {
    Box::pin(starts_without(|directory| &directory.away)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_starts_while_the_api_does_not_answer_goes_on_with_what_its_vault_has() {
    Box::pin(starts_without(|directory| &directory.hangs)).await;
}

async fn starts_without(api: impl Fn(&Directory) -> &AtomicBool) {
    let fleet = Fleet::new(2, 1_000).await;
    let alice = fleet.agent("alice", 0).await;
    let channel = alice.create_channel("test").await.expect("made").id();
    alice.close(Duration::from_secs(10)).await;
    api(&fleet.directory).store(true, Ordering::SeqCst);
    // Nor is the nearest one there.
    fleet.nodes[0].kill();
    let alice = fleet.agent("alice", 0).await;
    assert_eq!(fleet.node_of(&alice), Some(1));
    let sent = alice
        .channel(channel)
        .await
        .expect("kept")
        .send("here")
        .await
        .expect("sent");
    soon("delivered", sent.delivered()).await.expect("delivered");
    soon("closed", alice.close(Duration::from_secs(10))).await;
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_has_ended_is_not_tried_again() {
    let fleet = Fleet::new(1, 1_000).await;
    *fleet.directory.life_s.lock() = 3;
    let alice = fleet.agent("alice", 0).await;
    alice.close(Duration::from_secs(10)).await;
    fleet.directory.away.store(true, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(3)).await;
    let alice = Agent::open(fleet.config("alice", 0)).await.expect("opened");
    let mut events = alice.events();
    alice.connect().await.expect("a socket");
    let failed = event(&mut events, "no token", |event| {
        matches!(event, Event::ConnectFailed { .. })
    })
    .await;
    assert!(
        matches!(
            failed,
            Event::ConnectFailed {
                code: Code::ApiBusy,
                ..
            }
        ),
        "{failed:?}"
    );
    fleet.directory.away.store(false, Ordering::SeqCst);
    soon("connected", alice.connected()).await.expect("a session");
    soon("closed", alice.close(Duration::from_secs(10))).await;
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_that_changes_is_followed_with_the_next_token() {
    // No session ends before its node does, nor for a token that is refreshed late.
    let fleet = Fleet::new(2, 5_000).await;
    let (first, second) = (&fleet.nodes[0].relay, &fleet.nodes[1].relay);
    fleet.directory.names(&[first]);
    *fleet.directory.life_s.lock() = 20;
    let alice = fleet.agent("alice", 0).await;
    let given = || fleet.directory.regions.lock().len();
    // The session's own token is refreshed, and brings the new list.
    fleet.directory.names(&[second]);
    let before = given();
    let refreshed = async {
        while given() < before + 1 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    soon("refreshed", refreshed).await;
    // A list that is empty for a while says nothing.
    fleet.directory.names(&[]);
    let before = given();
    *fleet.directory.life_s.lock() = 600;
    let refreshed = async {
        while given() < before + 1 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    soon("refreshed", refreshed).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(fleet.node_of(&alice), Some(0), "what works is not left");
    fleet.directory.away.store(true, Ordering::SeqCst);
    let mut events = alice.events();
    fleet.nodes[0].kill();
    event(&mut events, "moved", |event| matches!(event, Event::Moved { .. })).await;
    assert_eq!(fleet.node_of(&alice), Some(1));
    soon("closed", alice.close(Duration::from_secs(10))).await;
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_none_of_those_known_is_left_the_directory_is_asked_again() {
    let fleet = Fleet::new(2, 500).await;
    fleet.directory.names(&[&fleet.nodes[0].relay]);
    let alice = fleet.agent("alice", 0).await;
    fleet.directory.names(&[&fleet.nodes[1].relay]);
    let mut events = alice.events();
    fleet.nodes[0].kill();
    event(&mut events, "moved", |event| matches!(event, Event::Moved { .. })).await;
    assert_eq!(fleet.node_of(&alice), Some(1));
    soon("closed", alice.close(Duration::from_secs(10))).await;
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_is_told_of_nobody_asks_until_it_is() {
    let fleet = Fleet::new(1, 1_000).await;
    fleet.directory.names(&[]);
    let alice = Agent::open(fleet.config("alice", 0)).await.expect("opened");
    let mut events = alice.events();
    alice.connect().await.expect("a socket");
    event(&mut events, "nobody", |event| {
        matches!(
            event,
            Event::ConnectFailed {
                code: Code::Offline,
                ..
            }
        )
    })
    .await;
    fleet.directory.names(&[&fleet.nodes[0].relay]);
    soon("connected", alice.connected()).await.expect("a session");
    soon("closed", alice.close(Duration::from_secs(10))).await;
    fleet.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_region_is_asked_for_with_each_token() {
    let fleet = Fleet::new(1, 1_000).await;
    let alice = Agent::open(fleet.config("alice", 0).with_region(Region(7)))
        .await
        .expect("opened");
    alice.connect().await.expect("a socket");
    soon("an agent current", alice.caught_up()).await.expect("current");
    let bob = fleet.agent("bob", 0).await;
    assert_eq!(*fleet.directory.regions.lock(), [Some(Region(7)), None]);
    channel_of(&[&alice, &bob]).await;
    for agent in [alice, bob] {
        soon("closed", agent.close(Duration::from_secs(10))).await;
    }
    fleet.end().await;
}
