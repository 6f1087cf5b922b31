//! One event as one line of JSON: an array of the microseconds since the event before, a letter, and what the letter says.
//! The table is in `lines.md`.

use crate::event::{Agent, Channel, Frame, Log, What};
use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use skytale_proto::{ChannelMode, Code};
use std::fmt::{self, Write as _};
use std::time::Duration;

/// Agents that one commit may name.
pub(crate) const NAMED_MAX: usize = 100_000;

/// Appends an event's line to `out`, with its newline.
pub(crate) fn encode(delta: Duration, what: &What, out: &mut String) {
    let (letter, numbers) = parts(what);
    let _ = write!(out, "[{},\"{letter}\"", delta.as_micros());
    for number in numbers {
        let _ = match number {
            Part::Number(number) => write!(out, ",{number}"),
            Part::Agents(agents) => {
                let list: Vec<String> = agents.iter().map(|agent| agent.0.to_string()).collect();
                write!(out, ",[{}]", list.join(","))
            }
        };
    }
    out.push_str("]\n");
}

enum Part<'a> {
    Number(u64),
    Agents(&'a [Agent]),
}

fn parts(what: &What) -> (char, Vec<Part<'_>>) {
    let n = |number: u32| Part::Number(number.into());
    match what {
        What::Append {
            author,
            body_bytes,
            frame,
        } => {
            let common = |channel: &Channel| vec![n(author.0), n(channel.0), n(*body_bytes)];
            match frame {
                Frame::Create { channel, mode } => {
                    let mut parts = common(channel);
                    parts.push(n(u32::from(*mode == ChannelMode::Raw)));
                    ('n', parts)
                }
                Frame::Commit {
                    channel,
                    adds,
                    removes,
                    recipients,
                } => {
                    let mut parts = common(channel);
                    parts.extend([adds, removes, recipients].map(|agents| Part::Agents(agents)));
                    ('c', parts)
                }
                Frame::Proposal(channel) => ('p', common(channel)),
                Frame::Message(channel) => ('m', common(channel)),
                Frame::Raw(channel) => ('r', common(channel)),
                Frame::Rejoin(channel) => ('j', common(channel)),
                Frame::Trim { channel, kept } => {
                    let mut parts = common(channel);
                    parts.push(Part::Number(*kept));
                    ('t', parts)
                }
                Frame::KeyPackage { last_resort } => {
                    ('k', vec![n(author.0), n(*body_bytes), n(u32::from(*last_resort))])
                }
                Frame::Claim(of) => ('l', vec![n(author.0), n(of.0), n(*body_bytes)]),
            }
        }
        What::Connect(agent) => ('+', vec![n(agent.0)]),
        What::Disconnect(agent) => ('-', vec![n(agent.0)]),
        What::Token(agent) => ('o', vec![n(agent.0)]),
        What::Subscribe {
            agent,
            log,
            behind,
            follow,
        } => {
            let (is_agent, index) = match log {
                Log::Channel(channel) => (0, channel.0),
                Log::Agent(agent) => (1, agent.0),
            };
            let parts = vec![
                n(agent.0),
                n(is_agent),
                n(index),
                Part::Number(*behind),
                n(u32::from(*follow)),
            ];
            ('s', parts)
        }
        What::Refused { agent, code } => ('x', vec![n(agent.0), Part::Number(code.number().into())]),
    }
}

/// What a line holds: the time since the event before, and the event.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) delta: Duration,
    pub(crate) what: What,
}

impl<'de> Deserialize<'de> for Line {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(LineVisitor)
    }
}

struct LineVisitor;

impl<'de> Visitor<'de> for LineVisitor {
    type Value = Line;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an event: an array of microseconds, a letter, and what the letter says")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Line, A::Error> {
        let mut parts = Parts { seq };
        let delta = Duration::from_micros(parts.next("microseconds")?);
        let letter: char = parts.next("a letter")?;
        let what = match letter {
            'n' | 'c' | 'p' | 'm' | 'r' | 'j' | 't' => {
                let author = Agent(parts.next("an author")?);
                let channel = Channel(parts.next("a channel")?);
                let body_bytes = parts.next("body bytes")?;
                let frame = match letter {
                    'n' => Frame::Create {
                        channel,
                        mode: if parts.flag("a mode")? {
                            ChannelMode::Raw
                        } else {
                            ChannelMode::Mls
                        },
                    },
                    'c' => Frame::Commit {
                        channel,
                        adds: parts.agents("adds")?,
                        removes: parts.agents("removes")?,
                        recipients: parts.agents("recipients")?,
                    },
                    'p' => Frame::Proposal(channel),
                    'm' => Frame::Message(channel),
                    'r' => Frame::Raw(channel),
                    'j' => Frame::Rejoin(channel),
                    _ => Frame::Trim {
                        channel,
                        kept: parts.next("entries kept")?,
                    },
                };
                What::Append {
                    author,
                    body_bytes,
                    frame,
                }
            }
            'k' => What::Append {
                author: Agent(parts.next("an author")?),
                body_bytes: parts.next("body bytes")?,
                frame: Frame::KeyPackage {
                    last_resort: parts.flag("a last resort")?,
                },
            },
            'l' => {
                let author = Agent(parts.next("an author")?);
                let of = Agent(parts.next("another agent")?);
                What::Append {
                    author,
                    body_bytes: parts.next("body bytes")?,
                    frame: Frame::Claim(of),
                }
            }
            '+' => What::Connect(Agent(parts.next("an agent")?)),
            '-' => What::Disconnect(Agent(parts.next("an agent")?)),
            'o' => What::Token(Agent(parts.next("an agent")?)),
            's' => {
                let agent = Agent(parts.next("an agent")?);
                let is_agent = parts.flag("a kind of log")?;
                let index = parts.next("a log")?;
                What::Subscribe {
                    agent,
                    log: if is_agent {
                        Log::Agent(Agent(index))
                    } else {
                        Log::Channel(Channel(index))
                    },
                    behind: parts.next("entries behind")?,
                    follow: parts.flag("whether it follows")?,
                }
            }
            'x' => {
                let agent = Agent(parts.next("an agent")?);
                let number: u32 = parts.next("a code")?;
                let code = Code::from_number(number)
                    .ok_or_else(|| A::Error::custom(format!("{number} is not a code of this version")))?;
                What::Refused { agent, code }
            }
            other => {
                return Err(A::Error::custom(format!(
                    "`{}` is not a kind of event of this version",
                    other.escape_default()
                )));
            }
        };
        parts.rest()?;
        Ok(Line { delta, what })
    }
}

struct Parts<A> {
    seq: A,
}

impl<'de, A: SeqAccess<'de>> Parts<A> {
    fn next<T: Deserialize<'de>>(&mut self, what: &str) -> Result<T, A::Error> {
        self.seq
            .next_element()?
            .ok_or_else(|| A::Error::custom(format!("the event ends where {what} should be")))
    }

    fn flag(&mut self, what: &str) -> Result<bool, A::Error> {
        match self.next::<u8>(what)? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(A::Error::custom(format!("{what} is {other}, and must be 0 or 1"))),
        }
    }

    fn agents(&mut self, what: &str) -> Result<Vec<Agent>, A::Error> {
        let indexes: Vec<u32> = self.next(what)?;
        if indexes.len() > NAMED_MAX {
            return Err(A::Error::custom(format!("{what}: more than {NAMED_MAX} agents")));
        }
        Ok(indexes.into_iter().map(Agent).collect())
    }

    fn rest(&mut self) -> Result<(), A::Error> {
        while self.seq.next_element::<serde::de::IgnoredAny>()?.is_some() {}
        Ok(())
    }
}
