//! One channel in one session: its log in, its outbox out.
//!
//! ```text
//!   subscription --batches--> engine.process_entries --events--> application
//!   engine.next_frames --frames--> append stream --verdicts--> engine.outcome
//! ```
//!
//! Both run in one task, so that a channel's calls of the engine come in an order that makes sense: what replay brought is
//! processed before what is to be sent is asked for again.
//!
//! Back-pressure: with [`DriverConfig::inbox_messages_max`](super::DriverConfig::inbox_messages_max) messages not
//! acknowledged the subscription is ended, and begun again after the cursor when half of them are. No other channel
//! notices. An agent can only send when it stands at the head, so while something waits in the outbox the channel is
//! followed all the same: the inbox then grows in the vault, never in memory.

use super::backoff::Backoff;
use super::follow::local;
use super::outcome::outcome_of;
use super::running::{End, Ground, Refusals};
use super::turn::Turn;
use crate::agent::bus::{Followed, Signals};
use crate::engine::{ChannelInfo, ChannelState, EngineError, Outcome, Processed};
use crate::event::Event;
use crate::net::RelayError;
use crate::net::relay::{Appender, PendingAppend, Receipt, Refused, Subscription, SubscriptionItem};
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesOrdered;
use futures_util::{FutureExt, StreamExt};
use skytale_proto::{ChannelId, Code, FrameId, Offset, Record};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// Between attempts to subscribe after a refusal.
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));
/// Between attempts to append after a refusal.
const RETRY_APPEND: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));
/// The longest wait of what is to be sent, in a channel in which something comes.
const RETRY_LIVE: Duration = Duration::from_secs(1);
/// Frames asked of the engine at once, in bytes.
const PUMP_BYTES: usize = 256 * 1024;
/// Frames of one channel without a verdict.
const IN_FLIGHT_MAX: usize = 1_024;
/// Entries given to the engine in one transaction, where they are there already.
const ENTRIES_MAX: usize = 2_048;
/// The same in bytes.
const ENTRIES_BYTES_MAX: usize = 1024 * 1024;

/// What a subscription gives when it is read.
type Read = Result<Option<SubscriptionItem>, RelayError>;
type Verdict = BoxFuture<'static, (FrameId, Result<Receipt, RelayError>)>;

pub(super) struct Worker {
    ground: Ground,
    channel: ChannelId,
    signals: Arc<Signals>,
    view: ChannelInfo,
    /// The channel's log exists, as far as is known: it can be subscribed to.
    exists: bool,
    /// Not followed, since the application has not kept up.
    paused: bool,
    subscription: Option<Subscription>,
    subscribe_at: Instant,
    subscribe_backoff: Backoff,
    appender: Appender,
    /// The appender's stream takes no more of this log, since a frame was refused that will be sent again. When all in
    /// flight have their verdicts, the outbox is sent again in order on another stream.
    held: bool,
    in_flight: FuturesOrdered<Verdict>,
    pump: bool,
    pump_at: Instant,
    pump_backoff: Backoff,
    reads_refused: Refusals,
    appends_refused: Refusals,
    /// The last entry that this agent's relay node said it has appended: it comes back by the subscription.
    appended: Offset,
    /// When this agent commits for those who leave, unless another does before.
    turn: Option<Turn>,
}

enum Happened {
    Item(Read),
    Verdict((FrameId, Result<Receipt, RelayError>)),
    Woken,
    Time,
}

impl Worker {
    pub(super) fn new(ground: Ground, view: ChannelInfo) -> Self {
        let now = Instant::now();
        Self {
            signals: ground.core.bus.signals(view.id),
            channel: view.id,
            exists: view.state != ChannelState::Creating,
            view,
            paused: false,
            subscription: None,
            subscribe_at: now,
            subscribe_backoff: Backoff::new(RETRY.0, RETRY.1),
            appender: ground.appender.clone(),
            held: false,
            in_flight: FuturesOrdered::new(),
            pump: true,
            pump_at: now,
            pump_backoff: Backoff::new(RETRY_APPEND.0, RETRY_APPEND.1),
            reads_refused: Refusals::default(),
            appends_refused: Refusals::default(),
            appended: Offset::ZERO,
            turn: None,
            ground,
        }
    }

    /// Runs until the channel is left or the session is of no more use.
    pub(super) async fn run(mut self) -> End {
        self.signals.fall_behind();
        let end = loop {
            if self.view.state == ChannelState::Left {
                return End::Channel(self.channel);
            }
            match self.step().await {
                Ok(()) => {}
                Err(RelayError::Local { code, reason }) if code != Code::Closed => {
                    // The vault: what is in memory of this channel is as good as it was.
                    self.ground.core.bus.tell(Event::VaultFailed { code, reason });
                    let pause = self.pump_backoff.next(None);
                    self.pump_at = Instant::now() + pause;
                    self.pump = true;
                    self.unsubscribe(pause);
                }
                Err(error) => {
                    if let RelayError::Gap { expected, found } = error {
                        self.ground.core.bus.tell(Event::Gap {
                            channel: Some(self.channel),
                            expected,
                            found,
                        });
                    }
                    break End::Session(error);
                }
            }
        };
        self.signals.fall_behind();
        end
    }

    async fn step(&mut self) -> Result<(), RelayError> {
        self.heed_backpressure();
        let now = Instant::now();
        let wanted = self.exists && !self.paused;
        if wanted && self.subscription.is_none() && now >= self.subscribe_at {
            self.subscribe().await?;
        }
        let in_flight_max = if self.held || self.is_probing() {
            1
        } else {
            IN_FLIGHT_MAX
        };
        if self.turn.is_some_and(|turn| now >= turn.at) {
            self.take_turn().await?;
        }
        let may_pump = !self.ground.is_leaving() && self.in_flight.len() < in_flight_max;
        if self.pump && may_pump && now >= self.pump_at {
            self.pump().await?;
        }
        let wake = [
            (wanted && self.subscription.is_none()).then_some(self.subscribe_at),
            (self.pump && may_pump).then_some(self.pump_at),
            self.turn.map(|turn| turn.at),
        ];
        let wake = wake.into_iter().flatten().min();
        let happened = tokio::select! {
            item = next(&mut self.subscription) => Happened::Item(item),
            Some(verdict) = self.in_flight.next() => Happened::Verdict(verdict),
            () = self.signals.work.notified() => Happened::Woken,
            () = at(wake) => Happened::Time,
        };
        match happened {
            Happened::Item(item) => self.on_item(item).await,
            Happened::Verdict(first) => self.on_verdicts(first).await,
            Happened::Woken => {
                self.pump = true;
                self.look().await
            }
            Happened::Time => Ok(()),
        }
    }

    fn see(&mut self, view: ChannelInfo) {
        // Some of what an engine sends by itself leaves the outbox without an event.
        if view.outbox == 0 && self.view.outbox > 0 {
            self.ground.core.bus.settled.send_modify(|version| *version += 1);
        }
        self.view = view;
    }

    // ---- in

    fn heed_backpressure(&mut self) {
        let most = self.ground.config.inbox_messages_max.max(1);
        let unacked = self.view.unacked;
        let full = if self.paused {
            unacked > most / 2
        } else {
            unacked >= most
        };
        let paused = full && self.view.outbox == 0;
        if paused && !self.paused {
            self.unsubscribe(Duration::ZERO);
            self.signals.followed.send_replace(Followed::Paused);
            let channel = self.channel;
            self.ground.core.bus.tell(Event::Paused { channel, unacked });
        }
        self.paused = paused;
    }

    fn unsubscribe(&mut self, pause: Duration) {
        self.subscription = None;
        self.subscribe_at = Instant::now() + pause;
        self.signals.fall_behind();
    }

    async fn subscribe(&mut self) -> Result<(), RelayError> {
        let (log, cursor) = (self.channel.log(), self.view.cursor);
        match Subscription::open(&self.ground.session, log, cursor, true, None).await {
            Ok(mut subscription) => {
                subscription.expect(self.appended);
                self.subscription = Some(subscription);
                Ok(())
            }
            Err(error) => self.refused(error),
        }
    }

    async fn on_item(&mut self, mut item: Read) -> Result<(), RelayError> {
        loop {
            match item {
                Ok(Some(SubscriptionItem::Batch(records))) => {
                    self.subscribe_backoff.reset();
                    let (records, then) = self.gather(records);
                    self.process(records).await?;
                    match then {
                        // What a relay says to one who was just removed needs no telling.
                        Some(then) if self.view.state != ChannelState::Left => item = then,
                        _ => return Ok(()),
                    }
                }
                Ok(Some(SubscriptionItem::CaughtUp { head })) => {
                    self.subscribe_backoff.reset();
                    self.reads_refused.reset();
                    self.signals.followed.send_replace(Followed::Live);
                    let channel = self.channel;
                    self.ground.core.bus.tell(Event::CaughtUp { channel, head });
                    return Ok(());
                }
                Ok(None) => {
                    let pause = self.subscribe_backoff.next(None);
                    self.unsubscribe(pause);
                    return Ok(());
                }
                Err(error) => return self.refused(error),
            }
        }
    }

    /// Adds batches that are there already: one transaction for all of them. What came behind them is given, too.
    fn gather(&mut self, mut records: Vec<Record>) -> (Vec<Record>, Option<Read>) {
        let mut bytes: usize = records.iter().map(Record::encoded_len).sum();
        while records.len() < ENTRIES_MAX && bytes < ENTRIES_BYTES_MAX {
            let Some(subscription) = &mut self.subscription else {
                break;
            };
            match subscription.next().now_or_never() {
                Some(Ok(Some(SubscriptionItem::Batch(more)))) => {
                    bytes += more.iter().map(Record::encoded_len).sum::<usize>();
                    records.extend(more);
                }
                Some(other) => return (records, Some(other)),
                None => break,
            }
        }
        (records, None)
    }

    async fn process(&mut self, records: Vec<Record>) -> Result<(), RelayError> {
        let channel = self.channel;
        let processed = self.ground.core.try_call(move |actor| {
            let Processed { events, gap, .. } = actor.engine.process_entries(channel, &records)?;
            actor.bus.tell_all(events);
            Ok((gap, actor.engine.channel(channel)?))
        });
        let (gap, view) = local(processed.await)?;
        self.see(view);
        // The head may have moved: what was stale can be built again.
        self.pump = true;
        if self.appends_refused.any() {
            // What others send comes: what this one sends may be taken again, too.
            self.pump_at = self.pump_at.min(Instant::now() + RETRY_LIVE);
        }
        self.reads_refused.reset();
        match gap {
            Some(gap) => Err(RelayError::Gap {
                expected: gap.expected,
                found: gap.found,
            }),
            None => Ok(()),
        }
    }

    /// A refused subscription is tried again later; anything else ends the session.
    fn refused(&mut self, error: RelayError) -> Result<(), RelayError> {
        let (code, reason, offset) = match &error {
            RelayError::Refused(refused) => (refused.code(), refused.message.clone(), refused.offset),
            RelayError::Local { code, reason } => (*code, reason.clone(), self.view.cursor),
            _ => return Err(error),
        };
        // A relay node of a fleet that has not followed so far yet says that it does not know this.
        let may_pass = matches!(code, Code::CursorBeyondHead | Code::UnknownLog | Code::NotMember);
        let pause = if error.is_retryable() || may_pass {
            self.subscribe_backoff.next(error.retry_after())
        } else {
            self.subscribe_backoff.longest(error.retry_after())
        };
        self.unsubscribe(pause);
        if code == Code::Draining {
            // The session's end tells it.
            return Ok(());
        }
        if let Some(refused) = error.refused() {
            self.ground.count(&mut self.reads_refused, refused);
        }
        if code == Code::CursorBeyondHead && !self.reads_refused.are_too_many() {
            return Ok(());
        }
        self.ground.core.bus.tell(Event::Refused {
            channel: Some(self.channel),
            code,
            reason,
            offset,
        });
        Ok(())
    }

    // ---- out

    async fn pump(&mut self) -> Result<(), RelayError> {
        if self.held {
            self.appender.renew(&self.ground.session).await?;
            self.held = false;
        }
        let channel = self.channel;
        // At least one is given.
        let bytes = if self.is_probing() { 1 } else { PUMP_BYTES };
        let given = self.ground.core.try_call(move |actor| {
            let next = actor.engine.next_frames(channel, bytes)?;
            actor.bus.tell_all(next.events);
            Ok((next.frames, next.turn, actor.engine.channel(channel)?))
        });
        let (frames, turn, view) = local(given.await)?;
        self.see(view);
        self.turn = Turn::next(turn, self.view.handshake_head, self.turn, Instant::now());
        tracing::trace!(%channel, frames = frames.len(), outbox = self.view.outbox, "frames to append");
        // With nothing given there is nothing to ask for before something happens.
        self.pump = !frames.is_empty();
        for given in frames {
            let frame_id = given.frame.header().id;
            let pending = match self.appender.append(given.frame.encoded().clone()).await {
                Ok(pending) => pending,
                // Too large for this relay, perhaps: a verdict as any other.
                Err(RelayError::Refused(refused)) => {
                    let verdict = std::future::ready((frame_id, Err(RelayError::Refused(refused))));
                    self.in_flight.push_back(verdict.boxed());
                    continue;
                }
                Err(error) => return Err(error),
            };
            self.in_flight.push_back(verdict(frame_id, pending).boxed());
        }
        Ok(())
    }

    /// Nobody has let those go who asked for it, in the time that was theirs.
    async fn take_turn(&mut self) -> Result<(), RelayError> {
        self.turn = None;
        self.pump = true;
        let channel = self.channel;
        let taken = self.ground.core.try_call(move |actor| actor.engine.take_turn(channel));
        local(taken.await)
    }

    /// Gives the engine this verdict and those behind it that are there already.
    async fn on_verdicts(&mut self, first: (FrameId, Result<Receipt, RelayError>)) -> Result<(), RelayError> {
        let mut verdicts = vec![first];
        while let Some(Some(verdict)) = self.in_flight.next().now_or_never() {
            verdicts.push(verdict);
        }
        let mut outcomes = Vec::with_capacity(verdicts.len());
        let mut lost = None;
        for (frame_id, answer) in verdicts {
            match outcome_of(&answer) {
                Some(outcome) => {
                    tracing::trace!(channel = %self.channel, %frame_id, ?outcome, "verdict");
                    self.note(&outcome, &answer);
                    outcomes.push((frame_id, outcome));
                }
                None => lost = answer.err(),
            }
        }
        let channel = self.channel;
        let told = self.ground.core.try_call(move |actor| {
            // Each outcome is told, also when one before it could not be.
            let mut result = Ok(());
            for (frame_id, outcome) in outcomes {
                match actor.engine.outcome(channel, frame_id, outcome) {
                    Ok(events) => actor.bus.tell_all(events),
                    Err(error) => result = Err(error),
                }
            }
            result?;
            actor.engine.channel(channel)
        });
        self.see(local(told.await)?);
        self.pump = true;
        lost.map_or(Ok(()), Err)
    }

    fn note(&mut self, outcome: &Outcome, answer: &Result<Receipt, RelayError>) {
        match outcome {
            Outcome::Appended { offset } | Outcome::Duplicate { offset } => {
                self.appended = self.appended.max(*offset);
                if let Some(subscription) = &mut self.subscription {
                    subscription.expect(*offset);
                }
                self.exists = true;
                self.pump_backoff.reset();
                self.appends_refused.reset();
            }
            // Those behind one that was refused are refused like it.
            Outcome::Refused { retryable: true, .. } if self.held => {}
            Outcome::Refused { retryable: true, code } => {
                self.held = code.holds_log();
                let asked = answer.as_ref().err().and_then(RelayError::retry_after);
                let pause = self.pump_backoff.next(asked);
                self.pump_at = self.pump_at.max(Instant::now() + pause);
                if let Some(refused) = answer.as_ref().err().and_then(RelayError::refused) {
                    self.held_back(*code, refused, pause);
                }
            }
            // The log has spoken.
            _ => self.appends_refused.reset(),
        }
    }

    /// The relay node did not take what was sent last, for a reason of its own: one frame shows whether it does again.
    const fn is_probing(&self) -> bool {
        self.appends_refused.any()
    }

    /// What is to be sent was refused for now.
    fn held_back(&mut self, code: Code, refused: &Refused, retry_in: Duration) {
        if !self.ground.count(&mut self.appends_refused, refused) {
            return;
        }
        self.ground.core.bus.tell(Event::SendHeld {
            channel: self.channel,
            code,
            reason: refused.to_string(),
            retry_in,
        });
    }

    async fn look(&mut self) -> Result<(), RelayError> {
        let channel = self.channel;
        let view = self
            .ground
            .core
            .try_call(move |actor| -> Result<_, EngineError> { actor.engine.channel(channel) });
        self.see(local(view.await)?);
        Ok(())
    }
}

async fn verdict(frame_id: FrameId, pending: PendingAppend) -> (FrameId, Result<Receipt, RelayError>) {
    (frame_id, pending.outcome().await)
}

async fn next(subscription: &mut Option<Subscription>) -> Read {
    match subscription {
        Some(subscription) => subscription.next().await,
        None => std::future::pending().await,
    }
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}
