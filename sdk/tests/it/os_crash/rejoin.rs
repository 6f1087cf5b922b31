//! An agent's machine crashes while the agent rejoins.

use super::disk::Disk;
use super::pair::Pair;
use super::say;
use crate::agent::world::soon;

pub(super) async fn rejoined(disk: &Disk, rounds: u32) {
    let mut pair = Pair::new(disk, "rejoin", None).await;
    lose_a_commit(&pair).await;
    let mut way = pair.time_way(disk).await;
    for round in 1..=rounds {
        lose_a_commit(&pair).await;
        pair.crash_on_the_way(disk, &mut way, &format!("{round}.1"), true).await;
        pair.alice_says("meanwhile").await;
        pair.crash_on_the_way(disk, &mut way, &format!("{round}.2"), false)
            .await;
        pair.holds().await;
        pair.has_no_copy().await;
    }
    say(format_args!(
        "os-crash: rejoin: {way}; {} messages delivered, {} told to be in doubt, 0 lost, all current",
        pair.queued().len(),
        pair.doubtful
    ));
    assert!(!pair.queued().is_empty(), "nothing was tried");
}

/// Bob misses a commit, and then it is gone.
async fn lose_a_commit(pair: &Pair) {
    pair.alice_says("before the commit").await;
    let rotated = pair.alices().await.rotate().await.expect("queued");
    soon("rotated", rotated.delivered()).await.expect("delivered");
    pair.world.trim(pair.id.log()).await;
}
