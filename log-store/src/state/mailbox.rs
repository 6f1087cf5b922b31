//! An agent's log: KeyPackages offered and claimed (RFC 9420 section 10), who may claim them, and Welcomes.
//!
//! ```text
//!                    consent           limits                       spent by a Welcome
//!  KeyPackageClaim ----------> may it? ------> which package? ----> claims --------------> gone
//!                     no: 1029         no: 1030   |                   ^   forgotten by a Trim
//!                                                 | the last resort,  |
//!                                                 | once more         |
//!                                                 +--- Duplicate -----+
//! ```
//!
//! An agent that may claim can still not make entries without end: the unused packages that an account holds are
//! bounded, and the last resort is given once to each agent that holds it. A Welcome is an entry only if its author has
//! claimed a package, so that nobody makes entries on logs of agents that do not know it, or do not exist. To a channel
//! that the agent was welcomed to, more Welcomes need no claim, for as long as whoever brought the agent there may claim.

use super::{Effects, Refused};
use crate::store::{ClaimedPackage, KeyPackageStock};
use skytale_proto::{AccountId, AgentId, ChannelId, ClaimRule, Detail, Header, Offset, limits};
use std::collections::{BTreeMap, VecDeque};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Mailbox {
    /// The agent's account, as its newest KeyPackage or KeyPackagePolicy says.
    pub(super) account: Option<AccountId>,
    /// Agents that may claim beside the agent and its account.
    pub(super) rule: ClaimRule,
    /// Offsets of the single-use packages that nobody has claimed, ascending.
    pub(super) live: VecDeque<Offset>,
    /// Offset of the newest last resort.
    pub(super) last_resort: Option<Offset>,
    /// The claims that no Welcome has spent, ascending; at most [`limits::CLAIMS_REMEMBERED_MAX`], the oldest go first.
    pub(super) claims: VecDeque<Claim>,
    /// The newest Welcome of each channel; at most [`limits::WELCOMES_REMEMBERED_MAX`], those longest in the log go first.
    /// They outlive their entries, so that an agent learns of them however long it was away.
    pub(super) welcomes: BTreeMap<ChannelId, Welcomed>,
}

/// A claim that no Welcome has spent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Claim {
    /// Its offset.
    pub(super) at: Offset,
    /// The package that it took.
    pub(super) package: ClaimedPackage,
    /// Author of the claim.
    pub(super) by: Claimer,
}

/// Author of a claim: an agent, of an account. Claims of old logs have no account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Claimer {
    pub(super) agent: AgentId,
    pub(super) account: Option<AccountId>,
}

/// A Welcome on an agent's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Welcomed {
    /// Its offset in the agent's log.
    pub(super) at: Offset,
    /// Offset of its bundle in the channel's log.
    pub(super) bundle: Offset,
    /// Author of the claim by which the agent came to the channel. `None` if the log is of a time when none was kept.
    pub(super) by: Option<Claimer>,
}

/// Package that a claim gets.
enum Given {
    SingleUse(Offset),
    LastResort(Offset),
    /// The last resort, which this agent holds by the claim there.
    Again(Offset),
}

impl Mailbox {
    pub(super) fn accept(&mut self, header: &Header, offset: Offset) -> Result<Effects, Refused> {
        match &header.detail {
            Detail::KeyPackage { .. } | Detail::KeyPackagePolicy { .. } if header.log != header.author.log() => {
                Err(Refused::NotMember)
            }
            Detail::KeyPackage { last_resort, account } => {
                self.offer(*last_resort, offset)?;
                self.account = account.or(self.account);
                Ok(Effects::default())
            }
            Detail::KeyPackagePolicy { account, rule } => {
                self.account = Some(*account);
                self.rule.clone_from(rule);
                self.withdraw(header.author);
                Ok(Effects::default())
            }
            Detail::KeyPackageClaim { .. } => self.claim(header, offset),
            Detail::Welcome {
                channel,
                offset: bundle,
                returns,
            } => {
                let by = self.spend(header, channel, *returns)?;
                self.welcomed(
                    *channel,
                    Welcomed {
                        at: offset,
                        bundle: *bundle,
                        by,
                    },
                );
                Ok(Effects::default())
            }
            _ => Err(Refused::KindRefused {
                problem: "an agent's log takes key packages, their policy, claims and welcomes alone",
            }),
        }
    }

    /// Takes in a Welcome that is an entry already, by the rule of its time.
    pub(super) fn take_in(&mut self, header: &Header, offset: Offset) {
        if let Detail::Welcome {
            channel,
            offset: bundle,
            returns,
        } = header.detail
        {
            // Before claims had to be there, none was looked for.
            let before = self.welcomes.get(&channel).and_then(|welcomed| welcomed.by);
            let by = self.spend(header, &channel, returns).unwrap_or(before);
            self.welcomed(channel, Welcomed { at: offset, bundle, by });
        }
    }

    fn offer(&mut self, last_resort: bool, offset: Offset) -> Result<(), Refused> {
        let replaces = last_resort && self.last_resort.is_some();
        let kept = self.live.len() + usize::from(self.last_resort.is_some());
        if kept >= limits::KEY_PACKAGES_MAX && !replaces {
            return Err(Refused::KeyPackagesFull);
        }
        if last_resort {
            self.last_resort = Some(offset);
        } else {
            self.live.push_back(offset);
        }
        Ok(())
    }

    /// Forgets claims of agents that may not claim any more.
    fn withdraw(&mut self, owner: AgentId) {
        let mut claims = std::mem::take(&mut self.claims);
        claims.retain(|claim| self.may_claim(owner, &claim.by));
        self.claims = claims;
    }

    // ---- claims

    /// The claim that a new one by the same agent is answered with: it took the last resort that is in force, and is unspent.
    pub(super) fn answered_by(&self, header: &Header) -> Option<Offset> {
        match self.give(header) {
            Ok(Given::Again(claim)) => Some(claim),
            _ => None,
        }
    }

    fn claim(&mut self, header: &Header, offset: Offset) -> Result<Effects, Refused> {
        let package = match self.give(header)? {
            Given::SingleUse(package) => {
                self.live.pop_front();
                ClaimedPackage {
                    offset: package,
                    last_resort: false,
                }
            }
            Given::LastResort(package) => ClaimedPackage {
                offset: package,
                last_resort: true,
            },
            // Answered before anything is taken in.
            Given::Again(_) => return Err(Refused::ClaimsUnspent),
        };
        if self.claims.len() == limits::CLAIMS_REMEMBERED_MAX {
            self.claims.pop_front();
        }
        self.claims.push_back(Claim {
            at: offset,
            package,
            by: claimer(header),
        });
        Ok(Effects {
            claimed: Some(package),
            ..Effects::default()
        })
    }

    /// Returns the package that a claim would get. The one place that says who may claim, and how much.
    fn give(&self, header: &Header) -> Result<Given, Refused> {
        let by = claimer(header);
        let owner = header.log.agent().ok_or(Refused::ClaimNotAllowed)?;
        if !self.may_claim(owner, &by) {
            return Err(Refused::ClaimNotAllowed);
        }
        let is_own = owner == by.agent;
        // Only what a relay node takes has an account: the agent's own claims withdraw its packages.
        let bounded = by.account.is_some() && !is_own;
        let held = |last_resort: bool| {
            let same = self.claims.iter().filter(|claim| claim.by.account == by.account);
            same.filter(|claim| claim.package.last_resort == last_resort && claim.by.agent != owner)
                .count()
        };
        if bounded && by.account != self.account && self.held_by_others() >= limits::CLAIMS_BY_OTHERS_MAX {
            return self.again(&by).map(Given::Again).ok_or(Refused::ClaimsUnspent);
        }
        let has_its_share = bounded && held(false) >= limits::CLAIMS_BY_ACCOUNT_MAX;
        match (self.live.front(), self.last_resort) {
            (Some(single_use), _) if !has_its_share => Ok(Given::SingleUse(*single_use)),
            (_, Some(last_resort)) if !bounded => Ok(Given::LastResort(last_resort)),
            (_, Some(last_resort)) => match self.again(&by) {
                Some(claim) => Ok(Given::Again(claim)),
                // Agents of the own account always get a package that is never used up.
                None if by.account != self.account && held(true) >= limits::CLAIMS_BY_ACCOUNT_MAX => {
                    Err(Refused::ClaimsUnspent)
                }
                None => Ok(Given::LastResort(last_resort)),
            },
            (Some(_), None) => Err(Refused::ClaimsUnspent),
            (None, None) => Err(Refused::KeyPackagesExhausted),
        }
    }

    fn may_claim(&self, owner: AgentId, by: &Claimer) -> bool {
        match self.account {
            _ if by.agent == owner => true,
            // Both sides are of a time when accounts were not named; or the agent has not been here yet.
            None => by.account.is_none() || (self.live.is_empty() && self.last_resort.is_none()),
            home => by.account == home || self.rule.allows(&by.agent, by.account.as_ref()),
        }
    }

    /// The unspent claim by which an agent holds the last resort that is in force.
    fn again(&self, by: &Claimer) -> Option<Offset> {
        let last_resort = self.last_resort?;
        let same = |claim: &&Claim| claim.by == *by && claim.package.last_resort && claim.package.offset == last_resort;
        self.claims.iter().find(same).map(|claim| claim.at)
    }

    fn held_by_others(&self) -> usize {
        let others = |claim: &&Claim| claim.by.account.is_some() && claim.by.account != self.account;
        self.claims.iter().filter(others).count()
    }

    pub(super) fn claimed_by(&self, claim: Offset) -> Option<ClaimedPackage> {
        let at = self.claims.binary_search_by_key(&claim, |claim| claim.at).ok()?;
        self.claims.get(at).map(|claim| claim.package)
    }

    // ---- welcomes

    /// Spends a claim by a Welcome's author: its oldest of a single-use package. The last resort is never used up, nor is a
    /// claim of it: it may be answered twice, for two channels. An agent that comes back to a channel that it was welcomed to
    /// needs none, nor does one whom another member adds there again, unless consent was taken back. Returns the author of
    /// the claim by which the agent is in the channel.
    fn spend(&mut self, header: &Header, channel: &ChannelId, returns: bool) -> Result<Option<Claimer>, Refused> {
        let known = self
            .welcomed_with_consent(header.log.agent(), channel)
            .map(|welcomed| welcomed.by);
        if returns && let Some(by) = known {
            return Ok(by);
        }
        // A channel to which an agent of its own account brought it stays one, whoever adds it there again.
        let own = known
            .flatten()
            .filter(|by| by.account.is_some() && by.account == self.account);
        let is_theirs = |claim: &Claim| claim.by.agent == header.author;
        let single_use = |claim: &Claim| is_theirs(claim) && !claim.package.last_resort;
        if let Some(claim) = self
            .claims
            .iter()
            .position(single_use)
            .and_then(|at| self.claims.remove(at))
        {
            return Ok(own.or(Some(claim.by)));
        }
        let last_resort = self
            .claims
            .iter()
            .find(|claim| is_theirs(claim))
            .map(|claim| Some(claim.by));
        let by = last_resort.or(known).ok_or(Refused::WelcomeUnclaimed)?;
        Ok(own.or(by))
    }

    /// The newest Welcome of a channel, if whoever brought the owner there may still claim.
    fn welcomed_with_consent(&self, owner: Option<AgentId>, channel: &ChannelId) -> Option<&Welcomed> {
        let consents = |by: &Claimer| owner.is_some_and(|owner| self.may_claim(owner, by));
        let welcomed = self.welcomes.get(channel)?;
        welcomed.by.as_ref().is_none_or(consents).then_some(welcomed)
    }

    /// Whether a Welcome would be an entry: for a caller that decides whether to send it at all.
    pub(super) fn expects(&self, header: &Header) -> bool {
        let is_known = |channel| self.welcomed_with_consent(header.log.agent(), channel).is_some();
        matches!(&header.detail, Detail::Welcome { channel, .. } if is_known(channel))
            || self.claims.iter().any(|claim| claim.by.agent == header.author)
    }

    fn welcomed(&mut self, channel: ChannelId, newest: Welcomed) {
        // Welcomes of several shards come in any order: the newest is the one with the later bundle.
        if self
            .welcomes
            .get(&channel)
            .is_some_and(|before| before.bundle >= newest.bundle)
        {
            return;
        }
        self.welcomes.insert(channel, newest);
        if self.welcomes.len() > limits::WELCOMES_REMEMBERED_MAX {
            let oldest = self.welcomes.iter().min_by_key(|(_, welcomed)| welcomed.at);
            let oldest = oldest.map(|(channel, _)| *channel);
            oldest.and_then(|channel| self.welcomes.remove(&channel));
        }
    }

    /// Welcomes whose entries stood before an offset, by channel.
    pub(super) fn welcomes_before(&self, first: Offset) -> Vec<(ChannelId, Offset)> {
        let before = self.welcomes.iter().filter(|(_, welcomed)| welcomed.at < first);
        before.map(|(channel, welcomed)| (*channel, welcomed.bundle)).collect()
    }

    // ---- the whole

    pub(super) fn stock(&self) -> KeyPackageStock {
        KeyPackageStock {
            // At most KEY_PACKAGES_MAX.
            live: u32::try_from(self.live.len()).unwrap_or(u32::MAX),
            last_resort: self.last_resort.is_some(),
        }
    }

    pub(super) fn trim(&mut self, up_to: Offset) {
        self.live.retain(|offset| *offset > up_to);
        self.last_resort = self.last_resort.filter(|offset| *offset > up_to);
        self.claims.retain(|claim| claim.at > up_to);
    }

    pub(super) fn weight_bytes(&self) -> usize {
        let listed = match &self.rule {
            ClaimRule::Listed(allowed) => {
                allowed.accounts().len() * AccountId::LENGTH + allowed.agents().len() * AgentId::LENGTH
            }
            ClaimRule::Account | ClaimRule::Anyone => 0,
        };
        listed
            + self.live.capacity() * size_of::<Offset>()
            + self.claims.capacity() * size_of::<Claim>()
            + self.welcomes.len() * size_of::<(ChannelId, Welcomed)>() * 3 / 2
    }
}

fn claimer(header: &Header) -> Claimer {
    Claimer {
        agent: header.author,
        account: match header.detail {
            Detail::KeyPackageClaim { account } => account,
            _ => None,
        },
    }
}
