//! The channel digest: a hash chain over what a reader was shown.
//!
//! `d(0)` is BLAKE3 of the log id; `d(n) = BLAKE3(d(n-1) || n as u64 little-endian || BLAKE3(frame bytes))`.
//! Two readers whose digests differ at one offset were shown different logs.
//!
//! A Trim leaves the digest as it was: `d(n) = d(n-1)`. Trims are a relay's records, not an author's, and give up
//! themselves in turn; a reader that was away while a log got nothing else still has its digest.
//!
//! The frame goes in as its hash, so that a reader who does not know `d(n-1)` yet (an agent that has just joined)
//! keeps 32 bytes an entry, not the entry, until a member tells it.

use crate::{LogId, Offset};
use serde::{Deserialize, Serialize};
use std::fmt;

/// The digest of a log up to an offset. 32 bytes, BLAKE3.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of an empty log.
    pub fn genesis(log: &LogId) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"skytale channel digest 2");
        hasher.update(&log.to_bytes());
        Self(hasher.finalize().into())
    }

    /// The digest after one more entry: `frame` is the author's frame as it is in the log.
    #[must_use]
    pub fn next(&self, offset: Offset, frame: &[u8]) -> Self {
        self.next_hashed(offset, &Self::hash_frame(frame))
    }

    /// The digest after one more entry whose frame's hash is known.
    #[must_use]
    pub fn next_hashed(&self, offset: Offset, frame_hash: &[u8; 32]) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.0);
        hasher.update(&offset.get().to_le_bytes());
        hasher.update(frame_hash);
        Self(hasher.finalize().into())
    }

    /// BLAKE3 of a frame's bytes.
    pub fn hash_frame(frame: &[u8]) -> [u8; 32] {
        blake3::hash(frame).into()
    }

    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Makes it from 32 bytes that were a digest before.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}
