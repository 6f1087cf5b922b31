//! The operations that a guest can request. A new one of [`Agent`] or [`Channel`] needs one line here, and a branch at
//! its start.

use super::client::Owner;
use super::message::{Fault, encode};
use super::octets::Octets;
use crate::agent::{Agent, AgentError};
use crate::channel::{Channel, Sent};
use crate::engine::{
    ChannelInfo, ClaimedPackage, Consent, ConsentStatus, Contact, DeferredAdd, Divergence, FailedSend, Invited,
    JoinRequest, Keep, Lost, Message, Outgoing, PolicyChange, Problem, Purged, Queued, Requested, Searched, Trust,
    UnreadableEntry,
};
use crate::vault::{BackupInfo, BackupKey};
use serde::{Deserialize, Serialize};
use skytale_proto::{AgentId, ChannelId, Code, Digest, FrameId, Offset, Policy, Region};

/// Maximum number of messages in one answer.
pub(super) const MESSAGES_MAX: u32 = 64;
/// Maximum bytes of payload in one answer; the first message is included whatever its size.
const PAGE_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Class of a request, which determines its handling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// Reads, or is idempotent.
    Call,
    /// Makes a change that must not be repeated.
    Change,
    /// Queues frames: the answer has their ids, and the outcome of each is reported later.
    Send,
    /// Like [`Class::Send`], after a wait for the network.
    LongSend,
    /// Waits without a timeout, and may be abandoned.
    Wait,
}

/// Result of a request.
pub(super) struct Ran {
    /// The answer, as CBOR.
    pub(super) answer: Vec<u8>,
    /// The queued sends.
    pub(super) sent: Vec<Sent>,
}

macro_rules! ran {
    (Send, $done:expr) => {
        sent($done)
    };
    (LongSend, $done:expr) => {
        sent($done)
    };
    ($class:ident, $done:expr) => {
        answer(&$done)
    };
}

macro_rules! ask {
    (Send, $owner:ident, $request:expr, $channel:expr) => {
        $owner.ask_to_send($channel, $request).await
    };
    (LongSend, $owner:ident, $request:expr, $channel:expr) => {
        $owner.ask_to_send($channel, $request).await
    };
    ($class:ident, $owner:ident, $request:expr, $($channel:expr)?) => {
        $owner.ask($request).await
    };
}

macro_rules! operations {
    ($($class:ident fn $name:ident($($first:ident: $first_type:ty $(, $argument:ident: $type:ty)*)?) -> $answer:ty
        { |$agent:ident| $run:expr })*) => {
        /// A request. Names are on the wire: keep stable.
        #[derive(Debug, Serialize, Deserialize)]
        #[allow(non_camel_case_types)]
        pub(super) enum Request {
            $($name { $($first: $first_type $(, $argument: $type)*)? },)*
        }

        impl Request {
            pub(super) const fn class(&self) -> Class {
                match self {
                    $(Self::$name { .. } => Class::$class,)*
                }
            }

            /// Executes it, in the owner.
            pub(super) async fn run(self, agent: &Agent) -> Result<Ran, Fault> {
                match self {
                    $(Self::$name { $($first $(, $argument)*)? } => {
                        let $agent = agent;
                        ran!($class, $run.await?)
                    })*
                }
            }
        }

        impl Owner {
            $(pub(crate) async fn $name(
                &self $(, $first: $first_type $(, $argument: $type)*)?
            ) -> Result<$answer, AgentError> {
                ask!($class, self, Request::$name { $($first $(, $argument)*)? }, $($first)?)
            })*
        }
    };
}

operations! {
    // ---- the agent
    Call fn connect() -> () { |agent| agent.connect() }
    Wait fn all_caught_up() -> () { |agent| agent.caught_up() }
    Wait fn flushed() -> () { |agent| agent.flushed() }
    Call fn channels() -> Vec<ChannelInfo> { |agent| agent.channels() }
    Call fn all_failed() -> Vec<FailedSend> { |agent| agent.failed() }
    Call fn all_problems() -> Vec<(Option<ChannelId>, Vec<Problem>)> { |agent| agent.problems() }
    Change fn take_over() -> Vec<ChannelId> { |agent| agent.take_over() }
    Call fn all_deferred_adds() -> Vec<DeferredAdd> { |agent| agent.deferred_adds() }
    Change fn backup(path: Octets, replace: bool) -> BackupInfo { |agent| backup(agent, path, replace) }
    Change fn create(label: String, home: Option<u8>) -> ChannelId { |agent| create(agent, label, home) }
    Change fn ensure_channel(label: String) -> ChannelId {
        |agent| async { agent.ensure_channel(&label).await.map(|channel| channel.id()) }
    }
    Change fn try_join(label: String) -> Option<ChannelId> {
        |agent| async { Ok::<_, AgentError>(agent.try_join(&label).await?.map(|channel| channel.id())) }
    }
    Change fn create_with(label: String, home: Option<u8>, policy: Policy) -> ChannelId {
        |agent| async {
            let created = agent.create_channel_with(&label, home.map(Region), &policy).await?;
            Ok::<_, AgentError>(created.id())
        }
    }
    Call fn invited() -> Vec<Invited> { |agent| agent.invited() }
    Change fn accept_invitation(channel: ChannelId) -> bool { |agent| agent.accept_invitation(channel) }
    Call fn contacts() -> Vec<Contact> { |agent| agent.contacts() }
    Change fn set_contact(name: String, agent_id: AgentId) -> () {
        |agent| async { agent.set_contact(&name, agent_id).await }
    }
    Change fn remove_contact(name: String) -> Option<AgentId> {
        |agent| async { agent.remove_contact(&name).await }
    }
    Call fn consent() -> ConsentStatus { |agent| agent.consent() }
    Change fn set_consent(consent: Consent) -> () { |agent| agent.set_consent(consent) }
    Call fn trust() -> Trust { |agent| agent.trust() }
    Change fn set_trust(trust: Trust) -> () { |agent| agent.set_trust(trust) }
    Call fn requests() -> Vec<JoinRequest> { |agent| agent.requests() }
    Change fn accept_request(channel: ChannelId) -> () { |agent| agent.accept(channel) }
    Change fn decline_request(channel: ChannelId) -> () { |agent| agent.decline(channel) }

    // ---- sending. The channel comes first.
    Send fn send(channel: ChannelId, payload: Octets) -> Vec<Sent> {
        |agent| async { at(agent, channel).send(payload.0).await.map(one) }
    }
    Send fn send_many(channel: ChannelId, payloads: Vec<Octets>) -> Vec<Sent> {
        |agent| async {
            let payloads = payloads.into_iter().map(|payload| payload.0).collect();
            at(agent, channel).send_many(payloads).await
        }
    }
    Send fn send_message(channel: ChannelId, message: Outgoing) -> Vec<Sent> {
        |agent| async { at(agent, channel).send_message(message).await.map(one) }
    }
    Send fn sent(channel: ChannelId, frame_id: FrameId) -> Vec<Sent> {
        |agent| async { Ok::<_, AgentError>(at(agent, channel).sent(frame_id).await?.into_iter().collect()) }
    }
    Send fn retry(channel: ChannelId, frame_id: FrameId) -> Vec<Sent> {
        |agent| async { Ok::<_, AgentError>(at(agent, channel).retry(frame_id).await?.into_iter().collect()) }
    }
    LongSend fn add(channel: ChannelId, agents: Vec<AgentId>) -> Vec<Sent> {
        |agent| async { at(agent, channel).add(&agents).await.map(one) }
    }
    Send fn add_claimed(channel: ChannelId, packages: Vec<ClaimedPackage>) -> Vec<Sent> {
        |agent| async { at(agent, channel).add_claimed(packages).await.map(one) }
    }
    LongSend fn reboot(channel: ChannelId) -> Vec<Sent> { |agent| async { at(agent, channel).reboot().await.map(one) } }
    Send fn remove(channel: ChannelId, agents: Vec<AgentId>) -> Vec<Sent> {
        |agent| async { at(agent, channel).remove(&agents).await.map(one) }
    }
    Send fn change_policy(channel: ChannelId, change: PolicyChange) -> Vec<Sent> {
        |agent| async { at(agent, channel).change_policy(change).await.map(one) }
    }
    Send fn rotate(channel: ChannelId) -> Vec<Sent> { |agent| async { at(agent, channel).rotate().await.map(one) } }
    Send fn leave(channel: ChannelId) -> Vec<Sent> { |agent| async { at(agent, channel).leave().await.map(one) } }

    // ---- the rest of a channel
    Call fn outbox_page(channel: ChannelId, from: i64) -> (Vec<Queued>, Option<i64>) {
        |agent| async { at(agent, channel).outbox_page(from, PAGE_BYTES_MAX as u64).await }
    }
    Call fn failed(channel: ChannelId) -> Vec<FailedSend> { |agent| at(agent, channel).failed() }
    Change fn dismiss(channel: ChannelId, frame_id: FrameId) -> bool { |agent| at(agent, channel).dismiss(frame_id) }
    Wait fn claim(channel: ChannelId, agent_id: AgentId) -> ClaimedPackage {
        |agent| async { at(agent, channel).claim(agent_id).await }
    }
    Call fn add_later(channel: ChannelId, agents: Vec<AgentId>) -> () {
        |agent| async { at(agent, channel).add_later(&agents).await }
    }
    Call fn ensure_members(channel: ChannelId, agents: Vec<AgentId>) -> () {
        |agent| async { at(agent, channel).ensure_members(&agents).await }
    }
    Call fn deferred_adds(channel: ChannelId) -> Vec<DeferredAdd> { |agent| at(agent, channel).deferred_adds() }
    Change fn cancel_add(channel: ChannelId, agents: Vec<AgentId>) -> usize {
        |agent| async { at(agent, channel).cancel_add(&agents).await }
    }
    Call fn members(channel: ChannelId) -> Vec<AgentId> { |agent| at(agent, channel).members() }
    Call fn policy(channel: ChannelId) -> Option<Policy> { |agent| at(agent, channel).policy() }
    Call fn admins(channel: ChannelId) -> Vec<AgentId> { |agent| at(agent, channel).admins() }
    Call fn inbox(channel: ChannelId, after: Offset, limit: u32) -> Vec<Message> {
        |agent| async { at(agent, channel).inbox(after, limit.min(MESSAGES_MAX)).await.map(page) }
    }
    Call fn unacked(channel: ChannelId, after: Offset, limit: u32) -> Vec<Message> {
        |agent| async { at(agent, channel).unacked(after, limit.min(MESSAGES_MAX)).await.map(page) }
    }
    Call fn received(channel: ChannelId, after: Offset, limit: u32) -> Vec<Message> {
        |agent| async { at(agent, channel).received(after, limit.min(MESSAGES_MAX)).await.map(page) }
    }
    Call fn requested(channel: ChannelId, request: FrameId) -> Requested {
        |agent| async { at(agent, channel).requested(request).await }
    }
    Call fn reply_after(channel: ChannelId, request: FrameId, after: Offset) -> Searched {
        |agent| async { at(agent, channel).reply_after(request, after).await }
    }
    Call fn acked(channel: ChannelId) -> Offset { |agent| at(agent, channel).acked() }
    Call fn ack(channel: ChannelId, offset: Offset, frame_id: Option<FrameId>) -> () {
        |agent| async { at(agent, channel).acknowledge(offset, frame_id).await }
    }
    Call fn replaced(channel: ChannelId, limit: u32) -> Vec<Message> {
        |agent| async { at(agent, channel).replaced(limit.min(MESSAGES_MAX)).await.map(page) }
    }
    Call fn history(channel: ChannelId, after: Offset, limit: u32) -> Vec<Message> {
        |agent| async { at(agent, channel).history(after, limit.min(MESSAGES_MAX)).await.map(page) }
    }
    Wait fn purge(channel: ChannelId, keep: Keep) -> Purged { |agent| at(agent, channel).purge(keep) }
    Call fn unreadable(channel: ChannelId, after: Offset, limit: u32) -> Vec<UnreadableEntry> {
        |agent| at(agent, channel).unreadable(after, limit)
    }
    Call fn lost(channel: ChannelId) -> Vec<Lost> { |agent| at(agent, channel).lost() }
    Call fn problems(channel: ChannelId) -> Vec<Problem> { |agent| at(agent, channel).problems() }
    Call fn divergences(channel: ChannelId) -> Vec<Divergence> { |agent| at(agent, channel).divergences() }
    Call fn info(channel: ChannelId) -> ChannelInfo { |agent| at(agent, channel).info() }
    Call fn cursor(channel: ChannelId) -> Offset { |agent| at(agent, channel).cursor() }
    Call fn digest(channel: ChannelId) -> (Offset, Option<Digest>) { |agent| at(agent, channel).digest() }
    Call fn epoch(channel: ChannelId) -> u64 { |agent| at(agent, channel).epoch() }
    Call fn relabel(channel: ChannelId, label: String) -> () { |agent| at(agent, channel).relabel(&label) }
    Change fn forget(channel: ChannelId) -> () { |agent| async { at(agent, channel).forget().await } }
    Call fn first_kept(channel: ChannelId, keep: Keep) -> Offset {
        |agent| async { at(agent, channel).first_kept(keep).await }
    }
    Wait fn caught_up(channel: ChannelId) -> () { |agent| at(agent, channel).caught_up() }
}

fn at(agent: &Agent, channel: ChannelId) -> Channel {
    agent.handle(channel)
}

async fn create(agent: &Agent, label: String, home: Option<u8>) -> Result<ChannelId, AgentError> {
    let channel = match home {
        Some(home) => agent.create_channel_in(&label, Region(home)).await?,
        None => agent.create_channel(&label).await?,
    };
    Ok(channel.id())
}

async fn backup(agent: &Agent, path: Octets, replace: bool) -> Result<BackupInfo, AgentError> {
    let mut made = agent.backup(path.into_path(), replace).await?;
    if let BackupKey::File { path } = &mut made.key
        && let Ok(absolute) = std::path::absolute(&*path)
    {
        // The guest may be in another folder.
        *path = absolute;
    }
    Ok(made)
}

fn one(sent: Sent) -> Vec<Sent> {
    vec![sent]
}

/// Returns as many of the messages as fit into one answer.
fn page(mut messages: Vec<Message>) -> Vec<Message> {
    let mut bytes = 0;
    let fits = messages.iter().take_while(|message| {
        bytes += message.payload.len();
        bytes <= PAGE_BYTES_MAX
    });
    let fits = fits.count().max(1);
    messages.truncate(fits);
    messages
}

fn answer(answer: &impl Serialize) -> Result<Ran, Fault> {
    Ok(Ran {
        answer: encode(answer).map_err(|error| Fault::new(Code::Environment, error.to_string()))?,
        sent: Vec::new(),
    })
}

fn sent(sent: Vec<Sent>) -> Result<Ran, Fault> {
    let ids: Vec<FrameId> = sent.iter().map(Sent::frame_id).collect();
    Ok(Ran { sent, ..answer(&ids)? })
}
