//! State shared by the writer, the index thread and readers.

use super::config::LocalConfig;
use super::folder::{Folder, Role};
use super::index::{Damage, Index};
use super::known::Known;
use super::metrics;
use super::progress::Progress;
use super::regroup::Signal;
use super::segment::Segments;
use super::space::Space;
use super::tail::{Tail, TailRead};
use crate::{HeadWatches, ReadBatch, StoreError, Verdict};
use bytes::Bytes;
use lru::LruCache;
use parking_lot::{Mutex, RwLock};
use skytale_proto::record;
use skytale_proto::{Frame, LogId, Offset, Record};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use tokio::sync::watch;

/// Bytes of records refolded at a time.
const REFOLD_BYTES: usize = 1024 * 1024;

/// State shared by the writer, the index thread and readers.
pub(crate) struct Shared {
    pub(crate) config: LocalConfig,
    pub(crate) role: Role,
    pub(crate) segments: Segments,
    /// `None` once the store is closed.
    index: RwLock<Option<Arc<Index>>>,
    /// `None` once the store is closed: then the folder is free for another.
    folder: Mutex<Option<Folder>>,
    pub(crate) tail: RwLock<Tail>,
    pub(crate) watches: HeadWatches,
    /// Durable states of logs that were asked for; the head in here may be behind.
    known: Mutex<KnownCache>,
    pub(crate) progress: Progress,
    pub(crate) space: Arc<Space>,
    /// Wakes the thread that regroups segments.
    pub(crate) regroup: Signal,
    pub(crate) stopped: watch::Sender<Option<String>>,
    /// The newest entry's time of the segments that were dropped since the store was opened, unix milliseconds.
    pub(crate) given_up_ms: AtomicU64,
    damaged: AtomicUsize,
}

struct KnownCache {
    logs: LruCache<LogId, Arc<Known>>,
    bytes: usize,
    /// Counts the states put in by batches, so that nobody puts in one that was read before.
    published: u64,
}

impl Shared {
    pub(crate) fn new(
        config: LocalConfig,
        role: Role,
        folder: Option<Folder>,
        segments: Segments,
        index: Index,
        space: Arc<Space>,
    ) -> Self {
        let damaged = index.damages().count();
        metrics::damaged_logs(damaged);
        Self {
            tail: RwLock::new(Tail::new(config.cache_bytes)),
            config,
            role,
            segments,
            index: RwLock::new(Some(Arc::new(index))),
            folder: Mutex::new(folder),
            watches: HeadWatches::new(),
            known: Mutex::new(KnownCache {
                logs: LruCache::unbounded(),
                bytes: 0,
                published: 0,
            }),
            progress: Progress::default(),
            space,
            regroup: Signal::default(),
            stopped: watch::Sender::new(None),
            given_up_ms: AtomicU64::new(0),
            damaged: AtomicUsize::new(damaged),
        }
    }

    /// The index, while the store is open.
    pub(crate) fn index(&self) -> Result<Arc<Index>, StoreError> {
        self.index.read().clone().ok_or_else(|| StoreError::Stopped {
            reason: "the store is closed".into(),
        })
    }

    /// Puts another index, which has as much, in the place of this one. False where the store was closed.
    pub(crate) fn replace_index(&self, index: Arc<Index>) -> bool {
        let mut current = self.index.write();
        if current.is_none() {
            return false;
        }
        *current = Some(index.clone());
        drop(current);
        self.count_damage(&index);
        true
    }

    /// Takes the index and the folder away, when the store is closed.
    pub(crate) fn release(&self) -> (Option<Arc<Index>>, Option<Folder>) {
        (self.index.write().take(), self.folder.lock().take())
    }

    /// Takes no more appends, because something failed; the first reason is kept.
    pub(crate) fn stop(&self, reason: String) {
        if self.stop_for(reason.clone()) {
            tracing::error!(%reason, "the store takes no more appends");
        }
    }

    /// Takes no more appends, because it was asked to close.
    pub(crate) fn closed(&self) {
        self.stop_for("the store is closed".into());
    }

    fn stop_for(&self, reason: String) -> bool {
        self.stopped.send_if_modified(|stopped| {
            let first = stopped.is_none();
            if first {
                *stopped = Some(reason);
            }
            first
        })
    }

    /// Waits until the index has all that readers see. Blocks.
    pub(crate) fn wait_for_index(&self) {
        let last = self.tail.read().last();
        self.progress.wait_for(last);
    }

    /// Whether appends are taken.
    pub(crate) fn running(&self) -> Result<(), StoreError> {
        match &*self.stopped.borrow() {
            None => Ok(()),
            Some(reason) => Err(StoreError::Stopped { reason: reason.clone() }),
        }
    }

    /// The log's damage, if it has any.
    pub(crate) fn damage(&self, log: &LogId) -> Result<Option<Damage>, StoreError> {
        if self.damaged.load(Ordering::Relaxed) == 0 {
            return Ok(None);
        }
        self.index()?.damage_of(log)
    }

    /// Notes that a log cannot be served past an entry.
    pub(crate) fn note_damage(&self, log: &LogId, damage: &Damage) -> Result<(), StoreError> {
        tracing::error!(%log, offset = %damage.offset, place = %damage.place, "the log is damaged and served only up to here");
        let index = self.index()?;
        index.note_damage(log, damage)?;
        self.count_damage(&index);
        Ok(())
    }

    /// The damaged entry was trimmed away.
    pub(crate) fn clear_damage(&self, log: &LogId) -> Result<(), StoreError> {
        let index = self.index()?;
        index.clear_damage(log)?;
        self.count_damage(&index);
        Ok(())
    }

    fn count_damage(&self, index: &Index) {
        let count = index.damages().count();
        self.damaged.store(count, Ordering::Relaxed);
        metrics::damaged_logs(count);
    }

    /// The log's head: the last durable offset.
    pub(crate) fn head(&self, log: &LogId) -> Result<Offset, StoreError> {
        match self.tail.read().head(log) {
            Some(head) => Ok(head),
            // Heads that are not in the tail are in the index.
            None => self.index()?.head(log),
        }
    }

    /// Entries after a cursor, if they are in memory. `None` is "look on disk".
    pub(crate) fn read_recent(
        &self,
        log: &LogId,
        after: Offset,
        bytes_max: usize,
        entries_max: u64,
    ) -> Option<Result<ReadBatch, StoreError>> {
        if self.damaged.load(Ordering::Relaxed) > 0 {
            return None;
        }
        match self.tail.read().read(log, after, bytes_max, entries_max, false) {
            TailRead::Entries { records, last, head } => Some(Ok(ReadBatch { records, last, head })),
            TailRead::Trimmed { first } => Some(Err(StoreError::Trimmed { first })),
            TailRead::BeyondHead { head } => Some(Err(StoreError::BeyondHead { after, head })),
            TailRead::Older { .. } => None,
        }
    }

    /// Entries after a cursor, from wherever they are. Blocks.
    pub(crate) fn read(
        &self,
        log: &LogId,
        after: Offset,
        bytes_max: usize,
        entries_max: u64,
    ) -> Result<ReadBatch, StoreError> {
        let damage = self.damage(log)?;
        if let Some(damage) = &damage
            && after.next() >= damage.offset
        {
            return Err(StoreError::Corrupt {
                place: damage.place.clone(),
            });
        }
        let entries_max = match &damage {
            Some(damage) => entries_max.min(damage.offset.get() - 1 - after.get()),
            None => entries_max,
        };
        match self.read_any(log, after, bytes_max, entries_max) {
            Ok(batch) if batch.last > after || batch.head == after => {
                self.refuse_trimmed(log, after)?;
                Ok(batch)
            }
            Ok(_) => {
                self.refuse_trimmed(log, after)?;
                Err(StoreError::Corrupt {
                    place: format!("entry {} of {log} is in no segment", after.next()),
                })
            }
            Err(error) => {
                // A segment may have been dropped under the read.
                self.refuse_trimmed(log, after)?;
                Err(error)
            }
        }
    }

    fn refuse_trimmed(&self, log: &LogId, after: Offset) -> Result<(), StoreError> {
        let first = self.known(log)?.state.first_available();
        if after.next() < first {
            return Err(StoreError::Trimmed { first });
        }
        Ok(())
    }

    /// Reads as [`Shared::read`] does, but without a look at trims and damage.
    fn read_any(
        &self,
        log: &LogId,
        after: Offset,
        bytes_max: usize,
        entries_max: u64,
    ) -> Result<ReadBatch, StoreError> {
        let (mut batch, mut full) = self.read_some(log, after, bytes_max, entries_max)?;
        let mut bytes: usize = batch.records.iter().map(Bytes::len).sum();
        // Entries that the index does not have yet are in memory.
        while !full && batch.last > after && batch.last < batch.head {
            let entries_left = entries_max.saturating_sub(batch.last.get() - after.get());
            let bytes_left = bytes_max.saturating_sub(bytes);
            if entries_left == 0 || bytes_left == 0 {
                break;
            }
            let (more, more_full) = self.read_some(log, batch.last, bytes_left, entries_left)?;
            let more_bytes: usize = more.records.iter().map(Bytes::len).sum();
            if more_bytes > bytes_left || more.last == batch.last {
                break;
            }
            bytes += more_bytes;
            full = more_full;
            batch.records.extend(more.records);
            (batch.last, batch.head) = (more.last, more.head);
        }
        Ok(batch)
    }

    /// Entries that are all in memory or all in the index; and whether a limit ended them.
    fn read_some(
        &self,
        log: &LogId,
        after: Offset,
        bytes_max: usize,
        entries_max: u64,
    ) -> Result<(ReadBatch, bool), StoreError> {
        let head = match self.tail.read().read(log, after, bytes_max, entries_max, true) {
            TailRead::Entries { records, last, head } => return Ok((ReadBatch { records, last, head }, true)),
            TailRead::Trimmed { first } => return Err(StoreError::Trimmed { first }),
            TailRead::BeyondHead { head } => return Err(StoreError::BeyondHead { after, head }),
            TailRead::Older { head } => head,
        };
        let index = self.index()?;
        let head = match head {
            Some(head) => head,
            None => index.head(log)?,
        };
        if after > head {
            return Err(StoreError::BeyondHead { after, head });
        }
        let (located, full) = index.locate(log, after, head, bytes_max, entries_max)?;
        let (records, whole) = self.read_located(log, &located)?;
        let batch = ReadBatch {
            records,
            last: Offset::new(after.get() + whole),
            head,
        };
        Ok((batch, full || whole < located.len() as u64))
    }

    /// Returns the durable state of a log. The head in it may be behind; nothing else is. Blocks where it must be read.
    pub(crate) fn known(&self, log: &LogId) -> Result<Arc<Known>, StoreError> {
        let published = {
            let mut cache = self.known.lock();
            if let Some(known) = cache.logs.get(log) {
                return Ok(known.clone());
            }
            cache.published
        };
        let known = Arc::new(self.load(*log)?);
        let mut cache = self.known.lock();
        if let Some(newer) = cache.logs.get(log) {
            return Ok(newer.clone());
        }
        // A log without an entry is not kept: anybody may ask for any.
        if cache.published == published && known.state.head() > Offset::ZERO {
            cache.put(*log, known.clone(), &self.config);
        }
        Ok(known)
    }

    /// Returns the state of a log, if that needs no disk.
    pub(crate) fn known_in_memory(&self, log: &LogId) -> Option<Arc<Known>> {
        self.known.lock().logs.get(log).cloned()
    }

    /// A durable batch changed the states of these logs.
    pub(crate) fn publish_known<'a>(&self, changed: impl Iterator<Item = (LogId, &'a Arc<Known>)>) {
        let mut cache = self.known.lock();
        for (log, known) in changed {
            cache.published += 1;
            cache.put(log, known.clone(), &self.config);
        }
    }

    /// Returns the state of a log at its durable head: the one that the index kept, with the entries after it folded
    /// again.
    pub(crate) fn load(&self, log: LogId) -> Result<Known, StoreError> {
        let kept = self.known.lock().logs.peek(&log).cloned();
        let kept = match kept {
            Some(known) => Known::clone(&known),
            None => self.index()?.known(log)?.unwrap_or_else(|| Known::new(log)),
        };
        self.refold(kept)
    }

    fn refold(&self, mut known: Known) -> Result<Known, StoreError> {
        let log = known.state.log();
        loop {
            let after = known.state.head();
            let batch = match self.read_any(&log, after, REFOLD_BYTES, u64::MAX) {
                Ok(batch) => batch,
                // An entry published a moment ago is ahead of the readers' view.
                Err(StoreError::BeyondHead { .. }) => return Ok(known),
                // Only the state up to the damage is left of the log.
                Err(StoreError::Corrupt { .. }) if self.damage(&log)?.is_some() => return Ok(known),
                Err(error) => return Err(error),
            };
            if batch.last == after {
                if batch.head > after && self.damage(&log)?.is_none() {
                    return Err(StoreError::Corrupt {
                        place: format!("entry {} of {log} is in no segment", after.next()),
                    });
                }
                return Ok(known);
            }
            for record in batch.records.into_iter().flat_map(Record::decode_batch) {
                refold_record(&mut known, record)?;
            }
        }
    }
}

/// Stops the store where a thread of it panics: what the thread did not do, nobody does.
pub(crate) struct StopOnPanic<'a> {
    pub(crate) shared: &'a Shared,
    /// Work of the thread.
    pub(crate) thread: &'static str,
}

impl Drop for StopOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.shared.stop(format!("the thread that {} panicked", self.thread));
        }
    }
}

impl KnownCache {
    fn put(&mut self, log: LogId, known: Arc<Known>, config: &LocalConfig) {
        self.bytes += known.state.weight_bytes();
        if let Some(old) = self.logs.put(log, known) {
            self.bytes = self.bytes.saturating_sub(old.state.weight_bytes());
        }
        while (self.logs.len() > config.states_max || self.bytes > config.states_bytes_max) && self.logs.len() > 1 {
            if let Some((_, old)) = self.logs.pop_lru() {
                self.bytes = self.bytes.saturating_sub(old.state.weight_bytes());
            }
        }
    }
}

fn refold_record(known: &mut Known, record: Result<Record, record::RecordError>) -> Result<(), StoreError> {
    let log = known.state.log();
    let corrupt = |why: String| StoreError::Corrupt {
        place: format!("{log}: {why}"),
    };
    let record = record.map_err(|error| corrupt(error.to_string()))?;
    let frame = Frame::decode(record.payload).map_err(|error| corrupt(error.to_string()))?;
    known.saw(frame.header().id);
    match known.state.replay(frame.header()) {
        Verdict::Appended { offset, .. } if offset == record.offset => Ok(()),
        verdict => Err(corrupt(format!("entry {} folds to {verdict:?}", record.offset))),
    }
}
