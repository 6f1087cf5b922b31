//! The folder of a tap: one file after another, bounded together.

use crate::event::Event;
use crate::file::{Header, WriteError, Writer};
use std::collections::VecDeque;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Text that waits for its gzip member at most, in bytes, and one event's line.
const MEMBER_TEXT_BYTES: usize = 1024 * 1024;
const PREFIX: &str = "tap-";
const SUFFIX: &str = ".skw";

/// Limits on the size of a tap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TapLimits {
    /// A file that has so many bytes is closed, and another one begun.
    pub file_bytes: u64,
    /// All files of the folder together, in bytes: the oldest are removed first. At least twice `file_bytes`.
    pub bytes_max: u64,
}

/// Writes files, and removes the oldest.
#[derive(Debug)]
pub(super) struct Folder {
    dir: PathBuf,
    limits: TapLimits,
    /// Files that are not written any more, the oldest first.
    older: VecDeque<Older>,
    open: Option<Open>,
    /// Events on the disk that [`Folder::take_written`] has not told.
    written: u64,
}

#[derive(Debug)]
struct Older {
    path: PathBuf,
    bytes: u64,
}

#[derive(Debug)]
struct Open {
    path: PathBuf,
    file: File,
    /// Bytes on the disk, all of them whole members.
    bytes: u64,
    /// Start of the file, from the start of the tap.
    begins: Duration,
    /// Writes to memory, so that a member goes to the disk whole and the bound holds before.
    writer: Writer<Vec<u8>>,
    /// Events that are not on the disk yet.
    waiting: u64,
}

impl Folder {
    pub(super) const fn new(dir: PathBuf, limits: TapLimits) -> Self {
        Self {
            dir,
            limits,
            older: VecDeque::new(),
            open: None,
            written: 0,
        }
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) const fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Begins a file. `begins` is the time of its header, from the start of the tap.
    pub(super) fn open(&mut self, header: &Header, begins: Duration) -> Result<(), WriteError> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.dir)?;
        self.older = older(&self.dir)?;
        let part = header.part.map_or(0, |part| part.number);
        let name = format!("{PREFIX}{:013}-{part:06}{SUFFIX}", header.start_ms.unwrap_or_default());
        let path = self.dir.join(name);
        let writer = Writer::fast(Vec::new(), header)?;
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)?;
        self.open = Some(Open {
            path,
            file,
            bytes: 0,
            begins,
            writer,
            waiting: 0,
        });
        self.put()
    }

    /// Adds an event to the open file; its time is from the start of the tap.
    pub(super) fn write(&mut self, event: Event) -> Result<(), WriteError> {
        let Some(open) = &mut self.open else { return Ok(()) };
        let at = event.at.saturating_sub(open.begins);
        open.writer.write(&Event { at, ..event })?;
        open.waiting += 1;
        if open.writer.waiting_bytes() >= MEMBER_TEXT_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    /// Brings written events to the disk, and closes a file that is large enough.
    pub(super) fn flush(&mut self) -> Result<(), WriteError> {
        let Some(open) = &mut self.open else { return Ok(()) };
        open.writer.flush()?;
        self.put()?;
        if self
            .open
            .as_ref()
            .is_some_and(|open| open.bytes >= self.limits.file_bytes)
        {
            self.close()?;
        }
        Ok(())
    }

    /// Closes the file with its totals.
    pub(super) fn close(&mut self) -> Result<(), WriteError> {
        let Some(open) = &mut self.open else { return Ok(()) };
        open.writer.end()?;
        self.put()?;
        if let Some(Open { path, bytes, .. }) = self.open.take() {
            self.older.push_back(Older { path, bytes });
        }
        Ok(())
    }

    /// Gives the file up, with the events that are not on the disk.
    pub(super) fn abandon(&mut self) {
        let Some(open) = self.open.take() else { return };
        // The best that is possible on a disk that has just failed: a file that stays is good up to a member that was
        // cut.
        let _ = if open.writer.totals().events > open.waiting {
            open.file.set_len(open.bytes)
        } else {
            fs::remove_file(&open.path)
        };
    }

    /// Returns the number of events that came to the disk since the last call.
    pub(super) const fn take_written(&mut self) -> u64 {
        std::mem::replace(&mut self.written, 0)
    }

    fn put(&mut self) -> Result<(), WriteError> {
        let Some(open) = &mut self.open else { return Ok(()) };
        let bytes = std::mem::take(open.writer.out());
        let count = bytes.len() as u64;
        let mut sum = self.older.iter().map(|older| older.bytes).sum::<u64>() + open.bytes + count;
        while sum > self.limits.bytes_max
            && let Some(oldest) = self.older.front()
        {
            match fs::remove_file(&oldest.path) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
                _ => sum -= oldest.bytes,
            }
            self.older.pop_front();
        }
        open.file.write_all(&bytes)?;
        open.bytes += count;
        self.written += std::mem::replace(&mut open.waiting, 0);
        Ok(())
    }
}

/// The files of taps in a folder, the oldest first. Files with other names are left alone.
fn older(dir: &Path) -> io::Result<VecDeque<Older>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if !entry.file_name().to_str().is_some_and(is_of_a_tap) {
            continue;
        }
        match entry.metadata() {
            Ok(metadata) if metadata.is_file() => files.push(Older {
                path: entry.path(),
                bytes: metadata.len(),
            }),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files.into())
}

fn is_of_a_tap(name: &str) -> bool {
    let digits = |text: &str, least: usize| text.len() >= least && text.bytes().all(|byte| byte.is_ascii_digit());
    name.strip_prefix(PREFIX)
        .and_then(|name| name.strip_suffix(SUFFIX))
        .and_then(|name| name.split_once('-'))
        .is_some_and(|(time, number)| digits(time, 13) && digits(number, 6))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Agent, What};
    use crate::file::{End, Reader, Source};

    fn connect(agent: u32) -> Event {
        Event {
            at: Duration::ZERO,
            what: What::Connect(Agent(agent)),
        }
    }

    #[test]
    fn a_full_disk_leaves_what_was_written_before() {
        let dir = tempfile::tempdir().expect("a folder");
        let limits = TapLimits {
            file_bytes: 1 << 20,
            bytes_max: 1 << 30,
        };
        let mut folder = Folder::new(dir.path().to_owned(), limits);
        let header = Header::new(Source::Tap, "a test");
        folder.open(&header, Duration::ZERO).expect("opened");
        folder.write(connect(0)).expect("taken");
        folder.flush().expect("written");
        let open = folder.open.as_mut().expect("open");
        let path = open.path.clone();
        open.file = OpenOptions::new().write(true).open("/dev/full").expect("a full disk");
        folder.write(connect(1)).expect("taken");
        let error = folder.flush().expect_err("full");
        assert!(error.to_string().contains("No space left"), "{error}");
        folder.abandon();
        assert_eq!(folder.take_written(), 1);
        let mut reader = Reader::new(File::open(&path).expect("there")).expect("a workload");
        assert_eq!(reader.next_event().expect("an event"), Some(connect(0)));
        assert_eq!(reader.next_event().expect("the end"), None);
        assert_eq!(reader.end(), Some(&End::Cut));

        // A file that got nothing but its header does not stay.
        let header = Header {
            start_ms: Some(1),
            ..header
        };
        folder.open(&header, Duration::ZERO).expect("opened");
        folder.open.as_mut().expect("open").file =
            OpenOptions::new().write(true).open("/dev/full").expect("a full disk");
        folder.write(connect(1)).expect("taken");
        folder.flush().expect_err("full");
        folder.abandon();
        assert_eq!(fs::read_dir(dir.path()).expect("a folder").count(), 1);
    }

    #[test]
    fn names_of_other_files_are_none_of_a_tap() {
        assert!(is_of_a_tap("tap-1700000000000-000001.skw"));
        for name in [
            "tap-1700000000000-1.skw",
            "tap-170000000000-000001.skw",
            "tap-1700000000000-000001.skw.part",
            "tap-17000000000o0-000001.skw",
            "monday.skw",
            "tap-.skw",
        ] {
            assert!(!is_of_a_tap(name), "{name}");
        }
    }
}
