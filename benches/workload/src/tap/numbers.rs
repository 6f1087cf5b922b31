//! Numbers for ids, as many a second as a node sees.

use super::fact::{Changes, Fact, ShapeKind};
use crate::event::{Agent, Channel, Frame, Log, What};
use crate::ids::{NoRandomness, Pseudonyms, Sample};
use skytale_proto::{AgentId, ChannelId, LogId};
use std::collections::HashMap;
use std::fmt;

/// Ids whose number is looked up without their pseudonym. The rest costs an HMAC each time.
const RECENT_MAX: usize = 16_384;

/// Turns facts into events. Ids stay in the memory of a node that has them anyway.
pub(super) struct Numbers {
    pseudonyms: Pseudonyms,
    agents: HashMap<AgentId, Agent>,
    channels: HashMap<ChannelId, Channel>,
    /// The agent that was asked for last: facts of one come together.
    last: Option<(AgentId, Agent)>,
}

/// Without the ids.
impl fmt::Debug for Numbers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.pseudonyms.fmt(f)
    }
}

impl Numbers {
    /// Makes them with a key of their own.
    pub(super) fn new() -> Result<Self, NoRandomness> {
        Ok(Self {
            pseudonyms: Pseudonyms::new(Sample::ALL)?,
            agents: HashMap::new(),
            channels: HashMap::new(),
            last: None,
        })
    }

    /// Returns the number of ids that have a number.
    pub(super) fn len(&self) -> usize {
        self.pseudonyms.len()
    }

    fn agent(&mut self, id: &AgentId) -> Agent {
        if let Some((_, agent)) = self.last.filter(|(last, _)| last == id) {
            return agent;
        }
        let agent = self.looked_up(id);
        self.last = Some((*id, agent));
        agent
    }

    fn looked_up(&mut self, id: &AgentId) -> Agent {
        if let Some(agent) = self.agents.get(id) {
            return *agent;
        }
        if self.agents.len() >= RECENT_MAX {
            self.agents.clear();
        }
        let agent = self.pseudonyms.agent(id);
        self.agents.insert(*id, agent);
        agent
    }

    fn channel(&mut self, id: &ChannelId) -> Option<Channel> {
        if let Some(channel) = self.channels.get(id) {
            return Some(*channel);
        }
        if self.channels.len() >= RECENT_MAX {
            self.channels.clear();
        }
        let channel = self.pseudonyms.channel(id)?;
        self.channels.insert(*id, channel);
        Some(channel)
    }

    /// Returns a fact's event in a workload. `None` where a kind does not fit its log, which no store accepts.
    pub(super) fn event(&mut self, fact: &Fact) -> Option<What> {
        Some(match fact {
            Fact::Append { author, log, shape } => What::Append {
                author: self.agent(author),
                body_bytes: shape.body_bytes,
                frame: self.frame(log, &shape.kind)?,
            },
            Fact::Connect { agent, .. } => What::Connect(self.agent(agent)),
            Fact::Disconnect { agent, .. } => What::Disconnect(self.agent(agent)),
            Fact::Subscribe {
                agent,
                log,
                behind,
                follow,
            } => What::Subscribe {
                agent: self.agent(agent),
                log: match log {
                    LogId::Channel(id) => Log::Channel(self.channel(id)?),
                    LogId::Agent(id) => Log::Agent(self.agent(id)),
                },
                behind: *behind,
                follow: *follow,
            },
            Fact::Token(agent) => What::Token(self.agent(agent)),
            Fact::Refused { agent, code } => What::Refused {
                agent: self.agent(agent),
                code: *code,
            },
        })
    }

    fn frame(&mut self, log: &LogId, kind: &ShapeKind) -> Option<Frame> {
        let channel = match log {
            LogId::Channel(id) => self.channel(id)?,
            LogId::Agent(of) => {
                return match kind {
                    ShapeKind::KeyPackage { last_resort } => Some(Frame::KeyPackage {
                        last_resort: *last_resort,
                    }),
                    ShapeKind::Claim => Some(Frame::Claim(self.agent(of))),
                    _ => None,
                };
            }
        };
        Some(match kind {
            ShapeKind::Create(mode) => Frame::Create { channel, mode: *mode },
            ShapeKind::Commit(changes) => {
                let Changes {
                    adds,
                    removes,
                    recipients,
                } = &**changes;
                let mut agents = |list: &[AgentId]| list.iter().map(|agent| self.agent(agent)).collect();
                Frame::Commit {
                    channel,
                    adds: agents(adds),
                    removes: agents(removes),
                    recipients: agents(recipients),
                }
            }
            ShapeKind::Proposal => Frame::Proposal(channel),
            ShapeKind::Message => Frame::Message(channel),
            ShapeKind::Raw => Frame::Raw(channel),
            ShapeKind::Rejoin => Frame::Rejoin(channel),
            ShapeKind::KeyPackage { .. } | ShapeKind::Claim => return None,
        })
    }
}
