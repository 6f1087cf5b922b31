//! Watch streams: many channels that the agent has read to their head wait on one stream.
//!
//! ```text
//!   add (channel, cursor) ──> watched ──the head moves──> ready: watched no longer
//!            │                   └──remove, or added again──> watched no longer
//!            └── there is more than the cursor, or no right to read: ready at once
//! ```
//!
//! A channel costs a few hundred bytes here; a subscription costs a QUIC stream. What an agent may read is the business
//! of the subscription that follows: this stream says no more than that one has something to say.

use crate::authorize;
use crate::refusal::{self, counted};
use crate::session::append::body;
use crate::session::{Session, streams};
use crate::stream::{ReceiveError, Receiver, Sender};
use bytes::{Bytes, BytesMut};
use futures_util::future::{AbortHandle, Abortable};
use futures_util::stream::{FuturesUnordered, StreamExt};
use futures_util::{FutureExt, future::BoxFuture};
use skytale_log_store::Access;
use skytale_proto::session::{Refusal, WatchEvent, WatchRequest, decode_message};
use skytale_proto::{ChannelId, Code, LogId, Offset, limits};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::sync::{OwnedSemaphorePermit, watch};

/// Channels that a session may watch whatever the other sessions of its account watch.
const OWN_WATCHED: usize = 100;
/// Bytes of a channel with its cursor.
const ADD_BYTES: usize = ChannelId::LENGTH + 8;
/// Longest request, in bytes.
const REQUEST_BYTES_MAX: usize = limits::WATCHED_AT_ONCE_MAX * (ADD_BYTES + ChannelId::LENGTH) + 64;

/// A channel's wait. Resolves with the channel and the number of the request that began it.
type Wait = Abortable<BoxFuture<'static, (ChannelId, u64)>>;

/// One channel that is watched.
struct Entry {
    number: u64,
    wait: AbortHandle,
    /// Of the account's channels, if the session has more than its own.
    _place: Option<OwnedSemaphorePermit>,
}

/// Channels that are watched.
#[derive(Default)]
struct Watched {
    by_channel: HashMap<ChannelId, Entry>,
    waits: FuturesUnordered<Wait>,
    next: u64,
}

impl Watched {
    fn add(
        &mut self,
        channel: ChannelId,
        after: Offset,
        mut head: watch::Receiver<Offset>,
        place: Option<OwnedSemaphorePermit>,
    ) {
        self.remove(&channel);
        let number = self.next;
        self.next += 1;
        let wait = async move {
            // A store that has closed the log has something to say, too.
            let _ = head.wait_for(|head| *head > after).await;
            (channel, number)
        };
        let (abort, registration) = AbortHandle::new_pair();
        self.waits.push(Abortable::new(wait.boxed(), registration));
        let entry = Entry {
            number,
            wait: abort,
            _place: place,
        };
        self.by_channel.insert(channel, entry);
    }

    fn remove(&mut self, channel: &ChannelId) {
        if let Some(entry) = self.by_channel.remove(channel) {
            entry.wait.abort();
        }
    }

    /// The next channel whose head has moved. Pending where none is watched.
    async fn ready(&mut self) -> ChannelId {
        loop {
            match self.waits.next().await {
                Some(Ok((channel, number))) => {
                    if self.by_channel.get(&channel).is_some_and(|last| last.number == number) {
                        self.by_channel.remove(&channel);
                        return channel;
                    }
                }
                // It was removed.
                Some(Err(_)) => {}
                None => std::future::pending().await,
            }
        }
    }

    /// Channels whose heads have moved by now, as many as an event names. Gives back what removed ones took.
    fn ready_now(&mut self, ready: &mut Vec<ChannelId>) {
        while ready.len() < limits::WATCHED_AT_ONCE_MAX
            && let Some(channel) = self.ready().now_or_never()
        {
            ready.push(channel);
        }
    }
}

/// Serves a watch stream until either side ends it.
pub(crate) async fn serve(session: Arc<Session>, mut sender: Sender, mut receiver: Receiver) {
    if session.watching.swap(true, Ordering::Relaxed) {
        let refusal = Refusal::because(Code::TooManyStreams, "a session has one watch stream");
        return refuse(&session, sender, receiver, refusal).await;
    }
    let mut run = Box::pin(run(&session, &mut sender, &mut receiver));
    let ended = tokio::select! {
        biased;
        () = session.end.ended() => None,
        ended = &mut run => Some(ended),
    };
    drop(run);
    session.watching.store(false, Ordering::Relaxed);
    match ended {
        None => streams::end(&session, &mut sender, &mut receiver),
        Some(Ok(())) => sender.finish(),
        Some(Err(error)) => {
            if let Some(refusal) = refusal::of_receive(&error) {
                refuse(&session, sender, receiver, refusal).await;
            }
        }
    }
}

async fn refuse(session: &Session, mut sender: Sender, mut receiver: Receiver, refusal: Refusal) {
    session.tap_refusal(&refusal);
    let code = refusal.known_code().unwrap_or(Code::RelayInternal);
    let event = WatchEvent {
        refusal: Some(counted(refusal)),
        ..WatchEvent::default()
    };
    if sender.send(&event).await.is_ok() {
        sender.finish();
    }
    receiver.stop(code);
}

async fn run(session: &Session, sender: &mut Sender, receiver: &mut Receiver) -> Result<(), ReceiveError> {
    let stopped = sender.stopped();
    tokio::pin!(stopped);
    let mut watched = Watched::default();
    loop {
        let mut ready = Vec::new();
        tokio::select! {
            () = &mut stopped => return Ok(()),
            channel = watched.ready() => ready.push(channel),
            length = receiver.length(REQUEST_BYTES_MAX) => {
                let Some(length) = length? else { return Ok(()) };
                let pieces = session.account.pace.wait(length).await;
                let (body, in_flight) = body(session, receiver, length, pieces).await?;
                let request: WatchRequest = decode_message(body)?;
                let refused = take(session, &mut watched, &request, &mut ready).await;
                drop(in_flight);
                match refused {
                    Ok(refused) if refused.is_empty() => {}
                    Ok(refused) => {
                        let limits = &session.node.config.limits;
                        let why = format!(
                            "a session watches at most {} channels here, and the agents of an account {} together beside {OWN_WATCHED} each",
                            limits.watched_max,
                            limits.account_watched_max()
                        );
                        let refusal = Refusal::because(Code::TooManyWatched, why);
                        session.tap_refusal(&refusal);
                        let event = WatchEvent {
                            refused: list(&refused),
                            refusal: Some(counted(refusal)),
                            ..WatchEvent::default()
                        };
                        if sender.send(&event).await.is_err() {
                            return Ok(());
                        }
                    }
                    Err(malformed) => return Err(malformed),
                }
            }
        }
        watched.ready_now(&mut ready);
        for ready in ready.chunks(limits::WATCHED_AT_ONCE_MAX) {
            let event = WatchEvent {
                ready: list(ready),
                ..WatchEvent::default()
            };
            if sender.send(&event).await.is_err() {
                return Ok(());
            }
        }
    }
}

/// Carries out a request: adds to `ready` what need not be watched, and returns what there is no room for.
async fn take(
    session: &Session,
    watched: &mut Watched,
    request: &WatchRequest,
    ready: &mut Vec<ChannelId>,
) -> Result<Vec<ChannelId>, ReceiveError> {
    let (add, rest) = request.add.as_chunks::<ADD_BYTES>();
    let (remove, over) = request.remove.as_chunks::<{ ChannelId::LENGTH }>();
    let most = limits::WATCHED_AT_ONCE_MAX;
    if !rest.is_empty() || !over.is_empty() || add.len() > most || remove.len() > most {
        return Err(ReceiveError::Request);
    }
    for channel in remove {
        watched.remove(&ChannelId::from_bytes(*channel));
    }
    let mut refused = Vec::new();
    for entry in add {
        let ([channel, ..], cursor) = entry.as_chunks::<{ ChannelId::LENGTH }>() else {
            return Err(ReceiveError::Request);
        };
        let cursor = <[u8; 8]>::try_from(cursor).map_err(|_| ReceiveError::Request)?;
        let (channel, after) = (ChannelId::from_bytes(*channel), Offset::new(u64::from_le_bytes(cursor)));
        watched.remove(&channel);
        if watched.by_channel.len() >= session.node.config.limits.watched_max as usize {
            refused.push(channel);
            continue;
        }
        let Some(head) = waits(session, channel.log(), after).await else {
            ready.push(channel);
            continue;
        };
        if watched.by_channel.len() < OWN_WATCHED {
            watched.add(channel, after, head, None);
            continue;
        }
        match session.account.watched.clone().try_acquire_owned() {
            Ok(place) => watched.add(channel, after, head, Some(place)),
            Err(_) => {
                session.node.limited.note(Some(Code::AccountStreams));
                refused.push(channel);
            }
        }
    }
    Ok(refused)
}

/// The head to wait for, if the agent may read the channel's next entry and there is none yet.
async fn waits(session: &Session, log: LogId, after: Offset) -> Option<watch::Receiver<Offset>> {
    let claims = session.claims();
    authorize::read(&claims, &log).ok()?;
    let store = &session.node.store;
    // First, so that nothing is kept for logs that the agent only names.
    let access = store.access(log, claims.sub, claims.acct, after).await.ok()?;
    if !matches!(access, Access::Readable { .. }) {
        return None;
    }
    let head = store.watch_head(log).await.ok()?;
    let is_there = *head.borrow() == after;
    is_there.then_some(head)
}

fn list(channels: &[ChannelId]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(channels.len() * ChannelId::LENGTH);
    for channel in channels {
        bytes.extend_from_slice(channel.as_bytes());
    }
    bytes.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn channel(number: u16) -> ChannelId {
        let mut id = [0; 16];
        id[..2].copy_from_slice(&number.to_be_bytes());
        ChannelId::from_bytes(id)
    }

    #[test]
    fn a_channel_is_ready_once_and_nothing_is_kept_of_removed_ones() {
        let mut watched = Watched::default();
        let heads: Vec<_> = (0..100).map(|_| watch::Sender::new(Offset::new(5))).collect();
        for round in 0..50 {
            for (number, head) in (0..).zip(&heads) {
                watched.add(channel(number), Offset::new(5), head.subscribe(), None);
            }
            let mut ready = Vec::new();
            watched.ready_now(&mut ready);
            assert_eq!((ready.len(), watched.waits.len()), (0, 100), "round {round}");
        }
        watched.remove(&channel(3));
        heads[3].send_replace(Offset::new(6));
        heads[7].send_replace(Offset::new(6));
        let mut ready = Vec::new();
        watched.ready_now(&mut ready);
        assert_eq!((ready, watched.waits.len()), (vec![channel(7)], 98));
        heads[7].send_replace(Offset::new(7));
        let mut ready = Vec::new();
        watched.ready_now(&mut ready);
        assert!(ready.is_empty());
        assert!(heads[3].receiver_count() == 0 && heads[7].receiver_count() == 0);
    }
}
