//! An agent's machine crashes while the group is recreated: by this agent, or by the other one.

use super::disk::Disk;
use super::pair::{Pair, close};
use super::say;
use crate::agent::world::soon;

pub(super) async fn rebooted(disk: &Disk, rounds: u32) {
    for (bob_first, name) in [(true, "begins"), (false, "comes-over")] {
        let mut pair = Pair::new(disk, name, Some(bob_first)).await;
        nobody_can_go_on(&mut pair).await;
        let mut way = pair.time_way(disk).await;
        for round in 1..=rounds {
            nobody_can_go_on(&mut pair).await;
            pair.crash_on_the_way(disk, &mut way, &format!("{round}.1"), true).await;
            pair.crash_on_the_way(disk, &mut way, &format!("{round}.2"), false)
                .await;
            pair.holds().await;
            pair.has_no_copy().await;
        }
        say(format_args!(
            "os-crash: reboot, who crashes {name}: {way}; {} messages delivered, {} told to be in doubt, 0 lost, all current",
            pair.queued().len(),
            pair.doubtful
        ));
        assert!(!pair.queued().is_empty(), "nothing was tried");
    }
}

/// Alice commits while bob is away; her vault is put back to before that, and the log gives the commit up.
async fn nobody_can_go_on(pair: &mut Pair) {
    close(pair.alice.take().expect("open")).await;
    let copy = pair.world.copy_vault("alice");
    let alice = pair.world.agent("alice").await;
    let channel = alice.channel(pair.id).await.expect("in the vault");
    let rotated = channel.rotate().await.expect("queued");
    soon("rotated", rotated.delivered()).await.expect("delivered");
    pair.world.trim(pair.id.log()).await;
    drop(channel);
    close(alice).await;
    pair.world.put_vault_back("alice", &copy);
    let alice = pair.world.open("alice").await;
    alice.connect().await.expect("a socket");
    pair.alice = Some(alice);
}
