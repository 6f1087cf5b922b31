//! Something that was sent, and what becomes of it.

use crate::agent::AgentError;
use crate::agent::bus::{Bus, Delivery};
use skytale_proto::{AgentId, ChannelId, FrameId, Offset};
use std::sync::Arc;
use tokio::sync::Mutex;
use tokio::sync::oneshot::{self, error::RecvError};

/// Something that is in the outbox, durably. Dropping it takes nothing back, and neither does a restart: by its frame's id it
/// is taken up again ([`Channel::sent`](super::Channel::sent)).
#[derive(Debug)]
pub struct Sent {
    channel: ChannelId,
    frame_id: FrameId,
    delivery: Mutex<Awaited>,
    bus: Arc<Bus>,
}

/// What is known of a delivery.
#[derive(Debug)]
enum Awaited {
    Pending(oneshot::Receiver<Delivery>),
    Known(Result<Delivery, RecvError>),
}

impl Awaited {
    async fn wait(&mut self) -> Result<Delivery, RecvError> {
        if let Self::Pending(delivery) = self {
            *self = Self::Known(delivery.await);
        }
        match self {
            Self::Known(known) => known.clone(),
            Self::Pending(delivery) => delivery.await,
        }
    }
}

/// What became of something that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Delivered {
    /// It is in the log, and this agent has seen it there.
    At(Offset),
    /// A change to the group that needed no entry: others had made it already, or the only member left.
    Unneeded,
}

/// What [`Channel::add_available`](super::Channel::add_available) did.
#[derive(Debug)]
#[must_use]
#[non_exhaustive]
pub struct Added {
    /// The commit that adds those who can be added; `None` where all are members already.
    pub sent: Option<Sent>,
    /// Who is not added, and why.
    pub refused: Vec<(AgentId, AgentError)>,
}

impl Delivered {
    /// Where it is; `None` where it was not needed.
    pub const fn offset(self) -> Option<Offset> {
        match self {
            Self::At(offset) => Some(offset),
            Self::Unneeded => None,
        }
    }
}

impl Sent {
    pub(crate) fn new(
        channel: ChannelId,
        frame_id: FrameId,
        delivery: oneshot::Receiver<Delivery>,
        bus: Arc<Bus>,
    ) -> Self {
        Self {
            channel,
            frame_id,
            delivery: Mutex::new(Awaited::Pending(delivery)),
            bus,
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

    /// Waits until it is in the log, as long as that takes: offline, too. Ends with the reason where it
    /// [cannot come there](crate::agent::Agent#waits), [`AgentError::Closed`] when the agent is closed, say, or
    /// [`AgentError::OwnerGone`]: it stays in the outbox and goes out the next time, unless the error is
    /// [`AgentError::SendFailed`].
    pub async fn delivered(&self) -> Result<Delivered, AgentError> {
        let known = async { self.delivery.lock().await.wait().await };
        fate(self.frame_id, self.bus.wait(known).await?)
    }

    /// Waits until it is known what becomes of it, whether or not that needs a session that cannot be had now.
    pub(crate) async fn settled(self) -> Result<Delivered, AgentError> {
        fate(self.frame_id, self.delivery.into_inner().wait().await)
    }
}

fn fate(frame_id: FrameId, delivery: Result<Delivery, RecvError>) -> Result<Delivered, AgentError> {
    match delivery {
        Ok(Delivery::Delivered(offset)) => Ok(Delivered::At(offset)),
        Ok(Delivery::Unneeded) => Ok(Delivered::Unneeded),
        Ok(Delivery::Failed(code)) => Err(AgentError::SendFailed { frame_id, code }),
        Ok(Delivery::Detached) => Err(AgentError::OwnerGone { unknown: false }),
        Err(_) => Err(AgentError::Closed),
    }
}
