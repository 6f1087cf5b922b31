//! The suite that every store passes, with the defaults and with everything small.

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
