//! How fresh the node's beliefs are, and which API keys are revoked. Pure.

use skytale_proto::rest::Revocation;
use skytale_proto::{KeyId, limits};
use std::collections::{HashMap, HashSet};
use std::time::Duration;

/// What was told, and when.
#[derive(Debug)]
pub(crate) struct Standing {
    /// Static keys have no age and no revocations.
    timeless: bool,
    keys_told_ms: Option<u64>,
    revocations_told_ms: Option<u64>,
    /// Revoked API keys, with when (unix seconds): kept while a token of theirs can be in force.
    revoked: HashMap<KeyId, u64>,
}

/// Something that is not as it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Problem {
    #[error("the API's keys have not been fetched yet")]
    NoKeys,
    #[error("the API's revocations have not been fetched yet")]
    NoRevocations,
    #[error("the API has not told its keys for {} s", .0.as_secs())]
    KeysStale(Duration),
    #[error("the API has not told revocations for {} s", .0.as_secs())]
    RevocationsStale(Duration),
}

impl Standing {
    pub(crate) fn new(timeless: bool) -> Self {
        Self {
            timeless,
            keys_told_ms: None,
            revocations_told_ms: None,
            revoked: HashMap::new(),
        }
    }

    pub(crate) fn keys_told(&mut self, now_ms: u64) {
        self.keys_told_ms = Some(now_ms);
    }

    pub(crate) fn revocations_told(&mut self, now_ms: u64) {
        self.revocations_told_ms = Some(now_ms);
    }

    /// Takes revocations in; gives the keys that were not revoked before. Those whose last token has ended are forgotten:
    /// the API gives a revoked key no other.
    pub(crate) fn revoked(&mut self, revocations: &[Revocation], now_s: u64) -> HashSet<KeyId> {
        let matters = |revoked_s: u64| revoked_s.saturating_add(last_token_s()) >= now_s;
        let mut new = HashSet::new();
        for revocation in revocations.iter().filter(|revocation| matters(revocation.revoked_s)) {
            if self.revoked.insert(revocation.key, revocation.revoked_s).is_none() {
                new.insert(revocation.key);
            }
        }
        self.revoked.retain(|_, revoked_s| matters(*revoked_s));
        new
    }

    pub(crate) fn is_revoked(&self, key: &KeyId) -> bool {
        self.revoked.contains_key(key)
    }

    /// Whether a new session may start on what is believed.
    pub(crate) fn admits(&self, now_ms: u64, refuse_after: Duration) -> Result<(), Problem> {
        if self.timeless {
            return Ok(());
        }
        if self.keys_told_ms.is_none() {
            return Err(Problem::NoKeys);
        }
        let age = self
            .age(self.revocations_told_ms, now_ms)
            .ok_or(Problem::NoRevocations)?;
        if age > refuse_after {
            return Err(Problem::RevocationsStale(age));
        }
        Ok(())
    }

    pub(crate) fn problems(&self, now_ms: u64, keys_stale_after: Duration) -> Vec<Problem> {
        let mut problems = Vec::new();
        if self.timeless {
            return problems;
        }
        match self.age(self.keys_told_ms, now_ms) {
            None => problems.push(Problem::NoKeys),
            Some(age) if age > keys_stale_after => problems.push(Problem::KeysStale(age)),
            Some(_) => {}
        }
        match self.age(self.revocations_told_ms, now_ms) {
            None => problems.push(Problem::NoRevocations),
            Some(age) if age > limits::REVOCATION_WITHIN => problems.push(Problem::RevocationsStale(age)),
            Some(_) => {}
        }
        problems
    }

    /// Of revocations, and of keys.
    pub(crate) fn ages(&self, now_ms: u64) -> (Option<Duration>, Option<Duration>) {
        if self.timeless {
            return (None, None);
        }
        (
            self.age(self.revocations_told_ms, now_ms),
            self.age(self.keys_told_ms, now_ms),
        )
    }

    fn age(&self, told_ms: Option<u64>, now_ms: u64) -> Option<Duration> {
        told_ms.map(|told_ms| Duration::from_millis(now_ms.saturating_sub(told_ms)))
    }
}

/// How long after a revocation a token of the key can still be in force, with clocks apart, in seconds.
fn last_token_s() -> u64 {
    (limits::TOKEN_LIFETIME_MAX + limits::CLOCK_SKEW_MAX * 2).as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: KeyId = KeyId::from_bytes([1; 16]);
    const REFUSE_AFTER: Duration = Duration::from_secs(120);
    const KEYS_STALE_AFTER: Duration = Duration::from_secs(600);

    fn revocation(revoked_s: u64) -> Revocation {
        Revocation {
            sequence: 1,
            key: KEY,
            revoked_s,
        }
    }

    #[test]
    fn nothing_is_admitted_before_keys_and_revocations_were_told() {
        let mut standing = Standing::new(false);
        assert_eq!(standing.admits(0, REFUSE_AFTER), Err(Problem::NoKeys));
        standing.keys_told(0);
        assert_eq!(standing.admits(0, REFUSE_AFTER), Err(Problem::NoRevocations));
        standing.revocations_told(0);
        assert_eq!(standing.admits(0, REFUSE_AFTER), Ok(()));
        assert_eq!(standing.problems(0, KEYS_STALE_AFTER), vec![]);
    }

    #[test]
    fn stale_revocations_are_told_first_and_refuse_later() {
        let mut standing = Standing::new(false);
        standing.keys_told(0);
        standing.revocations_told(0);
        let told = 31_000;
        let age = Duration::from_secs(31);
        assert_eq!(
            standing.problems(told, KEYS_STALE_AFTER),
            vec![Problem::RevocationsStale(age)]
        );
        assert_eq!(standing.admits(told, REFUSE_AFTER), Ok(()));
        assert!(standing.admits(121_000, REFUSE_AFTER).is_err());
        assert_eq!(standing.problems(700_000, KEYS_STALE_AFTER).len(), 2);
    }

    #[test]
    fn a_revocation_is_new_once_and_forgotten_after_the_keys_last_token() {
        let mut standing = Standing::new(false);
        assert_eq!(standing.revoked(&[revocation(1_000)], 1_000), HashSet::from([KEY]));
        assert_eq!(standing.revoked(&[revocation(1_000)], 1_001), HashSet::new());
        assert!(standing.is_revoked(&KEY));
        standing.revoked(&[], 1_000 + last_token_s());
        assert!(standing.is_revoked(&KEY));
        standing.revoked(&[], 1_001 + last_token_s());
        assert!(!standing.is_revoked(&KEY));
        assert_eq!(standing.revoked(&[revocation(1_000)], 10_000), HashSet::new());
    }

    #[test]
    fn static_keys_never_age() {
        let standing = Standing::new(true);
        assert_eq!(standing.admits(u64::MAX, REFUSE_AFTER), Ok(()));
        assert_eq!(standing.problems(u64::MAX, KEYS_STALE_AFTER), vec![]);
    }
}
