//! Time without service for an agent when its relay node is lost: printed, not judged.

use super::nodes::Fleet;
use crate::agent::world::{channel_of, soon};
use parking_lot::Mutex;
use skytale_sdk::Channel;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// Sends every few milliseconds while `fault` runs, and returns the longest time without a delivery.
async fn longest_silence(channel: &Channel, fault: impl Future<Output = ()>) -> Duration {
    let delivered = Arc::new(Mutex::new(vec![Instant::now()]));
    let mut waiting = JoinSet::new();
    let sending = async {
        for number in 0..400 {
            let sent = channel.send(format!("{number}")).await.expect("taken");
            let delivered = Arc::clone(&delivered);
            waiting.spawn(async move {
                sent.delivered().await.expect("delivered");
                delivered.lock().push(Instant::now());
            });
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let fault = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        fault.await;
    };
    tokio::join!(sending, fault);
    soon("all delivered", async { while waiting.join_next().await.is_some() {} }).await;
    let mut times = delivered.lock().clone();
    times.sort();
    assert_eq!(times.len(), 401, "each was delivered once");
    times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn service_goes_on_after_a_kill_and_a_drain() {
    let fleet = Fleet::new(3, 500).await;
    let alice = fleet.agent("alice", 0).await;
    let channels = channel_of(&[&alice]).await;
    let first = fleet.node_with(&alice).await;
    let silence = longest_silence(&channels[0], async { fleet.nodes[first].kill() }).await;
    eprintln!("keepalive 500 ms: killed, {} ms without service", silence.as_millis());
    let at = fleet.node_with(&alice).await;
    assert_ne!(at, first);
    let drain = async { fleet.nodes[at].drain(Duration::from_secs(60)).await };
    let silence = longest_silence(&channels[0], drain).await;
    eprintln!("keepalive 500 ms: drained, {} ms without service", silence.as_millis());
    assert_ne!(fleet.node_of(&alice), Some(at));
    soon("closed", alice.close(Duration::from_secs(10))).await;
    fleet.end().await;
}
