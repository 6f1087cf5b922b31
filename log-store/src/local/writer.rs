//! The second half of the writer: one thread that owns the end of the log.
//!
//! It takes the batch that has been folded, writes once, syncs once, then shows and acknowledges; what arrives
//! meanwhile is the next batch. After a failed write or sync nothing is written any more: what the kernel keeps of the
//! file then is unknown, and a second sync may succeed without having written anything. A write that finds no room,
//! before any sync of it, is another matter: it is cut off again, durably, the frames folded since are given up, and
//! its authors learn that the disk is full.

use super::batch::Batch;
use super::builder::Laid;
use super::folder::Role;
use super::folding::{Answers, Stage};
use super::index::Indexer;
use super::metrics;
use super::position::{MarkPositions, Positions};
use super::segment::{OpenSegment, SegmentHeader, SegmentInfo, WriteError};
use super::shared::{Shared, StopOnPanic};
use crate::{AppendError, StoreError};
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;

/// The writer's own.
pub(crate) struct Writer {
    shared: Arc<Shared>,
    stage: Arc<Stage>,
    /// Room in the queue, in bytes of frames.
    room: Arc<Semaphore>,
    segment: Option<OpenSegment>,
    /// The segment to begin, where the last one is sealed and there was no room for this one.
    next_segment: Option<u32>,
    indexer: Indexer,
    last_batch: u64,
    /// Positions of a replica after the last batch.
    positions: Positions,
    /// Duration of writing and syncing the last batch.
    took: Duration,
    /// Batches were written since the store was opened.
    dirty: bool,
    /// Batches are made durable. False only where a test shows that it would notice if they were not.
    sync: bool,
}

/// Start of the writer.
pub(crate) struct Beginning {
    /// The last segment; or the number of the one to begin, where there was no room for it.
    pub(crate) segment: Result<OpenSegment, u32>,
    pub(crate) next_batch: u64,
    pub(crate) time_ms: u64,
    pub(crate) positions: Positions,
    pub(crate) sync: bool,
}

impl Writer {
    pub(crate) fn new(
        shared: Arc<Shared>,
        stage: Arc<Stage>,
        room: Arc<Semaphore>,
        indexer: Indexer,
        beginning: Beginning,
    ) -> Self {
        let (segment, next_segment) = match beginning.segment {
            Ok(segment) => (Some(segment), None),
            Err(sequence) => (None, Some(sequence)),
        };
        Self {
            shared,
            stage,
            room,
            segment,
            next_segment,
            indexer,
            last_batch: beginning.next_batch - 1,
            positions: beginning.positions,
            took: Duration::ZERO,
            dirty: false,
            sync: beginning.sync,
        }
    }

    /// Writes batches until none will come, then closes its files.
    pub(crate) fn run(mut self) {
        let (stage, shared) = (self.stage.clone(), self.shared.clone());
        let room = self.room.clone();
        let _abandon = AbandonOnDrop(&stage, &room);
        // Its waits are of some 60 µs; the system would add as much. Where it does not let us, they are longer.
        let _ = rustix::thread::set_current_timer_slack(Some(NonZeroU64::MIN));
        let _guard = StopOnPanic {
            shared: &shared,
            thread: "writes",
        };
        let mut durable = None;
        while let Some((laid, answers)) = stage.take(durable.as_ref(), self.took) {
            durable = self.answer(laid, answers);
        }
        self.finish(durable.as_ref());
    }

    /// Commits a batch and tells those who wait for it.
    fn answer(&mut self, laid: Laid, answers: Answers) -> Option<Arc<Batch>> {
        laid.verdicts.record();
        let committed = self.commit(laid, answers.appends.len() + answers.messages);
        self.room.add_permits(answers.queued_bytes);
        match committed {
            Ok(batch) => {
                self.tell(answers, batch.as_ref());
                batch
            }
            Err(error @ StoreError::Full { .. }) => {
                let behind = self.stage.roll_back(self.last_batch + 1, answers, &error);
                self.room.add_permits(behind);
                None
            }
            Err(error) => {
                answers.fail(&error);
                None
            }
        }
    }

    /// Tells those who wait for a batch that is durable.
    fn tell(&mut self, answers: Answers, batch: Option<&Arc<Batch>>) {
        let mut refused = Vec::new();
        for (answer, log, outcome) in answers.appends {
            if matches!(outcome, Err(AppendError::Store(StoreError::Full { .. }))) {
                refused.push(log);
            }
            answer.tell(outcome);
        }
        self.stage.told(refused);
        for (answer, _, followed) in answers.followed {
            let _ = answer.send(Ok(followed));
        }
        for answer in answers.installed {
            let _ = answer.send(Ok(Vec::new()));
        }
        for log in answers.healed {
            if let Err(error) = self.shared.clear_damage(&log) {
                tracing::warn!(%log, %error, "the damage was trimmed away, but the index still has it");
            }
        }
        if let Some(batch) = batch {
            self.hand_over(batch);
        }
        if !answers.retired.is_empty() {
            let retired = self.make_durable().map(|()| self.last_batch);
            for answer in answers.retired {
                let _ = answer.send(retired.clone());
            }
        }
        for (answer, before_ms) in answers.seals {
            let _ = answer.send(self.seal_older(before_ms));
        }
    }

    /// Seals the segment where it holds an entry from before this time. The next batch begins another one.
    fn seal_older(&mut self, before_ms: u64) -> Result<bool, StoreError> {
        let is_older = |segment: &OpenSegment| segment.footer.entries_since_ms().is_some_and(|since| since < before_ms);
        if !self.segment.as_ref().is_some_and(is_older) {
            return Ok(false);
        }
        self.seal().map(|()| true).map_err(|error| match error {
            // The segment is as it was, and takes batches.
            Failed::Full(reason) => StoreError::Full { reason },
            Failed::Unknown(reason) => {
                self.shared.stop(reason.clone());
                StoreError::Stopped { reason }
            }
        })
    }

    /// Makes writes durable that are not synced on their way: a replica's, if a segment is about to go whose logs'
    /// states and Trims are in later writes.
    fn make_durable(&self) -> Result<(), StoreError> {
        let Some(segment) = self.segment.as_ref().filter(|_| self.shared.role == Role::Replica) else {
            return Ok(());
        };
        segment.sync().map_err(|error| {
            let reason = format!("syncing {} failed: {error}", segment.path.display());
            self.shared.stop(reason.clone());
            StoreError::Stopped { reason }
        })
    }

    /// Makes a batch durable and shows it to readers. `None` where there was nothing to write.
    fn commit(&mut self, laid: Laid, frames: usize) -> Result<Option<Arc<Batch>>, StoreError> {
        self.shared.running()?;
        if let Some(error) = &laid.doomed {
            return Err(error.clone());
        }
        if laid.is_empty() {
            return Ok(None);
        }
        let batch = self.write(laid, frames).map_err(|error| match error {
            Failed::Full(reason) => self.shared.space.failed(reason),
            Failed::Unknown(reason) => {
                self.shared.stop(reason.clone());
                StoreError::Stopped { reason }
            }
        })?;
        self.shared.space.look();
        let shared = &self.shared;
        let changed = batch
            .logs
            .iter()
            .filter_map(|log| Some((log.log, log.changed.as_ref()?)));
        shared.publish_known(changed);
        shared.tail.write().publish(&batch);
        for log in &batch.logs {
            shared.watches.publish(log.log, log.head);
        }
        Ok(Some(batch))
    }

    /// Writes and syncs a batch. Where that fails for another reason than that there is no room, the segment is given up:
    /// nothing is written to it again.
    fn write(&mut self, mut laid: Laid, frames: usize) -> Result<Arc<Batch>, Failed> {
        let store = *self.shared.segments.store();
        let changed = MarkPositions {
            complete: false,
            shards: std::mem::take(&mut laid.positions),
        };
        let mut mark = laid.mark(&changed, &store);
        self.make_room(mark.len() + laid.records.len(), laid.time_ms)?;
        if self.segment.as_ref().is_some_and(OpenSegment::is_empty) {
            // Positions in older segments may be dropped with them.
            let mut all = self.positions.clone();
            all.take(changed.clone());
            mark = laid.mark(&all.complete(), &store);
        }
        let bytes = mark.len() + laid.records.len();
        let Some(mut segment) = self.segment.take() else {
            return Err(no_segment());
        };
        let begun = Instant::now();
        let mark_at = segment.at;
        let written = segment
            .reserve(self.shared.config.segment_bytes, &self.shared.space)
            .and_then(|()| segment.write(&mark, &laid.records))
            .and_then(|()| match self.sync {
                true => segment.sync().map_err(WriteError::Unknown),
                false => Ok(()),
            });
        match written {
            Ok(()) => {}
            Err(WriteError::Full(error)) => {
                let reason = format!("write to {}: {error}", segment.path.display());
                self.segment = Some(segment);
                return Err(Failed::Full(reason));
            }
            // The segment stays taken: there is no way back to its descriptor.
            Err(WriteError::Unknown(error)) => {
                let path = segment.path.display();
                return Err(Failed::Unknown(format!("writing to {path} failed: {error}")));
            }
        }
        self.took = begun.elapsed();
        metrics::batch(frames, bytes, self.took);
        let start = mark_at + mark.len() as u32;
        let batch = Arc::new(laid.durable(segment.sequence, mark_at, start));
        self.segment = Some(segment);
        self.positions.take(changed);
        self.last_batch = batch.number;
        self.dirty = true;
        Ok(batch)
    }

    /// Seals the segment: no batch is added to it any more.
    fn seal(&mut self) -> Result<(), Failed> {
        let Some(mut segment) = self.segment.take() else {
            return Err(no_segment());
        };
        let path = segment.path.display().to_string();
        if self.shared.role == Role::Replica {
            segment.footer.set_positions(&self.positions);
        }
        let (trailer, bytes) = match segment.seal() {
            Ok(sealed) => sealed,
            Err(WriteError::Full(error)) => {
                self.segment = Some(segment);
                return Err(Failed::Full(format!("seal {path}: {error}")));
            }
            // The segment stays taken: there is no way back to its descriptor.
            Err(WriteError::Unknown(error)) => return Err(Failed::Unknown(format!("sealing {path} failed: {error}"))),
        };
        self.next_segment = Some(segment.sequence + 1);
        let info = SegmentInfo {
            bytes,
            trailer: Some(trailer),
            grouped: false,
        };
        self.shared.segments.add_sealed(segment.sequence, info);
        metrics::segment_bytes(self.shared.segments.sealed_bytes());
        self.shared.regroup.sealed();
        Ok(())
    }

    /// Seals the segment and begins the next one, where a batch does not fit.
    fn make_room(&mut self, bytes: usize, time_ms: u64) -> Result<(), Failed> {
        let segment_bytes = self.shared.config.segment_bytes;
        let full = |segment: &OpenSegment| segment.at as usize + bytes > segment_bytes as usize;
        if let Some(segment) = &self.segment {
            if segment.is_empty() || !full(segment) {
                return Ok(());
            }
            self.seal()?;
        }
        let Some(sequence) = self.next_segment.take() else {
            return Err(no_segment());
        };
        let header = SegmentHeader::new(sequence, *self.shared.segments.store(), time_ms);
        let next = OpenSegment::create(self.shared.segments.dir(), &header, segment_bytes, &self.shared.space);
        match next {
            Ok(segment) => {
                self.segment = Some(segment);
                Ok(())
            }
            Err(error) if error.is_full() => {
                self.next_segment = Some(sequence);
                Err(Failed::Full(format!("begin a new segment: {error}")))
            }
            Err(error) => Err(Failed::Unknown(format!("beginning a new segment failed: {error}"))),
        }
    }

    /// Does the work that can follow the acknowledgement: the footer and the index.
    fn hand_over(&mut self, batch: &Arc<Batch>) {
        if let Some(segment) = &mut self.segment {
            segment.footer.add(batch);
        }
        self.indexer.hand(&self.shared, batch.clone());
    }

    /// Says in the segment that all before is synced, and closes the index.
    fn finish(mut self, durable: Option<&Arc<Batch>>) {
        let mut laid = self.stage.take_last(durable);
        if self.shared.running().is_err() {
            // A batch before this one may not have been written: then these positions are ahead of the entries.
            laid.positions.clear();
        }
        if (self.dirty || !laid.is_empty()) && self.segment.is_some() {
            match self.write(laid, 0) {
                Ok(batch) => self.hand_over(&batch),
                // The next start finds the end without it.
                Err(Failed::Full(reason)) => tracing::warn!(%reason, "no room to say that the store was closed"),
                Err(Failed::Unknown(reason)) => self.shared.stop(reason),
            }
        }
        if let (Role::Replica, Some(segment)) = (self.shared.role, &self.segment)
            && let Err(error) = segment.sync()
        {
            tracing::warn!(path = %segment.path.display(), %error, "the replica's end is not synced");
        }
        self.indexer.finish();
        self.shared.closed();
        let (index, folder) = self.shared.release();
        if let Some(index) = index {
            // A reader may be about to finish.
            while Arc::strong_count(&index) > 1 {
                std::thread::sleep(Duration::from_millis(1));
            }
            if let Err(error) = index.close() {
                tracing::warn!(%error, "the index could not be closed; it is built again at the next start");
            }
        }
        // A thread that still regroups changes no name in a folder that may be another's.
        self.shared.segments.release();
        drop(folder);
    }
}

/// Lets the folding thread and those who wait for room go, however the writer ends.
struct AbandonOnDrop<'a>(&'a Stage, &'a Semaphore);

impl Drop for AbandonOnDrop<'_> {
    fn drop(&mut self) {
        self.0.abandon();
        self.1.close();
    }
}

/// Reason why a batch was not written.
enum Failed {
    /// There is no room for it, and nothing of it is on the disk.
    Full(String),
    /// The bytes on the disk are unknown.
    Unknown(String),
}

fn no_segment() -> Failed {
    Failed::Unknown("no segment is open for writing".into())
}
