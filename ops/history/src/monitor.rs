//! Checks a run while it goes on.
//!
//! ```text
//!   authors                            readers
//!   sent, acknowledged, refused        delivered, finished
//!          \                            /
//!           v                          v
//!     ChannelMonitor: one lock, one canonical log, a cursor for each reader
//!                         |
//!                         v
//!                  faults, at once; Report at the end
//! ```

mod account;
mod channel;
mod faults;
mod log;
mod shown;
mod spans;
#[cfg(test)]
mod tests;
mod verdict;

pub use channel::{ChannelMonitor, Delivered, Reader};
pub use faults::FAULTS_KEPT_MAX;

use crate::Fault;
use channel::Shared;
use parking_lot::Mutex;
use serde::Serialize;
use skytale_proto::ChannelId;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Checks a run while it goes on, and names each [`Fault`] as soon as it can be seen.
///
/// A monitor takes the facts that [`check`](crate::check) takes as events, from many tasks at once. It keeps each entry of
/// a channel once, however many agents read it: the first reader's account of an offset is canonical, and every other is
/// compared with it. The first 1,000 faults are kept ([`FAULTS_KEPT_MAX`]); all are counted.
///
/// ```
/// use skytale_history::{Delivered, EntryKind, Fault, Monitor};
/// use skytale_proto::{AgentId, ChannelId, Digest, FrameId, Offset};
///
/// let (alice, bob) = (AgentId::from_bytes([1; 32]), AgentId::from_bytes([2; 32]));
/// let monitor = Monitor::new();
/// let channel = monitor.channel(ChannelId::from_bytes([7; 16]));
/// let (frame, offset) = (FrameId::generate(), Offset::FIRST);
///
/// channel.sent(alice, frame);
/// channel.acknowledged(alice, frame, offset);
/// let entry = Delivered {
///     offset,
///     frame,
///     author: alice,
///     parent: Offset::ZERO,
///     kind: EntryKind::Message,
///     hash: Digest::hash_frame(b"the frame's bytes"),
/// };
/// for agent in [alice, bob] {
///     let mut reader = channel.reader(agent, Offset::FIRST);
///     reader.delivered(&[entry]);
///     reader.finished(offset);
/// }
/// let report = monitor.finish();
/// assert_eq!(report.faults, []);
/// assert!(report.channels[0].agree);
///
/// // Bob was added again, and is shown the same offset with other bytes.
/// let mut reader = channel.reader(bob, Offset::FIRST);
/// reader.delivered(&[Delivered { hash: Digest::hash_frame(b"others"), ..entry }]);
/// assert!(monitor.faults().iter().any(|fault| matches!(fault, Fault::Fork { .. })));
/// ```
///
/// # When a fault is named
///
/// - At once: `Fork`, `Gap`, `Twice`, `ShortRead`, `RefusedButThere`; `Missing`, if somebody was shown another frame at the
///   offset acknowledged; `Order` and `Epoch`, for an entry at the end of what anybody was shown.
/// - When its author sends again: `Invented`.
/// - By [`Monitor::finish`]: `Missing`, of what a reader skipped; `Order` and `Epoch`, of entries that were
///   shown after later ones (a member from the beginning reads behind one that joined); and `Invented`, of the rest.
///
/// A frame that is in flight at the end is no fault. Neither is an acknowledged frame at an offset that no reader's stretch
/// covers: it cannot be judged, and is counted ([`ChannelReport::unread`]). A stretch covers the offsets from its first to
/// where the reader finished, or to the last entry that it was shown.
///
/// # Where it differs from `check`
///
/// Both find a fault or both find none, with these exceptions:
/// - The monitor does not check the order of frames that are under another agent's name than their sender's.
/// - A frame that one agent records as sent twice counts once.
///
/// If both find faults, they are of the same kinds, except after these two:
/// - `Fork`. `check` takes the account of the agent with the lowest id as canonical, and the monitor takes the first. A
///   frame that only the others were shown has no place in the monitor's log. So all other kinds except `ShortRead` may
///   differ.
/// - `Twice`. If a frame is at two offsets, the monitor knows it by the first that was shown. So `Order` may differ, and
///   a `Gap` may stand for another `Twice`.
///
/// Numbers differ, too: `Missing` may name the author once where `check` names each reader.
///
/// # Memory
///
/// 77 to 105 bytes an entry: 48 in the log, with 112 bits of its hash, and 29 to 57 to find its frame again. A frame in
/// flight and an acknowledgement that comes before its entry take about as much until the entry is shown. A refused frame
/// takes 19 to 39 bytes, for good. In each of its channels a reader takes about 250 bytes and an author 150. Nothing is
/// kept for a pair of a reader and an entry.
#[derive(Default)]
pub struct Monitor {
    shared: Arc<Shared>,
    channels: Mutex<BTreeMap<ChannelId, Arc<ChannelMonitor>>>,
}

/// Progress of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Progress {
    /// Entries of all channels that somebody was shown.
    pub entries: u64,
    /// Entries shown, counted for each reader.
    pub deliveries: u64,
    /// Faults so far.
    pub faults: u64,
}

/// The verdict on a run.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The first faults, [`FAULTS_KEPT_MAX`] at most.
    pub faults: Vec<Fault>,
    /// Number of faults. 0 is what a run should have.
    pub fault_count: u64,
    /// Entries shown, counted for each reader.
    pub deliveries: u64,
    /// Each channel, by id.
    pub channels: Vec<ChannelReport>,
}

/// Findings on one channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct ChannelReport {
    /// The channel.
    pub channel: ChannelId,
    /// Its entries that somebody was shown.
    pub entries: u64,
    /// Frames sent that nobody was shown, and that were not refused.
    pub in_flight: u64,
    /// Acknowledged frames at offsets that nobody read. Whether they are in the log is not known.
    pub unread: u64,
    /// Agents that read it.
    pub readers: usize,
    /// Agents of these that finished, and do not read again.
    pub finished: usize,
    /// Whether all that read from one offset to another were shown the same, by the digest chains that they kept.
    pub agree: bool,
}

impl Monitor {
    /// A monitor without channels.
    pub fn new() -> Self {
        Self::default()
    }

    /// The monitor of one channel, made if there is none. Keep it: this takes a lock that all channels share.
    pub fn channel(&self, channel: ChannelId) -> Arc<ChannelMonitor> {
        let mut channels = self.channels.lock();
        let monitor = channels
            .entry(channel)
            .or_insert_with(|| Arc::new(ChannelMonitor::new(channel, Arc::clone(&self.shared))));
        Arc::clone(monitor)
    }

    /// The faults named so far, [`FAULTS_KEPT_MAX`] at most.
    pub fn faults(&self) -> Vec<Fault> {
        self.shared.faults.kept()
    }

    /// Returns the progress of the run. Takes no lock.
    pub fn progress(&self) -> Progress {
        Progress {
            entries: self.shared.entries.load(Ordering::Relaxed),
            deliveries: self.shared.deliveries.load(Ordering::Relaxed),
            faults: self.shared.faults.count(),
        }
    }

    /// The verdict, with the faults that can be seen only when all is over. It takes each channel's lock for a walk over
    /// its log. The monitor stays as it is: a run may go on, and finish again.
    pub fn finish(&self) -> Report {
        let channels: Vec<_> = self.channels.lock().values().cloned().collect();
        let faults = self.shared.faults.snapshot();
        let channels = channels.iter().map(|channel| channel.verdict(&faults)).collect();
        Report {
            faults: faults.kept(),
            fault_count: faults.count(),
            deliveries: self.shared.deliveries.load(Ordering::Relaxed),
            channels,
        }
    }
}
