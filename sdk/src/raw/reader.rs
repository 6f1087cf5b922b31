//! Reads a raw log after a cursor, across sessions.

use super::client::RawClient;
use super::error::RawError;
use crate::net::RelayError;
use crate::net::relay::{Subscription, SubscriptionItem};
use bytes::Bytes;
use skytale_proto::{AgentId, ChannelId, Code, Detail, Frame, FrameId, Offset};

/// An entry of a raw log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawEntry {
    /// Its offset.
    pub offset: Offset,
    /// Time at which the log accepted it, unix milliseconds by the relay node's clock.
    pub time_ms: u64,
    /// The agent that appended it.
    pub author: AgentId,
    /// Its frame id.
    pub id: FrameId,
    /// The body; `None` for an entry without one: the log's Create, or a Trim.
    pub body: Option<Bytes>,
}

/// An item of a reader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RawItem {
    /// Entries in order. Never empty.
    Entries(Vec<RawEntry>),
    /// The reader is at the head. May come again after a session was lost.
    CaughtUp {
        /// The head at that time.
        head: Offset,
        /// See [`crate::event::Event::CaughtUp`].
        is_confirmed: bool,
    },
    /// The log has trimmed the entries after the cursor and before `first`. Reading continues at `first`.
    Trimmed {
        /// The first available offset.
        first: Offset,
    },
}

/// Reads one raw log, in order, each entry once.
#[derive(Debug)]
pub struct RawReader {
    client: RawClient,
    channel: ChannelId,
    last: Offset,
    follow: bool,
    limit: Option<u64>,
    subscription: Option<Subscription>,
}

impl RawReader {
    pub(super) const fn new(client: RawClient, channel: ChannelId, after: Offset) -> Self {
        Self {
            client,
            channel,
            last: after,
            follow: true,
            limit: None,
            subscription: None,
        }
    }

    /// Ends the reader at the head, or after `limit` entries: [`RawReader::next`] then returns `None`.
    #[must_use]
    pub const fn up_to_head(mut self, limit: Option<u64>) -> Self {
        self.follow = false;
        self.limit = limit;
        self
    }

    /// Returns the offset of the last received entry; at first, the cursor.
    pub const fn last(&self) -> Offset {
        self.last
    }

    /// Waits for the next item; `None` at the end of a reader that does not follow. Cancel-safe.
    pub async fn next(&mut self) -> Result<Option<RawItem>, RawError> {
        loop {
            let failed = match self.step().await {
                Ok(item) => return Ok(item),
                Err(RawError::Relay(error)) => error,
                Err(error) => return Err(error),
            };
            self.subscription = None;
            match &failed {
                RelayError::Refused(refused) if refused.code() == Code::Trimmed => {
                    let first = refused.offset;
                    if first > self.last.next() {
                        self.last = Offset::new(first.get() - 1);
                        return Ok(Some(RawItem::Trimmed { first }));
                    }
                }
                RelayError::Refused(refused) if refused.code() == Code::UnknownLog && !self.follow => {
                    return Ok(None);
                }
                RelayError::Refused(refused) if !refused.retryable && refused.code() != Code::UnknownLog => {
                    return Err(failed.into());
                }
                _ => {}
            }
            self.client.pause(&failed).await?;
        }
    }

    async fn step(&mut self) -> Result<Option<RawItem>, RawError> {
        if self.subscription.is_none() {
            let live = self.client.live().await?;
            let opened =
                Subscription::open(&live.session, self.channel.log(), self.last, self.follow, self.limit).await?;
            self.subscription = Some(opened);
        }
        let Some(subscription) = self.subscription.as_mut() else {
            return Ok(None);
        };
        let item = tokio::select! {
            () = self.client.inner.cancel.cancelled() => return Err(RawError::Closed),
            item = subscription.next() => item?,
        };
        match item {
            Some(SubscriptionItem::Batch(records)) => {
                let mut entries = Vec::with_capacity(records.len());
                for record in records {
                    let frame = Frame::decode(record.payload)?;
                    let header = frame.header();
                    entries.push(RawEntry {
                        offset: record.offset,
                        time_ms: record.time_ms,
                        author: header.author,
                        id: header.id,
                        body: matches!(header.detail, Detail::Raw { .. }).then(|| frame.body().clone()),
                    });
                    self.last = record.offset;
                }
                if let Some(limit) = &mut self.limit {
                    *limit = limit.saturating_sub(entries.len() as u64);
                }
                Ok(Some(RawItem::Entries(entries)))
            }
            Some(SubscriptionItem::CaughtUp { head, is_confirmed }) => {
                Ok(Some(RawItem::CaughtUp { head, is_confirmed }))
            }
            None if self.follow => Err(RelayError::Lost {
                code: Code::Offline,
                reason: "the relay ended the subscription".into(),
            }
            .into()),
            None => Ok(None),
        }
    }
}
