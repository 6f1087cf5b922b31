//! The suite that every store passes: with the defaults, with everything small, and while segments are regrouped all the
//! time.

mod defaults {
    use super::super::script::open;
    use skytale_log_store::{LocalConfig, LocalStore};
    use std::sync::Arc;
    use tempfile::TempDir;

    async fn fresh() -> (Arc<LocalStore>, TempDir) {
        let dir = TempDir::new().expect("a folder");
        (Arc::new(open(LocalConfig::new(dir.path())).await), dir)
    }

    skytale_log_store::log_store_conformance!(fresh);
}

mod everything_small {
    use super::super::script::{open, small};
    use skytale_log_store::LocalStore;
    use std::sync::Arc;
    use tempfile::TempDir;

    async fn fresh() -> (Arc<LocalStore>, TempDir) {
        let dir = TempDir::new().expect("a folder");
        (Arc::new(open(small(dir.path())).await), dir)
    }

    skytale_log_store::log_store_conformance!(fresh);
}

mod regrouping_all_the_time {
    use super::super::script::{open, small};
    use skytale_log_store::{LocalConfig, LocalStore};
    use std::sync::{Arc, Weak};
    use std::time::Duration;
    use tempfile::TempDir;

    async fn fresh() -> (Arc<LocalStore>, TempDir) {
        let dir = TempDir::new().expect("a folder");
        let config = LocalConfig {
            segment_bytes: 4 * 1024,
            // The thread of its own and the one below are in each other's way.
            regroup_bytes_per_second: u64::MAX,
            cache_bytes: 0,
            ..small(dir.path())
        };
        let store = Arc::new(open(config).await);
        tokio::spawn(regroup(Arc::downgrade(&store)));
        (store, dir)
    }

    async fn regroup(store: Weak<LocalStore>) {
        while let Some(store) = store.upgrade() {
            // A store that is closed regroups nothing.
            let _ = store.regroup().await;
            drop(store);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    skytale_log_store::log_store_conformance!(fresh);
}
