//! Bytes that a start of the local store reads, by the length of its log.
//!
//! A log of 1 KiB entries on 100 channels is appended and the store closed. Whenever a segment is sealed the bytes between
//! its header and its footer are given back to the file system, so that a long log takes little of the disk, and nothing
//! in there can be used. Then the store is opened again, and the kernel counts what the process reads
//! (`rchar` of `/proc/self/io`: with what comes from the page cache). Criterion has no part in this: bytes are not a time.

use anyhow::{Context as _, ensure};
use rustix::fs::FallocateFlags;
use skytale_benches::frames::{Channel, append_windowed, nobody};
use skytale_benches::versus::sized;
use skytale_log_store::{LocalConfig, LocalStore, LogStore as _};
use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use tokio::runtime::Runtime;

/// An encoded frame, in bytes.
const FRAME_BYTES: usize = 1_024;
const MIB: usize = 1024 * 1024;
const CHANNELS: u32 = 100;
/// Appends in flight.
const WINDOW: usize = 2_048;
/// Bytes of a segment's header and trailer, and where in the trailer the footer's place is.
const HEADER_BYTES: u64 = 48;
const TRAILER_BYTES: u64 = 64;
const FOOTER_AT: usize = 16;

#[allow(clippy::print_stdout)]
fn main() -> anyhow::Result<()> {
    if !std::env::args().any(|argument| argument == "--bench") {
        // `cargo test --benches` only asks whether it starts.
        return Ok(());
    }
    println!("\nstart: bytes read when a store is opened, MiB");
    println!(
        "  {:>9}  {:>8}  {:>10}  {:>8}  {:>6}  {:>9}",
        "log", "segments", "open one", "index", "read", "of sealed"
    );
    for mib in [sized(512, 64), sized(10 * 1_024, 256)] {
        measure(mib)?;
    }
    Ok(())
}

#[allow(clippy::print_stdout)]
fn measure(mib: usize) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let runtime = Runtime::new()?;
    let mut punched = Punched::default();
    runtime.block_on(async {
        let store = LocalStore::open(config(folder.path())).await?;
        let mut channels = Vec::new();
        for number in 0..CHANNELS {
            channels.push(Channel::create(&store, nobody(number), &[]).await?);
        }
        for _ in 0..mib / 32 {
            let frames = Channel::messages(&channels, 32 * MIB / FRAME_BYTES, FRAME_BYTES)?;
            append_windowed(&store, frames, WINDOW).await?;
            punched.punch(folder.path())?;
        }
        store.close().await?;
        anyhow::Ok(())
    })?;
    punched.punch(folder.path())?;
    let open_one = segments(folder.path())?.len() - punched.segments.len();
    let open_bytes = punched.open_bytes(folder.path())?;
    let index = size(&folder.path().join("index"))?;
    let before = read_bytes()?;
    let store = runtime.block_on(LocalStore::open(config(folder.path())))?;
    let read = read_bytes()? - before;
    runtime.block_on(store.close())?;
    ensure!(open_one == 1, "{open_one} open segments");
    let mib = |bytes: u64| bytes as f64 / MIB as f64;
    println!(
        "  {:>9.0}  {:>8}  {:>10.1}  {:>8.1}  {:>6.1}  {:>8.2}%",
        mib(punched.bytes + open_bytes),
        punched.segments.len() + 1,
        mib(open_bytes),
        mib(index),
        mib(read),
        100.0 * read as f64 / punched.bytes as f64,
    );
    Ok(())
}

/// The default, but segments whose records are gone are left alone.
fn config(dir: &Path) -> LocalConfig {
    LocalConfig {
        regroup_bytes_per_second: 0,
        ..LocalConfig::new(dir)
    }
}

/// Sealed segments whose records are given back.
#[derive(Default)]
struct Punched {
    segments: BTreeSet<PathBuf>,
    bytes: u64,
}

impl Punched {
    fn punch(&mut self, dir: &Path) -> anyhow::Result<()> {
        for path in segments(dir)? {
            if self.segments.contains(&path) {
                continue;
            }
            let file = OpenOptions::new().read(true).write(true).open(&path)?;
            let mut trailer = [0; TRAILER_BYTES as usize];
            file.read_exact_at(&mut trailer, file.metadata()?.len() - TRAILER_BYTES)?;
            if !trailer.starts_with(b"skytaleE") {
                continue;
            }
            let at = trailer[FOOTER_AT..].first_chunk().context("a footer")?;
            let bytes = u64::from(u32::from_le_bytes(*at)) - HEADER_BYTES;
            let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            rustix::fs::fallocate(&file, punch, HEADER_BYTES, bytes)?;
            self.bytes += bytes;
            self.segments.insert(path);
        }
        Ok(())
    }

    fn open_bytes(&self, dir: &Path) -> anyhow::Result<u64> {
        let open = segments(dir)?.into_iter().filter(|path| !self.segments.contains(path));
        open.map(|path| Ok(fs::metadata(path)?.len())).sum()
    }
}

fn segments(dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(dir.join("segments"))? {
        paths.push(entry?.path());
    }
    Ok(paths)
}

fn size(path: &Path) -> anyhow::Result<u64> {
    if !path.is_dir() {
        return Ok(fs::metadata(path)?.len());
    }
    let mut bytes = 0;
    for entry in fs::read_dir(path)? {
        bytes += size(&entry?.path())?;
    }
    Ok(bytes)
}

fn read_bytes() -> anyhow::Result<u64> {
    let io = fs::read_to_string("/proc/self/io")?;
    let line = io.lines().find_map(|line| line.strip_prefix("rchar: "));
    Ok(line.context("no rchar in /proc/self/io")?.parse()?)
}
