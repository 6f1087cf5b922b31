//! How long a relay node may owe an answer.
//!
//! A relay node can be there, answer pings, and do nothing of what it is asked: its store hangs, say. Nothing in QUIC, and
//! no keepalive, tells an agent of that. So each stream on which something is owed (a verdict, a replay up to the log's
//! head, a claim's answer) has a time until which a sound node has said something. A refusal is an answer: a node that
//! cannot reach a log's home says so in time.
//!
//! What is overdue is reported, and waited for on: whoever holds the session knows whether there is anywhere else to go.

use super::activity::Activity;
use super::error::RelayError;
use std::pin::pin;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// How long a sound relay node may take. A fleet's gives up a log's home that does not answer after half of it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// The slowest way up on which a frame is waited for, in bytes a second.
const UPLOAD_BYTES_PER_SECOND: u64 = 16 * 1024;
/// A replay may take so many times longer, as long as others of the same session get on: they share the way, and this agent.
const REPLAYS_TIMES: u32 = 8;
/// A timer that is late by so much says that nobody listened meanwhile.
const LATE_MIN: Duration = Duration::from_millis(250);

/// A session's patience, and where it hears that it is over.
#[derive(Clone, Debug)]
pub(super) struct Patience {
    most: Duration,
    overdue: watch::Sender<Option<RelayError>>,
    /// When some replay got on last.
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

    /// Moves each time that an answer is overdue.
    pub(super) fn overdue(&self) -> watch::Receiver<Option<RelayError>> {
        self.overdue.subscribe()
    }

    /// Nothing is owed yet on a stream for this.
    pub(super) const fn stream(self, what: What) -> Owed {
        Owed {
            patience: self,
            what,
            since: None,
        }
    }
}

/// What a stream is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// The keepalive sees to it.
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

/// What is owed on one stream.
#[derive(Debug)]
pub(super) struct Owed {
    patience: Patience,
    what: What,
    /// Since when, and when it is overdue.
    since: Option<(Instant, Instant)>,
}

impl Owed {
    /// An answer is owed from now on, to a request of so many bytes.
    pub(super) fn begin(&mut self, bytes: usize) {
        let way_up = Duration::from_millis(bytes as u64 * 1_000 / UPLOAD_BYTES_PER_SECOND);
        let now = Instant::now();
        self.since = Some((now, now + self.patience.most + way_up));
    }

    /// The same, unless one is owed already.
    pub(super) fn go_on(&mut self) {
        if self.since.is_none() {
            self.begin(0);
        }
    }

    /// Nothing is owed now.
    pub(super) const fn end(&mut self) {
        self.since = None;
    }

    /// Some of it has come.
    pub(super) fn heard(&mut self) {
        if self.what == What::Replay {
            self.patience.replays.heard();
        }
        if self.since.is_some() {
            self.begin(0);
        }
    }

    /// Waits for something to come on the stream, and tells when it is overdue. Cancel-safe where `coming` is.
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
                // This process stood still, or did not read: it listens from the start.
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

    /// How often something was reported as overdue.
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

    /// Waits for what does not come.
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
        // In pieces, as by one who does other things, too.
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
