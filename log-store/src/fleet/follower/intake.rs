//! Takes messages in: in the stream's order and without a gap, in parts, into the replica.

use super::{End, Follower};
use crate::StoreError;
use crate::fleet::chain::{self, Link};
use crate::fleet::mark::Mark;
use crate::fleet::metrics;
use crate::local::replica::{Follow, Followed, Following, Message};
use async_nats::jetstream::consumer::pull;
use async_nats::jetstream::message::StreamMessage;
use skytale_proto::{Detail, Frame, FrameId, Header, LogId};
use std::collections::VecDeque;

/// Bytes of messages folded at once, about.
const FOLD_BYTES_MAX: usize = 1024 * 1024;

/// A message of the stream, whichever way it came.
pub(super) struct Arrived {
    sequence: u64,
    /// The stream's own time of it, unix milliseconds.
    published_ms: u64,
    /// Messages behind it, as far as is known.
    pending: u64,
    message: async_nats::Message,
}

impl Arrived {
    /// One that a consumer gave.
    pub(super) fn delivered(
        delivered: Result<async_nats::jetstream::Message, pull::MessagesError>,
    ) -> Result<Self, String> {
        let delivered = delivered.map_err(|error| error.to_string())?;
        let info = delivered.info().map_err(|error| error.to_string())?;
        let (sequence, pending) = (info.stream_sequence, info.pending);
        Ok(Self {
            sequence,
            published_ms: unix_ms(info.published),
            pending,
            message: delivered.message,
        })
    }

    /// One that the stream's leader was asked for.
    pub(super) fn fetched(fetched: StreamMessage) -> Self {
        Self {
            sequence: fetched.sequence,
            published_ms: unix_ms(fetched.time),
            pending: 0,
            message: async_nats::Message {
                subject: fetched.subject,
                reply: None,
                length: fetched.payload.len(),
                payload: fetched.payload,
                headers: None,
                status: None,
                description: None,
            },
        }
    }
}

/// The same for both ways: it becomes an entry's time.
fn unix_ms(time: async_nats::datetime::DateTime) -> u64 {
    u64::try_from(time.unix_timestamp_nanos() / 1_000_000).unwrap_or_default()
}

/// Messages on their way into the replica.
pub(super) struct Part {
    following: Following,
    to: u64,
    notes: Vec<Note>,
}

/// Step to take with a message once it is folded.
pub(super) enum Note {
    Bundle(u64, LogId),
    Welcome(FrameId),
}

impl Follower<'_> {
    /// Takes the messages that came, and hands them to the replica in parts.
    pub(super) async fn chunk(&mut self, chunk: impl IntoIterator<Item = Result<Arrived, String>>) -> Result<(), End> {
        if self.owes_boundary() {
            self.boundary().await?;
        }
        let chunk = chunk.into_iter();
        let (mut messages, mut notes, mut bytes) = (Vec::with_capacity(chunk.size_hint().0), Vec::new(), 0);
        let mut end = None;
        let mut last = None;
        for message in chunk {
            let Arrived {
                sequence,
                published_ms,
                pending,
                message,
            } = match message {
                Ok(message) => message,
                Err(reason) => {
                    end = Some(End::Again(reason));
                    break;
                }
            };
            last = Some(sequence + pending);
            if sequence <= self.position.sequence {
                if sequence <= self.recheck_to {
                    self.recheck(sequence, &message).await?;
                }
                continue;
            }
            if sequence != self.position.sequence + 1 {
                end = Some(End::Again(format!(
                    "message {sequence} came after {}",
                    self.position.sequence
                )));
                break;
            }
            let link = Link {
                sequence,
                published_ms,
                subject: &message.subject,
                payload: &message.payload,
            };
            chain::advance(&mut self.position, link);
            bytes += message.payload.len();
            messages.push(self.message(sequence, &message, &mut notes));
            if bytes >= FOLD_BYTES_MAX {
                let part = (std::mem::take(&mut messages), std::mem::take(&mut notes));
                self.submit(part.0, part.1).await?;
                bytes = 0;
            }
            let told = Mark::of(self.shard.id, &message.subject) == Some(Mark::Checkpoint);
            if told || sequence.is_multiple_of(self.node.config.checkpoint_every) {
                let part = (std::mem::take(&mut messages), std::mem::take(&mut notes));
                self.submit(part.0, part.1).await?;
                bytes = 0;
                self.boundary().await?;
            }
        }
        self.submit(messages, notes).await?;
        self.moved(*self.shard.followed.borrow(), last);
        end.map_or(Ok(()), Err)
    }

    /// A message for the replica. One without a frame of this very log and shard is skipped, by every node alike.
    fn message(&mut self, sequence: u64, message: &async_nats::Message, notes: &mut Vec<Note>) -> Message {
        let mark = Mark::of(self.shard.id, &message.subject);
        let frame = Frame::decode(message.payload.clone()).ok().filter(|frame| {
            let log = &frame.header().log;
            self.node.shards.of(log) == Some(self.shard.id) && self.shard.id.subject(log) == *message.subject
        });
        if frame.is_none() && mark.is_none() {
            tracing::warn!(shard = %self.shard.label, sequence, "a message without a frame of this shard is skipped");
            metrics::garbage(&self.shard.label);
        }
        let repeated = self.repeats.remove(&sequence);
        if repeated {
            self.repeated.push(sequence);
        }
        let frame = frame.filter(|_| !repeated);
        match frame.as_ref().map(Frame::header) {
            Some(header) if is_bundle(header) && sequence > self.owes_after => {
                self.node.owed.expect(self.shard.id, sequence);
                notes.push(Note::Bundle(sequence, header.log));
            }
            Some(header) if matches!(header.detail, Detail::Welcome { .. }) => notes.push(Note::Welcome(header.id)),
            _ => {}
        }
        Message {
            sequence,
            time_ms: self.position.time_ms,
            frame,
            repeated,
        }
    }

    pub(super) async fn submit(&mut self, messages: Vec<Message>, notes: Vec<Note>) -> Result<(), End> {
        if messages.is_empty() {
            return Ok(());
        }
        metrics::followed(&self.shard.label, messages.len());
        let to = self.position.sequence;
        self.position.owed_from = self.node.owed.first(self.shard.id).unwrap_or(to + 1);
        let follow = Follow {
            position: self.position.clone(),
            messages,
        };
        match self.node.replica.submit(follow).await {
            Ok(following) => {
                self.parts.push_back(Part { following, to, notes });
                Ok(())
            }
            // The replica has stopped, and says why.
            Err(error) => {
                tracing::debug!(%error, "the replica takes nothing more");
                self.node.ended.cancel();
                Err(End::Ended)
            }
        }
    }

    /// A part is durable in the replica.
    pub(super) fn folded(&mut self, (part, outcome): (Part, Result<Vec<Followed>, StoreError>)) -> Result<(), End> {
        let outcomes = match outcome {
            Ok(outcomes) => outcomes,
            Err(error) => {
                tracing::debug!(%error, "the replica takes nothing more");
                self.node.ended.cancel();
                return Err(End::Ended);
            }
        };
        let owed = &self.node.owed;
        let mut bundles = Vec::new();
        for note in part.notes {
            match note {
                Note::Welcome(id) => owed.settle(&id),
                Note::Bundle(sequence, log) => bundles.push((sequence, log)),
            }
        }
        let mut bundles = bundles.into_iter().peekable();
        self.shard.followed.send_replace(part.to);
        for mut followed in outcomes {
            if matches!(&followed.verdict, Some(Ok(accepted)) if accepted.duplicate) {
                self.repeated.push(followed.sequence);
            }
            if let Some((sequence, log)) = bundles.next_if(|(sequence, _)| *sequence == followed.sequence) {
                let entry = match &followed.verdict {
                    Some(Ok(accepted)) if !accepted.duplicate => Some((log, accepted.offset)),
                    _ => None,
                };
                owed.decide(self.shard.id, sequence, entry, std::mem::take(&mut followed.welcomes));
            }
            if let Some((waiter, followed)) = self.shard.pending.followed(followed) {
                self.node.answer(waiter, followed);
            }
        }
        self.moved(part.to, None);
        Ok(())
    }

    /// A message that was folded before this process began: if it is a bundle that is an entry, its Welcomes that are on
    /// no log yet are owed.
    async fn recheck(&mut self, sequence: u64, message: &async_nats::Message) -> Result<(), End> {
        let Ok(frame) = Frame::decode(message.payload.clone()) else {
            return Ok(());
        };
        let header = frame.header();
        let (
            Detail::Commit {
                recipients, removes, ..
            },
            Some(channel),
        ) = (&header.detail, header.log.channel())
        else {
            return Ok(());
        };
        let stopped = |error: StoreError| End::Again(error.to_string());
        let replica = &self.node.replica;
        let Some(offset) = replica.seen(header.log, header.id).await.map_err(stopped)? else {
            return Ok(());
        };
        self.node.owed.expect(self.shard.id, sequence);
        let mut left = Vec::new();
        for recipient in recipients {
            let welcome = Header::welcome(header.author, channel, offset, *recipient, removes.contains(recipient));
            if replica.seen(welcome.log, welcome.id).await.map_err(stopped)?.is_none() {
                left.push(welcome);
            }
        }
        self.node
            .owed
            .decide(self.shard.id, sequence, Some((header.log, offset)), left);
        Ok(())
    }
}

fn is_bundle(header: &Header) -> bool {
    matches!(&header.detail, Detail::Commit { recipients, .. } if !recipients.is_empty())
}

/// The oldest part, once it is durable; never, where there is none.
pub(super) async fn outcome_of(parts: &mut VecDeque<Part>) -> (Part, Result<Vec<Followed>, StoreError>) {
    let outcome = match parts.front_mut() {
        Some(part) => part.following.outcome().await,
        None => std::future::pending().await,
    };
    match parts.pop_front() {
        Some(part) => (part, outcome),
        None => std::future::pending().await,
    }
}
