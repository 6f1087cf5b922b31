//! What fails, and how it comes back.

use crate::fleet::Machine;
use crate::output::{Context as _, Outcome};
use skytale_proto::Code;
use std::time::Duration;

/// A fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// A relay node is killed, and started again.
    RelayKilled,
    /// A relay node is there and says nothing, then goes on.
    RelayFrozen,
    /// A relay node is killed, and comes back without its data.
    RelayEmptied,
    /// A NATS server is killed, and started again.
    NatsKilled,
    /// One NATS server is killed, and then another, each started again before the next.
    NatsRolling,
    /// Every relay node is drained and started again, one after the other.
    RelaysRolling,
    /// All of a region that is not the channel's home says nothing: servers and nodes.
    RegionFrozen,
    /// The NATS servers of the channel's home region say nothing.
    HomeFrozen,
}

impl Fault {
    /// Those of a fleet of so many regions, in the order in which they happen.
    pub(super) fn of(regions: usize) -> Vec<Self> {
        let mut faults = vec![
            Self::RelayKilled,
            Self::RelayFrozen,
            Self::NatsKilled,
            Self::NatsRolling,
            Self::RelayEmptied,
            Self::RelaysRolling,
        ];
        if regions > 1 {
            faults.extend([Self::RegionFrozen, Self::HomeFrozen]);
        }
        faults
    }

    /// In words.
    pub(super) fn what(self, machine: &Machine, round: usize) -> String {
        let relay = &machine.nodes[round % machine.nodes.len()].name;
        let servers = machine.nats.servers();
        let server = &servers[round % servers.len()].name;
        match self {
            Self::RelayKilled => format!("{relay} is killed"),
            Self::RelayFrozen => format!("{relay} is frozen"),
            Self::RelayEmptied => format!("{relay} is killed and loses its data"),
            Self::NatsKilled => format!("NATS server {server} is killed"),
            Self::NatsRolling => "NATS servers are killed one after the other".into(),
            Self::RelaysRolling => "relay nodes are restarted one after the other".into(),
            Self::RegionFrozen => format!("region {} is cut off", machine.nats.regions[1].name),
            Self::HomeFrozen => format!(
                "the NATS servers of {}, the channel's home, are cut off",
                machine.nats.regions[0].name
            ),
        }
    }

    /// Makes it happen, lets it last, and mends it.
    pub(super) async fn happen(self, machine: &mut Machine, round: usize, lasts: Duration) -> Outcome {
        let relay = round % machine.nodes.len();
        let server = round % machine.nats.servers().len();
        match self {
            Self::RelayKilled => {
                machine.nodes[relay].relay.kill().await?;
                tokio::time::sleep(lasts).await;
                machine.nodes[relay].relay.restart().await
            }
            Self::RelayFrozen => {
                machine.nodes[relay].relay.freeze()?;
                tokio::time::sleep(lasts).await;
                machine.nodes[relay].relay.thaw()
            }
            Self::RelayEmptied => {
                machine.nodes[relay].relay.kill().await?;
                let log = machine.nodes[relay].log();
                std::fs::remove_dir_all(&log)
                    .failing(Code::Environment, || format!("cannot remove {}", log.display()))?;
                tokio::time::sleep(lasts).await;
                machine.nodes[relay].relay.restart().await
            }
            Self::NatsKilled => nats_killed(machine, server, lasts).await,
            Self::NatsRolling => {
                for server in 0..machine.nats.servers().len() {
                    if machine.nats.servers()[server].region == 0 {
                        nats_killed(machine, server, lasts / 3).await?;
                    }
                }
                Ok(())
            }
            Self::RelaysRolling => {
                for relay in 0..machine.nodes.len() {
                    machine.nodes[relay].relay.drain().await?;
                    machine.nodes[relay].relay.restart().await?;
                    machine.nodes[relay].ready().await?;
                }
                Ok(())
            }
            Self::RegionFrozen => {
                frozen(machine, 1, true)?;
                tokio::time::sleep(lasts).await;
                thawed(machine, 1, true)
            }
            Self::HomeFrozen => {
                frozen(machine, 0, false)?;
                tokio::time::sleep(lasts).await;
                thawed(machine, 0, false)
            }
        }
    }
}

async fn nats_killed(machine: &mut Machine, server: usize, lasts: Duration) -> Outcome {
    machine.nats.kill(server).await?;
    tokio::time::sleep(lasts).await;
    machine.nats.run(server).await?;
    machine.nats.ready().await
}

fn of_region(machine: &Machine, region: usize) -> impl Iterator<Item = usize> + '_ {
    let servers = machine.nats.servers().iter().enumerate();
    servers
        .filter(move |(_, server)| server.region == region)
        .map(|(place, _)| place)
}

fn frozen(machine: &Machine, region: usize, with_nodes: bool) -> Outcome {
    for server in of_region(machine, region) {
        machine.nats.freeze(server)?;
    }
    let mut nodes = machine.nodes.iter().filter(|node| with_nodes && node.region == region);
    nodes.try_for_each(|node| node.relay.freeze())
}

fn thawed(machine: &Machine, region: usize, with_nodes: bool) -> Outcome {
    for server in of_region(machine, region) {
        machine.nats.thaw(server)?;
    }
    let mut nodes = machine.nodes.iter().filter(|node| with_nodes && node.region == region);
    nodes.try_for_each(|node| node.relay.thaw())
}
