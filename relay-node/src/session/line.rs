//! The requests of one append stream that have no answer yet, in order; and the logs that the stream holds back, so
//! that an author's frames never change places. Pure: the caller brings the waker and the time.
//!
//! ```text
//!   reading:  LogStore::append called -> check(log) -> its future polled -> push(...)
//!   writing:  next() -> the answer that is due
//! ```
//!
//! Once a frame of a log was refused so that it will be sent again ([`Code::holds_log`]), no later one of that log may
//! be accepted on the same stream. A refusal of this node is known before the next frame is read. A refusal of the
//! store comes later, and perhaps behind another log's verdict that is still out: so [`Line::check`] itself asks for
//! the reports on the log's frames so far. Frames that the store has by then are its business, by the promise of
//! [`LogStore`](skytale_log_store::LogStore).

use crate::refusal;
use crate::session::append::InFlight;
use crate::usage::Charge;
use futures_util::future::BoxFuture;
use skytale_log_store::{Accepted, AppendError, PendingAppend};
use skytale_proto::session::Refusal;
use skytale_proto::{Code, Kind, LogId};
use skytale_workload::tap::Shape;
use std::collections::{HashMap, VecDeque};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::Instant;
use tracing::warn;

/// Logs that one stream holds back by name. With more it takes nothing at all.
const HELD_LOGS_MAX: usize = 256;

/// One request, as far as its answer needs it.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) kind: Option<Kind>,
    /// The log, where the frame could be read.
    pub(crate) log: Option<LogId>,
    /// The frame, where there is a tap.
    pub(crate) shape: Option<Shape>,
    pub(crate) read: Instant,
    /// Charge to its account, once it was counted.
    pub(crate) charge: Option<Charge>,
    pub(crate) in_flight: InFlight,
}

/// A request's answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) request: Request,
    /// The store was asked.
    pub(crate) asked: bool,
    pub(crate) outcome: Result<Accepted, Refusal>,
}

/// Requests without an answer.
#[derive(Default)]
pub(crate) struct Line {
    waiting: VecDeque<Waiting>,
    /// The number of the first one.
    first: u64,
    /// Numbers of the frames of each log whose verdict is not known.
    unknown: HashMap<LogId, VecDeque<u64>>,
    hold: Hold,
}

struct Waiting {
    request: Request,
    asked: bool,
    verdict: Verdict,
}

enum Verdict {
    Unknown(BoxFuture<'static, Result<Accepted, AppendError>>),
    Known(Result<Accepted, Refusal>),
}

impl Line {
    /// Whether a frame of this log may go to the store: not after one that the store or this node refused and that will be
    /// sent again.
    pub(crate) fn check(&mut self, log: &LogId, now: Instant, cx: &mut Context<'_>) -> Result<(), Refusal> {
        // Verdicts of one log are given in order: behind one that is out there is none. Except a bundle: it is answered when its
        // Welcomes are in their logs, too, and a frame behind it may be refused before that.
        let mut place = 0;
        while let Some(number) = self.unknown.get(log).and_then(|numbers| numbers.get(place).copied()) {
            let Some(at) = self.place_of(number) else { break };
            if self.settle(at, now, cx) {
                continue;
            }
            if self.waiting[at].request.kind != Some(Kind::Commit) {
                break;
            }
            place += 1;
        }
        self.hold.check(log, now)
    }

    /// The place of a request in the line.
    fn place_of(&self, number: u64) -> Option<usize> {
        let at = usize::try_from(number.checked_sub(self.first)?).ok()?;
        (at < self.waiting.len()).then_some(at)
    }

    /// Adds a request at the end: refused, or on its way in the store.
    pub(crate) fn push(&mut self, request: Request, outcome: Result<PendingAppend, Refusal>, now: Instant) {
        let asked = outcome.is_ok();
        let verdict = match outcome {
            Ok(pending) => {
                if let Some(log) = request.log {
                    let number = self.first + self.waiting.len() as u64;
                    self.unknown.entry(log).or_default().push_back(number);
                }
                Verdict::Unknown(Box::pin(pending.verdict()))
            }
            Err(refusal) => {
                if let Some(log) = request.log {
                    self.hold.heed(log, &refusal, now);
                }
                Verdict::Known(Err(refusal))
            }
        };
        self.waiting.push_back(Waiting {
            request,
            asked,
            verdict,
        });
    }

    /// The first request's answer, once it is known. Pending also where there is no request.
    pub(crate) fn next(&mut self, now: Instant, cx: &mut Context<'_>) -> Poll<Answer> {
        if !self.settle(0, now, cx) {
            return Poll::Pending;
        }
        match self.waiting.pop_front() {
            Some(Waiting {
                request,
                asked,
                verdict: Verdict::Known(outcome),
            }) => {
                self.first += 1;
                Poll::Ready(Answer {
                    request,
                    asked,
                    outcome,
                })
            }
            Some(unknown) => {
                self.waiting.push_front(unknown);
                Poll::Pending
            }
            None => Poll::Pending,
        }
    }

    /// Asks for the verdict of the request at a place; true where it is known.
    fn settle(&mut self, at: usize, now: Instant, cx: &mut Context<'_>) -> bool {
        let number = self.first + at as u64;
        let Some(waiting) = self.waiting.get_mut(at) else {
            return false;
        };
        let Verdict::Unknown(verdict) = &mut waiting.verdict else {
            return true;
        };
        let Poll::Ready(verdict) = verdict.as_mut().poll(cx) else {
            return false;
        };
        let outcome = verdict.map_err(|error| {
            if let AppendError::Store(error) = &error {
                warn!(%error, "the store did not answer an append");
            }
            refusal::of_append(&error)
        });
        if let Some(log) = waiting.request.log {
            if let Err(refusal) = &outcome {
                self.hold.heed(log, refusal, now);
            }
            if let Some(numbers) = self.unknown.get_mut(&log) {
                if let Ok(place) = numbers.binary_search(&number) {
                    numbers.remove(place);
                }
                if numbers.is_empty() {
                    self.unknown.remove(&log);
                }
            }
        }
        waiting.verdict = Verdict::Known(outcome);
        true
    }
}

/// Logs of which a frame was refused and will be sent again: until then, which is on another stream, no later one passes.
#[derive(Debug, Default)]
struct Hold {
    logs: HashMap<LogId, Held>,
    /// Holds all logs that are not named.
    rest: Option<Held>,
}

/// Refusal for later frames.
#[derive(Debug)]
struct Held {
    refusal: Refusal,
    /// Before then there is no use in trying again.
    until: Option<Instant>,
}

impl Hold {
    /// Holds the log, if the refusal is of that kind. The first one is kept.
    fn heed(&mut self, log: LogId, refusal: &Refusal, now: Instant) {
        if !refusal.known_code().is_some_and(Code::holds_log) || self.held(&log).is_some() {
            return;
        }
        let wait = Duration::from_millis(refusal.retry_after_ms);
        let held = Held {
            refusal: refusal.clone(),
            until: (!wait.is_zero()).then(|| now + wait),
        };
        if self.logs.len() < HELD_LOGS_MAX {
            self.logs.insert(log, held);
        } else {
            self.rest = Some(held);
        }
    }

    fn check(&self, log: &LogId, now: Instant) -> Result<(), Refusal> {
        self.held(log).map_or(Ok(()), |held| Err(held.refusal(now)))
    }

    fn held(&self, log: &LogId) -> Option<&Held> {
        self.logs.get(log).or(self.rest.as_ref())
    }
}

impl Held {
    fn refusal(&self, now: Instant) -> Refusal {
        let refusal = self.refusal.clone();
        match self.until {
            Some(until) => refusal.after(until.saturating_duration_since(now).max(Duration::from_millis(1))),
            None => refusal,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::task::noop_waker;
    use proptest::prelude::*;
    use skytale_log_store::StoreError;
    use skytale_proto::{ChannelId, Offset};
    use std::sync::Arc;
    use tokio::sync::{Semaphore, oneshot};

    type Teller = oneshot::Sender<Result<Accepted, AppendError>>;

    fn log(number: u16) -> LogId {
        let mut id = [0; 16];
        id[..2].copy_from_slice(&number.to_be_bytes());
        ChannelId::from_bytes(id).log()
    }

    fn request(log: LogId) -> Request {
        let room = Arc::new(Semaphore::new(1));
        let permit = || room.clone().try_acquire_owned().expect("room");
        Request {
            kind: Some(Kind::Message),
            log: Some(log),
            shape: None,
            read: Instant::now(),
            charge: None,
            in_flight: InFlight::of(permit()),
        }
    }

    fn accepted(offset: u64) -> Accepted {
        Accepted {
            offset: Offset::new(offset),
            time_ms: 0,
            duplicate: false,
            claimed: None,
        }
    }

    fn failed() -> AppendError {
        let error = StoreError::Io {
            doing: "test".into(),
            error: "failed".into(),
        };
        error.into()
    }

    /// A line whose waker nobody hears.
    #[derive(Default)]
    struct Driven(Line);

    impl Driven {
        fn ask(&mut self, log: LogId) -> Teller {
            self.ask_of(Kind::Message, log)
        }

        fn ask_of(&mut self, kind: Kind, log: LogId) -> Teller {
            let (teller, pending) = PendingAppend::new();
            let request = Request {
                kind: Some(kind),
                ..request(log)
            };
            self.0.push(request, Ok(pending), Instant::now());
            teller
        }

        fn check(&mut self, log: LogId) -> Option<Code> {
            let waker = noop_waker();
            let checked = self.0.check(&log, Instant::now(), &mut Context::from_waker(&waker));
            checked.err().and_then(|refusal| refusal.known_code())
        }

        fn next(&mut self) -> Option<Result<u64, Option<Code>>> {
            let waker = noop_waker();
            match self.0.next(Instant::now(), &mut Context::from_waker(&waker)) {
                Poll::Ready(answer) => Some(
                    answer
                        .outcome
                        .map(|accepted| accepted.offset.get())
                        .map_err(|refusal| refusal.known_code()),
                ),
                Poll::Pending => None,
            }
        }
    }

    #[test]
    fn a_failure_is_seen_before_the_next_frame_though_another_logs_verdict_is_out() {
        let mut line = Driven::default();
        let slow = line.ask(log(1));
        let failing = line.ask(log(2));
        assert_eq!((line.check(log(1)), line.check(log(2))), (None, None));
        failing.send(Err(failed())).expect("somebody waits");
        assert_eq!(line.check(log(2)), Some(Code::RelayInternal));
        assert_eq!(line.check(log(1)), None, "another log goes on");
        assert_eq!(line.next(), None, "answers keep their order");
        slow.send(Ok(accepted(1))).expect("somebody waits");
        assert_eq!(line.next(), Some(Ok(1)));
        assert_eq!(line.next(), Some(Err(Some(Code::RelayInternal))));
        assert_eq!(
            line.check(log(2)),
            Some(Code::RelayInternal),
            "for as long as the stream lasts"
        );
        assert!(line.0.unknown.is_empty());
    }

    #[test]
    fn a_failure_is_seen_though_a_bundle_before_it_has_no_verdict_yet() {
        let mut line = Driven::default();
        let bundle = line.ask_of(Kind::Commit, log(1));
        let (message, behind) = (line.ask(log(1)), line.ask(log(1)));
        assert_eq!(line.check(log(1)), None);
        message.send(Err(failed())).expect("somebody waits");
        assert_eq!(line.check(log(1)), Some(Code::RelayInternal));
        bundle.send(Ok(accepted(1))).expect("somebody waits");
        behind.send(Err(failed())).expect("somebody waits");
        assert_eq!(line.next(), Some(Ok(1)), "answers keep their order");
        for _ in 0..2 {
            assert_eq!(line.next(), Some(Err(Some(Code::RelayInternal))));
        }
        assert!(line.0.unknown.is_empty());
    }

    #[test]
    fn what_the_log_says_and_what_is_refused_for_good_holds_nothing() {
        let mut line = Driven::default();
        for code in [
            Code::StaleEpoch,
            Code::StaleHandshake,
            Code::NotMember,
            Code::ScopeMissing,
        ] {
            let refused = Err(Refusal::because(code, "no"));
            line.0.push(request(log(1)), refused, Instant::now());
            assert_eq!(line.check(log(1)), None, "{code}");
        }
    }

    #[test]
    fn the_wait_runs_out_and_the_hold_does_not() {
        let now = Instant::now();
        let mut hold = Hold::default();
        let wait = Duration::from_millis(200);
        let refusal = Refusal::because(Code::RateLimited, "too many").after(wait);
        hold.heed(log(1), &refusal, now);
        // The first refusal is kept.
        hold.heed(log(1), &Refusal::because(Code::RelayInternal, "later"), now);
        for (later, wait_ms) in [(0, 200), (100, 100), (1_000, 1)] {
            let behind = hold
                .check(&log(1), now + Duration::from_millis(later))
                .expect_err("held");
            assert_eq!(
                (behind.known_code(), behind.retry_after_ms),
                (Some(Code::RateLimited), wait_ms)
            );
        }
        assert_eq!(hold.check(&log(2), now), Ok(()));
    }

    #[test]
    fn logs_held_are_bounded_by_holding_all() {
        let mut hold = Hold::default();
        let now = Instant::now();
        let refusal = Refusal::because(Code::StoreStopped, "stopped");
        for number in 0..1_000 {
            hold.heed(log(number), &refusal, now);
        }
        assert_eq!(hold.logs.len(), HELD_LOGS_MAX);
        for number in 0..2_000 {
            assert!(hold.check(&log(number), now).is_err());
        }
    }

    proptest! {
        /// However requests, verdicts and answers interleave: answers come in order, and no frame of a log passes the check
        /// once a failure of that log was reported.
        #[test]
        fn nothing_passes_a_failure(steps in proptest::collection::vec((0..3u16, 0..4u8, any::<bool>()), 0..200)) {
            let mut line = Driven::default();
            // Of each log the frames that are out, in order; the failed ones; and the answers that are due.
            let mut out: HashMap<u16, VecDeque<(usize, Teller)>> = HashMap::new();
            let mut failed_logs = Vec::new();
            let mut due = Vec::new();
            let mut answered = 0;
            for (number, step, fails) in steps {
                match step {
                    0 | 1 => {
                        let checked = line.check(log(number));
                        prop_assert_eq!(checked.is_some(), failed_logs.contains(&number));
                        if checked.is_none() {
                            let teller = line.ask(log(number));
                            out.entry(number).or_default().push_back((due.len(), teller));
                            due.push(None);
                        }
                    }
                    2 => if let Some((at, teller)) = out.get_mut(&number).and_then(VecDeque::pop_front) {
                        // By the store's promise nothing is accepted behind a failure.
                        let fails = fails || failed_logs.contains(&number);
                        let told = if fails { Err(failed()) } else { Ok(accepted(at as u64)) };
                        if fails {
                            failed_logs.push(number);
                        }
                        due[at] = Some(if fails { Err(Some(Code::RelayInternal)) } else { Ok(at as u64) });
                        prop_assert!(teller.send(told).is_ok());
                    }
                    _ => {
                        let expected = due.get(answered).copied().flatten();
                        prop_assert_eq!(line.next(), expected);
                        answered += usize::from(expected.is_some());
                    }
                }
            }
            let unknown: usize = line.0.unknown.values().map(VecDeque::len).sum();
            prop_assert!(unknown <= due.len() - answered);
        }
    }
}
