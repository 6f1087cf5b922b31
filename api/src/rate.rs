//! Rates: how often an address, a key, all keys of an account, or an address with secrets to try, may ask.

use crate::config::{Limits, Rate};
use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultDirectRateLimiter, DefaultKeyedRateLimiter, Quota, RateLimiter};
use parking_lot::Mutex;
use skytale_http::addresses::network;
use skytale_proto::{AccountId, EnrolmentId, KeyId};
use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

/// Maximum number of keys that one limiter keeps apart. Those past it share one allowance, so that a flood from many
/// addresses takes neither memory nor the place of those that are known.
const KEYS_MAX: usize = 65_536;

/// Secrets for one key, from a network that has tried too many.
const ATTEMPT_OF: Rate = Rate {
    per_second: 1,
    burst: 5,
};

/// Refused proofs of one account that are audited.
const REFUSALS: Rate = Rate {
    per_second: 1,
    burst: 30,
};

/// The API's rates.
pub(crate) struct Rates {
    address: Keyed<IpAddr>,
    attempt: Keyed<IpAddr>,
    /// Networks that have tried too many secrets, until when.
    suspended: Until<IpAddr>,
    /// Attempts of such a network, for keys that are there: one of them may be the right one.
    attempt_of: Keyed<(IpAddr, [u8; 16])>,
    key: Keyed<KeyId>,
    /// All keys of an account.
    account: Keyed<AccountId>,
    /// Agents, keys and channel names that an account makes: each leaves rows after its end.
    creation: Keyed<AccountId>,
    /// Keys that asked too often, until when.
    over: Until<KeyId>,
    /// Refusals of an account that are written down.
    refusal: Keyed<AccountId>,
    relay: Keyed<EnrolmentId>,
}

impl Rates {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            address: Keyed::new(limits.address_rate),
            attempt: Keyed::new(limits.attempt_rate),
            suspended: Until::default(),
            attempt_of: Keyed::new(ATTEMPT_OF),
            key: Keyed::new(limits.key_rate),
            account: Keyed::new(limits.account_rate),
            creation: Keyed::of(per_day(limits.account_creations_per_day)),
            over: Until::default(),
            refusal: Keyed::new(REFUSALS),
            relay: Keyed::new(limits.relay_rate),
        }
    }

    /// A request from an address. The error is how long to wait.
    pub(crate) fn address(&self, address: IpAddr) -> Result<(), Duration> {
        self.address.check(&network(address))
    }

    /// A wrong secret tried from an address.
    pub(crate) fn attempt(&self, address: IpAddr) -> Result<(), Duration> {
        let network = network(address);
        let checked = self.attempt.check(&network);
        checked.inspect_err(|wait| self.suspended.set(network, *wait))
    }

    /// Returns the time for which an address that has tried too many secrets is to wait.
    pub(crate) fn suspended(&self, address: IpAddr) -> Option<Duration> {
        self.suspended.left(&network(address))
    }

    /// A secret tried all the same, for a key that is there.
    pub(crate) fn attempt_of(&self, address: IpAddr, key: [u8; 16]) -> Result<(), Duration> {
        self.attempt_of.check(&(network(address), key))
    }

    /// A request with an API key.
    pub(crate) fn key(&self, key: KeyId) -> Result<(), Duration> {
        let checked = self.key.check(&key);
        checked.inspect_err(|wait| self.over.set(key, *wait))
    }

    /// A request with any API key of an account.
    pub(crate) fn account(&self, account: AccountId) -> Result<(), Duration> {
        self.account.check(&account)
    }

    /// An agent, a key or a channel name that an account makes.
    pub(crate) fn creation(&self, account: AccountId) -> Result<(), Duration> {
        self.creation.check(&account)
    }

    /// Returns the time for which an API key that asked too often is to wait.
    pub(crate) fn over(&self, key: KeyId) -> Option<Duration> {
        self.over.left(&key)
    }

    /// Whether one more refusal of an account is written down: those who are refused again and again fill no database.
    pub(crate) fn refusal(&self, account: AccountId) -> bool {
        self.refusal.check(&account).is_ok()
    }

    /// A request with an enrolment's key.
    pub(crate) fn relay(&self, enrolment: EnrolmentId) -> Result<(), Duration> {
        self.relay.check(&enrolment)
    }

    /// Forgets who has been quiet.
    pub(crate) fn tidy(&self) {
        self.address.tidy();
        self.attempt.tidy();
        self.suspended.tidy();
        self.attempt_of.tidy();
        self.over.tidy();
        self.refusal.tidy();
        self.key.tidy();
        self.account.tidy();
        self.creation.tidy();
        self.relay.tidy();
    }
}

/// Keys that are refused until a time.
struct Until<K: Hash + Eq>(Mutex<HashMap<K, Instant>>);

impl<K: Hash + Eq> Default for Until<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Hash + Eq> Until<K> {
    fn set(&self, key: K, wait: Duration) {
        let mut until = self.0.lock();
        if until.len() < KEYS_MAX {
            until.insert(key, Instant::now() + wait);
        }
    }

    fn left(&self, key: &K) -> Option<Duration> {
        let left = self.0.lock().get(key)?.saturating_duration_since(Instant::now());
        (!left.is_zero()).then_some(left)
    }

    fn tidy(&self) {
        let now = Instant::now();
        let mut until = self.0.lock();
        until.retain(|_, until| *until > now);
        until.shrink_to_fit();
    }
}

/// A day's worth may come at once.
fn per_day(units: u32) -> Quota {
    const DAY: Duration = Duration::from_secs(24 * 3_600);
    let units = NonZeroU32::new(units).unwrap_or(NonZeroU32::MIN);
    let quota = Quota::with_period(DAY / units.get());
    quota.unwrap_or_else(|| Quota::per_second(units)).allow_burst(units)
}

struct Keyed<K: Hash + Eq + Clone> {
    known: DefaultKeyedRateLimiter<K>,
    others: DefaultDirectRateLimiter,
    clock: DefaultClock,
}

impl<K: Hash + Eq + Clone> Keyed<K> {
    fn new(rate: Rate) -> Self {
        // The configuration was checked: neither is zero.
        let at_least_one = |n| NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN);
        Self::of(Quota::per_second(at_least_one(rate.per_second)).allow_burst(at_least_one(rate.burst)))
    }

    fn of(quota: Quota) -> Self {
        Self {
            known: RateLimiter::keyed(quota),
            others: RateLimiter::direct(quota),
            clock: DefaultClock::default(),
        }
    }

    fn check(&self, key: &K) -> Result<(), Duration> {
        let now = self.clock.now();
        let refused = if self.known.len() < KEYS_MAX {
            self.known.check_key(key).err()
        } else {
            self.others.check().err()
        };
        match refused {
            None => Ok(()),
            Some(refused) => Err(refused.wait_time_from(now)),
        }
    }

    fn tidy(&self) {
        self.known.retain_recent();
        self.known.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keyed() -> Keyed<u32> {
        Keyed::new(Rate {
            per_second: 1,
            burst: 3,
        })
    }

    #[test]
    fn a_burst_passes_and_then_there_is_a_wait() {
        let limiter = keyed();
        for _ in 0..3 {
            assert!(limiter.check(&1).is_ok());
        }
        let wait = limiter.check(&1).unwrap_err();
        assert!(wait <= Duration::from_secs(1) && wait > Duration::ZERO);
        assert!(limiter.check(&2).is_ok(), "another has its own allowance");
    }

    #[test]
    fn many_keys_take_bounded_memory() {
        let limiter = keyed();
        for key in 0..(KEYS_MAX as u32 + 10_000) {
            let _ = limiter.check(&key);
        }
        // Threads may add one each between the look and the step.
        assert!(limiter.known.len() <= KEYS_MAX + 64);
        assert!(limiter.check(&u32::MAX).is_err(), "the others share one allowance");
    }
}
