//! Time on the wall, and time on the processor.

use std::fs;
use std::time::{Duration, Instant};

/// Runs from its making.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch {
    begun: Instant,
    cpu: Option<Duration>,
}

/// What something took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Took {
    /// Time on the wall.
    pub wall: Duration,
    /// Time on the processor of all threads of this process, where the kernel tells it.
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

    /// What was taken since the start.
    pub fn took(&self) -> Took {
        let wall = self.begun.elapsed();
        let cpu = cpu().zip(self.cpu).map(|(now, begun)| now.saturating_sub(begun));
        Took { wall, cpu }
    }
}

impl Took {
    /// Time on the wall alone.
    pub const fn wall(wall: Duration) -> Self {
        Self { wall, cpu: None }
    }
}

/// The processor time of the threads there are now.
fn cpu() -> Option<Duration> {
    let mut sum = 0;
    for thread in fs::read_dir("/proc/self/task").ok()? {
        // A thread that has just ended has nothing to tell.
        let Ok(schedstat) = fs::read_to_string(thread.ok()?.path().join("schedstat")) else {
            continue;
        };
        sum += schedstat.split(' ').next()?.parse::<u64>().ok()?;
    }
    Some(Duration::from_nanos(sum))
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
        // Where the kernel tells: some, on however busy a machine.
        assert!(took.cpu.is_none_or(|cpu| cpu > Duration::ZERO));
    }
}
