//! An agent's log: KeyPackages offered and claimed (RFC 9420 section 10), and Welcomes.

use super::{Effects, Refused};
use crate::store::{ClaimedPackage, KeyPackageStock};
use skytale_proto::{ChannelId, Detail, Header, Offset, limits};
use std::collections::{BTreeMap, VecDeque};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Mailbox {
    /// Offsets of the single-use packages that nobody has claimed, ascending.
    pub(super) live: VecDeque<Offset>,
    /// Offset of the newest last resort.
    pub(super) last_resort: Option<Offset>,
    /// What the newest claims took, by the claim's offset, ascending; at most [`limits::CLAIMS_REMEMBERED_MAX`].
    pub(super) claims: VecDeque<(Offset, ClaimedPackage)>,
    /// The newest Welcome of each channel; at most [`limits::WELCOMES_REMEMBERED_MAX`], those longest in the log go first.
    /// They outlive their entries, so that an agent learns of them however long it was away.
    pub(super) welcomes: BTreeMap<ChannelId, Welcomed>,
}

/// A Welcome on an agent's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Welcomed {
    /// Where it is in the agent's log.
    pub(super) at: Offset,
    /// Where its bundle is in the channel's log.
    pub(super) bundle: Offset,
}

impl Mailbox {
    pub(super) fn accept(&mut self, header: &Header, offset: Offset) -> Result<Effects, Refused> {
        match &header.detail {
            Detail::KeyPackage { .. } if header.log != header.author.log() => Err(Refused::NotMember),
            Detail::KeyPackage { last_resort } => self.offer(*last_resort, offset),
            Detail::KeyPackageClaim => self.claim(offset),
            Detail::Welcome {
                channel,
                offset: bundle,
            } => {
                self.welcomed(*channel, offset, *bundle);
                Ok(Effects::default())
            }
            _ => Err(Refused::KindRefused {
                problem: "an agent's log takes key packages, claims and welcomes alone",
            }),
        }
    }

    fn offer(&mut self, last_resort: bool, offset: Offset) -> Result<Effects, Refused> {
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
        Ok(Effects::default())
    }

    fn claim(&mut self, offset: Offset) -> Result<Effects, Refused> {
        let single_use = self.live.pop_front();
        let package = single_use.or(self.last_resort).ok_or(Refused::KeyPackagesExhausted)?;
        let claimed = ClaimedPackage {
            offset: package,
            last_resort: single_use.is_none(),
        };
        if self.claims.len() == limits::CLAIMS_REMEMBERED_MAX {
            self.claims.pop_front();
        }
        self.claims.push_back((offset, claimed));
        Ok(Effects {
            claimed: Some(claimed),
            ..Effects::default()
        })
    }

    fn welcomed(&mut self, channel: ChannelId, at: Offset, bundle: Offset) {
        // Welcomes of several shards come in any order: the newest is the one with the later bundle.
        if self
            .welcomes
            .get(&channel)
            .is_some_and(|before| before.bundle >= bundle)
        {
            return;
        }
        self.welcomes.insert(channel, Welcomed { at, bundle });
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

    pub(super) fn claimed_by(&self, claim: Offset) -> Option<ClaimedPackage> {
        let at = self.claims.binary_search_by_key(&claim, |(offset, _)| *offset).ok()?;
        self.claims.get(at).map(|(_, claimed)| *claimed)
    }

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
        self.claims.retain(|(offset, _)| *offset > up_to);
    }

    pub(super) fn weight_bytes(&self) -> usize {
        self.live.capacity() * size_of::<Offset>()
            + self.claims.capacity() * size_of::<(Offset, ClaimedPackage)>()
            + self.welcomes.len() * size_of::<(ChannelId, Welcomed)>() * 3 / 2
    }
}
