//! Requests and their first answer.

use super::messages::is_over;
use super::{Channel, Received, Sent};
use crate::agent::{AgentError, runtime};
use crate::engine::{EngineError, Outgoing, Requested, Searched};
use skytale_proto::{FrameId, Offset};
use std::pin::pin;
use std::time::Duration;

impl Channel {
    /// Sends a message, and waits for the first answer of another agent: a message whose
    /// [`reply_to`](crate::engine::Properties::reply_to) names it, which [`Received::reply`] sets. After `timeout`
    /// ([`Duration::MAX`] means no timeout) it fails with [`AgentError::NoReply`], which says whether the request is in
    /// the log.
    ///
    /// # Restarts
    /// With an id of the application ([`Outgoing::once`]), another call with the same id and payload resumes the
    /// request after a timeout, a crash or a restart. The request is sent once, and an answer that arrived meanwhile is
    /// returned at once. Without an id each call is a new request. A [purged](Channel::purge) answer is gone.
    ///
    /// # Acknowledgement
    /// The answer is a message of the channel like any other: [`Channel::messages`] yields it in its place, too, and
    /// this call acknowledges nothing.
    ///
    /// - A program that reads the channel's messages acknowledges the answer in that loop, which recognizes answers by
    ///   their `reply_to`.
    /// - A program that only makes requests calls [`Received::ack`] on the answer, which acknowledges all earlier
    ///   messages as well. With too many unacknowledged messages the channel pauses, and no answer arrives.
    ///
    /// Cancel-safe: a dropped call leaves the request in the outbox, or in the log.
    pub async fn request(&self, request: Outgoing, timeout: Duration) -> Result<Received, AgentError> {
        let sent = self.send_message(request).await?;
        match runtime::within(timeout, Box::pin(self.reply(&sent))).await? {
            Some(reply) => reply,
            None => Err(AgentError::NoReply {
                frame_id: sent.frame_id(),
                delivered: self.requested(sent.frame_id()).await?.delivered,
                waited: timeout,
            }),
        }
    }

    /// Waits, without a timeout, for the first answer to a sent message, as [`Channel::request`] does.
    pub async fn reply(&self, sent: &Sent) -> Result<Received, AgentError> {
        let request = sent.frame_id();
        let mut inbox = self.core.bus.signals(self.id).inbox.subscribe();
        let mut failed = pin!(async {
            match sent.delivered().await {
                Ok(_) => std::future::pending().await,
                Err(error) => error,
            }
        });
        let mut settlements = self.info().await?.settlements;
        let mut after = self.requested(request).await?.after;
        loop {
            // Mark before the look, so that messages that arrive during it wake this task.
            inbox.mark_unchanged();
            let found = self.reply_after(request, after).await?;
            if let Some(message) = found.reply {
                return Ok(Received::new(&self.core, self.id, message));
            }
            after = found.until;
            if found.more {
                continue;
            }
            tokio::select! {
                changed = self.core.bus.wait(inbox.changed()) => changed?.map_err(|_| AgentError::Closed)?,
                error = &mut failed => return Err(error),
            }
            // After a rollback of the log, offsets name other entries.
            let now = self.info().await?.settlements;
            if now != settlements {
                (settlements, after) = (now, Offset::ZERO);
            }
        }
    }

    pub(crate) async fn requested(&self, request: FrameId) -> Result<Requested, AgentError> {
        if let Some(owner) = self.core.owner() {
            return owner.requested(self.id, request).await;
        }
        let channel = self.id;
        self.core
            .try_call(move |actor| actor.engine.requested(channel, request))
            .await
    }

    pub(crate) async fn reply_after(&self, request: FrameId, after: Offset) -> Result<Searched, AgentError> {
        if let Some(owner) = self.core.owner() {
            return owner.reply_after(self.id, request, after).await;
        }
        let channel = self.id;
        let searched = self.core.try_call(move |actor| {
            let searched = actor.engine.reply_to(channel, request, after)?;
            if searched.reply.is_none() && !searched.more && is_over(actor, channel)? {
                return Err(EngineError::ChannelLeft { channel });
            }
            Ok(searched)
        });
        searched.await
    }
}
