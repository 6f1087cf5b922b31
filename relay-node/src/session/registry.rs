//! The sessions that run: one an agent.

use crate::session::end::{EndSignal, Ending};
use crate::trust::NewlyRevoked;
use parking_lot::Mutex;
use skytale_proto::{AgentId, Code, KeyId};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// All sessions that run.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    by_agent: Mutex<HashMap<AgentId, Entry>>,
    next: AtomicU64,
}

#[derive(Debug)]
struct Entry {
    id: u64,
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
    /// An agent's session begins, with `streams` open beside its control stream; one that it had ends.
    pub(crate) fn register(
        self: &Arc<Self>,
        agent: AgentId,
        key: KeyId,
        end: Arc<EndSignal>,
        streams: Arc<AtomicUsize>,
    ) -> Registration {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let entry = Entry { id, key, end, streams };
        let older = self.by_agent.lock().insert(agent, entry);
        if let Some(older) = older {
            older.end.end(Ending::new(
                Code::SessionReplaced,
                "the agent connected again: this older session ends",
            ));
        }
        Registration {
            sessions: self.clone(),
            agent,
            id,
        }
    }

    /// Ends the sessions whose API keys or agents were revoked.
    pub(crate) fn end_revoked(&self, revoked: &NewlyRevoked) {
        for (agent, entry) in self.by_agent.lock().iter() {
            if revoked.ends(&entry.key, agent) {
                entry.end.end(revoked_ending());
            }
        }
    }

    /// Ends the sessions that have no stream open beside their control stream.
    pub(crate) fn end_empty(&self, why: &Ending) {
        for entry in self.by_agent.lock().values() {
            if entry.streams.load(Ordering::Relaxed) == 0 {
                entry.end.end(why.clone());
            }
        }
    }

    /// Ends every session.
    pub(crate) fn end_all(&self, why: &Ending) {
        for entry in self.by_agent.lock().values() {
            entry.end.end(why.clone());
        }
    }

    /// Whether an agent has one.
    pub(crate) fn has(&self, agent: &AgentId) -> bool {
        self.by_agent.lock().contains_key(agent)
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.by_agent.lock().len()
    }
}

/// How a session ends whose API key or agent was revoked.
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
        if let Some(entry) = self.sessions.by_agent.lock().get_mut(&self.agent)
            && entry.id == self.id
        {
            entry.key = key;
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut sessions = self.sessions.by_agent.lock();
        if sessions.get(&self.agent).is_some_and(|entry| entry.id == self.id) {
            sessions.remove(&self.agent);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: AgentId = AgentId::from_bytes([1; 32]);
    const B: AgentId = AgentId::from_bytes([2; 32]);
    const C: AgentId = AgentId::from_bytes([5; 32]);
    const KEY: KeyId = KeyId::from_bytes([3; 16]);
    const OTHER_KEY: KeyId = KeyId::from_bytes([4; 16]);

    fn code(end: &EndSignal) -> Option<Code> {
        end.why().map(|why| why.code)
    }

    #[test]
    fn a_second_session_of_an_agent_ends_the_first_and_stays_registered() {
        let sessions = Arc::new(Sessions::default());
        let (first, second) = (Arc::new(EndSignal::default()), Arc::new(EndSignal::default()));
        let older = sessions.register(A, KEY, first.clone(), Arc::default());
        let newer = sessions.register(A, KEY, second.clone(), Arc::default());
        drop(older);
        assert_eq!((code(&first), code(&second)), (Some(Code::SessionReplaced), None));
        assert_eq!(sessions.len(), 1);
        drop(newer);
        assert_eq!(sessions.len(), 0);
    }

    #[test]
    fn only_sessions_without_a_stream_are_empty() {
        let sessions = Arc::new(Sessions::default());
        let (idle, busy) = (Arc::new(EndSignal::default()), Arc::new(EndSignal::default()));
        let streams = Arc::new(AtomicUsize::new(1));
        let _idle = sessions.register(A, KEY, idle.clone(), Arc::default());
        let _busy = sessions.register(B, KEY, busy.clone(), streams.clone());
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
        let of_a = sessions.register(A, KEY, ends[0].clone(), Arc::default());
        let _of_b = sessions.register(B, KEY, ends[1].clone(), Arc::default());
        let _of_c = sessions.register(C, OTHER_KEY, ends[2].clone(), Arc::default());
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
