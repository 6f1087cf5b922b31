//! Durable append through the local store, against a bare segment write and fdatasync of the same bytes.
//!
//! Frames of 1 KiB go to 100 logs in turn, with 1, 64 or 512 of them unanswered. The limit writes the same records in
//! batches of 1, 64 or 512 to a file whose space is reserved, as the store's is, and syncs after each batch. Both lie on
//! the same file system.
//!
//! `+ index` takes the time until the index has the entries, too: what can be kept up for ever.
//!
//! `while regrouping` is a store that regroups sealed segments in the background as it does by default, against the same
//! store without: it is opened again for each turn, over a folder with many segments left to regroup.

use bytes::BytesMut;
use skytale_benches::figures::{Batches, Figures};
use skytale_benches::frames::{Channel, append_windowed, nobody};
use skytale_benches::stopwatch::{Stopwatch, Took};
use skytale_benches::versus::{Aim, Bench, Case, Pair, Side, Work, sized, wanted};
use skytale_log_store::{LocalConfig, LocalStore, LogStore};
use skytale_proto::Frame;
use skytale_proto::Offset;
use skytale_proto::record::{self, HEADER_BYTES, KIND_ENTRY};
use std::cell::RefCell;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::runtime::Runtime;

/// An encoded frame, in bytes.
const FRAME_BYTES: usize = 1_024;
const LOGS: u32 = 100;
/// Bytes read and written to regroup segments.
const REGROUP_IO: &str = "skytale_store_regroup_io_bytes_total";
/// Appends in flight, and how many a turn makes.
const WINDOWS: [(usize, usize); 3] = [(1, 400), (64, 8_192), (512, 32_768)];

fn main() -> anyhow::Result<()> {
    let mut bench = Bench::new("append: durable append to 100 logs, against write + fdatasync of the same bytes");
    let figures = Figures::install()?;
    let folder = tempfile::tempdir()?;
    let runtime = Runtime::new()?;
    let store = runtime.block_on(LocalStore::open(LocalConfig::new(folder.path().join("store"))))?;
    let mut logs = Vec::new();
    for number in 0..LOGS {
        logs.push(runtime.block_on(Channel::create(&store, nobody(number), &[]))?);
    }
    for (window, appends) in WINDOWS {
        let setup = Setup {
            runtime: &runtime,
            store: &store,
            figures: &figures,
            logs: &logs,
            window,
            appends: sized(appends, appends / 8),
            bare: folder.path().join("bare"),
        };
        if wanted(&setup.name()) {
            setup.measure(&mut bench);
        }
    }
    runtime.block_on(store.close())?;
    let windows: Vec<usize> = [64, 512]
        .into_iter()
        .filter(|window| wanted(&Beside::name(*window)))
        .collect();
    if !windows.is_empty() {
        let beside = Beside::fill(&runtime, &figures, folder.path().join("regrouped"))?;
        for window in windows {
            beside.measure(&mut bench, window);
        }
    }
    bench.close();
    Ok(())
}

/// A store with segments left to regroup.
struct Beside<'a> {
    runtime: &'a Runtime,
    figures: &'a Figures,
    dir: PathBuf,
    logs: Vec<Channel>,
}

impl<'a> Beside<'a> {
    fn fill(runtime: &'a Runtime, figures: &'a Figures, dir: PathBuf) -> anyhow::Result<Self> {
        let mut beside = Self {
            runtime,
            figures,
            dir,
            logs: Vec::new(),
        };
        let store = beside.open(0)?;
        for number in 0..LOGS {
            beside
                .logs
                .push(runtime.block_on(Channel::create(&store, nobody(number), &[]))?);
        }
        for _ in 0..sized(8, 2) {
            let frames = Channel::messages(&beside.logs, 64 * 1_024, FRAME_BYTES)?;
            runtime.block_on(append_windowed(&store, frames, 2_048))?;
        }
        runtime.block_on(store.close())?;
        Ok(beside)
    }

    fn name(window: usize) -> String {
        format!("append/{window} in flight, while regrouping")
    }

    fn open(&self, regroup_bytes_per_second: u64) -> anyhow::Result<LocalStore> {
        let config = LocalConfig {
            regroup_bytes_per_second,
            ..LocalConfig::new(&self.dir)
        };
        Ok(self.runtime.block_on(LocalStore::open(config))?)
    }

    fn measure(&self, bench: &mut Bench, window: usize) {
        let appends = sized(48 * 1_024, 4_096);
        let case = Case {
            name: Self::name(window),
            work: Work::Elements {
                count: appends as u64,
                bytes: FRAME_BYTES as u64,
            },
            aim: Aim::AtLeast(0.9),
            pairs: 10,
        };
        let before = self.figures.value(REGROUP_IO);
        let busy = RefCell::new(Duration::ZERO);
        bench.versus(case, |side| match side {
            Side::Ours => {
                let took = self.turn(LocalConfig::new("").regroup_bytes_per_second, appends, window);
                *busy.borrow_mut() += took.wall;
                took
            }
            Side::Limit => self.turn(0, appends, window),
        });
        let bytes = self.figures.value(REGROUP_IO) - before;
        bench.note(format!(
            "{window} in flight: regrouping read and wrote {:.0} MiB in {:.1} s of appends and what it took to open and close",
            bytes / (1024.0 * 1024.0),
            busy.borrow().as_secs_f64(),
        ));
    }

    fn turn(&self, regroup_bytes_per_second: u64, appends: usize, window: usize) -> Took {
        let store = self.open(regroup_bytes_per_second).expect("the store opens");
        let frames = Channel::messages(&self.logs, appends, FRAME_BYTES).expect("frames within the limits");
        let stopwatch = Stopwatch::start();
        let appended = self.runtime.block_on(append_windowed(&store, frames, window));
        let took = stopwatch.took();
        appended.expect("the store takes sound frames");
        self.runtime.block_on(store.close()).expect("the store closes");
        took
    }
}

struct Setup<'a> {
    runtime: &'a Runtime,
    store: &'a LocalStore,
    figures: &'a Figures,
    logs: &'a [Channel],
    window: usize,
    appends: usize,
    bare: PathBuf,
}

impl Setup<'_> {
    fn name(&self) -> String {
        format!("append/{} in flight", self.window)
    }

    fn measure(&self, bench: &mut Bench) {
        let window = self.window;
        let case = |name: String, aim| Case {
            name,
            work: Work::Elements {
                count: self.appends as u64,
                bytes: FRAME_BYTES as u64,
            },
            aim,
            pairs: 10,
        };
        let indexed = RefCell::new(Vec::new());
        let limits = RefCell::new(Vec::new());
        let before = self.figures.batches();
        let busy = RefCell::new(Duration::ZERO);
        bench.versus(case(self.name(), Aim::AtLeast(0.5)), |side| match side {
            Side::Ours => {
                let (answered, until_indexed) = self.ours();
                *busy.borrow_mut() += answered.wall;
                indexed.borrow_mut().push(until_indexed);
                answered
            }
            Side::Limit => {
                let took = self.limit();
                limits.borrow_mut().push(took);
                took
            }
        });
        let (indexed, limits) = (indexed.into_inner(), limits.into_inner());
        let pairs = indexed.iter().zip(&limits).map(|(ours, limit)| Pair {
            ours: *ours,
            limit: *limit,
        });
        bench.add(
            case(format!("append/{window} in flight + index"), Aim::None),
            pairs.collect(),
        );
        note(bench, window, &self.figures.batches().since(&before), busy.into_inner());
    }

    /// The time until all appends are answered, and until the index has them.
    fn ours(&self) -> (Took, Took) {
        let frames = self.frames();
        let stopwatch = Stopwatch::start();
        let appended = self.runtime.block_on(append_windowed(self.store, frames, self.window));
        let answered = stopwatch.took();
        appended.expect("the store takes sound frames");
        self.figures.wait_for_index();
        (answered, stopwatch.took())
    }

    fn limit(&self) -> Took {
        let batches = batches(&self.frames(), self.window);
        bare(&self.bare, &batches).expect("the file system takes what the store's takes")
    }

    fn frames(&self) -> Vec<Frame> {
        Channel::messages(self.logs, self.appends, FRAME_BYTES).expect("frames within the limits")
    }
}

/// Records as the store lays them out, in batches.
fn batches(frames: &[Frame], window: usize) -> Vec<BytesMut> {
    let batch = |frames: &[Frame]| {
        let mut out = BytesMut::with_capacity(frames.len() * (HEADER_BYTES + FRAME_BYTES));
        for frame in frames {
            record::encode_parts(KIND_ENTRY, Offset::FIRST, 0, frame.encoded(), &mut out);
        }
        out
    };
    frames.chunks(window).map(batch).collect()
}

/// Writes and syncs each batch, in a file whose space is reserved beforehand.
fn bare(path: &Path, batches: &[BytesMut]) -> std::io::Result<Took> {
    let mut file = File::create(path)?;
    let bytes: usize = batches.iter().map(BytesMut::len).sum();
    rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, bytes as u64)?;
    file.sync_all()?;
    let stopwatch = Stopwatch::start();
    for batch in batches {
        file.write_all(batch)?;
        file.sync_data()?;
    }
    Ok(stopwatch.took())
}

fn note(bench: &mut Bench, window: usize, batches: &Batches, busy: Duration) {
    if batches.count == 0.0 || busy.is_zero() {
        return;
    }
    bench.note(format!(
        "{window} in flight: {:.1} frames a batch, {:.0} µs to write and sync one, {:.0} % of the time",
        batches.frames / batches.count,
        batches.sync_s / batches.count * 1e6,
        batches.sync_s / busy.as_secs_f64() * 100.0
    ));
}
