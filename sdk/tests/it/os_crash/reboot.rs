//! An agent's machine crashes while the group begins again: by this agent, or by the other one.

use super::agent_process::Role;
use super::disk::Disk;
use super::pair::{Pair, close};
use super::{random_ms, say};
use crate::agent::world::soon;
use std::collections::BTreeMap;

/// Crashes in each round, one on the way back from the other.
const CRASHES: u32 = 2;
/// A way back takes about so long, where nothing else goes on.
const ABOUT_MS: u64 = 1_200;

pub(super) async fn rebooted(disk: &Disk, rounds: u32) {
    for bob_first in [true, false] {
        let name = if bob_first { "begins" } else { "comes-over" };
        let mut pair = Pair::new(disk, name, Some(bob_first)).await;
        let mut stood: BTreeMap<String, u32> = BTreeMap::new();
        let mut own = 0;
        for round in 1..=rounds {
            nobody_can_go_on(&mut pair).await;
            for crash in 1..=CRASHES {
                let bob = pair.start(Role::Talk, &format!("{round}.{crash}"), disk);
                tokio::time::sleep(random_ms(0, ABOUT_MS)).await;
                pair.heard(&disk.crash(bob));
            }
            let (left, sent) = pair.holds().await;
            pair.has_no_copy().await;
            *stood.entry(format!("{left:?}")).or_default() += 1;
            own = sent;
        }
        say(format_args!(
            "os-crash: reboot, who crashes {name}: {rounds} rounds of {CRASHES} crashes left the channel {stood:?}; {own} \
             messages taken, 0 lost, all current"
        ));
        assert!(own > 0, "nothing was tried");
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
