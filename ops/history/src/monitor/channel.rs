//! Handles for tasks: a channel, and a reader of it.

use super::ChannelReport;
use super::account::Account;
use super::faults::Faults;
use crate::EntryKind;
use parking_lot::Mutex;
use skytale_proto::{AgentId, ChannelId, FrameId, Offset};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// State shared by all channels of a monitor.
#[derive(Default)]
pub(super) struct Shared {
    pub(super) faults: Faults,
    pub(super) entries: AtomicU64,
    pub(super) deliveries: AtomicU64,
}

/// An entry, as an agent was shown it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivered {
    /// Its offset.
    pub offset: Offset,
    /// Its frame.
    pub frame: FrameId,
    /// Its author.
    pub author: AgentId,
    /// The handshake head that its author named.
    pub parent: Offset,
    /// Its kind. [`EntryKind::Other`] for the frames of a raw channel: neither their heads nor their authors are
    /// checked.
    pub kind: EntryKind,
    /// A hash of its bytes, such as [`Digest::hash_frame`](skytale_proto::Digest::hash_frame) gives. Readers are compared by
    /// its first 14 bytes, so these must be as good as random.
    pub hash: [u8; 32],
}

/// Takes what agents see of one channel. Each call takes the channel's lock once.
///
/// Agents' calls come in any order, except that an author records a frame ([`Self::sent`]) before the frame goes out.
pub struct ChannelMonitor {
    account: Mutex<Account>,
    shared: Arc<Shared>,
}

impl ChannelMonitor {
    pub(super) fn new(channel: ChannelId, shared: Arc<Shared>) -> Self {
        Self {
            account: Mutex::new(Account::new(channel)),
            shared,
        }
    }

    /// An agent sends a frame: the order of these calls is the author's order. An agent records each of its messages, or
    /// none.
    ///
    /// Call this before the frame goes out. If the frame's id is known only afterwards, call it before the agent sends
    /// another: until then, a reader may be shown the frame first.
    pub fn sent(&self, agent: AgentId, frame: FrameId) {
        self.account.lock().sent(agent, frame, &self.shared.faults);
    }

    /// An agent learned that its frame is in the log.
    pub fn acknowledged(&self, agent: AgentId, frame: FrameId, offset: Offset) {
        let faults = &self.shared.faults;
        self.account.lock().acknowledged(agent, frame, offset, faults);
    }

    /// Its author learned that a frame is not in the log, and never will be.
    pub fn refused(&self, frame: FrameId) {
        self.account.lock().refused(frame, &self.shared.faults);
    }

    /// An agent reads the channel from this entry on: from the beginning, after it was added, or after it was added again.
    ///
    /// An agent has one reader at a time. It keeps that when it connects again: the next entry due is the one after its
    /// cursor, as before.
    pub fn reader(self: &Arc<Self>, agent: AgentId, from: Offset) -> Reader {
        Reader {
            number: self.account.lock().reads(agent, from),
            channel: Arc::clone(self),
        }
    }

    pub(super) fn verdict(&self, faults: &Faults) -> ChannelReport {
        self.account.lock().verdict(faults)
    }
}

/// One agent that reads a channel. Made by [`ChannelMonitor::reader`].
///
/// A reader that is dropped has not finished: it need not have been shown anything more.
#[must_use]
pub struct Reader {
    channel: Arc<ChannelMonitor>,
    number: usize,
}

impl Reader {
    /// The agent was shown these entries, in this order. One lock for all of them.
    pub fn delivered(&mut self, entries: &[Delivered]) {
        let shared = &self.channel.shared;
        let mut account = self.channel.account.lock();
        let before = account.log.entries();
        for entry in entries {
            account.delivered(self.number, entry, &shared.faults);
        }
        let new = account.log.entries() - before;
        drop(account);
        shared.entries.fetch_add(new, Ordering::Relaxed);
        shared.deliveries.fetch_add(entries.len() as u64, Ordering::Relaxed);
    }

    /// The offset of the entry that the agent was shown last, or the one before its first.
    pub fn cursor(&self) -> Offset {
        self.channel.account.lock().readers[self.number].expected.previous()
    }

    /// The agent has read up to here, and reads no further: the run is over, or it was removed there.
    pub fn finished(self, at: Offset) {
        let faults = &self.channel.shared.faults;
        self.channel.account.lock().finished(self.number, at, faults);
    }
}
