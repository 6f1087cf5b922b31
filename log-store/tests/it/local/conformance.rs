//! The suite that every store passes, with the defaults and with everything small.

mod defaults {
    use skytale_log_store::{LocalConfig, LocalStore};
    use std::sync::Arc;
    use tempfile::TempDir;

    async fn fresh() -> (Arc<LocalStore>, TempDir) {
        let dir = TempDir::new().expect("a folder");
        let store = super::super::open(LocalConfig::new(dir.path())).await;
        (Arc::new(store), dir)
    }

    skytale_log_store::log_store_conformance!(fresh);
}

mod everything_small {
    use skytale_log_store::LocalStore;
    use std::sync::Arc;
    use tempfile::TempDir;

    async fn fresh() -> (Arc<LocalStore>, TempDir) {
        let dir = TempDir::new().expect("a folder");
        let store = super::super::open(super::super::small(dir.path())).await;
        (Arc::new(store), dir)
    }

    skytale_log_store::log_store_conformance!(fresh);
}
