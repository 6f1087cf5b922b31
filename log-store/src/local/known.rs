//! Knowledge of one log: its folded state, and the newest frame id it accepted.

use crate::{LogState, StateError};
use bytes::{BufMut as _, Bytes, BytesMut};
use skytale_proto::{FrameId, LogId};

/// Bytes before the state's own in [`Known::encode`].
const NEWEST_BYTES: usize = 16;

/// Knowledge of one log.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    pub(crate) state: LogState,
    /// No accepted frame id of the log is greater. Frame ids sort by the time they were made, so nearly every new frame
    /// is greater still, and cannot be a duplicate: no index needs to be asked.
    pub(crate) newest: FrameId,
}

impl Known {
    /// Makes the state of a log without entries.
    pub(crate) fn new(log: LogId) -> Self {
        Self {
            state: LogState::new(log),
            newest: FrameId::from_bytes([0; 16]),
        }
    }

    /// Takes an accepted frame's id into account.
    pub(crate) fn saw(&mut self, id: FrameId) {
        self.newest = self.newest.max(id);
    }

    /// Encodes it for the index and for segments: the newest frame id (16 bytes), then the state.
    pub(crate) fn encode(&self) -> Bytes {
        let state = self.state.encode();
        let mut out = BytesMut::with_capacity(NEWEST_BYTES + state.len());
        out.put_slice(self.newest.as_bytes());
        out.put_slice(&state);
        out.freeze()
    }

    /// Decodes [`Known::encode`]'s bytes, which must be of this log.
    pub(crate) fn decode(log: LogId, mut bytes: Bytes) -> Result<Self, StateError> {
        let newest = bytes.split_to(NEWEST_BYTES.min(bytes.len()));
        let state = LogState::decode(bytes)?;
        let newest = FrameId::try_from(newest.as_ref()).unwrap_or_else(|_| FrameId::from_bytes([0xff; 16]));
        if state.log() != log {
            return Err(StateError::Field {
                field: "log",
                problem: "another log than its place says",
            });
        }
        Ok(Self { state, newest })
    }
}
