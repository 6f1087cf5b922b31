//! Events of a workload.

use skytale_proto::{ChannelMode, Code};
use std::time::Duration;

/// An agent: its index among the agents of a workload, by first appearance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Agent(pub u32);

/// A channel: its index among the channels of a workload, by first appearance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Channel(pub u32);

/// A log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Log {
    /// A channel's.
    Channel(Channel),
    /// An agent's own: its KeyPackages and Welcomes.
    Agent(Agent),
}

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Time from the start of the workload. Microseconds are kept.
    pub at: Duration,
    /// Kind of the event.
    pub what: What,
}

/// Kind of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// A frame that a log accepted.
    Append {
        /// Author of the frame.
        author: Agent,
        /// Its body, in bytes.
        body_bytes: u32,
        /// Its kind, and what the kind says.
        frame: Frame,
    },
    /// An agent's session with a relay node began.
    Connect(Agent),
    /// An agent's session with a relay node ended.
    Disconnect(Agent),
    /// An agent began to read a log.
    Subscribe {
        /// The reader.
        agent: Agent,
        /// The log.
        log: Log,
        /// Number of entries that it had not read, up to the head of that time.
        behind: u64,
        /// Whether it goes on at the head.
        follow: bool,
    },
    /// An agent asked for a token, and got one.
    Token(Agent),
    /// The relay node refused something.
    Refused {
        /// The refused agent.
        agent: Agent,
        /// The code.
        code: Code,
    },
}

/// The kind of a frame, and what of its header shapes the load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// The first entry of a channel.
    Create {
        /// The channel.
        channel: Channel,
        /// Rules for appends to it.
        mode: ChannelMode,
    },
    /// An MLS commit, perhaps with Welcomes.
    Commit {
        /// The channel.
        channel: Channel,
        /// Agents that came on the roster.
        adds: Vec<Agent>,
        /// Agents that left it.
        removes: Vec<Agent>,
        /// Those among `adds` who got a Welcome.
        recipients: Vec<Agent>,
    },
    /// An MLS proposal.
    Proposal(Channel),
    /// An MLS application message.
    Message(Channel),
    /// A frame of a raw channel.
    Raw(Channel),
    /// A member asked to be added again.
    Rejoin(Channel),
    /// Entries of a channel given up.
    Trim {
        /// The channel.
        channel: Channel,
        /// Number of entries that it kept.
        kept: u64,
    },
    /// A KeyPackage offered on the author's own log.
    KeyPackage {
        /// Whether it is handed out only when nothing else is left.
        last_resort: bool,
    },
    /// A KeyPackage of another agent taken.
    Claim(Agent),
}

impl Frame {
    /// The channel, if it is a frame of one.
    pub const fn channel(&self) -> Option<Channel> {
        match self {
            Self::Create { channel, .. }
            | Self::Commit { channel, .. }
            | Self::Proposal(channel)
            | Self::Message(channel)
            | Self::Raw(channel)
            | Self::Rejoin(channel)
            | Self::Trim { channel, .. } => Some(*channel),
            Self::KeyPackage { .. } | Self::Claim(_) => None,
        }
    }
}

impl Log {
    fn map(self, agent: &mut impl FnMut(Agent) -> Agent, channel: &mut impl FnMut(Channel) -> Channel) -> Self {
        match self {
            Self::Channel(of) => Self::Channel(channel(of)),
            Self::Agent(of) => Self::Agent(agent(of)),
        }
    }
}

impl What {
    /// The same for other agents and channels.
    #[must_use]
    pub fn map(self, mut agent: impl FnMut(Agent) -> Agent, mut channel: impl FnMut(Channel) -> Channel) -> Self {
        match self {
            Self::Append {
                author,
                body_bytes,
                frame,
            } => {
                let author = agent(author);
                let mut list = |agents: Vec<Agent>| -> Vec<Agent> { agents.into_iter().map(&mut agent).collect() };
                let frame = match frame {
                    Frame::Create { channel: of, mode } => Frame::Create {
                        channel: channel(of),
                        mode,
                    },
                    Frame::Commit {
                        channel: of,
                        adds,
                        removes,
                        recipients,
                    } => Frame::Commit {
                        channel: channel(of),
                        adds: list(adds),
                        removes: list(removes),
                        recipients: list(recipients),
                    },
                    Frame::Proposal(of) => Frame::Proposal(channel(of)),
                    Frame::Message(of) => Frame::Message(channel(of)),
                    Frame::Raw(of) => Frame::Raw(channel(of)),
                    Frame::Rejoin(of) => Frame::Rejoin(channel(of)),
                    Frame::Trim { channel: of, kept } => Frame::Trim {
                        channel: channel(of),
                        kept,
                    },
                    Frame::KeyPackage { last_resort } => Frame::KeyPackage { last_resort },
                    Frame::Claim(of) => Frame::Claim(agent(of)),
                };
                Self::Append {
                    author,
                    body_bytes,
                    frame,
                }
            }
            Self::Connect(of) => Self::Connect(agent(of)),
            Self::Disconnect(of) => Self::Disconnect(agent(of)),
            Self::Token(of) => Self::Token(agent(of)),
            Self::Refused { agent: of, code } => Self::Refused { agent: agent(of), code },
            Self::Subscribe {
                agent: of,
                log,
                behind,
                follow,
            } => Self::Subscribe {
                agent: agent(of),
                log: log.map(&mut agent, &mut channel),
                behind,
                follow,
            },
        }
    }

    /// The name of its kind, as counts list it.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Append { frame, .. } => match frame {
                Frame::Create { .. } => "create",
                Frame::Commit { .. } => "commit",
                Frame::Proposal(_) => "proposal",
                Frame::Message(_) => "message",
                Frame::Raw(_) => "raw",
                Frame::Rejoin(_) => "rejoin",
                Frame::Trim { .. } => "trim",
                Frame::KeyPackage { .. } => "key_package",
                Frame::Claim(_) => "key_package_claim",
            },
            Self::Connect(_) => "connect",
            Self::Disconnect(_) => "disconnect",
            Self::Subscribe { .. } => "subscribe",
            Self::Token(_) => "token",
            Self::Refused { .. } => "refused",
        }
    }
}
