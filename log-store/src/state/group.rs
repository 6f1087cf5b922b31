//! A channel that is one MLS group: the handshake rule and the roster.

use super::roles::{Asked, Roles};
use super::roster::Roster;
use super::{Effects, Refused};
use crate::store::Access;
use skytale_proto::{AgentId, Detail, Header, Kind, Offset, Policy, Right};
use std::collections::BTreeSet;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Group {
    pub(super) handshake_head: Offset,
    pub(super) roster: Roster,
    pub(super) roles: Roles,
}

impl Group {
    /// The group after its Create, which is at the log's beginning.
    pub(super) fn created_by(author: AgentId, policy: Option<Policy>) -> Self {
        Self {
            handshake_head: Offset::FIRST,
            roster: Roster::of(author, Offset::FIRST),
            roles: Roles::of(policy),
        }
    }

    pub(super) const fn handshake_head(&self) -> Offset {
        self.handshake_head
    }

    pub(super) fn accept(&mut self, header: &Header, offset: Offset) -> Result<Effects, Refused> {
        let kind = header.kind();
        if !kind.is_under_handshake_rule() {
            return Err(Refused::KindRefused {
                problem: "an MLS channel takes commits, proposals, messages and rejoin requests only",
            });
        }
        self.authorize(header)?;
        let head = self.handshake_head;
        match kind {
            Kind::Message if header.parent != head => return Err(Refused::StaleEpoch { head }),
            _ if header.parent != head => return Err(Refused::StaleHandshake { head }),
            _ => {}
        }
        let Detail::Commit {
            adds,
            removes,
            recipients,
            roster,
            policy,
        } = &header.detail
        else {
            if kind == Kind::Proposal {
                // Members propose nothing but to leave.
                self.roles.leaving.insert(header.author);
            }
            return Ok(Effects::default());
        };
        let asked = Asked {
            author: &header.author,
            adds,
            removes,
            roster: roster.as_deref(),
            policy: policy.as_ref(),
        };
        self.roles.permit(asked, &self.roster)?;
        match roster {
            Some(roster) => self.roster.correct(&header.author, roster, adds, removes, offset)?,
            None => self.roster.change(&header.author, adds, removes, offset)?,
        }
        self.roles.committed(asked, &self.roster);
        self.handshake_head = offset;
        Ok(welcomes(header, recipients, removes, offset))
    }

    /// Whether a frame's author may append here. The one place that says so.
    fn authorize(&self, header: &Header) -> Result<(), Refused> {
        if self.roster.contains(&header.author) {
            Ok(())
        } else {
            Err(Refused::NotMember)
        }
    }

    pub(super) fn access(&self, agent: &AgentId, after: Offset) -> Access {
        self.roster.access(agent, after)
    }

    /// Refuses a Trim by a member that the policy does not allow it. Those by others are the store's own.
    pub(super) fn permit_trim(&self, author: &AgentId) -> Result<(), Refused> {
        let right = Right::Trim;
        match !self.roster.contains(author) || self.roles.allows(right, author, &self.roster) {
            true => Ok(()),
            false => Err(Refused::Forbidden { right, agent: None }),
        }
    }

    pub(super) fn policy(&self) -> Option<&Policy> {
        self.roles.policy.as_ref()
    }

    pub(super) fn trim(&mut self, up_to: Offset) {
        self.roster.trim(up_to);
    }

    pub(super) fn roster(&self) -> impl Iterator<Item = AgentId> {
        self.roster.agents()
    }

    pub(super) fn weight_bytes(&self) -> usize {
        self.roster.weight_bytes() + self.roles.weight_bytes()
    }
}

fn welcomes(bundle: &Header, recipients: &[AgentId], removes: &[AgentId], offset: Offset) -> Effects {
    let channel = bundle.log.channel();
    let removed: BTreeSet<&AgentId> = removes.iter().collect();
    let returns = &|recipient: &AgentId| removed.contains(recipient);
    Effects {
        welcomes: channel
            .into_iter()
            .flat_map(|channel| {
                recipients.iter().map(move |recipient| {
                    Header::welcome(bundle.author, channel, offset, *recipient, returns(recipient))
                })
            })
            .collect(),
        ..Effects::default()
    }
}
