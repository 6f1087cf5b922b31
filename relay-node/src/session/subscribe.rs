//! Subscribe streams: a loop of read after the cursor, send, and at the head wait for the head to move.
//!
//! The stretches that the agent may read are requested one at a time. A stretch ends at the log's head **as it was
//! before the question**: an entry that came after it is never sent on an answer that did not know it.

use crate::authorize;
use crate::metrics;
use crate::refusal::{self, Short, counted};
use crate::session::{Counted, Session, streams};
use crate::stream::{Receiver, Sender};
use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use iroh::endpoint::WriteError;
use skytale_log_store::{Access, ReadBatch, StoreError};
use skytale_proto::session::{CaughtUp, Refusal, Subscribe, SubscribeEvent, batch_prefix, subscribe_event::Event};
use skytale_proto::{Code, LogId, Offset};
use skytale_workload::tap::Fact;
use std::sync::Arc;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{debug, warn};

/// Chunks shorter than this are put together before they are sent, in bytes.
const GATHER_BYTES_MAX: usize = 8 * 1024;

/// Reason why a subscription is over.
enum Ended {
    /// All that was asked for was sent.
    Done,
    /// It cannot go on.
    Refused(Refusal),
    /// Nobody reads it.
    Gone,
}

impl From<WriteError> for Ended {
    fn from(_: WriteError) -> Self {
        Self::Gone
    }
}

impl From<Refusal> for Ended {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// Request of a subscription.
#[derive(Clone, Copy)]
struct Asked {
    log: LogId,
    after: Offset,
    follow: bool,
    /// Entries to send at most.
    limit: u64,
    /// Time of the request.
    at: Instant,
}

impl Asked {
    fn read(subscribe: &Subscribe) -> Result<Self, Refusal> {
        let log = LogId::try_from(subscribe.log.as_ref())
            .map_err(|error| Refusal::because(Code::MessageMalformed, error.to_string()))?;
        Ok(Self {
            log,
            after: Offset::new(subscribe.after),
            follow: subscribe.follow,
            at: Instant::now(),
            limit: if subscribe.limit == 0 {
                u64::MAX
            } else {
                subscribe.limit
            },
        })
    }
}

/// Serves a subscription until it is done, refused, or nobody reads it.
pub(crate) fn serve(
    session: Arc<Session>,
    subscribe: &Subscribe,
    sender: Sender,
    receiver: Receiver,
) -> BoxFuture<'static, ()> {
    match Asked::read(subscribe) {
        Ok(asked) => follow(session, asked, sender, receiver),
        Err(refusal) => refuse(session, sender, receiver, refusal).boxed(),
    }
}

/// A block, since a function's future would keep room for its arguments twice.
fn follow(session: Arc<Session>, asked: Asked, mut sender: Sender, mut receiver: Receiver) -> BoxFuture<'static, ()> {
    async move {
        let stopped = sender.stopped();
        let ended = tokio::select! {
            biased;
            () = session.end.ended() => return streams::end(&session, &mut sender, &mut receiver),
            () = stopped => Ended::Gone,
            ended = run(&session, &asked, &mut sender) => ended,
        };
        match ended {
            Ended::Done => sender.finish(),
            Ended::Refused(refusal) => Box::pin(refuse(session, sender, receiver, refusal)).await,
            Ended::Gone => {}
        }
    }
    .boxed()
}

async fn refuse(session: Arc<Session>, mut sender: Sender, mut receiver: Receiver, refusal: Refusal) {
    session.tap_refusal(&refusal);
    let code = refusal.known_code().unwrap_or(Code::RelayInternal);
    let event = SubscribeEvent {
        event: Some(Event::Refusal(counted(refusal))),
    };
    if sender.send(&event).await.is_ok() {
        sender.finish();
    }
    receiver.stop(code);
}

async fn run(session: &Session, asked: &Asked, sender: &mut Sender) -> Ended {
    if let Err(denied) = authorize::read(&session.claims(), &asked.log) {
        return denied.refusal().into();
    }
    let head = match session.node.store.watch_head(asked.log).await {
        Ok(head) => head,
        Err(error) => return failed(session, &error).into(),
    };
    let _counted = Counted::enter(&session.subscriptions);
    let mut subscription = Subscription {
        session,
        log: asked.log,
        cursor: asked.after,
        left: asked.limit,
        follow: asked.follow,
        began: Some(asked.at).filter(|_| session.node.tap.is_some()),
        place: session.node.readers.enter(head.clone(), asked.after),
        head,
        sender,
    };
    match subscription.run().await {
        Ok(()) => Ended::Done,
        Err(ended) => ended,
    }
}

/// Whether all that any node had acknowledged when a subscription began is shown here.
enum Settling<'a> {
    /// The store finds out.
    Asked(BoxFuture<'a, Result<(), StoreError>>),
    /// It is, or nobody can say.
    Known { unconfirmed: bool },
}

struct Subscription<'a> {
    session: &'a Session,
    log: LogId,
    cursor: Offset,
    left: u64,
    follow: bool,
    /// Time of the request, until the tap knows of it; `None` without one.
    began: Option<Instant>,
    place: crate::readers::Reader,
    head: watch::Receiver<Offset>,
    sender: &'a mut Sender,
}

impl Subscription<'_> {
    async fn run(&mut self) -> Result<(), Ended> {
        // Until the reader knows that it has caught up.
        let mut settling = Some(Settling::Asked(self.session.node.store.settled(self.log)));
        loop {
            let head = *self.head.borrow_and_update();
            if self.cursor > head {
                Box::pin(self.behind_cursor()).await?;
                continue;
            }
            // Boxed, as all that is not waiting at the head: there a reader is most of the time, and then keeps no room for
            // the rest.
            let until = Box::pin(self.readable_until(head)).await?;
            if let Some(at) = self.began.take() {
                self.tap(at, head);
            }
            if until > self.cursor {
                Box::pin(self.replay(until)).await?;
                if self.left == 0 {
                    return Ok(());
                }
                continue;
            }
            // At the head, and on the roster there.
            if let Some(unsettled) = settling.take() {
                settling = Box::pin(self.catch_up(head, unsettled)).await?;
                if settling.is_some() {
                    continue;
                }
            }
            if !self.follow {
                return Ok(());
            }
            if self.head.changed().await.is_err() {
                return Err(Refusal::because(Code::StoreStopped, "the store has closed the log").into());
            }
        }
    }

    /// The agent may read: it is a subscription.
    fn tap(&self, at: Instant, head: Offset) {
        self.session.tap_at(at, |agent| Fact::Subscribe {
            agent,
            log: self.log,
            behind: head.get().saturating_sub(self.cursor.get()),
            follow: self.follow,
        });
    }

    /// The cursor is past the head that this node knows. It may come from another node of the fleet, which is ahead of this
    /// one: the store is asked, and follows. Where it says that there is such an entry, its head has moved.
    async fn behind_cursor(&mut self) -> Result<(), Ended> {
        let store = &self.session.node.store;
        let read = store.read(self.log, self.cursor, 1, 1).await;
        read.map_err(|error| failed(self.session, &error))?;
        if self.cursor > *self.head.borrow() {
            warn!(log = %self.log, cursor = %self.cursor, "the store gave entries past the head that it shows");
            return Err(refusal::internal().into());
        }
        Ok(())
    }

    /// Tells the reader that it has caught up, unless there is more: what another node of the fleet had acknowledged may not
    /// have come here yet. Where nobody can say whether there is, the reader learns that. Gives what to go on with.
    async fn catch_up<'a>(&mut self, head: Offset, settling: Settling<'a>) -> Result<Option<Settling<'a>>, Ended> {
        let unconfirmed = match settling {
            Settling::Known { unconfirmed } => unconfirmed,
            Settling::Asked(mut asked) => {
                let settled = tokio::select! {
                    settled = &mut asked => settled,
                    // Entries that have come are sent meanwhile.
                    _ = self.head.changed() => return Ok(Some(Settling::Asked(asked))),
                };
                if let Err(error) = &settled {
                    debug!(log = %self.log, %error, "it is not known whether other nodes have acknowledged more");
                }
                let unconfirmed = settled.is_err();
                if *self.head.borrow() > head {
                    return Ok(Some(Settling::Known { unconfirmed }));
                }
                unconfirmed
            }
        };
        let caught_up = CaughtUp {
            head: head.get(),
            unconfirmed,
        };
        let event = Some(Event::CaughtUp(caught_up));
        self.sender.send(&SubscribeEvent { event }).await?;
        Ok(None)
    }

    /// The last offset that the agent may read now without another question; the cursor, where there is nothing yet.
    async fn readable_until(&self, head: Offset) -> Result<Offset, Ended> {
        let claims = self.session.claims();
        if let Err(denied) = authorize::read(&claims, &self.log) {
            // The token was refreshed with less scope.
            return Err(denied.refusal().into());
        }
        if self.log == self.session.agent.log() {
            return Ok(head);
        }
        let store = &self.session.node.store;
        match store.access(self.log, claims.sub, claims.acct, self.cursor).await {
            Ok(Access::Readable { until }) => Ok(until.unwrap_or(head).min(head).max(self.cursor)),
            Ok(Access::NotMember { next }) => {
                let refusal = Refusal::because(Code::NotMember, "the agent is not on the roster after this offset");
                Err(match next {
                    Some(next) => refusal.at(next),
                    None => refusal,
                }
                .into())
            }
            Ok(Access::UnknownLog) => Err(Refusal::because(Code::UnknownLog, "no such log").into()),
            Err(error) => Err(failed(self.session, &error).into()),
        }
    }

    /// Sends entries up to and with `until`, a batch at a time: while one is sent, no other is read.
    async fn replay(&mut self, until: Offset) -> Result<(), Ended> {
        let _sending = Counted::enter(&self.session.node.sending);
        while self.cursor < until && self.left > 0 {
            let entries_max = (until.get() - self.cursor.get()).min(self.left);
            let bytes_max = self.session.batch_bytes_max();
            let store = &self.session.node.store;
            let batch = store.read(self.log, self.cursor, bytes_max, entries_max).await;
            let batch = batch.map_err(|error| failed(self.session, &error))?;
            let entries = batch.last.get().saturating_sub(self.cursor.get());
            if entries == 0 || entries > entries_max {
                warn!(log = %self.log, cursor = %self.cursor, last = %batch.last, %until, "the store gave other entries than asked for");
                return Err(refusal::internal().into());
            }
            let last = batch.last;
            self.send(batch).await?;
            self.cursor = last;
            self.place.at(last);
            self.session.node.load.sent(entries);
            self.left -= entries;
        }
        Ok(())
    }

    /// Sends a batch's bytes as they were read.
    async fn send(&mut self, batch: ReadBatch) -> Result<(), Ended> {
        let bytes = batch.records.iter().map(Bytes::len).sum();
        self.sender
            .send_chunks(&mut gather(batch_prefix(bytes), batch.records))
            .await?;
        metrics::batch_sent(bytes);
        Ok(())
    }
}

/// The chunks of a message as they are best sent. Long ones go as they are. Short ones, with the prefix, are put
/// together: QUIC copies pieces shorter than a packet anyway, and for each packet it looks through the chunks that
/// wait.
fn gather(prefix: Bytes, records: Vec<Bytes>) -> Vec<Bytes> {
    let is_short = |chunk: &Bytes| chunk.len() < GATHER_BYTES_MAX;
    let short_bytes: usize = records.iter().filter(|chunk| is_short(chunk)).map(Bytes::len).sum();
    let mut short = BytesMut::with_capacity(prefix.len() + short_bytes);
    short.extend_from_slice(&prefix);
    let mut chunks = Vec::new();
    for chunk in records {
        if is_short(&chunk) {
            short.extend_from_slice(&chunk);
            continue;
        }
        if !short.is_empty() {
            chunks.push(short.split().freeze());
        }
        chunks.push(chunk);
    }
    if !short.is_empty() {
        chunks.push(short.freeze());
    }
    chunks
}

fn failed(session: &Session, error: &StoreError) -> Refusal {
    if !matches!(error, StoreError::Trimmed { .. } | StoreError::BeyondHead { .. }) {
        warn!(agent = %Short(&session.agent), %error, "the store cannot be read");
    }
    refusal::of_store(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn gathered_chunks_are_the_same_bytes_in_the_same_order(
            prefix in proptest::collection::vec(any::<u8>(), 1..16),
            lengths in proptest::collection::vec(prop_oneof![0..2_000usize, 8_000..9_000usize], 0..20),
        ) {
            let chunk = |(index, length): (usize, &usize)| Bytes::from(vec![index as u8; *length]);
            let records: Vec<Bytes> = lengths.iter().enumerate().map(chunk).collect();
            let sent = [Bytes::from(prefix.clone())].into_iter().chain(records.clone()).collect::<Vec<_>>().concat();
            let gathered = gather(prefix.into(), records.clone());
            prop_assert_eq!(gathered.concat(), sent);
            // Long ones were not copied.
            for long in records.iter().filter(|chunk| chunk.len() >= GATHER_BYTES_MAX) {
                prop_assert!(gathered.iter().any(|chunk| chunk.as_ptr() == long.as_ptr()));
            }
        }
    }
}
