//! Puts back into the streams what replicas hold and the streams do not: after the servers' stores were put back to an older
//! copy.
//!
//! ```text
//!   streams now   1 2 3 4 5                      the rest of the replica's entries, in its order, through a
//!   a replica     1 2 3 4 5 6 7 8     ──────>    node of its own; each must fold to the offset that it had
//! ```
//!
//! A node is started with an empty replica of its own, and follows the streams as they are. Then every entry of the
//! replicas that were given is compared with what the node has at its offset; entries past a log's end are appended, in
//! the order in which they were folded. The fold is the check: an entry that does not come to its old offset ends it,
//! before anything else of its log is appended. Welcomes are entries as others are, so this node publishes none by
//! itself; nor does it trim.
//!
//! Frames that the fold refused are not in a replica and do not come back; nobody learned that they were entries. So a
//! stream does not match its old self message for message: nodes that had followed the lost part begin with empty
//! replicas.

use super::FleetStore;
use super::config::FleetConfig;
use super::error::OpenError;
use super::open::Purpose;
use crate::inspect::{self, InspectError};
use crate::{AppendError, LogStore as _, PendingAppend, StoreError};
use skytale_proto::{Code, Frame, FrameId, LogId, Offset, Record};
use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};

/// Appends under way at once.
const AT_ONCE: usize = 2_048;
/// Bytes of entries that are compared at once.
const COMPARED_BYTES: usize = 4 << 20;

/// Result of a restore.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// Entries of the replicas.
    pub entries: u64,
    /// Entries among these that the streams did not have.
    pub missing: u64,
    /// Logs that lacked any.
    pub logs: u64,
}

/// Reason why nothing more is put back. Entries that were put back before stay, and are found again by the next try.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The streams cannot be followed.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A replica cannot be read.
    #[error(transparent)]
    Inspect(#[from] InspectError),
    /// The streams cannot be appended to or read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Relay nodes run on these streams: their appends meanwhile would get the offsets of restored entries.
    #[error("{nodes} relay nodes were heard on these streams within the last 15 s: stop all of them first")]
    NodesRun {
        /// Number of relay nodes heard.
        nodes: usize,
    },
    /// The streams have something else where the replica has an entry.
    #[error(
        "{log} has another entry at {offset} in its stream than in {replica}: the histories differ, since the stream took other \
         entries after it was put back"
    )]
    OtherEntry {
        /// The log.
        log: LogId,
        /// Its offset.
        offset: Offset,
        /// The replica's folder.
        replica: PathBuf,
    },
    /// Neither the streams nor the replica have entries that must come first.
    #[error(
        "{log} ends at {head} in its stream, and {replica} has nothing before {offset}: put back a newer copy of the streams"
    )]
    Gap {
        /// The log.
        log: LogId,
        /// The last entry in the stream.
        head: Offset,
        /// The first that the replica has after it.
        offset: Offset,
        /// The replica's folder.
        replica: PathBuf,
    },
    /// An entry did not come to its offset again.
    #[error("{frame} of {log} was at {offset} in {replica} and does not come there again: {what}")]
    Elsewhere {
        /// The log.
        log: LogId,
        /// The frame.
        frame: FrameId,
        /// Its old offset.
        offset: Offset,
        /// The replica's folder.
        replica: PathBuf,
        /// The event.
        what: String,
    },
}

impl RestoreError {
    /// The code for this.
    pub fn code(&self) -> Code {
        match self {
            Self::Open(error) => error.code(),
            Self::Inspect(error) => error.code(),
            Self::Store(error) => error.code(),
            Self::NodesRun { .. } => Code::Usage,
            Self::OtherEntry { .. } | Self::Gap { .. } | Self::Elsewhere { .. } => Code::Mismatch,
        }
    }
}

/// Compares replicas' entries with the streams, and puts back what these lack; nothing, in a dry run. `config.local` names a folder
/// for a replica, empty now and of no use afterwards.
pub async fn restore(
    config: FleetConfig,
    replicas: &[PathBuf],
    is_dry: bool,
    mut progress: impl FnMut(&Restored),
) -> Result<Restored, RestoreError> {
    let config = FleetConfig {
        retention: None,
        // It is no node of the fleet.
        signer: None,
        ..config
    };
    let store = FleetStore::open_as(config, Purpose::Restore).await?;
    let restored = put_back(&store, replicas, is_dry, &mut progress).await;
    store.close().await?;
    restored
}

async fn put_back(
    store: &FleetStore,
    replicas: &[PathBuf],
    is_dry: bool,
    progress: &mut impl FnMut(&Restored),
) -> Result<Restored, RestoreError> {
    store.ready().await?;
    let mut turn = Turn {
        store,
        is_dry,
        restored: Restored::default(),
        logs: BTreeMap::new(),
        pending: VecDeque::new(),
    };
    for replica in replicas {
        for entry in inspect::frames(replica)? {
            let (offset, frame) = entry?;
            turn.alone()?;
            turn.entry(replica, offset, frame).await?;
            if turn.restored.entries.is_multiple_of(10_000) {
                progress(&turn.restored);
            }
        }
        turn.settle(0).await?;
    }
    turn.alone()?;
    Ok(turn.restored)
}

/// A log as it is in the streams, and in the restored entries.
struct Log {
    head: Offset,
    was_short: bool,
    /// Frame ids from an offset on: of the entries that are being compared.
    seen: (Offset, Vec<FrameId>),
}

struct Put {
    replica: PathBuf,
    log: LogId,
    offset: Offset,
    frame: FrameId,
    pending: PendingAppend,
}

struct Turn<'a> {
    store: &'a FleetStore,
    is_dry: bool,
    restored: Restored,
    logs: BTreeMap<LogId, Log>,
    pending: VecDeque<Put>,
}

impl Turn<'_> {
    fn alone(&self) -> Result<(), RestoreError> {
        match self.store.others() {
            0 => Ok(()),
            nodes => Err(RestoreError::NodesRun { nodes }),
        }
    }

    async fn entry(&mut self, replica: &Path, offset: Offset, frame: Frame) -> Result<(), RestoreError> {
        let (log, id) = (frame.header().log, frame.header().id);
        self.restored.entries += 1;
        if !self.logs.contains_key(&log) {
            let head = *self.store.watch_head(log).await?.borrow();
            let new = Log {
                head,
                was_short: false,
                seen: (Offset::FIRST, Vec::new()),
            };
            self.logs.insert(log, new);
        }
        let Some(state) = self.logs.get_mut(&log) else {
            return Ok(());
        };
        if offset <= state.head {
            return self.compare(replica, log, offset, id).await;
        }
        if offset != state.head.next() {
            return Err(RestoreError::Gap {
                log,
                head: state.head,
                offset,
                replica: replica.to_owned(),
            });
        }
        state.head = offset;
        // Nothing more of this log is compared.
        state.seen.1 = Vec::new();
        self.restored.missing += 1;
        if !std::mem::replace(&mut state.was_short, true) {
            self.restored.logs += 1;
        }
        if self.is_dry {
            return Ok(());
        }
        let pending = self.store.append(frame).await?;
        self.pending.push_back(Put {
            replica: replica.to_owned(),
            log,
            offset,
            frame: id,
            pending,
        });
        self.settle(AT_ONCE).await
    }

    /// Whether the streams have the same frame there, or gave it up.
    async fn compare(&mut self, replica: &Path, log: LogId, offset: Offset, id: FrameId) -> Result<(), RestoreError> {
        let Some(state) = self.logs.get_mut(&log) else {
            return Ok(());
        };
        let place = |(first, ids): &(Offset, Vec<FrameId>)| {
            let place = offset.get().checked_sub(first.get())?;
            ids.get(usize::try_from(place).ok()?).copied()
        };
        let mut there = place(&state.seen);
        if there.is_none() {
            let read = self.store.read(log, offset.previous(), COMPARED_BYTES, u64::MAX).await;
            let batch = match read {
                Ok(batch) => batch,
                Err(StoreError::Trimmed { .. }) => return Ok(()),
                // Past the followed entries: it was put back by this very run, from another replica.
                Err(StoreError::BeyondHead { .. }) => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            let records = batch.records.into_iter().flat_map(Record::decode_batch);
            let ids = records.map_while(|record| Some(Frame::decode(record.ok()?.payload).ok()?.header().id));
            state.seen = (offset, ids.collect());
            there = place(&state.seen);
        }
        // An entry that is still on its way from another replica is compared when it comes to its offset.
        if there.is_none_or(|there| there == id) {
            return Ok(());
        }
        Err(RestoreError::OtherEntry {
            log,
            offset,
            replica: replica.to_owned(),
        })
    }

    /// Waits until no more than so many appends are under way.
    async fn settle(&mut self, most: usize) -> Result<(), RestoreError> {
        while self.pending.len() > most {
            let Some(put) = self.pending.pop_front() else { break };
            let elsewhere = |what: String| RestoreError::Elsewhere {
                log: put.log,
                frame: put.frame,
                offset: put.offset,
                replica: put.replica,
                what,
            };
            match put.pending.verdict().await {
                Ok(accepted) if accepted.offset == put.offset => {}
                Ok(accepted) => return Err(elsewhere(format!("it is at {}", accepted.offset))),
                Err(AppendError::Refused(refused)) => return Err(elsewhere(refused.to_string())),
                Err(AppendError::Store(error)) => return Err(error.into()),
            }
        }
        Ok(())
    }
}
