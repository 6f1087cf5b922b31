//! Something that was sent, and what becomes of it.

use crate::agent::AgentError;
use crate::agent::bus::Delivery;
use skytale_proto::{ChannelId, FrameId, Offset};
use tokio::sync::oneshot;

/// Something that is in the outbox, durably. Dropping it takes nothing back, and neither does a restart: by its frame's id it
/// is taken up again ([`Channel::sent`](super::Channel::sent)).
#[derive(Debug)]
pub struct Sent {
    channel: ChannelId,
    frame_id: FrameId,
    delivery: oneshot::Receiver<Delivery>,
}

/// What became of something that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivered {
    /// It is in the log, and this agent has seen it there.
    At(Offset),
    /// A change to the group that others had made already: there was nothing left to do.
    Unneeded,
}

impl Delivered {
    /// Where it stands; `None` where it was not needed.
    pub const fn offset(self) -> Option<Offset> {
        match self {
            Self::At(offset) => Some(offset),
            Self::Unneeded => None,
        }
    }
}

impl Sent {
    pub(crate) const fn new(channel: ChannelId, frame_id: FrameId, delivery: oneshot::Receiver<Delivery>) -> Self {
        Self {
            channel,
            frame_id,
            delivery,
        }
    }

    /// The channel.
    pub const fn channel(&self) -> ChannelId {
        self.channel
    }

    /// Its frame's id, kept across retries and restarts. Events name it.
    pub const fn frame_id(&self) -> FrameId {
        self.frame_id
    }

    /// Waits until it is in the log, as long as that takes: offline, too. Ends with [`AgentError::Closed`] when the agent is
    /// closed before, or with [`AgentError::OwnerGone`]; it then goes out the next time.
    pub async fn delivered(self) -> Result<Delivered, AgentError> {
        match self.delivery.await {
            Ok(Delivery::Delivered(offset)) => Ok(Delivered::At(offset)),
            Ok(Delivery::Unneeded) => Ok(Delivered::Unneeded),
            Ok(Delivery::Failed(code)) => Err(AgentError::SendFailed {
                frame_id: self.frame_id,
                code,
            }),
            Ok(Delivery::Detached) => Err(AgentError::OwnerGone { unknown: false }),
            Err(_) => Err(AgentError::Closed),
        }
    }
}
