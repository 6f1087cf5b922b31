//! A request, and the first answer to it.

use super::messages::is_over;
use super::{Channel, Received, Sent};
use crate::agent::{AgentError, runtime};
use crate::engine::{EngineError, Outgoing, Requested, Searched};
use skytale_proto::{FrameId, Offset};
use std::pin::pin;
use std::time::Duration;

impl Channel {
    /// Sends a message, and waits for the first one of another agent that answers it: one whose
    /// [`reply_to`](crate::engine::Properties::reply_to) names it, as [`Received::reply`] says. As long as `timeout` at most
    /// ([`Duration::MAX`] is for ever): then [`AgentError::NoReply`] says whether the request is in the log.
    ///
    /// # Restarts
    /// A request with an id of the application's ([`Outgoing::once`]) is taken up again by another call with the same id and
    /// payload, after a timeout, a crash or a restart: it is sent once, and an answer that came meanwhile is given at
    /// once. Without an id each call is another request. An answer that was [purged](Channel::purge) is gone.
    ///
    /// # Acknowledgement
    /// The answer is a message of the channel like any other: [`Channel::messages`] gives it in its place, too, and this call
    /// acknowledges nothing. So it is acknowledged once, by whoever reads the channel's messages. A program that reads
    /// them leaves it to that loop, which can tell answers by their `reply_to`. One that only makes requests calls
    /// [`Received::ack`] on the answer, which acknowledges all before it as well; a channel pauses where too many messages
    /// are not acknowledged, and then no answer comes either.
    ///
    /// Cancel-safe: a call that is dropped leaves the request in the outbox, or in the log.
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

    /// Waits for the first answer to something that was sent, as [`Channel::request`] does; for as long as that takes.
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
            // Marked before the look: what comes during it wakes.
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
            // Offsets mean other entries after a log went back.
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
