//! How fast a node reads the frames of one account: its peak rate.
//!
//! A frame costs the node time even if it is refused, and a burst that the rates allow would take every processor until it is used
//! up. So the sessions of an account read their appends at the account's sustained rate of bytes, and at [`PEAK`] times its rate of
//! frames, and no faster; large ones piece by piece ([`PIECE_BYTES`]). The rest stays with the sender, held back by QUIC's flow
//! control, and between two pieces the node has time for other accounts.
//!
//! This is the generic cell rate algorithm (ITU-T I.371) with a queue: a frame that is early waits.

use crate::config::LimitsConfig;
use parking_lot::Mutex;
use skytale_proto::limits;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// An account's peak rate of frames, in units of its sustained rate.
const PEAK: u64 = 2;
/// Bytes of a request that are read at once, at most: some tens of packets.
pub(crate) const PIECE_BYTES: usize = 64 * 1024;
/// Frames a second that a node reads from any account: pacing protects processors, and these do not need it.
const FRAMES_MIN: u64 = 4 * limits::FRAMES_PER_SECOND as u64;
/// Bytes a second that a node reads from any account.
const BYTES_MIN: u64 = 4 * limits::BYTES_PER_SECOND;
/// How late frames may be without losing their rate. Timers are exact to a millisecond.
const TOLERANCE: Duration = Duration::from_millis(4);

/// The time that a frame takes at the peak rate: by its bytes, and at least by its number.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Costs {
    frame_ns: u64,
    mib_ns: u64,
}

/// The pace of one account.
#[derive(Debug)]
pub(crate) struct Pace {
    costs: Costs,
    /// When the next frame is due.
    due: Mutex<Instant>,
}

impl Costs {
    pub(crate) fn new(limits: &LimitsConfig) -> Self {
        const SECOND_NS: u64 = 1_000_000_000;
        let frames = u64::from(limits.account_frames_per_second()).max(FRAMES_MIN);
        let bytes = limits.account_bytes_per_second().max(BYTES_MIN);
        Self {
            frame_ns: SECOND_NS / frames.saturating_mul(PEAK),
            mib_ns: (SECOND_NS << 20) / bytes,
        }
    }

    fn of(self, bytes: usize) -> Duration {
        let bytes_ns = (bytes as u64).saturating_mul(self.mib_ns) >> 20;
        Duration::from_nanos(bytes_ns.max(self.frame_ns))
    }
}

impl Pace {
    pub(crate) fn new(costs: Costs) -> Self {
        Self {
            costs,
            due: Mutex::new(Instant::now()),
        }
    }

    /// Waits until a frame of so many bytes may be read. Gives the times of its pieces: all of its time is taken at once, so that
    /// the frames of an account come one after the other, and none holds room while it waits for others.
    pub(crate) async fn wait(&self, bytes: usize) -> Pieces {
        let now = Instant::now();
        let at = self.reserve(bytes, now);
        if at > now {
            sleep_until(at).await;
        }
        Pieces {
            begins: at,
            costs: self.costs,
        }
    }

    /// Returns when a frame may be read. Its time is used even if the frame never comes.
    fn reserve(&self, bytes: usize, now: Instant) -> Instant {
        let mut due = self.due.lock();
        let at = now.checked_sub(TOLERANCE).map_or(*due, |late| late.max(*due));
        *due = at + self.costs.of(bytes);
        at
    }
}

/// Times of a frame's pieces.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pieces {
    begins: Instant,
    costs: Costs,
}

impl Pieces {
    /// Waits until more than so many bytes of the frame may be read.
    pub(crate) async fn after(&self, bytes: usize) {
        let at = self.begins + self.costs.of(bytes);
        if at > Instant::now() {
            sleep_until(at).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;

    fn pace(change: impl FnOnce(&mut LimitsConfig)) -> Pace {
        let mut limits = LimitsConfig::default();
        change(&mut limits);
        Pace::new(Costs::new(&limits))
    }

    /// How many frames are read within so long, by several streams that always have one.
    async fn read_within(pace: &Pace, bytes: usize, time: Duration) -> u32 {
        let until = Instant::now() + time;
        let mut read = 0;
        while Instant::now() < until {
            pace.wait(bytes).await;
            read += 1;
        }
        read
    }

    #[tokio::test(start_paused = true)]
    async fn frames_are_read_at_the_peak_rate_and_never_faster() {
        let second = Duration::from_secs(1);
        let peak = 2 * 4 * limits::FRAMES_PER_SECOND;
        let read = read_within(&pace(|_| {}), 1_024, second).await;
        assert!(
            (peak - peak / 100..=peak + peak / 100).contains(&read),
            "{read} of {peak}"
        );
        let read = read_within(&pace(|_| {}), 1 << 20, second).await;
        assert!((64..=66).contains(&read), "{read} of 1 MiB");
        let read = read_within(
            &pace(|limits| limits.account_frames_per_second = Some(100_000)),
            64,
            second,
        )
        .await;
        assert!((198_000..=202_000).contains(&read), "{read}");
    }

    #[tokio::test(start_paused = true)]
    async fn the_pieces_of_a_frame_come_within_its_time_and_other_frames_behind_it() {
        let pace = pace(|_| {});
        // Nothing is saved up.
        pace.wait(1 << 20).await;
        let (one, begun) = (pace.wait(1 << 20).await, Instant::now());
        let mut next = Box::pin(pace.wait(1 << 20));
        assert!((&mut next).now_or_never().is_none());
        for piece in 1..16 {
            one.after(piece * PIECE_BYTES).await;
            let expected = Duration::from_micros(15_625 * piece as u64 / 16);
            let took = begun.elapsed();
            assert!(
                took + Duration::from_millis(2) >= expected && took <= expected + Duration::from_millis(2),
                "{took:?}"
            );
        }
        next.await;
        let took = begun.elapsed();
        assert!(took <= Duration::from_millis(18), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_account_with_a_low_rate_has_its_burst_at_once() {
        let pace = pace(|limits| {
            limits.account_frames_per_second = Some(10);
            limits.account_bytes_per_second = Some(1_000);
        });
        let read = read_within(&pace, 1_024, Duration::from_millis(100)).await;
        assert!(read >= 1_500, "{read}");
    }

    #[tokio::test(start_paused = true)]
    async fn who_sends_now_and_then_never_waits_and_saves_nothing_up() {
        let pace = pace(|_| {});
        for _ in 0..100 {
            assert!(pace.wait(1 << 20).now_or_never().is_some(), "it has come late enough");
            tokio::time::advance(Duration::from_millis(20)).await;
        }
        tokio::time::advance(Duration::from_secs(3_600)).await;
        let at_once = std::iter::repeat_with(|| pace.wait(64).now_or_never())
            .take_while(Option::is_some)
            .count();
        assert!(at_once <= 70, "{at_once}");
    }
}
