//! Many agents at once, whose relay nodes fail.

use super::account::Account;
use super::nodes::Fleet;
use crate::agent::world::{channel_of, soon};
use futures_util::future::join_all;
use futures_util::{StreamExt, stream};
use parking_lot::Mutex;
use skytale_sdk::{Agent, Channel, Event};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

const AGENTS: usize = 60;
/// Members of a channel.
const TOGETHER: usize = 5;
/// Agents that are made at once.
const AT_ONCE: usize = 6;

/// Arrivals of agents at relay nodes, and checks for failures.
struct Watch {
    arrivals: Arc<Mutex<Vec<Instant>>>,
    watching: JoinSet<usize>,
}

impl Watch {
    fn of(agents: &[Agent]) -> Self {
        let (arrivals, mut watching) = (Arc::new(Mutex::new(Vec::new())), JoinSet::new());
        for mut events in agents.iter().map(Agent::events) {
            let arrivals = Arc::clone(&arrivals);
            watching.spawn(async move {
                let mut moves = 0;
                while let Some(event) = events.next().await {
                    match event {
                        Event::Connected { .. } => arrivals.lock().push(Instant::now()),
                        Event::Moved { .. } => moves += 1,
                        Event::Gap { .. } | Event::Divergence { .. } | Event::SendFailed { .. } => {
                            panic!("{event:?}")
                        }
                        _ => {}
                    }
                }
                moves
            });
        }
        Self { arrivals, watching }
    }

    /// Prints the time span of the arrivals since the last call, and the maximum number within a tenth of a second.
    fn report(&self, what: &str) -> usize {
        let mut arrivals = std::mem::take(&mut *self.arrivals.lock());
        arrivals.sort();
        let within = |first: &Instant| {
            let last = *first + Duration::from_millis(100);
            arrivals.iter().filter(|at| *at >= first && **at < last).count()
        };
        let most = arrivals.iter().map(within).max().unwrap_or_default();
        let over = arrivals
            .last()
            .zip(arrivals.first())
            .map_or(Duration::ZERO, |(last, first)| *last - *first);
        eprintln!(
            "{what}: {} came over {} ms, at most {most} within 100 ms",
            arrivals.len(),
            over.as_millis()
        );
        arrivals.len()
    }
}

/// Agents in a crowd, each with its own order of the relay nodes.
async fn crowd(fleet: &Fleet) -> Vec<Agent> {
    let one = async |number: usize| {
        let mut config = fleet.config(&format!("agent-{number}"), 0);
        config.tokens = fleet.directory.spread(number);
        let agent = Agent::open(config).await.expect("opened");
        agent.connect().await.expect("a socket");
        soon("an agent current", agent.caught_up()).await.expect("current");
        agent
    };
    stream::iter(0..AGENTS).map(one).buffered(AT_ONCE).collect().await
}

/// Channels of a few agents each, so that every agent is in one.
async fn channels(agents: &[Agent]) -> Vec<Vec<Channel>> {
    let of = |few: &[Agent]| {
        let few = few.to_vec();
        async move { channel_of(&few.iter().collect::<Vec<_>>()).await }
    };
    stream::iter(agents.chunks(TOGETHER))
        .map(of)
        .buffered(AT_ONCE)
        .collect()
        .await
}

async fn send(account: &Account, over: &CancellationToken) {
    let mut round = 0;
    while !over.is_cancelled() {
        let number = round % TOGETHER;
        account.send(number, format!("agent {number} says {round}")).await;
        round += 1;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Waits until all agents have a session, none of them with the node `gone`, and gives how many each node has.
async fn settled(fleet: &Fleet, agents: &[Agent], gone: usize) -> Vec<usize> {
    let counted = async {
        loop {
            let nodes: Vec<_> = agents.iter().map(|agent| fleet.node_of(agent)).collect();
            if nodes.iter().all(|node| node.is_some_and(|node| node != gone)) {
                let count = |number| nodes.iter().filter(|node| **node == Some(number)).count();
                return (0..fleet.nodes.len()).map(count).collect();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    soon("all elsewhere", counted).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_whose_relays_drain_and_die_spreads_over_the_others_and_loses_nothing() {
    let fleet = Fleet::new(3, 2_000).await;
    let agents = crowd(&fleet).await;
    let channels = channels(&agents).await;
    let accounts: Vec<Account> = agents
        .chunks(TOGETHER)
        .zip(&channels)
        .map(|(agents, channels)| Account::of(agents, channels))
        .collect();
    let watch = Watch::of(&agents);
    let over = CancellationToken::new();
    let faults = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let before = settled(&fleet, &agents, usize::MAX).await;
        assert!(before.iter().all(|count| *count >= AGENTS / 6), "{before:?}");

        fleet.nodes[0].drain(Duration::from_secs(60)).await;
        assert_eq!(fleet.nodes[0].sessions(), 0, "all left by themselves");
        let after = settled(&fleet, &agents, 0).await;
        watch.report("drained");
        eprintln!("of {before:?}: {after:?}");
        // Those who left did not all go to the same.
        assert!(
            after[1..].iter().all(|count| *count >= AGENTS / 4),
            "{before:?} {after:?}"
        );
        fleet.nodes[0].stop().await;
        fleet.nodes[0].start().await;
        tokio::time::sleep(Duration::from_millis(500)).await;

        fleet.nodes[1].kill();
        let after = settled(&fleet, &agents, 1).await;
        watch.report("killed");
        eprintln!("then: {after:?}");
        assert!(after[0] > 0 && after[2] > 0, "{after:?}");
        fleet.nodes[1].start().await;
        tokio::time::sleep(Duration::from_millis(500)).await;

        // And all at once: nobody is left to go to, until they are back.
        for node in &fleet.nodes {
            node.kill();
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        for node in &fleet.nodes {
            node.start().await;
        }
        let disconnected = async {
            while fleet.nodes.iter().map(|node| node.sessions()).sum::<usize>() < AGENTS {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        soon("all back", disconnected).await;
        watch.report("all killed");
        let after = settled(&fleet, &agents, usize::MAX).await;
        eprintln!("then: {after:?}");
        assert!(after.iter().all(|count| *count < AGENTS), "{after:?}");
        over.cancel();
    };
    tokio::join!(join_all(accounts.iter().map(|account| send(account, &over))), faults);
    join_all(accounts.into_iter().map(|account| account.settle(&fleet))).await;
    let close = |agent: &Agent| {
        let agent = agent.clone();
        async move { agent.close(Duration::from_secs(20)).await }
    };
    soon("closed", join_all(agents.iter().map(close))).await;
    let Watch { mut watching, .. } = watch;
    let mut moved = 0;
    while let Some(moves) = soon("events end", watching.join_next()).await {
        moved += usize::from(moves.expect("nothing bad happened") > 0);
    }
    assert!(
        moved >= AGENTS / 2,
        "{moved} of {AGENTS} had their relay node taken away"
    );
    fleet.end().await;
}
