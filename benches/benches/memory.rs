//! Memory of a relay node: while it replays a large channel and a small one of the same store, and for agents that only
//! stay connected, beside that of an iroh endpoint alone for as many connections.
//!
//! The node runs in a child process of this one, over the local store, fresh for each figure; readers and agents are
//! here. Figures are the kernel's: `VmRSS` and its peak `VmHWM` of `/proc/<pid>/status`. Criterion has no part in this:
//! memory is not a time.

use anyhow::{Context as _, bail, ensure};
use skytale_benches::bare::{Bare, BareServer};
use skytale_benches::client::Agent;
use skytale_benches::frames::{Channel, append_windowed, nobody};
use skytale_benches::served::{self, Served};
use skytale_benches::versus::sized;
use skytale_log_store::{LocalConfig, LocalStore, LogStore as _};
use skytale_proto::{AgentId, LogId, Offset};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Runtime;

/// An encoded frame, in bytes.
const FRAME_BYTES: usize = 1_024;
const MIB: usize = 1024 * 1024;
/// The role of a child process, and its arguments, one a line.
const ROLE: &str = "SKYTALE_BENCH_MEMORY_ROLE";
/// Goal for an idle agent, in KiB.
const IDLE_KIB_MAX: f64 = 100.0;

fn main() -> anyhow::Result<()> {
    if let Ok(role) = std::env::var(ROLE) {
        let arguments: Vec<&str> = role.lines().collect();
        return match arguments[..] {
            ["fill", folder, reader, mib] => child_fill(folder.as_ref(), reader, mib.parse()?),
            ["relay", folder] => child_relay(folder.as_ref()),
            ["bare"] => child_bare(),
            _ => bail!("no such role: {role}"),
        };
    }
    if !std::env::args().any(|argument| argument == "--bench") {
        // `cargo test --benches` only asks whether it starts.
        return Ok(());
    }
    let runtime = Runtime::new()?;
    replays(&runtime)?;
    idle(&runtime)
}

/// A relay node over a local store.
fn relay_over(folder: &Path) -> anyhow::Result<Served> {
    Served::start(ROLE, &format!("relay\n{}", folder.display()))
}

// ---- replay

#[allow(clippy::print_stdout)]
fn replays(runtime: &Runtime) -> anyhow::Result<()> {
    println!("\nmemory: the relay node's process while it replays one channel, KiB");
    println!(
        "  {:>9}  {:>10}  {:>10}  {:>10}  {:>8}",
        "channel", "at start", "after", "peak", "entries"
    );
    let mut peaks = Vec::new();
    let folder = tempfile::tempdir()?;
    let reader = runtime.block_on(Agent::new())?;
    let mut channels = Vec::new();
    for mib in [10, sized(1_024, 100)] {
        channels.push((mib, fill(folder.path(), reader.id, mib)?));
    }
    for (mib, channel) in channels {
        let relay = relay_over(folder.path())?;
        let before = relay.process().memory()?;
        let replayed = runtime.block_on(async {
            let client = relay.session(&reader).await?;
            let replayed = client
                .subscribe(channel.log, channel.after, false)
                .await?
                .to_end()
                .await?;
            client.leave();
            anyhow::Ok(replayed)
        })?;
        ensure!(
            replayed.entries == (mib * MIB / FRAME_BYTES) as u64,
            "all entries are replayed"
        );
        let after = relay.process().memory()?;
        println!(
            "  {:>5} MiB  {:>10}  {:>10}  {:>10}  {:>8}",
            mib, before.resident_kib, after.resident_kib, after.peak_kib, replayed.entries
        );
        peaks.push(after.peak_kib as f64);
        relay.end()?;
    }
    println!(
        "  peak of the large one / peak of the small one: {:.2}",
        peaks[1] / peaks[0]
    );
    Ok(())
}

/// A channel in a store that is closed.
struct Filled {
    log: LogId,
    after: Offset,
}

/// Fills a channel in a process of its own, so that nothing of it is left in a memory that is looked at.
fn fill(folder: &Path, reader: AgentId, mib: usize) -> anyhow::Result<Filled> {
    let role = format!("fill\n{}\n{reader}\n{mib}", folder.display());
    let output = Command::new(std::env::current_exe()?)
        .env(ROLE, role)
        .stderr(Stdio::inherit())
        .output()?;
    ensure!(output.status.success(), "the child fills a channel");
    let said = String::from_utf8(output.stdout)?;
    let (log, after) = said.trim().split_once(' ').context("a log and an offset")?;
    Ok(Filled {
        log: log.parse()?,
        after: Offset::new(after.parse()?),
    })
}

#[allow(clippy::print_stdout)]
fn child_fill(folder: &Path, reader: &str, mib: usize) -> anyhow::Result<()> {
    let reader: AgentId = reader.parse()?;
    Runtime::new()?.block_on(async {
        let store = LocalStore::open(LocalConfig::new(folder)).await?;
        let channel = Channel::create(&store, nobody(1), &[reader]).await?;
        let messages = (0..mib * MIB / FRAME_BYTES).map_while(|_| channel.message(FRAME_BYTES).ok());
        append_windowed(&store, messages, 2_048).await?;
        store.close().await?;
        println!("{} {}", channel.log, channel.parent);
        Ok(())
    })
}

// ---- idle agents

#[allow(clippy::print_stdout)]
fn idle(runtime: &Runtime) -> anyhow::Result<()> {
    let (warm, count) = (agents_that_fit(50)?, agents_that_fit(sized(500, 100))?);
    let folder = tempfile::tempdir()?;
    let relay = relay_over(folder.path())?;
    let mut agents = Vec::new();
    let mut figures = vec![relay.process().memory()?];
    for more in [warm, count] {
        runtime.block_on(async {
            for _ in 0..more {
                let agent = Agent::new().await?;
                let client = relay.session(&agent).await?;
                agents.push((agent, client));
            }
            tokio::time::sleep(SETTLE).await;
            anyhow::Ok(())
        })?;
        figures.push(relay.process().memory()?);
    }
    let subscriptions = runtime.block_on(async {
        let mut subscriptions = Vec::new();
        for (agent, client) in &agents {
            let mut own = client.subscribe(agent.id.log(), Offset::ZERO, true).await?;
            own.caught_up().await?;
            subscriptions.push(own);
        }
        tokio::time::sleep(SETTLE).await;
        anyhow::Ok(subscriptions)
    })?;
    figures.push(relay.process().memory()?);
    drop(subscriptions);
    for (_, client) in agents {
        client.leave();
    }
    relay.end()?;

    let bare = bare_connection_kib(runtime, warm, count)?;
    let resident: Vec<f64> = figures.iter().map(|figure| figure.resident_kib as f64).collect();
    let connected = (resident[2] - resident[1]) / f64::from(count);
    let following = (resident[3] - resident[2]) / f64::from(warm + count);
    println!("\nmemory: agents that only stay connected, KiB at the relay node");
    println!(
        "  resident: {} with none, {} with {warm}, {} with {}, {} with each following its own log",
        figures[0].resident_kib,
        figures[1].resident_kib,
        figures[2].resident_kib,
        warm + count,
        figures[3].resident_kib
    );
    let verdict = if connected < IDLE_KIB_MAX { "reached" } else { "MISSED" };
    println!("  an agent that is connected: {connected:.1}; aim below {IDLE_KIB_MAX}: {verdict}");
    println!("  and that follows its own log: {:.1}", connected + following);
    println!("  a connection to an iroh endpoint that does nothing with it: {bare:.1}");
    Ok(())
}

/// Measures the memory of an iroh endpoint alone for a connection.
fn bare_connection_kib(runtime: &Runtime, warm: u32, count: u32) -> anyhow::Result<f64> {
    let server = Served::start(ROLE, "bare")?;
    let mut connections = Vec::new();
    let mut resident = Vec::new();
    for more in [warm, count] {
        runtime.block_on(async {
            for _ in 0..more {
                connections.push(Bare::connect(server.address().clone()).await?);
            }
            tokio::time::sleep(SETTLE).await;
            anyhow::Ok(())
        })?;
        resident.push(server.process().memory()?.resident_kib as f64);
    }
    drop(connections);
    server.end()?;
    Ok((resident[1] - resident[0]) / f64::from(count))
}

/// Time for sessions to come to rest.
const SETTLE: Duration = Duration::from_secs(2);

/// Returns the number of agents asked for, or the number that this process may have sockets for.
fn agents_that_fit(count: u32) -> anyhow::Result<u32> {
    let limits = std::fs::read_to_string("/proc/self/limits")?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    let soft = line
        .and_then(|line| line.split_whitespace().next())
        .context("a limit of open files")?;
    let files: u32 = soft.parse().unwrap_or(u32::MAX);
    Ok(count.min(files.saturating_sub(200) / FILES_OF_AN_AGENT))
}

/// Files that an agent's endpoint holds open, at most.
const FILES_OF_AN_AGENT: u32 = 8;

// ---- the children

fn child_relay(folder: &Path) -> anyhow::Result<()> {
    let runtime = Runtime::new()?;
    let store = runtime.block_on(LocalStore::open(LocalConfig::new(folder)))?;
    served::serve_relay(&runtime, Arc::new(store))
}

fn child_bare() -> anyhow::Result<()> {
    let runtime = Runtime::new()?;
    let server = runtime.block_on(BareServer::start())?;
    served::serve(&server.address(), || Ok(()))
}
