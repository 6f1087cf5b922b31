//! A channel, as one of its members has it.

mod attached;
mod messages;
mod sent;

pub use messages::{Messages, Received};
pub use sent::{Delivered, Sent};

use crate::agent::AgentError;
use crate::agent::bus::{Delivery, Followed, settled};
use crate::agent::core::{Actor, Core};
use crate::engine::{
    ChannelInfo, ChannelState, ClaimedPackage, Divergence, EngineError, FailedSend, Fate, Keep, Message, Purged,
    Queued, UnreadableEntry,
};
use crate::net::RelayError;
use crate::net::relay::KeyPackages;
use bytes::Bytes;
use skytale_proto::{AgentId, ChannelId, Code, Digest, Frame, FrameId, Offset};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

/// Messages taken out of the history at once.
const PURGED_MAX: u32 = 256;
/// Between two attempts to claim, where the relay node did not say it.
const CLAIM_RETRY: Duration = Duration::from_millis(200);

/// A channel. Clones are the same channel.
#[derive(Clone, Debug)]
pub struct Channel {
    core: Arc<Core>,
    id: ChannelId,
    online_timeout: Duration,
}

impl Channel {
    pub(crate) const fn new(core: Arc<Core>, id: ChannelId, online_timeout: Duration) -> Self {
        Self {
            core,
            id,
            online_timeout,
        }
    }

    /// Its id.
    pub const fn id(&self) -> ChannelId {
        self.id
    }

    // ---- send

    /// Sends a message. It is in the outbox, durably, when this returns; it goes out in the order of the calls, now or
    /// when there is a session, also after a restart.
    pub async fn send(&self, payload: impl Into<Bytes>) -> Result<Sent, AgentError> {
        if let Some(owner) = self.core.owner() {
            return attached::first(owner.send(self.id, attached::octets(payload)).await);
        }
        let (channel, payload) = (self.id, payload.into());
        self.queue(move |actor| actor.engine.send(channel, &payload)).await
    }

    /// Sends several messages, in one transaction of the vault: all of them are in the outbox, or none.
    pub async fn send_many(&self, payloads: Vec<Bytes>) -> Result<Vec<Sent>, AgentError> {
        if let Some(owner) = self.core.owner() {
            return owner
                .send_many(self.id, payloads.into_iter().map(attached::octets).collect())
                .await;
        }
        let channel = self.id;
        let queued = self.core.try_call(move |actor| {
            let frame_ids = actor.engine.send_many(channel, &payloads)?;
            actor.bus.signals(channel).work.notify_one();
            let wait = |frame_id| Sent::new(channel, frame_id, actor.bus.wait_for(frame_id));
            Ok(frame_ids.into_iter().map(wait).collect())
        });
        queued.await
    }

    /// All that waits in the outbox, in the order in which it goes out: what it is, since when, how often a relay node has
    /// refused it and why. No more than [`EngineConfig::outbox_messages_max`](crate::engine::EngineConfig) messages.
    pub async fn outbox(&self) -> Result<Vec<Queued>, AgentError> {
        if let Some(owner) = self.core.owner() {
            return owner.outbox(self.id).await;
        }
        let channel = self.id;
        self.core.try_call(move |actor| actor.engine.outbox(channel)).await
    }

    /// Takes up again what was sent before, also before a restart, by its frame's id ([`Sent::frame_id`]). What has been
    /// delivered or has failed meanwhile ends at once. `None` where the vault no longer knows it: a change to the group that
    /// was made or not needed, a message that was purged, an id that is not of this channel, or not of something sent.
    pub async fn sent(&self, frame_id: FrameId) -> Result<Option<Sent>, AgentError> {
        if let Some(owner) = self.core.owner() {
            return Ok(owner.sent(self.id, frame_id).await?.pop());
        }
        let channel = self.id;
        let found = self.core.try_call(move |actor| {
            // On the engine's thread: nothing becomes of it between the look and the wait.
            let delivery = match actor.engine.fate(channel, frame_id)? {
                None => return Ok(None),
                Some(Fate::Waiting) => actor.bus.wait_for(frame_id),
                Some(Fate::Delivered(offset)) => settled(Delivery::Delivered(offset)),
                Some(Fate::Failed(code)) => settled(Delivery::Failed(code)),
            };
            Ok(Some(Sent::new(channel, frame_id, delivery)))
        });
        found.await
    }

    /// What was sent and will not be delivered.
    pub async fn failed(&self) -> Result<Vec<FailedSend>, AgentError> {
        if let Some(owner) = self.core.owner() {
            return owner.failed(self.id).await;
        }
        let channel = self.id;
        self.core.try_call(move |actor| actor.engine.failed(channel)).await
    }

    /// Forgets something that failed.
    pub async fn dismiss(&self, frame_id: FrameId) -> Result<(), AgentError> {
        if let Some(owner) = self.core.owner() {
            return owner.dismiss(self.id, frame_id).await;
        }
        let channel = self.id;
        self.core
            .try_call(move |actor| actor.engine.dismiss(channel, frame_id))
            .await
    }

    // ---- membership

    /// Adds agents: claims a KeyPackage of each that is no member yet, and commits. Needs a session; waits for one as long
    /// as the agent's configuration says. The commit itself waits in the outbox as a message does.
    pub async fn add(&self, agents: &[AgentId]) -> Result<Sent, AgentError> {
        if let Some(owner) = self.core.owner() {
            return attached::first(owner.add(self.id, agents.to_vec()).await);
        }
        let members = self.members().await?;
        let wanted: BTreeSet<AgentId> = agents
            .iter()
            .copied()
            .filter(|agent| !members.contains(agent))
            .collect();
        let mut packages = Vec::with_capacity(wanted.len());
        for agent in wanted {
            packages.push(self.claim(agent).await?);
        }
        let channel = self.id;
        self.queue(move |actor| actor.engine.add(channel, packages)).await
    }

    /// Removes agents. Those that are no members when the commit is built are left out.
    pub async fn remove(&self, agents: &[AgentId]) -> Result<Sent, AgentError> {
        if let Some(owner) = self.core.owner() {
            return attached::first(owner.remove(self.id, agents.to_vec()).await);
        }
        let (channel, agents) = (self.id, agents.to_vec());
        self.queue(move |actor| actor.engine.remove(channel, &agents)).await
    }

    /// Replaces this agent's own keys in the group: what was stolen before is of no use after (RFC 9420 section 16.6).
    pub async fn rotate(&self) -> Result<Sent, AgentError> {
        if let Some(owner) = self.core.owner() {
            return attached::first(owner.rotate(self.id).await);
        }
        let channel = self.id;
        self.queue(move |actor| actor.engine.update_keys(channel)).await
    }

    /// Leaves the channel: asks to be removed, which another member commits.
    pub async fn leave(&self) -> Result<Sent, AgentError> {
        if let Some(owner) = self.core.owner() {
            return attached::first(owner.leave(self.id).await);
        }
        let channel = self.id;
        self.queue(move |actor| actor.engine.leave(channel)).await
    }

    /// The agents in the group, by id. Empty for a channel that was left.
    pub async fn members(&self) -> Result<Vec<AgentId>, AgentError> {
        if let Some(owner) = self.core.owner() {
            return owner.members(self.id).await;
        }
        let channel = self.id;
        self.core.try_call(move |actor| actor.engine.members(channel)).await
    }

    // ---- receive

    /// Messages of other agents that were not acknowledged, oldest first, then new ones as they come. After a restart the
    /// unacknowledged ones come again. See [`Channel::ack`].
    pub fn messages(&self) -> Messages {
        Messages::new(Arc::clone(&self.core), self.id)
    }

    /// As [`Channel::messages`], for one reader of several, perhaps in another process: gives also what another reader
    /// acknowledges meanwhile. Starts after an offset; with `None` after the last message that is acknowledged now.
    pub async fn watch(&self, after: Option<Offset>) -> Result<Messages, AgentError> {
        let after = match after {
            Some(after) => after,
            None => self.acked().await?,
        };
        Ok(Messages::watching(Arc::clone(&self.core), self.id, after))
    }

    /// Messages of other agents after an offset that were not acknowledged, oldest first; at most `limit`. What is there
    /// now: it waits for nothing.
    pub async fn inbox(&self, after: Offset, limit: u32) -> Result<Vec<Message>, AgentError> {
        messages::unacked(&self.core, self.id, after, limit).await
    }

    /// For [`Channel::watch`]: messages of other agents after an offset, acknowledged or not.
    pub(crate) async fn received(&self, after: Offset, limit: u32) -> Result<Vec<Message>, AgentError> {
        messages::received(&self.core, self.id, after, limit).await
    }

    pub(crate) async fn acked(&self) -> Result<Offset, AgentError> {
        if let Some(owner) = self.core.owner() {
            return owner.acked(self.id).await;
        }
        let channel = self.id;
        self.core.try_call(move |actor| actor.engine.acked(channel)).await
    }

    /// The application has dealt with all messages up to and with `offset`: they are not shown again. Never goes back.
    pub async fn ack(&self, offset: Offset) -> Result<(), AgentError> {
        messages::ack(&self.core, self.id, offset).await
    }

    /// Messages of the channel, own ones too, after an offset, oldest first; at most `limit`.
    pub async fn history(&self, after: Offset, limit: u32) -> Result<Vec<Message>, AgentError> {
        if let Some(owner) = self.core.owner() {
            return attached::history(owner, self.id, after, limit).await;
        }
        let channel = self.id;
        self.core
            .try_call(move |actor| actor.engine.history(channel, after, limit))
            .await
    }

    /// Takes out of the history what is not to be kept, for good: it is overwritten in the vault, and the vault's file gets
    /// smaller. Messages of others that were not acknowledged stay, and what is behind them.
    pub async fn purge(&self, keep: Keep) -> Result<Purged, AgentError> {
        if let Some(owner) = self.core.owner() {
            return owner.purge(self.id, keep).await;
        }
        let channel = self.id;
        let before = self
            .core
            .try_call(move |actor| actor.engine.first_kept(channel, keep))
            .await?;
        let mut all = Purged {
            more: true,
            ..Purged::default()
        };
        // A piece at a time: other calls come in between.
        while all.more {
            let piece = self
                .core
                .try_call(move |actor| actor.engine.purge(channel, before, PURGED_MAX))
                .await?;
            all = Purged {
                messages: all.messages + piece.messages,
                bytes: all.bytes + piece.bytes,
                ..piece
            };
        }
        while self.core.try_call(|actor| actor.engine.compact()).await? {}
        Ok(all)
    }

    /// Entries that could not be processed, after an offset; at most `limit`.
    pub async fn unreadable(&self, after: Offset, limit: u32) -> Result<Vec<UnreadableEntry>, AgentError> {
        if let Some(owner) = self.core.owner() {
            return attached::unreadable(owner, self.id, after, limit).await;
        }
        let channel = self.id;
        self.core
            .try_call(move |actor| actor.engine.unreadable(Some(channel), after, limit))
            .await
    }

    /// Proofs that the relay showed this agent and another member different logs.
    pub async fn divergences(&self) -> Result<Vec<Divergence>, AgentError> {
        if let Some(owner) = self.core.owner() {
            return owner.divergences(self.id).await;
        }
        let channel = self.id;
        self.core.try_call(move |actor| actor.engine.divergences(channel)).await
    }

    // ---- where it stands

    /// What the vault knows of the channel: state, cursor, epoch, what waits.
    pub async fn info(&self) -> Result<ChannelInfo, AgentError> {
        if let Some(owner) = self.core.owner() {
            return owner.info(self.id).await;
        }
        let channel = self.id;
        self.core.try_call(move |actor| actor.engine.channel(channel)).await
    }

    /// The last entry processed.
    pub async fn cursor(&self) -> Result<Offset, AgentError> {
        if let Some(owner) = self.core.owner() {
            return owner.cursor(self.id).await;
        }
        let channel = self.id;
        self.core.try_call(move |actor| actor.engine.cursor(channel)).await
    }

    /// The cursor, and the channel digest there; `None` as long as no member has told this agent one since it joined.
    pub async fn digest(&self) -> Result<(Offset, Option<Digest>), AgentError> {
        if let Some(owner) = self.core.owner() {
            return owner.digest(self.id).await;
        }
        let channel = self.id;
        let both = self
            .core
            .try_call(move |actor| Ok((actor.engine.cursor(channel)?, actor.engine.digest(channel)?)));
        both.await
    }

    /// The group's epoch.
    pub async fn epoch(&self) -> Result<u64, AgentError> {
        if let Some(owner) = self.core.owner() {
            return owner.epoch(self.id).await;
        }
        let channel = self.id;
        self.core.try_call(move |actor| actor.engine.epoch(channel)).await
    }

    /// Gives the channel another label, or with an empty one none: at most
    /// [`LABEL_BYTES_MAX`](crate::engine::LABEL_BYTES_MAX) bytes without control characters, and no channel's id. It never
    /// leaves the vault.
    pub async fn relabel(&self, label: &str) -> Result<(), AgentError> {
        if let Some(owner) = self.core.owner() {
            return owner.relabel(self.id, label.to_owned()).await;
        }
        let (channel, label) = (self.id, label.to_owned());
        self.core
            .try_call(move |actor| actor.engine.relabel(channel, &label))
            .await
    }

    /// Waits until the channel was replayed to its head in the session that there is then, or as far as this agent may read
    /// where it has left. Does not end while the agent is offline, or while the channel is paused because its messages are
    /// not acknowledged.
    pub async fn caught_up(&self) -> Result<(), AgentError> {
        if let Some(owner) = self.core.owner() {
            return owner.caught_up(self.id).await;
        }
        if self.info().await?.state == ChannelState::Left {
            return Ok(());
        }
        let done = |followed| matches!(followed, Followed::Live | Followed::Left);
        self.core.bus.followed(self.id, done).await
    }

    /// Queues something on the engine's thread, wakes the channel's worker, and waits for what becomes of it.
    async fn queue<F>(&self, function: F) -> Result<Sent, AgentError>
    where
        F: FnOnce(&mut Actor) -> Result<FrameId, EngineError> + Send + 'static,
    {
        let channel = self.id;
        let queued = self.core.try_call(move |actor| {
            let frame_id = function(actor)?;
            actor.bus.signals(channel).work.notify_one();
            Ok(Sent::new(channel, frame_id, actor.bus.wait_for(frame_id)))
        });
        queued.await
    }

    /// Claims a KeyPackage. A claim whose answer was lost is made again with the very same frame, which takes the very
    /// same package.
    async fn claim(&self, agent: AgentId) -> Result<ClaimedPackage, AgentError> {
        let claim = self.core.try_call(move |actor| actor.engine.claim_frame(agent)).await?;
        let waited = self.online_timeout;
        match timeout(waited, self.claim_with(&claim)).await {
            Ok(frame) => Ok(ClaimedPackage {
                agent,
                frame: frame?.encoded().clone(),
            }),
            Err(_) => Err(AgentError::Offline { waited }),
        }
    }

    async fn claim_with(&self, claim: &Frame) -> Result<Frame, AgentError> {
        let deadline = Instant::now() + self.online_timeout;
        let mut sessions = self.core.bus.session.subscribe();
        loop {
            let session = match sessions.wait_for(Option::is_some).await {
                Ok(session) => session.clone(),
                Err(_) => return Err(AgentError::Closed),
            };
            let Some(session) = session else { continue };
            let claimed = match KeyPackages::open(&session).await {
                Ok(mut packages) => packages.claim(claim).await,
                Err(error) => Err(error),
            };
            match claimed {
                Ok(claimed) => return Ok(claimed.frame),
                // The same session may do it later, or the next one, where the relay node drains.
                Err(RelayError::Refused(refused)) if waits(refused.code()) => {
                    let pause = refused.retry_after.unwrap_or(CLAIM_RETRY);
                    if Instant::now() + pause >= deadline {
                        return Err(RelayError::Refused(refused).into());
                    }
                    tokio::select! {
                        () = sleep(pause) => {}
                        _ = sessions.changed() => {}
                    }
                }
                Err(error @ (RelayError::Lost { .. } | RelayError::Closed)) => {
                    tracing::debug!(%error, "claim not answered, trying again");
                    // Until the driver has noticed, too.
                    session.ended().await;
                    let _ = sessions.changed().await;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Whether a claim that was refused so is made again, as long as there is time: what passes by itself, or at another relay
/// node.
const fn waits(code: Code) -> bool {
    code.holds_log() && !matches!(code, Code::RelayInternal | Code::StoreStopped)
}
