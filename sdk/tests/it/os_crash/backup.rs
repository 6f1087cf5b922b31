//! An agent's machine crashes during backups: there is a complete one under the name, or none.

use super::agent_process::{Role, vault_key};
use super::disk::Disk;
use super::pair::{Pair, close};
use super::{random_time, say};
use skytale_proto::FrameId;
use skytale_sdk::{Agent, restore};
use std::collections::BTreeSet;

/// Backups whose time is taken.
const TIMED: usize = 4;

pub(super) async fn backed_up(disk: &Disk, rounds: u32) {
    let mut pair = Pair::new(disk, "backup", None).await;
    let file = pair.told().file;
    let (mut none, mut whole) = (0, 0);
    let bob = pair.start(Role::BackUp, "0", disk);
    let opened_ms = bob.takes_ms("open", 1).await;
    let took_ms = (bob.takes_ms("made", TIMED).await - opened_ms) / TIMED as u64;
    let said = bob.kill();
    pair.heard(&said);
    std::fs::remove_file(&file).expect("removed");
    for round in 1..=rounds {
        let bob = pair.start(Role::BackUp, &format!("{round}"), disk);
        if round % 2 == 0 {
            // From the second one on a backup replaces one.
            bob.says("made", 1).await;
        } else {
            bob.says("queued", 1).await;
        }
        tokio::time::sleep(random_time(took_ms * 3 / 2 + 2)).await;
        let said = disk.crash(bob);
        pair.heard(&said);
        // The last backup reported as made must have all messages accepted before.
        let made = said.iter().rposition(|line| line == "made");
        let promised: BTreeSet<FrameId> = said[..made.unwrap_or_default()]
            .iter()
            .filter_map(|line| line.strip_prefix("queued ")?.parse().ok())
            .collect();
        match file.exists() {
            false => {
                assert_eq!(made, None, "round {round}: a backup that was made is not there");
                none += 1;
            }
            true => {
                whole += 1;
                is_whole(&pair, disk, round, &promised).await;
            }
        }
        if round % 4 == 0 {
            pair.holds().await;
            pair.has_no_copy().await;
        }
        if file.exists() {
            std::fs::remove_file(&file).expect("removed");
        }
    }
    say(format_args!(
        "os-crash: backup: one takes {took_ms} ms; {rounds} crashes left a whole backup {whole} times and none {none} times; {} messages taken, 0 lost",
        pair.queued().len()
    ));
}

async fn is_whole(pair: &Pair, disk: &Disk, round: u32, promised: &BTreeSet<FrameId>) {
    let told = pair.told();
    let folder = tempfile::tempdir_in(disk.outside()).expect("a folder");
    let vault = folder.path().join("restored.vault");
    let done = restore(&told.file, &vault, &vault_key(), false);
    let done = done.unwrap_or_else(|error| panic!("round {round}: torn: {error}"));
    assert!(done.backup_ms.is_some(), "round {round}: without the mark of a backup");
    let mut config = pair.config();
    config.vault = vault;
    // Never connected: two copies of one agent must not be used at the same time.
    let copy = Agent::open(config).await.expect("opens");
    let channel = copy.channel(pair.id).await.expect("there");
    let known = pair.known_to(&channel).await;
    let missing: Vec<_> = promised.difference(&known).collect();
    assert!(missing.is_empty(), "round {round}: not in the backup: {missing:?}");
    drop(channel);
    close(copy).await;
}
