//! First message: the time from connecting to the first message of a backlog, long against short.
//!
//! Agents with vaults of their own were members of a channel and offline while another one sent. Each of them connects
//! once, over UDP to a relay node in this process, and reads its stream. What it is shown first must not wait for what
//! follows. A vault is open before the time begins: opening it takes as long whatever there is to read.

use anyhow::Context as _;
use hdrhistogram::Histogram;
use skytale_benches::relay::{Relay, Tokens};
use skytale_benches::stopwatch::Took;
use skytale_benches::versus::{Aim, Bench, Case, Pair, Work, sized, wanted};
use skytale_log_store::{LocalConfig, LocalStore, LogStore as _};
use skytale_sdk::{Agent, AgentConfig, AgentId, NetworkConfig, Outgoing, TokenSource, VaultKey};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

/// Messages of the short backlog.
const FEW: usize = 100;
/// Agents that come back to each backlog.
const READERS: usize = 9;
/// A message, in bytes.
const PAYLOAD_BYTES: usize = 100;
/// Time for an agent to leave.
const LEAVE: Duration = Duration::from_secs(10);
/// Interval between looks whether an agent has joined.
const LOOK: Duration = Duration::from_millis(20);

fn main() -> anyhow::Result<()> {
    let name = "first/message of a backlog";
    if !std::env::args().any(|argument| argument == "--bench") || !wanted(name) {
        // `cargo test --benches` only asks whether it starts.
        return Ok(());
    }
    let mut bench = Bench::tabled("first: from connecting to the first message, a long backlog against a short one");
    let runtime = Runtime::new()?;
    let folder = tempfile::tempdir()?;
    let many = sized(100_000, 2_000);
    let (long, short) = runtime.block_on(async {
        let store = Arc::new(LocalStore::open(LocalConfig::new(folder.path().join("log"))).await?);
        let relay = Relay::start(store.clone()).await?;
        let tokens = Tokens::new().provider(Vec::new());
        let mut place = Place {
            folder: folder.path(),
            relay: &relay,
            tokens,
        };
        let short = place.measure("few", FEW).await?;
        let long = place.measure("many", many).await?;
        relay.shutdown().await;
        store.close().await?;
        anyhow::Ok((long, short))
    })?;
    for (messages, times) in [(FEW, &short), (many, &long)] {
        let first = times.iter().map(|(first, _)| *first);
        bench.note(format!(
            "{messages} messages of {PAYLOAD_BYTES} bytes: the first after {} (median, greatest), all after {}",
            shown(first)?,
            shown(times.iter().map(|(_, all)| *all))?
        ));
    }
    let pairs: Vec<Pair> = long
        .iter()
        .zip(&short)
        .map(|((ours, _), (limit, _))| Pair {
            ours: Took::wall(*ours),
            limit: Took::wall(*limit),
        })
        .collect();
    let case = Case {
        name: name.into(),
        work: Work::Latency,
        aim: Aim::AtMost(1.5),
        pairs: pairs.len(),
    };
    bench.add(case, pairs);
    bench.close();
    Ok(())
}

/// Median and greatest of some times.
fn shown(times: impl Iterator<Item = Duration>) -> anyhow::Result<String> {
    let mut all = Histogram::<u64>::new(3)?;
    for time in times {
        all.record(u64::try_from(time.as_micros())?)?;
    }
    let ms = |micros: u64| Duration::from_micros(micros).as_secs_f64() * 1e3;
    Ok(format!(
        "{:.1} ms, {:.1} ms",
        ms(all.value_at_quantile(0.5)),
        ms(all.max())
    ))
}

/// Where agents live.
struct Place<'a> {
    folder: &'a Path,
    relay: &'a Relay,
    tokens: TokenSource,
}

impl Place<'_> {
    async fn open(&self, name: &str) -> anyhow::Result<Agent> {
        let vault = self.folder.join(format!("{name}.vault"));
        let relays = vec![self.relay.for_agents()];
        let mut config = AgentConfig::new(vault, VaultKey::raw([9; 32]), self.tokens.clone()).with_relays(relays);
        config.network = NetworkConfig::bound_to(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        Ok(Agent::open(config).await?)
    }

    async fn online(&self, name: &str) -> anyhow::Result<Agent> {
        let agent = self.open(name).await?;
        agent.connect().await?;
        agent.caught_up().await?;
        Ok(agent)
    }

    /// Makes a backlog of so many messages, and gives the times to the first message and to all, of each reader.
    async fn measure(&mut self, name: &str, messages: usize) -> anyhow::Result<Vec<(Duration, Duration)>> {
        let author = self.online(&format!("{name}-author")).await?;
        let channel = author.create_channel(name).await?;
        let names: Vec<String> = (0..READERS).map(|number| format!("{name}-{number}")).collect();
        let mut readers = Vec::new();
        for reader in &names {
            readers.push(self.online(reader).await?);
        }
        let ids: Vec<AgentId> = readers.iter().map(Agent::id).collect();
        channel.add(&ids).await?.delivered().await?;
        for reader in readers {
            while reader.channel(channel.id()).await.is_err() {
                tokio::time::sleep(LOOK).await;
            }
            reader.caught_up().await?;
            reader.close(LEAVE).await;
        }
        let mut last = None;
        for _ in 0..messages {
            last = Some(channel.send_when_room(Outgoing::new(vec![0x5a; PAYLOAD_BYTES])).await?);
        }
        last.context("a message")?.delivered().await?;
        author.close(LEAVE).await;

        let mut times = Vec::new();
        for reader in &names {
            let reader = self.open(reader).await?;
            let room = reader.channel(channel.id()).await?;
            let mut inbox = room.messages();
            let begun = Instant::now();
            reader.connect().await?;
            inbox.next().await?.ack().await?;
            let first = begun.elapsed();
            for _ in 1..messages {
                let message = inbox.next().await?;
                // Before the channel pauses.
                if message.offset.get() % 1_000 == 0 {
                    message.ack().await?;
                }
            }
            times.push((first, begun.elapsed()));
            reader.close(LEAVE).await;
        }
        Ok(times)
    }
}
