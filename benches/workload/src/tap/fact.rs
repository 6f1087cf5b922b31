//! Facts that a node sees, with the ids as they are: small, and without bodies.

use skytale_proto::{AgentId, ChannelMode, Code, Detail, Frame, LogId};
use std::time::Duration;

/// A fact, and when it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    /// Time from the start of the tap.
    pub at: Duration,
    /// The fact.
    pub fact: Fact,
}

/// Fact that a node saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact {
    /// A log accepted a frame. A duplicate is none.
    Append {
        /// Author of the frame.
        author: AgentId,
        /// The log.
        log: LogId,
        /// The frame.
        shape: Shape,
    },
    /// A session began.
    Connect {
        /// Its agent.
        agent: AgentId,
        /// Its number: a later session of the node has a higher one.
        session: u64,
    },
    /// A session ended.
    Disconnect {
        /// Its agent.
        agent: AgentId,
        /// Its number.
        session: u64,
    },
    /// A subscription began.
    Subscribe {
        /// The reader.
        agent: AgentId,
        /// The log.
        log: LogId,
        /// Entries after its cursor, up to the head of that time.
        behind: u64,
        /// Whether it goes on at the head.
        follow: bool,
    },
    /// An agent showed a token that holds.
    Token(AgentId),
    /// An agent was refused something.
    Refused {
        /// The refused agent.
        agent: AgentId,
        /// The code.
        code: Code,
    },
}

/// A frame, as far as a workload tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    pub(super) body_bytes: u32,
    pub(super) kind: ShapeKind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ShapeKind {
    Create(ChannelMode),
    /// Boxed: messages are many, commits few.
    Commit(Box<Changes>),
    Proposal,
    Message,
    Raw,
    Rejoin,
    KeyPackage {
        last_resort: bool,
    },
    Claim,
}

/// Changes by a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Changes {
    pub(super) adds: Vec<AgentId>,
    pub(super) removes: Vec<AgentId>,
    pub(super) recipients: Vec<AgentId>,
}

impl Shape {
    /// Returns the shape of a frame; `None` for kinds that no agent appends.
    pub fn of(frame: &Frame) -> Option<Self> {
        let kind = match &frame.header().detail {
            Detail::Create { mode, .. } => ShapeKind::Create(*mode),
            Detail::Commit {
                adds,
                removes,
                recipients,
                ..
            } => ShapeKind::Commit(Box::new(Changes {
                adds: adds.clone(),
                removes: removes.clone(),
                recipients: recipients.clone(),
            })),
            Detail::Proposal => ShapeKind::Proposal,
            Detail::Message => ShapeKind::Message,
            Detail::Raw { .. } => ShapeKind::Raw,
            Detail::Rejoin => ShapeKind::Rejoin,
            Detail::KeyPackage { last_resort, .. } => ShapeKind::KeyPackage {
                last_resort: *last_resort,
            },
            Detail::KeyPackageClaim { .. } => ShapeKind::Claim,
            // An agent's statements about itself are no load.
            Detail::Trim { .. } | Detail::Welcome { .. } | Detail::KeyPackagePolicy { .. } => return None,
        };
        Some(Self {
            body_bytes: u32::try_from(frame.body().len()).unwrap_or(u32::MAX),
            kind,
        })
    }
}
