//! Small durable appends through a relay node, against Redis Streams: what an append costs where many agents have few of
//! them unanswered.
//!
//! Frames of 1 KiB: one agent with 1, 64 or 512 unanswered, and 64 agents with one each. The node runs over the local
//! store in a process of its own, as Redis does (`appendfsync always`), and the agents are here: on the same processors.
//! Each agent has an endpoint and a QUIC connection of its own. Redis has a TCP connection for each unanswered append,
//! which serves it best: it reads 16 KiB of a connection at a time, and syncs before it reads on. `CPU` compares the two
//! servers' processor time. What Redis does not do for it: encrypt, check tokens and rosters, find duplicates.

use anyhow::{Context as _, bail, ensure};
use bytes::{Buf as _, BytesMut};
use skytale_benches::client::{Agent, Appends, Client};
use skytale_benches::figures::Figures;
use skytale_benches::frames::Channel;
use skytale_benches::peers::redis::Redis;
use skytale_benches::process::{Process, datagrams};
use skytale_benches::served::{self, Served};
use skytale_benches::stopwatch::{Stopwatch, Took};
use skytale_benches::versus::{Aim, Bench, Case, Side, Work, in_turn, sized, wanted};
use skytale_log_store::{LocalConfig, LocalStore};
use skytale_proto::Frame;
use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

/// The role of a child process: the folder of its store.
const ROLE: &str = "SKYTALE_BENCH_SMALL_STORE";
/// An encoded frame, in bytes.
const FRAME_BYTES: usize = 1_024;
const PAIRS: usize = 7;

/// Agents, the appends that each has unanswered, the appends of a turn, and the least part of Redis' rate.
const LOADS: [Load; 4] = [
    Load::new(1, 1, 3_000, Aim::AtLeast(0.8)),
    Load::new(1, 64, 40_000, Aim::None),
    Load::new(1, 512, 60_000, Aim::AtLeast(2.0)),
    Load::new(64, 1, 25_600, Aim::AtLeast(0.6)),
];

#[derive(Clone, Copy)]
struct Load {
    agents: usize,
    in_flight: usize,
    appends: usize,
    aim: Aim,
}

impl Load {
    const fn new(agents: usize, in_flight: usize, appends: usize, aim: Aim) -> Self {
        Self {
            agents,
            in_flight,
            appends,
            aim,
        }
    }

    fn name(&self) -> String {
        match self.agents {
            1 => format!("small/1 agent, {} in flight", self.in_flight),
            agents => format!("small/{agents} agents, {} in flight each", self.in_flight),
        }
    }
}

fn main() -> anyhow::Result<()> {
    if let Ok(folder) = std::env::var(ROLE) {
        return serve(folder.as_ref());
    }
    if !std::env::args().any(|argument| argument == "--bench") {
        // `cargo test --benches` only asks whether it starts.
        return Ok(());
    }
    let mut bench = Bench::tabled("small: durable appends of 1 KiB through a relay node, against Redis Streams");
    let runtime = Runtime::new()?;
    for load in LOADS {
        if wanted(&load.name()) {
            measure(&mut bench, &runtime, load)?;
        }
    }
    bench.close();
    Ok(())
}

/// The child's part.
fn serve(folder: &Path) -> anyhow::Result<()> {
    let runtime = Runtime::new()?;
    let figures = Figures::install()?;
    let store = runtime.block_on(LocalStore::open(LocalConfig::new(folder)))?;
    served::serve_relay(&runtime, Arc::new(store))?;
    let batches = figures.batches();
    eprintln!(
        "  the node: {:.1} frames a batch, {:.0} µs to write and sync one",
        batches.frames / batches.count,
        batches.sync_s / batches.count * 1e6
    );
    Ok(())
}

fn measure(bench: &mut Bench, runtime: &Runtime, load: Load) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let agents: Vec<Agent> = runtime.block_on(async {
        let mut agents = Vec::new();
        for _ in 0..load.agents {
            agents.push(Agent::new().await?);
        }
        anyhow::Ok(agents)
    })?;
    let ours = Served::start(ROLE, &folder.path().join("store").display().to_string())?;
    let redis = runtime.block_on(Redis::start(folder.path()))?;
    let (relayed, kept) = runtime.block_on(async {
        let mut relayed = Vec::new();
        let mut kept = Vec::new();
        for agent in &agents {
            relayed.push(Relayed::start(&ours, agent).await?);
        }
        for _ in 0..load.agents * load.in_flight {
            kept.push(Kept::start(redis.address()).await?);
        }
        anyhow::Ok((relayed, kept))
    })?;
    // It would write all again from time to time.
    runtime.block_on(async {
        let mut kept = Kept::start(redis.address()).await?;
        kept.ask(&["CONFIG", "SET", "auto-aof-rewrite-percentage", "0"]).await
    })?;
    let mut crowds = Some((relayed, kept));
    let mut costs = [Cost::default(), Cost::default()];
    let mut failed = None;
    let mut pairs = Vec::new();
    for number in 0..sized(PAIRS, 2) {
        let mut turn = |side| {
            let mut crowd = || {
                let (relayed, kept) = crowds.take().context("the agents are back")?;
                let work = frames(&relayed, load)?;
                match side {
                    Side::Ours => {
                        let work = all(relayed, work, load.in_flight);
                        let (took, relayed) = costs[0].of(runtime, &ours.process(), load, work)?;
                        crowds = Some((relayed, kept));
                        anyhow::Ok(took)
                    }
                    Side::Limit => {
                        let work = all(kept, spread(work, load), 1);
                        let (took, kept) = costs[1].of(runtime, &redis.server().process(), load, work)?;
                        crowds = Some((relayed, kept));
                        Ok(took)
                    }
                }
            };
            crowd().unwrap_or_else(|error| {
                failed.get_or_insert(error);
                Took::wall(Duration::MAX)
            })
        };
        pairs.push(in_turn(number, &mut turn));
        if let Some(error) = failed {
            return Err(error);
        }
    }
    for (who, cost) in [("the node", &costs[0]), ("Redis", &costs[1])] {
        bench.note(format!("{}: {who} {cost}", load.name()));
    }
    let case = Case {
        name: load.name(),
        work: Work::Elements {
            count: load.count() as u64,
            bytes: FRAME_BYTES as u64,
        },
        aim: load.aim,
        pairs: pairs.len(),
    };
    bench.add(case, pairs);
    drop(crowds);
    ours.end()
}

impl Load {
    /// Appends of a turn.
    fn count(&self) -> usize {
        sized(self.appends, self.appends / 8)
    }
}

/// Costs of appends, by the kernel's figures.
#[derive(Default)]
struct Cost {
    appends: usize,
    server: Duration,
    agents: Duration,
    switches: u64,
    datagrams: u64,
}

impl Cost {
    fn of<T>(
        &mut self,
        runtime: &Runtime,
        server: &Process,
        load: Load,
        work: impl Future<Output = anyhow::Result<T>>,
    ) -> anyhow::Result<(Took, T)> {
        let (cpu, switches, packets) = (server.cpu()?, server.waits()?, datagrams()?);
        let stopwatch = Stopwatch::start();
        let back = runtime.block_on(work)?;
        let took = stopwatch.took();
        let cpu = server.cpu()?.saturating_sub(cpu);
        self.appends += load.count();
        self.server += cpu;
        self.agents += took.cpu.unwrap_or_default();
        self.switches += server.waits()?.saturating_sub(switches);
        self.datagrams += datagrams()?.saturating_sub(packets);
        let took = Took {
            wall: took.wall,
            cpu: Some(cpu),
        };
        Ok((took, back))
    }
}

#[allow(clippy::cast_precision_loss)]
impl std::fmt::Display for Cost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let each = |sum: f64| sum / self.appends.max(1) as f64;
        write!(
            f,
            "{:.1} µs of processor time an append, its threads waited {:.2} times; the agents {:.1} µs; {:.2} UDP datagrams",
            each(self.server.as_secs_f64() * 1e6),
            each(self.switches as f64),
            each(self.agents.as_secs_f64() * 1e6),
            each(self.datagrams as f64)
        )
    }
}

/// Frames of a turn, for each agent.
fn frames(crowd: &[Relayed], load: Load) -> anyhow::Result<Vec<Vec<Frame>>> {
    let each = load.count() / load.agents;
    let frames = |agent: &Relayed| Channel::messages(&[agent.channel], each, FRAME_BYTES);
    crowd.iter().map(frames).collect()
}

/// The same, for as many connections as appends may be unanswered.
fn spread(work: Vec<Vec<Frame>>, load: Load) -> Vec<Vec<Frame>> {
    let parts = |frames: Vec<Frame>| {
        let each = frames.len().div_ceil(load.in_flight).max(1);
        frames.chunks(each).map(<[Frame]>::to_vec).collect::<Vec<_>>()
    };
    work.into_iter().flat_map(parts).collect()
}

/// An agent that appends.
trait Author: Send + 'static {
    /// Appends frames, with at most so many of them unanswered.
    fn append(&mut self, frames: Vec<Frame>, in_flight: usize) -> impl Future<Output = anyhow::Result<()>> + Send;
}

/// All agents append at once, each its own, with so many unanswered.
async fn all<A: Author>(crowd: Vec<A>, mut work: Vec<Vec<Frame>>, in_flight: usize) -> anyhow::Result<Vec<A>> {
    work.resize(crowd.len(), Vec::new());
    let mut tasks = JoinSet::new();
    for (place, (mut author, frames)) in crowd.into_iter().zip(work).enumerate() {
        tasks.spawn(async move {
            author.append(frames, in_flight).await?;
            anyhow::Ok((place, author))
        });
    }
    let mut back = Vec::new();
    while let Some(done) = tasks.join_next().await {
        back.push(done??);
    }
    back.sort_by_key(|(place, _)| *place);
    Ok(back.into_iter().map(|(_, author)| author).collect())
}

/// An agent of the relay node.
struct Relayed {
    _client: Client,
    appends: Appends,
    channel: Channel,
}

impl Relayed {
    async fn start(node: &Served, agent: &Agent) -> anyhow::Result<Self> {
        let client = node.session(agent).await?;
        let mut appends = client.appends().await?;
        // The channel's first frame comes over the wire: its log is in another process.
        let (channel, create) = Channel::begin(agent.id)?;
        appends.send(&create).await?;
        let parent = appends.accepted().await?;
        Ok(Self {
            _client: client,
            appends,
            channel: Channel { parent, ..channel },
        })
    }
}

impl Author for Relayed {
    async fn append(&mut self, frames: Vec<Frame>, in_flight: usize) -> anyhow::Result<()> {
        for (number, frame) in frames.iter().enumerate() {
            if number >= in_flight {
                self.appends.accepted().await?;
            }
            self.appends.send(frame).await?;
        }
        for _ in 0..in_flight.min(frames.len()) {
            self.appends.accepted().await?;
        }
        Ok(())
    }
}

/// An agent of Redis: a client that does no more than it must.
struct Kept {
    stream: TcpStream,
    received: BytesMut,
    out: Vec<u8>,
}

impl Kept {
    async fn start(address: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            received: BytesMut::with_capacity(64 * 1024),
            out: Vec::new(),
        })
    }

    fn put(&mut self, arguments: &[&[u8]]) {
        self.out
            .extend_from_slice(format!("*{}\r\n", arguments.len()).as_bytes());
        for argument in arguments {
            self.out
                .extend_from_slice(format!("${}\r\n", argument.len()).as_bytes());
            self.out.extend_from_slice(argument);
            self.out.extend_from_slice(b"\r\n");
        }
    }

    fn put_frame(&mut self, frame: &Frame) {
        let key = frame.header().log.to_bytes();
        self.put(&[b"XADD", &key, b"0-*", b"f", frame.encoded()]);
    }

    /// A reply, if all of it is here.
    fn reply(&mut self) -> anyhow::Result<Option<Vec<u8>>> {
        let Some(end) = self.received.windows(2).position(|two| two == b"\r\n") else {
            return Ok(None);
        };
        let line = self.received[..end].to_vec();
        match line.first() {
            Some(b'+') => {
                self.received.advance(end + 2);
                Ok(Some(line[1..].to_vec()))
            }
            Some(b'$') => {
                let length: usize = std::str::from_utf8(&line[1..])?.parse()?;
                if self.received.len() < end + 2 + length + 2 {
                    return Ok(None);
                }
                self.received.advance(end + 2);
                let value = self.received.split_to(length).to_vec();
                self.received.advance(2);
                Ok(Some(value))
            }
            _ => bail!("Redis says {}", String::from_utf8_lossy(&line)),
        }
    }

    /// The next reply. What was put goes first, all at once, where none is here.
    async fn answer(&mut self) -> anyhow::Result<Vec<u8>> {
        loop {
            if let Some(reply) = self.reply()? {
                return Ok(reply);
            }
            if !self.out.is_empty() {
                self.stream.write_all(&self.out).await?;
                self.out.clear();
            }
            self.received.reserve(16 * 1024);
            ensure!(self.stream.read_buf(&mut self.received).await? > 0, "Redis is gone");
        }
    }

    async fn ask(&mut self, words: &[&str]) -> anyhow::Result<Vec<u8>> {
        let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
        self.put(&words);
        self.answer().await
    }
}

impl Author for Kept {
    async fn append(&mut self, frames: Vec<Frame>, in_flight: usize) -> anyhow::Result<()> {
        for (number, frame) in frames.iter().enumerate() {
            if number >= in_flight {
                let id = self.answer().await?;
                ensure!(id.starts_with(b"0-"), "an id of ours");
            }
            self.put_frame(frame);
        }
        for _ in 0..in_flight.min(frames.len()) {
            self.answer().await?;
        }
        Ok(())
    }
}
