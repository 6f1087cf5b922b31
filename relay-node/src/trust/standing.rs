//! How fresh the node's beliefs are, and which API keys and agents are revoked. Pure.

use skytale_proto::rest::Revocations;
use skytale_proto::token::Claims;
use skytale_proto::{AgentId, KeyId, limits};
use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::time::Duration;

/// What was told, and when.
#[derive(Debug)]
pub(crate) struct Standing {
    /// Static keys have no age and no revocations.
    timeless: bool,
    keys_told_ms: Option<u64>,
    revocations_told_ms: Option<u64>,
    keys: Revoked<KeyId>,
    agents: Revoked<AgentId>,
}

/// What was revoked, with when (unix seconds): kept while a token of theirs can be in force.
#[derive(Debug)]
struct Revoked<T>(HashMap<T, u64>);

/// What a page of revocations ends that was in force before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct NewlyRevoked {
    pub(crate) keys: HashSet<KeyId>,
    pub(crate) agents: HashSet<AgentId>,
}

impl NewlyRevoked {
    pub(crate) fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.agents.is_empty()
    }

    /// Whether the tokens of this key or of this agent end.
    pub(crate) fn ends(&self, key: &KeyId, agent: &AgentId) -> bool {
        self.keys.contains(key) || self.agents.contains(agent)
    }
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
            keys: Revoked(HashMap::new()),
            agents: Revoked(HashMap::new()),
        }
    }

    pub(crate) fn keys_told(&mut self, now_ms: u64) {
        self.keys_told_ms = Some(now_ms);
    }

    pub(crate) fn revocations_told(&mut self, now_ms: u64) {
        self.revocations_told_ms = Some(now_ms);
    }

    /// Takes revocations in; gives those that are new.
    pub(crate) fn revoked(&mut self, page: &Revocations, now_s: u64) -> NewlyRevoked {
        let keys = page.revocations.iter().map(|one| (one.key, one.revoked_s));
        let agents = page.agents.iter().map(|one| (one.agent, one.ended_s));
        NewlyRevoked {
            keys: self.keys.take(keys, now_s),
            agents: self.agents.take(agents, now_s),
        }
    }

    /// Whether the key or the agent of these claims was revoked.
    pub(crate) fn is_revoked(&self, claims: &Claims) -> bool {
        self.keys.0.contains_key(&claims.key) || self.agents.0.contains_key(&claims.sub)
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

    /// What is older than it may be, each with its own bound.
    pub(crate) fn problems(
        &self,
        now_ms: u64,
        keys_stale_after: Duration,
        revocations_stale_after: Duration,
    ) -> Vec<Problem> {
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
            Some(age) if age > revocations_stale_after => problems.push(Problem::RevocationsStale(age)),
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

impl<T: Copy + Eq + Hash> Revoked<T> {
    /// Gives what was not revoked before. What had its last token end is forgotten: the API gives it no other.
    fn take(&mut self, revoked: impl Iterator<Item = (T, u64)>, now_s: u64) -> HashSet<T> {
        let matters = |revoked_s: u64| revoked_s.saturating_add(last_token_s()) >= now_s;
        let mut new = HashSet::new();
        for (one, revoked_s) in revoked.filter(|(_, revoked_s)| matters(*revoked_s)) {
            if self.0.insert(one, revoked_s).is_none() {
                new.insert(one);
            }
        }
        self.0.retain(|_, revoked_s| matters(*revoked_s));
        new
    }
}

/// How long after a revocation a token of the key can still be in force, with clocks apart, in seconds.
fn last_token_s() -> u64 {
    (limits::TOKEN_LIFETIME_MAX + limits::CLOCK_SKEW_MAX * 2).as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;
    use skytale_proto::rest::{AgentRevocation, Revocation};
    use skytale_proto::token::Confirmation;
    use skytale_proto::{AccountId, EndpointId};

    const KEY: KeyId = KeyId::from_bytes([1; 16]);
    const OTHER_KEY: KeyId = KeyId::from_bytes([2; 16]);
    const AGENT: AgentId = AgentId::from_bytes([3; 32]);
    const OTHER_AGENT: AgentId = AgentId::from_bytes([4; 32]);
    const REFUSE_AFTER: Duration = Duration::from_secs(120);
    const KEYS_STALE_AFTER: Duration = Duration::from_secs(600);

    fn page(revoked_s: u64) -> Revocations {
        Revocations {
            revocations: vec![Revocation {
                sequence: 1,
                key: KEY,
                revoked_s,
            }],
            next: 1,
            agents: vec![AgentRevocation {
                sequence: 1,
                agent: AGENT,
                ended_s: revoked_s,
            }],
            agents_next: 1,
            ..Revocations::default()
        }
    }

    fn none() -> Revocations {
        Revocations {
            next: 1,
            agents_next: 1,
            ..Revocations::default()
        }
    }

    fn claims(key: KeyId, agent: AgentId) -> Claims {
        Claims {
            iss: String::new(),
            aud: String::new(),
            sub: agent,
            acct: AccountId::from_bytes([0; 16]),
            key,
            scope: String::new(),
            cnf: Confirmation {
                eid: EndpointId::from_bytes([0; 32]),
            },
            exp: 0,
            iat: 0,
            jti: String::new(),
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
        assert_eq!(
            standing.problems(0, KEYS_STALE_AFTER, limits::REVOCATION_WITHIN),
            vec![]
        );
    }

    #[test]
    fn stale_revocations_are_told_first_and_refuse_later() {
        let mut standing = Standing::new(false);
        standing.keys_told(0);
        standing.revocations_told(0);
        let told = 31_000;
        let age = Duration::from_secs(31);
        assert_eq!(
            standing.problems(told, KEYS_STALE_AFTER, limits::REVOCATION_WITHIN),
            vec![Problem::RevocationsStale(age)]
        );
        assert_eq!(standing.admits(told, REFUSE_AFTER), Ok(()));
        assert!(standing.admits(121_000, REFUSE_AFTER).is_err());
        assert_eq!(
            standing
                .problems(700_000, KEYS_STALE_AFTER, limits::REVOCATION_WITHIN)
                .len(),
            2
        );
    }

    #[test]
    fn a_revocation_is_new_once_and_forgotten_after_the_last_token() {
        let mut standing = Standing::new(false);
        let new = standing.revoked(&page(1_000), 1_000);
        assert_eq!((new.keys, new.agents), (HashSet::from([KEY]), HashSet::from([AGENT])));
        assert!(standing.revoked(&page(1_000), 1_001).is_empty());
        let (key, agent) = (claims(KEY, OTHER_AGENT), claims(OTHER_KEY, AGENT));
        assert!(standing.is_revoked(&key) && standing.is_revoked(&agent));
        assert!(!standing.is_revoked(&claims(OTHER_KEY, OTHER_AGENT)));
        standing.revoked(&none(), 1_000 + last_token_s());
        assert!(standing.is_revoked(&key) && standing.is_revoked(&agent));
        standing.revoked(&none(), 1_001 + last_token_s());
        assert!(!standing.is_revoked(&key) && !standing.is_revoked(&agent));
        assert!(standing.revoked(&page(1_000), 10_000).is_empty());
    }

    #[test]
    fn static_keys_never_age() {
        let standing = Standing::new(true);
        assert_eq!(standing.admits(u64::MAX, REFUSE_AFTER), Ok(()));
        assert_eq!(
            standing.problems(u64::MAX, KEYS_STALE_AFTER, limits::REVOCATION_WITHIN),
            vec![]
        );
    }
}
