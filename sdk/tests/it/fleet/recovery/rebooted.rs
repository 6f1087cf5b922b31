//! Nobody can follow the group any more, and several members reboot it at the same moment.

use super::super::replicas::Replicas;
use super::room::{Room, is_reboot, name};
use crate::agent::world::{event, soon};
use skytale_proto::{Kind, Offset};
use skytale_sdk::{Event, Events, Standing};
use std::path::PathBuf;

/// Way in which a vault became an older one.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Back {
    /// A person copied files: their times tell.
    Copied,
    /// A snapshot of the disk was put back: nothing about the files tells.
    Snapshot,
}

type Copies = Vec<(PathBuf, Vec<u8>)>;

fn copies(replicas: &Replicas, members: usize) -> Copies {
    let vaults = (0..members).map(|member| replicas.vault(&name(member)));
    let files = vaults.flat_map(|vault| [vault.clone(), vault.with_extension("vault.lock")]);
    files
        .map(|path| (path.clone(), std::fs::read(&path).expect("read")))
        .collect()
}

fn put_back(copies: &Copies, back: Back) {
    for (path, bytes) in copies {
        let is_lock = path.extension() == Some("lock".as_ref());
        let bytes = if is_lock && back == Back::Snapshot {
            &[]
        } else {
            bytes.as_slice()
        };
        std::fs::write(path, bytes).expect("written");
    }
}

/// Restores all vaults to before the last commit, which the log has trimmed since. All members reboot the group, each
/// without knowledge of the others.
async fn all_begin_again(back: Back) {
    let mut room = Room::of(3).await;
    let all = [0, 1, 2];
    let mut before = Copies::new();
    room.while_closed(|replicas| before = copies(replicas, all.len())).await;
    room.connect(&all).await;
    // With the very keys that the copies believe to be unused.
    for member in all {
        room.say(member, &format!("{member} after the copy")).await;
    }
    room.all_reach(&all).await;
    let rotated = room.channels[0].rotate().await.expect("queued");
    soon("rotated", rotated.delivered()).await.expect("delivered");
    for member in all {
        room.say(member, &format!("{member} after the commit")).await;
    }
    room.all_reach(&all).await;
    room.learn(0).await;
    room.give_up().await;
    room.while_closed(|_| put_back(&before, back)).await;
    for member in all {
        // Where nothing tells that the vault is older, it is encrypted at once.
        room.queue(member, &format!("{member} has this in its outbox")).await;
    }

    room.hold(&all, Kind::Commit);
    let mut events: Vec<Events> = room.agents.iter().map(|agent| agent.events()).collect();
    room.connect(&all).await;
    let begun = room.held(&all, "a new beginning", is_reboot).await;
    assert!(
        begun
            .iter()
            .all(|frame| frame.header().parent == begun[0].header().parent)
    );
    room.race(&all).await;
    let (at, first) = room.commit_after(begun[0].header().parent).await;
    assert!(begun.contains(&first));
    for events in &mut events {
        let rebooted = event(events, "a new beginning", |event| {
            matches!(event, Event::Rebooted { .. })
        })
        .await;
        let Event::Rebooted { offset, by, .. } = rebooted else {
            panic!("{rebooted:?}");
        };
        assert_eq!((offset, by), (at, first.header().author), "the first one wins");
    }
    for member in all {
        room.stands(member, Standing::Current).await;
        let info = room.channels[member].info().await.expect("known");
        assert!(info.cursor > Offset::ZERO);
    }
    room.holds(&all).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_those_who_begin_a_group_again_at_once_the_first_wins_and_no_key_is_used_twice() {
    all_begin_again(Back::Copied).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_holds_where_nothing_tells_that_the_vaults_are_older() {
    all_begin_again(Back::Snapshot).await;
}
