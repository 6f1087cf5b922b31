//! The log as seen by a commit's author: an offset, and the channel digest there.
//!
//! It is the additional authenticated data of the commit's message (RFC 9420 section 6.3.1). It is in clear, so that a
//! member that was shown another log can compare even if it cannot decrypt the commit. It is signed, so that nobody can
//! change it for members that can. A relay node learns nothing: it has the log.

use openmls::prelude::ProtocolMessage;
use skytale_proto::{Digest, Offset};

const OFFSET_BYTES: usize = 8;
const DIGEST_BYTES: usize = 32;

/// An offset, and the channel digest there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) offset: Offset,
    pub(crate) digest: Digest,
}

impl Seen {
    pub(crate) fn to_aad(self) -> Vec<u8> {
        let mut aad = Vec::with_capacity(OFFSET_BYTES + DIGEST_BYTES);
        aad.extend_from_slice(&self.offset.get().to_be_bytes());
        aad.extend_from_slice(self.digest.as_bytes());
        aad
    }

    /// Reads it from an encrypted message, unverified; `None` if there is none.
    pub(crate) fn of(message: &ProtocolMessage) -> Option<Self> {
        match message {
            ProtocolMessage::PrivateMessage(message) => Self::from_aad(message.aad()),
            ProtocolMessage::PublicMessage(_) => None,
        }
    }

    fn from_aad(aad: &[u8]) -> Option<Self> {
        let (offset, digest) = aad.split_first_chunk::<OFFSET_BYTES>()?;
        Some(Self {
            offset: Offset::new(u64::from_be_bytes(*offset)),
            digest: Digest::from_bytes(<[u8; DIGEST_BYTES]>::try_from(digest).ok()?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_read_and_other_bytes_say_nothing() {
        let seen = Seen {
            offset: Offset::new(258),
            digest: Digest::from_bytes([7; 32]),
        };
        let aad = seen.to_aad();
        assert_eq!(Seen::from_aad(&aad), Some(seen));
        for length in (0..aad.len()).chain([aad.len() + 1]) {
            let mut other = aad.clone();
            other.resize(length, 0);
            assert_eq!(Seen::from_aad(&other), None);
        }
    }
}
