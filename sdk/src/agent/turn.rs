//! Turns for commits that remove leaving members: when this agent replaces members whose turn came earlier.

use skytale_proto::Offset;
use std::time::Duration;
use tokio::time::Instant;

/// Wait of the second in turn, in milliseconds. It exceeds the round trip of a commit.
const SECOND_MS: u64 = 250;

/// Returns how long an agent waits with this many before it. It grows with the square root of their number, so that
/// neighbours differ and the last of a large roster does not wait forever (of 10,000 members, 25 s).
fn wait(before: u32) -> Duration {
    Duration::from_millis((u64::from(before) * SECOND_MS * SECOND_MS).isqrt())
}

/// A scheduled turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Turn {
    /// The handshake head that it is for: the next head cancels it.
    head: Offset,
    pub(super) at: Instant,
}

impl Turn {
    /// Returns the turn for a number of members before this one. A turn already scheduled for the same head is kept.
    pub(super) fn next(before: Option<u32>, head: Offset, coming: Option<Self>, now: Instant) -> Option<Self> {
        let before = before?;
        let new = Self {
            head,
            at: now + wait(before),
        };
        Some(coming.filter(|turn| turn.head == head).unwrap_or(new))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_later_in_turn_waits_longer_and_none_for_ever() {
        let waits: Vec<_> = (0..10_000).map(wait).collect();
        assert_eq!(waits[0], Duration::ZERO);
        assert_eq!(waits[1], Duration::from_millis(SECOND_MS));
        assert!(waits.is_sorted() && waits[9_999] <= Duration::from_secs(25));
        // Neighbours differ, unless a roster is very large.
        assert!(waits[..5_000].windows(2).all(|pair| pair[0] < pair[1]));
    }

    #[test]
    fn a_turn_stays_until_it_is_over() {
        let (now, head) = (Instant::now(), Offset::new(5));
        let first = Turn::next(Some(4), head, None, now);
        let later = now + Duration::from_millis(100);
        assert_eq!(
            Turn::next(Some(4), head, first, later),
            first,
            "it does not begin again"
        );
        let next = Turn::next(Some(4), head.next(), first, later);
        assert_eq!(
            next.map(|turn| turn.at),
            Some(later + wait(4)),
            "another epoch, another turn"
        );
        assert_eq!(Turn::next(None, head, first, later), None);
    }
}
