//! The end of a store.

use super::Store;
use super::script::*;
use crate::{AppendError, StoreError};
use skytale_proto::Code;

/// After closing, an append is refused with `Stopped`, and the store says why.
pub async fn a_closed_store_refuses_appends(store: Store) {
    let channel = new_channel(&store).await;
    let mut stopped = store.stopped();
    assert_eq!(*stopped.borrow_and_update(), None);
    store.close().await.expect("the store closes");
    assert!(stopped.wait_for(Option::is_some).await.is_ok());
    let refused = match store.append(message(channel, ALICE, 1)).await {
        Err(error) => AppendError::from(error),
        Ok(pending) => pending.verdict().await.expect_err("a closed store takes nothing"),
    };
    assert!(
        matches!(refused, AppendError::Store(StoreError::Stopped { .. })),
        "{refused:?}"
    );
    assert_eq!(refused.code(), Code::StoreStopped);
}

/// Appends that were queued before closing get their verdicts.
pub async fn closing_finishes_what_is_queued(store: Store) {
    let channel = new_channel(&store).await;
    let mut pending = Vec::new();
    for _ in 0..200 {
        pending.push(queue(&store, &message(channel, ALICE, 1)).await);
    }
    store.close().await.expect("the store closes");
    for (append, expected) in pending.into_iter().zip(2..) {
        assert_eq!(append.verdict().await.expect("accepted").offset, at(expected));
    }
}

/// Closing a closed store is no error.
pub async fn closing_twice_is_closing_once(store: Store) {
    let (first, second) = tokio::join!(store.close(), store.close());
    assert_eq!((first, second), (Ok(()), Ok(())));
    assert_eq!(store.close().await, Ok(()));
}
