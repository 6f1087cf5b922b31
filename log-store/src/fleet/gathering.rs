//! How long a batch waits for authors who are about to come again.
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
//! So the next batch waits until the authors of the one before have been answered and no more of them come; but no
//! longer than publishing took, which is what the wait can save. Where authors do not come again (they are far away, or each sends
//! one frame and no more) the wait shows it: no more arrives than always does. Then the next batches do without it.

use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// How long the next of those who were answered may take to come again, at least.
const COMES_WITHIN: Duration = Duration::from_millis(1);
/// And as a part of what publishing took: authors wait for answers of other shards too.
const COMES_PER_PUBLISH: f64 = 0.25;
/// How long a batch waits at most.
const WAIT_MAX: Duration = Duration::from_millis(100);
/// Batches that do without waiting after it brought nothing, at most: twice as many each time.
const WITHOUT_MAX: u32 = 32;

/// What the next batch waits for.
pub(super) struct Gathering {
    /// What this node has followed of the shard.
    followed: watch::Receiver<u64>,
    before: Before,
    /// Since when the batch waits, and with how many frames it began to.
    waiting: Option<(Instant, usize)>,
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
    /// Its last message.
    last: u64,
    took: Duration,
    /// Until when the next one may wait.
    until: Instant,
    /// Its authors have been answered.
    answered: bool,
}

impl Gathering {
    pub(super) fn new(followed: watch::Receiver<u64>) -> Self {
        Self {
            followed,
            before: Before {
                frames: 0,
                there: 0,
                last: 0,
                took: Duration::ZERO,
                until: Instant::now(),
                answered: true,
            },
            waiting: None,
            without: 0,
            did_without: 0,
        }
    }

    /// How long the batch before took.
    pub(super) const fn took(&self) -> Duration {
        self.before.took
    }

    /// A batch was acknowledged, its last message as `last`, while `there` frames came.
    pub(super) fn published(&mut self, frames: usize, there: usize, last: u64, took: Duration) {
        self.before = Before {
            frames,
            there,
            last,
            took,
            until: Instant::now() + took.min(WAIT_MAX),
            answered: false,
        };
    }

    /// With this many frames a batch has all that it can wait for. One author who sends a frame at a time waits for nobody.
    const fn enough(&self) -> usize {
        self.before.there + self.before.frames - self.before.frames / 8
    }

    /// Ends when a batch of so many frames should wait no longer. May be asked again after each frame.
    pub(super) async fn over(&mut self, frames: usize) {
        if self.without > 0 || frames >= self.enough() {
            return;
        }
        self.waiting.get_or_insert_with(|| (Instant::now(), frames));
        let next = COMES_WITHIN.max(self.before.took.mul_f64(COMES_PER_PUBLISH));
        let mut until = self.before.until;
        if self.before.answered {
            until = until.min(Instant::now() + next);
        }
        loop {
            if !self.before.answered && *self.followed.borrow_and_update() >= self.before.last {
                self.before.answered = true;
                until = until.min(Instant::now() + next);
            }
            tokio::select! {
                biased;
                () = sleep_until(until) => return,
                moved = self.followed.changed(), if !self.before.answered => if moved.is_err() {
                    return;
                },
            }
        }
    }

    /// The batch has so many frames, and goes.
    pub(super) fn gathered(&mut self, frames: usize) {
        match self.waiting.take() {
            Some((since, with)) => self.judge(frames - with, since.elapsed()),
            None => self.without = self.without.saturating_sub(1),
        }
    }

    /// Whether more came during the wait than always comes.
    fn judge(&mut self, came: usize, waited: Duration) {
        let usual = self.before.there as f64 / self.before.took.as_secs_f64().max(1e-6);
        if came as f64 > 1.25 * usual * waited.as_secs_f64() {
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

    const TOOK: Duration = Duration::from_secs(3_600);

    fn gathering() -> (watch::Sender<u64>, Gathering) {
        let (followed, receiver) = watch::channel(0);
        (followed, Gathering::new(receiver))
    }

    #[tokio::test]
    async fn one_author_who_sends_a_frame_at_a_time_waits_for_nobody() {
        let (_followed, mut gathering) = gathering();
        assert!(
            gathering.over(1).now_or_never().is_some(),
            "nothing was published before"
        );
        gathering.published(1, 0, 1, TOOK);
        assert!(gathering.over(1).now_or_never().is_some());
    }

    #[tokio::test]
    async fn a_batch_waits_for_those_who_are_not_answered_and_a_moment_longer() {
        let (followed, mut gathering) = gathering();
        gathering.published(32, 4, 32, TOOK.min(WAIT_MAX));
        gathering.before.until = Instant::now() + TOOK;
        assert!(gathering.over(4).now_or_never().is_none(), "they are on their way");
        assert!(gathering.over(32).now_or_never().is_some(), "nearly all have come");
        followed.send_replace(31);
        assert!(gathering.over(8).now_or_never().is_none());
        followed.send_replace(32);
        // Ends, although the time that it may take has not; and after the next one a moment later.
        gathering.over(8).await;
        gathering.over(9).await;
    }

    #[tokio::test]
    async fn where_waiting_brings_nothing_it_is_left_for_ever_longer() {
        let (_followed, mut gathering) = gathering();
        let mut waits = Vec::new();
        for batch in 0..40 {
            gathering.published(8, 8, 8, Duration::from_millis(1));
            if gathering.without == 0 {
                waits.push(batch);
            }
            gathering.over(8).await;
            gathering.gathered(8);
        }
        assert_eq!(waits, [0, 2, 5, 10, 19, 36]);
        // And is taken up again where it brings much.
        gathering.without = 0;
        gathering.published(8, 0, 8, Duration::from_millis(1));
        gathering.over(1).await;
        gathering.gathered(8);
        assert_eq!((gathering.without, gathering.did_without), (0, 0));
    }
}
