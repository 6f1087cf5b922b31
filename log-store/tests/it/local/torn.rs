//! A batch that a crash cut off is cut off for good; everything before it stays.

use super::script::*;
use proptest::prelude::*;
use skytale_log_store::LogStore as _;
use skytale_proto::{AgentId, ChannelId, Frame, Offset};
use std::fs;
use std::path::Path;
use std::sync::OnceLock;
use tempfile::TempDir;

/// Bytes after the cut.
#[derive(Clone, Copy, Debug)]
enum Rest {
    /// Nothing: the file ends there.
    Nothing,
    /// Reserved space.
    Zeroes,
    /// Bytes that a disk may leave.
    Garbage(u8),
}

/// A store whose last batch is a bundle with three Welcomes, as a crash leaves it.
struct Crashed {
    dir: TempDir,
    channel: ChannelId,
    frames: Vec<Frame>,
    added: [AgentId; 3],
    /// Range of the last batch in the segment.
    batch: std::ops::Range<usize>,
    /// End of the bundle's record.
    bundle_end: usize,
}

impl Crashed {
    async fn make() -> Self {
        let (source, dir) = (TempDir::new().expect("a folder"), TempDir::new().expect("a folder"));
        let store = open(small(source.path())).await;
        let (channel, mut frames) = channel_with(&store, 3, b"whole").await;
        let added = [2, 3, 4].map(|id| AgentId::from_bytes([id; 32]));
        claimed(&store, &added).await;
        let segment = segments(source.path()).remove(0);
        let before = used(&fs::read(&segment).expect("read"));
        let last = bundle(channel, 1, &added);
        accept(&store, &last).await;
        copy_of_segments(source.path(), dir.path());
        close(store).await;
        let bytes = fs::read(&segments(dir.path())[0]).expect("read");
        let bundle_end = find(&bytes, last.encoded()) + last.encoded().len();
        frames.push(last);
        Self {
            dir,
            channel,
            frames,
            added,
            batch: before..used(&bytes),
            bundle_end,
        }
    }

    fn cut(&self, to: &Path, place: usize, rest: Rest) {
        copy_of_segments(self.dir.path(), to);
        let segment = segments(to).remove(0);
        let mut bytes = fs::read(&segment).expect("read");
        let length = bytes.len();
        bytes.truncate(place);
        match rest {
            Rest::Nothing => {}
            Rest::Zeroes => bytes.resize(length, 0),
            Rest::Garbage(seed) => {
                let noise = (0..length - place).map(|index| (index as u8).wrapping_mul(31) ^ seed ^ (index >> 8) as u8);
                bytes.extend(noise.map(|byte| byte | 1));
            }
        }
        fs::write(&segment, bytes).expect("written");
    }
}

/// Bytes up to the reserved space.
fn used(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)
}

fn crashed() -> &'static Crashed {
    static CRASHED: OnceLock<Crashed> = OnceLock::new();
    CRASHED.get_or_init(|| runtime().block_on(Crashed::make()))
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime")
}

async fn a_cut_loses_nothing_acknowledged(place: usize, rest: Rest) {
    let crashed = crashed();
    let dir = TempDir::new().expect("a folder");
    crashed.cut(dir.path(), place, rest);
    let log = crashed.channel.log();
    for _ in 0..2 {
        let store = open(small(dir.path())).await;
        assert_eq!(*store.stopped().borrow(), None);
        let kept = entries(&store, log, Offset::ZERO).await.expect("read").len();
        // The bundle is there exactly where its whole record is.
        assert_eq!(kept, if place >= crashed.bundle_end { 5 } else { 4 }, "cut at {place}");
        holds(&store, log, &crashed.frames[..kept]).await;
        for agent in crashed.added {
            let welcomes = entries(&store, agent.log(), Offset::ZERO).await.expect("read");
            assert_eq!(
                welcomes.len(),
                2 + kept - 4,
                "a package, a claim, and the Welcome exactly once"
            );
        }
        close(store).await;
    }
    let store = open(small(dir.path())).await;
    let kept = entries(&store, log, Offset::ZERO).await.expect("read").len() as u64;
    let again = append(&store, &crashed.frames[4]).await.expect("accepted");
    assert_eq!((again.offset, again.duplicate), (at(5), kept == 5));
    for agent in crashed.added {
        assert_eq!(entries(&store, agent.log(), Offset::ZERO).await.expect("read").len(), 3);
    }
    accept(&store, &message(crashed.channel, 5, b"goes on")).await;
    close(store).await;
}

#[test]
fn a_tail_cut_at_the_edges_of_each_record_loses_nothing_acknowledged() {
    let runtime = runtime();
    let crashed = crashed();
    let edges = [crashed.batch.start, crashed.bundle_end, crashed.batch.end - 1];
    for place in edges.into_iter().flat_map(|edge| edge - 1..=edge + 1) {
        for rest in [Rest::Nothing, Rest::Zeroes, Rest::Garbage(5)] {
            // Everything before the last batch was acknowledged, and stays.
            if place >= crashed.batch.start && place < crashed.batch.end {
                runtime.block_on(a_cut_loses_nothing_acknowledged(place, rest));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, max_shrink_iters: 20, ..ProptestConfig::default() })]
    #[test]
    fn a_tail_cut_anywhere_loses_nothing_acknowledged(
        place in any::<prop::sample::Index>(),
        rest in prop_oneof![Just(Rest::Nothing), Just(Rest::Zeroes), any::<u8>().prop_map(Rest::Garbage)],
    ) {
        let batch = crashed().batch.clone();
        let place = batch.start + place.index(batch.len());
        runtime().block_on(a_cut_loses_nothing_acknowledged(place, rest));
    }
}
