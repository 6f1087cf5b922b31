//! State machine of a channel in a session. Pure except for the jitter of its delays: the caller passes the time.
//!
//! ```text
//!            subscribe_at            CaughtUp
//!   Behind ───Subscribe──> replay ─────────────> live
//!     ^   │ no seat: wait    ^                     │
//!     │   └──────────────────┤                     │
//!     ├──── refused, ended ──┴─────────────────────┤
//!     │                                            │ the inbox is full, and nothing is to be sent
//!     ├──── half of it was acknowledged ── Paused <┤
//!     │                                            │ another channel needs the seat
//!     └──── something to read or to send ─ Watched <┘
//!
//!   any ──the log went back, and messages are unacknowledged──> Unacked: not subscribed
//!         └── acknowledged, the reader is gone, something to send, or time ──Settle──> Behind
//!
//!   something to send ──Pump──> in flight ──verdicts──> settled
//!          ^                        │
//!          └── pump_at <── refused ─┘   one frame at a time until one is taken
//! ```

use super::super::backoff::Backoff;
use super::super::bus::Followed;
use super::super::refusals::{Counted, Refusals};
use super::super::turn::Turn;
use crate::engine::{ChannelInfo, ChannelState, Outcome};
use skytale_proto::{Code, Offset};
use std::time::Duration;
use tokio::time::Instant;

/// Delays between attempts to subscribe after a refusal.
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));
/// Delays between attempts to append after a refusal.
const RETRY_APPEND: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));
/// Longest delay before appending again in a channel that receives entries.
const RETRY_LIVE: Duration = Duration::from_secs(1);
/// Time in which one member of a group replaces the leaf that it joined with, about.
const REFRESH_EACH: Duration = Duration::from_secs(1);
/// Interval at which a channel is read that cannot be watched.
const READ_EVERY: Duration = Duration::from_secs(5);
/// Number of attempts to settle in a session.
const SETTLE_MAX: u32 = 6;
/// Longest time in a session for which a channel is not read until the application has acknowledged its messages.
/// It may acknowledge only when it has read more.
const HOLD_MAX: Duration = Duration::from_secs(60);
/// Number of times that a channel may be woken without an entry before it waits.
const WOKEN_MAX: u32 = 3;
/// Bytes of frames requested from the engine at once.
pub(super) const PUMP_BYTES: usize = 256 * 1024;
/// Maximum number of a channel's frames without a verdict.
const IN_FLIGHT_MAX: usize = 1_024;

/// One channel in one session, without its streams.
#[derive(Debug)]
pub(super) struct WorkerState {
    view: ChannelInfo,
    inbox_max: u64,
    /// Whether the session is about to be left: then nothing new is appended.
    leaving: bool,
    /// Whether the channel's log is assumed to exist, so that it can be subscribed to.
    exists: bool,
    reading: Reading,
    /// Whether it was at the head, and only gave its seat to another channel since then.
    was_live: bool,
    /// Number of times that it was woken since the last entry.
    woken: u32,
    wake_backoff: Backoff,
    subscribe_at: Instant,
    subscribe_backoff: Backoff,
    reads_refused: Refusals,
    /// The obstacle to reading, with the number of consecutive attempts.
    lasting: Lasting,
    /// State of handling evidence that the log went back, in this session.
    settling: Settling,
    settle_at: Instant,
    settle_backoff: Backoff,
    /// Number of attempts to settle that failed for now.
    settle_failed: u32,
    /// End of waiting for acknowledgements, once that has begun.
    hold_until: Option<Instant>,
    /// Number of intents in the outbox that are no reason to end it.
    outbox_held: u64,
    /// Time at which this agent replaces the leaf that it joined with.
    refresh_at: Option<Instant>,
    /// Turn in which this agent recreates the group, unless another one does so earlier.
    reboot: Option<Turn>,
    /// Whether the appender's stream accepts no more frames of this log, since a refused frame will be sent again. When
    /// all frames in flight have their verdicts, the outbox is sent again in order on another stream.
    held: bool,
    in_flight: usize,
    /// Whether the engine may have frames to append.
    pump: bool,
    pump_at: Instant,
    pump_backoff: Backoff,
    appends_refused: Refusals,
    /// The last entry that the relay node has reported as appended: it arrives by the subscription.
    appended: Offset,
    /// Turn in which this agent commits the removal of leaving members, unless another one does so earlier.
    turn: Option<Turn>,
}

/// State of reading the channel's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reading {
    /// Not subscribed.
    No,
    /// Not subscribed, since the application lags.
    Paused,
    /// Not subscribed, since other channels have the session's seats.
    Waiting,
    /// Not subscribed: at the head, and watched.
    Watched,
    /// Subscribed, and not yet at the head since then.
    Replay,
    /// Subscribed, and the head was reached since then.
    Live,
}

/// State of handling evidence that the log went back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Settling {
    /// There is no evidence.
    No,
    /// The relay node must be asked for its operator's word.
    Ask,
    /// It was asked, and there is nothing to do in this session.
    Asked,
    /// It was asked. The application must first acknowledge its messages, and the log is not read meanwhile: its next
    /// entries may come after those that this agent has yet to be shown.
    Unacked,
}

/// Next step of the worker.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// End: the agent is no longer in the channel.
    Done,
    /// End the watch: subscribe again.
    Unwatch,
    /// End the subscription, and report that the application lags.
    Pause {
        /// Number of unacknowledged messages.
        unacked: u64,
    },
    /// Subscribe, then [`WorkerState::on_subscribed`] or [`WorkerState::on_read_refused`].
    Subscribe {
        /// The cursor.
        after: Offset,
        /// An entry that the log is known to have.
        expected: Offset,
    },
    /// Settle evidence that the log went back, if the operator has confirmed it. Then [`WorkerState::on_settled`], with
    /// [`WorkerState::on_moved_on`] if that was done, [`WorkerState::on_unacked`] or [`WorkerState::on_settle_failed`].
    Settle,
    /// Commit the removal of leaving members: the members before this one did not do so in time.
    TakeTurn,
    /// Replace the leaf that this agent joined with, if that is still due.
    Refresh,
    /// Recreate the group: all members are out of sync, and the members before this one did not do so in time.
    Reboot,
    /// Get frames from the engine and append them, then [`WorkerState::on_frames`].
    Pump {
        /// Whether to use another stream of the session: see [`WorkerState::on_renewed`].
        renew: bool,
        /// Bytes of frames to request. The engine returns at least one frame.
        bytes: usize,
    },
}

/// A refusal of the channel's log, by the relay node or on this side.
#[derive(Clone, Copy, Debug)]
pub(super) struct ReadRefusal {
    pub(super) code: Code,
    /// Whether a retry may succeed.
    pub(super) retryable: bool,
    pub(super) retry_after: Option<Duration>,
    /// The offset that the code is about.
    pub(super) offset: Offset,
    /// Whether the relay node refused.
    pub(super) by_relay: bool,
}

/// Obstacle to reading a channel: a code, and the number of consecutive attempts with it.
#[derive(Clone, Copy, Debug, Default)]
struct Lasting(Option<(Code, u32)>);

impl Lasting {
    const fn reset(&mut self) {
        self.0 = None;
    }

    fn count(&mut self, code: Code) {
        let before = match self.0 {
            Some((before, count)) if before == code => count,
            _ => 0,
        };
        self.0 = Some((code, before.saturating_add(1)));
    }

    /// Returns an obstacle that is considered permanent. A relay node may only lag, and another one may be tried
    /// meanwhile.
    const fn code(&self) -> Option<Code> {
        match self.0 {
            Some((code, count)) if count >= borne(code) => Some(code),
            _ => None,
        }
    }
}

/// Returns the number of consecutive attempts after which a code is considered permanent.
const fn borne(code: Code) -> u32 {
    match code {
        Code::CursorBeyondHead | Code::UnknownLog | Code::StoreCorrupt => 5,
        _ => 3,
    }
}

/// Request to the engine after a refusal of the channel's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    Nothing,
    /// The entries after the cursor are gone: get the status from the relay node, and make the engine skip them.
    Trimmed,
    /// This agent was not on the roster before an offset: make the engine continue there.
    AbsentUntil(Offset),
    /// The log permanently ends before the cursor, at this offset: the engine records it.
    Short(Offset),
}

/// Decision about a refusal of the channel's log. The subscription has ended, and the time of the next attempt is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ReadDecision {
    /// Whether to report it to the application.
    pub(super) tell: bool,
    /// Whether to look for another relay node.
    pub(super) move_on: bool,
    /// Request to the engine.
    pub(super) ask: Ask,
}

/// Decision about an append's verdict, besides passing it to the engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct AppendDecision {
    /// An entry that the log has, which the subscription must expect.
    pub(super) expect: Option<Offset>,
    /// Report to the application that sends are held, with the longest delay.
    pub(super) tell_held: Option<Duration>,
    /// Whether to look for another relay node.
    pub(super) move_on: bool,
}

impl WorkerState {
    /// Creates the state at the start of a session. `inbox_max` is the maximum number of unacknowledged messages.
    pub(super) fn new(view: ChannelInfo, inbox_max: u64, now: Instant) -> Self {
        Self {
            exists: view.state != ChannelState::Creating,
            view,
            inbox_max: inbox_max.max(1),
            leaving: false,
            reading: Reading::No,
            was_live: false,
            woken: 0,
            wake_backoff: Backoff::new(RETRY.0, RETRY.1),
            subscribe_at: now,
            subscribe_backoff: Backoff::new(RETRY.0, RETRY.1),
            reads_refused: Refusals::default(),
            lasting: Lasting::default(),
            settling: Settling::No,
            settle_at: now,
            settle_backoff: Backoff::new(RETRY.0, RETRY.1),
            settle_failed: 0,
            hold_until: None,
            outbox_held: 0,
            refresh_at: None,
            reboot: None,
            held: false,
            in_flight: 0,
            pump: true,
            pump_at: now,
            pump_backoff: Backoff::new(RETRY_APPEND.0, RETRY_APPEND.1),
            appends_refused: Refusals::default(),
            appended: Offset::ZERO,
            turn: None,
        }
    }

    // ---- what to do

    /// Returns the next step. `None`: wait for an event, or until [`WorkerState::wake`].
    pub(super) fn next(&mut self, now: Instant) -> Option<Step> {
        if self.is_left() {
            return Some(Step::Done);
        }
        if let Some(unacked) = self.heed_backpressure(now) {
            return Some(Step::Pause { unacked });
        }
        if self.reading == Reading::Watched && self.view.outbox > 0 {
            // Its own frames come back by the subscription.
            self.reading = Reading::No;
            self.subscribe_at = now;
            return Some(Step::Unwatch);
        }
        if self.waits_for_reader() && !self.may_wait_for_reader(now) {
            self.settling = Settling::Ask;
        }
        match self.settling {
            Settling::Ask if now >= self.settle_at => return Some(Step::Settle),
            Settling::Unacked => return None,
            _ => {}
        }
        if self.wants_subscription() && now >= self.subscribe_at {
            return Some(Step::Subscribe {
                after: self.view.cursor,
                expected: self.appended,
            });
        }
        if self.turn.is_some_and(|turn| now >= turn.at) {
            self.turn = None;
            self.pump = true;
            return Some(Step::TakeTurn);
        }
        if self.reboot.is_some_and(|turn| now >= turn.at) {
            self.reboot = None;
            self.pump = true;
            return Some(Step::Reboot);
        }
        if self.is_at_head() && self.refresh_at.is_some_and(|at| now >= at) {
            self.refresh_at = None;
            self.pump = true;
            return Some(Step::Refresh);
        }
        if self.pump && self.may_offer() && now >= self.pump_at {
            return Some(Step::Pump {
                renew: self.held,
                bytes: if self.is_probing() { 1 } else { PUMP_BYTES },
            });
        }
        None
    }

    /// Returns when [`WorkerState::next`] will have a step, as far as is known now.
    pub(super) fn wake(&self) -> Option<Instant> {
        if self.waits_for_reader() {
            return self.hold_until;
        }
        let wake = [
            (self.settling == Settling::Ask).then_some(self.settle_at),
            self.wants_subscription().then_some(self.subscribe_at),
            (self.pump && self.may_offer()).then_some(self.pump_at),
            self.turn.map(|turn| turn.at),
            self.reboot.map(|turn| turn.at),
            self.refresh_at.filter(|_| self.is_at_head()),
        ];
        wake.into_iter().flatten().min()
    }

    /// Returns the progress of following the channel.
    pub(super) const fn followed(&self) -> Followed {
        match self.reading {
            _ if self.is_left() => Followed::Left,
            _ if self.waits_for_reader() => Followed::Paused,
            Reading::No | Reading::Waiting | Reading::Replay if self.was_live => Followed::Live,
            Reading::No | Reading::Waiting | Reading::Replay => match self.lasting.code() {
                Some(code) => Followed::Refused(code),
                None => Followed::Behind,
            },
            Reading::Paused => Followed::Paused,
            Reading::Live | Reading::Watched => Followed::Live,
        }
    }

    const fn is_at_head(&self) -> bool {
        matches!(self.reading, Reading::Live | Reading::Watched)
    }

    pub(super) const fn is_left(&self) -> bool {
        matches!(self.view.state, ChannelState::Left)
    }

    pub(super) const fn cursor(&self) -> Offset {
        self.view.cursor
    }

    /// Returns the number of intents in the outbox.
    pub(super) const fn outbox(&self) -> u64 {
        self.view.outbox
    }

    /// Whether frames may currently be offered to the relay node.
    const fn may_offer(&self) -> bool {
        let most = if self.held || self.is_probing() {
            1
        } else {
            IN_FLIGHT_MAX
        };
        !self.leaving && self.in_flight < most
    }

    /// Whether the relay node refused the last frame for a reason of its own: then one frame probes whether it accepts
    /// again.
    const fn is_probing(&self) -> bool {
        self.appends_refused.any()
    }

    const fn wants_subscription(&self) -> bool {
        let is_settled = matches!(self.settling, Settling::No | Settling::Asked);
        self.exists && matches!(self.reading, Reading::No) && is_settled
    }

    /// Whether the channel is not read until the application has acknowledged its messages, is no longer reading
    /// ([`WorkerState::on_reader_gone`]), sends something, or [`HOLD_MAX`] is over.
    pub(super) const fn waits_for_reader(&self) -> bool {
        matches!(self.settling, Settling::Unacked)
    }

    /// Applies backpressure. Returns the number of waiting messages if the channel must pause now.
    fn heed_backpressure(&mut self, now: Instant) -> Option<u64> {
        if self.waits_for_reader() {
            return None;
        }
        let (unacked, was_paused) = (self.view.unacked, self.reading == Reading::Paused);
        let full = if was_paused {
            unacked > self.inbox_max / 2
        } else {
            unacked >= self.inbox_max
        };
        let paused = full && self.view.outbox == 0;
        match (was_paused, paused) {
            (false, true) => {
                self.was_live = false;
                self.unsubscribe(Duration::ZERO, now);
                self.reading = Reading::Paused;
                Some(unacked)
            }
            (true, false) => {
                self.reading = Reading::No;
                None
            }
            _ => None,
        }
    }

    fn unsubscribe(&mut self, pause: Duration, now: Instant) {
        if self.reading != Reading::Paused {
            self.reading = Reading::No;
        }
        self.subscribe_at = now + pause;
    }

    // ---- what happened

    /// Sets whether the session is about to be left.
    pub(super) const fn on_leaving(&mut self, leaving: bool) {
        self.leaving = leaving;
    }

    /// Updates the channel's state from the vault. Returns whether its outbox has become empty.
    pub(super) fn on_view(&mut self, view: ChannelInfo) -> bool {
        let settled = view.outbox == 0 && self.view.outbox > 0;
        self.view = view;
        if self.waits_for_reader() {
            if self.view.unacked == 0 || self.view.outbox > self.outbox_held {
                self.settling = Settling::Ask;
            }
            self.outbox_held = self.outbox_held.min(self.view.outbox);
        }
        settled
    }

    /// Sets whether there is evidence that the log went back. It is examined once per session: the operator's word
    /// comes with a restarted node, and a member's messages must not make this agent read the log repeatedly. Entries
    /// without evidence take nothing back of earlier ones.
    pub(super) fn on_evidence(&mut self, is_there: bool) {
        if is_there && self.settling == Settling::No {
            self.settling = Settling::Ask;
        }
    }

    /// Whether [`Step::Settle`] comes next: nothing is reported of the channel before it is done.
    pub(super) fn is_to_settle(&self) -> bool {
        self.settling == Settling::Ask
    }

    /// Handles that there is nothing to settle in this session, or that it is done.
    pub(super) const fn on_settled(&mut self) {
        self.settling = Settling::Asked;
    }

    /// Handles that it could not be settled, for a reason that may pass: it is retried, and the log is not read before,
    /// but in the end it is.
    pub(super) fn on_settle_failed(&mut self, retry_after: Option<Duration>, now: Instant) {
        self.settle_failed += 1;
        if self.settle_failed >= SETTLE_MAX {
            self.settling = Settling::Asked;
        } else {
            self.settling = Settling::Ask;
            self.settle_at = now + self.settle_backoff.next(retry_after);
        }
    }

    /// Whether the application's acknowledgements may be waited for.
    pub(super) fn may_wait_for_reader(&self, now: Instant) -> bool {
        self.hold_until.is_none_or(|until| now < until)
    }

    /// Handles that it can be settled once the application has acknowledged its messages. The subscription has ended.
    pub(super) fn on_unacked(&mut self, now: Instant) {
        self.settling = Settling::Unacked;
        self.hold_until.get_or_insert(now + HOLD_MAX);
        self.outbox_held = self.view.outbox;
        self.was_live = false;
        self.reading = Reading::No;
        self.subscribe_at = now;
    }

    /// Handles that no reader is left that could acknowledge messages.
    pub(super) fn on_reader_gone(&mut self) {
        if self.waits_for_reader() {
            self.settling = Settling::Ask;
        }
    }

    /// Handles a send or an acknowledgement of the application.
    pub(super) const fn on_woken(&mut self) {
        self.pump = true;
    }

    /// Handles a failure of the vault: the channel's state in memory is still valid, and everything is retried.
    pub(super) fn on_vault_failed(&mut self, code: Code, now: Instant) {
        if matches!(code, Code::VaultDamaged | Code::Mls) {
            self.lasting.count(code);
        }
        if matches!(self.settling, Settling::Ask | Settling::Unacked) {
            self.on_settle_failed(None, now);
        }
        self.was_live = false;
        let pause = self.pump_backoff.next(None);
        self.pump_at = now + pause;
        self.pump = true;
        self.unsubscribe(pause, now);
    }

    /// Handles that there is no seat for the subscription that [`Step::Subscribe`] requested.
    pub(super) const fn on_no_seat(&mut self) {
        self.reading = Reading::Waiting;
    }

    /// Handles a seat that the channel waited for.
    pub(super) fn on_seat(&mut self, now: Instant) {
        if self.reading == Reading::Waiting {
            self.reading = Reading::No;
            self.subscribe_at = now;
        }
    }

    /// Whether the channel can give its seat to another one: it is at its head, and nothing of its own is on the way.
    pub(super) fn may_be_watched(&self) -> bool {
        self.reading == Reading::Live
            && self.view.outbox == 0
            && self.in_flight == 0
            && self.appended <= self.view.cursor
            && self.settling != Settling::Ask
    }

    /// Handles that the channel is watched.
    pub(super) const fn on_watched(&mut self) {
        self.reading = Reading::Watched;
        self.was_live = true;
    }

    /// Handles the end of the watch: there is something to read, or the channel cannot be watched.
    pub(super) fn on_woken_up(&mut self, is_ready: bool, now: Instant) {
        if self.reading != Reading::Watched {
            return;
        }
        self.woken += u32::from(is_ready);
        let pause = match is_ready {
            true if self.woken <= WOKEN_MAX => Duration::ZERO,
            // The relay node says so, and there is nothing.
            true => self.wake_backoff.next(None),
            false => READ_EVERY,
        };
        self.unsubscribe(pause, now);
    }

    /// Handles the subscription that [`Step::Subscribe`] requested.
    pub(super) const fn on_subscribed(&mut self) {
        self.reading = Reading::Replay;
    }

    /// Handles that every known member is out of sync, with the number of members before this one in the turn to
    /// recreate the group.
    pub(super) fn on_reboot_due(&mut self, before: Option<u32>, now: Instant) {
        self.reboot = Turn::next(before, self.view.handshake_head, self.reboot, now);
    }

    /// Handles whether this agent should replace the leaf that it joined with, in a group of so many members. The wait is
    /// random, so that members who joined together do not all commit at once, and is not begun again by other commits.
    pub(super) fn on_refresh_due(&mut self, members: Option<u32>, now: Instant) {
        self.refresh_at = members.map(|members| {
            let wait = (REFRESH_EACH * members).mul_f64(rand::random());
            self.refresh_at.unwrap_or(now + wait)
        });
    }

    /// Handles that the engine has skipped entries that the log no longer shows.
    pub(super) fn on_moved_on(&mut self, now: Instant) {
        self.was_live = false;
        self.subscribe_backoff.reset();
        self.reads_refused.reset();
        self.lasting.reset();
        self.unsubscribe(Duration::ZERO, now);
        self.pump = true;
    }

    /// Handles new entries, stored in the vault.
    pub(super) fn on_entries(&mut self, now: Instant) {
        self.woken = 0;
        self.wake_backoff.reset();
        self.lasting.reset();
        self.subscribe_backoff.reset();
        self.reads_refused.reset();
        // The head may have moved: stale frames can be rebuilt.
        self.pump = true;
        if self.is_probing() {
            // Entries of others arrive, so this agent's frames may be accepted again, too.
            self.pump_at = self.pump_at.min(now + RETRY_LIVE);
        }
    }

    /// Handles that the head was reached. Returns whether that is news: not if the channel only gave its seat to another
    /// one meanwhile.
    pub(super) fn on_caught_up(&mut self) -> bool {
        self.subscribe_backoff.reset();
        self.reads_refused.reset();
        self.lasting.reset();
        if matches!(self.reading, Reading::Replay) {
            self.reading = Reading::Live;
        }
        !std::mem::take(&mut self.was_live)
    }

    /// Handles that the relay node ended the subscription without a reason.
    pub(super) fn on_ended(&mut self, now: Instant) {
        self.was_live = false;
        let pause = self.subscribe_backoff.next(None);
        self.unsubscribe(pause, now);
    }

    /// Handles a refusal of the channel's log, by its code. It is retried later in any case.
    pub(super) fn on_read_refused(&mut self, refusal: &ReadRefusal, now: Instant) -> ReadDecision {
        let ReadRefusal {
            code,
            retryable,
            retry_after,
            by_relay,
            offset,
        } = *refusal;
        self.was_live = false;
        // A lagging relay node of a fleet may not know this yet.
        let may_pass = matches!(code, Code::CursorBeyondHead | Code::UnknownLog | Code::NotMember);
        let pause = if retryable || may_pass {
            self.subscribe_backoff.next(retry_after)
        } else {
            self.subscribe_backoff.longest(retry_after)
        };
        self.unsubscribe(pause, now);
        if code == Code::Draining {
            // The end of the session reports it.
            return ReadDecision {
                tell: false,
                move_on: false,
                ask: Ask::Nothing,
            };
        }
        let counted = match by_relay {
            true => self.reads_refused.count(code),
            false => Counted::No,
        };
        let ask = match code {
            Code::Trimmed if by_relay => Ask::Trimmed,
            Code::NotMember if by_relay && offset > self.view.cursor.next() => Ask::AbsentUntil(offset),
            _ => Ask::Nothing,
        };
        if by_relay && (may_pass || !retryable) {
            self.lasting.count(code);
        }
        let ask = match self.lasting.code() {
            Some(Code::CursorBeyondHead) if code == Code::CursorBeyondHead => Ask::Short(offset),
            // It did exist, since this agent has read it.
            Some(Code::UnknownLog) if code == Code::UnknownLog && self.view.cursor > Offset::ZERO => {
                Ask::Short(Offset::ZERO)
            }
            _ => ask,
        };
        if by_relay && self.lasting.code() == Some(Code::NotMember) && self.settling == Settling::No {
            // According to the entries it was shown, it is in the channel: the log may have gone back.
            self.settling = Settling::Ask;
        }
        ReadDecision {
            ask,
            tell: code != Code::CursorBeyondHead || self.reads_refused.are_too_many(),
            move_on: counted == Counted::TooMany,
        }
    }

    /// Handles a new append stream, on which the log is not held.
    pub(super) const fn on_renewed(&mut self) {
        self.held = false;
    }

    /// Records the number of frames from the engine, now in flight. `turn` is the number of members before this agent
    /// in the turn to commit the removal of leaving members.
    pub(super) fn on_frames(&mut self, count: usize, turn: Option<u32>, now: Instant) {
        self.turn = Turn::next(turn, self.view.handshake_head, self.turn, now);
        // Without frames there is nothing to request before the next event.
        self.pump = count > 0;
        self.in_flight += count;
    }

    /// Handles a frame's verdict; `None` if it was lost with the stream. `retry_after` is the delay that the relay node
    /// requested.
    pub(super) fn on_verdict(
        &mut self,
        outcome: Option<&Outcome>,
        retry_after: Option<Duration>,
        now: Instant,
    ) -> AppendDecision {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.pump = true;
        let mut decision = AppendDecision::default();
        match outcome {
            None => {}
            Some(Outcome::Appended { offset } | Outcome::Duplicate { offset }) => {
                self.appended = self.appended.max(*offset);
                decision.expect = Some(*offset);
                self.exists = true;
                self.pump_backoff.reset();
                self.appends_refused.reset();
            }
            // Frames behind a refused one are refused like it.
            Some(Outcome::Refused { retryable: true, .. }) if self.held => {}
            Some(Outcome::Refused { retryable: true, code }) => {
                self.held = code.holds_log();
                let pause = self.pump_backoff.next(retry_after);
                self.pump_at = self.pump_at.max(now + pause);
                let counted = self.appends_refused.count(*code);
                decision.tell_held = (counted != Counted::No).then_some(pause);
                decision.move_on = counted == Counted::TooMany;
            }
            // The log has given a verdict.
            Some(_) => self.appends_refused.reset(),
        }
        decision
    }
}

#[cfg(test)]
mod tests;
