//! Time limits for answers of a relay node.
//!
//! A relay node can be reachable, answer pings, and still not serve requests: its store may hang, for example. Neither
//! QUIC nor the keepalive detects that. So each stream with an owed answer (a verdict, a replay up to the log's head, a
//! claim's answer) has a time by which a healthy node has answered. A refusal is an answer: a node that cannot reach a
//! log's home says so in time.
//!
//! An overdue answer is reported, and the wait goes on: the session's holder decides whether to move to another node.

use super::activity::Activity;
use super::error::RelayError;
use std::pin::pin;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// Longest time that a healthy relay node may take. A node of a fleet gives up on an unresponsive home of a log after
/// half of it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// Slowest upload rate that the limit allows for, in bytes a second.
const UPLOAD_BYTES_PER_SECOND: u64 = 16 * 1024;
/// Factor by which a replay may take longer while other replays of the same session progress: they share the
/// connection, and this agent.
const REPLAYS_TIMES: u32 = 8;
/// A timer that is this late shows that nobody listened meanwhile.
const LATE_MIN: Duration = Duration::from_millis(250);

/// A session's time limit, and the channel that reports overdue answers.
#[derive(Clone, Debug)]
pub(super) struct Patience {
    most: Duration,
    overdue: watch::Sender<Option<RelayError>>,
    /// Time of the last progress of any replay.
    replays: Activity,
}

impl Patience {
    pub(super) fn new(most: Duration) -> Self {
        Self {
            most,
            overdue: watch::Sender::new(None),
            replays: Activity::new(),
        }
    }

    /// Changes each time an answer is overdue.
    pub(super) fn overdue(&self) -> watch::Receiver<Option<RelayError>> {
        self.overdue.subscribe()
    }

    /// Creates the state of a stream on which no answer is owed yet.
    pub(super) const fn stream(self, what: What) -> Owed {
        Owed {
            patience: self,
            what,
            since: None,
        }
    }
}

/// Purpose of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// Watched by the keepalive.
    Control,
    Verdicts,
    Replay,
    KeyPackages,
}

impl What {
    const fn words(self) -> &'static str {
        match self {
            Self::Control => "the control stream",
            Self::Verdicts => "a verdict",
            Self::Replay => "a replay",
            Self::KeyPackages => "key packages",
        }
    }
}

/// The answer owed on one stream.
#[derive(Debug)]
pub(super) struct Owed {
    patience: Patience,
    what: What,
    /// Time since which it is owed, and time at which it is overdue.
    since: Option<(Instant, Instant)>,
}

impl Owed {
    /// Marks an answer as owed from now on, to a request of this many bytes.
    pub(super) fn begin(&mut self, bytes: usize) {
        let way_up = Duration::from_millis(bytes as u64 * 1_000 / UPLOAD_BYTES_PER_SECOND);
        let now = Instant::now();
        self.since = Some((now, now + self.patience.most + way_up));
    }

    /// Marks an answer as owed, unless one is owed already.
    pub(super) fn go_on(&mut self) {
        if self.since.is_none() {
            self.begin(0);
        }
    }

    /// Marks that no answer is owed.
    pub(super) const fn end(&mut self) {
        self.since = None;
    }

    /// Records that a part of the answer arrived.
    pub(super) fn heard(&mut self) {
        if self.what == What::Replay {
            self.patience.replays.heard();
        }
        if self.since.is_some() {
            self.begin(0);
        }
    }

    /// Waits for bytes on the stream, and reports when they are overdue. Cancel-safe if `coming` is.
    pub(super) async fn wait<T>(&mut self, coming: impl Future<Output = T>) -> T {
        let mut coming = pin!(coming);
        loop {
            let Some((since, due)) = self.since else {
                return coming.await;
            };
            tokio::select! {
                biased;
                came = &mut coming => return came,
                () = sleep_until(due) => {}
            }
            let now = Instant::now();
            let most = self.patience.most;
            let again = now + most;
            let others = self.what == What::Replay && self.patience.replays.silence() < most;
            if others && now - since < REPLAYS_TIMES * most {
                self.since = Some((since, again));
                continue;
            }
            if now > due + (most / 4).max(LATE_MIN) {
                // This process was suspended, or did not read: start listening again.
                self.since = Some((now, again));
                continue;
            }
            self.patience.overdue.send_replace(Some(RelayError::Unanswered {
                what: self.what.words(),
                waited: now - since,
            }));
            self.since = Some((since, again));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use std::future::pending;
    use tokio::time::{advance, sleep};

    const MOST: Duration = Duration::from_secs(10);

    /// Number of times that an answer was reported as overdue.
    struct Told(watch::Receiver<Option<RelayError>>);

    impl Told {
        fn now(&mut self) -> bool {
            let told = self.0.has_changed().expect("the sender is there");
            self.0.mark_unchanged();
            told
        }
    }

    fn stream() -> (Owed, Told) {
        let patience = Patience::new(MOST);
        let told = Told(patience.overdue());
        (patience.stream(What::Verdicts), told)
    }

    /// Waits for bytes that never arrive.
    async fn listen(owed: &mut Owed, time: Duration) {
        let waited = tokio::time::timeout(time, owed.wait(pending::<()>())).await;
        assert!(waited.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn silence_is_told_where_something_is_owed_and_again_as_long_as_it_lasts() {
        let (mut owed, mut told) = stream();
        listen(&mut owed, 10 * MOST).await;
        assert!(!told.now(), "nothing is owed");
        owed.begin(0);
        listen(&mut owed, MOST - Duration::from_secs(1)).await;
        assert!(!told.now());
        // In pieces, like a task that also does other things.
        for _ in 0..3 {
            listen(&mut owed, Duration::from_secs(1)).await;
        }
        assert!(told.now());
        listen(&mut owed, MOST).await;
        assert!(told.now());
        owed.end();
        listen(&mut owed, 10 * MOST).await;
        assert!(!told.now());
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_in_pieces_is_not_silence() {
        let (mut owed, mut told) = stream();
        owed.begin(0);
        for _ in 0..10 {
            owed.wait(sleep(MOST - Duration::from_secs(1))).await;
            owed.heard();
        }
        assert!(!told.now());
    }

    #[tokio::test(start_paused = true)]
    async fn a_replay_waits_longer_while_others_get_on_and_not_for_ever() {
        let patience = Patience::new(MOST);
        let mut told = Told(patience.overdue());
        let [mut one, mut other] = [patience.clone(), patience].map(|patience| patience.stream(What::Replay));
        one.begin(0);
        let mut waited = Duration::ZERO;
        while !told.now() {
            other.heard();
            listen(&mut one, MOST / 2).await;
            waited += MOST / 2;
        }
        assert!((8 * MOST..=9 * MOST).contains(&waited), "{waited:?}");
        one.begin(0);
        listen(&mut one, 2 * MOST).await;
        assert!(told.now(), "none gets on");
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_request_is_given_the_time_that_its_way_takes() {
        let (mut owed, mut told) = stream();
        owed.begin(1024 * 1024);
        listen(&mut owed, MOST + Duration::from_secs(63)).await;
        assert!(!told.now());
        listen(&mut owed, Duration::from_secs(2)).await;
        assert!(told.now());
    }

    #[tokio::test(start_paused = true)]
    async fn who_did_not_listen_says_nothing_of_the_other_side() {
        let (mut owed, mut told) = stream();
        owed.begin(0);
        assert_eq!(owed.wait(pending::<()>()).now_or_never(), None);
        advance(3 * MOST).await;
        listen(&mut owed, MOST - Duration::from_secs(1)).await;
        assert!(!told.now());
        listen(&mut owed, Duration::from_secs(2)).await;
        assert!(told.now());
    }
}
