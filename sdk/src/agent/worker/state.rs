//! What a channel does next in a session. Pure except for the jitter of its waits: time is given.
//!
//! ```text
//!            subscribe_at            CaughtUp
//!   Behind ───Subscribe──> replay ─────────────> live
//!     ^                      │                     │
//!     └──── refused, ended ──┴─────────────────────┤
//!     ^                                            │ the inbox is full, and nothing is to be sent
//!     └──── half of it was acknowledged ── Paused <┘
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

/// Between attempts to subscribe after a refusal.
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));
/// Between attempts to append after a refusal.
const RETRY_APPEND: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));
/// The longest wait of what is to be sent, in a channel in which something comes.
const RETRY_LIVE: Duration = Duration::from_secs(1);
/// Frames asked of the engine at once, in bytes.
pub(super) const PUMP_BYTES: usize = 256 * 1024;
/// Frames of one channel without a verdict.
const IN_FLIGHT_MAX: usize = 1_024;

/// One channel in one session, without its streams.
#[derive(Debug)]
pub(super) struct WorkerState {
    view: ChannelInfo,
    inbox_max: u64,
    /// The session is about to be left: nothing new is appended.
    leaving: bool,
    /// The channel's log exists, as far as is known: it can be subscribed to.
    exists: bool,
    reading: Reading,
    subscribe_at: Instant,
    subscribe_backoff: Backoff,
    reads_refused: Refusals,
    /// What stood in the way of reading, by attempts in a row.
    lasting: Lasting,
    /// Whether there is evidence that the log went back, and what was done about it in this session.
    settling: Settling,
    /// When this agent begins the group again, unless another does before.
    reboot: Option<Turn>,
    /// The appender's stream takes no more of this log, since a frame was refused that will be sent again. When all in
    /// flight have their verdicts, the outbox is sent again in order on another stream.
    held: bool,
    in_flight: usize,
    /// The engine may have something to append.
    pump: bool,
    pump_at: Instant,
    pump_backoff: Backoff,
    appends_refused: Refusals,
    /// The last entry that this agent's relay node said it has appended: it comes back by the subscription.
    appended: Offset,
    /// When this agent commits for those who leave, unless another does before.
    turn: Option<Turn>,
}

/// How the channel's log is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reading {
    /// Not subscribed.
    No,
    /// Not subscribed, since the application has not kept up.
    Paused,
    /// Subscribed, and not at the head yet since then.
    Replay,
    /// Subscribed, and the head was reached since then.
    Live,
}

/// What is done about evidence that the log went back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Settling {
    /// There is none.
    No,
    /// The relay node is to be asked for its operator's word.
    Ask,
    /// It was asked, and there is nothing to be done in this session.
    Asked,
    /// The application is to acknowledge first what it was shown.
    Unacked,
}

/// What the worker does next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// End: the agent is no longer in the channel.
    Done,
    /// End the subscription, and tell that the application has not kept up.
    Pause {
        /// Messages that were not acknowledged.
        unacked: u64,
    },
    /// Subscribe, then [`WorkerState::on_subscribed`] or [`WorkerState::on_read_refused`].
    Subscribe {
        /// The cursor.
        after: Offset,
        /// An entry that the log is known to have.
        expected: Offset,
    },
    /// There is evidence that the log went back: settle it, where the operator has said that it did. Then
    /// [`WorkerState::on_unsettled`], or [`WorkerState::on_moved_on`].
    Settle,
    /// Commit for those who leave: nobody has let them go in the time that was theirs.
    TakeTurn,
    /// Begin the group again: all members are out of sync, and none has done it in the time that was theirs.
    Reboot,
    /// Ask the engine for frames and append them, then [`WorkerState::on_frames`].
    Pump {
        /// On another stream of the session: see [`WorkerState::on_renewed`].
        renew: bool,
        /// How much to ask for. At least one frame is given.
        bytes: usize,
    },
}

/// A refusal of the channel's log, by the relay node or on this side.
#[derive(Clone, Copy, Debug)]
pub(super) struct ReadRefusal {
    pub(super) code: Code,
    /// Whether the same may succeed later.
    pub(super) retryable: bool,
    pub(super) retry_after: Option<Duration>,
    /// The offset that the code is about.
    pub(super) offset: Offset,
    /// It was the relay node that refused.
    pub(super) by_relay: bool,
}

/// What kept a channel from being read, by attempts in a row with one code.
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

    /// What is believed to last. A relay node may only be behind, and another one may be tried meanwhile.
    const fn code(&self) -> Option<Code> {
        match self.0 {
            Some((code, count)) if count >= borne(code) => Some(code),
            _ => None,
        }
    }
}

/// After so many attempts in a row, what they ended with is believed to last.
const fn borne(code: Code) -> u32 {
    match code {
        Code::CursorBeyondHead | Code::UnknownLog | Code::StoreCorrupt => 5,
        _ => 3,
    }
}

/// What the engine is asked about a refusal of the channel's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    Nothing,
    /// The entries after the cursor are gone: ask the relay node what is gone, and the engine to go on behind them.
    Trimmed,
    /// This agent was not on the roster before an offset: ask the engine to go on there.
    AbsentUntil(Offset),
    /// The log ends before the cursor, at this offset, and that lasts: the engine records it.
    Short(Offset),
}

/// What is done about a refusal of the channel's log. The subscription has ended, and the time of the next attempt is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ReadDecision {
    /// The application learns it.
    pub(super) tell: bool,
    /// Another relay node is looked for.
    pub(super) move_on: bool,
    /// What leads on.
    pub(super) ask: Ask,
}

/// What is done about an append's verdict, besides telling the engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct AppendDecision {
    /// The subscription learns of an entry that the log has.
    pub(super) expect: Option<Offset>,
    /// The application learns that what is to be sent is held, and until when at the latest.
    pub(super) tell_held: Option<Duration>,
    /// Another relay node is looked for.
    pub(super) move_on: bool,
}

impl WorkerState {
    /// A channel at the beginning of a session. `inbox_max` is how many messages may wait for an acknowledgement.
    pub(super) fn new(view: ChannelInfo, inbox_max: u64, now: Instant) -> Self {
        Self {
            exists: view.state != ChannelState::Creating,
            view,
            inbox_max: inbox_max.max(1),
            leaving: false,
            reading: Reading::No,
            subscribe_at: now,
            subscribe_backoff: Backoff::new(RETRY.0, RETRY.1),
            reads_refused: Refusals::default(),
            lasting: Lasting::default(),
            settling: Settling::No,
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

    /// What is to be done now. `None`: wait until something happens, or for [`WorkerState::wake`].
    pub(super) fn next(&mut self, now: Instant) -> Option<Step> {
        if self.is_left() {
            return Some(Step::Done);
        }
        if let Some(unacked) = self.heed_backpressure(now) {
            return Some(Step::Pause { unacked });
        }
        if self.settling == Settling::Ask {
            return Some(Step::Settle);
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
        if self.pump && self.may_offer() && now >= self.pump_at {
            return Some(Step::Pump {
                renew: self.held,
                bytes: if self.is_probing() { 1 } else { PUMP_BYTES },
            });
        }
        None
    }

    /// When [`WorkerState::next`] has something to do next, as far as is known now.
    pub(super) fn wake(&self) -> Option<Instant> {
        let wake = [
            self.wants_subscription().then_some(self.subscribe_at),
            (self.pump && self.may_offer()).then_some(self.pump_at),
            self.turn.map(|turn| turn.at),
            self.reboot.map(|turn| turn.at),
        ];
        wake.into_iter().flatten().min()
    }

    /// How far the channel is followed.
    pub(super) const fn followed(&self) -> Followed {
        match self.reading {
            _ if self.is_left() => Followed::Left,
            Reading::No | Reading::Replay => match self.lasting.code() {
                Some(code) => Followed::Refused(code),
                None => Followed::Behind,
            },
            Reading::Paused => Followed::Paused,
            Reading::Live => Followed::Live,
        }
    }

    pub(super) const fn is_left(&self) -> bool {
        matches!(self.view.state, ChannelState::Left)
    }

    pub(super) const fn cursor(&self) -> Offset {
        self.view.cursor
    }

    /// Intents in the outbox.
    pub(super) const fn outbox(&self) -> u64 {
        self.view.outbox
    }

    /// Whether frames may be offered to the relay node in this session, as things are.
    const fn may_offer(&self) -> bool {
        let most = if self.held || self.is_probing() {
            1
        } else {
            IN_FLIGHT_MAX
        };
        !self.leaving && self.in_flight < most
    }

    /// The relay node did not take what was sent last, for a reason of its own: one frame shows whether it does again.
    const fn is_probing(&self) -> bool {
        self.appends_refused.any()
    }

    const fn wants_subscription(&self) -> bool {
        self.exists && matches!(self.reading, Reading::No)
    }

    /// Pauses or goes on; what waits where the channel is to be paused now.
    fn heed_backpressure(&mut self, now: Instant) -> Option<u64> {
        let (unacked, was_paused) = (self.view.unacked, self.reading == Reading::Paused);
        let full = if was_paused {
            unacked > self.inbox_max / 2
        } else {
            unacked >= self.inbox_max
        };
        let paused = full && self.view.outbox == 0;
        match (was_paused, paused) {
            (false, true) => {
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

    /// The session is about to be left, or not.
    pub(super) const fn on_leaving(&mut self, leaving: bool) {
        self.leaving = leaving;
    }

    /// The vault has the channel so now. Whether its outbox has become empty.
    pub(super) fn on_view(&mut self, view: ChannelInfo) -> bool {
        let settled = view.outbox == 0 && self.view.outbox > 0;
        if self.settling == Settling::Unacked && view.unacked == 0 {
            self.settling = Settling::Ask;
        }
        self.view = view;
        settled
    }

    /// Whether there is evidence that the log went back. It is gone into once in a session: the operator's word comes with a
    /// node that was started since, and what a member sends must not make this agent read the log again and again.
    pub(super) fn on_evidence(&mut self, is_there: bool) {
        self.settling = match (is_there, self.settling) {
            (false, Settling::Ask) => Settling::No,
            (true, Settling::No) => Settling::Ask,
            (_, settling) => settling,
        };
    }

    /// Whether [`Step::Settle`] is what comes next: nothing is reported of the channel before it is done.
    pub(super) fn is_to_settle(&self) -> bool {
        self.settling == Settling::Ask
    }

    /// It cannot be settled now; `unacked` where it can be when the application has acknowledged what it was shown.
    pub(super) const fn on_unsettled(&mut self, unacked: bool) {
        self.settling = match unacked {
            true => Settling::Unacked,
            false => Settling::Asked,
        };
    }

    /// The application has sent or acknowledged something.
    pub(super) const fn on_woken(&mut self) {
        self.pump = true;
    }

    /// The vault failed: what is in memory of this channel is as good as it was, and all of it is tried again.
    pub(super) fn on_vault_failed(&mut self, code: Code, now: Instant) {
        if matches!(code, Code::VaultDamaged | Code::Mls) {
            self.lasting.count(code);
        }
        if self.settling == Settling::Ask {
            self.settling = Settling::Asked;
        }
        let pause = self.pump_backoff.next(None);
        self.pump_at = now + pause;
        self.pump = true;
        self.unsubscribe(pause, now);
    }

    /// The subscription that [`Step::Subscribe`] asked for is there.
    pub(super) const fn on_subscribed(&mut self) {
        self.reading = Reading::Replay;
    }

    /// Every member that is known is out of sync, and so many are before this one in beginning the group again.
    pub(super) fn on_reboot_due(&mut self, before: Option<u32>, now: Instant) {
        self.reboot = Turn::next(before, self.view.handshake_head, self.reboot, now);
    }

    /// The engine goes on behind what the log no longer shows.
    pub(super) fn on_moved_on(&mut self, now: Instant) {
        self.subscribe_backoff.reset();
        self.reads_refused.reset();
        self.lasting.reset();
        self.unsubscribe(Duration::ZERO, now);
        self.pump = true;
    }

    /// Entries came, and the vault has them.
    pub(super) fn on_entries(&mut self, now: Instant) {
        self.lasting.reset();
        self.subscribe_backoff.reset();
        self.reads_refused.reset();
        // The head may have moved: what was stale can be built again.
        self.pump = true;
        if self.is_probing() {
            // What others send comes: what this one sends may be taken again, too.
            self.pump_at = self.pump_at.min(now + RETRY_LIVE);
        }
    }

    /// The head was reached.
    pub(super) fn on_caught_up(&mut self) {
        self.subscribe_backoff.reset();
        self.reads_refused.reset();
        self.lasting.reset();
        if matches!(self.reading, Reading::Replay) {
            self.reading = Reading::Live;
        }
    }

    /// The relay node ended the subscription without a word.
    pub(super) fn on_ended(&mut self, now: Instant) {
        let pause = self.subscribe_backoff.next(None);
        self.unsubscribe(pause, now);
    }

    /// The channel's log was refused: what to do about it, by the code. It is tried again later in any case.
    pub(super) fn on_read_refused(&mut self, refusal: &ReadRefusal, now: Instant) -> ReadDecision {
        let ReadRefusal {
            code,
            retryable,
            retry_after,
            by_relay,
            offset,
        } = *refusal;
        // A relay node of a fleet that has not followed so far yet says that it does not know this.
        let may_pass = matches!(code, Code::CursorBeyondHead | Code::UnknownLog | Code::NotMember);
        let pause = if retryable || may_pass {
            self.subscribe_backoff.next(retry_after)
        } else {
            self.subscribe_backoff.longest(retry_after)
        };
        self.unsubscribe(pause, now);
        if code == Code::Draining {
            // The session's end tells it.
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
            // It was there, since this agent has read it.
            Some(Code::UnknownLog) if code == Code::UnknownLog && self.view.cursor > Offset::ZERO => {
                Ask::Short(Offset::ZERO)
            }
            _ => ask,
        };
        if by_relay && self.lasting.code() == Some(Code::NotMember) && self.settling == Settling::No {
            // It was in the channel by what it was shown: the log may have gone back.
            self.settling = Settling::Ask;
        }
        ReadDecision {
            ask,
            tell: code != Code::CursorBeyondHead || self.reads_refused.are_too_many(),
            move_on: counted == Counted::TooMany,
        }
    }

    /// There is another stream to append on: nothing holds the log there.
    pub(super) const fn on_renewed(&mut self) {
        self.held = false;
    }

    /// The engine gave so many frames, which are on their way. `turn` is how many members are before this agent in committing
    /// for those who leave.
    pub(super) fn on_frames(&mut self, count: usize, turn: Option<u32>, now: Instant) {
        self.turn = Turn::next(turn, self.view.handshake_head, self.turn, now);
        // With nothing given there is nothing to ask for before something happens.
        self.pump = count > 0;
        self.in_flight += count;
    }

    /// A frame has its verdict; `None` where it was lost with the stream. `retry_after` is what the relay node asked for.
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
            // Those behind one that was refused are refused like it.
            Some(Outcome::Refused { retryable: true, .. }) if self.held => {}
            Some(Outcome::Refused { retryable: true, code }) => {
                self.held = code.holds_log();
                let pause = self.pump_backoff.next(retry_after);
                self.pump_at = self.pump_at.max(now + pause);
                let counted = self.appends_refused.count(*code);
                decision.tell_held = (counted != Counted::No).then_some(pause);
                decision.move_on = counted == Counted::TooMany;
            }
            // The log has spoken.
            Some(_) => self.appends_refused.reset(),
        }
        decision
    }
}

#[cfg(test)]
mod tests;
