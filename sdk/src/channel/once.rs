//! Sending under an id of the application, sending with backpressure, and forgetting a channel.

use super::attached;
use super::{Channel, Sent};
use crate::agent::AgentError;
use crate::agent::bus::{Delivery, settled};
use crate::agent::core::Core;
use crate::engine::{Fate, Keep, Outgoing};
use bytes::Bytes;
use skytale_proto::{ChannelId, Code, Offset};
use std::sync::Arc;

impl Channel {
    /// Like [`Channel::send`], under an id of the application (an idempotency key) of at most
    /// [`SEND_ID_BYTES_MAX`](crate::engine::SEND_ID_BYTES_MAX) bytes. Sending the same id again refers to the same
    /// message, even after a restart, and whatever its outcome. An id is remembered for 90 days, or until the channel
    /// is forgotten. A message that was delivered and then purged resolves as
    /// [`Delivered::Unneeded`](super::Delivered::Unneeded).
    ///
    /// A different payload under a used id is an error ([`Code::SendIdReused`]).
    pub async fn send_once(&self, send_id: &str, payload: impl Into<Bytes>) -> Result<Sent, AgentError> {
        self.send_message(Outgoing::new(payload).once(send_id)).await
    }

    /// Like [`Channel::send`], with options: the message that it answers, a content type, an id of the application, and
    /// a message to acknowledge with it.
    pub async fn send_message(&self, message: Outgoing) -> Result<Sent, AgentError> {
        send_message(&self.core, self.id, message).await
    }

    /// Like [`Channel::send_message`], with backpressure: if the outbox is full ([`Code::OutboxFull`]), waits until
    /// there is room. Concurrent calls proceed in any order.
    ///
    /// Cancel-safe: a dropped call has queued the message or not. It fails like other
    /// [waits](crate::agent::Agent#waits), and with [`Code::OutboxFull`] if the message is larger than the outbox.
    pub async fn send_when_room(&self, message: Outgoing) -> Result<Sent, AgentError> {
        let mut settled = self.core.bus.settled.subscribe();
        let mut was_empty = false;
        loop {
            // Mark before the attempt, so that messages sent during it wake this task.
            settled.mark_unchanged();
            match self.send_message(message.clone()).await {
                Err(error) if error.code() == Code::OutboxFull => {
                    // It may have emptied since the refusal. A message refused twice by an empty outbox never fits.
                    if self.info().await?.outbox == 0 {
                        if was_empty {
                            return Err(error);
                        }
                        was_empty = true;
                        continue;
                    }
                    was_empty = false;
                }
                sent => return sent,
            }
            let changed = self.core.bus.wait(settled.changed()).await?;
            changed.map_err(|_| AgentError::Closed)?;
        }
    }

    /// Deletes the channel from the vault with its history, including unread messages. Works only for a channel that
    /// this agent has left; otherwise it fails with [`Code::NotLeft`]. If a member adds this agent again, the channel
    /// is a new one to it.
    pub async fn forget(&self) -> Result<(), AgentError> {
        if let Some(owner) = self.core.owner() {
            return owner.forget(self.id).await;
        }
        let channel = self.id;
        self.core.try_call(move |actor| actor.engine.forget(channel)).await?;
        while self.core.try_call(|actor| actor.engine.compact()).await? {}
        Ok(())
    }

    /// Returns the first offset of the history that [`Channel::purge`] would keep: the start of the newest messages or
    /// of the last hour, for example.
    pub async fn first_kept(&self, keep: Keep) -> Result<Offset, AgentError> {
        if let Some(owner) = self.core.owner() {
            return owner.first_kept(self.id, keep).await;
        }
        let channel = self.id;
        self.core
            .try_call(move |actor| actor.engine.first_kept(channel, keep))
            .await
    }
}

pub(super) async fn send_message(core: &Core, channel: ChannelId, message: Outgoing) -> Result<Sent, AgentError> {
    if let Some(owner) = core.owner() {
        return attached::first(owner.send_message(channel, message).await);
    }
    let queued = core.try_call(move |actor| {
        let frame_id = actor.engine.send_message(channel, &message)?;
        // If messages were acknowledged, a paused worker may resume, too.
        actor.bus.signals(channel).work.notify_one();
        let delivery = match actor.engine.fate(channel, frame_id)? {
            Some(Fate::Waiting) => actor.bus.wait_for(frame_id),
            Some(Fate::Delivered(offset)) => settled(Delivery::Delivered(offset)),
            Some(Fate::Failed(code)) => settled(Delivery::Failed(code)),
            None => settled(Delivery::Unneeded),
        };
        Ok(Sent::new(channel, frame_id, delivery, Arc::clone(&actor.bus)))
    });
    queued.await
}
