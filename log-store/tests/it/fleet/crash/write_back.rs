//! The kernel's memory, written back in any order: pages here and there of the files in a folder, long before or after those
//! that were written with them. And the file system's journal with them, so that they are there after a crash.

use super::{random, random_ms};
use rustix::fs::Advice;
use std::fs::File;
use std::io::Write as _;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

const PAGE: u64 = 4_096;
/// Pages written back at once, at most.
const PAGES_MAX: u64 = 8;
/// Steps between two looks at which files there are.
const LOOK_EVERY: u32 = 40;
/// Steps between two commits of the journal.
const COMMIT_EVERY: u32 = 16;
/// Files that were changed last: those that are written back.
const NEWEST: usize = 8;

/// Writes back until it is dropped.
pub(super) struct WriteBack {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl WriteBack {
    /// Of a folder that may not be there yet; the folder that holds it is.
    pub(super) fn start(folder: &Path) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (folder, stopping) = (folder.to_owned(), stop.clone());
        let thread = std::thread::spawn(move || write_back(&folder, &stopping));
        Self {
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for WriteBack {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn write_back(folder: &Path, stop: &AtomicBool) {
    let mut files = Vec::new();
    for step in 0u32.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        if step.is_multiple_of(LOOK_EVERY) {
            files = newest(folder);
        }
        if let Some(path) = files.get(usize::try_from(random(files.len() as u64)).expect("small")) {
            some_pages(path);
        }
        if step.is_multiple_of(COMMIT_EVERY) {
            commit(folder);
        }
        std::thread::sleep(random_ms(0, 5));
    }
}

/// Starts writing some pages of a file, and does not wait. It may be gone by now.
fn some_pages(path: &Path) {
    let Ok(file) = File::open(path) else { return };
    let pages = file.metadata().map_or(0, |about| about.len().div_ceil(PAGE));
    let length = NonZeroU64::new((1 + random(PAGES_MAX)) * PAGE);
    // Clean pages are dropped, dirty ones are written back: neither changes what the file says.
    let _ = rustix::fs::fadvise(&file, random(pages) * PAGE, length, Advice::DontNeed);
}

/// Syncs a file of nobody's next to the folder, and with it the file system's journal.
fn commit(folder: &Path) {
    let scratch = folder.with_extension("scratch");
    if let Ok(mut file) = File::create(scratch) {
        let _ = file.write_all(b"nobody's").and_then(|()| file.sync_all());
    }
}

fn newest(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(about) if about.is_dir() => folders.push(entry.path()),
                Ok(about) => found.push((about.modified().ok(), entry.path())),
                Err(_) => {}
            }
        }
    }
    found.sort_by_key(|(changed, _)| std::cmp::Reverse(*changed));
    found.into_iter().take(NEWEST).map(|(_, path)| path).collect()
}
