//! Schedule by which a node that is about to stop lets its agents go: one after the other, each served until its turn.
//! Pure.
//!
//! Each of them knocks at another node's door at once when it is asked to go, and one that is not let in soon knocks at a second.

use std::time::Duration;

/// Agents that are asked to go a second. A few hundred handshakes a second are little to one node.
const TOLD_PER_SECOND: u32 = 500;

/// Returns the time over which so many sessions are asked: a quarter of the available time, at most.
pub(crate) fn told_over(sessions: usize, within: Duration) -> Duration {
    let sessions = u32::try_from(sessions).unwrap_or(u32::MAX);
    (Duration::from_secs(1) * sessions / TOLD_PER_SECOND).min(within / 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_are_told_at_once_and_many_over_a_part_of_the_time() {
        let within = Duration::from_secs(30);
        assert_eq!(told_over(0, within), Duration::ZERO);
        assert_eq!(told_over(5, within), Duration::from_millis(10));
        assert_eq!(told_over(1_000, within), Duration::from_secs(2));
        assert_eq!(told_over(usize::MAX, within), Duration::from_millis(7_500));
        assert_eq!(told_over(10_000, Duration::ZERO), Duration::ZERO);
    }
}
