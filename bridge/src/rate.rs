//! Usage of an account, and its limits: links, messages a second, bytes a day.

use parking_lot::Mutex;
use skytale_proto::Code;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;

use crate::config::BridgeLimits;
use crate::error::Refusal;
use crate::transport::Linked;

const DAY: Duration = Duration::from_secs(24 * 3_600);

/// A bucket that fills with time. Pure.
#[derive(Clone, Debug)]
pub(crate) struct Bucket {
    level: f64,
    size: f64,
    per_second: f64,
    at: Instant,
}

impl Bucket {
    /// Full, of so much, filled again within `within`.
    pub(crate) fn new(size: f64, within: Duration, now: Instant) -> Self {
        Self {
            level: size,
            size,
            per_second: size / within.as_secs_f64().max(1e-9),
            at: now,
        }
    }

    /// Takes out; or how long to wait until that much is there.
    pub(crate) fn take(&mut self, amount: f64, now: Instant) -> Result<(), Duration> {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.level = (self.level + passed * self.per_second).min(self.size);
        self.at = now;
        let amount = amount.min(self.size);
        if amount <= self.level {
            self.level -= amount;
            return Ok(());
        }
        Err(Duration::from_secs_f64((amount - self.level) / self.per_second))
    }
}

/// Usage of one account. Shared by its links.
#[derive(Debug)]
pub(crate) struct Usage {
    /// Bytes of frames that wait for the log, also of links that are gone.
    pub(crate) waiting: Arc<Semaphore>,
    messages: Mutex<Bucket>,
    stored: Mutex<Bucket>,
}

impl Usage {
    /// Returns the time that a link must wait before its next message.
    pub(crate) fn message(&self) -> Option<Duration> {
        self.messages.lock().take(1.0, Instant::now()).err()
    }

    /// Whether so many bytes may be stored.
    #[allow(clippy::cast_precision_loss)]
    pub(crate) fn store(&self, bytes: usize) -> bool {
        self.stored.lock().take(bytes as f64, Instant::now()).is_ok()
    }
}

/// All accounts that have links, or had some lately.
#[derive(Debug, Default)]
pub(crate) struct Accounts {
    known: Mutex<HashMap<String, Account>>,
}

#[derive(Debug)]
struct Account {
    links: usize,
    usage: Arc<Usage>,
    left: Instant,
}

/// A link's place among those of its account.
#[derive(Debug)]
pub(crate) struct Place {
    accounts: Arc<Accounts>,
    account: String,
    pub(crate) usage: Arc<Usage>,
    _linked: Option<Linked>,
}

impl Place {
    /// The connection has a link for as long as this place is taken.
    pub(crate) fn of_connection(&mut self, linked: Option<Linked>) {
        self._linked = linked;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(account) = self.accounts.known.lock().get_mut(&self.account) {
            account.links -= 1;
            account.left = Instant::now();
        }
    }
}

impl Accounts {
    #[allow(clippy::cast_precision_loss)]
    pub(crate) fn enter(self: &Arc<Self>, account: &str, limits: &BridgeLimits) -> Result<Place, Refusal> {
        let now = Instant::now();
        let mut known = self.known.lock();
        // The usage of an account is forgotten when its buckets would be full again.
        known.retain(|_, account| account.links > 0 || now.duration_since(account.left) < DAY);
        let total: usize = known.values().map(|account| account.links).sum();
        if total >= limits.links_max {
            return Err(Refusal::new(
                Code::LinksFull,
                "the bridge has as many links as it takes",
            ));
        }
        let entry = known.entry(account.to_owned()).or_insert_with(|| Account {
            links: 0,
            usage: Arc::new(Usage {
                waiting: Arc::new(Semaphore::new(limits.waiting_bytes_per_account_max)),
                messages: Mutex::new(Bucket::new(
                    f64::from(limits.messages_per_second),
                    Duration::from_secs(1),
                    now,
                )),
                stored: Mutex::new(Bucket::new(limits.stored_bytes_per_day as f64, DAY, now)),
            }),
            left: now,
        });
        if entry.links >= limits.links_per_account_max {
            return Err(Refusal::new(Code::LinksFull, "the account has as many links as it may"));
        }
        entry.links += 1;
        Ok(Place {
            accounts: Arc::clone(self),
            account: account.to_owned(),
            usage: Arc::clone(&entry.usage),
            _linked: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_gives_what_it_has_and_says_how_long_to_wait() {
        let now = Instant::now();
        let mut bucket = Bucket::new(10.0, Duration::from_secs(1), now);
        for _ in 0..10 {
            assert_eq!(bucket.take(1.0, now), Ok(()));
        }
        let wait = bucket.take(1.0, now).expect_err("empty");
        assert!(
            wait > Duration::from_millis(90) && wait < Duration::from_millis(110),
            "{wait:?}"
        );
        assert_eq!(bucket.take(1.0, now + Duration::from_millis(101)), Ok(()));
        // A message larger than the bucket takes all of it, and does not wait for ever.
        assert_eq!(bucket.take(99.0, now + Duration::from_secs(9)), Ok(()));
    }

    #[test]
    fn links_are_counted_for_each_account() {
        let accounts = Arc::new(Accounts::default());
        let limits = BridgeLimits {
            links_max: 3,
            links_per_account_max: 2,
            ..BridgeLimits::default()
        };
        let first = accounts.enter("a", &limits).expect("one");
        let _second = accounts.enter("a", &limits).expect("two");
        assert!(accounts.enter("a", &limits).is_err());
        let _other = accounts.enter("b", &limits).expect("another account");
        assert!(accounts.enter("c", &limits).is_err(), "the bridge is full");
        drop(first);
        let _again = accounts.enter("a", &limits).expect("room");
    }
}
