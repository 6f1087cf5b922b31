//! A channel, from the point of view of one member.

mod attached;
mod claims;
mod messages;
mod once;
mod request;
mod roles;
mod sent;

pub use messages::{Messages, Received};
pub use sent::{Added, Delivered, Sent};

use self::messages::is_over;
use crate::agent::AgentError;
use crate::agent::bus::{Delivery, Followed, settled};
use crate::agent::core::{Actor, Core};
use crate::engine::{
    ChannelInfo, ChannelState, ClaimedPackage, DeferredAdd, Divergence, EngineError, FailedSend, Fate, Keep, Lost,
    Message, Problem, Purged, Queued, UnreadableEntry,
};
use bytes::Bytes;
use skytale_proto::{AgentId, ChannelId, Code, Digest, FrameId, Offset};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// Most messages removed from the history per transaction.
const PURGED_MAX: u32 = 256;

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

    /// Returns the channel's id.
    pub const fn id(&self) -> ChannelId {
        self.id
    }

    // ---- send

    /// Sends a message. It is durable in the outbox when this returns. Messages go out in the order of the calls, as
    /// soon as there is a session, even after a restart.
    pub async fn send(&self, payload: impl Into<Bytes>) -> Result<Sent, AgentError> {
        if let Some(owner) = self.core.owner() {
            return attached::first(owner.send(self.id, attached::octets(payload)).await);
        }
        let (channel, payload) = (self.id, payload.into());
        self.queue(move |actor| actor.engine.send(channel, &payload)).await
    }

    /// Sends several messages in one transaction of the vault: all of them are queued, or none.
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
            let wait = |frame_id| {
                let delivery = actor.bus.wait_for(frame_id);
                Sent::new(channel, frame_id, delivery, Arc::clone(&actor.bus))
            };
            Ok(frame_ids.into_iter().map(wait).collect())
        });
        queued.await
    }

    /// Lists the outbox, in sending order. Each item has its kind, the time when it was queued, and the number of
    /// refusals by relay nodes with the last reason. Messages also have their payload and properties. The list is
    /// bounded by [`EngineConfig::outbox_messages_max`](crate::engine::EngineConfig::outbox_messages_max) messages and
    /// [`EngineConfig::outbox_bytes_max`](crate::engine::EngineConfig::outbox_bytes_max) bytes of payload.
    pub async fn outbox(&self) -> Result<Vec<Queued>, AgentError> {
        if let Some(owner) = self.core.owner() {
            return attached::outbox(owner, self.id).await;
        }
        let channel = self.id;
        self.core.try_call(move |actor| actor.engine.outbox(channel)).await
    }

    /// Returns a page of [`Channel::outbox`] for an attached process.
    pub(crate) async fn outbox_page(
        &self,
        from: i64,
        bytes_max: u64,
    ) -> Result<(Vec<Queued>, Option<i64>), AgentError> {
        let channel = self.id;
        self.core
            .try_call(move |actor| actor.engine.outbox_page(channel, from, bytes_max))
            .await
    }

    /// Returns the handle of something sent earlier, even before a restart, by its frame id ([`Sent::frame_id`]). If it
    /// was delivered or has failed meanwhile, the handle resolves at once.
    ///
    /// Returns `None` if the vault does not know the id: a change to the group that was made or not needed, a purged
    /// message, another channel's id, or an id that was never sent.
    pub async fn sent(&self, frame_id: FrameId) -> Result<Option<Sent>, AgentError> {
        if let Some(owner) = self.core.owner() {
            return Ok(owner.sent(self.id, frame_id).await?.pop());
        }
        let channel = self.id;
        let found = self.core.try_call(move |actor| {
            // On the engine's thread: its state cannot change between the look and the wait.
            let delivery = match actor.engine.fate(channel, frame_id)? {
                None => return Ok(None),
                Some(Fate::Waiting) => actor.bus.wait_for(frame_id),
                Some(Fate::Delivered(offset)) => settled(Delivery::Delivered(offset)),
                Some(Fate::Failed(code)) => settled(Delivery::Failed(code)),
            };
            Ok(Some(Sent::new(channel, frame_id, delivery, Arc::clone(&actor.bus))))
        });
        found.await
    }

    /// Lists the failed sends: messages and changes that will not be delivered.
    pub async fn failed(&self) -> Result<Vec<FailedSend>, AgentError> {
        if let Some(owner) = self.core.owner() {
            return owner.failed(self.id).await;
        }
        let channel = self.id;
        self.core.try_call(move |actor| actor.engine.failed(channel)).await
    }

    /// Removes a failed send from the list. Returns whether it was there.
    pub async fn dismiss(&self, frame_id: FrameId) -> Result<bool, AgentError> {
        if let Some(owner) = self.core.owner() {
            return owner.dismiss(self.id, frame_id).await;
        }
        let channel = self.id;
        self.core
            .try_call(move |actor| actor.engine.dismiss(channel, frame_id))
            .await
    }

    /// Sends a failed message again, behind the queued ones, and removes the failure. The message gets a new frame id.
    /// Returns `None` if there is no such failure. Fails for a change to the group, and for a channel that accepts no
    /// more messages.
    pub async fn retry(&self, frame_id: FrameId) -> Result<Option<Sent>, AgentError> {
        if let Some(owner) = self.core.owner() {
            return Ok(owner.retry(self.id, frame_id).await?.pop());
        }
        let channel = self.id;
        let queued = self.core.try_call(move |actor| {
            let Some(again) = actor.engine.retry(channel, frame_id)? else {
                return Ok(None);
            };
            actor.bus.signals(channel).work.notify_one();
            Ok(Some(Sent::new(
                channel,
                again,
                actor.bus.wait_for(again),
                Arc::clone(&actor.bus),
            )))
        });
        queued.await
    }

    // ---- membership

    /// Adds agents, all of them or none: claims a KeyPackage of each agent that is not a member yet, and commits. Needs
    /// a session, and waits for one up to [`DriverConfig::online_timeout`](crate::DriverConfig::online_timeout). The
    /// commit itself waits in the outbox like a message.
    ///
    /// Fails with [`AgentError::NotAdded`] at the first agent without a usable KeyPackage. [`Channel::add_available`]
    /// still adds the others.
    pub async fn add(&self, agents: &[AgentId]) -> Result<Sent, AgentError> {
        if let Some(owner) = self.core.owner() {
            return attached::first(owner.add(self.id, agents.to_vec()).await);
        }
        let mut packages = Vec::new();
        for agent in self.not_members(agents).await? {
            packages.push(self.claim(agent).await.map_err(|error| error.of(agent))?);
        }
        self.add_claimed(packages).await
    }

    /// Adds agents whose KeyPackages were claimed.
    pub(crate) async fn add_claimed(&self, packages: Vec<ClaimedPackage>) -> Result<Sent, AgentError> {
        if let Some(owner) = self.core.owner() {
            return attached::first(owner.add_claimed(self.id, packages).await);
        }
        let channel = self.id;
        self.queue(move |actor| actor.engine.add(channel, packages)).await
    }

    /// Like [`Channel::claim`], in whichever process has the vault open.
    async fn claim_anywhere(&self, agent: AgentId) -> Result<ClaimedPackage, AgentError> {
        match self.core.owner() {
            Some(owner) => owner.claim(self.id, agent).await,
            None => self.claim(agent).await,
        }
    }

    /// Adds all agents that can be added, in one commit, and returns the reason for each of the others. Like
    /// [`Channel::add`], it skips members and needs a session.
    ///
    /// Fails with [`AgentError::NobodyAdded`] if none can be added. Fails at once if the cause lies in this agent: its
    /// vault, or that it is closed.
    pub async fn add_available(&self, agents: &[AgentId]) -> Result<Added, AgentError> {
        let (mut packages, mut refused) = (Vec::new(), Vec::new());
        let mut offline = None;
        for agent in self.not_members(agents).await? {
            let claimed = match offline {
                // One wait for a session is enough.
                Some(waited) => Err(AgentError::Offline { waited }),
                None => self.claim_anywhere(agent).await,
            };
            match claimed {
                Ok(package) => packages.push(package),
                Err(error) if error.is_own() => return Err(error),
                Err(error) => {
                    offline = match error {
                        AgentError::Offline { waited } => Some(waited),
                        // The settings of the process that has the vault open apply.
                        AgentError::Owner {
                            code: Code::Offline, ..
                        } => Some(self.online_timeout),
                        _ => None,
                    };
                    refused.push((agent, error));
                }
            }
        }
        if packages.is_empty() {
            return match refused.is_empty() {
                true => Ok(Added { sent: None, refused }),
                false => Err(AgentError::NobodyAdded { refused }),
            };
        }
        let sent = self.add_claimed(packages).await?;
        Ok(Added {
            sent: Some(sent),
            refused,
        })
    }

    /// Adds agents once they have KeyPackages on offer. Durable when this returns. The additions are tried whenever
    /// this agent is online, until they succeed, are cancelled, or this agent has left. Events report the outcome of
    /// the commit.
    pub async fn add_later(&self, agents: &[AgentId]) -> Result<(), AgentError> {
        if let Some(owner) = self.core.owner() {
            return owner.add_later(self.id, agents.to_vec()).await;
        }
        let (channel, agents) = (self.id, agents.to_vec());
        let kept = self.core.try_call(move |actor| {
            actor.engine.add_later(channel, &agents)?;
            actor.bus.deferred_changed.notify_one();
            Ok(())
        });
        kept.await
    }

    /// Part of [`Channel::ensure_members`], which is next to the other calls for a program's start.
    pub(crate) async fn add_before(&self, agents: &[AgentId]) -> Result<(), AgentError> {
        if let Some(owner) = self.core.owner() {
            return owner.ensure_members(self.id, agents.to_vec()).await;
        }
        let (channel, agents) = (self.id, agents.to_vec());
        let kept = self.core.try_call(move |actor| {
            actor.engine.ensure_members(channel, &agents)?;
            actor.bus.deferred_changed.notify_one();
            Ok(())
        });
        kept.await
    }

    /// Lists the additions that wait for their agents.
    pub async fn deferred_adds(&self) -> Result<Vec<DeferredAdd>, AgentError> {
        if let Some(owner) = self.core.owner() {
            return owner.deferred_adds(self.id).await;
        }
        let channel = self.id;
        self.core
            .try_call(move |actor| actor.engine.deferred_adds(channel))
            .await
    }

    /// Cancels the additions that wait for these agents. Returns how many there were.
    pub async fn cancel_add(&self, agents: &[AgentId]) -> Result<usize, AgentError> {
        if let Some(owner) = self.core.owner() {
            return owner.cancel_add(self.id, agents.to_vec()).await;
        }
        let (channel, agents) = (self.id, agents.to_vec());
        let cancelled = self.core.try_call(move |actor| {
            let cancelled = actor.engine.cancel_add(channel, &agents)?;
            // Messages that waited for them go out.
            actor.bus.signals(channel).work.notify_one();
            Ok(cancelled)
        });
        cancelled.await
    }

    async fn not_members(&self, agents: &[AgentId]) -> Result<BTreeSet<AgentId>, AgentError> {
        let members = self.members().await?;
        let agents = agents.iter().copied();
        Ok(agents.filter(|agent| !members.contains(agent)).collect())
    }

    /// Removes agents. Agents that are not members when the commit is built are skipped; additions that wait for these
    /// agents are cancelled.
    pub async fn remove(&self, agents: &[AgentId]) -> Result<Sent, AgentError> {
        if let Some(owner) = self.core.owner() {
            return attached::first(owner.remove(self.id, agents.to_vec()).await);
        }
        let (channel, agents) = (self.id, agents.to_vec());
        self.queue(move |actor| actor.engine.remove(channel, &agents)).await
    }

    /// Replaces this agent's keys in the group: keys stolen before are useless afterwards (RFC 9420 section 16.6).
    pub async fn rotate(&self) -> Result<Sent, AgentError> {
        if let Some(owner) = self.core.owner() {
            return attached::first(owner.rotate(self.id).await);
        }
        let channel = self.id;
        self.queue(move |actor| actor.engine.update_keys(channel)).await
    }

    /// Leaves the channel: asks to be removed, which another member commits. The only member leaves at once, even
    /// offline; that resolves as [`Delivered::Unneeded`].
    pub async fn leave(&self) -> Result<Sent, AgentError> {
        if let Some(owner) = self.core.owner() {
            return attached::first(owner.leave(self.id).await);
        }
        let channel = self.id;
        let queued = self.core.try_call(move |actor| {
            let frame_id = actor.engine.leave(channel)?;
            let sent = Sent::new(channel, frame_id, actor.bus.wait_for(frame_id), Arc::clone(&actor.bus));
            let events = actor.engine.leave_alone(channel)?;
            actor.bus.tell_all(events);
            actor.bus.signals(channel).work.notify_one();
            Ok(sent)
        });
        queued.await
    }

    /// Lists the agents in the group, by id. Empty for a channel that was left.
    pub async fn members(&self) -> Result<Vec<AgentId>, AgentError> {
        if let Some(owner) = self.core.owner() {
            return owner.members(self.id).await;
        }
        let channel = self.id;
        self.core.try_call(move |actor| actor.engine.members(channel)).await
    }

    // ---- receive

    /// Streams messages of other agents: first the unacknowledged ones, oldest first, then new ones as they arrive.
    /// Unacknowledged messages come again after a restart. See [`Channel::ack`].
    pub fn messages(&self) -> Messages {
        Messages::new(Arc::clone(&self.core), self.id)
    }

    /// Like [`Channel::messages`], for one of several readers, possibly in other processes: also yields messages that
    /// another reader acknowledges meanwhile. Starts after an offset, or with `None` after the last acknowledged
    /// message.
    pub async fn watch(&self, after: Option<Offset>) -> Result<Messages, AgentError> {
        let after = match after {
            Some(after) => after,
            None => self.acked().await?,
        };
        Ok(Messages::watching(Arc::clone(&self.core), self.id, after))
    }

    /// Returns unacknowledged messages of other agents after an offset, oldest first; at most `limit`. Does not wait
    /// for new ones.
    pub async fn inbox(&self, after: Offset, limit: u32) -> Result<Vec<Message>, AgentError> {
        if let Some(owner) = self.core.owner() {
            return attached::inbox(owner, self.id, after, limit).await;
        }
        let channel = self.id;
        self.core
            .try_call(move |actor| actor.engine.inbox(channel, after, limit))
            .await
    }

    /// Returns unacknowledged messages after an offset, for [`Messages`].
    pub(crate) async fn unacked(&self, after: Offset, limit: u32) -> Result<Vec<Message>, AgentError> {
        messages::unacked(&self.core, self.id, after, limit).await
    }

    /// Returns messages of other agents after an offset, acknowledged or not, for [`Channel::watch`].
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

    /// Acknowledges all messages up to and including `offset`: they are not delivered again. The position never moves
    /// back.
    ///
    /// After a settled rollback ([`Event::Settled`](crate::event::Event::Settled)), offsets name other entries than
    /// before. [`Channel::ack_message`] always means the message that was received.
    pub async fn ack(&self, offset: Offset) -> Result<(), AgentError> {
        self.acknowledge(offset, None).await
    }

    /// Acknowledges a message and all earlier ones.
    pub async fn ack_message(&self, message: &Message) -> Result<(), AgentError> {
        self.acknowledge(message.offset, Some(message.frame_id)).await
    }

    pub(crate) async fn acknowledge(&self, offset: Offset, frame_id: Option<FrameId>) -> Result<(), AgentError> {
        messages::ack(&self.core, self.id, offset, frame_id).await
    }

    /// Returns messages that this agent had received before the log went back, and that the log no longer has, with
    /// their former offsets. Their authors send them again when they reconnect. At most `limit`.
    pub async fn replaced(&self, limit: u32) -> Result<Vec<Message>, AgentError> {
        if let Some(owner) = self.core.owner() {
            return owner.replaced(self.id, limit).await;
        }
        let channel = self.id;
        self.core
            .try_call(move |actor| actor.engine.replaced(channel, limit))
            .await
    }

    /// Returns messages of the channel, including this agent's own, after an offset, oldest first; at most `limit`.
    pub async fn history(&self, after: Offset, limit: u32) -> Result<Vec<Message>, AgentError> {
        if let Some(owner) = self.core.owner() {
            return attached::history(owner, self.id, after, limit).await;
        }
        let channel = self.id;
        self.core
            .try_call(move |actor| actor.engine.history(channel, after, limit))
            .await
    }

    /// Deletes the history except for `keep`. Deleted messages are overwritten in the vault, and the vault's file
    /// shrinks. Unacknowledged messages of others and everything after them stay.
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
        // One piece at a time, so that other calls get their turn.
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

    /// Returns entries that could not be processed, after an offset; at most `limit`.
    pub async fn unreadable(&self, after: Offset, limit: u32) -> Result<Vec<UnreadableEntry>, AgentError> {
        if let Some(owner) = self.core.owner() {
            return attached::unreadable(owner, self.id, after, limit).await;
        }
        let channel = self.id;
        self.core
            .try_call(move |actor| actor.engine.unreadable(Some(channel), after, limit))
            .await
    }

    /// Returns the entries that this agent will never read, and why: the log no longer had them, or the agent was out
    /// of sync with the group.
    pub async fn lost(&self) -> Result<Vec<Lost>, AgentError> {
        if let Some(owner) = self.core.owner() {
            return owner.lost(self.id).await;
        }
        let channel = self.id;
        self.core.try_call(move |actor| actor.engine.lost(Some(channel))).await
    }

    /// Recreates the group with all members that have usable KeyPackages: the recovery if no member can continue. Those
    /// members move over without a request; the others ask to be added again. If two members do it at once, the first
    /// wins. Needs a session.
    ///
    /// If all members are out of sync, they do it automatically.
    pub async fn reboot(&self) -> Result<Sent, AgentError> {
        if let Some(owner) = self.core.owner() {
            return attached::first(owner.reboot(self.id).await);
        }
        let channel = self.id;
        let wanted = self
            .core
            .try_call(move |actor| actor.engine.reboot_wants(channel))
            .await?;
        let mut packages = Vec::with_capacity(wanted.len());
        for agent in wanted {
            match self.claim(agent).await {
                Ok(package) => packages.push(package),
                Err(error) => tracing::debug!(%agent, %error, "a member is not taken over by the new group"),
            }
        }
        self.queue(move |actor| actor.engine.reboot(channel, packages)).await
    }

    /// Returns proofs that the relay showed this agent and another member different logs.
    pub async fn divergences(&self) -> Result<Vec<Divergence>, AgentError> {
        if let Some(owner) = self.core.owner() {
            return owner.divergences(self.id).await;
        }
        let channel = self.id;
        self.core.try_call(move |actor| actor.engine.divergences(channel)).await
    }

    /// Lists the channel's problems, most severe first, each with its remedy: divergences, being out of sync, lost
    /// entries, unreadable entries, failed sends.
    pub async fn problems(&self) -> Result<Vec<Problem>, AgentError> {
        if let Some(owner) = self.core.owner() {
            return owner.problems(self.id).await;
        }
        let channel = self.id;
        self.core
            .try_call(move |actor| actor.engine.problems(Some(channel)))
            .await
    }

    // ---- where it is

    /// Returns the channel's state in the vault: membership, cursor, epoch, queue lengths.
    pub async fn info(&self) -> Result<ChannelInfo, AgentError> {
        if let Some(owner) = self.core.owner() {
            return owner.info(self.id).await;
        }
        let channel = self.id;
        self.core.try_call(move |actor| actor.engine.channel(channel)).await
    }

    /// Returns the offset of the last entry processed.
    pub async fn cursor(&self) -> Result<Offset, AgentError> {
        if let Some(owner) = self.core.owner() {
            return owner.cursor(self.id).await;
        }
        let channel = self.id;
        self.core.try_call(move |actor| actor.engine.cursor(channel)).await
    }

    /// Returns the cursor and the channel digest there; `None` until a member has sent this agent a digest after it
    /// joined.
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

    /// Returns the group's epoch.
    pub async fn epoch(&self) -> Result<u64, AgentError> {
        if let Some(owner) = self.core.owner() {
            return owner.epoch(self.id).await;
        }
        let channel = self.id;
        self.core.try_call(move |actor| actor.engine.epoch(channel)).await
    }

    /// Changes the channel's label; an empty one removes it. A label has at most
    /// [`LABEL_BYTES_MAX`](crate::engine::LABEL_BYTES_MAX) bytes, no control characters, and must not be a channel id.
    /// It never leaves the vault.
    pub async fn relabel(&self, label: &str) -> Result<(), AgentError> {
        if let Some(owner) = self.core.owner() {
            return owner.relabel(self.id, label.to_owned()).await;
        }
        let (channel, label) = (self.id, label.to_owned());
        self.core
            .try_call(move |actor| actor.engine.relabel(channel, &label))
            .await
    }

    /// Waits until the channel is replayed to its head in the current session, or, after leaving, as far as this agent
    /// may read. Does not end while the agent is offline, or while the channel is paused because of unacknowledged
    /// messages. Fails with [`AgentError::NotFollowed`] if the channel cannot be followed in this session: see
    /// [`Channel::not_followed`].
    pub async fn caught_up(&self) -> Result<(), AgentError> {
        if let Some(owner) = self.core.owner() {
            return owner.caught_up(self.id).await;
        }
        let channel = self.id;
        let mut inbox = self.core.bus.signals(channel).inbox.subscribe();
        loop {
            // Mark before the look, so that changes during it wake this task.
            inbox.mark_unchanged();
            let (state, over) = self
                .core
                .try_call(move |actor| Ok((actor.engine.channel(channel)?.state, is_over(actor, channel)?)))
                .await?;
            if over {
                return Ok(());
            }
            if state == ChannelState::Left {
                // The agent is about to rejoin.
                let changed = self.core.bus.wait(inbox.changed()).await?;
                changed.map_err(|_| AgentError::Closed)?;
                continue;
            }
            let done = |followed| matches!(followed, Followed::Live | Followed::Left | Followed::Refused(_));
            match self.core.bus.followed(channel, done).await? {
                Followed::Live => return Ok(()),
                // Either the removal arrives, or a session in which the agent is a member.
                denied @ Followed::Refused(Code::NotMember) => {
                    self.core.bus.followed(channel, |followed| followed != denied).await?;
                }
                Followed::Refused(code) => return Err(AgentError::NotFollowed { channel, code }),
                _ => {}
            }
        }
    }

    /// Returns why the channel is not followed for the rest of the current session; `None` if it is followed, or may be
    /// yet. Causes are a log shorter than this agent's cursor ([`Code::CursorBeyondHead`]), a relay that does not know
    /// the channel, or a damaged group in the vault. Other channels are still followed.
    pub fn not_followed(&self) -> Option<Code> {
        match *self.core.bus.signals(self.id).followed.borrow() {
            Followed::Refused(code) => Some(code),
            _ => None,
        }
    }

    /// Queues an operation on the engine's thread, wakes the channel's worker, and returns the handle of its delivery.
    async fn queue<F>(&self, function: F) -> Result<Sent, AgentError>
    where
        F: FnOnce(&mut Actor) -> Result<FrameId, EngineError> + Send + 'static,
    {
        let channel = self.id;
        let queued = self.core.try_call(move |actor| {
            let frame_id = function(actor)?;
            actor.bus.signals(channel).work.notify_one();
            let delivery = actor.bus.wait_for(frame_id);
            Ok(Sent::new(channel, frame_id, delivery, Arc::clone(&actor.bus)))
        });
        queued.await
    }
}
