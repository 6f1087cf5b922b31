//! SLIM frames through the bridge, with the log on, against a stock SLIM node, which stores nothing.
//!
//! The same client on both sides: it sends frames of a group session on one link, and reads them on another. The node is
//! a process of its own; bridge and relay node run here, over a local store that syncs before it answers. A replay is what a
//! member gets that was away while frames were stored; a stock node has none, so its limit is the stock node's live rate.

use anyhow::Context as _;
use bytes::Bytes;
use skytale_benches::relay::Relay;
use skytale_benches::slim::{SlimClient, StockNode, name, to_group};
use skytale_benches::stopwatch::Took;
use skytale_benches::versus::{Aim, Bench, Case, Side, Work, sized};
use skytale_bridge::wire::proto::SessionMessageType as Kind;
use skytale_bridge::{AuthConfig, Bridge, BridgeConfig};
use skytale_log_store::{LocalConfig, LocalStore};
use skytale_sdk::NetworkConfig;
use std::sync::Arc;
use std::time::Instant;
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;

/// A frame's payload, in bytes.
const PAYLOAD_BYTES: usize = 1_024;
/// Frames that were sent and have not come back yet, at most.
const IN_FLIGHT: usize = 128;
const PAIRS: usize = 10;

fn main() -> anyhow::Result<()> {
    let mut bench = Bench::new("bridge: frames of a SLIM group with the log on, against a stock SLIM node without one");
    if !std::env::args().any(|argument| argument == "--bench") {
        // `cargo test --benches` only asks whether it starts.
        return Ok(());
    }
    let runtime = Runtime::new()?;
    let folder = tempfile::tempdir()?;
    let node = StockNode::start()?;
    let (relay, bridge) = runtime.block_on(async {
        let store = LocalStore::open(LocalConfig::new(folder.path())).await?;
        let relay = Relay::start(Arc::new(store)).await?;
        let mut config = BridgeConfig::new(([127, 0, 0, 1], 0).into());
        // The rates of accounts would be measured instead of the bridge.
        config.limits.messages_per_second = 1_000_000;
        config.limits.stored_bytes_per_day = u64::MAX;
        let auth = AuthConfig {
            everyone: true,
            ..AuthConfig::default()
        };
        let bridge = Bridge::start(
            config,
            auth,
            None,
            relay.raw_client(NetworkConfig::default()).await?,
            None,
        )
        .await?;
        anyhow::Ok((relay, bridge))
    })?;
    let ours = format!("http://{}", bridge.local_addr());
    live(&mut bench, &runtime, [&ours, node.endpoint()])?;
    replay(&mut bench, &runtime, [&ours, node.endpoint()])?;
    bench.close();
    runtime.block_on(async {
        bridge.shutdown().await;
        relay.shutdown().await;
    });
    Ok(())
}

/// One link that sends to a group, and one that reads.
struct Pair {
    sender: SlimClient,
    reader: SlimClient,
    kept: Bytes,
    passing: Bytes,
}

impl Pair {
    async fn new(endpoint: &str, group: &str) -> anyhow::Result<Self> {
        let (alice, bob, group) = (name("alice", 1), name("bob", 2), name(group, 3));
        let mut sender = SlimClient::connect(endpoint).await?;
        sender.subscribe(&alice, &alice).await?;
        let mut reader = SlimClient::connect(endpoint).await?;
        reader.subscribe(&bob, &bob).await?;
        reader.subscribe(&bob, &group).await?;
        let mut pair = Self {
            kept: sender.seal(to_group(&alice, &group, Kind::Msg, PAYLOAD_BYTES))?,
            passing: sender.seal(to_group(&alice, &group, Kind::Heartbeat, PAYLOAD_BYTES))?,
            sender,
            reader,
        };
        pair.send(1, true).await?;
        Ok(pair)
    }

    /// Sends frames, and reads all of them.
    async fn send(&mut self, count: usize, kept: bool) -> anyhow::Result<()> {
        let frame = if kept { &self.kept } else { &self.passing };
        let (to, frame) = (self.sender.sender(), frame.clone());
        let room = Arc::new(Semaphore::new(IN_FLIGHT));
        let sending = {
            let room = Arc::clone(&room);
            tokio::spawn(async move {
                for _ in 0..count {
                    room.acquire().await?.forget();
                    to.send(frame.clone()).await?;
                }
                anyhow::Ok(())
            })
        };
        for _ in 0..count {
            self.reader.frame().await?;
            room.add_permits(1);
        }
        sending.await?
    }
}

fn live(bench: &mut Bench, runtime: &Runtime, [ours, limit]: [&str; 2]) -> anyhow::Result<()> {
    let mut pairs =
        runtime.block_on(async { anyhow::Ok([Pair::new(ours, "live").await?, Pair::new(limit, "live").await?]) })?;
    let count = sized(10_000, 500);
    for (what, kept) in [("stored", true), ("not stored (heartbeats)", false)] {
        let case = Case {
            name: format!("frames of 1 KiB, {what}, {IN_FLIGHT} in flight"),
            work: Work::Elements {
                count: count as u64,
                bytes: PAYLOAD_BYTES as u64,
            },
            aim: Aim::None,
            pairs: PAIRS,
        };
        bench.versus(case, |side| {
            let began = Instant::now();
            let pair = &mut pairs[usize::from(side == Side::Limit)];
            runtime.block_on(pair.send(count, kept)).expect("served");
            Took::wall(began.elapsed())
        });
        let case = Case {
            name: format!("one frame of 1 KiB, {what}, there"),
            work: Work::Latency,
            aim: Aim::None,
            pairs: PAIRS,
        };
        let rounds = sized(200, 20);
        bench.versus(case, |side| {
            let pair = &mut pairs[usize::from(side == Side::Limit)];
            let mut times: Vec<_> = (0..rounds)
                .map(|_| {
                    let began = Instant::now();
                    runtime.block_on(pair.send(1, kept)).expect("served");
                    began.elapsed()
                })
                .collect();
            times.sort_unstable();
            Took::wall(times[rounds / 2])
        });
    }
    Ok(())
}

/// Members leave, frames are stored, and one after another comes back.
fn replay(bench: &mut Bench, runtime: &Runtime, [ours, limit]: [&str; 2]) -> anyhow::Result<()> {
    let count = sized(10_000, 500);
    // Criterion may ask for more than it was asked for.
    let members = 8 * PAIRS as u64;
    let (alice, group) = (name("alice", 1), name("replayed", 3));
    let back = async |member: u64| {
        let own = name("member", member);
        let mut client = SlimClient::connect(ours).await?;
        client.subscribe(&own, &own).await?;
        client.subscribe(&own, &group).await?;
        // A member that says something to its group is there: its replay begins.
        let hello = client.seal(to_group(&own, &group, Kind::Heartbeat, 1))?;
        client.send(hello).await?;
        anyhow::Ok(client)
    };
    let mut limit = runtime.block_on(async {
        for member in 0..members {
            back(100 + member).await?;
        }
        let mut pair = Pair::new(ours, "replayed").await?;
        pair.send(count, true).await?;
        Pair::new(limit, "replayed").await
    })?;
    let mut next = 100..100 + members;
    let case = Case {
        name: "replay to a member that was away, against live frames at the stock node".into(),
        work: Work::Elements {
            count: count as u64,
            bytes: PAYLOAD_BYTES as u64,
        },
        aim: Aim::None,
        pairs: PAIRS,
    };
    bench.versus(case, |side| {
        let began = Instant::now();
        let turn = runtime.block_on(async {
            match side {
                Side::Ours => {
                    let member = next.next().context("no member is left")?;
                    let mut client = back(member).await?;
                    let mut seen = 0;
                    // One frame more was sent to see that the pair is there.
                    while seen < count + 1 {
                        seen += usize::from(client.frame().await? == alice);
                    }
                }
                Side::Limit => limit.send(count, true).await?,
            }
            anyhow::Ok(())
        });
        turn.expect("served");
        Took::wall(began.elapsed())
    });
    Ok(())
}
