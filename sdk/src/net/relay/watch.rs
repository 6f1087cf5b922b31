//! The watch stream: many channels that were read to their head wait on one stream.

use super::error::{Refused, RelayError};
use super::message::{self, MessageReader};
use super::session::Session;
use bytes::{BufMut as _, BytesMut};
use iroh::endpoint::SendStream;
use skytale_proto::session::{WatchEvent, WatchOpen, WatchRequest, open};
use skytale_proto::{ChannelId, Offset, limits};

/// Longest event, in bytes: both lists, and a refusal.
const EVENT_BYTES_MAX: usize = 2 * limits::WATCHED_AT_ONCE_MAX * ChannelId::LENGTH + 16 * 1024;

/// An item of a watch stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum WatchItem {
    /// These channels have something to read. They are not watched any longer.
    Ready(Vec<ChannelId>),
    /// These channels are not watched, since the session has no room for more.
    Full(Vec<ChannelId>, Refused),
}

/// The session's requests to watch channels. It must outlive none of them: dropping it ends the stream.
#[derive(Debug)]
pub(crate) struct WatchRequests {
    send: SendStream,
    session: Session,
}

/// The answers to [`WatchRequests`].
#[derive(Debug)]
pub(crate) struct WatchItems {
    events: MessageReader,
    session: Session,
}

/// Opens the session's watch stream.
pub(crate) async fn watch(session: &Session) -> Result<(WatchRequests, WatchItems), RelayError> {
    let (send, events) = session.open(open::Stream::Watch(WatchOpen {}), EVENT_BYTES_MAX).await?;
    let requests = WatchRequests {
        send,
        session: session.clone(),
    };
    let items = WatchItems {
        events,
        session: session.clone(),
    };
    Ok((requests, items))
}

impl WatchRequests {
    /// Ends watches, and begins others, each after a cursor. At most [`limits::WATCHED_AT_ONCE_MAX`] of each. Not
    /// cancel-safe.
    pub(crate) async fn send(&mut self, remove: &[ChannelId], add: &[(ChannelId, Offset)]) -> Result<(), RelayError> {
        let mut request = WatchRequest::default();
        let mut bytes = BytesMut::with_capacity(remove.len() * ChannelId::LENGTH);
        for channel in remove {
            bytes.put_slice(channel.as_bytes());
        }
        request.remove = bytes.freeze();
        let mut bytes = BytesMut::with_capacity(add.len() * (ChannelId::LENGTH + 8));
        for (channel, after) in add {
            bytes.put_slice(channel.as_bytes());
            bytes.put_u64_le(after.get());
        }
        request.add = bytes.freeze();
        let sent = message::write(&mut self.send, &request).await;
        sent.map_err(|error| self.session.explain(error))
    }
}

impl WatchItems {
    /// Waits for the next item; `None` if the relay ended the stream. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Result<Option<WatchItem>, RelayError> {
        let read = self.events.next::<WatchEvent>().await;
        let Some(event) = read.map_err(|error| self.session.explain(error))? else {
            return Ok(None);
        };
        let list = |bytes: &[u8]| match bytes.as_chunks::<{ ChannelId::LENGTH }>() {
            (channels, []) if channels.len() <= limits::WATCHED_AT_ONCE_MAX => {
                Ok(channels.iter().copied().map(ChannelId::from_bytes).collect::<Vec<_>>())
            }
            _ => Err(self
                .session
                .explain(RelayError::protocol("a malformed list of channels"))),
        };
        let (ready, refused) = (list(&event.ready)?, list(&event.refused)?);
        match event.refusal {
            None => Ok(Some(WatchItem::Ready(ready))),
            Some(refusal) if refused.is_empty() => Err(Refused::from(refusal).into()),
            Some(refusal) => Ok(Some(WatchItem::Full(refused, refusal.into()))),
        }
    }
}
