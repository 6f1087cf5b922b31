//! The door to a store: what a relay node asks of the log, whichever store keeps it.

use crate::Refused;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use skytale_proto::rest::ShardLag;
use skytale_proto::session::Durability;
use skytale_proto::{AccountId, AgentId, ChannelId, Code, Frame, LogId, Offset};
use tokio::sync::{oneshot, watch};

/// Keeps logs. Appends to one log are folded in the order in which [`LogStore::append`] returned.
///
/// A store MUST answer an append only when the entry is as durable as [`LogStore::durability`] says, and MUST show no
/// entry to readers before that. Offsets MUST be dense.
///
/// An author's order MUST survive a failure. The verdicts of one log's frames are given in the order of the frames; and
/// after a [`StoreError`] for a frame of a log, no later frame of that log which was queued before the error was reported is
/// accepted: none for which [`LogStore::append`] was called before that, though its future may have waited for room
/// since. So whoever looks at the verdicts told so far between calling `append` and polling its future for the first
/// time, and drops the future where one of the log's was such an error, never lets a frame overtake another.
pub trait LogStore: Send + Sync + 'static {
    /// Queues a frame. Waits for room in the queue, which is bounded in frames and bytes; the returned value then waits
    /// for the verdict, and may be dropped without taking the append back. Before the future is polled nothing is
    /// queued.
    ///
    /// An accepted bundle causes a Welcome entry on the log of each of its recipients, durable with it.
    fn append(&self, frame: Frame) -> BoxFuture<'_, Result<PendingAppend, StoreError>>;

    /// Appends as [`LogStore::append`] does. The store keeps the lent value until the frame is answered or given up,
    /// whether or not anybody looks at the answer: so a caller can bound the frames that the store has, and share that
    /// room among those who append.
    ///
    /// A store that answers at once keeps it until the frame is queued.
    fn append_lent(&self, frame: Frame, lent: Lent) -> BoxFuture<'_, Result<PendingAppend, StoreError>> {
        let append = self.append(frame);
        Box::pin(async move {
            let pending = append.await;
            drop(lent);
            pending
        })
    }

    /// Entries after `after`, contiguous, at most `bytes_max` bytes of records (but at least one record) and
    /// `entries_max` entries. Empty where `after` is the head. Never goes past the head that [`LogStore::watch_head`]
    /// shows.
    fn read(
        &self,
        log: LogId,
        after: Offset,
        bytes_max: usize,
        entries_max: u64,
    ) -> BoxFuture<'_, Result<ReadBatch, StoreError>>;

    /// The log's head (the last durable offset), and each later one. [`Offset::ZERO`] for a log that does not exist (yet).
    fn watch_head(&self, log: LogId) -> BoxFuture<'_, Result<watch::Receiver<Offset>, StoreError>>;

    /// Resolves when [`LogStore::watch_head`] shows all of a log that anybody had acknowledged when this was called. An
    /// error says that this cannot be known now: the watch shows what this store knows.
    ///
    /// A store that is the only one to acknowledge shows all of it always.
    fn settled(&self, log: LogId) -> BoxFuture<'_, Result<(), StoreError>> {
        let _ = log;
        Box::pin(std::future::ready(Ok(())))
    }

    /// Returns the stretch of a log after `after` that an agent may read.
    fn access(
        &self,
        log: LogId,
        agent: AgentId,
        account: AccountId,
        after: Offset,
    ) -> BoxFuture<'_, Result<Access, StoreError>>;

    /// Returns the status of a log's entries that Trims gave up.
    fn status(&self, log: LogId) -> BoxFuture<'_, Result<LogStatus, StoreError>>;

    /// Returns the KeyPackages that an agent has left to give, and whether it has a last resort.
    fn key_packages(&self, agent: AgentId) -> BoxFuture<'_, Result<KeyPackageStock, StoreError>>;

    /// Returns the meaning of an acknowledgement.
    fn durability(&self) -> Durability;

    /// Watches the reason why the store takes no appends, if it has stopped.
    fn stopped(&self) -> watch::Receiver<Option<String>>;

    /// The time that more than half of the clocks behind this store agree on, unix milliseconds; `None` where there are none, as
    /// for a store alone, or where they do not agree.
    fn agreed_ms(&self) -> Option<u64> {
        None
    }

    /// Returns the logs that wait for one another in this store's queue: those of one lane.
    fn lane(&self, log: &LogId) -> u32 {
        let _ = log;
        0
    }

    /// Whether a frame that its log refuses, or has already, takes room in this store all the same, until retention removes it.
    fn keeps_refused(&self) -> bool {
        false
    }

    /// Entries up to this time, unix milliseconds, are no longer kept, as far as the store knows; 0 where it knows of none.
    fn given_up_ms(&self) -> u64 {
        0
    }

    /// Whether the store can do all of its work now, and how far behind it is.
    fn readiness(&self) -> Readiness {
        let stopped = self.stopped().borrow().clone();
        Readiness {
            problems: stopped.iter().map(|why| stopped_problem(why)).collect(),
            ..Readiness::default()
        }
    }

    /// Takes no more appends, finishes those queued, syncs and releases the files.
    fn close(&self) -> BoxFuture<'_, Result<(), StoreError>>;
}

/// The state of a store, for those who watch over its node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Readiness {
    /// Reasons why it cannot do its work now; empty if it is ready.
    pub problems: Vec<String>,
    /// Conditions that need attention, though it does its work.
    pub remarks: Vec<String>,
    /// Lag behind the streams that it follows, each shard once; empty if it follows nothing.
    pub lag: Vec<ShardLag>,
}

/// Returns the problem reported of a store that has stopped.
pub(crate) fn stopped_problem(why: &str) -> String {
    format!("the store takes no appends: {why}")
}

/// Returns the problem reported of a store whose disk is full.
pub(crate) fn full_problem(why: &str) -> String {
    format!("the store takes no appends until there is room on its disk: {why}")
}

/// Value that a caller lends to an append until it is answered: dropped then.
pub type Lent = Box<dyn Send + Sync>;

/// An append on its way. Resolves when the verdict is durable.
#[derive(Debug)]
pub struct PendingAppend {
    verdict: oneshot::Receiver<Result<Accepted, AppendError>>,
}

impl PendingAppend {
    /// A pending append, and where its verdict is to be sent.
    pub fn new() -> (oneshot::Sender<Result<Accepted, AppendError>>, Self) {
        let (sender, verdict) = oneshot::channel();
        (sender, Self { verdict })
    }

    /// Waits for the verdict.
    pub async fn verdict(self) -> Result<Accepted, AppendError> {
        self.verdict.await.unwrap_or_else(|_| {
            Err(StoreError::Stopped {
                reason: "the store ended before it answered".into(),
            }
            .into())
        })
    }
}

/// An entry that is in the log, durably.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// Its offset.
    pub offset: Offset,
    /// The time stored with it, unix milliseconds.
    pub time_ms: u64,
    /// True where the same frame id had been accepted before, at this offset.
    pub duplicate: bool,
    /// For a KeyPackageClaim: the package that it took. `None` for a duplicate of a claim so old that it is no longer
    /// remembered ([`crate::LogState::claimed_by`]); an agent that needs a package then makes a new claim.
    pub claimed: Option<ClaimedPackage>,
}

/// The KeyPackage that a claim took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClaimedPackage {
    /// The package's offset in the same log.
    pub offset: Offset,
    /// It was the last resort, and stays in stock.
    pub last_resort: bool,
}

/// KeyPackages that an agent has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct KeyPackageStock {
    /// Single-use packages.
    pub live: u32,
    /// Whether a last resort is there.
    pub last_resort: bool,
}

/// Head of a log, and the entries of it that were given up.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct LogStatus {
    /// The last entry; [`Offset::ZERO`] while there is none.
    pub head: Offset,
    /// The first entry that no Trim gave up.
    pub first: Offset,
    /// The last entry given up that was not itself a Trim, or a later one where that is no longer known; [`Offset::ZERO`]
    /// where none was.
    pub given_up: Offset,
    /// Of a channel: the last commit, or the Create.
    pub handshake_head: Offset,
    /// Of an agent's log: Welcomes whose entries were given up, each channel's newest with its bundle's offset.
    pub welcomes: Vec<(ChannelId, Offset)>,
}

/// Entries as they are on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadBatch {
    /// Records ([`skytale_proto::record`]), one after another, in chunks.
    pub records: Vec<Bytes>,
    /// The offset of the last one; `after` where there is none.
    pub last: Offset,
    /// The log's head when the read was made.
    pub head: Offset,
}

/// Stretch of a log that an agent may read after a cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// The entry after the cursor and those that follow, up to and with `until`; `None` is without end (so far).
    Readable {
        /// The last offset of this stretch.
        until: Option<Offset>,
    },
    /// Not the entry after the cursor. `next` is the first later offset that it may read, if there is one.
    NotMember {
        /// The first later offset that it may read.
        next: Option<Offset>,
    },
    /// No such log.
    UnknownLog,
}

/// Reason why a frame is not in the log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The fold refused it.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The store could not say.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl AppendError {
    /// The code that a refusal for this carries.
    pub fn code(&self) -> Code {
        match self {
            Self::Refused(refused) => refused.code(),
            Self::Store(error) => error.code(),
        }
    }
}

/// Failure of a store.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Takes no more appends.
    #[error("the store has stopped: {reason}")]
    Stopped {
        /// The reason.
        reason: String,
    },
    /// Takes no appends until there is room on the disk. The frame may be appended again then, with its id.
    #[error("the disk is full: {reason}")]
    Full {
        /// Shortage.
        reason: String,
    },
    /// Entries up to there are no longer kept.
    #[error("entries before offset {first} are no longer kept")]
    Trimmed {
        /// The first available offset.
        first: Offset,
    },
    /// A cursor past the head.
    #[error("cursor {after} is past the log's head {head}")]
    BeyondHead {
        /// The cursor.
        after: Offset,
        /// The head.
        head: Offset,
    },
    /// A stored record does not fit its checksum.
    #[error("stored record damaged: {place}")]
    Corrupt {
        /// File and position.
        place: String,
    },
    /// The place where the log's home is does not answer. The frame may or may not have got there: append it again, and
    /// it is an entry once.
    #[error("the log's home {home} cannot be reached: {reason}")]
    HomeUnreachable {
        /// The home.
        home: String,
        /// Error of the last attempt.
        reason: String,
    },
    /// This node has not got there yet.
    #[error("this node is still catching up with {home}")]
    CatchingUp {
        /// The log's home.
        home: String,
    },
    /// The files cannot be read or written.
    #[error("{doing}: {error}")]
    Io {
        /// The failed operation, with the path.
        doing: String,
        /// Error of the system.
        error: String,
    },
}

impl StoreError {
    /// The code that a refusal for this carries.
    pub const fn code(&self) -> Code {
        match self {
            Self::Stopped { .. } => Code::StoreStopped,
            Self::Full { .. } => Code::StoreFull,
            Self::Trimmed { .. } => Code::Trimmed,
            Self::BeyondHead { .. } => Code::CursorBeyondHead,
            Self::Corrupt { .. } => Code::StoreCorrupt,
            Self::HomeUnreachable { .. } => Code::HomeUnreachable,
            Self::CatchingUp { .. } => Code::CatchingUp,
            Self::Io { .. } => Code::RelayInternal,
        }
    }
}
