//! Nodes that are cut off from NATS: nothing acknowledged is lost, nothing is there twice, and the others go on.

use super::super::cluster::{Account, Cluster};
use super::super::script::*;
use super::chance::Chance;
use super::load::Load;
use super::wires::{Lines, Wired, led};
use skytale_log_store::FleetStore;
use skytale_log_store::fleet::{FleetConfig, RegionConfig};
use skytale_proto::{ChannelId, Region};
use skytale_wire::Cut;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

/// Time after which an author learns that the fate of its frame is unknown.
const APPEND_TIMEOUT: Duration = Duration::from_secs(2);

/// Settings of a node that finds out soon.
fn quick(account: &Account, shards: u16, dir: &Path) -> FleetConfig {
    FleetConfig {
        regions: vec![RegionConfig {
            region: Region(0),
            shards,
            cluster: None,
            tags: Vec::new(),
        }],
        request_timeout: Duration::from_millis(500),
        append_timeout: APPEND_TIMEOUT,
        alarm_after: Duration::from_secs(30),
        ..settings(account, dir)
    }
}

/// Two nodes, each with lines of its own to the servers.
pub(crate) struct Nodes {
    pub(crate) stores: [Arc<FleetStore>; 2],
    pub(crate) lines: [Lines; 2],
    _dirs: [TempDir; 2],
}

impl Nodes {
    pub(crate) async fn open(cluster: &Cluster, account: &Account, shards: u16) -> Self {
        let dirs = [TempDir::new().expect("a folder"), TempDir::new().expect("a folder")];
        let lines = [Lines::new(cluster), Lines::new(cluster)];
        let config = |node: usize| quick(&lines[node].account(account), shards, dirs[node].path());
        let stores = [Arc::new(open(config(0)).await), Arc::new(open(config(1)).await)];
        Self {
            stores,
            lines,
            _dirs: dirs,
        }
    }

    pub(crate) async fn load(&self, chance: &mut Chance) -> Load {
        let channels = [ChannelId::generate(), ChannelId::generate()];
        Load::begin(&[&self.stores[0], &self.stores[1]], &channels, chance).await
    }
}

/// A time that is shorter than an author waits, or longer.
fn shorter_or_longer(chance: &mut Chance, longer: bool) -> Duration {
    if longer {
        chance.between(APPEND_TIMEOUT + Duration::from_millis(500), 2 * APPEND_TIMEOUT)
    } else {
        chance.between(Duration::from_millis(100), APPEND_TIMEOUT - Duration::from_millis(500))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_cut_off_from_nats_catches_up_and_the_other_goes_on() {
    let mut chance = Chance::new("a node cut off");
    let wired = Wired::cluster().await;
    let nodes = Nodes::open(&wired.cluster, &wired.cluster.account(), 2).await;
    let load = nodes.load(&mut chance).await;
    for round in 0..rounds(6) as usize {
        let cut = [Cut::Silent, Cut::Reset, Cut::Held][round % 3];
        let victim = chance.below(2);
        let lasts = shorter_or_longer(&mut chance, round % 2 == 0);
        eprintln!("{cut:?} at node {victim} for {lasts:?}");
        nodes.lines[victim].cut(cut);
        load.goes_on(1 - victim).await;
        tokio::time::sleep(lasts).await;
        load.goes_on(1 - victim).await;
        nodes.lines[victim].mend();
        load.goes_on(victim).await;
    }
    load.check().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_hears_no_answers_publishes_again_and_each_frame_is_there_once() {
    let mut chance = Chance::new("one way, at the leader");
    let wired = Wired::cluster().await;
    let account = wired.cluster.account();
    let nodes = Nodes::open(&wired.cluster, &account, 1).await;
    let load = nodes.load(&mut chance).await;
    for round in 0..rounds(4) as usize {
        let cut = [Cut::Answers, Cut::Requests, Cut::Answers, Cut::Silent][round % 4];
        let victim = chance.below(2);
        // It talks to the server that leads: what it publishes goes nowhere else.
        let leader = led(&account, "SKYTALE_LOG_0_0").await;
        nodes.lines[victim].leave(|server| server == leader);
        load.goes_on(victim).await;
        nodes.lines[victim].mend();
        let lasts = shorter_or_longer(&mut chance, round % 2 == 0);
        eprintln!("{cut:?} between node {victim} and n{leader} for {lasts:?}");
        nodes.lines[victim].0[leader].cut(cut);
        load.goes_on(1 - victim).await;
        tokio::time::sleep(lasts).await;
        nodes.lines[victim].mend();
        load.goes_on(victim).await;
    }
    load.check().await;
}
