//! Servers that are cut off from each other while nodes still reach them: the old leader does not know that it no
//! longer leads.

use super::super::script::*;
use super::chance::Chance;
use super::nodes::Nodes;
use super::wires::{Lines, Wired, led};
use skytale_wire::{Cut, Link};
use std::time::Duration;

/// Ways in which servers are cut off from each other.
const CUTS: [Cut; 3] = [Cut::Silent, Cut::Held, Cut::Reset];
/// Servers that elect nobody for so long never do.
const ELECTS: Duration = Duration::from_secs(45);

/// One node reaches the server that leads, and no other; the other node reaches the rest. Readers that go from node to
/// node check what each says of the other's cursors.
///
/// Each round has servers of its own: under load nats-server 2.15.1 may take minutes to take a copy back whose server led and
/// was cut off ("expected first catchup entry to be a snapshot and peerstate", again and again); meanwhile the stream has no
/// majority without any one of the others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_cut_off_from_the_others_contradicts_nobody() {
    let mut chance = Chance::new("a leader cut off");
    let first = chance.below(CUTS.len());
    for round in 0..rounds(2) as usize {
        let cut = CUTS[(first + round) % CUTS.len()];
        Box::pin(leader_cut_off(cut, &mut chance)).await;
    }
}

async fn leader_cut_off(cut: Cut, chance: &mut Chance) {
    let wired = Wired::cluster().await;
    let account = wired.cluster.account();
    let nodes = Nodes::open(&wired.cluster, &account, 1).await;
    let load = nodes.load(chance).await;
    let leader = led(&account, "SKYTALE_LOG_0_0").await;
    nodes.lines[0].leave(|server| server == leader);
    nodes.lines[1].leave(|server| server != leader);
    load.goes_on(0).await;
    load.goes_on(1).await;
    eprintln!("{cut:?} around n{leader}, which leads");
    wired.around(leader).for_each(|link| link.cut(cut));
    // An entry acknowledged just before is reported; then the others elect one of themselves.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let elected = tokio::time::timeout(ELECTS, load.goes_on(1)).await;
    assert!(elected.is_ok(), "the others take nothing\n{}", wired.told().await);
    let lasts = chance.between(Duration::from_millis(100), Duration::from_secs(4));
    tokio::time::sleep(lasts).await;
    wired.mend();
    load.goes_on(0).await;
    load.check().await;
}

/// Anything between nodes and servers, or between servers, in any way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cuts_of_any_kind_at_any_time_lose_nothing() {
    let mut chance = Chance::new("any cut");
    let wired = Wired::cluster().await;
    let nodes = Nodes::open(&wired.cluster, &wired.cluster.account(), 2).await;
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
            let lasts = chance.between(Duration::from_millis(50), Duration::from_secs(4));
            eprintln!("{cut:?} of {} links for {lasts:?}", links.len());
            links.iter().for_each(|link| link.cut(cut));
            tokio::time::sleep(lasts).await;
        }
        wired.mend();
        nodes.lines.iter().for_each(Lines::mend);
        load.goes_on(0).await;
        load.goes_on(1).await;
    }
    load.check().await;
}
