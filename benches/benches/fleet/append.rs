//! Appends through a node, and atomic batches to streams of the same kind.

use crate::common::{Cost, Servers, channels, node};
use crate::{FRAME_BYTES, LOGS};
use anyhow::Context as _;
use futures_util::future::try_join_all;
use skytale_benches::figures::Figures;
use skytale_benches::frames::Channel;
use skytale_benches::nats::{self, Message};
use skytale_benches::stopwatch::Stopwatch;
use skytale_benches::versus::{Aim, Bench, Case, Pair, Side, Work, in_turn, sized};
use skytale_log_store::cluster::Cluster;
use skytale_log_store::fleet::FleetStore;
use skytale_log_store::{LogStore as _, PendingAppend};
use skytale_proto::{Frame, LogId};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

/// Shards that are appended to.
const SHARDS: usize = 4;

/// Appends in flight, frames in one of the limit's batches, how many appends a turn makes, and the aim. Each stream of the limit has
/// as many frames in flight as each shard; with one in flight there is one stream.
const WINDOWS: [(usize, usize, usize, Aim); 4] = [
    (1, 1, 1_024, Aim::None),
    (64, 16, 8_192, Aim::AtLeast(0.6)),
    (512, 128, 24_576, Aim::AtLeast(0.6)),
    (4_096, 512, 32_768, Aim::AtLeast(0.6)),
];

pub(crate) fn run(
    bench: &mut Bench,
    runtime: &Runtime,
    cluster: &Cluster,
    servers: &Servers,
    figures: &Figures,
) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let account = cluster.account();
    let store = runtime.block_on(node(&account, folder.path(), SHARDS as u16))?;
    let logs = runtime.block_on(channels(&store, SHARDS))?;
    let context = runtime.block_on(account.context()).map_err(anyhow::Error::msg)?;
    for shard in 0..SHARDS {
        let (name, subjects) = (format!("RAW_{shard}"), format!("raw.log.0.{shard}.*"));
        runtime.block_on(nats::make_stream(&context, &name, &subjects))?;
    }
    for (window, batch, appends, aim) in WINDOWS {
        let appends = sized(appends, appends / 8);
        let shards = SHARDS.min(window);
        // In turn by shard: those of the first one alone, where there are not as many in flight as shards.
        let logs: Vec<Channel> = logs.iter().copied().step_by(SHARDS / shards).take(LOGS).collect();
        let costs = RefCell::new([Cost::default(); 2]);
        let batches = Cell::new((0.0, 0.0));
        let times = RefCell::new(Vec::new());
        let mut turn = |side| {
            let frames = Channel::messages(&logs, appends, FRAME_BYTES).expect("frames within the limits");
            let published = published(figures);
            let raw = raw_messages(&store, &frames);
            let before = servers.cpu();
            let stopwatch = Stopwatch::start();
            match side {
                Side::Ours => {
                    let done = runtime.block_on(append_all(&store, frames, window / shards));
                    times
                        .borrow_mut()
                        .extend(done.expect("the cluster takes what is sound"));
                }
                Side::Limit => {
                    let in_flight = (window / shards / batch).max(1);
                    let done = runtime.block_on(publish_raw(&context, &raw, batch, in_flight));
                    done.expect("the cluster takes what is sound");
                }
            }
            let took = stopwatch.took();
            costs.borrow_mut()[side as usize].add(took, servers.cpu() - before, appends);
            let now = self::published(figures);
            let (count, frames) = batches.get();
            batches.set((count + now.0 - published.0, frames + now.1 - published.1));
            took
        };
        let pairs: Vec<Pair> = (0..sized(8, 3)).map(|number| in_turn(number, &mut turn)).collect();
        let case = Case {
            name: format!("fleet append/{window} in flight"),
            work: Work::Elements {
                count: appends as u64,
                bytes: FRAME_BYTES as u64,
            },
            aim,
            pairs: pairs.len(),
        };
        bench.add(case, pairs);
        let (batches, frames) = batches.get();
        let [ours, limit] = costs.into_inner();
        let mut times = times.into_inner();
        times.sort_unstable();
        let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize];
        bench.note(format!(
            "append, {window} in flight: answered after {:.1?} (p50), {:.1?} (p99); {:.0} frames a batch, the limit's {batch}; \
             processor time an append: {:.0} µs in the node and {:.0} in the three servers; the limit's: {:.0} and {:.0}",
            at(0.5),
            at(0.99),
            frames / f64::max(batches, 1.0),
            ours.each_us(ours.node),
            ours.each_us(ours.servers),
            limit.each_us(limit.node),
            limit.each_us(limit.servers),
        ));
    }
    runtime.block_on(store.close())?;
    Ok(())
}

/// Appends frames, each shard's by an author of its own: the limit's streams do not wait for one another either. Says how long
/// each frame took to be answered.
async fn append_all(store: &FleetStore, frames: Vec<Frame>, window: usize) -> anyhow::Result<Vec<Duration>> {
    let mut by_shard = vec![Vec::new(); SHARDS];
    for frame in frames {
        by_shard[shard_of(store, &frame.header().log)].push(frame);
    }
    let authors = by_shard.into_iter().map(|frames| windowed(store, frames, window));
    Ok(try_join_all(authors).await?.concat())
}

/// Appends frames with at most `window` of them unanswered.
async fn windowed(store: &FleetStore, frames: Vec<Frame>, window: usize) -> anyhow::Result<Vec<Duration>> {
    let mut times = Vec::with_capacity(frames.len());
    let mut waiting: VecDeque<(Instant, PendingAppend)> = VecDeque::with_capacity(window);
    for frame in frames {
        if waiting.len() >= window {
            let (since, oldest) = waiting.pop_front().context("a window of at least one")?;
            oldest.verdict().await?;
            times.push(since.elapsed());
        }
        waiting.push_back((Instant::now(), store.append(frame).await?));
    }
    for (since, pending) in waiting {
        pending.verdict().await?;
        times.push(since.elapsed());
    }
    Ok(times)
}

/// Batches that nodes of this process have published, and frames in them.
fn published(figures: &Figures) -> (f64, f64) {
    let value = |what| figures.value(&format!("skytale_fleet_publish_batch_frames_{what}"));
    (value("count"), value("sum"))
}

/// The frames as messages for streams of the same kind: by shard.
fn raw_messages(store: &FleetStore, frames: &[Frame]) -> Vec<Vec<Message>> {
    let mut raw = vec![Vec::new(); SHARDS];
    for frame in frames {
        let log = frame.header().log;
        let shard = shard_of(store, &log);
        raw[shard].push(Message {
            subject: raw_subject(shard, &log),
            payload: frame.encoded().clone(),
        });
    }
    raw
}

fn shard_of(store: &FleetStore, log: &LogId) -> usize {
    store.shard_of(log).map_or(0, |shard| usize::from(shard.index))
}

/// Returns a subject as long as that in the shard's own stream, or nearly.
fn raw_subject(shard: usize, log: &LogId) -> String {
    let hex: String = log.to_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("raw.log.0.{shard}.{hex}")
}

async fn publish_raw(
    context: &async_nats::jetstream::Context,
    raw: &[Vec<Message>],
    batch: usize,
    in_flight: usize,
) -> anyhow::Result<()> {
    try_join_all(raw.iter().map(|raw| nats::publish(context, raw, batch, in_flight))).await?;
    Ok(())
}
