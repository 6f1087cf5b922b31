//! How much an agent may append: frames and bytes a second, with a burst, whatever number of streams and connections.
//!
//! The rates outlive a connection, so that connecting again buys nothing.

use crate::config::LimitsConfig;
use governor::clock::{Clock, DefaultClock};
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::DashMapStateStore;
use governor::{NotUntil, Quota, RateLimiter};
use skytale_proto::AgentId;
use std::num::NonZeroU32;
use std::time::Duration;

/// Bytes are counted in cells of this many, rounded up, so that a rate is exact to a nanosecond a cell.
const CELL_BYTES: u64 = 64;
/// The shortest wait that is asked for: a shorter one is over before its refusal has arrived.
const WAIT_MIN: Duration = Duration::from_millis(50);

type Keyed<C> = RateLimiter<AgentId, DashMapStateStore<AgentId>, C, NoOpMiddleware<<C as Clock>::Instant>>;

/// The rates of all agents.
#[derive(Debug)]
pub(crate) struct Rates<C: Clock = DefaultClock> {
    frames: Keyed<C>,
    bytes: Keyed<C>,
    clock: C,
}

impl Rates {
    pub(crate) fn new(limits: &LimitsConfig) -> Self {
        Self::with_clock(limits, DefaultClock::default())
    }
}

impl<C: Clock + Clone> Rates<C> {
    fn with_clock(limits: &LimitsConfig, clock: C) -> Self {
        let cells = limits.bytes_per_second / CELL_BYTES;
        Self {
            frames: RateLimiter::dashmap_with_clock(
                quota(limits.frames_per_second.into(), limits.burst_s),
                clock.clone(),
            ),
            bytes: RateLimiter::dashmap_with_clock(quota(cells, limits.burst_s), clock.clone()),
            clock,
        }
    }

    /// Takes one frame of `bytes` bytes from an agent's rates; else how long to wait.
    pub(crate) fn take(&self, agent: &AgentId, bytes: usize) -> Result<(), Duration> {
        self.frames.check_key(agent).map_err(|until| self.wait(&until))?;
        let cells = u32::try_from((bytes as u64).div_ceil(CELL_BYTES)).unwrap_or(u32::MAX);
        let cells = NonZeroU32::new(cells).unwrap_or(NonZeroU32::MIN);
        match self.bytes.check_key_n(agent, cells) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(until)) => Err(self.wait(&until)),
            // The burst holds any one frame; what does not fit is refused for its size, later.
            Err(_) => Ok(()),
        }
    }

    /// Forgets agents whose rates are full again.
    pub(crate) fn forget_idle(&self) {
        self.frames.retain_recent();
        self.bytes.retain_recent();
    }

    fn wait(&self, until: &NotUntil<C::Instant>) -> Duration {
        until.wait_time_from(self.clock.now()).max(WAIT_MIN)
    }
}

fn quota(per_second: u64, burst_s: u32) -> Quota {
    let per_second = NonZeroU32::new(u32::try_from(per_second).unwrap_or(u32::MAX)).unwrap_or(NonZeroU32::MIN);
    let burst = NonZeroU32::new(per_second.get().saturating_mul(burst_s)).unwrap_or(per_second);
    Quota::per_second(per_second).allow_burst(burst)
}

#[cfg(test)]
mod tests {
    use super::*;
    use governor::clock::FakeRelativeClock;

    const A: AgentId = AgentId::from_bytes([1; 32]);
    const B: AgentId = AgentId::from_bytes([2; 32]);

    fn rates(clock: &FakeRelativeClock) -> Rates<FakeRelativeClock> {
        let limits = LimitsConfig {
            frames_per_second: 10,
            bytes_per_second: 1024 * 1024,
            burst_s: 2,
            ..LimitsConfig::default()
        };
        Rates::with_clock(&limits, clock.clone())
    }

    #[test]
    fn a_burst_passes_then_the_sustained_rate() {
        let clock = FakeRelativeClock::default();
        let rates = rates(&clock);
        for _ in 0..20 {
            assert_eq!(rates.take(&A, 100), Ok(()));
        }
        let wait = rates.take(&A, 100).expect_err("the burst is used up");
        assert!(wait <= Duration::from_millis(100), "{wait:?}");
        clock.advance(wait.max(Duration::from_millis(100)));
        assert_eq!(rates.take(&A, 100), Ok(()));
        assert!(rates.take(&A, 100).is_err());
    }

    #[test]
    fn bytes_count_too_and_any_one_frame_fits() {
        let clock = FakeRelativeClock::default();
        let rates = rates(&clock);
        assert_eq!(rates.take(&A, 1024 * 1024), Ok(()));
        assert_eq!(rates.take(&A, 1024 * 1024), Ok(()));
        let wait = rates.take(&A, 1024 * 1024).expect_err("two seconds' worth are used up");
        assert!(wait > Duration::from_millis(900), "{wait:?}");
        clock.advance(wait);
        assert_eq!(rates.take(&A, 1024 * 1024), Ok(()));
    }

    #[test]
    fn one_agent_takes_nothing_from_another() {
        let clock = FakeRelativeClock::default();
        let rates = rates(&clock);
        while rates.take(&A, 100).is_ok() {}
        assert_eq!(rates.take(&B, 100), Ok(()));
    }

    #[test]
    fn agents_that_are_idle_are_forgotten() {
        let clock = FakeRelativeClock::default();
        let rates = rates(&clock);
        assert_eq!(rates.take(&A, 100), Ok(()));
        rates.forget_idle();
        assert_eq!(rates.frames.len(), 1);
        clock.advance(Duration::from_secs(60));
        rates.forget_idle();
        assert_eq!((rates.frames.len(), rates.bytes.len()), (0, 0));
    }
}
