//! The rule of the log: a fold over frames.
//!
//! [`LogState::apply`] takes the frames of one log in their order and says of each whether it is an entry. It is pure
//! and synchronous: no clock, no I/O, no setting. So every store, and every relay node that sees the same sequence,
//! gives the same verdicts and the same offsets.
//!
//! ```text
//!  channel log                                   agent log
//!  1  Create   alice      head 1  {alice}        1  KeyPackage       bob
//!  2  Message  alice ^1                          2  KeyPackage       bob (last resort)
//!  3  Commit   alice ^1   head 3  {alice, bob}   3  KeyPackageClaim  alice, takes 1
//!  -  Message  alice ^1   StaleEpoch { 3 }       4  Welcome          alice, bundle at 3
//!  4  Message  bob   ^3                          5  KeyPackageClaim  carol, takes 2
//!  -  Commit   alice ^1   StaleHandshake { 3 }   6  KeyPackageClaim  dave, takes 2
//! ```
//!
//! A frame must pass these checks, in this order:
//! 1. its id was not accepted before in this log and still remembered: else `Duplicate`;
//! 2. the log exists, and takes frames of its kind and ids of its version;
//! 3. its author is on the roster: else `NotMember`;
//! 4. the parent of a commit or proposal is the handshake head: else `StaleHandshake`;
//! 5. the parent of a message is the handshake head: else `StaleEpoch`;
//! 6. the channel's policy allows it to its author: else `Forbidden`;
//! 7. its request can be met: a roster change fits the roster, a key package is in stock and its claimer may have it, a
//!    Welcome's author has claimed one, a trim is in range. A last resort that its claimer holds already is given by
//!    the claim that it holds it by: `Duplicate`.

#[cfg(test)]
mod claims;
mod codec;
mod given_up;
mod group;
#[cfg(test)]
mod hostile;
mod mailbox;
#[cfg(test)]
mod model;
#[cfg(test)]
mod properties;
mod refused;
mod roles;
mod roster;
#[cfg(test)]
mod tests;

pub use codec::StateError;
pub use refused::Refused;

use crate::store::{Access, ClaimedPackage, KeyPackageStock, LogStatus};
use bytes::Bytes;
use given_up::GivenUp;
use group::Group;
use mailbox::Mailbox;
use skytale_proto::{AccountId, AgentId, ChannelMode, Detail, Header, Kind, LogId, Offset, Policy};

/// State of one log: the fold of its frames.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogState {
    log: LogId,
    /// The last entry; [`Offset::ZERO`] while there is none.
    head: Offset,
    /// The first entry that no Trim gave up, or the place where it will be.
    first: Offset,
    given_up: GivenUp,
    rule: Rule,
}

/// Rule that governs a log.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Rule {
    /// A channel that nobody has created.
    Absent,
    /// A channel that is an MLS group.
    Group(Group),
    /// A raw channel of an account.
    Raw(AccountId),
    /// An agent's log.
    Mailbox(Mailbox),
}

/// Verdict of the fold on a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is an entry now.
    Appended {
        /// Its offset.
        offset: Offset,
        /// Effects of the frame.
        effects: Effects,
    },
    /// It was an entry before.
    Duplicate {
        /// Its offset.
        offset: Offset,
    },
    /// It is no entry.
    Refused(Refused),
}

/// Effects of an accepted frame beyond its own log's state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Effects {
    /// Headers of the Welcomes to be put on the logs of a bundle's recipients, in the bundle's order.
    pub welcomes: Vec<Header>,
    /// The package that a claim took.
    pub claimed: Option<ClaimedPackage>,
    /// The last offset that a Trim gave up.
    pub trimmed: Option<Offset>,
}

impl LogState {
    /// An empty log: a channel that does not exist, or the log of an agent that has no entry yet.
    pub fn new(log: LogId) -> Self {
        Self {
            log,
            head: Offset::ZERO,
            first: Offset::FIRST,
            given_up: GivenUp::default(),
            rule: match log {
                LogId::Channel(_) => Rule::Absent,
                LogId::Agent(_) => Rule::Mailbox(Mailbox::default()),
            },
        }
    }

    /// Returns the log.
    pub const fn log(&self) -> LogId {
        self.log
    }

    /// The last entry's offset; [`Offset::ZERO`] while there is none.
    pub const fn head(&self) -> Offset {
        self.head
    }

    /// The offset of a channel's last commit, or of its Create; [`Offset::ZERO`] for an agent log and for a channel that
    /// does not exist.
    pub const fn handshake_head(&self) -> Offset {
        match &self.rule {
            Rule::Group(group) => group.handshake_head(),
            Rule::Raw(_) => Offset::FIRST,
            Rule::Absent | Rule::Mailbox(_) => Offset::ZERO,
        }
    }

    /// The first offset that no Trim gave up: 1, or one past the last Trim's `up_to`.
    pub const fn first_available(&self) -> Offset {
        self.first
    }

    /// The rule. Gives the next frame's verdict, and takes it into the state if it is an entry; `Duplicate` and `Refused`
    /// leave the state untouched.
    ///
    /// `seen` is the offset at which this log accepted the same frame id before, if the caller's index of frame ids has
    /// it. An offset that a Trim gave up counts as forgotten, so it does not matter when the index drops it.
    pub fn apply(&mut self, header: &Header, seen: Option<Offset>) -> Verdict {
        if let Some(offset) = seen.filter(|offset| *offset >= self.first) {
            return Verdict::Duplicate { offset };
        }
        if let Some(offset) = self.answered_by(header) {
            return Verdict::Duplicate { offset };
        }
        let offset = self.head.next();
        match self.accept(header, offset) {
            Ok(effects) => {
                self.head = offset;
                if header.kind() != Kind::Trim {
                    self.given_up.entry(offset);
                }
                Verdict::Appended { offset, effects }
            }
            Err(refused) => Verdict::Refused(refused),
        }
    }

    /// Takes in a frame that a store has as the entry after its head. It was accepted by the rule of its time, which knew
    /// Welcomes without claims; whatever the rule still refuses is damage.
    pub fn replay(&mut self, header: &Header) -> Verdict {
        match (self.apply(header, None), &mut self.rule) {
            (Verdict::Refused(Refused::WelcomeUnclaimed), Rule::Mailbox(mailbox)) => {
                let offset = self.head.next();
                mailbox.take_in(header, offset);
                self.head = offset;
                self.given_up.entry(offset);
                Verdict::Appended {
                    offset,
                    effects: Effects::default(),
                }
            }
            (verdict, _) => verdict,
        }
    }

    /// The earlier claim that a claim is answered with, where it makes no entry.
    fn answered_by(&self, header: &Header) -> Option<Offset> {
        match (&self.rule, &header.detail) {
            (Rule::Mailbox(mailbox), Detail::KeyPackageClaim { .. })
                if header.log == self.log && !header.id.is_of_welcome() =>
            {
                mailbox.answered_by(header)
            }
            _ => None,
        }
    }

    /// Takes a frame that is no duplicate in at `offset`, or leaves the state as it was.
    fn accept(&mut self, header: &Header, offset: Offset) -> Result<Effects, Refused> {
        if header.log != self.log {
            return Err(Refused::KindRefused {
                problem: "the frame is for another log",
            });
        }
        // A frame that takes a Welcome's id first would make the Welcome a duplicate.
        if header.id.is_of_welcome() && header.kind() != Kind::Welcome {
            return Err(Refused::KindRefused {
                problem: "frame ids of this version are for welcomes alone",
            });
        }
        match (&mut self.rule, &header.detail) {
            (Rule::Absent, Detail::Create { mode, account, policy }) => {
                self.rule = created(header.author, *mode, *account, policy.as_ref())?;
                Ok(Effects::default())
            }
            (Rule::Absent, _) => Err(Refused::UnknownLog),
            (Rule::Group(_) | Rule::Raw(_), Detail::Create { .. }) => Err(Refused::LogExists),
            (rule, Detail::Trim { up_to }) => {
                if let Rule::Group(group) = rule {
                    group.permit_trim(&header.author)?;
                }
                self.trim(*up_to)
            }
            (Rule::Group(group), _) => group.accept(header, offset),
            (Rule::Raw(owner), Detail::Raw { account }) if account == owner => Ok(Effects::default()),
            (Rule::Raw(_), Detail::Raw { .. }) => Err(Refused::NotMember),
            (Rule::Raw(_), _) => Err(Refused::KindRefused {
                problem: "a raw channel takes raw frames alone",
            }),
            (Rule::Mailbox(mailbox), _) => mailbox.accept(header, offset),
        }
    }

    fn trim(&mut self, up_to: Offset) -> Result<Effects, Refused> {
        if up_to < self.first || up_to > self.head {
            return Err(Refused::TrimRange {
                first: self.first,
                head: self.head,
            });
        }
        self.first = up_to.next();
        self.given_up.trim(up_to);
        match &mut self.rule {
            Rule::Group(group) => group.trim(up_to),
            Rule::Mailbox(mailbox) => mailbox.trim(up_to),
            Rule::Raw(_) | Rule::Absent => {}
        }
        Ok(Effects {
            trimmed: Some(up_to),
            ..Effects::default()
        })
    }

    /// Returns the stretch of this log after `after` that an agent may read.
    ///
    /// Members of a group read from the bundle that added them (its creator from the start) to and with the commit that
    /// removed them; agents of a raw channel's account read all of it; an agent's log is its own alone.
    pub fn access(&self, agent: AgentId, account: AccountId, after: Offset) -> Access {
        let all = |may_read| {
            if may_read {
                Access::Readable { until: None }
            } else {
                Access::NotMember { next: None }
            }
        };
        match &self.rule {
            Rule::Absent => Access::UnknownLog,
            Rule::Group(group) => group.access(&agent, after),
            Rule::Raw(owner) => all(*owner == account),
            Rule::Mailbox(_) => all(self.log == agent.log()),
        }
    }

    /// Returns the status of entries that Trims gave up, for a reader whose cursor they overtook.
    pub fn status(&self) -> LogStatus {
        LogStatus {
            head: self.head,
            first: self.first,
            given_up: self.given_up.last,
            handshake_head: self.handshake_head(),
            welcomes: match &self.rule {
                Rule::Mailbox(mailbox) => mailbox.welcomes_before(self.first),
                Rule::Absent | Rule::Group(_) | Rule::Raw(_) => Vec::new(),
            },
        }
    }

    /// Returns the KeyPackages that the log's agent has left to give. Zero and none for a channel.
    pub fn key_packages(&self) -> KeyPackageStock {
        match &self.rule {
            Rule::Mailbox(mailbox) => mailbox.stock(),
            Rule::Absent | Rule::Group(_) | Rule::Raw(_) => KeyPackageStock::default(),
        }
    }

    /// The package that the claim at this offset took, to answer a `Duplicate` of it. `None` where no claim is
    /// there, where it was trimmed, or where [`skytale_proto::limits::CLAIMS_REMEMBERED_MAX`] later claims pushed it out.
    pub fn claimed_by(&self, claim: Offset) -> Option<ClaimedPackage> {
        match &self.rule {
            Rule::Mailbox(mailbox) => mailbox.claimed_by(claim),
            Rule::Absent | Rule::Group(_) | Rule::Raw(_) => None,
        }
    }

    /// Whether a Welcome would be an entry, as far as this state goes: its author has an unspent claim, or the channel is known.
    /// A later claim changes it.
    pub fn expects_welcome(&self, header: &Header) -> bool {
        match &self.rule {
            Rule::Mailbox(mailbox) => mailbox.expects(header),
            Rule::Absent | Rule::Group(_) | Rule::Raw(_) => false,
        }
    }

    /// The agents on a group's roster, in the order of their ids. None for other logs: a raw channel's roster is an
    /// account.
    pub fn roster(&self) -> impl Iterator<Item = AgentId> {
        let group = match &self.rule {
            Rule::Group(group) => Some(group),
            Rule::Absent | Rule::Raw(_) | Rule::Mailbox(_) => None,
        };
        group.into_iter().flat_map(Group::roster)
    }

    /// Returns the rights of members in a group, as headers say. `None` where all members may do everything, and for
    /// other logs.
    pub fn policy(&self) -> Option<&Policy> {
        match &self.rule {
            Rule::Group(group) => group.policy(),
            Rule::Absent | Rule::Raw(_) | Rule::Mailbox(_) => None,
        }
    }

    /// About how much memory the state takes, in bytes; for bounding a cache.
    pub fn weight_bytes(&self) -> usize {
        size_of::<Self>()
            + match &self.rule {
                Rule::Group(group) => group.weight_bytes(),
                Rule::Mailbox(mailbox) => mailbox.weight_bytes(),
                Rule::Absent | Rule::Raw(_) => 0,
            }
    }

    /// The state as bytes, to be kept: see the format in `codec.rs`. Equal states have equal bytes.
    pub fn encode(&self) -> Bytes {
        codec::encode(self)
    }

    /// The state from [`LogState::encode`]'s bytes. Any other bytes are an error.
    pub fn decode(bytes: Bytes) -> Result<Self, StateError> {
        codec::decode(&bytes)
    }
}

fn created(
    author: AgentId,
    mode: ChannelMode,
    account: Option<AccountId>,
    policy: Option<&Policy>,
) -> Result<Rule, Refused> {
    match (mode, account) {
        (ChannelMode::Mls, None) => Ok(Rule::Group(Group::created_by(author, policy.cloned()))),
        (ChannelMode::Raw, Some(account)) if policy.is_none() => Ok(Rule::Raw(account)),
        (ChannelMode::Mls, Some(_)) | (ChannelMode::Raw, _) => Err(Refused::KindRefused {
            problem: "a raw channel names its account and has no policy, and no other channel names one",
        }),
    }
}
