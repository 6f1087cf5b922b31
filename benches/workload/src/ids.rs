//! Ids become numbers, and cannot be found again from them.
//!
//! The key of each id is an HMAC-SHA256 (RFC 2104) under a key of this process, which nobody else ever has and which is
//! gone with it. A number is the order of first appearance. So a person who has a workload cannot test whether a known
//! id is in it.

use crate::event::{Agent, Channel};
use ring::hmac;
use ring::rand::SystemRandom;
use skytale_proto::{AgentId, ChannelId};
use std::collections::HashMap;
use std::fmt;

/// Channels that are captured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample(f64);

/// A share that is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a sample is a share of all channels: over 0, and 1 at most")]
pub struct SampleError;

impl Sample {
    /// All channels.
    pub const ALL: Self = Self(1.0);

    /// A share of all channels.
    pub fn new(share: f64) -> Result<Self, SampleError> {
        if share > 0.0 && share <= 1.0 {
            Ok(Self(share))
        } else {
            Err(SampleError)
        }
    }

    /// The share.
    pub const fn share(self) -> f64 {
        self.0
    }
}

type Pseudonym = [u8; 16];

/// The numbers of ids.
pub struct Pseudonyms {
    key: hmac::Key,
    sample: Sample,
    agents: HashMap<Pseudonym, Agent>,
    channels: HashMap<Pseudonym, Channel>,
}

impl fmt::Debug for Pseudonyms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pseudonyms")
            .field("agents", &self.agents.len())
            .field("channels", &self.channels.len())
            .finish_non_exhaustive()
    }
}

/// The system has no random bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the system gives no random bytes")]
pub struct NoRandomness;

impl Pseudonyms {
    /// Makes them with a key of their own.
    pub fn new(sample: Sample) -> Result<Self, NoRandomness> {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new()).map_err(|_| NoRandomness)?;
        Ok(Self {
            key,
            sample,
            agents: HashMap::new(),
            channels: HashMap::new(),
        })
    }

    fn pseudonym(&self, what: u8, id: &[u8]) -> (Pseudonym, bool) {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(&[what]);
        context.update(id);
        let tag = context.sign();
        let (mut pseudonym, mut lot) = ([0; 16], [0; 8]);
        pseudonym.copy_from_slice(&tag.as_ref()[..16]);
        lot.copy_from_slice(&tag.as_ref()[16..24]);
        let drawn = u64::from_be_bytes(lot) as f64 / u64::MAX as f64;
        (pseudonym, drawn < self.sample.0 || self.sample == Sample::ALL)
    }

    /// Returns the number of ids that have a number.
    pub(crate) fn len(&self) -> usize {
        self.agents.len() + self.channels.len()
    }

    /// An agent's number.
    pub fn agent(&mut self, id: &AgentId) -> Agent {
        let (pseudonym, _) = self.pseudonym(0, id.as_bytes());
        let next = Agent(u32::try_from(self.agents.len()).unwrap_or(u32::MAX));
        *self.agents.entry(pseudonym).or_insert(next)
    }

    /// A channel's number, if it is in the sample.
    pub fn channel(&mut self, id: &ChannelId) -> Option<Channel> {
        let (pseudonym, is_in_sample) = self.pseudonym(1, id.as_bytes());
        let next = Channel(u32::try_from(self.channels.len()).unwrap_or(u32::MAX));
        is_in_sample.then(|| *self.channels.entry(pseudonym).or_insert(next))
    }

    /// Whether what an agent does outside of channels is in the sample: the same share as of channels.
    pub fn samples_agent(&self, id: &AgentId) -> bool {
        self.pseudonym(0, id.as_bytes()).1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent(number: u8) -> AgentId {
        AgentId::from_bytes([number; 32])
    }

    fn channel(number: u32) -> ChannelId {
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&number.to_be_bytes());
        ChannelId::from_bytes(bytes)
    }

    #[test]
    fn an_id_keeps_its_number_and_numbers_follow_each_other() {
        let mut ids = Pseudonyms::new(Sample::ALL).expect("random bytes");
        assert_eq!(ids.agent(&agent(9)), Agent(0));
        assert_eq!(ids.agent(&agent(3)), Agent(1));
        assert_eq!(ids.agent(&agent(9)), Agent(0));
        assert_eq!(ids.channel(&channel(9)), Some(Channel(0)));
        assert!(ids.samples_agent(&agent(1)));
    }

    #[test]
    fn a_sample_is_about_its_share_and_another_one_each_time() {
        let picked = || {
            let mut ids = Pseudonyms::new(Sample::new(0.25).expect("a share")).expect("random bytes");
            (0..4_000)
                .filter(|number| ids.channel(&channel(*number)).is_some())
                .collect::<Vec<_>>()
        };
        let (one, other) = (picked(), picked());
        // Seven standard deviations.
        assert!((800..1_200).contains(&one.len()), "{}", one.len());
        assert_ne!(one, other);
        for wrong in [0.0, -1.0, 1.1, f64::NAN] {
            Sample::new(wrong).expect_err("no share");
        }
    }
}
