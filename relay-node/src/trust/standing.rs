//! Freshness of the node's beliefs, and the revoked API keys and agents. Pure.

use crate::clock::Now;
use skytale_proto::rest::Revocations;
use skytale_proto::token::Claims;
use skytale_proto::{AgentId, KeyId, limits};
use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::time::Duration;

/// Fetched keys and revocations, with their times.
#[derive(Debug)]
pub(crate) struct Standing {
    /// Static keys have no age and no revocations.
    timeless: bool,
    keys_heard: Option<Now>,
    revocations_heard: Option<Now>,
    /// Whether the API's last answer was that it tells this node nothing: that is no outage.
    denied: bool,
    keys: Revoked<KeyId>,
    agents: Revoked<AgentId>,
}

/// Maximum ages of the beliefs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ages {
    /// Revocations, before nobody is served any more.
    pub(crate) serve: Duration,
    /// Keys, before nobody is served any more.
    pub(crate) serve_keys: Duration,
    /// Revocations, before the operator reads of it.
    pub(crate) stale: Duration,
    /// Keys, before the operator reads of it.
    pub(crate) stale_keys: Duration,
}

/// A node to which the API has said that it tells it nothing serves no longer than this, however long it may without the API.
const SERVE_DENIED: Duration = Duration::from_secs(120);

/// Revoked ids, with the time (unix seconds): kept while a token of theirs can be in force.
#[derive(Debug)]
struct Revoked<T>(HashMap<T, u64>);

/// Ids that were in force before a page of revocations ended them.
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
            keys_heard: None,
            revocations_heard: None,
            denied: false,
            keys: Revoked(HashMap::new()),
            agents: Revoked(HashMap::new()),
        }
    }

    /// Nobody is asked for keys and revocations.
    pub(crate) const fn is_timeless(&self) -> bool {
        self.timeless
    }

    pub(crate) const fn keys_heard(&mut self, now: Now) {
        self.keys_heard = Some(now);
    }

    /// All revocations up to now were fetched.
    pub(crate) const fn revocations_heard(&mut self, now: Now) {
        self.revocations_heard = Some(now);
        self.denied = false;
    }

    /// The API has answered that it tells this node nothing.
    pub(crate) const fn denied(&mut self) {
        self.denied = true;
    }

    /// Returns the times at which keys and revocations were fetched last, unix milliseconds.
    pub(crate) fn heard_ms(&self) -> Option<(u64, u64)> {
        Some((self.keys_heard?.unix_ms, self.revocations_heard?.unix_ms))
    }

    /// Takes revocations in; gives those that are new.
    pub(crate) fn revoked(&mut self, page: &Revocations, now_s: u64) -> NewlyRevoked {
        let keys = page.revocations.iter().map(|one| (one.key, one.revoked_s));
        let agents = page.agents.iter().map(|one| (one.agent, one.ended_s));
        self.take(keys, agents, now_s)
    }

    /// Takes revocations in, with their times (unix seconds); returns the new ones.
    pub(crate) fn take(
        &mut self,
        keys: impl Iterator<Item = (KeyId, u64)>,
        agents: impl Iterator<Item = (AgentId, u64)>,
        now_s: u64,
    ) -> NewlyRevoked {
        NewlyRevoked {
            keys: self.keys.take(keys, now_s),
            agents: self.agents.take(agents, now_s),
        }
    }

    /// The API keys that are revoked, with when.
    pub(crate) fn revoked_keys(&self) -> Vec<(KeyId, u64)> {
        self.keys.all()
    }

    /// The agents that were ended, with when.
    pub(crate) fn ended_agents(&self) -> Vec<(AgentId, u64)> {
        self.agents.all()
    }

    /// Whether the key or the agent of these claims was revoked.
    pub(crate) fn is_revoked(&self, claims: &Claims) -> bool {
        self.keys.0.contains_key(&claims.key) || self.agents.0.contains_key(&claims.sub)
    }

    /// Whether the node may serve on its beliefs.
    pub(crate) fn admits(&self, now: Now, ages: &Ages) -> Result<(), Problem> {
        if self.timeless {
            return Ok(());
        }
        let keys = age(self.keys_heard, now).ok_or(Problem::NoKeys)?;
        let revocations = age(self.revocations_heard, now).ok_or(Problem::NoRevocations)?;
        let serve = if self.denied {
            ages.serve.min(SERVE_DENIED)
        } else {
            ages.serve
        };
        if revocations > serve {
            return Err(Problem::RevocationsStale(revocations));
        }
        if keys > ages.serve_keys {
            return Err(Problem::KeysStale(keys));
        }
        Ok(())
    }

    /// Returns the parts that are missing, or older than the operator would want.
    pub(crate) fn problems(&self, now: Now, ages: &Ages) -> Vec<Problem> {
        let mut problems = Vec::new();
        if self.timeless {
            return problems;
        }
        match age(self.keys_heard, now) {
            None => problems.push(Problem::NoKeys),
            Some(age) if age > ages.stale_keys => problems.push(Problem::KeysStale(age)),
            Some(_) => {}
        }
        match age(self.revocations_heard, now) {
            None => problems.push(Problem::NoRevocations),
            Some(age) if age > ages.stale => problems.push(Problem::RevocationsStale(age)),
            Some(_) => {}
        }
        problems
    }

    /// Returns the ages of revocations, and of keys.
    pub(crate) fn ages(&self, now: Now) -> (Option<Duration>, Option<Duration>) {
        if self.timeless {
            return (None, None);
        }
        (age(self.revocations_heard, now), age(self.keys_heard, now))
    }
}

/// Returns the age by the clock that shows more: the one stops while the machine sleeps, the other may be set back.
fn age(heard: Option<Now>, now: Now) -> Option<Duration> {
    let heard = heard?;
    let by_unix = Duration::from_millis(now.unix_ms.saturating_sub(heard.unix_ms));
    Some(now.instant.saturating_duration_since(heard.instant).max(by_unix))
}

impl<T: Copy + Eq + Hash> Revoked<T> {
    /// Returns the ids that were not revoked before. An id whose last token has ended is forgotten: the API gives it no
    /// other.
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

    fn all(&self) -> Vec<(T, u64)> {
        self.0.iter().map(|(one, revoked_s)| (*one, *revoked_s)).collect()
    }
}

/// Returns the time for which a token of the key can still be in force after a revocation, with clocks apart, in
/// seconds.
fn last_token_s() -> u64 {
    (limits::TOKEN_LIFETIME_MAX + limits::CLOCK_SKEW_MAX * 2).as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;
    use skytale_proto::rest::{AgentRevocation, Revocation};
    use skytale_proto::token::Confirmation;
    use skytale_proto::{AccountId, EndpointId};

    fn now() -> Now {
        Now {
            instant: tokio::time::Instant::now(),
            unix_ms: crate::clock::unix_ms(),
        }
    }

    const KEY: KeyId = KeyId::from_bytes([1; 16]);
    const OTHER_KEY: KeyId = KeyId::from_bytes([2; 16]);
    const AGENT: AgentId = AgentId::from_bytes([3; 32]);
    const OTHER_AGENT: AgentId = AgentId::from_bytes([4; 32]);
    const AGES: Ages = Ages {
        serve: Duration::from_secs(3_660),
        serve_keys: Duration::from_secs(3_660),
        stale: limits::REVOCATION_WITHIN,
        stale_keys: Duration::from_secs(600),
    };

    /// A moment, so many seconds after another one.
    fn after(start: Now, seconds: u64) -> Now {
        Now {
            instant: start.instant + Duration::from_secs(seconds),
            unix_ms: start.unix_ms + seconds * 1_000,
        }
    }

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
        let now = now();
        let mut standing = Standing::new(false);
        assert_eq!(standing.admits(now, &AGES), Err(Problem::NoKeys));
        standing.keys_heard(now);
        assert_eq!(standing.admits(now, &AGES), Err(Problem::NoRevocations));
        standing.revocations_heard(now);
        assert_eq!(standing.admits(now, &AGES), Ok(()));
        assert_eq!(standing.problems(now, &AGES), vec![]);
    }

    #[test]
    fn stale_revocations_are_told_first_and_refuse_later() {
        let start = now();
        let mut standing = Standing::new(false);
        standing.keys_heard(start);
        standing.revocations_heard(start);
        let told = after(start, 31);
        let age = Duration::from_secs(31);
        assert_eq!(standing.problems(told, &AGES), vec![Problem::RevocationsStale(age)]);
        assert_eq!(standing.admits(told, &AGES), Ok(()));
        assert_eq!(standing.problems(after(start, 700), &AGES).len(), 2);
        assert_eq!(standing.admits(after(start, 3_660), &AGES), Ok(()));
        assert!(standing.admits(after(start, 3_661), &AGES).is_err());
    }

    #[test]
    fn a_node_that_the_api_tells_nothing_does_not_serve_on_as_in_an_outage() {
        let start = now();
        let mut standing = Standing::new(false);
        standing.keys_heard(start);
        standing.revocations_heard(start);
        standing.denied();
        assert_eq!(standing.admits(after(start, 120), &AGES), Ok(()));
        assert!(standing.admits(after(start, 121), &AGES).is_err());
        standing.revocations_heard(after(start, 121));
        assert_eq!(standing.admits(after(start, 300), &AGES), Ok(()));
    }

    #[test]
    fn neither_a_clock_that_was_set_back_nor_a_machine_that_slept_makes_anything_younger() {
        let start = now();
        let mut standing = Standing::new(false);
        standing.keys_heard(start);
        standing.revocations_heard(start);
        let set_back = Now {
            unix_ms: 0,
            ..after(start, 3_661)
        };
        let slept = Now {
            instant: start.instant,
            ..after(start, 3_661)
        };
        assert!(standing.admits(set_back, &AGES).is_err());
        assert!(standing.admits(slept, &AGES).is_err());
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
        let late = after(now(), 1_000_000);
        assert_eq!(standing.admits(late, &AGES), Ok(()));
        assert_eq!(standing.problems(late, &AGES), vec![]);
    }
}
