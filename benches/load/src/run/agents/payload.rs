//! Payload of a run's messages: its planned time, its author, its number among the author's, and random bytes.

use crate::frames::Bodies;
use bytes::Bytes;
use std::time::Duration;

/// The head, in bytes.
const HEAD_BYTES: usize = 20;
/// Bytes that MLS and padding add to a payload, about: it is that much shorter than the captured body.
const SEALED_BYTES: u32 = 160;

/// The head of a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) planned: Duration,
    pub(super) agent: u32,
    pub(super) number: u64,
}

impl Head {
    /// A payload whose ciphertext is about as long as a captured body.
    pub(super) fn payload(self, body_bytes: u32, bodies: &Bodies) -> Bytes {
        let length = body_bytes.saturating_sub(SEALED_BYTES) as usize;
        let length = length.clamp(HEAD_BYTES, skytale_sdk::PAYLOAD_BYTES_MAX);
        let mut payload = Vec::with_capacity(length);
        payload.extend_from_slice(
            &u64::try_from(self.planned.as_micros())
                .unwrap_or(u64::MAX)
                .to_le_bytes(),
        );
        payload.extend_from_slice(&self.agent.to_le_bytes());
        payload.extend_from_slice(&self.number.to_le_bytes());
        payload.extend_from_slice(&bodies.cut(length - HEAD_BYTES, self.number));
        payload.into()
    }

    /// `None` where it is no payload of a run.
    pub(super) fn of(payload: &[u8]) -> Option<Self> {
        let number = |from: usize| Some(u64::from_le_bytes(payload.get(from..from + 8)?.try_into().ok()?));
        Some(Self {
            planned: Duration::from_micros(number(0)?),
            agent: u32::from_le_bytes(payload.get(8..12)?.try_into().ok()?),
            number: number(12)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_says_what_it_is_at_any_length() {
        let bodies = Bodies::new().expect("random bytes");
        for body_bytes in [0, 100, 181, 4_096, 2_000_000] {
            let head = Head {
                planned: Duration::from_micros(77),
                agent: 3,
                number: u64::from(body_bytes),
            };
            let payload = head.payload(body_bytes, &bodies);
            assert_eq!(Head::of(&payload), Some(head));
        }
        assert_eq!(Head::of(b"short"), None);
    }
}
