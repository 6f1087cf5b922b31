//! A channel whose agent's vault is open in another process.

use super::Sent;
use crate::agent::AgentError;
use crate::engine::{Message, Queued, UnreadableEntry};
use crate::share::{Octets, Owner};
use bytes::Bytes;
use skytale_proto::{ChannelId, Code, Offset};

/// Most recorded entries per request.
const UNREADABLE_MAX: u32 = 1_000;

pub(super) fn octets(payload: impl Into<Bytes>) -> Octets {
    Octets(payload.into())
}

/// Returns the result of an operation that queues one item.
pub(super) fn first(sent: Result<Vec<Sent>, AgentError>) -> Result<Sent, AgentError> {
    sent?.pop().ok_or_else(|| AgentError::Owner {
        code: Code::VaultOwnerVersion,
        reason: "the process that has the vault open did not name what it queued".into(),
        retryable: false,
    })
}

/// Reads the outbox, a page at a time.
pub(super) async fn outbox(owner: &Owner, channel: ChannelId) -> Result<Vec<Queued>, AgentError> {
    let (mut all, mut from) = (Vec::new(), Some(i64::MIN));
    while let Some(place) = from {
        let (page, next) = owner.outbox_page(channel, place).await?;
        all.extend(page);
        from = next;
    }
    Ok(all)
}

/// Reads the history, a page at a time. The owner chooses the size of a page.
pub(super) async fn history(
    owner: &Owner,
    channel: ChannelId,
    after: Offset,
    limit: u32,
) -> Result<Vec<Message>, AgentError> {
    let (mut after, mut all) = (after, Vec::new());
    while let Some(left) = left(limit, all.len()) {
        let page = owner.history(channel, after, left).await?;
        let Some(last) = page.last() else { break };
        after = last.offset;
        all.extend(page);
    }
    Ok(all)
}

/// Reads unacknowledged messages, a page at a time.
pub(super) async fn inbox(
    owner: &Owner,
    channel: ChannelId,
    after: Offset,
    limit: u32,
) -> Result<Vec<Message>, AgentError> {
    let (mut after, mut all) = (after, Vec::new());
    while let Some(left) = left(limit, all.len()) {
        let page = owner.inbox(channel, after, left).await?;
        let Some(last) = page.last() else { break };
        after = last.offset;
        all.extend(page);
    }
    Ok(all)
}

pub(super) async fn unreadable(
    owner: &Owner,
    channel: ChannelId,
    after: Offset,
    limit: u32,
) -> Result<Vec<UnreadableEntry>, AgentError> {
    let (mut after, mut all) = (after, Vec::new());
    while let Some(left) = left(limit, all.len()) {
        let page = owner.unreadable(channel, after, left.min(UNREADABLE_MAX)).await?;
        let Some(last) = page.last() else { break };
        after = last.offset;
        all.extend(page);
    }
    Ok(all)
}

/// Number of items still missing up to `limit`; `None` if there are enough.
fn left(limit: u32, have: usize) -> Option<u32> {
    let have = u32::try_from(have).unwrap_or(u32::MAX);
    limit.checked_sub(have).filter(|left| *left > 0)
}
