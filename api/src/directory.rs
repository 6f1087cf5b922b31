//! Relay nodes to which an agent is sent, and their order. Pure.
//!
//! The nearest first: of the region that the agent names (the API's own where it names none), then by the configured
//! distances from it. Within the same distance the one with the least load, in tenths of its capacity; among those that
//! are alike each agent has an order of its own, so that a thousand agents that come back at once do not all come to
//! the same node. A node that is far behind its shards comes after all that are not, and one that drains comes last.

mod claim;
mod distance;

pub(crate) use claim::{Claim, Claimant, Holder, claim};
pub(crate) use distance::Distances;

use crate::store::fleet::LiveRelay;
use skytale_proto::limits::{RELAY_HEARTBEATS_MISSED_MAX, RELAYS_NAMED_MAX};
use skytale_proto::rest::Relay;
use std::collections::HashSet;
use std::time::Duration;

/// A relay node that is further behind a shard's stream than this, in messages, is one that agents would wait for.
pub(crate) const BEHIND_MESSAGES: u64 = 10_000;
/// Number of places of which one is kept for another region than the nearest, so that an agent has somewhere to go when
/// a whole region is gone.
const PLACES_FOR_ONE_ELSEWHERE: usize = 4;

/// The caller, and from where.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asking<'a> {
    /// The region that it named, or the API's.
    pub region: u8,
    /// The API's region: where the named one says nothing of two nodes.
    pub own_region: u8,
    /// Identity of the asker: makes its order among nodes that are alike.
    pub who: &'a [u8],
    /// Number of relay nodes that it gets.
    pub limit: usize,
}

impl<'a> Asking<'a> {
    pub(crate) fn new(region: Option<u8>, own_region: u8, who: &'a [u8]) -> Self {
        Self {
            region: region.unwrap_or(own_region),
            own_region,
            who,
            limit: RELAYS_NAMED_MAX as usize,
        }
    }
}

/// Rank of a relay node in the order; the least is the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    draining: bool,
    behind: bool,
    distance: u32,
    own_distance: u32,
    /// Known by heartbeats, and so known to be there; or by a registration alone.
    is_registered_only: bool,
    load_tenths: u64,
    tie: u64,
}

/// The relay nodes to tell. `registered` are those without heartbeats, the one heard of last first.
pub(crate) fn nearest(
    live: Vec<LiveRelay>,
    registered: Vec<Relay>,
    distances: &Distances,
    asking: Asking<'_>,
) -> Vec<Relay> {
    let known: HashSet<_> = live.iter().map(|live| live.relay.endpoint).collect();
    let registered = registered.into_iter().filter(|relay| !known.contains(&relay.endpoint));
    let registered = (0..).zip(registered).map(|(place, relay)| {
        let rank = Rank {
            draining: false,
            behind: false,
            distance: distances.between(asking.region, relay.region),
            own_distance: distances.between(asking.own_region, relay.region),
            is_registered_only: true,
            load_tenths: 0,
            tie: place,
        };
        (rank, relay)
    });
    let live = live.into_iter().map(|live| {
        let rank = Rank {
            draining: live.draining,
            behind: is_behind(live.lag_max),
            distance: distances.between(asking.region, live.relay.region),
            own_distance: distances.between(asking.own_region, live.relay.region),
            is_registered_only: false,
            load_tenths: tenths(live.agents, live.agents_max),
            tie: tie(asking.who, &live.relay),
        };
        (rank, live.relay)
    });
    let mut ranked: Vec<_> = live.chain(registered).collect();
    ranked.sort_by_key(|(rank, _)| *rank);
    let chosen = with_some_elsewhere(ranked, asking.limit);
    chosen.into_iter().map(|(_, relay)| relay).collect()
}

/// Cuts the order to so many. Where they would all be of one region, the last places go to the nearest of others.
fn with_some_elsewhere(ranked: Vec<(Rank, Relay)>, limit: usize) -> Vec<(Rank, Relay)> {
    let Some(nearest) = ranked.first().map(|(_, relay)| relay.region) else {
        return ranked;
    };
    let mut chosen = ranked;
    let mut cut = chosen.split_off(limit.min(chosen.len()));
    let is_elsewhere = |(rank, relay): &(Rank, Relay)| relay.region != nearest && !rank.draining;
    let there = chosen.iter().filter(|one| is_elsewhere(one)).count();
    let lacking = (limit / PLACES_FOR_ONE_ELSEWHERE).saturating_sub(there);
    cut.retain(is_elsewhere);
    cut.truncate(lacking);
    for one in cut {
        let last = chosen.iter().rposition(|there| !is_elsewhere(there));
        if let Some(last) = last {
            chosen.remove(last);
            chosen.push(one);
        }
    }
    chosen.sort_by_key(|(rank, _)| *rank);
    chosen
}

/// Whether a relay node is so far behind that agents would wait for it.
pub(crate) const fn is_behind(lag_max: u64) -> bool {
    lag_max > BEHIND_MESSAGES
}

/// Heard of no earlier than this, a relay node is there. The clock counts whole seconds, of which the first may have been
/// nearly over: a node is not missed before its last heartbeat but the allowed ones was due.
pub(crate) const fn live_since_s(now_s: u64, heartbeat: Duration) -> u64 {
    now_s.saturating_sub(expires_after(heartbeat).as_secs())
}

/// Time without a heartbeat after which a relay node is gone.
pub(crate) const fn expires_after(heartbeat: Duration) -> Duration {
    Duration::from_secs(heartbeat.as_secs() * RELAY_HEARTBEATS_MISSED_MAX as u64)
}

fn tenths(agents: u64, agents_max: u64) -> u64 {
    // A node that takes no agents is full.
    agents.saturating_mul(10).checked_div(agents_max).unwrap_or(u64::MAX)
}

fn tie(who: &[u8], relay: &Relay) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(who);
    hasher.update(relay.endpoint.as_bytes());
    let mut bytes = [0; 8];
    hasher.finalize_xof().fill(&mut bytes);
    u64::from_le_bytes(bytes)
}

#[cfg(test)]
mod tests;
