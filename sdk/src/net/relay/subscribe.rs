//! A subscription: one log's entries after a cursor, dense.

use super::error::{Refused, RelayError};
use super::message::MessageReader;
use super::session::Session;
use iroh::endpoint::SendStream;
use skytale_proto::session::{Subscribe, SubscribeEvent, open, subscribe_event};
use skytale_proto::{LogId, Offset, Record, limits};

/// An item of a subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SubscriptionItem {
    /// Entries, in order, each one's offset the one before's plus one. Never empty.
    Batch(Vec<Record>),
    /// The reader is at the head. Comes once.
    CaughtUp {
        /// The log's head at that time.
        head: Offset,
        /// Whether the log includes everything that any relay node had acknowledged at the time of the subscription.
        /// While the log's home region does not answer, no relay node can confirm it.
        is_confirmed: bool,
    },
}

/// Entries of one log after a cursor. Dropping it ends the stream; reading it slowly makes the relay wait.
#[derive(Debug)]
pub struct Subscription {
    events: MessageReader,
    session: Session,
    log: LogId,
    last: Offset,
    /// An entry that is known to exist.
    expected: Offset,
    left: Option<u64>,
    caught_up: bool,
    // Finished: there is nothing more to send. Held, since dropping it tells the relay nothing useful.
    _send: SendStream,
}

impl Subscription {
    /// Subscribes to a log after a cursor: up to its end, and beyond with `follow`; at most `limit` entries.
    pub async fn open(
        session: &Session,
        log: LogId,
        after: Offset,
        follow: bool,
        limit: Option<u64>,
    ) -> Result<Self, RelayError> {
        let subscribe = Subscribe {
            log: log.to_bytes().into(),
            after: after.get(),
            follow,
            limit: limit.unwrap_or(0),
        };
        let (mut send, mut events) = session
            .open(open::Stream::Subscribe(subscribe), limits::MESSAGE_BYTES_MAX)
            .await?;
        let _ = send.finish();
        events.owed().begin(0);
        Ok(Self {
            events,
            session: session.clone(),
            log,
            last: after,
            expected: after,
            left: limit,
            caught_up: false,
            _send: send,
        })
    }

    /// The log.
    pub const fn log(&self) -> LogId {
        self.log
    }

    /// Returns the offset of the last received entry; at first, the cursor.
    pub const fn last(&self) -> Offset {
        self.last
    }

    /// Records that the log has an entry at `offset`: it is still to arrive here, and is owed.
    pub fn expect(&mut self, offset: Offset) {
        self.expected = self.expected.max(offset);
        if self.last < self.expected {
            self.events.owed().go_on();
        }
    }

    /// Updates what is owed: up to the head, all entries; after it, those that are known to exist.
    fn settle(&mut self) {
        if self.caught_up && self.last >= self.expected {
            self.events.owed().end();
        } else {
            self.events.owed().begin(0);
        }
    }

    /// Waits for the next batch; `None` if the relay ended the stream. Cancel-safe.
    pub async fn next(&mut self) -> Result<Option<SubscriptionItem>, RelayError> {
        loop {
            let read = self.events.next::<SubscribeEvent>().await;
            let event = match read.map_err(|error| self.session.explain(error))? {
                Some(event) => event,
                None => return Ok(None),
            };
            match event.event {
                Some(subscribe_event::Event::Batch(batch)) => {
                    let records = self.check(batch.records).map_err(|error| self.session.explain(error))?;
                    self.settle();
                    return Ok(Some(SubscriptionItem::Batch(records)));
                }
                Some(subscribe_event::Event::CaughtUp(caught_up)) => {
                    let head = Offset::new(caught_up.head);
                    if std::mem::replace(&mut self.caught_up, true) || head < self.last {
                        let error = RelayError::protocol("caught up twice, or at a head behind the entries sent");
                        return Err(self.session.explain(error));
                    }
                    self.settle();
                    return Ok(Some(SubscriptionItem::CaughtUp {
                        head,
                        is_confirmed: !caught_up.unconfirmed,
                    }));
                }
                Some(subscribe_event::Event::Refusal(refusal)) => return Err(Refused::from(refusal).into()),
                // An event of a later version.
                None => {}
            }
        }
    }

    fn check(&mut self, records: bytes::Bytes) -> Result<Vec<Record>, RelayError> {
        let mut batch = Vec::new();
        for record in Record::decode_batch(records) {
            let record = record.map_err(|error| RelayError::protocol(error.to_string()))?;
            let expected = self.last.next();
            if record.offset != expected {
                return Err(RelayError::Gap {
                    expected,
                    found: record.offset,
                });
            }
            if let Some(left) = &mut self.left {
                *left = left
                    .checked_sub(1)
                    .ok_or_else(|| RelayError::protocol("more entries than asked for"))?;
            }
            self.last = record.offset;
            batch.push(record);
        }
        if batch.is_empty() {
            return Err(RelayError::protocol("a batch without entries"));
        }
        Ok(batch)
    }
}
