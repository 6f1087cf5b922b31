//! Gives up the oldest segments, by age and bytes.
//!
//! Each log with entries in a segment gets a Trim, durable before the file goes; and its state is written into the
//! sequence again where the segment held the last one, so that the segments alone always tell it. Age is judged by a clock
//! that a leap of the machine's does not move ([`super::clock`]).

use super::clock::StoreClock;
use super::command::{Command, Retired};
use super::error::{OpenError, store_io};
use super::folder::Role;
use super::index::Seen;
use super::segment::{Extent, Footer, FooterBuilder, Scan, SegmentFile, SegmentInfo, Step};
use super::shared::Shared;
use super::space::LOOK_EVERY;
use super::{config::Retention, metrics};
use crate::StoreError;
use parking_lot::{Condvar, Mutex};
use skytale_proto::{Frame, LogId};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};

/// Interval at which retention is enforced at least while the disk is full.
const ENFORCED_FULL_EVERY: Duration = Duration::from_secs(5);
/// Logs retired by one batch.
const RETIRED_AT_ONCE: usize = 256;
/// Frame ids forgotten at once; together, neighbours cost as much as one.
const FORGOTTEN_AT_ONCE: usize = 65_536;

/// Enforces retention, one caller at a time.
pub(crate) struct Keeper {
    shared: Arc<Shared>,
    queue: mpsc::Sender<Command>,
    /// Clock by which age is judged, if it is judged.
    clock: Option<StoreClock>,
    turn: Mutex<()>,
}

impl Keeper {
    pub(crate) const fn new(shared: Arc<Shared>, queue: mpsc::Sender<Command>, clock: Option<StoreClock>) -> Self {
        Self {
            shared,
            queue,
            clock,
            turn: Mutex::new(()),
        }
    }

    /// Returns the remark on the clock by which age is judged.
    pub(crate) fn remark(&self) -> Option<String> {
        self.clock.as_ref()?.remark()
    }

    /// Looks at the clocks and at the disk, and lets go on what waited for room. Gives whether the disk is full. Blocks.
    fn look(&self) -> bool {
        if let Some(clock) = &self.clock {
            clock.look();
            clock.keep();
        }
        let space = &self.shared.space;
        space.look();
        space.try_again();
        if space.may_resume() {
            // A queue that is full is one that moves.
            let _ = self.queue.try_send(Command::Resume);
        }
        space.is_full()
    }

    /// Drops what need not be kept, and gives how many segments that was. Blocks.
    pub(crate) fn enforce(&self) -> Result<u64, StoreError> {
        let _turn = self.turn.lock();
        let now_ms = self.clock.as_ref().map_or(0, StoreClock::look);
        self.seal()?;
        let mut dropped = 0;
        let sealed = self.shared.segments.sealed();
        let mut bytes: u64 = sealed.iter().map(|(_, info)| info.bytes).sum();
        for (sequence, info) in sealed {
            let file = self.shared.segments.file(sequence);
            let file = file.map_err(store_io("open", &self.shared.segments.path(sequence)))?;
            let (footer, newest_ms) = self.read_footer(&file, &info)?;
            let over = match self.shared.role {
                Role::Alone => is_over(&self.shared.config.retention, bytes, newest_ms, now_ms),
                Role::Replica => self.is_trimmed(&footer)?,
            };
            if !over {
                break;
            }
            self.drop_segment(&file, &info, &footer)?;
            self.shared.given_up_ms.fetch_max(newest_ms, Ordering::Relaxed);
            bytes -= info.bytes;
            dropped += 1;
            metrics::segment_dropped();
            metrics::segment_bytes(bytes);
        }
        metrics::retention_checked();
        Ok(dropped)
    }

    /// Has the open segment sealed where it holds an old entry, so that it can be dropped when all of it is too old. Goes by the
    /// later of the clocks: one that is wrong seals too early, and gives nothing up. Blocks.
    pub(crate) fn seal(&self) -> Result<(), StoreError> {
        let Some(after) = self.shared.config.retention.seal_after() else {
            return Ok(());
        };
        if self.shared.running().is_err() {
            return Ok(());
        }
        let wall_ms = self.shared.config.clocks.read().wall_ms;
        let now_ms = wall_ms.max(self.clock.as_ref().map_or(0, StoreClock::look));
        let after_ms = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
        let (answer, outcome) = oneshot::channel();
        let command = Command::Seal {
            before_ms: now_ms.saturating_sub(after_ms),
            answer,
        };
        let stopped = || self.stopped();
        self.queue.blocking_send(command).map_err(|_| stopped())?;
        match outcome.blocking_recv().map_err(|_| stopped())? {
            Ok(true) => tracing::info!("sealed the open segment, for its age"),
            Ok(false) => {}
            // Dropped segments make room.
            Err(StoreError::Full { reason }) => tracing::debug!(%reason, "no room to seal the open segment"),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn stopped(&self) -> StoreError {
        self.shared.running().err().unwrap_or_else(|| StoreError::Stopped {
            reason: "the store is closed".into(),
        })
    }

    fn drop_segment(&self, file: &Arc<SegmentFile>, info: &SegmentInfo, footer: &Footer) -> Result<(), StoreError> {
        let index = self.shared.index()?;
        let mut last_batch = 0;
        for logs in footer.logs.chunks(RETIRED_AT_ONCE) {
            let logs = logs
                .iter()
                .map(|log| {
                    let kept = index.snapshot(&log.log)?;
                    Ok(Retired {
                        log: log.log,
                        // A replica trims nothing of its own accord, and drops trimmed entries.
                        up_to: log.last().filter(|_| self.shared.role == Role::Alone),
                        with_state: kept.is_none_or(|segment| segment <= file.sequence),
                    })
                })
                .collect::<Result<Vec<_>, StoreError>>()?;
            last_batch = self.retire(logs)?;
        }
        // The index must have the Trims before it forgets the entries, and the entries before the file goes.
        if !self.shared.progress.wait_for(last_batch) {
            return self.shared.running();
        }
        if index.is_in_memory() {
            // The index on the disk would keep the ids that are forgotten here.
            let distrusted = index.distrust();
            distrusted.map_err(store_io("forget the index on the disk", &self.shared.config.dir))?;
        }
        self.forget_frames(file, info)?;
        for log in &footer.logs {
            if let Some(last) = log.last() {
                index.forget_runs(&log.log, log.first, last)?;
            }
        }
        self.shared
            .segments
            .remove(file.sequence)
            .map_err(|error: OpenError| StoreError::Io {
                doing: "drop a segment".into(),
                error: error.to_string(),
            })?;
        tracing::info!(
            segment = file.sequence,
            bytes = info.bytes,
            "dropped the oldest segment"
        );
        Ok(())
    }

    /// Whether all entries of a segment were given up by Trims.
    fn is_trimmed(&self, footer: &Footer) -> Result<bool, StoreError> {
        for log in &footer.logs {
            if let Some(last) = log.last()
                && self.shared.known(&log.log)?.state.first_available() <= last
            {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn retire(&self, logs: Vec<Retired>) -> Result<u64, StoreError> {
        let stopped = || self.stopped();
        let (answer, outcome) = oneshot::channel();
        let command = Command::Retire { logs, answer };
        self.queue.blocking_send(command).map_err(|_| stopped())?;
        outcome.blocking_recv().map_err(|_| stopped())?
    }

    fn forget_frames(&self, file: &Arc<SegmentFile>, info: &SegmentInfo) -> Result<(), StoreError> {
        let index = self.shared.index()?;
        let mut scan = self.scan(file, info)?;
        let (mut ids, mut count) = (HashMap::new(), 0);
        let forget = |ids: &mut HashMap<LogId, Vec<Seen>>| {
            ids.drain()
                .try_for_each(|(log, mut ids)| index.forget_frames(&log, &mut ids))
        };
        while let Some(step) = scan.next().map_err(store_io("read", &file.path))? {
            if let Step::Entry { log, record, .. } = step
                && let Ok(frame) = Frame::decode(record.payload)
            {
                let id = frame.header().id;
                let (offset, time_ms) = (record.offset, record.time_ms);
                ids.entry(log)
                    .or_insert_with(Vec::new)
                    .push(Seen { id, offset, time_ms });
                count += 1;
            }
            if count >= FORGOTTEN_AT_ONCE {
                forget(&mut ids)?;
                count = 0;
            }
        }
        forget(&mut ids)
    }

    fn scan(&self, file: &Arc<SegmentFile>, info: &SegmentInfo) -> Result<Scan, StoreError> {
        let extent = info.extent();
        let before = info.trailer.map_or(0, |trailer| trailer.first_batch.saturating_sub(1));
        Scan::new(file.clone(), *self.shared.segments.store(), extent, 0, before).map_err(store_io("read", &file.path))
    }

    /// A segment's footer and its newest entry's time; from its records, where the footer is damaged.
    fn read_footer(&self, file: &Arc<SegmentFile>, info: &SegmentInfo) -> Result<(Footer, u64), StoreError> {
        if let Some((footer, trailer)) = file.footer().map_err(store_io("read", &file.path))? {
            return Ok((footer, trailer.newest_ms));
        }
        let mut builder = FooterBuilder::default();
        let mut scan = self.scan(file, info)?;
        while let Some(step) = scan.next().map_err(store_io("read", &file.path))? {
            builder.take(&step);
        }
        let newest_ms = builder.newest_ms();
        Ok((builder.footer(), newest_ms))
    }
}

/// Whether the oldest segment need not be kept, of so many bytes in all. `now_ms` is the time that age is judged by.
fn is_over(retention: &Retention, bytes: u64, newest_ms: u64, now_ms: u64) -> bool {
    let age = Duration::from_millis(now_ms.saturating_sub(newest_ms));
    retention.age.is_some_and(|age_max| age > age_max) || retention.bytes.is_some_and(|bytes_max| bytes > bytes_max)
}

impl SegmentInfo {
    /// Returns the end of the records in a sealed segment.
    pub(crate) const fn extent(&self) -> Extent {
        match self.trailer {
            Some(trailer) => Extent::Sealed {
                footer_at: trailer.footer_at,
            },
            None => Extent::SealedUnknown,
        }
    }
}

/// The thread that enforces retention from time to time.
pub(crate) struct KeeperThread {
    stop: Arc<(Mutex<bool>, Condvar)>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl KeeperThread {
    pub(crate) fn start(keeper: Arc<Keeper>) -> std::io::Result<Self> {
        let stop = Arc::new((Mutex::new(false), Condvar::new()));
        let stopped = stop.clone();
        let thread = std::thread::Builder::new()
            .name("skytale-keeper".into())
            .spawn(move || {
                let every = keeper.shared.config.retention.check_every;
                let mut enforced = Instant::now();
                let mut stop = stopped.0.lock();
                while !*stop {
                    if !stopped.1.wait_for(&mut stop, every.min(LOOK_EVERY)).timed_out() {
                        continue;
                    }
                    drop(stop);
                    let full = keeper.look();
                    let every = if full { every.min(ENFORCED_FULL_EVERY) } else { every };
                    if enforced.elapsed() >= every {
                        if let Err(error) = keeper.enforce() {
                            tracing::warn!(%error, "retention could not be enforced; it is tried again later");
                        }
                        enforced = Instant::now();
                    }
                    stop = stopped.0.lock();
                }
            })?;
        Ok(Self {
            stop,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Asks the thread to end; it may be in the middle of its work.
    pub(crate) fn stop(&self) {
        *self.stop.0.lock() = true;
        self.stop.1.notify_all();
    }

    /// Waits until the thread has ended. Blocks.
    pub(crate) fn join(&self) {
        let thread = self.thread.lock().take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the retention thread panicked");
        }
    }
}
