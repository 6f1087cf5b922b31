//! A channel, as one of its members has it.

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

/// Messages taken out of the history at once.
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
            let wait = |frame_id| {
                let delivery = actor.bus.wait_for(frame_id);
                Sent::new(channel, frame_id, delivery, Arc::clone(&actor.bus))
            };
            Ok(frame_ids.into_iter().map(wait).collect())
        });
        queued.await
    }

    /// All that waits in the outbox, in the order in which it goes out: what it is, since when, how often a relay node has
    /// refused it and why; of a message its payload and what it says besides. No more than
    /// [`EngineConfig::outbox_messages_max`](crate::engine::EngineConfig::outbox_messages_max) messages, with payloads of
    /// [`EngineConfig::outbox_bytes_max`](crate::engine::EngineConfig::outbox_bytes_max) together.
    pub async fn outbox(&self) -> Result<Vec<Queued>, AgentError> {
        if let Some(owner) = self.core.owner() {
            return attached::outbox(owner, self.id).await;
        }
        let channel = self.id;
        self.core.try_call(move |actor| actor.engine.outbox(channel)).await
    }

    /// For another process that asks for [`Channel::outbox`].
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
            Ok(Some(Sent::new(channel, frame_id, delivery, Arc::clone(&actor.bus))))
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

    /// Forgets something that failed. Whether there was such a thing.
    pub async fn dismiss(&self, frame_id: FrameId) -> Result<bool, AgentError> {
        if let Some(owner) = self.core.owner() {
            return owner.dismiss(self.id, frame_id).await;
        }
        let channel = self.id;
        self.core
            .try_call(move |actor| actor.engine.dismiss(channel, frame_id))
            .await
    }

    /// Sends a message again that failed, behind what waits, and forgets the failure. It has another id from now on. `None`
    /// where no such thing failed; an error for a change to the group, and for a channel that takes no more messages.
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

    /// Adds agents, all of them or none: claims a KeyPackage of each that is no member yet, and commits. Needs a session;
    /// waits for one as long as the agent's configuration says. The commit itself waits in the outbox as a message does.
    ///
    /// Ends with [`AgentError::NotAdded`] at the first agent that has no KeyPackage to be used.
    /// [`Channel::add_available`] adds the others all the same.
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

    /// As [`Channel::claim`], whichever process has the vault open.
    async fn claim_anywhere(&self, agent: AgentId) -> Result<ClaimedPackage, AgentError> {
        match self.core.owner() {
            Some(owner) => owner.claim(self.id, agent).await,
            None => self.claim(agent).await,
        }
    }

    /// Adds those agents that can be added, in one commit, and says of each other one why it cannot. As [`Channel::add`]
    /// does, it leaves members out and needs a session.
    ///
    /// Ends with [`AgentError::NobodyAdded`] where none can be added, and at once where the agent itself is at fault: its
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
                        // By the settings of the process that has the vault open.
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

    /// Adds agents once they have KeyPackages on offer: tried whenever this agent is online, until it succeeds, it is
    /// cancelled, or this agent has left. Durable when this returns. What then becomes of the commit, events tell.
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

    /// For [`Channel::ensure_members`], which is beside what else a program asks for when it begins.
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

    /// Additions that wait for their agents.
    pub async fn deferred_adds(&self) -> Result<Vec<DeferredAdd>, AgentError> {
        if let Some(owner) = self.core.owner() {
            return owner.deferred_adds(self.id).await;
        }
        let channel = self.id;
        self.core
            .try_call(move |actor| actor.engine.deferred_adds(channel))
            .await
    }

    /// Forgets additions that wait for these agents. How many there were.
    pub async fn cancel_add(&self, agents: &[AgentId]) -> Result<usize, AgentError> {
        if let Some(owner) = self.core.owner() {
            return owner.cancel_add(self.id, agents.to_vec()).await;
        }
        let (channel, agents) = (self.id, agents.to_vec());
        let cancelled = self.core.try_call(move |actor| {
            let cancelled = actor.engine.cancel_add(channel, &agents)?;
            // What waited for them goes out.
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

    /// Removes agents. Those that are no members when the commit is built are left out; additions that wait for these agents are
    /// cancelled.
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

    /// Leaves the channel: asks to be removed, which another member commits. The only member is gone at once, also offline;
    /// that ends as [`Delivered::Unneeded`].
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
        if let Some(owner) = self.core.owner() {
            return attached::inbox(owner, self.id, after, limit).await;
        }
        let channel = self.id;
        self.core
            .try_call(move |actor| actor.engine.inbox(channel, after, limit))
            .await
    }

    /// For [`Messages`]: what was not acknowledged after an offset.
    pub(crate) async fn unacked(&self, after: Offset, limit: u32) -> Result<Vec<Message>, AgentError> {
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
    ///
    /// Where a log went back and that was settled ([`Event::Settled`](crate::event::Event::Settled)), offsets mean other
    /// entries than before: [`Channel::ack_message`] is sure to mean the message that was given.
    pub async fn ack(&self, offset: Offset) -> Result<(), AgentError> {
        self.acknowledge(offset, None).await
    }

    /// The application has dealt with a message and all before it.
    pub async fn ack_message(&self, message: &Message) -> Result<(), AgentError> {
        self.acknowledge(message.offset, Some(message.frame_id)).await
    }

    pub(crate) async fn acknowledge(&self, offset: Offset, frame_id: Option<FrameId>) -> Result<(), AgentError> {
        messages::ack(&self.core, self.id, offset, frame_id).await
    }

    /// Messages that this agent had been shown before the log went back, and that the log no longer has; with the offsets
    /// that they had then. Their authors send them again when they come back. At most `limit`.
    pub async fn replaced(&self, limit: u32) -> Result<Vec<Message>, AgentError> {
        if let Some(owner) = self.core.owner() {
            return owner.replaced(self.id, limit).await;
        }
        let channel = self.id;
        self.core
            .try_call(move |actor| actor.engine.replaced(channel, limit))
            .await
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

    /// Entries that this agent will never read, and why: the log no longer kept them, or it was out of sync with the group.
    pub async fn lost(&self) -> Result<Vec<Lost>, AgentError> {
        if let Some(owner) = self.core.owner() {
            return owner.lost(self.id).await;
        }
        let channel = self.id;
        self.core.try_call(move |actor| actor.engine.lost(Some(channel))).await
    }

    /// Begins the group again with all members whose KeyPackages can be had: the way back where no member can go on. Members
    /// come over without being asked; the others ask to be added again. If two members do it at once the first wins. Needs a
    /// session.
    ///
    /// Where all members are out of sync, they do it by themselves.
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

    /// Proofs that the relay showed this agent and another member different logs.
    pub async fn divergences(&self) -> Result<Vec<Divergence>, AgentError> {
        if let Some(owner) = self.core.owner() {
            return owner.divergences(self.id).await;
        }
        let channel = self.id;
        self.core.try_call(move |actor| actor.engine.divergences(channel)).await
    }

    /// What a person should know of the channel, the gravest first: divergences, that it is out of sync, what was lost, what
    /// cannot be read, what was not delivered; and what is being done about each.
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
    /// not acknowledged. Ends with [`AgentError::NotFollowed`] where the channel cannot be followed in this session: see
    /// [`Channel::not_followed`].
    pub async fn caught_up(&self) -> Result<(), AgentError> {
        if let Some(owner) = self.core.owner() {
            return owner.caught_up(self.id).await;
        }
        let channel = self.id;
        let mut inbox = self.core.bus.signals(channel).inbox.subscribe();
        loop {
            // Marked before the look: what comes during it wakes.
            inbox.mark_unchanged();
            let (state, over) = self
                .core
                .try_call(move |actor| Ok((actor.engine.channel(channel)?.state, is_over(actor, channel)?)))
                .await?;
            if over {
                return Ok(());
            }
            if state == ChannelState::Left {
                // It is about to be joined again.
                let changed = self.core.bus.wait(inbox.changed()).await?;
                changed.map_err(|_| AgentError::Closed)?;
                continue;
            }
            let done = |followed| matches!(followed, Followed::Live | Followed::Left | Followed::Refused(_));
            match self.core.bus.followed(channel, done).await? {
                Followed::Live => return Ok(()),
                // The removal that it speaks of comes, or a session in which it is not so.
                denied @ Followed::Refused(Code::NotMember) => {
                    self.core.bus.followed(channel, |followed| followed != denied).await?;
                }
                Followed::Refused(code) => return Err(AgentError::NotFollowed { channel, code }),
                _ => {}
            }
        }
    }

    /// Why the channel is not followed in the session that there is, where that will last: the relay's log is shorter than what
    /// this agent has seen ([`Code::CursorBeyondHead`]), the relay does not know the channel, the channel's group in the
    /// vault is damaged. Other channels are followed all the same. `None` where it is followed, or may be yet.
    pub fn not_followed(&self) -> Option<Code> {
        match *self.core.bus.signals(self.id).followed.borrow() {
            Followed::Refused(code) => Some(code),
            _ => None,
        }
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
            let delivery = actor.bus.wait_for(frame_id);
            Ok(Sent::new(channel, frame_id, delivery, Arc::clone(&actor.bus)))
        });
        queued.await
    }
}
