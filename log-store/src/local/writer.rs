//! The writer: one thread that owns the end of the log.
//!
//! It takes all that is waiting, folds each frame, writes once, syncs once, then shows and acknowledges; what arrives
//! meanwhile is the next batch. After a failed write or sync nothing is written any more: what the kernel keeps of the
//! file then is unknown, and a second sync may succeed without having written anything.

use super::batch::Batch;
use super::builder::BatchBuilder;
use super::index::Indexer;
use super::metrics;
use super::segment::{OpenSegment, SegmentHeader, SegmentInfo};
use super::shared::Shared;
use super::working::WorkingSet;
use crate::{Accepted, AppendError, StoreError};
use skytale_proto::record::HEADER_BYTES;
use skytale_proto::{Frame, LogId, Offset};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::mpsc::Receiver;
use tokio::sync::{Semaphore, oneshot};

/// What the writer is asked to do.
#[expect(clippy::large_enum_variant, reason = "nearly every command is an append")]
pub(crate) enum Command {
    /// Append a frame.
    Append {
        frame: Frame,
        answer: oneshot::Sender<Result<Accepted, AppendError>>,
    },
    /// Give up entries of logs. Answered with the number of the batch that says so.
    Retire {
        logs: Vec<Retired>,
        answer: oneshot::Sender<Result<u64, StoreError>>,
    },
    /// Take nothing more.
    Close,
}

/// A log whose oldest entries are given up.
#[derive(Clone, Copy)]
pub(crate) struct Retired {
    pub(crate) log: LogId,
    /// The last offset given up; `None` where only the state is to be written.
    pub(crate) up_to: Option<Offset>,
    /// Write the log's state into the sequence.
    pub(crate) with_state: bool,
}

type Answer = (
    oneshot::Sender<Result<Accepted, AppendError>>,
    Result<Accepted, AppendError>,
);

/// The writer's own.
pub(crate) struct Writer {
    shared: Arc<Shared>,
    queue: Receiver<Command>,
    /// Room in the queue, in bytes of frames.
    room: Arc<Semaphore>,
    waiting: VecDeque<Command>,
    segment: Option<OpenSegment>,
    set: WorkingSet,
    indexer: Indexer,
    next_batch: u64,
    time_ms: u64,
    /// Batches since the store was opened or last said that it was closed.
    dirty: bool,
    /// Batches are made durable. False only where a test shows that it would notice if they were not.
    sync: bool,
}

/// Where the writer begins.
pub(crate) struct Beginning {
    pub(crate) segment: OpenSegment,
    pub(crate) next_batch: u64,
    pub(crate) time_ms: u64,
    pub(crate) sync: bool,
}

impl Writer {
    pub(crate) fn new(
        shared: Arc<Shared>,
        queue: Receiver<Command>,
        room: Arc<Semaphore>,
        indexer: Indexer,
        beginning: Beginning,
    ) -> Self {
        Self {
            shared,
            queue,
            room,
            waiting: VecDeque::new(),
            segment: Some(beginning.segment),
            set: WorkingSet::new(),
            indexer,
            next_batch: beginning.next_batch,
            time_ms: beginning.time_ms,
            dirty: false,
            sync: beginning.sync,
        }
    }

    /// Works until the queue is closed and empty, then closes what it owns.
    pub(crate) fn run(mut self) {
        while self.gather() {
            match self.waiting.front() {
                Some(Command::Append { .. }) => self.append_waiting(),
                Some(Command::Retire { .. }) => self.retire_first(),
                Some(Command::Close) => {
                    self.waiting.pop_front();
                    self.queue.close();
                }
                None => {}
            }
        }
        self.finish();
    }

    /// Waits for something to do, and takes all that is there. False once the queue is closed and empty.
    fn gather(&mut self) -> bool {
        if self.waiting.is_empty() {
            let Some(command) = self.queue.blocking_recv() else {
                return false;
            };
            self.waiting.push_back(command);
        }
        while self.waiting.len() < self.shared.config.batch_frames_max
            && let Ok(command) = self.queue.try_recv()
        {
            self.waiting.push_back(command);
        }
        true
    }

    /// One batch of the appends at the front of what is waiting.
    fn append_waiting(&mut self) {
        let stopped = self.shared.running().err();
        let (frames_max, bytes_max) = (self.shared.config.batch_frames_max, self.shared.config.batch_bytes_max);
        let expected: usize = self.waiting.iter().map(|command| command.record_bytes()).sum();
        let mut builder = BatchBuilder::new(self.next_batch, self.now_ms(), expected.min(2 * bytes_max));
        let mut answers: Vec<Answer> = Vec::with_capacity(self.waiting.len().min(frames_max));
        let mut queued_bytes = 0;
        while answers.len() < frames_max && builder.bytes() < bytes_max {
            let Some(Command::Append { .. }) = self.waiting.front() else {
                break;
            };
            let Some(Command::Append { frame, answer }) = self.waiting.pop_front() else {
                break;
            };
            queued_bytes += frame.encoded().len();
            let outcome = match &stopped {
                Some(error) => Err(error.clone().into()),
                None => builder.append(&self.shared, &mut self.set, &frame),
            };
            answers.push((answer, outcome));
        }
        builder.verdicts.record();
        let frames = answers.len();
        match self.commit(builder, frames) {
            Ok(batch) => {
                for (answer, outcome) in answers {
                    // Who no longer waits has left the entry in the log all the same.
                    let _ = answer.send(outcome);
                }
                self.hand_over(batch);
            }
            Err(error) => {
                for (answer, _) in answers {
                    let _ = answer.send(Err(error.clone().into()));
                }
            }
        }
        self.room.add_permits(queued_bytes);
    }

    fn retire_first(&mut self) {
        let Some(Command::Retire { logs, answer }) = self.waiting.pop_front() else {
            return;
        };
        let outcome = self.retire(&logs);
        let _ = answer.send(outcome);
    }

    fn retire(&mut self, logs: &[Retired]) -> Result<u64, StoreError> {
        self.shared.running()?;
        let mut rest = logs.iter();
        while !rest.as_slice().is_empty() {
            let mut builder = BatchBuilder::new(self.next_batch, self.now_ms(), 0);
            while builder.bytes() < self.shared.config.batch_bytes_max
                && let Some(Retired { log, up_to, with_state }) = rest.next().copied()
            {
                let outcome = builder.retire(&self.shared, &mut self.set, log, up_to, with_state);
                if let Err(error) = outcome {
                    tracing::error!(%log, %error, "entries are dropped without a Trim: the log is damaged");
                }
            }
            let batch = self.commit(builder, 0)?;
            self.hand_over(batch);
        }
        for retired in logs {
            let damage = self.shared.damage(&retired.log)?;
            if damage.is_some_and(|damage| retired.up_to.is_some_and(|up_to| up_to >= damage.offset))
                && self.set.get(&self.shared, retired.log)?.known.state.first_available()
                    > retired.up_to.unwrap_or_default()
            {
                self.shared.clear_damage(&retired.log)?;
            }
        }
        Ok(self.next_batch - 1)
    }

    /// Makes a batch durable and shows it to readers. `None` where there was nothing to write.
    fn commit(&mut self, builder: BatchBuilder, frames: usize) -> Result<Option<Arc<Batch>>, StoreError> {
        if builder.is_empty() {
            return Ok(None);
        }
        let batch = self.write(builder, frames).inspect_err(|error| {
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
    fn write(&mut self, mut builder: BatchBuilder, frames: usize) -> Result<Arc<Batch>, StoreError> {
        let mark = builder.mark(self.shared.segments.store());
        let bytes = mark.len() + builder.records().len();
        self.make_room(bytes)?;
        let Some(mut segment) = self.segment.take() else {
            return Err(no_segment());
        };
        let begun = Instant::now();
        let mark_at = segment.at;
        let mut written = segment.write(&mark, builder.records());
        if self.sync {
            written = written.and_then(|()| segment.sync());
        }
        // On failure the segment stays taken: there is no way back to its descriptor.
        written.map_err(|error| StoreError::Stopped {
            reason: format!("writing to {} failed: {error}", segment.path.display()),
        })?;
        metrics::batch(frames, bytes, begun.elapsed());
        let start = mark_at + mark.len() as u32;
        let batch = Arc::new(builder.durable(&mut self.set, segment.sequence, mark_at, start));
        self.segment = Some(segment);
        self.next_batch += 1;
        self.dirty = true;
        Ok(batch)
    }

    /// Seals the segment and begins the next one, where a batch does not fit.
    fn make_room(&mut self, bytes: usize) -> Result<(), StoreError> {
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
        metrics::segment_bytes(self.shared.segments.sealed().iter().map(|(_, info)| info.bytes).sum());
        let header = SegmentHeader {
            sequence: sequence + 1,
            store: *self.shared.segments.store(),
            created_ms: self.time_ms,
        };
        let next = OpenSegment::create(self.shared.segments.dir(), &header, segment_bytes);
        self.segment = Some(next.map_err(|error| StoreError::Stopped {
            reason: format!("beginning a new segment failed: {error}"),
        })?);
        Ok(())
    }

    /// What can be done after the acknowledgement: the footer, the index, the states' limits.
    fn hand_over(&mut self, batch: Option<Arc<Batch>>) {
        let Some(batch) = batch else {
            let saved = self.set.evict(&self.shared.config);
            debug_assert!(saved.is_empty() || self.dirty, "only a batch leaves something to keep");
            return;
        };
        if let Some(segment) = &mut self.segment {
            segment.footer.batch(batch.number, batch.time_ms);
            for entry in &batch.entries {
                segment
                    .footer
                    .entry(batch.log_of(entry), entry.offset, batch.start + entry.at);
            }
            for (log, at) in &batch.states {
                let log = &batch.logs[*log as usize];
                segment.footer.state(log.log, log.head, *at);
            }
        }
        self.set.durable(&batch, self.shared.progress.last());
        self.indexer.hand(&self.shared, batch);
    }

    /// The time of the next batch. Never goes back, whatever the clock does.
    fn now_ms(&mut self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.time_ms = self.time_ms.max(u64::try_from(since.as_millis()).unwrap_or(u64::MAX));
        self.time_ms
    }

    /// Says in the segment that all before is synced, hands the states over, and closes the index.
    fn finish(mut self) {
        if self.dirty && self.segment.is_some() {
            let builder = BatchBuilder::new(self.next_batch, self.now_ms(), 0);
            match self.write(builder, 0) {
                Ok(mut batch) => {
                    if let Some(batch) = Arc::get_mut(&mut batch) {
                        batch.saved = self.set.unsaved();
                    }
                    self.shared.tail.write().publish(&batch);
                    self.hand_over(Some(batch));
                }
                Err(error) => self.shared.stop(error.to_string()),
            }
        }
        self.indexer.finish();
        self.shared.stop("the store is closed".into());
        let (index, folder) = self.shared.release();
        if let Some(index) = index {
            // A reader may be about to finish.
            while Arc::strong_count(&index) > 1 {
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
            if let Err(error) = index.close() {
                tracing::warn!(%error, "the index could not be closed; it is built again at the next start");
            }
        }
        drop(folder);
    }
}

impl Command {
    fn record_bytes(&self) -> usize {
        match self {
            Self::Append { frame, .. } => HEADER_BYTES + frame.encoded().len(),
            Self::Retire { .. } | Self::Close => 0,
        }
    }
}

fn no_segment() -> StoreError {
    StoreError::Stopped {
        reason: "no segment is open for writing".into(),
    }
}
