//! A thousand agents that come back at once to a relay node of a fleet, against one.

use crate::FRAME_BYTES;
use crate::child::serve;
use crate::common::node;
use anyhow::ensure;
use futures_util::future::try_join_all;
use skytale_benches::client::Agent;
use skytale_benches::frames::{Channel, append_windowed, nobody};
use skytale_benches::served::Served;
use skytale_benches::stopwatch::Stopwatch;
use skytale_benches::versus::{Bench, median, sized};
use skytale_log_store::LogStore as _;
use skytale_log_store::cluster::Cluster;
use skytale_proto::{AgentId, LogId, Offset};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::runtime::Runtime;

const AGENTS: usize = 1_000;
const CHANNELS: usize = 100;
/// Number of entries that each of them missed.
const MISSED: usize = 512;
/// Time for the node to put away its state for those who left.
const SETTLE: Duration = Duration::from_secs(2);
/// Pause of an agent that was not let in, at first and at most.
const RETRY: Duration = Duration::from_millis(250);
const RETRY_MAX: Duration = Duration::from_secs(8);

/// An agent, with the entries that it has to read.
#[derive(Clone)]
struct Returning {
    agent: Agent,
    log: LogId,
    after: Offset,
}

pub(crate) fn run(bench: &mut Bench, runtime: &Runtime, cluster: &Cluster) -> anyhow::Result<()> {
    let (folder, account) = (tempfile::tempdir()?, cluster.account());
    let agents = sized(AGENTS, AGENTS / 10);
    let returning = runtime.block_on(async {
        let store = node(&account, folder.path(), 1).await?;
        let mut all = Vec::new();
        for _ in 0..agents {
            all.push(Agent::new().await?);
        }
        let mut returning = Vec::new();
        for (number, members) in all.chunks(agents / CHANNELS.min(agents)).enumerate() {
            let ids: Vec<AgentId> = members.iter().map(|agent| agent.id).collect();
            let channel = Channel::create(&store, nobody(number as u32), &ids).await?;
            let messages = (0..MISSED).map_while(|_| channel.message(FRAME_BYTES).ok());
            append_windowed(&store, messages, MISSED).await?;
            returning.extend(members.iter().map(|agent| Returning {
                agent: agent.clone(),
                log: channel.log,
                after: channel.parent,
            }));
        }
        store.close().await?;
        anyhow::Ok(returning)
    })?;

    let served = serve(&account, folder.path())?;
    let process = served.process();
    let refused = AtomicU64::new(0);
    let fresh = process.memory()?.resident_kib as f64 / 1_024.0;
    let (mut of_few, mut rounds) = (0.0, Vec::new());
    for round in 0..sized(4, 2) {
        let mut one = Vec::new();
        for agent in returning.iter().skip(round * 21).take(21) {
            let stopwatch = Stopwatch::start();
            runtime.block_on(come_back(&served, agent, &refused))?;
            one.push(stopwatch.took().wall.as_secs_f64());
        }
        std::thread::sleep(SETTLE);
        if round == 0 {
            of_few = process.memory()?.peak_kib as f64 / 1_024.0;
        }
        process.forget_peak()?;
        let cpu = process.cpu()?;
        let stopwatch = Stopwatch::start();
        runtime.block_on(try_join_all(
            returning.iter().map(|agent| come_back(&served, agent, &refused)),
        ))?;
        let all = stopwatch.took().wall.as_secs_f64();
        let peak = process.memory()?.peak_kib;
        // The first round warms up.
        if round > 0 {
            rounds.push([
                median(one.into_iter()),
                all,
                (process.cpu()? - cpu).as_secs_f64(),
                peak as f64 / 1_024.0,
            ]);
        }
        std::thread::sleep(SETTLE);
    }
    served.end()?;

    let of = |index: usize| {
        let values = || rounds.iter().map(|round| round[index]);
        let least = values().fold(f64::INFINITY, f64::min);
        (median(values()), least, values().fold(0.0, f64::max))
    };
    let spread = |(middle, least, most): (f64, f64, f64), unit: f64| {
        format!("{:.1} ({:.1} .. {:.1})", middle * unit, least * unit, most * unit)
    };
    let (one, all) = (of(0), of(1));
    let mib = (MISSED * FRAME_BYTES) as f64 / 1_048_576.0;
    bench.note(format!(
        "{agents} agents, each with an endpoint, connection and session of its own, {MISSED} entries of {FRAME_BYTES} \
         bytes each; client, node and servers on the same processors; {} rounds; {} times one was not let in and tried again",
        rounds.len(),
        refused.into_inner()
    ));
    bench.note(format!(
        "one comes back and has read all in {} ms, {agents} at once in {} s: {:.2} times one after another; {:.0} and {:.0} MiB/s",
        spread(one, 1e3),
        spread(all, 1.0),
        all.0 / (one.0 * agents as f64),
        mib / one.0,
        mib * agents as f64 / all.0,
    ));
    bench.note(format!(
        "the node's process: {fresh:.0} MiB resident when it has begun, {of_few:.0} at most for one after another, {} at most \
         for all at once: {:.0} KiB an agent; {:.2} ms of processor time an agent",
        spread(of(3), 1.0),
        (of(3).0 - fresh) * 1_024.0 / agents as f64,
        of(2).0 * 1e3 / agents as f64,
    ));
    Ok(())
}

/// Connects, says hello, reads missed entries up to the head, and leaves. How often it was not let in is counted: an
/// agent tries again then, as the SDK does.
async fn come_back(served: &Served, returning: &Returning, refused: &AtomicU64) -> anyhow::Result<()> {
    let mut wait = RETRY;
    let client = loop {
        match served.session(&returning.agent).await {
            Ok(client) => break client,
            Err(error) if wait > RETRY_MAX => return Err(error),
            Err(_) => refused.fetch_add(1, Ordering::Relaxed),
        };
        tokio::time::sleep(wait).await;
        wait *= 2;
    };
    let subscription = client.subscribe(returning.log, returning.after, false).await?;
    let read = subscription.to_end().await?;
    ensure!(read.entries == MISSED as u64, "all that was missed is read");
    client.leave();
    Ok(())
}
