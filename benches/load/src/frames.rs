//! Frames of a run.
//!
//! A frame's id says when it was planned, so that a reader of the entry knows how late it is, in another process too:
//!
//! ```text
//!  0         6          8               16
//!  | planned | 7 | part | 10 | sequence |      microseconds from the run's beginning; the form is that of a UUIDv7
//! ```

use bytes::Bytes;
use skytale_proto::FrameId;
use std::time::Duration;

/// The id of a frame.
pub(crate) fn frame_id(planned: Duration, part: u32, sequence: u64) -> FrameId {
    let planned_us = u64::try_from(planned.as_micros())
        .unwrap_or(u64::MAX)
        .min((1 << 48) - 1);
    let mut bytes = [0; 16];
    bytes[..6].copy_from_slice(&planned_us.to_be_bytes()[2..]);
    bytes[6..8].copy_from_slice(&(0x7000 | (part & 0xfff) as u16).to_be_bytes());
    bytes[8..].copy_from_slice(&(sequence & !(0b11 << 62) | 0b10 << 62).to_be_bytes());
    FrameId::from_bytes(bytes)
}

/// Returns the planned time of a frame, from the run's beginning.
pub(crate) fn planned(frame: &FrameId) -> Duration {
    let mut bytes = [0; 8];
    bytes[2..].copy_from_slice(&frame.as_bytes()[..6]);
    Duration::from_micros(u64::from_be_bytes(bytes))
}

/// Random bytes for bodies.
#[derive(Debug)]
pub(crate) struct Bodies(Bytes);

/// Random bytes that are made once; bodies are cut from them.
const POOL_BYTES: usize = 4 * 1024 * 1024;

impl Bodies {
    pub(crate) fn new() -> Option<Self> {
        let mut pool = vec![0; POOL_BYTES];
        getrandom::fill(&mut pool).ok()?;
        Some(Self(pool.into()))
    }

    /// A body. Different numbers give different places of the pool.
    pub(crate) fn cut(&self, bytes: usize, number: u64) -> Bytes {
        let bytes = bytes.min(POOL_BYTES / 2);
        let place = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
        let begin = usize::try_from(place).unwrap_or(0) % (POOL_BYTES - bytes);
        self.0.slice(begin..begin + bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_says_when_its_frame_was_planned_and_is_no_welcomes() {
        for planned_us in [0, 1, 999_999, 86_400_000_000, (1 << 48) - 1] {
            let id = frame_id(Duration::from_micros(planned_us), 4_095, u64::MAX);
            assert_eq!(planned(&id), Duration::from_micros(planned_us));
            assert!(!id.is_of_welcome());
        }
        let ids = [(0, 1), (0, 2), (1, 1), (1, 2)].map(|(part, sequence)| frame_id(Duration::ZERO, part, sequence));
        let distinct: std::collections::HashSet<_> = ids.into_iter().collect();
        assert_eq!(distinct.len(), 4);
    }
}
