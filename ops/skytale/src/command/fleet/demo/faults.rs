//! Faults, and their repair.

use super::dice::Dice;
use super::kinds::Kind;
use super::traffic::Traffic;
use super::trials::Newcomers;
use crate::fleet::{Machine, Watch};
use crate::output::{Context as _, Outcome};
use skytale_proto::Code;
use skytale_wire::Cut;
use std::time::{Duration, Instant};

/// Durations of faults.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spans {
    /// At most, and at least half of it.
    pub fault: Duration,
    /// A relay node that is paused: this long.
    pub pause: Duration,
}

/// A fault that is to happen.
#[derive(Debug)]
pub(super) struct Fault {
    pub kind: Kind,
    /// In words.
    pub what: String,
    /// Its duration; of a restart and of keys, as long as it takes.
    pub lasts: Option<Duration>,
    pub(super) relay: usize,
    pub(super) servers: Vec<usize>,
    region: usize,
    cut: Cut,
}

/// A wrong clock lasts for at least as long as nodes need to look three times for entries that are too old
/// ([`super::UPKEEP`]).
const CLOCK_LASTS: Duration = Duration::from_secs(6);
/// Ways in which the network between a relay node and its servers can fail.
const CUTS: [(Cut, &str); 5] = [
    (Cut::Silent, "is cut off from NATS"),
    (Cut::Requests, "cannot be heard by NATS"),
    (Cut::Answers, "hears nothing of NATS"),
    (Cut::Held, "reaches NATS late"),
    (Cut::Reset, "is reset by NATS again and again"),
];
/// Ways in which the network between regions can fail.
const CUTS_OF_REGIONS: [(Cut, &str); 3] = [
    (Cut::Silent, "is cut off"),
    (Cut::Held, "is reached late"),
    (Cut::Reset, "refuses the others"),
];

impl Fault {
    /// Decides whom it hits, and for how long. The channel's home is the first region, its stream `stream`.
    pub(super) async fn plan(
        kind: Kind,
        machine: &Machine,
        dice: &mut Dice,
        spans: Spans,
        stream: &str,
    ) -> Outcome<Self> {
        let (relay, agents) = busy_relay(machine, dice).await;
        let mut servers = machine.nats.of_region(0);
        dice.shuffle(&mut servers);
        let mut region = 1 + dice.below(machine.nats.regions.len() - 1);
        let lasts = dice.between(spans.fault / 2, spans.fault);
        let (cut, cut_off) = CUTS[dice.below(CUTS.len())];
        let (cut_of_region, region_cut_off) = CUTS_OF_REGIONS[dice.below(CUTS_OF_REGIONS.len())];
        if kind == Kind::HomeCut {
            region = 0;
        }
        let name = |server: usize| machine.nats.servers()[server].name.as_str();
        let node = match agents {
            1 => format!("{} with 1 agent", machine.nodes[relay].name),
            agents => format!("{} with {agents} agents", machine.nodes[relay].name),
        };
        let of_region = machine.nats.regions.get(region).map_or("", |region| &region.name);
        let what = match kind {
            Kind::RelayKilled => format!("{node} is killed"),
            Kind::RelayPaused => format!("{node} is paused"),
            Kind::RelayEmptied => format!("{node} is killed and loses its data"),
            Kind::RelayCut => format!("{node} {cut_off}"),
            Kind::LeaderKilled => {
                let leader = machine.nats.leader(0, stream).await?;
                servers = vec![leader];
                format!("{} is killed, which leads {stream}", name(leader))
            }
            Kind::NatsKilled => {
                servers.truncate(2);
                let both: Vec<&str> = servers.iter().map(|server| name(*server)).collect();
                format!("{} are killed", both.join(", then "))
            }
            Kind::NatsPaused => {
                servers.truncate(1);
                let paused: Vec<&str> = servers.iter().map(|server| name(*server)).collect();
                format!("{} is paused", paused.join(", "))
            }
            Kind::Restart => {
                servers = (0..machine.nats.servers().len()).collect();
                format!(
                    "{} relay nodes and {} NATS servers are restarted in turn",
                    machine.nodes.len(),
                    servers.len()
                )
            }
            Kind::StoreRestored => {
                servers = (0..machine.nats.servers().len()).collect();
                format!("{} NATS servers are put back to an older copy", servers.len())
            }
            Kind::ApiAway => format!("the API is away, and {node} is killed"),
            Kind::DatabaseReadOnly => "the API's database takes no writes".to_owned(),
            Kind::KeysRotated => format!(
                "the keys of {} relay nodes and of tokens are changed",
                machine.nodes.len()
            ),
            Kind::ClockAhead => format!("{node} has a clock that is 40 days ahead"),
            Kind::ClockBehind => format!("{node} has a clock that is an hour behind"),
            Kind::DiskFull => {
                servers.truncate(1);
                let full: Vec<&str> = servers.iter().map(|server| name(*server)).collect();
                format!("the disk of {} is full", full.join(", "))
            }
            Kind::RegionCut => format!("region {of_region} {region_cut_off}"),
            Kind::HomeCut => format!("region {of_region}, the channel's home, {region_cut_off}"),
            Kind::RegionKilled => {
                servers = machine.nats.of_region(region);
                format!("all of region {of_region} is killed")
            }
        };
        let lasts = match kind {
            Kind::Restart | Kind::KeysRotated => None,
            Kind::RelayPaused => Some(spans.pause),
            Kind::ClockAhead | Kind::ClockBehind => Some(lasts.max(CLOCK_LASTS)),
            _ => Some(lasts),
        };
        let cut = if kind == Kind::RelayCut { cut } else { cut_of_region };
        Ok(Self {
            kind,
            what,
            lasts,
            relay,
            servers,
            region,
            cut,
        })
    }

    /// Makes it happen, lets it last, and mends it.
    pub(super) async fn happen(&self, machine: &mut Machine, newcomers: &mut Newcomers, traffic: &Traffic) -> Outcome {
        let last = tokio::time::sleep(self.lasts.unwrap_or_default());
        match self.kind {
            Kind::RelayKilled => {
                machine.nodes[self.relay].relay.kill().await?;
                last.await;
                machine.nodes[self.relay].relay.restart().await
            }
            Kind::RelayPaused => {
                machine.nodes[self.relay].relay.freeze()?;
                last.await;
                machine.nodes[self.relay].relay.thaw()
            }
            Kind::RelayEmptied => {
                machine.nodes[self.relay].relay.kill().await?;
                let log = machine.nodes[self.relay].log();
                std::fs::remove_dir_all(&log)
                    .failing(Code::Environment, || format!("cannot remove {}", log.display()))?;
                last.await;
                machine.nodes[self.relay].relay.restart().await
            }
            Kind::RelayCut => {
                machine.nodes[self.relay].cut_off(self.cut);
                last.await;
                machine.nodes[self.relay].join_again();
                Ok(())
            }
            Kind::LeaderKilled | Kind::NatsKilled => self.kill_servers(machine).await,
            Kind::NatsPaused => {
                for server in &self.servers {
                    machine.nats.freeze(*server)?;
                }
                last.await;
                for server in &self.servers {
                    machine.nats.thaw(*server)?;
                }
                Ok(())
            }
            Kind::Restart => self.restart(machine).await,
            Kind::StoreRestored => self.restore(machine, traffic).await,
            Kind::ApiAway => self.without_api(machine, newcomers).await,
            Kind::DatabaseReadOnly => self.without_writes(machine, newcomers).await,
            Kind::KeysRotated => self.rotate_keys(machine, newcomers).await,
            Kind::ClockAhead | Kind::ClockBehind => self.wrong_clock(machine).await,
            Kind::DiskFull => self.fill_disk(machine).await,
            Kind::RegionCut | Kind::HomeCut => {
                machine.nats.cut_off(self.region, self.cut);
                last.await;
                machine.nats.join_again(self.region);
                Ok(())
            }
            Kind::RegionKilled => {
                let nodes = machine.nodes.iter().enumerate();
                let nodes = nodes.filter(|(_, node)| node.region == self.region);
                let nodes: Vec<usize> = nodes.map(|(place, _)| place).collect();
                for server in &self.servers {
                    machine.nats.kill(*server).await?;
                }
                for node in &nodes {
                    machine.nodes[*node].relay.kill().await?;
                }
                last.await;
                for server in &self.servers {
                    machine.nats.run(*server).await?;
                }
                for node in &nodes {
                    machine.nodes[*node].relay.restart().await?;
                }
                Ok(())
            }
        }
    }

    /// Kills servers one after the other, each when the one before is back and current.
    async fn kill_servers(&self, machine: &mut Machine) -> Outcome {
        for server in &self.servers {
            machine.nats.kill(*server).await?;
            tokio::time::sleep(self.lasts.unwrap_or_default()).await;
            machine.nats.run(*server).await?;
            machine.nats.ready().await?;
        }
        Ok(())
    }

    /// Restores as docs/operating-a-fleet.md says: relay nodes stop, the copy is put back once more, the replicas'
    /// entries are put back into the streams, and relay nodes begin with empty replicas.
    async fn restore(&self, machine: &mut Machine, traffic: &Traffic) -> Outcome {
        for server in &self.servers {
            machine.nats.kill(*server).await?;
            machine.nats.keep_copy(*server)?;
        }
        for server in &self.servers {
            machine.nats.run(*server).await?;
        }
        let copied = Instant::now();
        machine.nats.ready().await?;
        machine.ready().await?;
        // Nothing goes back before the streams hold more than the copy does: appends wait for a while after the servers are there.
        traffic.answered_since(copied, &self.what).await?;
        tokio::time::sleep(self.lasts.unwrap_or_default()).await;
        self.put_back(machine).await?;
        machine.halted().await?;
        for node in &mut machine.nodes {
            node.relay.kill().await?;
        }
        self.put_back(machine).await?;
        machine.restore().await?;
        for node in &mut machine.nodes {
            let log = node.log();
            std::fs::remove_dir_all(&log).failing(Code::Environment, || format!("cannot remove {}", log.display()))?;
            node.relay.restart().await?;
        }
        Ok(())
    }

    async fn put_back(&self, machine: &mut Machine) -> Outcome {
        for server in &self.servers {
            machine.nats.kill(*server).await?;
            machine.nats.put_copy_back(*server)?;
        }
        for server in &self.servers {
            machine.nats.run(*server).await?;
        }
        machine.nats.ready().await
    }

    async fn restart(&self, machine: &mut Machine) -> Outcome {
        for node in &mut machine.nodes {
            node.relay.drain().await?;
            node.relay.restart().await?;
            node.ready().await?;
        }
        for server in &self.servers {
            machine.nats.leave(*server).await?;
            machine.nats.run(*server).await?;
            machine.nats.ready().await?;
        }
        Ok(())
    }
}

/// A relay node that agents are at, if there is one, since who has none is not missed; and how many those are.
async fn busy_relay(machine: &Machine, dice: &mut Dice) -> (usize, u64) {
    let nodes = Watch::default().look(&machine.nodes).await;
    let agents = |place: usize| nodes.get(place).map_or(0, |node| node.agents);
    let busy: Vec<usize> = (0..nodes.len()).filter(|place| agents(*place) > 0).collect();
    let any = dice.below(nodes.len());
    // Thrown whether it is needed or not, so that later throws are the same.
    let one_of_them = dice.below(busy.len());
    let relay = busy.get(one_of_them).copied().unwrap_or(any);
    (relay, agents(relay))
}
