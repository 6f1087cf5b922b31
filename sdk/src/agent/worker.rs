//! One channel in one session: its log in, its outbox out.
//!
//! ```text
//!   subscription --batches--> engine.process_entries --events--> application
//!   engine.next_frames --frames--> append stream --verdicts--> engine.outcome
//! ```
//!
//! Both run in one task, so that a channel's calls of the engine have a sensible order: replayed entries are processed
//! before frames to send are requested again.
//!
//! Backpressure: with [`DriverConfig::inbox_messages_max`](super::DriverConfig::inbox_messages_max) unacknowledged
//! messages the subscription is ended, and restarted after the cursor when half of them are acknowledged. Other
//! channels are not affected. An agent can only send at the head, so while the outbox is not empty the channel is still
//! followed: the inbox then grows in the vault, never in memory.
//!
//! If the log went back and its operator has confirmed it, the channel is not read while the application has messages to
//! acknowledge: see [`Acceptance::Unacked`](crate::engine::Acceptance::Unacked).
//!
//! A session has seats for a number of subscriptions. Beyond it, channels at their heads are watched on one stream, and
//! subscribe when there is something to read.

mod sending;
mod settling;
mod state;

use self::state::{Ask, ReadRefusal, Step, WorkerState};
use super::bus::{Followed, Signals};
use super::follow::local;
use super::running::{End, Ground, Places};
use super::seats::Seat;
use super::watching::{Watched, Woken};
use crate::engine::{ChannelInfo, EngineError, Processed};
use crate::event::Event;
use crate::net::RelayError;
use crate::net::relay::{Appender, Receipt, Subscription, SubscriptionItem};
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesOrdered;
use futures_util::{FutureExt, StreamExt};
use skytale_proto::{ChannelId, Code, FrameId, Offset, Record};
use std::sync::Arc;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};

/// Number of entries in the first transaction after a subscription begins: the application has its first message soon,
/// however long the backlog is. Each further transaction has twice as many, up to [`ENTRIES_MAX`].
const ENTRIES_FIRST: usize = 32;
/// Maximum number of available entries that the engine processes in one transaction.
const ENTRIES_MAX: usize = 2_048;
/// Maximum bytes of such entries.
const ENTRIES_BYTES_MAX: usize = 1024 * 1024;

/// Result of reading a subscription.
type Read = Result<Option<SubscriptionItem>, RelayError>;
type Verdict = BoxFuture<'static, (FrameId, Result<Receipt, RelayError>)>;

/// Carries out the decisions of the channel's [`WorkerState`].
pub(super) struct Worker {
    ground: Ground,
    channel: ChannelId,
    signals: Arc<Signals>,
    state: WorkerState,
    /// Progress of following the channel, as last reported.
    shown: Followed,
    places: Places,
    /// The seat of the subscription, or of the one that is about to be.
    seat: Option<Seat>,
    /// The wait for a seat.
    no_seat: Option<oneshot::Receiver<Seat>>,
    subscription: Option<Subscription>,
    /// Maximum number of entries in the next transaction.
    entries_max: usize,
    /// The watch in place of a subscription.
    watched: Option<Watched>,
    appender: Appender,
    in_flight: FuturesOrdered<Verdict>,
}

enum Happened {
    Item(Read),
    Verdict((FrameId, Result<Receipt, RelayError>)),
    Woken,
    /// There is a seat for the subscription.
    Seat(Seat),
    /// Another channel needs the seat.
    GivesWay,
    /// The channel is no longer watched.
    Unwatched(Woken),
    /// No reader is left that could acknowledge messages.
    ReaderGone,
    Time,
}

impl Worker {
    pub(super) fn new(ground: Ground, places: Places, view: ChannelInfo) -> Self {
        Self {
            signals: ground.core.bus.signals(view.id),
            channel: view.id,
            state: WorkerState::new(view, ground.config.inbox_messages_max, Instant::now()),
            shown: Followed::Behind,
            places,
            seat: None,
            no_seat: None,
            subscription: None,
            entries_max: ENTRIES_FIRST,
            watched: None,
            appender: ground.appender.clone(),
            in_flight: FuturesOrdered::new(),
            ground,
        }
    }

    /// Runs until the channel is left or the session is useless.
    pub(super) async fn run(mut self) -> End {
        self.signals.fall_behind();
        let channel = self.channel;
        let word_ms = self.ground.session.info().rollback_ms;
        let diverged = self.ground.core.try_call(move |actor| {
            Ok::<_, EngineError>(actor.engine.is_diverged(channel)? || actor.engine.is_word_news(channel, word_ms)?)
        });
        self.state.on_evidence(diverged.await.unwrap_or(false));
        let error = loop {
            match self.step().await {
                Ok(true) => {}
                Ok(false) => return End::Channel(self.channel),
                Err(RelayError::Local { code, reason }) if code != Code::Closed => {
                    self.ground.core.bus.tell(Event::VaultFailed { code, reason });
                    self.state.on_vault_failed(code, Instant::now());
                    self.unsubscribe();
                    self.show();
                }
                Err(error) => break error,
            }
        };
        if let RelayError::Gap { expected, found } = error {
            self.ground.core.bus.tell(Event::Gap {
                channel: Some(self.channel),
                expected,
                found,
            });
        }
        self.signals.fall_behind();
        End::Session(error)
    }

    /// Does the pending work, then waits for the next event. Returns false when nothing is left to do.
    async fn step(&mut self) -> Result<bool, RelayError> {
        loop {
            self.state.on_leaving(self.ground.is_leaving());
            match self.state.next(Instant::now()) {
                None => break,
                Some(Step::Done) => return Ok(false),
                Some(Step::Unwatch) => self.watched = None,
                Some(Step::Pause { unacked }) => {
                    self.unsubscribe();
                    self.show();
                    let channel = self.channel;
                    self.ground.core.bus.tell(Event::Paused { channel, unacked });
                }
                Some(Step::Subscribe { after, expected }) => self.subscribe(after, expected).await?,
                Some(Step::TakeTurn) => {
                    let channel = self.channel;
                    let taken = self.ground.core.try_call(move |actor| actor.engine.take_turn(channel));
                    local(taken.await)?;
                }
                Some(Step::Reboot) => {
                    let channel = self.channel;
                    let begun = self.ground.core.try_call(move |actor| {
                        if actor.engine.is_reboot_due(channel)? {
                            actor.engine.reboot(channel, Vec::new())?;
                        }
                        Ok(())
                    });
                    local(begun.await)?;
                }
                Some(Step::Refresh) => {
                    let channel = self.channel;
                    let queued = self.ground.core.try_call(move |actor| {
                        actor.engine.refresh(channel)?;
                        actor.engine.channel(channel)
                    });
                    self.see(local(queued.await)?);
                }
                Some(Step::Settle) => self.settle().await?,
                Some(Step::Pump { renew, bytes }) => {
                    self.pump(renew, bytes).await?;
                    // Handle what arrived meanwhile before appending more.
                    break;
                }
            }
        }
        if let Some(seat) = &mut self.seat
            && self.state.may_be_watched()
        {
            seat.idle();
        }
        let happened = tokio::select! {
            item = next(&mut self.subscription) => Happened::Item(item),
            () = gives_way(self.seat.as_ref()) => Happened::GivesWay,
            Some(seat) = given(&mut self.no_seat) => Happened::Seat(seat),
            woken = woken(&mut self.watched) => Happened::Unwatched(woken),
            Some(verdict) = self.in_flight.next() => Happened::Verdict(verdict),
            () = self.signals.readers.closed(), if self.state.waits_for_reader() => Happened::ReaderGone,
            () = self.signals.work.notified() => Happened::Woken,
            () = at(self.state.wake()) => Happened::Time,
        };
        match happened {
            Happened::Item(item) => self.on_item(item).await?,
            Happened::Verdict(first) => self.on_verdicts(first).await?,
            Happened::Woken => {
                self.state.on_woken();
                let channel = self.channel;
                let view = self
                    .ground
                    .core
                    .try_call(move |actor| -> Result<_, EngineError> { actor.engine.channel(channel) });
                self.see(local(view.await)?);
            }
            Happened::Seat(seat) => {
                self.no_seat = None;
                self.seat = Some(seat);
                self.state.on_seat(Instant::now());
            }
            Happened::GivesWay => self.give_way(),
            Happened::Unwatched(why) => {
                self.watched = None;
                self.state.on_woken_up(why == Woken::Ready, Instant::now());
            }
            Happened::ReaderGone => self.state.on_reader_gone(),
            Happened::Time => {}
        }
        Ok(true)
    }

    fn see(&mut self, view: ChannelInfo) {
        // Some of the engine's own frames leave the outbox without an event.
        if self.state.on_view(view) {
            self.ground.core.bus.settled.send_modify(|version| *version += 1);
        }
    }

    /// Reports the progress of following the channel, if it has changed.
    fn show(&mut self) {
        let followed = self.state.followed();
        // The engine's thread reports leaving as it happens.
        if followed == self.shown || followed == Followed::Left {
            return;
        }
        self.shown = followed;
        self.signals.follow(followed);
    }

    // ---- in

    /// Ends reading: the subscription with its seat, the wait for one, and the watch.
    fn unsubscribe(&mut self) {
        self.subscription = None;
        self.seat = None;
        self.no_seat = None;
        self.watched = None;
    }

    /// Gives the seat to another channel, if there is nothing to read or to send here.
    fn give_way(&mut self) {
        if self.state.may_be_watched() {
            self.unsubscribe();
            self.watched = Some(self.places.watching.begin(self.channel, self.state.cursor()));
            self.state.on_watched();
        } else if let Some(seat) = &mut self.seat {
            seat.busy();
        }
    }

    async fn subscribe(&mut self, after: Offset, expected: Offset) -> Result<(), RelayError> {
        if self.seat.is_none() {
            self.seat = self.places.seats.try_take();
        }
        if self.seat.is_none() {
            self.no_seat = Some(self.places.seats.take());
            self.state.on_no_seat();
            return Ok(());
        }
        match Subscription::open(&self.ground.session, self.channel.log(), after, true, None).await {
            Ok(mut subscription) => {
                subscription.expect(expected);
                self.subscription = Some(subscription);
                self.entries_max = ENTRIES_FIRST;
                self.state.on_subscribed();
                self.show();
                Ok(())
            }
            Err(error) => self.refused(error).await,
        }
    }

    async fn on_item(&mut self, mut item: Read) -> Result<(), RelayError> {
        if let Some(seat) = &mut self.seat {
            seat.busy();
        }
        loop {
            match item {
                Ok(Some(SubscriptionItem::Batch(records))) => {
                    let (records, then) = self.gather(records);
                    self.process_all(records).await?;
                    match then {
                        // A refusal to an agent that was just removed is not reported.
                        Some(then) if !self.state.is_left() => item = then,
                        _ => return Ok(()),
                    }
                }
                Ok(Some(SubscriptionItem::CaughtUp { head, is_confirmed })) => {
                    self.reached_head().await?;
                    if self.state.is_to_settle() {
                        self.settle().await?;
                        if self.subscription.is_none() {
                            return Ok(());
                        }
                    }
                    let is_news = self.state.on_caught_up();
                    self.show();
                    if !is_news {
                        return Ok(());
                    }
                    let channel = self.channel;
                    if !is_confirmed {
                        tracing::warn!(
                            %channel,
                            "caught up with what the relay node knows: the channel's home region does not answer it, so what was \
                             sent lately through other nodes may be missing"
                        );
                    }
                    self.ground.core.bus.tell(Event::CaughtUp {
                        channel,
                        head,
                        is_confirmed,
                    });
                    return Ok(());
                }
                Ok(None) => {
                    self.unsubscribe();
                    self.state.on_ended(Instant::now());
                    self.show();
                    return Ok(());
                }
                Err(error) => return self.refused(error).await,
            }
        }
    }

    /// Allows queued frames to be offered from now on.
    async fn reached_head(&mut self) -> Result<(), RelayError> {
        let channel = self.channel;
        let reached = self.ground.core.try_call(move |actor| {
            let events = actor.engine.reached_head(channel)?;
            actor.bus.tell_all(events);
            let diverged = actor.engine.is_diverged(channel)? | actor.engine.is_suspect(channel)?;
            Ok((
                diverged,
                actor.engine.reboot_turn(channel)?,
                actor.engine.channel(channel)?,
            ))
        });
        let (diverged, reboot, view) = local(reached.await)?;
        self.see(view);
        self.state.on_evidence(diverged);
        self.state.on_woken();
        self.state.on_reboot_due(reboot, Instant::now());
        Ok(())
    }

    /// Adds batches that are already available: one transaction for all of them. Returns the item after them, too.
    fn gather(&mut self, mut records: Vec<Record>) -> (Vec<Record>, Option<Read>) {
        let mut bytes: usize = records.iter().map(Record::encoded_len).sum();
        while records.len() < self.entries_max && bytes < ENTRIES_BYTES_MAX {
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

    /// Processes entries in transactions of at most [`Worker::entries_max`].
    async fn process_all(&mut self, mut records: Vec<Record>) -> Result<(), RelayError> {
        while !records.is_empty() && !self.state.is_left() {
            let rest = records.split_off(self.entries_max.min(records.len()));
            self.process(records).await?;
            self.entries_max = (self.entries_max * 2).min(ENTRIES_MAX);
            records = rest;
        }
        Ok(())
    }

    async fn process(&mut self, records: Vec<Record>) -> Result<(), RelayError> {
        let channel = self.channel;
        let processed = self.ground.core.try_call(move |actor| {
            let Processed { events, gap, .. } = actor.engine.process_entries(channel, &records)?;
            actor.bus.tell_all(events);
            let diverged = actor.engine.is_diverged(channel)? | actor.engine.is_suspect(channel)?;
            Ok((
                gap,
                diverged,
                actor.engine.reboot_turn(channel)?,
                actor.engine.refresh_due(channel),
                actor.engine.channel(channel)?,
            ))
        });
        let (gap, diverged, reboot, refresh, view) = local(processed.await)?;
        self.see(view);
        self.state.on_evidence(diverged);
        self.state.on_reboot_due(reboot, Instant::now());
        self.state.on_refresh_due(refresh, Instant::now());
        self.state.on_entries(Instant::now());
        match gap {
            Some(gap) => Err(RelayError::Gap {
                expected: gap.expected,
                found: gap.found,
            }),
            None => Ok(()),
        }
    }

    /// Handles an error: a refused subscription is retried later; anything else ends the session.
    async fn refused(&mut self, error: RelayError) -> Result<(), RelayError> {
        let (code, reason, offset) = match &error {
            RelayError::Refused(refused) => (refused.code(), refused.message.clone(), refused.offset),
            RelayError::Local { code, reason } => (*code, reason.clone(), self.state.cursor()),
            _ => return Err(error),
        };
        let refusal = ReadRefusal {
            code,
            retryable: error.is_retryable(),
            retry_after: error.retry_after(),
            offset,
            by_relay: error.refused().is_some(),
        };
        self.unsubscribe();
        let decision = self.state.on_read_refused(&refusal, Instant::now());
        if matches!(decision.ask, Ask::Short(_)) {
            self.move_on(decision.ask).await?;
        }
        if self.state.is_to_settle() {
            self.settle().await?;
        }
        self.show();
        if !matches!(decision.ask, Ask::Nothing | Ask::Short(_)) {
            match self.move_on(decision.ask).await {
                Ok(()) => return Ok(()),
                // It is requested again with the next attempt.
                Err(RelayError::Refused(refused)) => {
                    tracing::debug!(channel = %self.channel, %refused, "no log status");
                }
                Err(error) => return Err(error),
            }
        }
        if decision.move_on {
            self.ground.move_on(error);
        }
        if decision.tell {
            self.ground.core.bus.tell(Event::Refused {
                channel: Some(self.channel),
                code,
                reason,
                offset: refusal.offset,
            });
        }
        Ok(())
    }
}

async fn next(subscription: &mut Option<Subscription>) -> Read {
    match subscription {
        Some(subscription) => subscription.next().await,
        None => std::future::pending().await,
    }
}

async fn gives_way(seat: Option<&Seat>) {
    match seat {
        Some(seat) => seat.gives_way().await,
        None => std::future::pending().await,
    }
}

/// Resolves with `None` if the session's seats are gone.
async fn given(no_seat: &mut Option<oneshot::Receiver<Seat>>) -> Option<Seat> {
    match no_seat {
        Some(waiting) => waiting.await.ok(),
        None => std::future::pending().await,
    }
}

async fn woken(watched: &mut Option<Watched>) -> Woken {
    match watched {
        Some(watched) => watched.woken().await,
        None => std::future::pending().await,
    }
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}
