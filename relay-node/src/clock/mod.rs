//! The clocks: one that only goes forward, this machine's own, and the one that tokens are judged by.
//!
//! Tokens begin and end by the clock of the API, which signs them. So they are judged by the API's clock, as its answers
//! tell it, and this machine's own takes no part in that once the API has answered. Where this machine's is far off, the
//! node sends agents elsewhere, and serves those who have nowhere to go ([`skew`] says when; `docs/adr/0024` why).

mod skew;

pub use skew::{Source, Span};

use crate::metrics;
use crate::node::Shared;
use parking_lot::Mutex;
use skew::Skew;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::watch;
use tokio::time::{Instant, interval};
use tracing::{info, warn};

/// Interval between looks at this machine's clock.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Precision with which the clocks behind a store are read.
const STORE_PRECISION: Duration = Duration::from_secs(1);

/// A moment on both clocks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Now {
    /// Time for waiting.
    pub(crate) instant: Instant,
    /// Time for tokens: unix milliseconds.
    pub(crate) unix_ms: u64,
}

impl Now {
    /// The moment when the unix clock will show `unix_ms`; now, where that has passed.
    pub(crate) fn at(&self, unix_ms: u64) -> Instant {
        self.instant + Duration::from_millis(unix_ms.saturating_sub(self.unix_ms))
    }
}

/// Knowledge of a relay node about the time. Readings of other clocks are reported here, with their sources.
#[derive(Debug)]
pub struct Clock {
    skew: Mutex<Skew>,
    wrong: watch::Sender<bool>,
}

impl Default for Clock {
    fn default() -> Self {
        Self {
            skew: Mutex::default(),
            wrong: watch::Sender::new(false),
        }
    }
}

impl Clock {
    /// Another clock was read.
    pub fn tell(&self, source: Source, span: Span) {
        self.skew.lock().tell(source, span, own_ms(), running_ms());
        self.look();
    }

    /// Milliseconds that run since the machine's start, with those that it slept. Nobody sets this clock.
    pub fn running_ms() -> u64 {
        running_ms()
    }

    /// Looks whether this machine's clock is wrong.
    pub(crate) fn look(&self) {
        let own_ms = own_ms();
        let mut skew = self.skew.lock();
        let changed = skew.judge(own_ms);
        for (source, ahead_ms) in skew.distances(own_ms) {
            metrics::clock_skew(source.name(), ahead_ms);
        }
        let judgement = skew.judgement();
        metrics::clock_wrong(judgement.wrong.is_some());
        if changed {
            match (&judgement.wrong, judgement.others.first()) {
                (Some(differs), _) => warn!("{}: agents are sent elsewhere until they agree", differs.words()),
                (None, Some(differs)) => warn!("{}, and agrees with others: the node goes on", differs.words()),
                (None, None) => info!("this node's clock is right"),
            }
        }
        let wrong = judgement.wrong.is_some();
        self.wrong
            .send_if_modified(|was| std::mem::replace(was, wrong) != wrong);
    }

    /// Whether this machine's clock is wrong, and agents are sent elsewhere.
    pub fn is_wrong(&self) -> bool {
        *self.wrong.borrow()
    }

    /// Whether it is, and each change of that.
    pub(crate) fn subscribe(&self) -> watch::Receiver<bool> {
        self.wrong.subscribe()
    }

    /// Returns the reason why agents are sent elsewhere, if they are.
    pub(crate) fn problem(&self) -> Option<String> {
        let wrong = self.skew.lock().judgement().wrong?;
        Some(format!(
            "{}: agents are sent to other nodes, and served where there are none. Find the wrong clock (`timedatectl` on \
             both machines) and set it right; the node goes on by itself",
            wrong.words()
        ))
    }

    /// Clocks that differ from this machine's, which is right.
    pub(crate) fn remarks(&self) -> Vec<String> {
        let skew = self.skew.lock();
        let others = skew.judgement().others.iter();
        let words =
            |differs: &skew::Differs| format!("{}, and agrees with others: that clock is wrong", differs.words());
        others.map(words).collect()
    }

    /// This moment.
    pub(crate) fn now(&self) -> Now {
        Now {
            instant: Instant::now(),
            unix_ms: self.tokens_ms(),
        }
    }

    /// The time that tokens are judged by, unix milliseconds.
    pub(crate) fn tokens_ms(&self) -> u64 {
        let offset_ms = self.skew.lock().tokens_ms(own_ms());
        running_ms().saturating_add_signed(offset_ms)
    }

    /// The same, unix seconds.
    pub(crate) fn tokens_s(&self) -> u64 {
        self.tokens_ms() / 1_000
    }
}

/// Looks at this machine's clock again and again.
pub(crate) async fn watch(node: Arc<Shared>) {
    let mut turns = interval(LOOK_EVERY);
    loop {
        turns.tick().await;
        match node.store.agreed_ms() {
            Some(agreed_ms) => {
                let now_ms = running_ms();
                let span = Span::told(agreed_ms, STORE_PRECISION, now_ms, now_ms);
                node.clock.tell(Source::Fleet, span);
            }
            None => node.clock.look(),
        }
    }
}

/// Unix milliseconds by this machine's clock; 0 before 1970.
pub(crate) fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    millis(since)
}

/// This machine's clock less the time that runs, in milliseconds.
fn own_ms() -> i64 {
    let signed = |number| i64::try_from(number).unwrap_or(i64::MAX);
    signed(unix_ms()).saturating_sub(signed(running_ms()))
}

#[cfg(target_os = "linux")]
pub(crate) fn running_ms() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    millis(Duration::try_from(time).unwrap_or_default())
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn running_ms() -> u64 {
    static BEGUN: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
    millis(BEGUN.get_or_init(std::time::Instant::now).elapsed())
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
