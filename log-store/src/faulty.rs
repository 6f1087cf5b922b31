//! A store that fails as a test wants it to: a frame here and there, all appends, all reads, or its readiness.
//!
//! ```text
//!   append ── untold failure of its log? ── planned failure? ── Way of all appends ── the store behind
//!   read, watch_head, access, key_packages ── Way of all reads ── the store behind
//! ```
//!
//! In any failure, it keeps [`LogStore`]'s promise of an author's order: after an unreported failure, no frame of that
//! log is accepted.

use crate::MemoryStore;
use crate::store::{
    Accepted, Access, AppendError, KeyPackageStock, Lent, LogStatus, LogStore, PendingAppend, ReadBatch,
};
use crate::store::{Readiness, StoreError};
use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, pending};
use parking_lot::Mutex;
use skytale_proto::session::Durability;
use skytale_proto::{AccountId, AgentId, Frame, FrameId, Kind, LogId, Offset};
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::{oneshot, watch};

/// Time after which [`Fails::Late`] is reported.
const LATE: Duration = Duration::from_millis(10);

/// Ways in which one frame fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fails {
    /// It is not taken.
    NotTaken,
    /// It is taken, and its verdict is an error at once.
    AtOnce,
    /// The same, a moment later.
    Late,
    /// The same, but nothing is reported before [`FaultyStore::tell`].
    Untold,
}

/// Fate of all appends, or of all reads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Way {
    /// The store behind answers.
    #[default]
    Through,
    /// Nothing is answered until the way is another one. An append is in the log all the same: its verdict is kept.
    Silent,
    /// The same, and an append gets no further. It has failed when [`FaultyStore::tell`] tells so.
    Lost(StoreError),
    /// Refused.
    Refused(StoreError),
}

type Teller = oneshot::Sender<Result<Accepted, AppendError>>;

/// A store in front of another one, whose failures a test decides.
pub struct FaultyStore {
    behind: Arc<dyn LogStore>,
    plan: Mutex<Plan>,
    failures: Arc<Mutex<Failures>>,
    appends: watch::Sender<Way>,
    reads: watch::Sender<Way>,
    readiness: Mutex<Option<Readiness>>,
    taken: watch::Sender<usize>,
    /// Frames of this kind get no further.
    hold: watch::Sender<Option<Kind>>,
    /// Frames that wait, or waited, for that.
    held: Mutex<Vec<Frame>>,
    /// All frames that have come, if they are to be kept.
    seen: Mutex<Option<Vec<Frame>>>,
    keeps_refused: AtomicBool,
    kept_out: AtomicUsize,
    appended_bytes: AtomicUsize,
    read_bytes: AtomicUsize,
}

/// Frames that are to fail, once each.
#[derive(Debug, Default)]
struct Plan {
    faults: Vec<(Which, Fails, StoreError)>,
    /// Messages that have come since positions were planned.
    seen: HashSet<FrameId>,
}

#[derive(Debug)]
enum Which {
    Body(Bytes),
    Position(usize),
}

/// Failures of which nobody learned at first, by their logs.
#[derive(Default)]
struct Failures {
    untold: HashMap<LogId, Untold>,
    /// Number of failures reported since, with the last one.
    told: HashMap<LogId, (u64, StoreError)>,
}

impl Failures {
    fn told(&self, log: &LogId) -> u64 {
        self.told.get(log).map_or(0, |(times, _)| *times)
    }

    fn tell(&mut self, log: LogId) {
        if let Some(untold) = self.untold.remove(&log) {
            self.told.insert(log, (self.told(&log) + 1, untold.error.clone()));
            untold.tell();
        }
    }
}

/// A failure that nobody has learned of, and the frames of its log that came since, in order.
struct Untold {
    error: StoreError,
    tellers: Vec<Teller>,
}

impl Untold {
    fn tell(self) {
        for teller in self.tellers {
            // A caller that no longer waits needs no answer.
            let _ = teller.send(Err(self.error.clone().into()));
        }
    }
}

impl Plan {
    fn due(&mut self, frame: &Frame) -> Option<(Fails, StoreError)> {
        let header = frame.header();
        let next = self.seen.len();
        let position = (header.kind() == Kind::Message && self.seen.insert(header.id)).then_some(next);
        let fits = |which: &Which| match which {
            Which::Body(body) => body == frame.body(),
            Which::Position(due) => Some(*due) == position,
        };
        let at = self.faults.iter().position(|(which, ..)| fits(which))?;
        let (_, fails, error) = self.faults.remove(at);
        Some((fails, error))
    }
}

impl fmt::Debug for FaultyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultyStore")
            .field("plan", &self.plan)
            .finish_non_exhaustive()
    }
}

impl FaultyStore {
    /// Makes one in front of a memory store of its own. Nothing fails yet.
    pub fn new() -> Arc<Self> {
        Self::over(Arc::new(MemoryStore::new()))
    }

    /// Makes one in front of a store, which others may use too. Nothing fails yet.
    pub fn over(behind: Arc<dyn LogStore>) -> Arc<Self> {
        Arc::new(Self {
            behind,
            plan: Mutex::default(),
            failures: Arc::default(),
            appends: watch::Sender::default(),
            reads: watch::Sender::default(),
            readiness: Mutex::default(),
            taken: watch::Sender::new(0),
            hold: watch::Sender::default(),
            held: Mutex::default(),
            seen: Mutex::default(),
            kept_out: AtomicUsize::new(0),
            appended_bytes: AtomicUsize::new(0),
            read_bytes: AtomicUsize::new(0),
            keeps_refused: AtomicBool::new(false),
        })
    }

    /// From now on it says that it keeps frames that it refuses, as a fleet's streams do.
    pub fn keep_refused(&self) {
        self.keeps_refused.store(true, Ordering::SeqCst);
    }

    /// Fails the next frame with this body.
    pub fn fail(&self, body: impl Into<Bytes>, fails: Fails, error: StoreError) {
        self.plan.lock().faults.push((Which::Body(body.into()), fails, error));
    }

    /// Fails some of the messages that come from now on, by their positions from 0, each message counted once. Replaces
    /// the earlier plan.
    pub fn fail_messages(&self, positions: &[usize], fails: Fails, error: &StoreError) {
        let fault = |position: &usize| (Which::Position(*position), fails, error.clone());
        *self.plan.lock() = Plan {
            faults: positions.iter().map(fault).collect(),
            seen: HashSet::new(),
        };
    }

    /// Planned failures that have not happened yet.
    pub fn failures_left(&self) -> usize {
        self.plan.lock().faults.len()
    }

    /// Tells all failures that are untold.
    pub fn tell(&self) {
        let mut failures = self.failures.lock();
        let logs: Vec<LogId> = failures.untold.keys().copied().collect();
        logs.into_iter().for_each(|log| failures.tell(log));
    }

    /// Sets the fate of appends from now on.
    pub fn appends(&self, way: Way) {
        self.appends.send_replace(way);
    }

    /// Sets the fate of reads, and of all other questions, from now on.
    pub fn reads(&self, way: Way) {
        self.reads.send_replace(way);
    }

    /// Sets the readiness that it reports from now on.
    pub fn stands(&self, readiness: Readiness) {
        *self.readiness.lock() = Some(readiness);
    }

    /// Holds frames of a kind back from now on, before they are appended: so that those of several nodes can be let go at one
    /// moment. `None` lets them go.
    pub fn hold(&self, kind: Option<Kind>) {
        self.held.lock().clear();
        self.hold.send_replace(kind);
    }

    /// Frames that were held back since [`FaultyStore::hold`].
    pub fn held(&self) -> Vec<Frame> {
        self.held.lock().clone()
    }

    /// Keeps a copy of each frame that comes from now on, whatever becomes of it.
    pub fn keep_seen(&self) {
        self.seen.lock().get_or_insert_default();
    }

    /// The frames that have come since [`FaultyStore::keep_seen`].
    pub fn seen(&self) -> Vec<Frame> {
        self.seen.lock().clone().unwrap_or_default()
    }

    /// Frames that have come, in all.
    pub fn frames(&self) -> usize {
        *self.taken.borrow()
    }

    /// Waits until so many frames have come, in all.
    pub async fn taken(&self, frames: usize) {
        // The sender lives as long as the store.
        let _ = self.taken.subscribe().wait_for(|taken| *taken >= frames).await;
    }

    /// Frames that were refused, by [`Way::Refused`].
    pub fn kept_out(&self) -> usize {
        self.kept_out.load(Ordering::SeqCst)
    }

    /// Bytes of the frames that came, in all.
    pub fn appended_bytes(&self) -> usize {
        self.appended_bytes.load(Ordering::SeqCst)
    }

    /// Bytes of records read, in all.
    pub fn read_bytes(&self) -> usize {
        self.read_bytes.load(Ordering::SeqCst)
    }

    /// Returns the planned failure of a frame, or the one that follows from unreported failures of its log at `asked`.
    fn planned(&self, frame: &Frame, asked: u64) -> Option<Result<PendingAppend, StoreError>> {
        let log = frame.header().log;
        let (teller, pending) = PendingAppend::new();
        let mut failures = self.failures.lock();
        if let Some((_, error)) = failures.told.get(&log).filter(|(times, _)| *times != asked) {
            return Some(Err(error.clone()));
        }
        if let Some(untold) = failures.untold.get_mut(&log) {
            untold.tellers.push(teller);
            return Some(Ok(pending));
        }
        let due = self.plan.lock().due(frame);
        let (fails, error) = due.or_else(|| match &*self.appends.borrow() {
            Way::Lost(error) => Some((Fails::Untold, error.clone())),
            Way::Through | Way::Silent | Way::Refused(_) => None,
        })?;
        let failure = |error| Untold {
            error,
            tellers: vec![teller],
        };
        match fails {
            Fails::NotTaken => return Some(Err(error)),
            Fails::AtOnce => failure(error).tell(),
            Fails::Untold => drop(failures.untold.insert(log, failure(error))),
            Fails::Late => {
                failures.untold.insert(log, failure(error));
                let failures = Arc::clone(&self.failures);
                tokio::spawn(async move {
                    tokio::time::sleep(LATE).await;
                    failures.lock().tell(log);
                });
            }
        }
        Some(Ok(pending))
    }

    /// Waits while frames of this kind are held back.
    async fn let_go(&self, frame: &Frame) {
        let kind = Some(frame.header().kind());
        let mut hold = self.hold.subscribe();
        if *hold.borrow() == kind {
            self.held.lock().push(frame.clone());
            // The sender lives as long as the store.
            let _ = hold.wait_for(|held| *held != kind).await;
        }
    }

    /// An append's verdict, which is kept while appends are silent.
    fn kept(&self, taken: PendingAppend) -> PendingAppend {
        let mut way = self.appends.subscribe();
        if *way.borrow() != Way::Silent {
            return taken;
        }
        let (teller, pending) = PendingAppend::new();
        tokio::spawn(async move {
            if way.wait_for(|way| *way != Way::Silent).await.is_ok() {
                let _ = teller.send(taken.verdict().await);
            }
        });
        pending
    }

    /// Waits while reads are silent.
    async fn readable(&self) -> Result<(), StoreError> {
        let mut way = self.reads.subscribe();
        let answers = |way: &Way| matches!(way, Way::Through | Way::Refused(_));
        let Ok(way) = way.wait_for(answers).await else {
            // The sender lives as long as the store.
            return pending().await;
        };
        match &*way {
            Way::Refused(error) => Err(error.clone()),
            _ => Ok(()),
        }
    }
}

impl FaultyStore {
    fn append_as(&self, frame: Frame, lent: Option<Lent>) -> BoxFuture<'_, Result<PendingAppend, StoreError>> {
        // Now, and not when the future is polled: so is the promise.
        let asked = self.failures.lock().told(&frame.header().log);
        async move {
            self.appended_bytes.fetch_add(frame.encoded().len(), Ordering::SeqCst);
            if let Some(seen) = &mut *self.seen.lock() {
                seen.push(frame.clone());
            }
            self.let_go(&frame).await;
            let refused = match &*self.appends.borrow() {
                Way::Refused(error) => Some(error.clone()),
                _ => None,
            };
            let taken = match (self.planned(&frame, asked), refused) {
                (Some(planned), _) => planned,
                (None, Some(error)) => {
                    self.kept_out.fetch_add(1, Ordering::SeqCst);
                    Err(error)
                }
                (None, None) => {
                    let append = match lent {
                        Some(lent) => self.behind.append_lent(frame, lent),
                        None => self.behind.append(frame),
                    };
                    append.await.map(|taken| self.kept(taken))
                }
            };
            self.taken.send_modify(|taken| *taken += 1);
            taken
        }
        .boxed()
    }
}

impl LogStore for FaultyStore {
    fn append(&self, frame: Frame) -> BoxFuture<'_, Result<PendingAppend, StoreError>> {
        self.append_as(frame, None)
    }

    fn append_lent(&self, frame: Frame, lent: Lent) -> BoxFuture<'_, Result<PendingAppend, StoreError>> {
        self.append_as(frame, Some(lent))
    }

    fn lane(&self, log: &LogId) -> u32 {
        self.behind.lane(log)
    }

    fn keeps_refused(&self) -> bool {
        self.keeps_refused.load(Ordering::SeqCst) || self.behind.keeps_refused()
    }

    fn given_up_ms(&self) -> u64 {
        self.behind.given_up_ms()
    }

    fn read(
        &self,
        log: LogId,
        after: Offset,
        bytes_max: usize,
        entries_max: u64,
    ) -> BoxFuture<'_, Result<ReadBatch, StoreError>> {
        async move {
            self.readable().await?;
            let batch = self.behind.read(log, after, bytes_max, entries_max).await?;
            let bytes: usize = batch.records.iter().map(Bytes::len).sum();
            self.read_bytes.fetch_add(bytes, Ordering::SeqCst);
            Ok(batch)
        }
        .boxed()
    }

    fn watch_head(&self, log: LogId) -> BoxFuture<'_, Result<watch::Receiver<Offset>, StoreError>> {
        async move {
            self.readable().await?;
            self.behind.watch_head(log).await
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
        async move {
            self.readable().await?;
            self.behind.access(log, agent, account, after).await
        }
        .boxed()
    }

    fn status(&self, log: LogId) -> BoxFuture<'_, Result<LogStatus, StoreError>> {
        async move {
            self.readable().await?;
            self.behind.status(log).await
        }
        .boxed()
    }

    fn key_packages(&self, agent: AgentId) -> BoxFuture<'_, Result<KeyPackageStock, StoreError>> {
        async move {
            self.readable().await?;
            self.behind.key_packages(agent).await
        }
        .boxed()
    }

    fn durability(&self) -> Durability {
        self.behind.durability()
    }

    fn stopped(&self) -> watch::Receiver<Option<String>> {
        self.behind.stopped()
    }

    fn readiness(&self) -> Readiness {
        let said = self.readiness.lock().clone();
        said.unwrap_or_else(|| self.behind.readiness())
    }

    fn close(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        self.behind.close()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use skytale_proto::{AgentId, ChannelId, ChannelMode, Detail, Header};

    fn frame(log: LogId, parent: Offset, detail: Detail) -> Frame {
        let header = Header {
            log,
            id: FrameId::generate(),
            author: AgentId::from_bytes([1; 32]),
            parent,
            detail,
        };
        Frame::new(header, Bytes::new()).expect("a frame")
    }

    #[tokio::test]
    async fn what_was_asked_for_before_a_failure_was_told_is_not_taken_after_it() {
        let store = FaultyStore::new();
        let log = ChannelId::generate().log();
        let mode = ChannelMode::Mls;
        let create = frame(
            log,
            Offset::ZERO,
            Detail::Create {
                mode,
                account: None,
                policy: None,
            },
        );
        let created = store.append(create).await.expect("taken").verdict().await;
        let parent = created.expect("accepted").offset;
        let message = || frame(log, parent, Detail::Message);
        let failure = StoreError::Io {
            doing: "test".into(),
            error: "not now".into(),
        };
        store.fail_messages(&[0], Fails::Untold, &failure);
        let first = store.append(message()).await.expect("taken");
        let (second, third) = (store.append(message()), store.append(message()));
        let second = second.await.expect("taken");
        store.tell();
        assert_eq!(first.verdict().await, Err(failure.clone().into()));
        assert_eq!(second.verdict().await, Err(failure.clone().into()));
        assert_eq!(third.await.err(), Some(failure));
        let again = store.append(message()).await.expect("taken");
        assert!(again.verdict().await.is_ok());
    }

    #[tokio::test]
    async fn frames_of_a_kind_that_is_held_back_are_appended_when_they_are_let_go() {
        let store = FaultyStore::new();
        store.keep_seen();
        let log = ChannelId::generate().log();
        let mode = ChannelMode::Mls;
        let create = frame(
            log,
            Offset::ZERO,
            Detail::Create {
                mode,
                account: None,
                policy: None,
            },
        );
        store.hold(Some(Kind::Message));
        let created = store.append(create).await.expect("taken").verdict().await;
        let message = frame(log, created.expect("accepted").offset, Detail::Message);
        let mut held = store.append(message.clone());
        assert!((&mut held).now_or_never().is_none());
        assert_eq!(store.held(), [message]);
        assert_eq!(*store.watch_head(log).await.expect("known").borrow(), Offset::FIRST);
        store.hold(None);
        let accepted = held.await.expect("taken").verdict().await.expect("accepted");
        assert_eq!((accepted.offset, store.seen().len()), (Offset::new(2), 2));
    }
}
