//! Target of a replay.

use skytale_proto::{AccountId, AgentId, Code, Frame, LogId, Offset, Region};
use std::fmt;
use std::future::Future;
use std::time::Duration;

/// A system that keeps logs. Agents are numbered from 0.
pub trait Target: Send + Sync + 'static {
    /// An agent's way to it.
    type Session: Session;

    /// Its name in reports.
    fn name(&self) -> &'static str;

    /// The id under which an agent appends.
    fn agent_id(&self, agent: u32) -> AgentId;

    /// The account that all agents belong to, as frames of raw channels name it; `None` until an agent has a token.
    fn account(&self) -> Option<AccountId>;

    /// Returns the home region of the channels that an agent makes.
    fn home(&self, agent: u32) -> Region;

    /// Gets what an agent needs before it connects, such as a token, and keeps it for its next session.
    fn token(&self, agent: u32) -> impl Future<Output = Result<(), Failed>> + Send;

    /// A session of an agent. An agent has one at a time.
    fn connect(&self, agent: u32) -> impl Future<Output = Result<Self::Session, Failed>> + Send;
}

/// An agent's session. Clones are the same session.
pub trait Session: Clone + Send + Sync + 'static {
    /// Resolves with the verdict on an append. Those of one session come in the order of the appends.
    type Pending: Future<Output = Result<Appended, Failed>> + Send + 'static;
    /// A subscription.
    type Reading: Reading;

    /// Gives a frame to the target; waits where the target makes it wait. Frames become entries in the order of the calls.
    fn append(&self, frame: &Frame) -> impl Future<Output = Result<Self::Pending, Failed>> + Send;

    /// Takes a KeyPackage of another agent.
    fn claim(&self, claim: &Frame) -> impl Future<Output = Result<(), Failed>> + Send;

    /// Entries of a log after a cursor, to the head, and on from there with `follow`.
    fn read(
        &self,
        log: LogId,
        after: Offset,
        follow: bool,
    ) -> impl Future<Output = Result<Self::Reading, Failed>> + Send;

    /// Resolves when the session is over, or is to be left.
    fn ended(&self) -> impl Future<Output = Failed> + Send;

    /// Ends it.
    fn close(&self) -> impl Future<Output = ()> + Send;
}

/// A subscription.
pub trait Reading: Send + 'static {
    /// Waits for the next read; `None` if the target ended the subscription. Cancel-safe.
    fn next(&mut self) -> impl Future<Output = Result<Option<Read>, Failed>> + Send;
}

/// Result of a read from a subscription.
#[derive(Clone, Debug)]
pub enum Read {
    /// Entries, in order: where each is, and the frame.
    Entries(Vec<(Offset, Frame)>),
    /// The reader is at the head of the time at which it subscribed.
    CaughtUp,
}

/// An append that became an entry, and is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Offset in its log: logs are dense, from 1.
    pub offset: Offset,
}

/// Reason why something failed.
#[derive(Clone, Debug)]
pub struct Failed {
    /// The code.
    pub code: Code,
    /// The problem.
    pub problem: String,
    /// Whether the target said no. Otherwise the request may have been carried out.
    pub is_refusal: bool,
    /// Time to wait before another try, if the target said so.
    pub retry_after: Option<Duration>,
    /// The offset that a refusal is about: the handshake head, or the first available offset.
    pub offset: Offset,
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.problem)
    }
}

impl std::error::Error for Failed {}

impl Failed {
    /// Something that went wrong on the way, so that it is not known whether it was done.
    pub fn lost(problem: impl Into<String>) -> Self {
        Self {
            code: Code::Offline,
            problem: problem.into(),
            is_refusal: false,
            retry_after: None,
            offset: Offset::ZERO,
        }
    }

    /// The author built on a handshake head that has moved: the same with the new head may be taken.
    pub(crate) const fn is_stale(&self) -> bool {
        self.is_refusal && matches!(self.code, Code::StaleEpoch | Code::StaleHandshake)
    }

    /// The same may be taken later, on another session.
    pub(crate) const fn is_for_later(&self) -> bool {
        !self.is_refusal || self.code.holds_log()
    }
}
