//! The machine of a node crashes while the node begins with a checkpoint: it starts over, and gets to what the others have.

use super::super::cluster::{Account, Cluster};
use super::super::script::*;
use super::disk::Disk;
use super::left::{back, boot, left};
use super::load::{History, Load, kept, the_same};
use super::node::NodeProcess;
use super::{Kind, random_ms, say};
use crate::local::script::{ALICE, frame};
use skytale_log_store::LogStore as _;
use skytale_log_store::fleet::FleetConfig;
use skytale_proto::{ChannelId, Detail, LogId};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Authors at the node that does not crash.
const AUTHORS: usize = 4;
/// Channels with a large roster: a checkpoint of them is installed in parts.
const LARGE: usize = 40;
const LARGE_ROSTER: usize = 2_000;
/// For the stream's beginning: several checkpoints fit in.
const RETENTION: Duration = Duration::from_secs(3);
/// Crashes in each round.
const CRASHES: u32 = 2;
/// For what the kernel was writing when everybody was stopped.
const IN_FLIGHT: Duration = Duration::from_millis(150);
/// Waiting for longer is hanging.
const HANGING: Duration = Duration::from_secs(90);

/// A node without a replica begins with a checkpoint, and crashes while it does, or soon after.
pub(super) async fn bootstrapped(cluster: &Cluster, disk: &Disk, rounds: u32) {
    let account = cluster.account();
    let settings = |dir: &Path| Kind::OneShard.settings(&account, dir);
    let start = |folder: &Path| {
        let said = disk.outside().join("said");
        NodeProcess::start(Kind::OneShard, &account, folder, said)
    };
    let home = TempDir::new_in(disk.outside()).expect("a folder");
    let old = give_up_the_beginning(&account, home.path()).await;
    say("the beginning of the stream is given up");
    let witness = Arc::new(open(settings(home.path())).await);
    let folder = disk.live().join("new-node");
    let mut history = History::default();

    // Duration if nothing happens.
    let begun = Instant::now();
    let node = start(&folder);
    node.opens().await;
    let took = u64::try_from(begun.elapsed().as_millis()).expect("short");
    node.kill();
    say(format_args!("a node begins in {took} ms"));
    for round in 1..=rounds {
        fs::remove_dir_all(&folder).expect("removed");
        let load = Load::start(&[&witness], AUTHORS);
        // From the beginning, and then from what that left.
        let mut crashes = Vec::new();
        for crash in 1..=CRASHES {
            let node = start(&folder);
            // On its way; and then there, or a while after.
            let (earliest, latest) = if crash == 1 {
                (took / 8, took / 2)
            } else {
                (took / 3, took * 2)
            };
            tokio::time::sleep(random_ms(earliest, latest)).await;
            node.stand_still();
            tokio::time::sleep(IN_FLIGHT).await;
            disk.copy();
            let was_ready = node.is_ready();
            history.add(vec![node.acknowledged()]);
            node.kill();
            disk.cut();
            boot(&folder);
            let left = left(&folder, disk.outside()).await;
            crashes.push(match (left.half_installed, left.messages) {
                (true, _) => "half a checkpoint".to_owned(),
                (false, 0) => "nothing".to_owned(),
                (false, messages) if was_ready => format!("all up to {messages}, ready before"),
                (false, messages) => format!("all up to {messages}"),
            });
        }
        let node = back(settings(&folder)).await;
        say("it is back");
        history.add(load.finish().await);
        history.holds(&node, &witness).await;
        the_same(&node, &witness, &old).await;
        let mut given_up = 0;
        for log in &old {
            given_up += u64::from(kept(&node, *log).await.0 > at(1));
        }
        assert!(given_up > 0, "it began with a checkpoint");
        node.close().await.expect("closed");
        say(format_args!(
            "os-crash: bootstrap, round {round}: crashes left {}; {} acknowledged, 0 lost, all the same",
            crashes.join(", then "),
            history.len()
        ));
    }
    witness.close().await.expect("closed");
}

/// Gives up the beginning of a stream, up to a checkpoint of large states.
async fn give_up_the_beginning(account: &Account, dir: &Path) -> BTreeSet<LogId> {
    let settings = Kind::OneShard.settings(account, dir);
    let store = open(settings.clone()).await;
    let mut logs = BTreeSet::new();
    for _ in 0..LARGE {
        let channel = ChannelId::generate();
        accept(&store, &create(channel)).await;
        let detail = Detail::Commit {
            adds: (0..LARGE_ROSTER).map(|_| someone()).collect(),
            removes: Vec::new(),
            recipients: Vec::new(),
            roster: None,
            policy: None,
        };
        accept(&store, &frame(channel.log(), ALICE, 1, detail, b"many")).await;
        logs.insert(channel.log());
    }
    let channel = ChannelId::generate();
    logs.insert(channel.log());
    accept(&store, &create(channel)).await;
    for _ in 0..settings.checkpoint_every {
        accept(&store, &message(channel, 1, b"before the checkpoint")).await;
    }
    store.close().await.expect("closed");
    tokio::time::sleep(RETENTION).await;

    let enforcing = FleetConfig {
        retention: Some(RETENTION),
        ..settings
    };
    let _keeper = Keeping::start(enforcing.clone());
    let store = open(enforcing).await;
    let begun = Instant::now();
    loop {
        let stream = account.stream("SKYTALE_LOG_0_0").await;
        if stream.cached_info().state.first_sequence > 1 {
            break;
        }
        assert!(begun.elapsed() < HANGING, "nothing is purged");
        accept(&store, &message(channel, 1, b"later")).await;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    store.close().await.expect("closed");
    logs
}
