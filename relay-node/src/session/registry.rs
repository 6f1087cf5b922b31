//! The sessions that run: one an agent, and so many an account.

use crate::session::end::{EndSignal, Ending};
use crate::trust::NewlyRevoked;
use parking_lot::Mutex;
use skytale_proto::{AccountId, AgentId, Code, KeyId};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// All sessions that run.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    running: Mutex<Running>,
    next: AtomicU64,
}

#[derive(Debug, Default)]
struct Running {
    by_agent: HashMap<AgentId, Entry>,
    /// Number of sessions of each account.
    by_account: HashMap<AccountId, usize>,
}

/// Owner of a session.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Whose {
    pub(crate) agent: AgentId,
    pub(crate) account: AccountId,
    pub(crate) key: KeyId,
}

#[derive(Debug)]
struct Entry {
    id: u64,
    account: AccountId,
    key: KeyId,
    end: Arc<EndSignal>,
    streams: Arc<AtomicUsize>,
}

/// A session's place, for as long as it runs.
#[derive(Debug)]
pub(crate) struct Registration {
    sessions: Arc<Sessions>,
    agent: AgentId,
    id: u64,
}

impl Sessions {
    /// An agent's session begins, with `streams` open beside its control stream; one that it had ends. `None` where its account
    /// has `account_max` others.
    pub(crate) fn register(
        self: &Arc<Self>,
        whose: Whose,
        account_max: usize,
        end: Arc<EndSignal>,
        streams: Arc<AtomicUsize>,
    ) -> Option<Registration> {
        let Whose { agent, account, key } = whose;
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let entry = Entry {
            id,
            account,
            key,
            end,
            streams,
        };
        let older = self.running.lock().insert(agent, entry, account_max).ok()?;
        if let Some(older) = older {
            older.end.end(Ending::new(
                Code::SessionReplaced,
                "the agent connected again: this older session ends",
            ));
        }
        Some(Registration {
            sessions: self.clone(),
            agent,
            id,
        })
    }

    /// Ends the sessions whose API keys or agents were revoked.
    pub(crate) fn end_revoked(&self, revoked: &NewlyRevoked) {
        for (agent, entry) in &self.running.lock().by_agent {
            if revoked.ends(&entry.key, agent) {
                entry.end.end(revoked_ending());
            }
        }
    }

    /// Ends the sessions that have no stream open beside their control stream.
    pub(crate) fn end_empty(&self, why: &Ending) {
        for entry in self.running.lock().by_agent.values() {
            if entry.streams.load(Ordering::Relaxed) == 0 {
                entry.end.end(why.clone());
            }
        }
    }

    /// Ends every session.
    pub(crate) fn end_all(&self, why: &Ending) {
        for entry in self.running.lock().by_agent.values() {
            entry.end.end(why.clone());
        }
    }

    /// Whether an agent has one.
    pub(crate) fn has(&self, agent: &AgentId) -> bool {
        self.running.lock().by_agent.contains_key(agent)
    }

    /// Returns the number of sessions of an account.
    pub(crate) fn of_account(&self, account: &AccountId) -> usize {
        self.running.lock().by_account.get(account).copied().unwrap_or_default()
    }

    /// Returns the number of sessions.
    pub(crate) fn len(&self) -> usize {
        self.running.lock().by_agent.len()
    }
}

/// The account has as many sessions as it may have.
struct Full;

impl Running {
    /// Gives the session that the agent had.
    fn insert(&mut self, agent: AgentId, entry: Entry, account_max: usize) -> Result<Option<Entry>, Full> {
        let account = entry.account;
        let count = self.by_account.get(&account).copied().unwrap_or_default();
        let has_one = self.by_agent.get(&agent).is_some_and(|older| older.account == account);
        if count >= account_max && !has_one {
            return Err(Full);
        }
        *self.by_account.entry(account).or_default() += 1;
        let older = self.by_agent.insert(agent, entry);
        if let Some(older) = &older {
            self.count_out(older.account);
        }
        Ok(older)
    }

    fn remove(&mut self, agent: &AgentId, id: u64) {
        if self.by_agent.get(agent).is_some_and(|entry| entry.id == id)
            && let Some(entry) = self.by_agent.remove(agent)
        {
            self.count_out(entry.account);
        }
    }

    fn count_out(&mut self, account: AccountId) {
        if let Some(count) = self.by_account.get_mut(&account) {
            *count -= 1;
            if *count == 0 {
                self.by_account.remove(&account);
            }
        }
    }
}

/// Returns the ending of a session whose API key or agent was revoked.
pub(crate) const fn revoked_ending() -> Ending {
    Ending::new(
        Code::TokenRevoked,
        "the API key behind the session's token was revoked, or its agent was ended",
    )
}

impl Registration {
    /// The session's number: each one's is above those of the sessions before it.
    pub(crate) const fn number(&self) -> u64 {
        self.id
    }

    /// The session goes on under a token of this API key.
    pub(crate) fn set_key(&self, key: KeyId) {
        if let Some(entry) = self.sessions.running.lock().by_agent.get_mut(&self.agent)
            && entry.id == self.id
        {
            entry.key = key;
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.sessions.running.lock().remove(&self.agent, self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: AgentId = AgentId::from_bytes([1; 32]);
    const B: AgentId = AgentId::from_bytes([2; 32]);
    const C: AgentId = AgentId::from_bytes([5; 32]);
    const ONE: AccountId = AccountId::from_bytes([6; 16]);
    const OTHER: AccountId = AccountId::from_bytes([7; 16]);
    const KEY: KeyId = KeyId::from_bytes([3; 16]);
    const OTHER_KEY: KeyId = KeyId::from_bytes([4; 16]);

    fn begin(sessions: &Arc<Sessions>, agent: AgentId, end: &Arc<EndSignal>) -> Registration {
        begin_with(sessions, agent, KEY, end, Arc::default())
    }

    fn begin_with(
        sessions: &Arc<Sessions>,
        agent: AgentId,
        key: KeyId,
        end: &Arc<EndSignal>,
        streams: Arc<AtomicUsize>,
    ) -> Registration {
        let whose = Whose {
            agent,
            account: ONE,
            key,
        };
        sessions.register(whose, 10, end.clone(), streams).expect("room")
    }

    fn code(end: &EndSignal) -> Option<Code> {
        end.why().map(|why| why.code)
    }

    #[test]
    fn a_second_session_of_an_agent_ends_the_first_and_stays_registered() {
        let sessions = Arc::new(Sessions::default());
        let (first, second) = (Arc::new(EndSignal::default()), Arc::new(EndSignal::default()));
        let older = begin(&sessions, A, &first);
        let newer = begin(&sessions, A, &second);
        drop(older);
        assert_eq!((code(&first), code(&second)), (Some(Code::SessionReplaced), None));
        assert_eq!(sessions.len(), 1);
        drop(newer);
        assert_eq!(sessions.len(), 0);
    }

    #[test]
    fn an_account_has_so_many_sessions_and_its_agents_may_come_back() {
        let sessions = Arc::new(Sessions::default());
        let begin = |agent, account| {
            let whose = Whose {
                agent,
                account,
                key: KEY,
            };
            sessions.register(whose, 2, Arc::default(), Arc::default())
        };
        let of_a = begin(A, ONE).expect("room");
        let of_b = begin(B, ONE).expect("room");
        assert!(begin(C, ONE).is_none(), "the newest is refused");
        let again = begin(A, ONE).expect("in place of its own");
        drop(of_a);
        assert!(begin(C, ONE).is_none(), "two still run");
        assert_eq!((sessions.of_account(&ONE), sessions.of_account(&OTHER)), (2, 0));
        let of_c = begin(C, OTHER).expect("another account has its own");
        drop(of_b);
        let of_b = begin(B, ONE).expect("room again");
        drop((again, of_b, of_c));
        assert!(sessions.running.lock().by_account.is_empty());
    }

    #[test]
    fn only_sessions_without_a_stream_are_empty() {
        let sessions = Arc::new(Sessions::default());
        let (idle, busy) = (Arc::new(EndSignal::default()), Arc::new(EndSignal::default()));
        let streams = Arc::new(AtomicUsize::new(1));
        let _idle = begin(&sessions, A, &idle);
        let _busy = begin_with(&sessions, B, KEY, &busy, streams.clone());
        let why = Ending::new(Code::Draining, "a test");
        sessions.end_empty(&why);
        assert_eq!((code(&idle), code(&busy)), (Some(Code::Draining), None));
        streams.store(0, Ordering::Relaxed);
        sessions.end_empty(&why);
        assert_eq!(code(&busy), Some(Code::Draining));
    }

    #[test]
    fn a_revoked_key_or_agent_ends_its_sessions_and_no_others() {
        let sessions = Arc::new(Sessions::default());
        let ends: Vec<_> = (0..3).map(|_| Arc::new(EndSignal::default())).collect();
        let of_a = begin(&sessions, A, &ends[0]);
        let _of_b = begin(&sessions, B, &ends[1]);
        let _of_c = begin_with(&sessions, C, OTHER_KEY, &ends[2], Arc::default());
        of_a.set_key(OTHER_KEY);
        let codes = || ends.iter().map(|end| code(end)).collect::<Vec<_>>();
        let mut revoked = NewlyRevoked::default();
        revoked.keys.insert(KEY);
        sessions.end_revoked(&revoked);
        assert_eq!(codes(), [None, Some(Code::TokenRevoked), None]);
        revoked.agents.insert(C);
        sessions.end_revoked(&revoked);
        assert_eq!(codes(), [None, Some(Code::TokenRevoked), Some(Code::TokenRevoked)]);
    }
}
