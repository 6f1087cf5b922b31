//! Cost of a tap: appends at full load through a relay node with one, against a node without one over the same store.
//!
//! Four agents append to 25 logs each, with 256 appends of each unanswered. A turn begins with appends that are not
//! measured, so that the tap is in the middle of its work, and ends with a pause, in which it writes the rest. The
//! processor time is that of both and the pause, so that nothing of the tap's work is missed; the agents are in it,
//! too.
//!
//! With `--control` neither node has a tap: what the ratios are then is the machine's own.

use skytale_benches::client::{Agent, Appends, Client};
use skytale_benches::frames::Channel;
use skytale_benches::relay::Relay;
use skytale_benches::stopwatch::{Stopwatch, Took};
use skytale_benches::versus::{Aim, Bench, Case, Pair, Side, Work, in_turn, median, sized};
use skytale_log_store::{LocalConfig, LocalStore, LogStore, MemoryStore};
use skytale_proto::Frame;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

/// An encoded frame, in bytes: short ones, of which the tap's part is the largest.
const FRAME_BYTES: usize = 256;
const AGENTS: usize = 4;
const LOGS_EACH: usize = 25;
const WINDOW: usize = 256;
/// The tap writes at least once in this time.
const PAUSE: Duration = Duration::from_millis(1_200);

fn main() -> anyhow::Result<()> {
    let mut bench = Bench::tabled("tap: appends at full load with a tap, against the same without one");
    let runtime = Runtime::new()?;
    let folder = tempfile::tempdir()?;
    let store = runtime.block_on(LocalStore::open(LocalConfig::new(folder.path().join("store"))))?;
    let store: Arc<dyn LogStore> = Arc::new(store);
    let case = Load {
        name: "tap/local store",
        warm: sized(12_000, 500),
        appends: sized(32_000, 1_000),
        pairs: sized(25, 2),
    };
    case.measure(&mut bench, &runtime, store.clone(), &folder.path().join("tap"))?;
    runtime.block_on(store.close())?;
    // Nothing to wait for but the processor: what a tap can cost at most.
    let case = Load {
        name: "tap/memory store",
        warm: sized(16_000, 500),
        appends: sized(64_000, 1_000),
        pairs: sized(13, 2),
    };
    let dir = folder.path().join("tap-memory");
    case.measure(&mut bench, &runtime, Arc::new(MemoryStore::new()), &dir)?;
    bench.close();
    Ok(())
}

struct Load {
    name: &'static str,
    /// Appends of each agent in a turn, and before it.
    warm: usize,
    appends: usize,
    pairs: usize,
}

impl Load {
    fn measure(
        &self,
        bench: &mut Bench,
        runtime: &Runtime,
        store: Arc<dyn LogStore>,
        dir: &Path,
    ) -> anyhow::Result<()> {
        let is_control = std::env::args().any(|argument| argument == "--control");
        let tap = Some(dir).filter(|_| !is_control);
        let mut with = runtime.block_on(Node::start(store.clone(), tap))?;
        let mut without = runtime.block_on(Node::start(store, None))?;
        let mut turn = |side| {
            let node = match side {
                Side::Ours => &mut with,
                Side::Limit => &mut without,
            };
            self.turn(runtime, node).expect("the node takes sound frames")
        };
        let pairs: Vec<Pair> = (0..self.pairs).map(|number| in_turn(number, &mut turn)).collect();
        let spread = |name: &str, of: &dyn Fn(&Pair) -> f64| {
            let mut ratios: Vec<f64> = pairs.iter().skip(1).map(of).collect();
            ratios.sort_by(f64::total_cmp);
            let at = |part: usize| ratios[(ratios.len() - 1) * part / 4];
            let middle = median(ratios.iter().copied());
            format!(
                "{name} {middle:.4}, half of the pairs within {:.4} and {:.4}",
                at(1),
                at(3)
            )
        };
        let rate = spread("rate with / without", &|pair| {
            pair.limit.wall.as_secs_f64() / pair.ours.wall.as_secs_f64()
        });
        let cpu = |took: &Took| took.cpu.unwrap_or_default().as_secs_f64();
        let processor = spread("processor time with / without", &|pair| {
            cpu(&pair.ours) / cpu(&pair.limit)
        });
        bench.note(format!("{}: {rate}; {processor}", self.name));
        let case = Case {
            name: self.name.into(),
            work: Work::Elements {
                count: (AGENTS * self.appends) as u64,
                bytes: FRAME_BYTES as u64,
            },
            aim: Aim::AtLeast(0.98),
            pairs: pairs.len(),
        };
        bench.add(case, pairs);
        runtime.block_on(async {
            with.relay.shutdown().await;
            without.relay.shutdown().await;
        });
        if is_control {
            return Ok(());
        }
        let bytes = std::fs::read_dir(dir)?.try_fold(0, |sum, entry| anyhow::Ok(sum + entry?.metadata()?.len()))?;
        let events = self.pairs * AGENTS * (self.warm + self.appends);
        bench.note(format!(
            "{}: {:.1} bytes of files an append",
            self.name,
            bytes as f64 / events as f64
        ));
        Ok(())
    }

    fn turn(&self, runtime: &Runtime, node: &mut Node) -> anyhow::Result<Took> {
        let warm = node.frames(self.warm)?;
        let frames = node.frames(self.appends)?;
        runtime.block_on(node.append(warm))?;
        let stopwatch = Stopwatch::start();
        runtime.block_on(node.append(frames))?;
        let wall = stopwatch.took().wall;
        std::thread::sleep(PAUSE);
        let cpu = stopwatch.took().cpu;
        Ok(Took { wall, cpu })
    }
}

/// A relay node, and agents that append.
struct Node {
    relay: Relay,
    authors: Vec<Author>,
}

struct Author {
    _session: Client,
    appends: Option<Appends>,
    logs: Vec<Channel>,
}

impl Node {
    async fn start(store: Arc<dyn LogStore>, tap: Option<&Path>) -> anyhow::Result<Self> {
        let relay = Relay::with_tap(store.clone(), tap.map(Path::to_owned)).await?;
        let mut authors = Vec::new();
        for _ in 0..AGENTS {
            let agent = Agent::new().await?;
            let session = relay.session(&agent).await?;
            let mut logs = Vec::new();
            for _ in 0..LOGS_EACH {
                logs.push(Channel::create(&*store, agent.id, &[]).await?);
            }
            authors.push(Author {
                appends: Some(session.appends().await?),
                _session: session,
                logs,
            });
        }
        Ok(Self { relay, authors })
    }

    fn frames(&self, count: usize) -> anyhow::Result<Vec<Vec<Frame>>> {
        let authors = self.authors.iter();
        authors
            .map(|author| Channel::messages(&author.logs, count, FRAME_BYTES))
            .collect()
    }

    /// All agents at once.
    async fn append(&mut self, frames: Vec<Vec<Frame>>) -> anyhow::Result<()> {
        let mut running = JoinSet::new();
        for (number, frames) in frames.into_iter().enumerate() {
            if let Some(appends) = self.authors[number].appends.take() {
                running.spawn(async move { anyhow::Ok((number, append(appends, &frames).await?)) });
            }
        }
        while let Some(done) = running.join_next().await {
            let (number, appends) = done??;
            self.authors[number].appends = Some(appends);
        }
        Ok(())
    }
}

async fn append(mut appends: Appends, frames: &[Frame]) -> anyhow::Result<Appends> {
    for (number, frame) in frames.iter().enumerate() {
        if number >= WINDOW {
            appends.accepted().await?;
        }
        appends.send(frame).await?;
    }
    for _ in 0..frames.len().min(WINDOW) {
        appends.accepted().await?;
    }
    Ok(appends)
}
