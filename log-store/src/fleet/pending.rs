//! Appends of this node that wait for their verdict: matched by the sequence that the stream gave their message.
//!
//! A frame's id alone would not do: the same frame may be in the stream more than once, put there by this node or
//! another, and fold differently each time. A message that is folded before the stream's acknowledgement has arrived is
//! kept until it has.

use crate::local::replica::Followed;
use parking_lot::Mutex;
use skytale_proto::FrameId;
use std::collections::{HashMap, HashSet};

/// The appends of one shard that wait.
pub(super) struct Pending<W> {
    inner: Mutex<Inner<W>>,
}

struct Inner<W> {
    /// Waiters by the sequence of their message.
    waiting: HashMap<u64, W>,
    /// Ids of frames that are being published, whose sequences are not known.
    publishing: HashSet<FrameId>,
    /// Those of them that were folded.
    early: HashMap<u64, Followed>,
}

impl<W> Pending<W> {
    pub(super) fn new() -> Self {
        Self {
            inner: Mutex::new(Inner {
                waiting: HashMap::new(),
                publishing: HashSet::new(),
                early: HashMap::new(),
            }),
        }
    }

    /// These frames are about to be published.
    pub(super) fn publishing(&self, frames: impl Iterator<Item = FrameId>) {
        let mut inner = self.inner.lock();
        inner.publishing = frames.collect();
        inner.early.clear();
    }

    /// They were published, the first of them as `first`. Gives those that have been folded already.
    pub(super) fn published(&self, first: u64, waiters: Vec<W>) -> Vec<(W, Followed)> {
        let mut inner = self.inner.lock();
        let mut decided = Vec::new();
        for (sequence, waiter) in (first..).zip(waiters) {
            match inner.early.remove(&sequence) {
                Some(followed) => decided.push((waiter, followed)),
                None => {
                    inner.waiting.insert(sequence, waiter);
                }
            }
        }
        inner.publishing.clear();
        inner.early.clear();
        decided
    }

    /// They were given up. Gives who waits for messages that were published before them: they have waited longer.
    pub(super) fn gave_up(&self) -> Vec<W> {
        let mut inner = self.inner.lock();
        inner.publishing.clear();
        inner.early.clear();
        drop(inner);
        self.take_waiting(|_| true)
    }

    /// A message was folded. Gives who waits for it.
    pub(super) fn followed(&self, followed: Followed) -> Option<(W, Followed)> {
        let mut inner = self.inner.lock();
        if let Some(waiter) = inner.waiting.remove(&followed.sequence) {
            return Some((waiter, followed));
        }
        if followed.frame.is_some_and(|frame| inner.publishing.contains(&frame)) {
            inner.early.insert(followed.sequence, followed);
        }
        None
    }

    /// Takes those who wait for a message that was published, where `which` says so; in the order of their messages.
    pub(super) fn take_waiting(&self, which: impl Fn(&W) -> bool) -> Vec<W> {
        let mut inner = self.inner.lock();
        let mut taken: Vec<(u64, W)> = inner.waiting.extract_if(|_, waiter| which(waiter)).collect();
        drop(inner);
        taken.sort_unstable_by_key(|(sequence, _)| *sequence);
        taken.into_iter().map(|(_, waiter)| waiter).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Refused;

    fn followed(sequence: u64, frame: FrameId) -> Followed {
        Followed {
            sequence,
            frame: Some(frame),
            verdict: Some(Err(Refused::NotMember)),
            welcomes: Vec::new(),
        }
    }

    #[test]
    fn who_has_waited_too_long_is_let_go_and_the_others_wait_on() {
        let pending = Pending::new();
        let frame = FrameId::generate();
        pending.publishing(std::iter::once(frame));
        assert!(pending.published(8, vec!["long", "short"]).is_empty());
        assert_eq!(pending.take_waiting(|waiter| *waiter == "long"), ["long"]);
        assert!(pending.followed(followed(8, frame)).is_none());
        assert_eq!(
            pending.followed(followed(9, frame)),
            Some(("short", followed(9, frame)))
        );
    }

    #[test]
    fn a_verdict_reaches_who_published_that_very_message() {
        let pending = Pending::new();
        let (mine, other) = (FrameId::generate(), FrameId::generate());
        pending.publishing([mine, mine].into_iter());
        // The same frame by another node, and an earlier attempt of this one, are not the awaited one.
        assert!(pending.followed(followed(4, mine)).is_none());
        assert!(pending.followed(followed(5, other)).is_none());
        assert!(pending.followed(followed(6, mine)).is_none());
        let decided = pending.published(6, vec!["first", "second"]);
        assert_eq!(decided, [("first", followed(6, mine))]);
        assert_eq!(pending.followed(followed(7, mine)), Some(("second", followed(7, mine))));
        assert_eq!(pending.followed(followed(7, mine)), None);
        assert!(pending.take_waiting(|_| true).is_empty());
    }
}
