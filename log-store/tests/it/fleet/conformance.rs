//! The suite that every store passes, on a cluster of three servers with three copies of each stream.

use super::script::{Streams, open, settings, shared_account};
use skytale_log_store::FleetStore;
use std::sync::Arc;
use tempfile::TempDir;

async fn fresh() -> (Arc<FleetStore>, (TempDir, Streams)) {
    let (account, streams) = shared_account().await;
    let dir = TempDir::new().expect("a folder");
    (Arc::new(open(settings(&account, dir.path())).await), (dir, streams))
}

skytale_log_store::log_store_conformance!(fresh);
