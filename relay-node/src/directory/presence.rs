//! Whether the relay directory knows of the node, as far as the node can tell.

use parking_lot::Mutex;
use skytale_proto::Code;
use std::time::Duration;
use tokio::time::Instant;

/// Outcome of the last heartbeat.
#[derive(Debug, Default)]
pub(crate) struct Presence(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    taken: Option<Instant>,
    problem: Option<String>,
    /// The addresses of another process that shows this node's key.
    twin: Option<String>,
}

impl Presence {
    /// Another process shows this node's key, at these addresses, or none does; true where that is new.
    pub(crate) fn twin_is(&self, addresses: Option<String>) -> bool {
        let mut state = self.0.lock();
        let is_new = state.twin != addresses;
        state.twin = addresses;
        is_new
    }

    /// The operator's sentence about another process that shows this node's key.
    pub(crate) fn twin(&self) -> Option<String> {
        let state = self.0.lock();
        let addresses = state.twin.as_ref()?;
        Some(format!(
            "{}: another process shows this relay node's key, at {addresses}; the relay directory refuses it. Stop it, or give it \
             a key (`skytale relay enrol`) and a secret key file of its own. If it is not yours, revoke the enrolment",
            Code::RelayTwin
        ))
    }

    /// A heartbeat was taken; true where none was before, or the last one was not.
    pub(crate) fn taken(&self) -> bool {
        let mut state = self.0.lock();
        let first = state.taken.replace(Instant::now()).is_none();
        state.problem.take().is_some() || first
    }

    /// A heartbeat failed; true where the last one did not, or not for the same reason.
    pub(crate) fn failed(&self, why: String) -> bool {
        let mut state = self.0.lock();
        let new = state.problem.as_ref() != Some(&why);
        state.problem = Some(why);
        new
    }

    /// Time since a heartbeat was taken.
    pub(crate) fn age(&self) -> Option<Duration> {
        self.0.lock().taken.map(|taken| taken.elapsed())
    }

    /// Returns the problem, if the last heartbeat failed.
    pub(crate) fn problem(&self) -> Option<String> {
        let state = self.0.lock();
        let problem = state.problem.as_ref()?;
        Some(match state.taken {
            Some(taken) => format!(
                "the relay directory has taken no heartbeat for {} s: {problem}",
                taken.elapsed().as_secs()
            ),
            None => format!("the relay directory has taken no heartbeat: {problem}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_change_is_told_once() {
        let presence = Presence::default();
        assert_eq!((presence.age(), presence.problem()), (None, None));
        assert!(presence.failed("refused".into()));
        assert!(!presence.failed("refused".into()));
        assert_eq!(
            presence.problem().as_deref(),
            Some("the relay directory has taken no heartbeat: refused")
        );
        assert!(presence.taken());
        assert!(!presence.taken());
        assert!(presence.age().is_some() && presence.problem().is_none());
        assert!(presence.twin_is(Some("192.0.2.7:4433".into())));
        assert!(!presence.twin_is(Some("192.0.2.7:4433".into())));
        assert!(presence.twin().expect("one").contains("at 192.0.2.7:4433;"));
        assert!(presence.twin_is(None) && presence.twin().is_none());
        assert!(presence.failed("gone".into()));
        assert!(presence.problem().expect("one").ends_with(" s: gone"));
        assert!(presence.taken());
    }
}
