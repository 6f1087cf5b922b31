//! Logs in memory: a [`LogStore`] for the tests of other crates.

use crate::state::{Effects, LogState, Verdict};
use crate::store::{
    Accepted, Access, AppendError, KeyPackageStock, LogStatus, LogStore, PendingAppend, ReadBatch, StoreError,
};
use crate::watch::HeadWatches;
use bytes::{Bytes, BytesMut};
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, ready};
use parking_lot::Mutex;
use skytale_proto::session::Durability;
use skytale_proto::{AccountId, AgentId, Frame, FrameId, Header, LogId, Offset, record};
use std::collections::{HashMap, VecDeque};
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::watch;

/// Keeps logs in memory alone, and all of them until they are trimmed: [`Durability::Volatile`].
///
/// It folds, emits Welcomes and answers as every store does; a frame is in the log, or refused, when `append` returns.
/// Reads are served after [`LogStore::close`] as before it.
#[derive(Debug)]
pub struct MemoryStore {
    logs: Mutex<HashMap<LogId, Log>>,
    heads: HeadWatches,
    stopped: watch::Sender<Option<String>>,
}

#[derive(Debug)]
struct Log {
    state: LogState,
    /// Entries from the state's first available offset on.
    entries: VecDeque<Entry>,
    ids: HashMap<FrameId, Offset>,
    last_time_ms: u64,
}

#[derive(Debug)]
struct Entry {
    id: FrameId,
    time_ms: u64,
    record: Bytes,
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryStore {
    /// No logs.
    pub fn new() -> Self {
        Self {
            logs: Mutex::default(),
            heads: HeadWatches::new(),
            stopped: watch::Sender::new(None),
        }
    }

    /// Stops taking appends, as a store does whose disk fails. A reason given before stays.
    pub fn stop(&self, reason: impl Into<String>) {
        // Under the lock, so that no append is under way when this returns.
        let _logs = self.logs.lock();
        self.stopped.send_if_modified(|stopped| {
            let first = stopped.is_none();
            stopped.get_or_insert_with(|| reason.into());
            first
        });
    }

    /// Folds a frame into its log. The Welcomes that it causes are in their logs when this returns, too.
    fn append_now(&self, frame: &Frame) -> Result<Accepted, AppendError> {
        let mut logs = self.logs.lock();
        if let Some(reason) = self.stopped.borrow().clone() {
            return Err(StoreError::Stopped { reason }.into());
        }
        let (accepted, effects) = fold(&mut logs, frame)?;
        if !accepted.duplicate {
            self.heads.publish(frame.header().log, accepted.offset);
        }
        for welcome in effects.welcomes {
            let frame = welcome_frame(welcome)?;
            match fold(&mut logs, &frame) {
                Ok((welcomed, _)) => self.heads.publish(frame.header().log, welcomed.offset),
                // The recipient does not know the bundle's author: that does not change the bundle.
                Err(AppendError::Refused(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(accepted)
    }

    fn read_now(&self, id: LogId, after: Offset, bytes_max: usize, entries_max: u64) -> Result<ReadBatch, StoreError> {
        let logs = self.logs.lock();
        let Some(log) = logs.get(&id) else {
            return empty_read(after, Offset::ZERO);
        };
        let head = log.state.head();
        let first = log.state.first_available();
        if after >= head {
            return empty_read(after, head);
        }
        if after.next() < first {
            return Err(StoreError::Trimmed { first });
        }
        // Both are bounded by the number of entries in memory.
        let skipped = (after.get() + 1 - first.get()) as usize;
        let mut batch = ReadBatch {
            records: Vec::new(),
            last: after,
            head,
        };
        let mut bytes = 0;
        for entry in log.entries.iter().skip(skipped) {
            bytes += entry.record.len();
            let over = bytes > bytes_max && !batch.records.is_empty();
            if over || batch.records.len() as u64 >= entries_max {
                break;
            }
            batch.records.push(entry.record.clone());
            batch.last = batch.last.next();
        }
        Ok(batch)
    }

    fn state<T>(&self, log: LogId, ask: impl FnOnce(&LogState) -> T) -> T {
        match self.logs.lock().get(&log) {
            Some(log) => ask(&log.state),
            None => ask(&LogState::new(log)),
        }
    }
}

/// A read at the head, or past it.
fn empty_read(after: Offset, head: Offset) -> Result<ReadBatch, StoreError> {
    if after > head {
        return Err(StoreError::BeyondHead { after, head });
    }
    Ok(ReadBatch {
        records: Vec::new(),
        last: after,
        head,
    })
}

fn welcome_frame(welcome: Header) -> Result<Frame, StoreError> {
    Frame::new(welcome, Bytes::new()).map_err(|error| StoreError::Io {
        doing: "making a Welcome".into(),
        error: error.to_string(),
    })
}

/// Folds a frame into its log, which comes to be if the frame is its first entry.
fn fold(logs: &mut HashMap<LogId, Log>, frame: &Frame) -> Result<(Accepted, Effects), AppendError> {
    let header = frame.header();
    match logs.get_mut(&header.log) {
        Some(log) => log.append(frame),
        None => {
            let mut log = Log::new(header.log);
            let accepted = log.append(frame)?;
            logs.insert(header.log, log);
            Ok(accepted)
        }
    }
}

impl Log {
    fn new(log: LogId) -> Self {
        Self {
            state: LogState::new(log),
            entries: VecDeque::new(),
            ids: HashMap::new(),
            last_time_ms: 0,
        }
    }

    fn append(&mut self, frame: &Frame) -> Result<(Accepted, Effects), AppendError> {
        let header = frame.header();
        match self.state.apply(header, self.ids.get(&header.id).copied()) {
            Verdict::Appended { offset, effects } => {
                self.last_time_ms = self.last_time_ms.max(now_ms());
                self.keep(frame, offset);
                if let Some(up_to) = effects.trimmed {
                    self.trim(up_to);
                }
                let accepted = Accepted {
                    offset,
                    time_ms: self.last_time_ms,
                    duplicate: false,
                    claimed: effects.claimed,
                };
                Ok((accepted, effects))
            }
            Verdict::Duplicate { offset } => {
                let accepted = Accepted {
                    offset,
                    time_ms: self.entry(offset).map_or(self.last_time_ms, |entry| entry.time_ms),
                    duplicate: true,
                    claimed: self.state.claimed_by(offset),
                };
                Ok((accepted, Effects::default()))
            }
            Verdict::Refused(refused) => Err(refused.into()),
        }
    }

    fn keep(&mut self, frame: &Frame, offset: Offset) {
        let (id, time_ms) = (frame.header().id, self.last_time_ms);
        let mut record = BytesMut::new();
        record::encode_parts(record::KIND_ENTRY, offset, time_ms, frame.encoded(), &mut record);
        self.ids.insert(id, offset);
        self.entries.push_back(Entry {
            id,
            time_ms,
            record: record.freeze(),
        });
    }

    fn entry(&self, offset: Offset) -> Option<&Entry> {
        let at = offset.get().checked_sub(self.state.first_available().get())?;
        self.entries.get(usize::try_from(at).ok()?)
    }

    /// Drops entries up to and with `up_to`, and their frame ids.
    fn trim(&mut self, up_to: Offset) {
        let kept = self.state.head().get().saturating_sub(up_to.get());
        while self.entries.len() as u64 > kept {
            if let Some(entry) = self.entries.pop_front() {
                self.ids.remove(&entry.id);
            }
        }
    }
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

impl LogStore for MemoryStore {
    fn append(&self, frame: Frame) -> BoxFuture<'_, Result<PendingAppend, StoreError>> {
        async move {
            let (answer, pending) = PendingAppend::new();
            match self.append_now(&frame) {
                Err(AppendError::Store(error @ StoreError::Stopped { .. })) => return Err(error),
                // `pending` is held here, so there is somebody to answer.
                verdict => drop(answer.send(verdict)),
            }
            Ok(pending)
        }
        .boxed()
    }

    fn read(
        &self,
        log: LogId,
        after: Offset,
        bytes_max: usize,
        entries_max: u64,
    ) -> BoxFuture<'_, Result<ReadBatch, StoreError>> {
        async move { self.read_now(log, after, bytes_max, entries_max) }.boxed()
    }

    fn watch_head(&self, log: LogId) -> BoxFuture<'_, Result<watch::Receiver<Offset>, StoreError>> {
        async move {
            // Heads are published under the lock, so none is missed between the two.
            let logs = self.logs.lock();
            let head = logs.get(&log).map_or(Offset::ZERO, |log| log.state.head());
            Ok(self.heads.watch(log, head))
        }
        .boxed()
    }

    fn access(
        &self,
        log: LogId,
        agent: AgentId,
        account: AccountId,
        after: Offset,
    ) -> BoxFuture<'_, Result<Access, StoreError>> {
        async move { Ok(self.state(log, |state| state.access(agent, account, after))) }.boxed()
    }

    fn status(&self, log: LogId) -> BoxFuture<'_, Result<LogStatus, StoreError>> {
        async move { Ok(self.state(log, LogState::status)) }.boxed()
    }

    fn key_packages(&self, agent: AgentId) -> BoxFuture<'_, Result<KeyPackageStock, StoreError>> {
        async move { Ok(self.state(agent.log(), LogState::key_packages)) }.boxed()
    }

    fn durability(&self) -> Durability {
        Durability::Volatile
    }

    fn stopped(&self) -> watch::Receiver<Option<String>> {
        self.stopped.subscribe()
    }

    fn close(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        self.stop("closed");
        ready(Ok(())).boxed()
    }
}
