//! What is done once: a message under an id of the application's; a channel that is forgotten.

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
    /// As [`Channel::send`], under an id of the application's, of at most
    /// [`SEND_ID_BYTES_MAX`](crate::engine::SEND_ID_BYTES_MAX) bytes: the same id sent again is the same message, also after a
    /// restart, and whatever became of it meanwhile. An id is remembered for 90 days, or until the channel is forgotten. One
    /// that was delivered and purged since ends as [`Delivered::Unneeded`](super::Delivered::Unneeded).
    ///
    /// Another payload under an id that was used is an error ([`Code::SendIdReused`]).
    pub async fn send_once(&self, send_id: &str, payload: impl Into<Bytes>) -> Result<Sent, AgentError> {
        self.send_message(Outgoing::new(payload).once(send_id)).await
    }

    /// As [`Channel::send`], with what can be said of a message: what it answers, its content type, an id of the
    /// application's, what is acknowledged with it.
    pub async fn send_message(&self, message: Outgoing) -> Result<Sent, AgentError> {
        send_message(&self.core, self.id, message).await
    }

    /// As [`Channel::send_message`]; where the outbox is full ([`Code::OutboxFull`]), waits until there is room instead. The way
    /// to send as fast as messages go out, and no faster. Of several that wait, any may come first.
    ///
    /// Cancel-safe: a call that is dropped has queued the message or not. It ends like other
    /// [waits](crate::agent::Agent#waits), and with [`Code::OutboxFull`] where the message is larger than the outbox.
    pub async fn send_when_room(&self, message: Outgoing) -> Result<Sent, AgentError> {
        let mut settled = self.core.bus.settled.subscribe();
        loop {
            // Marked before the attempt: what goes out during it wakes.
            settled.mark_unchanged();
            match self.send_message(message.clone()).await {
                Err(error) if error.code() == Code::OutboxFull => {
                    if self.info().await?.outbox == 0 {
                        return Err(error);
                    }
                }
                sent => return sent,
            }
            let changed = self.core.bus.wait(settled.changed()).await?;
            changed.map_err(|_| AgentError::Closed)?;
        }
    }

    /// Takes the channel out of the vault, with its history, also what was not read. For a channel that this agent has left;
    /// [`Code::NotLeft`] for another one. If a member adds this agent again, it is a new channel
    /// to it.
    pub async fn forget(&self) -> Result<(), AgentError> {
        if let Some(owner) = self.core.owner() {
            return owner.forget(self.id).await;
        }
        let channel = self.id;
        self.core.try_call(move |actor| actor.engine.forget(channel)).await?;
        while self.core.try_call(|actor| actor.engine.compact()).await? {}
        Ok(())
    }

    /// The first offset of the history that [`Channel::purge`] would keep: where the newest so many messages begin, say, or
    /// those of the last hour.
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
        // A paused worker may go on, too, where something was acknowledged.
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
