//! The settings of a local store.

use super::clock::Clocks;
use super::faults::DiskFaults;
use skytale_proto::limits;
use std::path::PathBuf;
use std::time::Duration;

/// The smallest segment, in bytes: room for a header and one batch of one entry.
pub const SEGMENT_BYTES_MIN: u32 = 4 * 1024;
/// The largest segment, in bytes. Positions inside a segment are 32 bits wide.
pub const SEGMENT_BYTES_MAX: u32 = 1024 * 1024 * 1024;

/// The longest batch, in bytes.
const BATCH_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Maximum part of a small file system that is kept free: a setting for a large disk must not make a small one useless.
const FREE_PART: u64 = 8;

/// Part of the rate of regrouping that is used while batches are written.
pub(crate) const REGROUP_BUSY_PART: u64 = 4;

/// Settings of a [`super::LocalStore`]. [`LocalConfig::new`] gives the defaults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalConfig {
    /// The folder that holds everything.
    pub dir: PathBuf,
    /// A segment is sealed when the next batch would make it longer than this, in bytes.
    pub segment_bytes: u32,
    /// A batch takes no further frame once its records have this many bytes.
    pub batch_bytes_max: usize,
    /// A batch takes no more frames than this.
    pub batch_frames_max: usize,
    /// Frames that may wait for the writer; an append beyond them waits for room.
    pub queue_frames_max: usize,
    /// Bytes of frames that may wait for the writer; an append beyond them waits for room.
    pub queue_bytes_max: usize,
    /// Bytes of recent records kept in memory for readers near the head.
    pub cache_bytes: usize,
    /// Bytes of records that the index may be behind; the writer waits beyond them.
    pub index_lag_bytes_max: usize,
    /// Memory that sled may use for its page cache, in bytes.
    pub index_cache_bytes: u64,
    /// Log states kept in memory, at most; the others are read from the index when they are needed.
    pub states_max: usize,
    /// Bytes of log states kept in memory, about.
    pub states_bytes_max: usize,
    /// Free bytes on the disk below which no appends are taken: the rest is for retention and the index. At most an
    /// eighth of the file system is kept free. 0 keeps none.
    pub free_bytes_min: u64,
    /// Memory that the index may take while there is no room for it on the disk, in bytes.
    pub index_memory_bytes_max: usize,
    /// Bytes a second that are read and written to regroup sealed segments by log, in the background; a quarter of it while
    /// appends are written. A segment takes about four times its size. 0 leaves segments as they were written.
    pub regroup_bytes_per_second: u64,
    /// Limits on the kept entries.
    pub retention: Retention,
    /// Planned failures of its files; for tests.
    #[doc(hidden)]
    pub faults: DiskFaults,
    /// Clocks that it reads; for tests.
    #[doc(hidden)]
    pub clocks: Clocks,
}

/// Limits on the age and the size of the kept entries. Whole segments are dropped, oldest first, so that a little more
/// is kept than said here.
///
/// The segment that takes batches is sealed once its first entry is a twentieth of the age old, so also on a node to which nobody
/// appends. An entry is gone from the disk when it is as old as `age`, a twentieth of that, and twice [`Retention::check_every`].
///
/// Age is judged by a clock of the store's own: the time that passes moves it, and the machine's clock only as far as it
/// agrees with that. One that has leapt is believed after an hour, and not before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Entries older than this are dropped. `None` keeps them.
    pub age: Option<Duration>,
    /// Segments beyond this many bytes are dropped. `None` keeps them.
    pub bytes: Option<u64>,
    /// Interval between checks.
    pub check_every: Duration,
}

/// Part of the age for which entries are added to one segment.
const SEALED_PART: u32 = 20;

impl Retention {
    /// Time after which a segment with entries is sealed.
    pub(crate) fn seal_after(&self) -> Option<Duration> {
        self.age.map(|age| age / SEALED_PART)
    }
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            age: Some(limits::RETENTION),
            bytes: None,
            check_every: Duration::from_secs(60),
        }
    }
}

impl LocalConfig {
    /// The defaults, in a folder.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            segment_bytes: 64 * 1024 * 1024,
            batch_bytes_max: 4 * 1024 * 1024,
            batch_frames_max: 4_096,
            queue_frames_max: 8_192,
            queue_bytes_max: 32 * 1024 * 1024,
            cache_bytes: 32 * 1024 * 1024,
            index_lag_bytes_max: 64 * 1024 * 1024,
            index_cache_bytes: 64 * 1024 * 1024,
            states_max: 16_384,
            states_bytes_max: 64 * 1024 * 1024,
            free_bytes_min: 64 * 1024 * 1024,
            index_memory_bytes_max: 1024 * 1024 * 1024,
            regroup_bytes_per_second: 64 * 1024 * 1024,
            retention: Retention::default(),
            faults: DiskFaults::default(),
            clocks: Clocks::default(),
        }
    }

    /// Bytes that are kept free of a file system of `total` bytes.
    pub(crate) const fn kept_free(&self, total: u64) -> u64 {
        let part = total / FREE_PART;
        if part < self.free_bytes_min {
            part
        } else {
            self.free_bytes_min
        }
    }

    /// Returns the problem in the settings, if there is one.
    pub(crate) fn problem(&self) -> Option<String> {
        let first = self.problems().into_iter().next();
        first.map(|(name, problem)| format!("{name} {problem}"))
    }

    /// Every setting that cannot work: its name, and its problem.
    pub fn problems(&self) -> Vec<(&'static str, String)> {
        let mut found = Vec::new();
        let mut refuse = |wrong: bool, name, problem: String| {
            if wrong {
                found.push((name, problem));
            }
        };
        refuse(
            !(SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&self.segment_bytes),
            "segment_bytes",
            format!("must be between {SEGMENT_BYTES_MIN} and {SEGMENT_BYTES_MAX}"),
        );
        for (name, value) in [
            ("batch_bytes_max", self.batch_bytes_max),
            ("batch_frames_max", self.batch_frames_max),
            ("queue_frames_max", self.queue_frames_max),
            ("index_lag_bytes_max", self.index_lag_bytes_max),
            ("states_max", self.states_max),
        ] {
            refuse(value == 0, name, "must be at least 1".into());
        }
        refuse(
            self.queue_bytes_max < limits::FRAME_BYTES_MAX || self.queue_bytes_max > u32::MAX as usize,
            "queue_bytes_max",
            format!(
                "must be between {} (one frame) and {}",
                limits::FRAME_BYTES_MAX,
                u32::MAX
            ),
        );
        refuse(
            self.batch_bytes_max > BATCH_BYTES_MAX,
            "batch_bytes_max",
            format!("must be at most {BATCH_BYTES_MAX}"),
        );
        found
    }
}
