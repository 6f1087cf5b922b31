//! An agent's machine crashes while the agent rejoins.

use super::agent_process::Role;
use super::disk::Disk;
use super::pair::Pair;
use super::{random_ms, say};
use std::collections::BTreeMap;

/// Crashes in each round, one on the way back from the other.
const CRASHES: u32 = 2;
/// A way back takes about so long, where nothing else goes on.
const ABOUT_MS: u64 = 900;

pub(super) async fn rejoined(disk: &Disk, rounds: u32) {
    let mut pair = Pair::new(disk, "rejoin", None).await;
    let mut stood: BTreeMap<String, u32> = BTreeMap::new();
    let mut own = 0;
    for round in 1..=rounds {
        // He has missed a commit that is gone.
        pair.alice_says("before the commit").await;
        let rotated = pair.alices().await.rotate().await.expect("queued");
        rotated.delivered().await.expect("delivered");
        pair.world.trim(pair.id.log()).await;
        for crash in 1..=CRASHES {
            let bob = pair.start(Role::Talk, &format!("{round}.{crash}"), disk);
            pair.alice_says("meanwhile").await;
            tokio::time::sleep(random_ms(0, ABOUT_MS)).await;
            pair.heard(&disk.crash(bob));
        }
        let (left, sent) = pair.holds().await;
        pair.has_no_copy().await;
        *stood.entry(format!("{left:?}")).or_default() += 1;
        own = sent;
    }
    say(format_args!(
        "os-crash: rejoin: {rounds} rounds of {CRASHES} crashes left the channel {stood:?}; {own} messages taken, 0 lost, all current"
    ));
    assert!(own > 0, "nothing was tried");
}
