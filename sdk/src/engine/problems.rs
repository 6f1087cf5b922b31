//! Problems of a channel, for people: lost entries, contradictions, and the remedy for each.

use super::channel::one;
use super::{
    ChannelState, Code, Divergence, Engine, EngineError, FailedSend, Lost, LostReason, Rollback, Settled, Standing,
    UnreadableEntry,
};
use skytale_proto::{ChannelId, Digest, Offset};

/// Number of unreadable entries returned per log: the first ones.
const UNREADABLE_MAX: u32 = 1_000;

/// A problem of a channel: an inconsistency, or a loss.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[non_exhaustive]
pub enum Problem {
    /// The relay showed this agent and another member different logs. Listed until it is settled.
    Diverged(Divergence),
    /// The log went back: it no longer has entries that this agent was shown. Listed until another member's digest
    /// confirms the log that this agent knows.
    RolledBack(Rollback),
    /// The log went back, its operator confirmed it, and this agent has continued with it.
    Settled {
        /// Details, including the offset from which offsets name other entries than before.
        settled: Settled,
        /// Number of messages that this agent had received and that the log no longer has. A message is no longer
        /// counted once its author sends it again.
        replaced: u64,
    },
    /// Another copy of this vault has superseded this one, which sends and reads nothing here.
    Superseded {
        /// The entry that revealed it.
        since: Offset,
    },
    /// This agent cannot follow the group. Its messages are held.
    OutOfSync {
        /// The first entry that it cannot apply.
        since: Offset,
        /// The reason, in words.
        reason: String,
        /// Offset of its request to be added again; `None` while there is none.
        asked: Option<Offset>,
        /// Number of messages received since that it cannot read.
        missed: u64,
    },
    /// This vault is an older copy, which takes new keys before it sends.
    Renewing {
        /// The entry that revealed it.
        since: Offset,
        /// The reason, in words.
        reason: String,
    },
    /// Entries that this agent will never read.
    Lost(Lost),
    /// An entry that cannot be processed and never will be.
    Unreadable(UnreadableEntry),
    /// A message or change that will not be delivered. Listed until it is dismissed or sent again.
    SendFailed(FailedSend),
}

impl Problem {
    /// Returns a short, stable name.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Diverged(_) => "diverged",
            Self::RolledBack(_) => "rolled-back",
            Self::Settled { .. } => "settled",
            Self::Superseded { .. } => "superseded",
            Self::OutOfSync { .. } => "out-of-sync",
            Self::Renewing { .. } => "renewing",
            Self::Lost(_) => "lost",
            Self::Unreadable(_) => "unreadable",
            Self::SendFailed(_) => "send-failed",
        }
    }

    /// Returns the code of the problem.
    pub const fn code(&self) -> Code {
        match self {
            Self::Diverged(_) => Code::Divergence,
            Self::RolledBack(_) | Self::Settled { .. } => Code::CursorBeyondHead,
            Self::Superseded { .. } | Self::Renewing { .. } => Code::Superseded,
            Self::OutOfSync { .. } => Code::OutOfSync,
            Self::Lost(lost) => match lost.reason {
                LostReason::Trimmed => Code::Trimmed,
                LostReason::OutOfSync => Code::OutOfSync,
                LostReason::OtherCopy => Code::Superseded,
            },
            Self::Unreadable(_) => Code::EntryUnreadable,
            Self::SendFailed(send) => send.code,
        }
    }

    /// Returns the first and the last entry concerned; `None` if it concerns no entry.
    pub fn offsets(&self) -> Option<(Offset, Offset)> {
        match self {
            Self::Diverged(divergence) => Some((divergence.offset, divergence.offset)),
            Self::RolledBack(rollback) => Some((rollback.kept.next(), rollback.cursor.max(rollback.kept.next()))),
            Self::Settled { settled, .. } => Some((settled.kept.next(), settled.cursor)),
            Self::Superseded { since } | Self::OutOfSync { since, .. } | Self::Renewing { since, .. } => {
                Some((*since, *since))
            }
            Self::Lost(lost) => Some((lost.first, lost.last)),
            Self::Unreadable(entry) => Some((entry.offset, entry.offset)),
            Self::SendFailed(_) => None,
        }
    }

    /// Whether it shows that the log differs from the one that others, or this agent, were shown.
    pub const fn is_divergence(&self) -> bool {
        matches!(self, Self::Diverged(_) | Self::RolledBack(_))
    }

    /// Whether this agent is currently unable to send or read in the channel as it should.
    pub const fn is_standing(&self) -> bool {
        matches!(
            self,
            Self::Superseded { .. } | Self::OutOfSync { .. } | Self::Renewing { .. }
        )
    }

    /// Describes the problem and its cause, for people.
    pub fn describe(&self) -> String {
        match self {
            Self::Diverged(divergence) => {
                let shown = |digest: Option<Digest>, nothing: &str| {
                    digest.map_or_else(|| nothing.to_owned(), |digest| digest.to_string())
                };
                format!(
                    "the relay showed two agents different logs: at offset {} this agent has {}, {} has {}",
                    divergence.offset,
                    shown(divergence.ours, "nothing"),
                    divergence.author,
                    shown(divergence.theirs, "a change to the group")
                )
            }
            Self::RolledBack(rollback) => format!(
                "the relay's log went back: this agent has seen entry {}, and entries after {} are missing or replaced",
                rollback.cursor, rollback.kept
            ),
            Self::Settled { settled, replaced } => {
                let gone = match replaced {
                    0 => String::new(),
                    1 => "; 1 message that was read before is no longer in the log".to_owned(),
                    count => format!("; {count} messages that were read before are no longer in the log"),
                };
                format!(
                    "the relay's log went back, and its operator has accepted that: entries {} to {} are others than \
                     before{gone}",
                    settled.kept.next(),
                    settled.cursor
                )
            }
            Self::Superseded { since } => {
                format!("another copy of this vault has taken its place, at entry {since}")
            }
            Self::OutOfSync {
                since, reason, missed, ..
            } => match missed {
                0 => format!("out of sync with the group since entry {since}: {reason}"),
                missed => format!(
                    "out of sync with the group since entry {since}, {missed} {} not read: {reason}",
                    if *missed == 1 { "message" } else { "messages" }
                ),
            },
            Self::Renewing { since, reason } => {
                format!("this vault is an older copy, as entry {since} shows: {reason}")
            }
            Self::Lost(lost) => {
                let reason = lost.reason.describe();
                match lost.first == lost.last {
                    true => format!("message {} is gone: {reason}", lost.first),
                    false => format!("messages {} to {} are gone: {reason}", lost.first, lost.last),
                }
            }
            Self::Unreadable(entry) => format!("entry {} cannot be read: {}", entry.offset, entry.reason),
            Self::SendFailed(send) => format!("{} was not delivered: {}", send.frame_id, send.code.name()),
        }
    }

    /// Describes what the SDK does about it, or what to do, for people.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Diverged(_) => {
                "ask the relay's operator: where a node was restored, `skytale relay accept-rollback` settles it"
            }
            Self::RolledBack(_) => {
                "what is sent may wait; ask the relay's operator: where a node was restored, `skytale relay \
                 accept-rollback` settles it"
            }
            Self::Settled { replaced: 0, .. } => "nothing is left to do",
            Self::Settled { .. } => {
                "their authors send them again when they come back; `skytale channel read --replaced` shows them"
            }
            Self::Superseded { .. } => "nothing is done by itself: use the other copy, or `skytale vault takeover`",
            Self::OutOfSync { asked: Some(_), .. } => {
                "it has asked to be added again: any member that is online does it; what is sent waits"
            }
            Self::OutOfSync { asked: None, .. } => "it asks to be added again when it is online; what is sent waits",
            Self::Renewing { .. } => "it takes new keys when it is online; what is sent waits for that",
            Self::Lost(_) => "nothing can be done here: ask a member who has them",
            Self::Unreadable(_) => "nothing can be done here: ask its author to send it again",
            Self::SendFailed(_) => "it is kept until it is dropped or sent again: `skytale channel outbox`",
        }
    }
}

impl Engine {
    /// Lists the problems of a channel (`None`: of the agent's own log), most severe first. Includes the first 1,000
    /// unreadable entries.
    pub fn problems(&self, channel: Option<ChannelId>) -> Result<Vec<Problem>, EngineError> {
        let mut problems = Vec::new();
        if let Some(channel) = channel {
            problems.extend(self.divergences(channel)?.into_iter().map(Problem::Diverged));
        }
        problems.extend(self.rollback(channel)?.map(Problem::RolledBack));
        if let Some(channel) = channel {
            problems.extend(self.settled_problem(channel)?);
        }
        if let Some(channel) = channel {
            problems.extend(self.standing_problem(channel)?);
        }
        problems.extend(self.lost(channel)?.into_iter().map(Problem::Lost));
        let unreadable = self.unreadable(channel, Offset::ZERO, UNREADABLE_MAX)?;
        problems.extend(unreadable.into_iter().map(Problem::Unreadable));
        if let Some(channel) = channel {
            problems.extend(self.failed(channel)?.into_iter().map(Problem::SendFailed));
        }
        Ok(problems)
    }

    /// Returns the last rollback that moved this agent's cursor.
    fn settled_problem(&self, channel: ChannelId) -> Result<Option<Problem>, EngineError> {
        let settled = self
            .settled(channel)?
            .into_iter()
            .rfind(|settled| settled.kept < settled.cursor);
        let Some(settled) = settled else { return Ok(None) };
        let replaced = self.count_replaced(channel)?;
        Ok(Some(Problem::Settled { settled, replaced }))
    }

    fn standing_problem(&self, channel: ChannelId) -> Result<Option<Problem>, EngineError> {
        let position = one(self.vault.sql(), channel)?.0;
        if position.state == ChannelState::Left {
            return Ok(None);
        }
        let recovery = position.recovery;
        let (since, reason) = (recovery.since, recovery.reason);
        Ok(match recovery.standing {
            Standing::Current => None,
            Standing::Renewing => Some(Problem::Renewing { since, reason }),
            Standing::OutOfSync => Some(Problem::OutOfSync {
                since,
                reason,
                asked: (recovery.asked > Offset::ZERO).then_some(recovery.asked),
                missed: recovery.missed,
            }),
            Standing::Superseded => Some(Problem::Superseded { since }),
        })
    }
}
