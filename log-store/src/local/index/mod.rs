//! Data derived from the segments, in sled: positions of entries, accepted frame ids, states of logs.
//!
//! Nothing lives here alone. The index says up to which batch it is current; what segments hold beyond that is put in
//! when the store opens. It is trusted where it was closed cleanly, or where the same kernel still has its files in
//! memory; else, and where it does not fit the segments, it is thrown away and built again. Where the disk has no room
//! for it, it is in memory, for readers alone: then it has no frame ids, and nothing may be appended.

mod ids;
mod owner;
mod rows;
mod table;
mod thread;

pub(crate) use ids::Seen;
pub(crate) use rows::{Located, Round, Run, Standing};
pub(crate) use thread::Indexer;

use super::config::LocalConfig;
use super::error::OpenError;
use super::faults::{DiskFaults, DiskStep};
use super::folder::{StoreId, make_private};
use super::known::Known;
use super::segment::{Position, take_log};
use super::space::no_room;
use crate::StoreError;
use bytes::Bytes;
use ids::FrameIds;
use owner::Owner;
use skytale_proto::{FrameId, LogId, Offset};
use std::collections::BTreeSet;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use table::Table;

const STANDING_KEY: &[u8] = b"standing";
/// Time to wait for sled's own lock, which an index just closed in this process may still hold.
const SLED_LOCK_WAIT: Duration = Duration::from_secs(10);

/// The index.
pub(crate) struct Index {
    dir: PathBuf,
    /// `None` where it is in memory.
    db: Option<sled::Db>,
    /// (log, first offset) -> where a run of entries is.
    runs: Table,
    /// (log, frame id) -> offset and time.
    frames: Option<FrameIds>,
    /// log -> its state at some entry.
    states: Table,
    /// log -> the segment that holds its last state record.
    snapshots: Table,
    /// log -> its first damaged entry.
    damage: Table,
    /// Logs whose entries were found before their state, while the index is being built.
    orphans: Table,
    meta: Table,
    /// Memory that it takes, where it is in memory; and may take.
    bytes: Arc<AtomicUsize>,
    bytes_max: usize,
    faults: DiskFaults,
}

/// Damage of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Damage {
    /// The first entry that cannot be read.
    pub(crate) offset: Offset,
    /// Its position, now or earlier.
    pub(crate) position: Position,
    /// File, position and problem.
    pub(crate) place: String,
}

impl Index {
    /// Opens the index of a store, or begins a new one; and says how far it is current. `fits` says whether the
    /// segments confirm that.
    pub(crate) fn open(
        dir: &Path,
        store: &StoreId,
        config: &LocalConfig,
        fits: impl Fn(&Self, &Standing) -> bool,
    ) -> Result<(Self, Option<Standing>), OpenError> {
        make_private(dir).map_err(OpenError::io("create", dir))?;
        let owner = Owner::here(dir).map_err(OpenError::io("read", dir))?;
        let trusted = owner.may_trust(dir);
        owner.write(dir).map_err(OpenError::io("write to", dir))?;
        let newest = generations(dir)?.last().copied();
        if let (true, Some(generation)) = (trusted, newest)
            && let Some(index) = Self::open_sled(dir, generation, config)?
            && let Some(standing) = index.standing(store)
            && fits(&index, &standing)
        {
            return Ok((index, Some(standing)));
        }
        if newest.is_some() {
            tracing::warn!(dir = %dir.display(), "the index does not fit the segments; it is built again");
        }
        for generation in generations(dir)? {
            let old = sled_dir(dir, generation);
            fs::remove_dir_all(&old).map_err(OpenError::io("remove", &old))?;
        }
        let generation = newest.unwrap_or_default() + 1;
        let index = Self::open_sled(dir, generation, config)?.ok_or_else(|| OpenError::Foreign {
            path: sled_dir(dir, generation),
            problem: "a new index cannot be made; is the disk full?".into(),
        })?;
        Ok((index, None))
    }

    /// An empty index in memory, for readers.
    pub(crate) fn in_memory(dir: &Path, config: &LocalConfig) -> Self {
        let bytes = Arc::default();
        let table = || Table::in_memory(&bytes);
        Self {
            dir: dir.to_owned(),
            db: None,
            runs: table(),
            frames: None,
            states: table(),
            snapshots: table(),
            damage: table(),
            orphans: table(),
            meta: table(),
            bytes_max: config.index_memory_bytes_max,
            faults: config.faults.clone(),
            bytes,
        }
    }

    /// Whether it is in memory.
    pub(crate) const fn is_in_memory(&self) -> bool {
        self.db.is_none()
    }

    /// Marks the index on the disk, without a write to it, as not to be trusted any more: it lacks something.
    pub(crate) fn distrust(&self) -> std::io::Result<()> {
        Owner::forget(&self.dir)
    }

    /// Whether the disk takes what sled writes in the background.
    pub(crate) fn flush(&self) -> Result<(), StoreError> {
        match &self.db {
            Some(db) => db.flush().map(drop).map_err(failed("write to the index")),
            None => Ok(()),
        }
    }

    /// `None` if sled cannot open the files: they are derived, and are built again. An error if the disk has no room.
    fn open_sled(dir: &Path, generation: u32, config: &LocalConfig) -> Result<Option<Self>, OpenError> {
        let path = sled_dir(dir, generation);
        let begun = Instant::now();
        loop {
            let sled = sled::Config::new()
                .path(&path)
                .cache_capacity(config.index_cache_bytes)
                .flush_every_ms(Some(1_000));
            // sled panics on some damage; an index that does so is as good as none.
            let opened = catch_unwind(AssertUnwindSafe(|| {
                let db = sled.open()?;
                let tree = |name: &str| db.open_tree(name);
                let table = |name: &str| tree(name).map(Table::Disk);
                Ok::<_, sled::Error>(Self {
                    dir: dir.to_owned(),
                    runs: table("runs")?,
                    frames: Some(FrameIds::new(tree("frames")?)),
                    states: table("states")?,
                    snapshots: table("snapshots")?,
                    damage: table("damage")?,
                    orphans: table("orphans")?,
                    meta: table("meta")?,
                    db: Some(db),
                    bytes: Arc::default(),
                    bytes_max: usize::MAX,
                    faults: config.faults.clone(),
                })
            }));
            match opened {
                Ok(Ok(index)) => return Ok(Some(index)),
                Ok(Err(sled::Error::Io(error)))
                    if error.to_string().contains("lock") && begun.elapsed() < SLED_LOCK_WAIT =>
                {
                    std::thread::sleep(Duration::from_millis(20));
                }
                Ok(Err(sled::Error::Io(error))) if no_room(&error) => return Err(OpenError::io("open", &path)(error)),
                Ok(Err(error)) => {
                    tracing::warn!(path = %path.display(), %error, "the index cannot be opened");
                    return Ok(None);
                }
                Err(_) => {
                    tracing::warn!(path = %path.display(), "the index cannot be opened: sled gave up");
                    return Ok(None);
                }
            }
        }
    }

    fn standing(&self, store: &StoreId) -> Option<Standing> {
        let row = self.meta.get(STANDING_KEY).ok()??;
        Standing::decode(&row, store)
    }

    /// Puts a round of entries in. The standing goes last, so that a crash in between leaves rows that say what the
    /// next round says again.
    pub(crate) fn write(&self, store: &StoreId, round: &mut Round, again: bool) -> Result<(), StoreError> {
        round.sort();
        if let (Err(error), false) = (self.faults.check(DiskStep::Index), self.is_in_memory()) {
            return Err(failed("write to the index")(sled::Error::Io(error)));
        }
        let mut write = || -> Result<(), sled::Error> {
            for log in &mut round.logs {
                for run in &log.runs {
                    if again {
                        self.remove_runs(&run.log, run.first.next(), run.last())?;
                    }
                    self.runs.insert(rows::run_key(&run.log, run.first), run.encode())?;
                }
                if let Some(frames) = &self.frames {
                    frames.insert(&log.log, &mut log.ids)?;
                }
            }
            for (log, state) in &round.states {
                self.states.insert(log.to_bytes(), state.as_ref())?;
            }
            for (log, segment) in &round.snapshots {
                self.snapshots
                    .insert(log.to_bytes(), segment.to_le_bytes().as_slice())?;
            }
            if let Some(standing) = &round.standing {
                self.meta.insert(STANDING_KEY, standing.encode(store))?;
            }
            Ok(())
        };
        write().map_err(failed("write to the index"))?;
        let bytes = self.bytes.load(Ordering::Relaxed);
        if bytes > self.bytes_max {
            return Err(StoreError::Io {
                doing: "keep the index in memory".into(),
                error: format!(
                    "it takes more than {} bytes; make room on the disk, then start again",
                    self.bytes_max
                ),
            });
        }
        Ok(())
    }

    /// Removes the runs that begin at an offset from `first` to `last`.
    fn remove_runs(&self, log: &LogId, first: Offset, last: Offset) -> Result<(), sled::Error> {
        for row in self
            .runs
            .range(rows::run_key(log, first), Some(rows::run_key(log, last.next())))
        {
            let (key, _) = row?;
            self.runs.remove(key)?;
        }
        Ok(())
    }

    /// The last entry of a log that the index has; [`Offset::ZERO`] for none.
    pub(crate) fn head(&self, log: &LogId) -> Result<Offset, StoreError> {
        let row = self
            .runs
            .get_lt(rows::after_runs(log))
            .map_err(failed("read the index"))?;
        Ok(row
            .and_then(|(key, value)| Run::decode(log, &key, &value))
            .map_or(Offset::ZERO, |run| run.last()))
    }

    /// Returns the positions of a log's entries after a cursor and up to an offset: contiguous, and within the limits
    /// except for the first one. And whether a limit, not the end of the indexed entries, ended them.
    pub(crate) fn locate(
        &self,
        log: &LogId,
        after: Offset,
        until: Offset,
        bytes_max: usize,
        entries_max: u64,
    ) -> Result<(Vec<Located>, bool), StoreError> {
        let mut found = Vec::new();
        let mut bytes = 0;
        let mut next = after.next();
        let below = self
            .runs
            .get_lt(rows::run_key(log, next.next()))
            .map_err(failed("read the index"))?;
        let Some((from, _)) = below.filter(|(key, _)| key.starts_with(&log.to_bytes())) else {
            return Ok((found, false));
        };
        for row in self.runs.range(from.to_vec(), Some(rows::after_runs(log))) {
            let (key, value) = row.map_err(failed("read the index"))?;
            let Some(run) = Run::decode(log, &key, &value) else {
                break;
            };
            if run.first > next {
                break;
            }
            for located in run.entries_from(next) {
                let full = !found.is_empty() && bytes + located.length as usize > bytes_max;
                if full || located.offset > until || found.len() as u64 >= entries_max {
                    return Ok((found, true));
                }
                bytes += located.length as usize;
                next = located.offset.next();
                found.push(located);
            }
        }
        Ok((found, false))
    }

    /// Returns the offset and the time at which a log accepted a frame id before.
    pub(crate) fn seen(&self, log: &LogId, id: &FrameId) -> Result<Option<(Offset, u64)>, StoreError> {
        let Some(frames) = &self.frames else {
            return Err(StoreError::Full {
                reason: "the index is in memory, without frame ids".into(),
            });
        };
        let seen = frames.get(log, id).map_err(failed("read the index"))?;
        Ok(seen.map(|seen| (seen.offset, seen.time_ms)))
    }

    /// Returns the state of a log when it was last kept.
    pub(crate) fn known(&self, log: LogId) -> Result<Option<Known>, StoreError> {
        let row = self.states.get(log.to_bytes()).map_err(failed("read the index"))?;
        row.map(|row| {
            Known::decode(log, Bytes::copy_from_slice(&row)).map_err(|error| StoreError::Io {
                doing: "read the index".into(),
                error: format!("state of {log}: {error}"),
            })
        })
        .transpose()
    }

    /// The logs that have entries or a state here, in the order of their ids.
    pub(crate) fn logs(&self) -> Result<BTreeSet<LogId>, StoreError> {
        let mut found = BTreeSet::new();
        for tree in [&self.runs, &self.states, &self.snapshots] {
            let mut from: Vec<u8> = Vec::new();
            while let Some(row) = tree.range(from.clone(), None).next() {
                let (key, _) = row.map_err(failed("read the index"))?;
                let log = take_log(&mut key.as_ref()).ok_or_else(|| StoreError::Io {
                    doing: "read the index".into(),
                    error: "a row of no log".into(),
                })?;
                from = rows::after_runs(&log);
                found.insert(log);
            }
        }
        Ok(found)
    }

    /// The segment that holds a log's last state record.
    pub(crate) fn snapshot(&self, log: &LogId) -> Result<Option<u32>, StoreError> {
        let row = self.snapshots.get(log.to_bytes()).map_err(failed("read the index"))?;
        Ok(row.and_then(|row| Some(u32::from_le_bytes(row.as_ref().try_into().ok()?))))
    }

    /// Forgets where the entries of a dropped segment stood.
    pub(crate) fn forget_runs(&self, log: &LogId, first: Offset, last: Offset) -> Result<(), StoreError> {
        self.remove_runs(log, first, last).map_err(failed("write to the index"))
    }

    /// Forgets frame ids of a dropped segment, except for those that the log has accepted again since.
    pub(crate) fn forget_frames(&self, log: &LogId, ids: &mut [Seen]) -> Result<(), StoreError> {
        match &self.frames {
            Some(frames) => frames.remove(log, ids).map_err(failed("write to the index")),
            None => Ok(()),
        }
    }

    /// Notes that a log cannot be served past an entry; an earlier one is kept.
    pub(crate) fn note_damage(&self, log: &LogId, damage: &Damage) -> Result<(), StoreError> {
        if self.damage_of(log)?.is_some_and(|known| known.offset <= damage.offset) {
            return Ok(());
        }
        self.damage
            .insert(log.to_bytes(), rows::encode_damage(damage))
            .map_err(failed("write to the index"))?;
        Ok(())
    }

    pub(crate) fn clear_damage(&self, log: &LogId) -> Result<(), StoreError> {
        self.damage
            .remove(log.to_bytes())
            .map_err(failed("write to the index"))?;
        Ok(())
    }

    pub(crate) fn damage_of(&self, log: &LogId) -> Result<Option<Damage>, StoreError> {
        let row = self.damage.get(log.to_bytes()).map_err(failed("read the index"))?;
        Ok(row.and_then(|row| rows::decode_damage(&row)))
    }

    pub(crate) fn damages(&self) -> impl Iterator<Item = (LogId, Damage)> + '_ {
        self.damage.iter().filter_map(|row| {
            let (key, value) = row.ok()?;
            Some((LogId::try_from(key.as_ref()).ok()?, rows::decode_damage(&value)?))
        })
    }

    pub(crate) fn add_orphan(&self, log: &LogId, at: Position) -> Result<(), StoreError> {
        self.orphans
            .insert(log.to_bytes(), rows::encode_position(at).as_slice())
            .map_err(failed("write to the index"))?;
        Ok(())
    }

    pub(crate) fn remove_orphan(&self, log: &LogId) -> Result<(), StoreError> {
        self.orphans
            .remove(log.to_bytes())
            .map_err(failed("write to the index"))?;
        Ok(())
    }

    pub(crate) fn is_orphan(&self, log: &LogId) -> Result<bool, StoreError> {
        let row = self.orphans.get(log.to_bytes()).map_err(failed("read the index"))?;
        Ok(row.is_some())
    }

    pub(crate) fn orphans(&self) -> impl Iterator<Item = (LogId, Position)> + '_ {
        self.orphans.iter().filter_map(|row| {
            let (key, value) = row.ok()?;
            Some((LogId::try_from(key.as_ref()).ok()?, rows::decode_position(&value)?))
        })
    }

    /// Makes the index durable and marks it as one that may be trusted wherever it is found.
    pub(crate) fn close(&self) -> std::io::Result<()> {
        let Some(db) = &self.db else { return Ok(()) };
        db.flush().map_err(std::io::Error::other)?;
        // sled's flush is no fsync.
        sync_files(&self.dir)?;
        Owner::write_clean(&self.dir)
    }
}

fn sync_files(dir: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_files(&entry.path())?;
        } else {
            fs::File::open(entry.path())?.sync_all()?;
        }
    }
    fs::File::open(dir)?.sync_all()
}

fn sled_dir(dir: &Path, generation: u32) -> PathBuf {
    dir.join(format!("sled.{generation}"))
}

/// The generations of sled folders that there are, in order.
fn generations(dir: &Path) -> Result<Vec<u32>, OpenError> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(OpenError::io("list", dir))? {
        let name = entry.map_err(OpenError::io("list", dir))?.file_name();
        let generation = name.to_str().and_then(|name| name.strip_prefix("sled."));
        found.extend(generation.and_then(|generation| generation.parse::<u32>().ok()));
    }
    found.sort_unstable();
    Ok(found)
}

fn failed(doing: &'static str) -> impl FnOnce(sled::Error) -> StoreError {
    move |error| match error {
        sled::Error::Io(error) if no_room(&error) => StoreError::Full {
            reason: format!("{doing}: {error}"),
        },
        error => StoreError::Io {
            doing: doing.into(),
            error: error.to_string(),
        },
    }
}
