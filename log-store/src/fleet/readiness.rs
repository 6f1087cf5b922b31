//! Readiness of a node, in sentences, from its health.
//!
//! A node that began behind its streams is not ready until it has caught up, and one that is cut off from all of them
//! is not. One that a single region is cut off from is ready: it serves its entries of that region, and all of the
//! others.

use super::clock::difference;
use super::health::{Health, Phase, ShardHealth};
use super::shards::ShardId;
use crate::store::{Readiness, full_problem, stopped_problem};
use skytale_proto::rest::ShardLag;
use skytale_proto::session::Durability;

/// Shards that one sentence names.
const NAMED_MAX: usize = 4;

impl Health {
    /// Whether the node is ready, and why not.
    pub(super) fn readiness(&self) -> Readiness {
        let (mut problems, mut remarks) = (Vec::new(), Vec::new());
        problems.extend(self.stopped.as_deref().map(stopped_problem));
        problems.extend(self.full.as_deref().map(full_problem));
        if let Some(ahead) = self.clocks.wrong_by_ms {
            problems.push(format!(
                "this node's clock is {} the fleet's: set it (NTP); until then this node gives nothing up",
                difference(ahead)
            ));
        }
        for (server, ahead) in &self.clocks.wrong_servers {
            remarks.push(format!(
                "the clock of NATS server {server} is {} the fleet's, and entries get their times from it: set it (NTP)",
                difference(*ahead)
            ));
        }
        let all_halted = !self.shards.is_empty() && self.halted.len() == self.shards.len();
        for halted in self.halted.iter().take(NAMED_MAX) {
            let sentence = format!(
                "shard {} takes no appends, and is served as far as it was followed: {}",
                halted.shard, halted.reason
            );
            if all_halted || halted.others_have_more {
                problems.push(sentence);
            } else {
                remarks.push(sentence);
            }
        }
        if !self.connected {
            problems.push("no NATS server is connected".to_owned());
        }
        let is_halted = |shard: &ShardId| self.halted.iter().any(|halted| halted.shard == *shard);
        if let Some((shard, why)) = self.unchecked.as_ref().filter(|(shard, _)| !is_halted(shard)) {
            let sentence = format!("appends are refused until the stream of shard {shard} was checked: {why}");
            if self.shards.iter().all(|shard| shard.phase == Phase::Unreachable) {
                problems.push(sentence);
            } else {
                remarks.push(sentence);
            }
        }
        let unreachable = self.named(|shard| shard.phase == Phase::Unreachable);
        if let Some(named) = unreachable {
            let sentence = format!("streams do not answer, and are served as far as they were followed: {named}");
            if self.shards.iter().all(|shard| shard.phase == Phase::Unreachable) {
                problems.push(sentence);
            } else {
                remarks.push(sentence);
            }
        }
        if let Some(named) = self.named(|shard| !shard.ready && shard.phase != Phase::Halted) {
            problems.push(format!(
                "the replica has not caught up with what was there when the node started: {named}"
            ));
        }
        if let Some(named) = self.named(|shard| shard.copies_behind > 0) {
            remarks.push(format!(
                "copies of streams are missing or far behind, and appends rest on the others: {named}"
            ));
        }
        for (shard, sequence, problem) in self.doubtful.iter().take(NAMED_MAX) {
            remarks.push(format!(
                "a checkpoint of shard {shard} at {sequence} is doubtful, and is not used: {problem} (a stolen key of a node, or a node \
                 that has folded something else)"
            ));
        }
        if let Some(named) = self.named(|shard| shard.unpurged) {
            remarks.push(format!(
                "streams grow beyond the retention, since nothing purges them: see that `skytale fleet keeper` runs ({named})"
            ));
        }
        remarks.extend(self.rights.iter().cloned());
        if !self.unread.is_empty() {
            remarks.push(format!(
                "it is not known whether these NATS servers sync before they acknowledge, and appends rest on the others: {}",
                self.unread.join(", ")
            ));
        }
        if self.durability != Durability::QuorumSynced {
            remarks.push("an acknowledgement means less than a synced quorum, as the configuration allows".to_owned());
        }
        Readiness {
            problems,
            remarks,
            lag: self.shards.iter().map(lag).collect(),
        }
    }

    /// Returns the shards that are so, those behind the most first; `None` if there is none.
    fn named(&self, is: impl Fn(&ShardHealth) -> bool) -> Option<String> {
        let mut shards: Vec<&ShardHealth> = self.shards.iter().filter(|shard| is(shard)).collect();
        shards.sort_by_key(|shard| std::cmp::Reverse(shard.lag()));
        let more = shards.len().saturating_sub(NAMED_MAX);
        let named = shards.iter().take(NAMED_MAX);
        let mut text = named
            .map(|shard| match shard.lag() {
                0 => format!("shard {}", shard.shard),
                behind => format!("shard {} ({behind} messages behind)", shard.shard),
            })
            .collect::<Vec<_>>()
            .join(", ");
        if more > 0 {
            text.push_str(&format!(" and {more} more"));
        }
        (!shards.is_empty()).then_some(text)
    }
}

fn lag(shard: &ShardHealth) -> ShardLag {
    ShardLag {
        region: shard.shard.region.0,
        shard: shard.shard.index,
        messages: shard.lag(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::{ClockHealth, HaltedShard};
    use skytale_proto::Region;

    fn shard(index: u16, phase: Phase, ready: bool, lag: u64) -> ShardHealth {
        let region = Region(1);
        ShardHealth {
            phase,
            ready,
            last: 100 + lag,
            ..ShardHealth::new(ShardId { region, index }, 100)
        }
    }

    fn health(shards: Vec<ShardHealth>) -> Health {
        Health {
            ready: shards.iter().all(|shard| shard.ready),
            stopped: None,
            full: None,
            durability: Durability::QuorumSynced,
            unread: Vec::new(),
            clocks: ClockHealth::default(),
            halted: Vec::new(),
            doubtful: Vec::new(),
            rights: Vec::new(),
            connected: true,
            unchecked: None,
            shards,
            bundles_owing: 0,
        }
    }

    #[test]
    fn a_node_that_follows_is_ready_and_tells_its_lag() {
        let found = health(vec![
            shard(0, Phase::Following, true, 0),
            shard(1, Phase::Following, true, 7),
        ])
        .readiness();
        assert_eq!((found.problems.len(), found.remarks.len()), (0, 0));
        let lags: Vec<_> = found
            .lag
            .iter()
            .map(|lag| (lag.region, lag.shard, lag.messages))
            .collect();
        assert_eq!(lags, [(1, 0, 0), (1, 1, 7)]);
    }

    #[test]
    fn a_node_that_is_catching_up_says_where_and_how_far() {
        let shards = (0..6).map(|index| shard(index, Phase::CatchingUp, false, u64::from(index)));
        let found = health(shards.collect()).readiness();
        let [problem] = &found.problems[..] else {
            panic!("{found:?}")
        };
        assert!(
            problem.contains("shard 1/5 (5 messages behind), shard 1/4"),
            "{problem}"
        );
        assert!(problem.ends_with("and 2 more"), "{problem}");
    }

    #[test]
    fn a_halted_shard_is_a_remark_unless_others_have_more_or_all_are() {
        let halted = |others_have_more| {
            let (one, two) = (shard(0, Phase::Halted, false, 0), shard(1, Phase::Following, true, 0));
            let mut health = health(vec![one, two]);
            health.halted.push(HaltedShard {
                shard: one.shard,
                reason: "the stream went back".to_owned(),
                others_have_more,
            });
            health
        };
        let found = halted(false).readiness();
        assert_eq!((found.problems.len(), found.remarks.len()), (0, 1), "{found:?}");
        let found = halted(true).readiness();
        assert_eq!((found.problems.len(), found.remarks.len()), (1, 0), "{found:?}");
        let mut all = halted(false);
        all.shards.pop();
        assert_eq!(all.readiness().problems.len(), 1);
    }

    #[test]
    fn a_wrong_clock_is_a_problem_and_a_wrong_server_a_remark() {
        let mut one = health(vec![shard(0, Phase::Following, true, 0)]);
        one.clocks.wrong_by_ms = Some(40 * 86_400_000);
        one.clocks.wrong_servers.push(("n1".to_owned(), -3_600_000));
        let found = one.readiness();
        assert!(
            found.problems[0].contains("clock is 40 days ahead of the fleet's"),
            "{found:?}"
        );
        assert!(
            found.remarks[0].contains("n1 is 60 min behind the fleet's"),
            "{found:?}"
        );
    }

    #[test]
    fn copies_that_are_missing_are_a_remark() {
        let one = ShardHealth {
            copies_behind: 1,
            ..shard(3, Phase::Following, true, 0)
        };
        let found = health(vec![one, shard(0, Phase::Following, true, 0)]).readiness();
        assert_eq!(found.problems.len(), 0);
        assert!(found.remarks[0].ends_with("rest on the others: shard 1/3"), "{found:?}");
    }

    #[test]
    fn a_forged_checkpoint_a_missing_keeper_and_wrong_rights_are_remarks() {
        let one = ShardHealth {
            unpurged: true,
            ..shard(3, Phase::Following, true, 0)
        };
        let mut one = health(vec![one]);
        one.doubtful
            .push((one.shards[0].shard, 40, "relay-2 against relay-1, relay-3".to_owned()));
        one.rights.push("this node's NATS key may purge streams".to_owned());
        let found = one.readiness();
        assert_eq!((found.problems.len(), found.remarks.len()), (0, 3), "{found:?}");
        assert!(found.remarks[0].contains("relay-2 against"), "{found:?}");
        assert!(
            found.remarks[1].contains("fleet keeper") && found.remarks[1].contains("1/3"),
            "{found:?}"
        );
    }

    #[test]
    fn one_region_cut_off_is_a_remark_and_all_of_them_a_problem() {
        let mut shards = vec![
            shard(0, Phase::Unreachable, true, 0),
            shard(1, Phase::Following, true, 0),
        ];
        let found = health(shards.clone()).readiness();
        assert_eq!((found.problems.len(), found.remarks.len()), (0, 1), "{found:?}");
        shards.pop();
        let found = health(shards).readiness();
        assert_eq!((found.problems.len(), found.remarks.len()), (1, 0), "{found:?}");
    }

    #[test]
    fn a_node_whose_disk_is_full_is_not_ready() {
        let mut one = health(vec![shard(0, Phase::Following, true, 3)]);
        one.full = Some("a write to a segment".to_owned());
        let found = one.readiness();
        assert_eq!((found.problems.len(), found.remarks.len()), (1, 0), "{found:?}");
        assert!(found.problems[0].contains("until there is room"), "{found:?}");
    }

    #[test]
    fn what_has_stopped_or_is_cut_off_is_not_ready_and_what_is_weaker_says_so() {
        let mut one = health(vec![shard(0, Phase::Following, true, 0)]);
        one.stopped = Some("the stream went back".to_owned());
        one.connected = false;
        one.durability = Durability::Unsynced;
        let found = one.readiness();
        assert_eq!((found.problems.len(), found.remarks.len()), (2, 1), "{found:?}");
        assert!(found.problems[0].contains("the stream went back"));
    }
}
