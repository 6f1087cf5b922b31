//! A local store that follows streams: its entries were folded elsewhere in the same order.
//!
//! ```text
//!  stream of shard 0 ──┐                                   ┌── positions, in the batch's mark
//!  stream of shard 1 ──┼──> fold ──> batch (all or nothing) ┤
//!  stream of shard 2 ──┘                                   └── entries ──> readers
//! ```
//!
//! A batch and the positions in it are there together or not at all. So after a crash the segments alone say where each
//! shard is, and folding goes on with the next message: none is folded twice, none is left out. Everything here is
//! durable in the streams, so no batch is synced on its way: a crash of the machine takes the end of the last segment,
//! and that is followed again. Frames are not appended here, nothing is dropped by age, and Welcomes are given to the
//! caller, who sees that they get into the streams of their logs. While the disk is full nothing is folded: submitted
//! messages wait until there is room. The folder's format says that it is a replica; it may be deleted, and made again
//! from the streams.

use super::command::Command;
use super::config::LocalConfig;
use super::error::OpenError;
use super::folder::Role;
use super::known::Known;
use super::position::ShardPosition;
use super::shared::Shared;
use super::{LocalStore, blocking};
use crate::{Accepted, LogState, LogStore as _, Refused, StateError, StoreError};
use bytes::Bytes;
use skytale_proto::{Frame, FrameId, Header, LogId, Offset};
use std::path::Path;
use std::sync::Arc;
use tokio::sync::oneshot;

/// Bytes of states installed at once, about.
const INSTALL_BYTES: usize = 4 * 1024 * 1024;

/// Messages of one shard, consecutive, without a gap.
#[derive(Clone, Debug)]
pub struct Follow {
    /// Position of the shard after the last of them. Its `repeated` is empty: the store finds out.
    pub position: ShardPosition,
    /// The messages, in the stream's order.
    pub messages: Vec<Message>,
}

/// A message of a shard's stream.
#[derive(Clone, Debug)]
pub struct Message {
    /// Its sequence in the stream.
    pub sequence: u64,
    /// The shard's time, unix milliseconds: that of an entry that it becomes.
    pub time_ms: u64,
    /// The frame in it; `None` where it holds none, or is known to repeat one.
    pub frame: Option<Frame>,
    /// It is known to repeat an entry that this replica does not have.
    pub repeated: bool,
}

/// Outcome of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Followed {
    /// Its sequence in the stream.
    pub sequence: u64,
    /// The id of the frame in it.
    pub frame: Option<FrameId>,
    /// Verdict of the fold; `None` if there was no frame.
    pub verdict: Option<Result<Accepted, Refused>>,
    /// The Welcomes that it caused and that their logs do not have.
    pub welcomes: Vec<Header>,
}

/// Receiver of the outcomes of messages.
pub(crate) type Answer = oneshot::Sender<Result<Vec<Followed>, StoreError>>;

/// Messages on their way into the replica.
pub struct Following {
    outcome: oneshot::Receiver<Result<Vec<Followed>, StoreError>>,
    shared: Arc<Shared>,
}

impl Following {
    /// Waits until they are written, and returns their outcomes. May be called once more if the answer was not waited
    /// for.
    pub async fn outcome(&mut self) -> Result<Vec<Followed>, StoreError> {
        let outcome = (&mut self.outcome).await;
        outcome.unwrap_or_else(|_| Err(self.shared.running().err().unwrap_or_else(super::closed)))
    }
}

/// A log's state at some message, with all that folding goes on with.
#[derive(Clone, Debug)]
pub struct Snapshot {
    log: LogId,
    known: Known,
}

impl Snapshot {
    /// Reads what [`Snapshot::encode`] gave.
    pub fn decode(log: LogId, bytes: Bytes) -> Result<Self, StateError> {
        Known::decode(log, bytes).map(|known| Self { log, known })
    }

    /// The snapshot as bytes: the newest frame id, then the state. Equal snapshots have equal bytes.
    pub fn encode(&self) -> Bytes {
        self.known.encode()
    }

    /// The log.
    pub const fn log(&self) -> LogId {
        self.log
    }

    /// The log's state.
    pub const fn state(&self) -> &LogState {
        &self.known.state
    }
}

/// A local store that follows.
pub struct Replica {
    store: LocalStore,
}

impl Replica {
    /// Opens the replica in a folder, or makes an empty one there; and says where each shard is.
    pub async fn open(config: LocalConfig) -> Result<(Self, Vec<ShardPosition>), OpenError> {
        let (store, positions) = LocalStore::open_as(config, Role::Replica, false).await?;
        Ok((Self { store }, positions))
    }

    /// Deletes a replica's folder, so that it is made again. It must not be open.
    pub fn erase(dir: &Path) -> Result<(), OpenError> {
        // Only a folder of a replica, and only if nobody has it open.
        super::folder::Folder::open(dir, Role::Replica)?.erase()
    }

    /// The store, to read from. It takes no appends.
    pub const fn store(&self) -> &LocalStore {
        &self.store
    }

    /// Folds messages. Entries that are given back were written, and readers see them; messages that became none may have to
    /// be followed again after a crash, and fold to the same. Messages of one shard are to be given in their
    /// order, without a gap; an error is the end of following.
    pub async fn follow(&self, follow: Follow) -> Result<Vec<Followed>, StoreError> {
        self.submit(follow).await?.outcome().await
    }

    /// Queues messages to be folded, so that the next can be prepared meanwhile.
    pub async fn submit(&self, follow: Follow) -> Result<Following, StoreError> {
        self.ask(|answer| Command::Follow { follow, answer }).await
    }

    /// Takes in what a shard's logs were at a position. None of the logs may have an entry here. Where this is cut off, the
    /// replica must be erased: its position for the shard says so ([`Replica::is_half_installed`]).
    pub async fn install(&self, snapshots: Vec<Snapshot>, position: ShardPosition) -> Result<(), StoreError> {
        let begun = ShardPosition {
            shard: position.shard,
            stream: u64::MAX,
            ..ShardPosition::default()
        };
        self.install_some(Vec::new(), begun.clone()).await?;
        let (mut states, mut bytes) = (Vec::new(), 0);
        for snapshot in snapshots {
            bytes += snapshot.known.state.weight_bytes();
            states.push(snapshot.known);
            if bytes > INSTALL_BYTES {
                self.install_some(std::mem::take(&mut states), begun.clone()).await?;
                bytes = 0;
            }
        }
        self.install_some(states, position).await
    }

    async fn install_some(&self, states: Vec<Known>, position: ShardPosition) -> Result<(), StoreError> {
        let command = |answer| Command::Install {
            states,
            position,
            answer,
        };
        self.ask(command).await?.outcome().await?;
        let shared = self.store.shared.clone();
        // A state that is nowhere but in a cache could not be folded again.
        blocking(move || {
            shared.wait_for_index();
            Ok(())
        })
        .await
    }

    /// Whether a position is that of a shard whose states were being installed.
    pub const fn is_half_installed(position: &ShardPosition) -> bool {
        position.stream == u64::MAX
    }

    async fn ask(&self, command: impl FnOnce(Answer) -> Command) -> Result<Following, StoreError> {
        let shared = &self.store.shared;
        shared.running()?;
        let (answer, outcome) = oneshot::channel();
        let ended = |_| shared.running().err().unwrap_or_else(super::closed);
        self.store.queue.send(command(answer)).await.map_err(ended)?;
        Ok(Following {
            outcome,
            shared: shared.clone(),
        })
    }

    /// Returns the reason why it does not follow for now, if there is no room on the disk. It goes on by itself.
    pub fn full(&self) -> Option<String> {
        self.store.shared.space.why()
    }

    /// Stops the store: it answers reads, and follows no more.
    pub fn stop(&self, reason: String) {
        self.store.shared.stop(reason);
    }

    /// Returns the offset of a frame in a log, once it is durable.
    pub async fn seen(&self, log: LogId, id: FrameId) -> Result<Option<Offset>, StoreError> {
        let shared = self.store.shared.clone();
        blocking(move || {
            shared.wait_for_index();
            Ok(shared.index()?.seen(&log, &id)?.map(|(offset, _)| offset))
        })
        .await
    }

    /// The states of the logs that `which` chooses, in the order of their ids. Nobody may follow a message of
    /// those logs meanwhile.
    pub async fn snapshots(
        &self,
        which: impl Fn(&LogId) -> bool + Send + 'static,
    ) -> Result<Vec<Snapshot>, StoreError> {
        let shared = self.store.shared.clone();
        blocking(move || {
            shared.wait_for_index();
            let mut found = Vec::new();
            for log in shared.index()?.logs()?.into_iter().filter(which) {
                let known = shared.load(log)?;
                if known.state.head() > Offset::ZERO {
                    found.push(Snapshot { log, known });
                }
            }
            Ok(found)
        })
        .await
    }

    /// A log's state. The head in it may be behind.
    pub async fn state(&self, log: LogId) -> Result<LogState, StoreError> {
        Ok(self.store.known(log).await?.state.clone())
    }

    /// Drops the segments all of whose entries were trimmed, and gives how many those were. The store does so by itself
    /// from time to time.
    pub async fn drop_trimmed(&self) -> Result<u64, StoreError> {
        self.store.enforce_retention().await
    }

    /// Writes the followed messages, and releases the files.
    pub async fn close(&self) -> Result<(), StoreError> {
        self.store.close().await
    }
}
