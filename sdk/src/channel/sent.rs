//! Handles of sent messages and changes, and their outcome.

use crate::agent::AgentError;
use crate::agent::bus::{Bus, Delivery};
use skytale_proto::{AgentId, ChannelId, FrameId, Offset};
use std::sync::Arc;
use tokio::sync::Mutex;
use tokio::sync::oneshot::{self, error::RecvError};

/// Handle of a message or change that is durable in the outbox. Neither dropping it nor a restart withdraws it;
/// [`Channel::sent`](super::Channel::sent) returns the handle again by its frame id.
#[derive(Debug)]
pub struct Sent {
    channel: ChannelId,
    frame_id: FrameId,
    delivery: Mutex<Awaited>,
    bus: Arc<Bus>,
}

/// State of a delivery.
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

/// Outcome of a sent message or change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Delivered {
    /// In the log, at this offset; this agent has seen it there.
    At(Offset),
    /// A change to the group that needed no entry: others had already made it, or the only member left.
    Unneeded,
}

/// Result of [`Channel::add_available`](super::Channel::add_available).
#[derive(Debug)]
#[must_use]
#[non_exhaustive]
pub struct Added {
    /// The commit that adds the available agents; `None` if all are already members.
    pub sent: Option<Sent>,
    /// Agents that were not added, each with the reason.
    pub refused: Vec<(AgentId, AgentError)>,
}

impl Delivered {
    /// Returns its offset in the log; `None` if it was not needed.
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

    /// Returns the channel.
    pub const fn channel(&self) -> ChannelId {
        self.channel
    }

    /// Returns its frame id, which stays the same across retries and restarts. Events name it.
    pub const fn frame_id(&self) -> FrameId {
        self.frame_id
    }

    /// Waits, without a timeout and also offline, until it is in the log. Fails with the reason if it [cannot get
    /// there](crate::agent::Agent#waits): [`AgentError::Closed`] or [`AgentError::OwnerGone`], for example. Unless the
    /// error is [`AgentError::SendFailed`], it stays in the outbox and goes out in the next run.
    pub async fn delivered(&self) -> Result<Delivered, AgentError> {
        let known = async { self.delivery.lock().await.wait().await };
        fate(self.frame_id, self.bus.wait(known).await?)
    }

    /// Waits until its outcome is known, even if that needs a session that is unavailable now.
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
