//! Traffic of agents meanwhile: they send, and now and then change their keys, each at a pace of its own.

use crate::agent::failed;
use crate::output::{Failure, Outcome};
use crate::stage::Ledger;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use parking_lot::Mutex;
use skytale_history::Event;
use skytale_proto::{AgentId, ChannelId, Code, FrameId, Offset};
use skytale_sdk::{AgentError, Channel, Delivered, Sent};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Messages that an author may have sent and not seen in the log. It sends none beyond them.
const IN_FLIGHT_MAX: usize = 256;
/// Interval between the commits of each author. All begin at once, so that they do so at the same time again and again.
const ROTATES_EVERY: Duration = Duration::from_secs(2);
/// Maximum time for messages to go through again after a fault is mended.
const RECOVERS_WITHIN: Duration = Duration::from_secs(120);

/// Observations in a run.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub events: Vec<Event>,
    /// Times at which authors saw messages of their own in the log, with the messages' delays.
    pub answers: Vec<Answer>,
}

/// A message that its author saw in the log.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answer {
    /// The author's place.
    pub author: usize,
    pub at: Instant,
    pub waited: Duration,
}

/// Authors at work.
#[derive(Debug)]
pub(super) struct Traffic {
    pub seen: Arc<Mutex<Seen>>,
    pub ledger: Arc<Mutex<Ledger>>,
    stop: CancellationToken,
    authors: Vec<JoinHandle<Outcome>>,
}

/// Something on its way.
enum Way {
    Message,
    Change,
}

impl Traffic {
    /// Each of `channels` is one author's handle of the channel, with the author's place in the ledger.
    pub(super) fn start(channels: Vec<(AgentId, Channel)>, ledger: Ledger, per_second: u32) -> Self {
        let seen: Arc<Mutex<Seen>> = Arc::default();
        let ledger = Arc::new(Mutex::new(ledger));
        let stop = CancellationToken::new();
        let author = |(place, (agent, channel)): (usize, (AgentId, Channel))| {
            let author = Author {
                place,
                agent,
                channel,
                seen: seen.clone(),
                ledger: ledger.clone(),
                flight: FuturesUnordered::new(),
            };
            tokio::spawn(author.work(per_second, stop.clone()))
        };
        let authors = channels.into_iter().enumerate().map(author).collect();
        Self {
            seen,
            ledger,
            stop,
            authors,
        }
    }

    /// Waits until each author has seen a message in the log that it sent since then. `what` is what may hinder them.
    pub(super) async fn answered_since(&self, then: Instant, what: &str) -> Outcome {
        let begun = Instant::now();
        while !self.all_answered_since(then) {
            if begun.elapsed() > RECOVERS_WITHIN {
                return Err(Failure::new(
                    Code::Mismatch,
                    format!(
                        "an author's messages have not gone through for {} s: {what}",
                        RECOVERS_WITHIN.as_secs()
                    ),
                ));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    fn all_answered_since(&self, then: Instant) -> bool {
        let seen = self.seen.lock();
        let recent = seen.answers.iter().rev().take_while(|answer| answer.at >= then);
        let sent_since = recent.filter(|answer| answer.at.checked_sub(answer.waited).is_some_and(|sent| sent >= then));
        let authors: BTreeSet<usize> = sent_since.map(|answer| answer.author).collect();
        authors.len() == self.authors.len()
    }

    /// Nothing more is sent; waits until all that was sent is in the log.
    pub(super) async fn finish(&mut self) -> Outcome {
        self.stop.cancel();
        for author in self.authors.drain(..) {
            author
                .await
                .map_err(|error| Failure::new(Code::Mismatch, "an author ended by itself").because(&error))??;
        }
        Ok(())
    }
}

type Flight =
    FuturesUnordered<futures_util::future::BoxFuture<'static, (Way, FrameId, Instant, Result<Delivered, AgentError>)>>;

struct Author {
    place: usize,
    agent: AgentId,
    channel: Channel,
    seen: Arc<Mutex<Seen>>,
    ledger: Arc<Mutex<Ledger>>,
    flight: Flight,
}

impl Author {
    async fn work(mut self, per_second: u32, stop: CancellationToken) -> Outcome {
        let mut turns = tokio::time::interval(Duration::from_secs(1) / per_second.max(1));
        turns.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut rotations = tokio::time::interval(ROTATES_EVERY);
        rotations.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        rotations.reset();
        let mut rotating = false;
        while !stop.is_cancelled() {
            tokio::select! {
                () = stop.cancelled() => break,
                Some((way, frame, since, delivered)) = self.flight.next() => {
                    rotating &= matches!(way, Way::Message);
                    self.arrived(&way, frame, since, delivered)?;
                }
                _ = rotations.tick(), if !rotating => {
                    rotating = true;
                    let sent = self.channel.rotate().await.map_err(failed("cannot change keys"))?;
                    self.fly(Way::Change, sent);
                }
                _ = turns.tick(), if self.flight.len() < IN_FLIGHT_MAX => {
                    let payload = self.ledger.lock().next(self.place);
                    let sent = self.channel.send(payload).await.map_err(failed("cannot send"))?;
                    self.note(Event::Sent { agent: self.agent, channel: self.channel.id(), frame: sent.frame_id() });
                    self.fly(Way::Message, sent);
                }
            }
        }
        while let Some((way, frame, since, delivered)) = self.flight.next().await {
            self.arrived(&way, frame, since, delivered)?;
        }
        Ok(())
    }

    fn fly(&self, way: Way, sent: Sent) {
        let (frame, since) = (sent.frame_id(), Instant::now());
        self.flight
            .push(Box::pin(async move { (way, frame, since, sent.delivered().await) }));
    }

    fn arrived(&self, way: &Way, frame: FrameId, since: Instant, delivered: Result<Delivered, AgentError>) -> Outcome {
        let delivered = delivered.map_err(failed("what was sent was refused"))?;
        let Some(offset) = delivered.offset() else {
            return Ok(());
        };
        self.note(Event::Acknowledged {
            agent: self.agent,
            channel: self.channel.id(),
            frame,
            offset,
        });
        if matches!(way, Way::Message) {
            let at = Instant::now();
            self.seen.lock().answers.push(Answer {
                author: self.place,
                at,
                waited: at - since,
            });
        }
        Ok(())
    }

    fn note(&self, event: Event) {
        self.seen.lock().events.push(event);
    }
}

/// Returns an application's reading, for the history.
pub(super) fn reads(agent: AgentId, channel: ChannelId, from: Offset) -> Event {
    Event::Reads { agent, channel, from }
}
