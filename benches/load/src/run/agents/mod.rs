//! The agent level: real agents of the SDK, each with a vault, encrypt and decrypt what a plan has.
//!
//! Sessions, appends, commits and messages are those of the plan. The SDK's own actions happen here too: KeyPackages,
//! claims, subscriptions, tokens. So those events of a plan are left out.

mod actor;
mod judge;
mod payload;
mod reading;
mod settle;
mod stays;
#[cfg(test)]
mod tests;

use super::schedule::Cast;
use super::shared::{Base, Open};
use super::{Progress, Ran, RunConfig, RunError, Standing, drive};
use crate::results::Verified;
use actor::{Actor, Job};
use judge::{Judge, Seen};
use parking_lot::Mutex;
use skytale_proto::{AgentId, ChannelId, Offset};
use skytale_sdk::{ApiClient, NetworkConfig};
use skytale_workload::plan::Plan;
use stays::Stays;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Configuration of a run's agents.
#[derive(Clone, Debug)]
pub struct AgentsConfig {
    /// A folder for their vaults.
    pub dir: PathBuf,
    /// Gives their tokens, and says where relay nodes are.
    pub api: ApiClient,
    /// Network to the relay nodes.
    pub network: NetworkConfig,
}

/// State shared by all agents of a run.
struct Stage {
    base: Arc<Base>,
    config: AgentsConfig,
    /// The ids of agents whose vaults are made.
    ids: Vec<watch::Sender<Option<AgentId>>>,
    /// The ids of channels that are made.
    rooms: Vec<watch::Sender<Option<ChannelId>>>,
    /// Last message that each author knows to be in the log, by channel.
    last: Mutex<BTreeMap<ChannelId, BTreeMap<u32, u64>>>,
    gauges: Mutex<Vec<Arc<Gauge>>>,
    /// Agents that are online, and the changes of memberships.
    present: Mutex<Present>,
    judge: Judge,
}

/// Presence of agents.
#[derive(Debug, Default)]
struct Present {
    online: BTreeSet<u32>,
    /// Offsets of the commits that added an agent (true) or removed it, by agent and channel.
    changes: BTreeMap<(u32, ChannelId), BTreeMap<Offset, bool>>,
}

/// Returns the place at which an agent must have joined: the first commit that added it since it was last removed.
/// Another one after it changed nothing. `None` if it is no member.
fn must_join(changes: &BTreeMap<Offset, bool>) -> Option<Offset> {
    let after = |joins: Option<Offset>, (offset, is_add): (&Offset, &bool)| is_add.then(|| joins.unwrap_or(*offset));
    changes.iter().fold(None, after)
}

/// Progress of an agent's application in a channel.
#[derive(Debug)]
struct Gauge {
    agent: u32,
    channel: ChannelId,
    /// The last message that it was given.
    given: AtomicU64,
    /// Number of messages that it was given.
    count: AtomicU64,
    reads: AtomicBool,
    /// Times at which the agent was a member.
    stays: Mutex<Stays>,
    /// Counts joins: an application that had read all that it may read goes on.
    joins: watch::Sender<u64>,
}

/// Runs a plan with real agents, and verifies what their applications were given and what their vaults hold.
pub async fn run_agents(
    agents: AgentsConfig,
    plan: Arc<Plan>,
    config: &RunConfig,
    stop: CancellationToken,
    each: impl FnMut(&Progress),
) -> Result<Ran, RunError> {
    let base = Base::begin(plan, config, &stop).await?;
    let stage = Arc::new(Stage {
        ids: (0..base.plan.agents).map(|_| watch::Sender::new(None)).collect(),
        rooms: (0..base.plan.channels).map(|_| watch::Sender::new(None)).collect(),
        last: Mutex::default(),
        gauges: Mutex::default(),
        present: Mutex::default(),
        judge: Judge::default(),
        base: Arc::clone(&base),
        config: agents,
    });
    let outcome = drive(&base, &stage, config, &stop, each).await?;
    let short = stage.short();
    let unfinished = base.unfinished();
    base.finish.cancel();
    let outcome = outcome.leave().await?;
    let seen = stage.judge.seen(&stage).await;
    let Seen {
        channels,
        entries,
        readers,
        unjudged,
    } = seen;
    let verified = Verified {
        channels,
        entries,
        readers: readers.saturating_sub(short + unjudged),
        readers_short: short,
        readers_left: 0,
    };
    let (faults, count) = stage.judge.faults();
    Ok(base.ran(config, outcome, &unfinished, verified, faults, count))
}

impl Stage {
    fn vault(&self, agent: u32) -> PathBuf {
        self.config.dir.join(format!("agent-{agent}.vault"))
    }

    /// A message of an agent is in the log.
    fn is_entry(&self, agent: u32, channel: ChannelId, offset: u64) {
        let mut last = self.last.lock();
        let last = last.entry(channel).or_default().entry(agent).or_default();
        *last = offset.max(*last);
    }

    /// An agent was added to a channel by the commit at this offset, or removed. Agents tell of commits in any order.
    fn changed(&self, agent: u32, channel: ChannelId, offset: Offset, is_add: bool) {
        let mut present = self.present.lock();
        let changes = present.changes.entry((agent, channel)).or_default();
        changes.insert(offset, is_add);
    }

    fn known_gauge(&self, agent: u32, channel: ChannelId) -> Option<Arc<Gauge>> {
        let gauges = self.gauges.lock();
        let mut known = gauges.iter();
        known
            .find(|gauge| gauge.agent == agent && gauge.channel == channel)
            .cloned()
    }

    /// An agent's gauge of a channel, made if there is none.
    fn gauge(&self, agent: u32, channel: ChannelId) -> Arc<Gauge> {
        let mut gauges = self.gauges.lock();
        let known = gauges
            .iter()
            .find(|gauge| gauge.agent == agent && gauge.channel == channel);
        if let Some(gauge) = known {
            return Arc::clone(gauge);
        }
        let gauge = Arc::new(Gauge {
            agent,
            channel,
            given: AtomicU64::new(0),
            count: AtomicU64::new(0),
            reads: AtomicBool::new(false),
            stays: Mutex::default(),
            joins: watch::Sender::new(0),
        });
        gauges.push(Arc::clone(&gauge));
        gauge
    }

    /// Applications that were not given all that others know to be in the log, or have not joined where they were added.
    fn short(&self) -> u64 {
        let gauges = self.gauges.lock().clone();
        let joined: BTreeMap<_, _> = gauges
            .iter()
            .map(|gauge| ((gauge.agent, gauge.channel), gauge.stays.lock().clone()))
            .collect();
        let late = {
            let present = self.present.lock();
            let has_joined = |key: &(u32, ChannelId), added| {
                let stays = joined.get(key);
                stays.is_some_and(|stays| stays.is_unknown() || stays.last_join() >= Some(added))
            };
            let waits = |(key, changes): &(&(u32, ChannelId), &BTreeMap<Offset, bool>)| {
                present.online.contains(&key.0) && must_join(changes).is_some_and(|added| !has_joined(key, added))
            };
            present.changes.iter().filter(waits).count()
        };
        let last = self.last.lock();
        let is_short = |gauge: &&Arc<Gauge>| {
            // Messages sent before it joined are not for it.
            let joined = joined.get(&(gauge.agent, gauge.channel)).and_then(Stays::last_join);
            let read = gauge.given.load(Ordering::Relaxed).max(joined.map_or(0, Offset::get));
            gauge.reads.load(Ordering::Relaxed)
                && last.get(&gauge.channel).is_some_and(|authors| {
                    authors
                        .iter()
                        .any(|(author, last)| *author != gauge.agent && *last > read)
                })
        };
        (gauges.iter().filter(is_short).count() + late) as u64
    }
}

impl Cast for Stage {
    type Job = Job;

    fn enter(self: &Arc<Self>, agent: u32, runtime: &Handle) -> (JoinHandle<()>, mpsc::UnboundedSender<Job>) {
        let (actor, sender) = Actor::new(Arc::clone(self), agent);
        (runtime.spawn(actor.run()), sender)
    }

    fn job(place: usize, open: Arc<Open>) -> Job {
        Job { place, open }
    }
}

impl Standing for Stage {
    fn faults(&self) -> u64 {
        self.judge.faults().1
    }

    fn is_delivered(&self) -> bool {
        self.short() == 0
    }
}
