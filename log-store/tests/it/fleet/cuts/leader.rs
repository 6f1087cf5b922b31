//! Servers that are cut off from each other while nodes still reach them: who led does not know that it no longer does.

use super::super::cluster::Account;
use super::super::script::*;
use super::chance::Chance;
use super::load::Load;
use super::nodes::{Nodes, quick};
use super::wires::{HANGING, Wired, leader_of, led};
use skytale_proto::ChannelId;
use skytale_wire::{Cut, Link};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const SHARDS: [&str; 2] = ["SKYTALE_LOG_0_0", "SKYTALE_LOG_0_1"];
/// How long a leader may take to follow a wish.
const WISHES: Duration = Duration::from_secs(3);

/// Has one server lead the streams.
pub(crate) async fn lead(account: &Account, server: usize) {
    let begun = Instant::now();
    for stream in SHARDS {
        while led(account, stream, |_| true).await != server {
            let context = account.context().await.expect("JetStream");
            let wish = format!("{{\"placement\":{{\"preferred\":\"n{server}\"}}}}");
            let subject = format!("$JS.API.STREAM.LEADER.STEPDOWN.{stream}");
            drop(context.client().request(subject, wish.into()).await);
            let asked = Instant::now();
            while asked.elapsed() < WISHES && leader_of(account, stream).await != Some(server) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            assert!(begun.elapsed() < HANGING, "n{server} does not come to lead {stream}");
        }
    }
}

/// One node reaches the server that leads, and no other; the other node reaches the rest. What the one says of the other's
/// cursors is checked by the readers that go from node to node.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_cut_off_from_the_others_contradicts_nobody() {
    let mut chance = Chance::new("a leader cut off");
    let wired = Wired::cluster().await;
    let account = wired.cluster.account();
    let dirs = [TempDir::new().expect("a folder"), TempDir::new().expect("a folder")];
    let ports = &wired.cluster.ports;
    let config = |ports: &[u16], node: usize| quick(&account.through(ports), dirs[node].path());
    let one = Arc::new(open(config(&ports[..1], 0)).await);
    let two = Arc::new(open(config(&ports[1..], 1)).await);
    let channels = [ChannelId::generate(), ChannelId::generate()];
    let load = Load::begin(&[&one, &two], &channels, &mut chance).await;
    let begun = Instant::now();
    for round in 0..rounds(3) as usize {
        eprintln!("{:?} round {round}", begun.elapsed());
        lead(&account, 0).await;
        eprintln!("{:?} led", begun.elapsed());
        let cut = [Cut::Silent, Cut::Held, Cut::Reset][round % 3];
        wired.around(0).for_each(|link| link.cut(cut));
        // The others elect one of themselves.
        load.goes_on(1).await;
        eprintln!("{:?} others go on", begun.elapsed());
        let lasts = chance.between(Duration::from_millis(100), Duration::from_secs(4));
        tokio::time::sleep(lasts).await;
        wired.mend();
        eprintln!("{:?} mended", begun.elapsed());
        load.goes_on(0).await;
        eprintln!("{:?} goes on", begun.elapsed());
    }
    load.check().await;
}

/// Anything between nodes and servers, or between servers, in any way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cuts_of_any_kind_at_any_time_lose_nothing() {
    let mut chance = Chance::new("any cut");
    let wired = Wired::cluster().await;
    let nodes = Nodes::open(&wired.cluster, &wired.cluster.account()).await;
    let load = nodes.load(&mut chance).await;
    for _ in 0..rounds(4) {
        for _ in 0..=chance.below(2) {
            let cut = chance.of(&[Cut::Silent, Cut::Requests, Cut::Answers, Cut::Held, Cut::Reset]);
            let (some, other) = (chance.below(3), chance.below(2));
            let links: Vec<&Link> = match chance.below(4) {
                0 => nodes.lines[other].0.iter().collect(),
                1 => vec![&nodes.lines[other].0[some]],
                2 => wired.around(some).collect(),
                _ => wired.between(some, (some + 1 + other) % 3).collect(),
            };
            links.iter().for_each(|link| link.cut(cut));
            let lasts = chance.between(Duration::from_millis(50), Duration::from_secs(4));
            tokio::time::sleep(lasts).await;
        }
        wired.mend();
        nodes.lines.iter().for_each(super::wires::Lines::mend);
        load.goes_on(0).await;
        load.goes_on(1).await;
    }
    load.check().await;
}
