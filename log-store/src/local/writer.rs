//! The second half of the writer: one thread that owns the end of the log.
//!
//! It takes the batch that has been folded, writes once, syncs once, then shows and acknowledges; what arrives meanwhile
//! is the next batch. After a failed write or sync nothing is written any more: what the kernel keeps of the file then
//! is unknown, and a second sync may succeed without having written anything.

use super::batch::Batch;
use super::builder::Laid;
use super::folder::Role;
use super::folding::{Answers, Stage};
use super::index::Indexer;
use super::metrics;
use super::position::{MarkPositions, Positions};
use super::segment::{OpenSegment, SegmentHeader, SegmentInfo};
use super::shared::{Shared, StopOnPanic};
use crate::StoreError;
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
    indexer: Indexer,
    last_batch: u64,
    /// Where a replica stands after the last batch.
    positions: Positions,
    /// How long writing and syncing the last batch took.
    took: Duration,
    /// Batches were written since the store was opened.
    dirty: bool,
    /// Batches are made durable. False only where a test shows that it would notice if they were not.
    sync: bool,
}

/// Where the writer begins.
pub(crate) struct Beginning {
    pub(crate) segment: OpenSegment,
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
        Self {
            shared,
            stage,
            room,
            segment: Some(beginning.segment),
            indexer,
            last_batch: beginning.next_batch - 1,
            positions: beginning.positions,
            took: Duration::ZERO,
            dirty: false,
            sync: beginning.sync,
        }
    }

    /// Writes batches until none will come, then closes what it owns.
    pub(crate) fn run(mut self) {
        let (stage, shared) = (self.stage.clone(), self.shared.clone());
        let room = self.room.clone();
        let _abandon = AbandonOnDrop(&stage, &room);
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
                for (answer, outcome) in answers.appends {
                    // Who no longer waits has left the entry in the log all the same.
                    let _ = answer.send(outcome);
                }
                for (answer, followed) in answers.followed {
                    let _ = answer.send(Ok(followed));
                }
                for log in answers.healed {
                    if let Err(error) = self.shared.clear_damage(&log) {
                        tracing::warn!(%log, %error, "the damage was trimmed away, but the index still has it");
                    }
                }
                if let Some(batch) = &batch {
                    self.hand_over(batch);
                }
                if !answers.retired.is_empty() {
                    let retired = self.make_durable().map(|()| self.last_batch);
                    for answer in answers.retired {
                        let _ = answer.send(retired.clone());
                    }
                }
                batch
            }
            Err(error) => {
                for (answer, _) in answers.appends {
                    let _ = answer.send(Err(error.clone().into()));
                }
                for (answer, _) in answers.followed {
                    let _ = answer.send(Err(error.clone()));
                }
                for answer in answers.retired {
                    let _ = answer.send(Err(error.clone()));
                }
                None
            }
        }
    }

    /// Makes durable what is not synced on its way: a replica's, where a segment is about to go whose logs' states and Trims
    /// stand in what was written since.
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
        if laid.is_empty() {
            return Ok(None);
        }
        let batch = self.write(laid, frames).inspect_err(|error| {
            let reason = match error {
                StoreError::Stopped { reason } => reason.clone(),
                error => error.to_string(),
            };
            self.shared.stop(reason);
        })?;
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

    /// Writes and syncs a batch. After an error the segment is given up: nothing is written to it again.
    fn write(&mut self, mut laid: Laid, frames: usize) -> Result<Arc<Batch>, StoreError> {
        let store = *self.shared.segments.store();
        let mut positions = MarkPositions {
            complete: false,
            shards: std::mem::take(&mut laid.positions),
        };
        let mut mark = laid.mark(&positions, &store);
        self.make_room(mark.len() + laid.records.len(), laid.time_ms)?;
        self.positions.take(positions);
        if self.segment.as_ref().is_some_and(OpenSegment::is_empty) {
            // What older segments say may be dropped with them.
            positions = MarkPositions {
                complete: true,
                shards: self.positions.to_vec(),
            };
            mark = laid.mark(&positions, &store);
        }
        let bytes = mark.len() + laid.records.len();
        let Some(mut segment) = self.segment.take() else {
            return Err(no_segment());
        };
        let begun = Instant::now();
        let mark_at = segment.at;
        let mut written = segment.write(&mark, &laid.records);
        if self.sync {
            written = written.and_then(|()| segment.sync());
        }
        // On failure the segment stays taken: there is no way back to its descriptor.
        written.map_err(|error| StoreError::Stopped {
            reason: format!("writing to {} failed: {error}", segment.path.display()),
        })?;
        self.took = begun.elapsed();
        metrics::batch(frames, bytes, self.took);
        let start = mark_at + mark.len() as u32;
        let batch = Arc::new(laid.durable(segment.sequence, mark_at, start));
        self.segment = Some(segment);
        self.last_batch = batch.number;
        self.dirty = true;
        Ok(batch)
    }

    /// Seals the segment and begins the next one, where a batch does not fit.
    fn make_room(&mut self, bytes: usize, time_ms: u64) -> Result<(), StoreError> {
        let segment_bytes = self.shared.config.segment_bytes;
        let full = |segment: &OpenSegment| segment.at as usize + bytes > segment_bytes as usize;
        match &self.segment {
            None => return Err(no_segment()),
            Some(segment) if segment.is_empty() || !full(segment) => return Ok(()),
            Some(_) => {}
        }
        let Some(segment) = self.segment.take() else {
            return Err(no_segment());
        };
        let (sequence, path) = (segment.sequence, segment.path.clone());
        let (trailer, bytes) = segment.seal().map_err(|error| StoreError::Stopped {
            reason: format!("sealing {} failed: {error}", path.display()),
        })?;
        let info = SegmentInfo {
            bytes,
            trailer: Some(trailer),
        };
        self.shared.segments.add_sealed(sequence, info);
        metrics::segment_bytes(self.shared.segments.sealed_bytes());
        let header = SegmentHeader {
            sequence: sequence + 1,
            store: *self.shared.segments.store(),
            created_ms: time_ms,
        };
        let next = OpenSegment::create(self.shared.segments.dir(), &header, segment_bytes);
        self.segment = Some(next.map_err(|error| StoreError::Stopped {
            reason: format!("beginning a new segment failed: {error}"),
        })?);
        Ok(())
    }

    /// What can be done after the acknowledgement: the footer and the index.
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
                Err(error) => self.shared.stop(error.to_string()),
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

fn no_segment() -> StoreError {
    StoreError::Stopped {
        reason: "no segment is open for writing".into(),
    }
}
