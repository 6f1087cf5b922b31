//! A replica as a crash left it, and the node that goes on with it.

use super::local;
use crate::local::script::copy_folder;
use skytale_log_store::FleetStore;
use skytale_log_store::fleet::FleetConfig;
use skytale_log_store::local::replica::Replica;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

/// Waiting for longer is hanging.
const HANGING: Duration = Duration::from_secs(90);

/// State of a replica when it is opened.
pub(super) struct Left {
    /// Messages folded, of all shards.
    pub(super) messages: u64,
    pub(super) segments: usize,
    /// The number of the oldest segment.
    pub(super) first_segment: u64,
    pub(super) half_installed: bool,
}

/// The machine has booted since: what the index says of the boot that it was open in is of another.
pub(super) fn boot(folder: &Path) {
    let owner = folder.join("index/OWNER");
    if fs::read_to_string(&owner).is_ok_and(|said| said.starts_with("open boot")) {
        fs::write(&owner, "open boot of before\n").expect("written");
    }
}

/// Opens a copy of a replica's folder, so that the folder itself stays as it was left.
pub(super) async fn left(folder: &Path, outside: &Path) -> Left {
    let copy = TempDir::new_in(outside).expect("a folder");
    if folder.is_dir() {
        copy_folder(folder, copy.path());
    }
    let numbers = segments(copy.path());
    let (replica, positions) = Replica::open(local(copy.path())).await.expect("the replica opens");
    replica.close().await.expect("closed");
    Left {
        messages: positions.iter().map(|position| position.sequence).sum(),
        segments: numbers.len(),
        first_segment: numbers.first().copied().unwrap_or_default(),
        half_installed: positions.iter().any(Replica::is_half_installed),
    }
}

/// Opens a node on what is left, and waits until it has the whole.
pub(super) async fn back(config: FleetConfig) -> FleetStore {
    let store = FleetStore::open(config).await.expect("the node opens");
    let ready = tokio::time::timeout(HANGING, store.ready()).await;
    ready.expect("it catches up in time").expect("it catches up");
    store
}

/// The numbers of the segments in a replica's folder.
pub(super) fn segments(folder: &Path) -> BTreeSet<u64> {
    let names = fs::read_dir(folder.join("segments")).into_iter().flatten();
    let number = |name: PathBuf| name.file_stem()?.to_str()?.parse().ok();
    names.filter_map(|entry| number(entry.ok()?.path())).collect()
}
