//! The local store.

mod conformance;

use skytale_log_store::{LocalConfig, LocalStore};
use std::path::Path;

/// Settings that make a small store do what a large one does: segments roll, the cache evicts, states are dropped.
pub(crate) fn small(dir: &Path) -> LocalConfig {
    LocalConfig {
        segment_bytes: 32 * 1024,
        cache_bytes: 16 * 1024,
        states_max: 4,
        ..LocalConfig::new(dir)
    }
}

/// Opens a store that must open.
pub(crate) async fn open(config: LocalConfig) -> LocalStore {
    LocalStore::open(config).await.expect("the store opens")
}
