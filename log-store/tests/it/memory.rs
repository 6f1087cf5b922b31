//! The memory store keeps every promise of a store.

use skytale_log_store::{AppendError, LogStore as _, MemoryStore, StoreError};
use skytale_proto::{AgentId, Detail, Frame, FrameId, Header, Offset};
use std::sync::Arc;

async fn open() -> (Arc<MemoryStore>, ()) {
    (Arc::new(MemoryStore::new()), ())
}

skytale_log_store::log_store_conformance!(open);

#[tokio::test]
async fn a_stopped_store_gives_its_first_reason() {
    let store = MemoryStore::new();
    let stopped = store.stopped();
    store.stop("the disk is on fire");
    store.stop("another reason");
    store.close().await.unwrap();
    assert_eq!(stopped.borrow().as_deref(), Some("the disk is on fire"));
    let agent = AgentId::from_bytes([1; 32]);
    let header = Header {
        log: agent.log(),
        id: FrameId::generate(),
        author: agent,
        parent: Offset::ZERO,
        detail: Detail::KeyPackage {
            last_resort: false,
            account: None,
        },
    };
    let refused = store.append(Frame::new(header, "").unwrap()).await;
    let reason = "the disk is on fire".to_owned();
    assert_eq!(
        refused.map_err(AppendError::from).unwrap_err(),
        StoreError::Stopped { reason }.into()
    );
}
