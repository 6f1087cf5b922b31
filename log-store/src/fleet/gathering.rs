//! Time that a batch waits for authors who are about to come again.
//!
//! When a batch is acknowledged its authors are not answered yet: that takes until this node has folded it. Without waiting one
//! half of the authors is always on that way while the other half's batch is published, and batches are half as large as they
//! could be; each costs the servers as much as dozens of its frames.
//!
//! ```text
//!   without   | A ....... | B ....... | A ....... |        with   | AB ....... | wait | AB ....... |
//!                 answers ──> A's authors come                        answers ──> AB's authors come
//! ```
//!
//! So the next batch waits until most authors of the one before have come again; but no longer than publishing took, which is
//! what the wait can save, and not where it is large already. Where authors do not come again (they are far away, or each sends
//! one frame and no more) the wait shows it, and the next batches do without.

use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// Maximum time that a batch waits.
const WAIT_MAX: Duration = Duration::from_millis(100);
/// The part of the frames before that come again where waiting brings something. Where frames come as they like, and no
/// answer brings them, half as many as were in the batch before come while one waits for as long as it took.
const COME_AGAIN: f64 = 0.625;
/// Batches that do without waiting after it brought nothing, at most: twice as many each time.
const WITHOUT_MAX: u32 = 32;

/// State of the next batch's wait.
pub(super) struct Gathering {
    before: Option<Before>,
    /// Number of frames with which the batch began to wait.
    waited_with: Option<usize>,
    /// Batches that are to do without waiting, and how many did the last time.
    without: u32,
    did_without: u32,
}

/// The batch before.
#[derive(Clone, Copy)]
struct Before {
    frames: usize,
    /// Frames that came while it was published.
    there: usize,
    took: Duration,
    acked: Instant,
}

impl Before {
    /// Returns the number of frames with which a batch waits for no more. One author who sends a frame at a time waits
    /// for nobody.
    const fn enough(&self) -> usize {
        self.there + self.frames - self.frames / 4
    }
}

impl Gathering {
    pub(super) const fn new() -> Self {
        Self {
            before: None,
            waited_with: None,
            without: 0,
            did_without: 0,
        }
    }

    /// Returns the duration of the batch before.
    pub(super) fn took(&self) -> Duration {
        self.before.map_or(Duration::ZERO, |before| before.took)
    }

    /// A batch was acknowledged after `took`, while `there` frames came.
    pub(super) fn published(&mut self, frames: usize, there: usize, took: Duration) {
        self.before = Some(Before {
            frames,
            there,
            took,
            acked: Instant::now(),
        });
    }

    /// Ends when a batch of so many frames should wait no longer. May be called once more after each frame.
    pub(super) async fn over(&mut self, frames: usize) {
        let waits = |before: &Before| self.without == 0 && frames < before.enough();
        if let Some(before) = self.before.filter(waits) {
            self.waited_with.get_or_insert(frames);
            sleep_until(before.acked + before.took.min(WAIT_MAX)).await;
        }
    }

    /// The batch has so many frames, and goes.
    pub(super) fn gathered(&mut self, frames: usize) {
        let (Some(with), Some(before)) = (self.waited_with.take(), self.before) else {
            self.without = self.without.saturating_sub(1);
            return;
        };
        if (frames - with) as f64 >= COME_AGAIN * before.frames as f64 || frames >= before.enough() {
            self.did_without = 0;
        } else {
            self.did_without = (self.did_without * 2).clamp(1, WITHOUT_MAX);
            self.without = self.did_without;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;

    const LONG: Duration = Duration::from_secs(3_600);
    const SHORT: Duration = Duration::from_millis(1);

    #[tokio::test]
    async fn one_author_who_sends_a_frame_at_a_time_waits_for_nobody() {
        let mut gathering = Gathering::new();
        assert!(
            gathering.over(1).now_or_never().is_some(),
            "nothing was published before"
        );
        gathering.published(1, 0, LONG);
        assert!(gathering.over(1).now_or_never().is_some());
    }

    #[tokio::test]
    async fn a_batch_waits_until_most_authors_of_the_one_before_have_come() {
        let mut gathering = Gathering::new();
        gathering.published(32, 4, LONG);
        assert!(gathering.over(4).now_or_never().is_none(), "they are on their way");
        assert!(gathering.over(27).now_or_never().is_none());
        assert!(gathering.over(28).now_or_never().is_some());
        // And not for ever.
        gathering.over(4).await;
    }

    #[tokio::test]
    async fn where_nobody_comes_again_waiting_is_left_for_ever_longer() {
        let mut gathering = Gathering::new();
        let mut waits = Vec::new();
        for batch in 0..40 {
            gathering.published(8, 8, SHORT);
            if gathering.without == 0 {
                waits.push(batch);
            }
            gathering.over(8).await;
            // Half of the frames before, as where they come as they like.
            gathering.gathered(12);
        }
        assert_eq!(waits, [0, 2, 5, 10, 19, 36]);
        // And is taken up again where they do.
        gathering.without = 0;
        gathering.published(8, 0, SHORT);
        gathering.over(1).await;
        gathering.gathered(7);
        assert_eq!((gathering.without, gathering.did_without), (0, 0));
    }
}
