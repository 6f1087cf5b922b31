//! Shard of a log: chosen by its id alone, so that every node says the same without asking.
//!
//! A channel's region is the first byte of its id; its shard within the region is a hash of the id. An agent's id names
//! no region, so that its log's shard is a hash of the id over the shards of all regions. Neither the regions nor the
//! number of shards of one can change once streams exist: this setting is written into each stream's metadata too, and
//! a node with another setting does not start.

use skytale_proto::{LogId, Region};
use std::collections::BTreeMap;
use std::fmt;

/// Shards of one region, at most.
pub const SHARDS_MAX: u16 = 1_024;

/// A shard: one stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId {
    /// Its home.
    pub region: Region,
    /// Number among the region's shards, from 0.
    pub index: u16,
}

impl ShardId {
    /// The number that stands for it in a replica's positions.
    pub const fn number(self) -> u32 {
        (self.region.0 as u32) << 16 | self.index as u32
    }

    /// The name of its stream.
    pub fn stream(self) -> String {
        format!("SKYTALE_LOG_{}_{}", self.region.0, self.index)
    }

    /// The subjects of its stream.
    pub fn subjects(self) -> String {
        format!("skytale.log.{}.{}.*", self.region.0, self.index)
    }

    /// The subject of one of its logs.
    pub fn subject(self, log: &LogId) -> String {
        self.named(&data_encoding::HEXLOWER.encode(&log.to_bytes()))
    }

    /// A subject of its stream.
    pub(super) fn named(self, last: &str) -> String {
        format!("skytale.log.{}.{}.{last}", self.region.0, self.index)
    }
}

impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.region.0, self.index)
    }
}

/// All shards of a fleet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shards {
    regions: BTreeMap<u8, u16>,
    all: Vec<ShardId>,
}

impl Shards {
    /// Makes them from the number of each region's shards; `None` if a region is named twice, or has none or too many.
    pub fn new(regions: impl IntoIterator<Item = (Region, u16)>) -> Option<Self> {
        let mut by_region = BTreeMap::new();
        for (region, shards) in regions {
            if !(1..=SHARDS_MAX).contains(&shards) || by_region.insert(region.0, shards).is_some() {
                return None;
            }
        }
        let all = by_region.iter().flat_map(|(region, shards)| {
            let region = Region(*region);
            (0..*shards).map(move |index| ShardId { region, index })
        });
        let all: Vec<ShardId> = all.collect();
        (!all.is_empty()).then_some(Self {
            regions: by_region,
            all,
        })
    }

    /// All of them, in order.
    pub fn all(&self) -> &[ShardId] {
        &self.all
    }

    /// The shard of a log; `None` where its home is no region of this fleet.
    pub fn of(&self, log: &LogId) -> Option<ShardId> {
        match log {
            LogId::Channel(channel) => {
                let region = channel.home();
                let shards = *self.regions.get(&region.0)?;
                Some(ShardId {
                    region,
                    // Less than `shards`, which is 16 bits wide.
                    index: (hash(channel.as_bytes()) % u64::from(shards)) as u16,
                })
            }
            LogId::Agent(agent) => {
                let place = hash(agent.as_bytes()) % self.all.len() as u64;
                self.all.get(place as usize).copied()
            }
        }
    }

    /// Describes them as in a stream's metadata: `0:4,1:4`.
    pub fn describe(&self) -> String {
        let regions = self.regions.iter().map(|(region, shards)| format!("{region}:{shards}"));
        regions.collect::<Vec<_>>().join(",")
    }
}

/// The first 8 bytes of BLAKE3, little-endian. Decides where logs are: keep stable.
fn hash(id: &[u8]) -> u64 {
    let mut first = [0; 8];
    first.copy_from_slice(&blake3::hash(id).as_bytes()[..8]);
    u64::from_le_bytes(first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use skytale_proto::{AgentId, ChannelId};
    use std::collections::HashSet;

    #[test]
    fn every_log_has_the_shard_that_its_id_says() {
        let shards = Shards::new([(Region(0), 4), (Region(7), 3)]).expect("shards");
        let mut seen = HashSet::new();
        for number in 0..200u8 {
            let channel = ChannelId::generate_in(Region(7));
            let shard = shards.of(&channel.log()).expect("a shard");
            assert_eq!((shard.region, shard.index < 3), (Region(7), true));
            seen.insert(shards.of(&AgentId::from_bytes([number; 32]).log()).expect("a shard"));
            seen.insert(shard);
        }
        assert_eq!(seen.len(), 7, "all shards are used");
        assert_eq!(shards.of(&ChannelId::generate_in(Region(1)).log()), None);
        // Persisted: a log must not move.
        let known = ChannelId::from_bytes([7; 16]).log();
        assert_eq!(shards.of(&known).map(|shard| shard.to_string()).as_deref(), Some("7/0"));
        assert_eq!(shards.describe(), "0:4,7:3");
    }

    #[test]
    fn what_is_no_set_of_shards_is_refused() {
        assert_eq!(Shards::new([]), None);
        assert_eq!(Shards::new([(Region(0), 0)]), None);
        assert_eq!(Shards::new([(Region(0), 1), (Region(0), 2)]), None);
        assert_eq!(Shards::new([(Region(0), SHARDS_MAX + 1)]), None);
    }
}
