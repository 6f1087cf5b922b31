//! Faults of the parts beside the log: the API and its database, keys, clocks, disks.

use super::faults::Fault;
use super::kinds::Kind;
use crate::fleet::{Machine, set_read_only};
use crate::output::{Failure, Outcome};
use crate::stage::{Actor, PATIENCE, WrongClock};
use skytale_proto::Code;
use skytale_sdk::{ApiClient, NetworkConfig};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Number of changes of the API's signing keys, in a row.
const SIGNING_KEYS: usize = 4;
/// Offsets of a clock that is ahead, and of one that is behind; as libfaketime writes them.
const AHEAD: &str = "+40d";
const BEHIND: &str = "-1h";
/// Bytes for more messages on a small disk.
const ROOM: u64 = 24 << 20;
/// Report of a node whose own clock is wrong.
const CLOCK_IS_WRONG: &str = "this node's clock is";
/// Reports of a node on a server that keeps nothing.
const COPY_IS_MISSING: [&str; 2] = ["its JetStream is off", "copies of streams are missing"];
/// Interval between checks whether something is so.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Agents that come while something is wrong, or just after: each needs a token that it has not got.
#[derive(Debug)]
pub(super) struct Newcomers {
    pub dir: PathBuf,
    pub client: ApiClient,
    pub count: usize,
}

impl Newcomers {
    /// Another one comes, and goes again. After an outage of the API its directory is empty until nodes have said that they
    /// are there; an agent that knows of no node would wait for longer than that.
    async fn come(&mut self, machine: &Machine) -> Outcome {
        for node in &machine.nodes {
            machine.api.registered(&self.client, node.relay.endpoint()).await?;
        }
        self.count += 1;
        let name = format!("newcomer-{}", self.count);
        let network = NetworkConfig::default();
        let mut actor = Actor::enter(&self.dir, &name, &self.client, None, network).await?;
        actor.go_away().await
    }
}

impl Fault {
    /// The API is stopped; a relay node that is restarted meanwhile serves by its kept beliefs.
    pub(super) async fn without_api(&self, machine: &mut Machine, newcomers: &mut Newcomers) -> Outcome {
        let last = tokio::time::sleep(self.lasts.unwrap_or_default());
        machine.api.pause().await?;
        let node = &mut machine.nodes[self.relay];
        node.relay.kill().await?;
        node.relay.restart().await?;
        node.ready().await?;
        last.await;
        machine.api.resume().await?;
        newcomers.come(machine).await
    }

    /// The API's database takes no writes. That begins while the API is stopped: under connections that write, the header of
    /// a database is not to be changed.
    pub(super) async fn without_writes(&self, machine: &mut Machine, newcomers: &mut Newcomers) -> Outcome {
        let read_only = |body: &str| body.contains(&Code::DatabaseReadOnly.to_string());
        machine.api.pause().await?;
        set_read_only(&machine.api.database, true)?;
        machine.api.resume().await?;
        api_says(machine, 503, read_only).await?;
        tokio::time::sleep(self.lasts.unwrap_or_default()).await;
        api_says(machine, 503, read_only).await?;
        set_read_only(&machine.api.database, false)?;
        api_says(machine, 200, |_| true).await?;
        newcomers.come(machine).await
    }

    /// All keys that are changed in the life of a fleet.
    pub(super) async fn rotate_keys(&self, machine: &mut Machine, newcomers: &mut Newcomers) -> Outcome {
        for node in 0..machine.nodes.len() {
            machine.rotate_nats_keys(node).await?;
        }
        for _ in 0..SIGNING_KEYS {
            // After a few rounds the key set is full.
            if !machine.api.rotate_signing_key().await? {
                break;
            }
            newcomers.come(machine).await?;
        }
        Ok(())
    }

    /// A node with a wrong clock says so and serves nobody who has anywhere else to go.
    pub(super) async fn wrong_clock(&self, machine: &mut Machine) -> Outcome {
        let offset = if self.kind == Kind::ClockBehind { BEHIND } else { AHEAD };
        let clock = WrongClock::by(offset);
        let clock = clock.ok_or_else(|| Failure::new(Code::Environment, "libfaketime is missing"))?;
        let alone = machine.nodes.len() == 1;
        let node = &mut machine.nodes[self.relay];
        node.relay.kill().await?;
        node.relay.set_clock(Some(clock));
        node.relay.restart().await?;
        node.says(false, &[CLOCK_IS_WRONG]).await?;
        let begun = Instant::now();
        while !alone && node.agents().await != Some(0) {
            if begun.elapsed() > PATIENCE {
                let what = format!("agents do not leave {}, whose clock is wrong", node.name);
                return Err(Failure::new(Code::Mismatch, what));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        tokio::time::sleep(self.lasts.unwrap_or_default()).await;
        node.says(false, &[CLOCK_IS_WRONG]).await?;
        node.relay.kill().await?;
        node.relay.set_clock(None);
        node.relay.restart().await
    }

    /// A server whose disk is full keeps nothing; all nodes go on, and remark it.
    pub(super) async fn fill_disk(&self, machine: &mut Machine) -> Outcome {
        let Some(server) = self.servers.first().copied() else {
            return Ok(());
        };
        machine.nats.kill(server).await?;
        machine.nats.move_to_small_disk(server, ROOM)?;
        machine.nats.run(server).await?;
        machine.nats.ready().await?;
        machine.nats.fill_disk(server)?;
        machine.nats.keeps_nothing(server).await?;
        for node in &machine.nodes {
            node.says(true, &COPY_IS_MISSING).await?;
        }
        tokio::time::sleep(self.lasts.unwrap_or_default()).await;
        machine.nats.clear_disk(server)?;
        machine.nats.kill(server).await?;
        machine.nats.run(server).await?;
        machine.nats.ready().await?;
        machine.nats.kill(server).await?;
        machine.nats.move_from_small_disk(server)?;
        machine.nats.run(server).await
    }
}

/// Waits until the API's `/readyz` says this.
async fn api_says(machine: &Machine, status: u16, what: impl Fn(&str) -> bool) -> Outcome {
    let begun = Instant::now();
    loop {
        let said = crate::http::get(machine.api.address(), "/readyz").await;
        if said.as_ref().is_ok_and(|(is, body)| *is == status && what(body)) {
            return Ok(());
        }
        if begun.elapsed() > PATIENCE {
            let said = said.map_or_else(|error| error.to_string(), |(is, body)| format!("{is}: {body}"));
            return Err(Failure::new(Code::Mismatch, format!("/readyz of the API is not {status}")).since(said));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
