//! One event as one line of JSON: an array of the microseconds since the event before, a letter, and what the letter says.
//! The table is in `lines.md`.

use crate::event::{Agent, Channel, Frame, Log, What};
use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use skytale_proto::{ChannelMode, Code};
use std::fmt;
use std::time::Duration;

/// Agents that one commit may name.
pub(crate) const NAMED_MAX: usize = 100_000;

/// Appends an event's line to `out`, with its newline. A tap writes some hundred thousand of them a second: so without `fmt`.
pub(crate) fn encode(delta: Duration, what: &What, out: &mut Vec<u8>) {
    let mut line = Encoder { out };
    line.begin(delta, letter(what));
    match what {
        What::Append {
            author,
            body_bytes,
            frame,
        } => {
            line.index(author.0);
            if let Some(channel) = frame.channel() {
                line.index(channel.0);
            }
            if let Frame::Claim(of) = frame {
                line.index(of.0);
            }
            line.index(*body_bytes);
            match frame {
                Frame::Create { mode, .. } => line.flag(*mode == ChannelMode::Raw),
                Frame::Commit {
                    adds,
                    removes,
                    recipients,
                    ..
                } => [adds, removes, recipients]
                    .into_iter()
                    .for_each(|agents| line.agents(agents)),
                Frame::Trim { kept, .. } => line.number(*kept),
                Frame::KeyPackage { last_resort } => line.flag(*last_resort),
                Frame::Proposal(_) | Frame::Message(_) | Frame::Raw(_) | Frame::Rejoin(_) | Frame::Claim(_) => {}
            }
        }
        What::Connect(agent) | What::Disconnect(agent) | What::Token(agent) => line.index(agent.0),
        What::Subscribe {
            agent,
            log,
            behind,
            follow,
        } => {
            line.index(agent.0);
            let (is_agent, index) = match log {
                Log::Channel(channel) => (false, channel.0),
                Log::Agent(agent) => (true, agent.0),
            };
            line.flag(is_agent);
            line.index(index);
            line.number(*behind);
            line.flag(*follow);
        }
        What::Refused { agent, code } => {
            line.index(agent.0);
            line.number(code.number().into());
        }
    }
    out.extend_from_slice(b"]\n");
}

const fn letter(what: &What) -> u8 {
    match what {
        What::Append { frame, .. } => match frame {
            Frame::Create { .. } => b'n',
            Frame::Commit { .. } => b'c',
            Frame::Proposal(_) => b'p',
            Frame::Message(_) => b'm',
            Frame::Raw(_) => b'r',
            Frame::Rejoin(_) => b'j',
            Frame::Trim { .. } => b't',
            Frame::KeyPackage { .. } => b'k',
            Frame::Claim(_) => b'l',
        },
        What::Connect(_) => b'+',
        What::Disconnect(_) => b'-',
        What::Token(_) => b'o',
        What::Subscribe { .. } => b's',
        What::Refused { .. } => b'x',
    }
}

struct Encoder<'a> {
    out: &'a mut Vec<u8>,
}

impl Encoder<'_> {
    fn begin(&mut self, delta: Duration, letter: u8) {
        self.out.push(b'[');
        self.digits(u64::try_from(delta.as_micros()).unwrap_or(u64::MAX));
        self.out.extend_from_slice(&[b',', b'"', letter, b'"']);
    }

    fn number(&mut self, number: u64) {
        self.out.push(b',');
        self.digits(number);
    }

    fn index(&mut self, index: u32) {
        self.number(index.into());
    }

    fn flag(&mut self, flag: bool) {
        self.number(flag.into());
    }

    fn agents(&mut self, agents: &[Agent]) {
        self.out.extend_from_slice(b",[");
        for (place, agent) in agents.iter().enumerate() {
            if place > 0 {
                self.out.push(b',');
            }
            self.digits(agent.0.into());
        }
        self.out.push(b']');
    }

    fn digits(&mut self, mut number: u64) {
        // u64::MAX has 20 digits.
        let mut digits = [b'0'; 20];
        let mut first = digits.len();
        for digit in digits.iter_mut().rev() {
            *digit = b'0' + (number % 10) as u8;
            number /= 10;
            first -= 1;
            if number == 0 {
                break;
            }
        }
        self.out.extend_from_slice(&digits[first..]);
    }
}

/// Contents of a line: the time since the event before, and the event.
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
