//! An agent's machine crashes during a restore: the vault is the old one or the new one.

use super::agent_process::Role;
use super::disk::Disk;
use super::pair::{Pair, close};
use super::{random_ms, random_time, say};
use skytale_proto::FrameId;
use skytale_sdk::Agent;
use std::collections::BTreeSet;
use std::path::PathBuf;

pub(super) async fn restored(disk: &Disk, rounds: u32) {
    let mut pair = Pair::new(disk, "restore", None).await;
    let file = pair.told().file;
    let bob = Agent::open(pair.config()).await.expect("opened");
    bob.backup(&file, false).await.expect("made");
    close(bob).await;
    // The time without a crash.
    let bob = pair.start(Role::Restore, "", disk);
    let begun_ms = bob.takes_ms("begin", 1).await;
    let took_ms = bob.takes_ms("done", 1).await - begun_ms;
    bob.kill();
    remove_aside(&pair);
    let (mut old, mut new, mut done_rounds) = (0, 0, 0);
    for round in 1..=rounds {
        // A vault whose process was killed: a part of it is only in its write-ahead log.
        let bob = pair.start(Role::Queue, &format!("{round}"), disk);
        bob.says("queued", 5).await;
        tokio::time::sleep(random_ms(0, 60)).await;
        let before = bob.kill();
        pair.heard(&before);
        let only_there: BTreeSet<FrameId> = before
            .iter()
            .filter_map(|line| line.strip_prefix("queued ")?.parse().ok())
            .collect();

        let bob = pair.start(Role::Restore, "", disk);
        bob.says("begin", 1).await;
        tokio::time::sleep(random_time(took_ms * 5 / 4 + 1)).await;
        let said = disk.crash(bob);
        let done = said
            .iter()
            .find_map(|line| line.strip_prefix("done "))
            .map(PathBuf::from);
        done_rounds += u32::from(done.is_some());
        match has(&pair, &pair.vault, &only_there).await {
            Some(true) => {
                assert_eq!(
                    done, None,
                    "round {round}: the restore was done, and the vault is the old one"
                );
                old += 1;
                pair.holds().await;
            }
            Some(false) => {
                new += 1;
                let aside = aside(&pair);
                assert_eq!(
                    aside.len(),
                    1,
                    "round {round}: the vault that was replaced is kept: {aside:?}"
                );
                assert_eq!(
                    has(&pair, &aside[0], &only_there).await,
                    Some(true),
                    "round {round}: it is whole"
                );
                pair.forget();
                pair.holds().await;
            }
            None => panic!("round {round}: the vault is neither the old one nor the new one"),
        }
        remove_aside(&pair);
    }
    say(format_args!(
        "os-crash: restore: it takes {took_ms} ms; {rounds} crashes left the old vault {old} times and the new one {new} times, {done_rounds} of them \
         after it was done; all current"
    ));
}

/// Whether a vault has all of these messages, or none of them; `None` if it has some.
async fn has(pair: &Pair, vault: &PathBuf, messages: &BTreeSet<FrameId>) -> Option<bool> {
    let mut config = pair.config();
    config.vault.clone_from(vault);
    let bob = Agent::open(config).await.expect("the vault opens");
    let channel = bob.channel(pair.id).await.expect("there");
    let known = pair.known_to(&channel).await;
    drop(channel);
    close(bob).await;
    match messages.intersection(&known).count() {
        0 => Some(false),
        all if all == messages.len() => Some(true),
        _ => None,
    }
}

/// Vaults that were replaced.
fn aside(pair: &Pair) -> Vec<PathBuf> {
    let files = std::fs::read_dir(pair.vault.parent().expect("a folder")).expect("listed");
    let paths = files.map(|file| file.expect("a file").path());
    let is_vault = |path: &PathBuf| {
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        let after = name.split_once("replaced-").map(|(_, after)| after.to_owned());
        after.is_some_and(|after| after.bytes().all(|byte| byte.is_ascii_digit()))
    };
    paths.filter(is_vault).collect()
}

fn remove_aside(pair: &Pair) {
    for path in std::fs::read_dir(pair.vault.parent().expect("a folder")).expect("listed") {
        let path = path.expect("a file").path();
        if path.to_string_lossy().contains("replaced-") {
            std::fs::remove_file(path).expect("removed");
        }
    }
}
