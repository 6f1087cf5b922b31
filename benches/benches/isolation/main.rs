//! One account's requests while another one floods: their p99 against that in quiet, in turn. At a relay node the victim's durable
//! appends, at the API the checks of its key ([`keys`]).
//!
//! The victim appends 1 KiB frames one after another, with a pause between them. The flood comes from several agents of another
//! account, each with many frames unanswered, over the same relay node and local store: frames of 1 KiB, or of 1 MiB, or requests of 1 MiB
//! that lack their last byte. Once with the limits that a node has by default, and once without rates, so that turns alone keep the accounts apart. The node has one
//! processor to itself. Victim and flood have another, and the flood has what the victim leaves of it.

mod keys;
mod pairs;
mod places;

use anyhow::Context as _;
use hdrhistogram::Histogram;
use pairs::Measured;
use places::{Places, micros, times};
use skytale_benches::client::{Agent, Appends, Client};
use skytale_benches::figures::{Batches, Figures};
use skytale_benches::frames::Channel;
use skytale_benches::relay::Relay;
use skytale_benches::versus::{Bench, sized, wanted};
use skytale_log_store::{LocalConfig, LocalStore, LogStore};
use skytale_proto::limits::FRAME_BYTES_MAX;
use skytale_proto::{AccountId, Code};
use skytale_relay_node::RelayConfig;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

/// The victim's frames, in bytes.
const FRAME_BYTES: usize = 1_024;
/// Pause between two of them.
const PAUSE: Duration = Duration::from_millis(2);
/// Agents that flood.
const FLOODERS: usize = 8;
/// Unanswered bytes of each of them.
const IN_FLIGHT_BYTES: usize = 4 * 1024 * 1024;
/// Frames that each of them has unanswered.
const IN_FLIGHT_MAX: usize = 1_024;
/// Unfinished requests of each of them.
const UNFINISHED: usize = 16;
/// The two sides of a pair.
const QUIET: usize = 0;
const FLOODED: usize = 1;
/// Promise of isolation: so many times the quiet p99.
const AIM: f64 = 3.0;

fn main() -> anyhow::Result<()> {
    let mut bench =
        Bench::tabled("isolation: p99 of an account's appends under another's flood, against its own in quiet");
    let figures = Figures::install()?;
    let places = Places::split()?;
    let with_defaults: fn(&mut RelayConfig) = |_| {};
    let without_rates: fn(&mut RelayConfig) = |config| {
        config.limits.frames_per_second = 1_000_000;
        config.limits.bytes_per_second = 1 << 34;
    };
    for (limits, change) in [("default limits", with_defaults), ("no rates", without_rates)] {
        for (of, kind) in [
            ("1 KiB frames", Kind::Frames(FRAME_BYTES)),
            ("1 MiB frames", Kind::Frames(FRAME_BYTES_MAX - 1_024)),
            ("unfinished requests", Kind::Unfinished),
        ] {
            let name = format!("isolation/{limits}, flood of {of}");
            if wanted(&name) {
                measure(&mut bench, &figures, &places, name, kind, &change)?;
            }
        }
    }
    keys::measure_all(&mut bench, &places)?;
    bench.close();
    Ok(())
}

/// Kind of a flood.
#[derive(Clone, Copy)]
enum Kind {
    /// Frames of so many bytes.
    Frames(usize),
    /// Requests that lack their last byte.
    Unfinished,
}

fn measure(
    bench: &mut Bench,
    figures: &Figures,
    places: &Places,
    name: String,
    kind: Kind,
    change: &dyn Fn(&mut RelayConfig),
) -> anyhow::Result<()> {
    let Places { node, victims, flood } = places;
    let folder = tempfile::tempdir()?;
    let store: Arc<dyn LogStore> = Arc::new(node.block_on(LocalStore::open(LocalConfig::new(folder.path())))?);
    let relay = Arc::new(node.block_on(Relay::with(store.clone(), change))?);
    let relay_and_store = || (relay.clone(), store.clone());
    let (its, stores) = relay_and_store();
    let mut victim = Some(node.block_on(victims.spawn(async move { Victim::start(&its, &*stores).await }))??);
    let (its, stores) = relay_and_store();
    let flooders = node.block_on(flood.spawn(async move { Flooder::crowd(&its, &*stores).await }))??;
    let accepted = Arc::new(AtomicU64::new(0));
    let mut flooded = Duration::ZERO;
    let mut batches = [Batches::default(); 2];
    let times = Measured::in_turn(|side| {
        let running = match side {
            FLOODED => Flood::start(flood, &flooders, kind, &accepted),
            _ => Flood::default(),
        };
        let before = figures.batches();
        let begun = Instant::now();
        let mut away = victim.take().context("the victim is back")?;
        let appends = async move {
            let measured = away.appends(sized(1_000, 100)).await;
            measured.map(|measured| (measured, away))
        };
        let (measured, back) = node.block_on(victims.spawn(appends))??;
        victim = Some(back);
        let written = figures.batches().since(&before);
        batches[side].count += written.count;
        batches[side].frames += written.frames;
        batches[side].sync_s += written.sync_s;
        if side == FLOODED {
            flooded += begun.elapsed();
        }
        running.stop(flood)?;
        Ok(measured)
    })?;
    let [quiet, under] = &times.all;
    bench.note(format!(
        "{name}: quiet p50 {:.0} µs, p99 {:.0} µs; flooded p50 {:.0} µs, p99 {:.0} µs; the flood had {:.0} frames or requests a second taken",
        micros(quiet, 0.5),
        micros(quiet, 0.99),
        micros(under, 0.5),
        micros(under, 0.99),
        accepted.load(Ordering::Relaxed) as f64 / flooded.as_secs_f64(),
    ));
    let [quiet, under] = batches.map(|batches| batches.sync_s / batches.count * 1e6);
    bench.note(format!(
        "{name}: {quiet:.0} µs to write and sync a batch in quiet; flooded {under:.0} µs, with {:.1} frames",
        batches[FLOODED].frames / batches[FLOODED].count
    ));
    times.add_to(bench, name);
    drop((victim, flooders));
    let relay = Arc::into_inner(relay).context("nobody else has the relay")?;
    node.block_on(relay.shutdown());
    node.block_on(store.close())?;
    Ok(())
}

/// An agent of an account that appends now and then.
struct Victim {
    _client: Client,
    appends: Appends,
    channel: Channel,
}

impl Victim {
    async fn start(relay: &Relay, store: &dyn LogStore) -> anyhow::Result<Self> {
        let agent = Agent::new().await?;
        let client = relay.session_of(AccountId::generate(), &agent).await?;
        Ok(Self {
            appends: client.appends().await?,
            channel: Channel::create(store, agent.id, &[]).await?,
            _client: client,
        })
    }

    /// How long each of so many appends takes, until it is durable.
    async fn appends(&mut self, count: usize) -> anyhow::Result<Histogram<u64>> {
        let mut times = times()?;
        for _ in 0..count {
            let frame = self.channel.message(FRAME_BYTES)?;
            let begun = Instant::now();
            self.appends.send(&frame).await?;
            self.appends.accepted().await?;
            times.saturating_record(u64::try_from(begun.elapsed().as_nanos())?);
            tokio::time::sleep(PAUSE).await;
        }
        Ok(times)
    }
}

/// An agent of an account that appends all it can.
struct Flooder {
    client: Client,
    channel: Channel,
}

impl Flooder {
    /// Several of one account.
    async fn crowd(relay: &Relay, store: &dyn LogStore) -> anyhow::Result<Vec<Arc<Self>>> {
        let account = AccountId::generate();
        let mut crowd = Vec::new();
        for _ in 0..FLOODERS {
            let agent = Agent::new().await?;
            crowd.push(Arc::new(Self {
                client: relay.session_of(account, &agent).await?,
                channel: Channel::create(store, agent.id, &[]).await?,
            }));
        }
        Ok(crowd)
    }

    /// Keeps as much unanswered as it may; where it is over a rate it waits as long as it must, and begins another stream.
    async fn flood(&self, bytes: usize, accepted: &AtomicU64) -> anyhow::Result<()> {
        let window = (IN_FLIGHT_BYTES / bytes).clamp(1, IN_FLIGHT_MAX);
        loop {
            let mut appends = self.client.appends().await?;
            let mut unanswered = VecDeque::new();
            let mut wait = None;
            while wait.is_none() || !unanswered.is_empty() {
                if wait.is_none() && unanswered.len() < window {
                    appends.send(&self.channel.message(bytes)?).await?;
                    unanswered.push_back(());
                    continue;
                }
                unanswered.pop_front();
                match appends.answer().await? {
                    Ok(_) => {
                        accepted.fetch_add(1, Ordering::Relaxed);
                    }
                    Err(refusal) => {
                        let code = refusal.known_code().context("a code")?;
                        let is_rate = matches!(code, Code::RateLimited | Code::AccountRateLimited);
                        anyhow::ensure!(is_rate, "refused: {refusal:?}");
                        wait = Some(Duration::from_millis(refusal.retry_after_ms));
                    }
                }
            }
            tokio::time::sleep(wait.unwrap_or_default()).await;
        }
    }
}

impl Flooder {
    /// Begins requests, and begins others where the node gives them up.
    async fn leave_unfinished(&self, begun: &AtomicU64) -> anyhow::Result<()> {
        let one = || async {
            loop {
                let unfinished = self.client.unfinished(FRAME_BYTES_MAX).await?;
                begun.fetch_add(1, Ordering::Relaxed);
                unfinished.ended().await;
            }
        };
        let all: Vec<_> = std::iter::repeat_with(one).take(UNFINISHED).collect();
        futures_util::future::try_join_all(all).await.map(|_: Vec<()>| ())
    }
}

/// A flood that goes on.
#[derive(Default)]
struct Flood(Vec<JoinHandle<anyhow::Result<()>>>);

impl Flood {
    /// Begins, and waits until it is under way.
    fn start(runtime: &Runtime, crowd: &[Arc<Flooder>], kind: Kind, accepted: &Arc<AtomicU64>) -> Self {
        let before = accepted.load(Ordering::Relaxed);
        let tasks = crowd.iter().map(|flooder| {
            let (flooder, accepted) = (flooder.clone(), accepted.clone());
            runtime.spawn(async move {
                match kind {
                    Kind::Frames(bytes) => flooder.flood(bytes, &accepted).await,
                    Kind::Unfinished => flooder.leave_unfinished(&accepted).await,
                }
            })
        });
        let flood = Self(tasks.collect());
        while accepted.load(Ordering::Relaxed) < before + FLOODERS as u64
            && !flood.0.iter().any(JoinHandle::is_finished)
        {
            std::thread::sleep(Duration::from_millis(5));
        }
        flood
    }

    /// Ends it. An error is what ended it before.
    fn stop(self, runtime: &Runtime) -> anyhow::Result<()> {
        for task in self.0 {
            if task.is_finished() {
                runtime.block_on(task)??;
            } else {
                task.abort();
            }
        }
        Ok(())
    }
}
