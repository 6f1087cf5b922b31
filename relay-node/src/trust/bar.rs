//! Whether the API lets this node serve at all. Pure.
//!
//! An enrolled node shows its enrolment's key with each request. The API's word that the enrolment was revoked bars the node:
//! it serves nobody until the API says otherwise. No word at all changes nothing here; how long a node goes on without is
//! [`Standing`](super::Standing)'s business.

use crate::session::Ending;
use skytale_proto::Code;
use skytale_proto::session::Refusal;
use std::time::Duration;
use tokio::time::Instant;

/// Time for which an agent leaves a node alone whose enrolment was revoked.
const REVOKED_RETRY_AFTER: Duration = Duration::from_secs(30);
/// Time for which it leaves a node alone whose twin may be a process of before that has ended: the relay directory
/// misses it soon.
const TWIN_RETRY_AFTER: Duration = Duration::from_secs(5);

/// Reason why a node may serve nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Barred {
    /// Its enrolment was revoked.
    Revoked,
    /// Another process shows its key, and has its place in the relay directory.
    Twin,
}

impl Barred {
    /// All of them.
    pub(crate) const ALL: [Self; 2] = [Self::Revoked, Self::Twin];

    /// Returns its name in metrics.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Revoked => "revoked",
            Self::Twin => "twin",
        }
    }

    /// Returns the ending of sessions.
    pub(crate) const fn ending(self) -> Ending {
        Ending::new(
            Code::RelayBarred,
            match self {
                Self::Revoked => "this relay node's enrolment was revoked: it serves no agents",
                Self::Twin => "another process has this relay node's key and serves in its place",
            },
        )
    }

    /// The refusal for agents that come all the same.
    pub(crate) fn refusal(self) -> Refusal {
        self.ending().refusal().after(match self {
            Self::Revoked => REVOKED_RETRY_AFTER,
            Self::Twin => TWIN_RETRY_AFTER,
        })
    }

    /// Returns the text for the operator.
    pub(crate) fn detail(self) -> String {
        match self {
            Self::Revoked => format!(
                "{}: the enrolment was revoked, and no agents are served. To bring the node back, enrol it again (`skytale \
                 relay enrol`), set `relay.relay_secret` to the new key and restart it",
                Code::EnrolmentRevoked
            ),
            Self::Twin => format!(
                "{}: another process shows this relay node's key and is in the relay directory, and no agents are served here. \
                 Stop the other one, or give this one a key (`skytale relay enrol`) and a secret key file of its own. After \
                 the other one has ended, this one serves by itself within three heartbeats",
                Code::RelayTwin
            ),
        }
    }
}

/// Last answers of the API.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Bar {
    /// Time of the request, and whether the enrolment is revoked.
    enrolment: Option<(Instant, bool)>,
    /// Whether the relay directory refused the last heartbeat for the sake of another process.
    has_twin: bool,
}

impl Bar {
    /// The API answered a question of the time `asked`. Answers may come in another order than questions were asked: the
    /// newest question counts.
    pub(super) fn enrolment(&mut self, asked: Instant, is_revoked: bool) {
        if self.enrolment.is_none_or(|(before, _)| before <= asked) {
            self.enrolment = Some((asked, is_revoked));
        }
    }

    /// The relay directory took a heartbeat, or refused it for the sake of another process. Heartbeats go one after the other.
    pub(super) const fn twin(&mut self, has_twin: bool) {
        self.has_twin = has_twin;
    }

    pub(super) const fn barred(&self) -> Option<Barred> {
        match self.enrolment {
            Some((_, true)) => Some(Barred::Revoked),
            _ if self.has_twin => Some(Barred::Twin),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_to_the_newest_question_counts() {
        let now = Instant::now();
        let later = now + Duration::from_millis(1);
        let mut bar = Bar::default();
        assert_eq!(bar.barred(), None);
        bar.enrolment(later, true);
        bar.enrolment(now, false);
        assert_eq!(bar.barred(), Some(Barred::Revoked));
        bar.enrolment(later, false);
        assert_eq!(bar.barred(), None);
        bar.twin(true);
        assert_eq!(bar.barred(), Some(Barred::Twin));
        bar.enrolment(later, false);
        assert_eq!(bar.barred(), Some(Barred::Twin));
        bar.twin(false);
        assert_eq!(bar.barred(), None);
    }
}
