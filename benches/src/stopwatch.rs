//! Time on the wall, and time on the processor.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// Runs from its making.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch {
    begun: Instant,
    cpu: Duration,
}

/// Time that something took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Took {
    /// Time on the wall.
    pub wall: Duration,
    /// Time on the processor of all threads of this process; none where only the wall was measured.
    pub cpu: Option<Duration>,
}

impl Stopwatch {
    /// Starts.
    pub fn start() -> Self {
        let cpu = cpu();
        Self {
            begun: Instant::now(),
            cpu,
        }
    }

    /// Returns the time since the start.
    pub fn took(&self) -> Took {
        let wall = self.begun.elapsed();
        let cpu = Some(cpu().saturating_sub(self.cpu));
        Took { wall, cpu }
    }
}

impl Took {
    /// Time on the wall alone.
    pub const fn wall(wall: Duration) -> Self {
        Self { wall, cpu: None }
    }
}

/// The processor time of this process so far, threads that have ended included.
fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    Duration::from_secs(seconds) + Duration::from_nanos(u64::try_from(time.tv_nsec).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_takes_processor_time_and_waiting_does_not() {
        let stopwatch = Stopwatch::start();
        let until = Instant::now() + Duration::from_millis(50);
        let mut value = 1u64;
        while Instant::now() < until {
            value = std::hint::black_box(value.wrapping_mul(3));
        }
        let took = stopwatch.took();
        assert!(took.wall >= Duration::from_millis(50));
        // However busy the machine, and whatever other threads have ended meanwhile.
        assert!(took.cpu.is_some_and(|cpu| cpu > Duration::ZERO));
    }
}
