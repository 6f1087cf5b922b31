//! Publishes the Welcomes that have been owed for too long: the node that took their bundle is gone, or could not.

use super::node::Node;
use std::sync::Arc;
use std::time::Duration;

/// Welcomes published at once, at most.
const SWEPT_AT_ONCE: usize = 256;

/// Sweeps until the node ends.
pub(super) async fn sweep_all(node: Arc<Node>) {
    let grace = node.config.welcome_grace;
    loop {
        // All nodes see the same debts: the one that wakes first pays.
        let jitter = grace.mul_f64(random_fraction());
        tokio::select! {
            () = tokio::time::sleep(grace / 2 + jitter / 2) => {}
            () = node.ended.cancelled() => return,
        }
        tokio::select! {
            () = sweep(&node, grace + jitter) => {}
            () = node.ended.cancelled() => return,
        }
    }
}

async fn sweep(node: &Arc<Node>, longer: Duration) {
    let mut pending = Vec::new();
    for welcome in node.owed.overdue(longer, SWEPT_AT_ONCE) {
        let (log, id) = (welcome.log, welcome.id);
        match node.replica.seen(log, id).await {
            Ok(Some(_)) => node.owed.settle(&id),
            Ok(None) => match node.publish_welcome(welcome) {
                Ok(append) => pending.push((log, id, append)),
                Err(error) => tracing::error!(%log, %id, %error, "an owed Welcome cannot be published"),
            },
            Err(error) => tracing::warn!(%log, %id, %error, "an owed Welcome cannot be looked for"),
        }
    }
    for (log, id, append) in pending {
        match append.verdict().await {
            Ok(accepted) => tracing::info!(%log, %id, offset = %accepted.offset, "put an owed Welcome on its log"),
            Err(error) => tracing::warn!(%log, %id, %error, "an owed Welcome is not on its log yet"),
        }
    }
}

/// A number from 0 to 1 without a pattern; 0 where the system has no randomness.
pub(super) fn random_fraction() -> f64 {
    let mut byte = [0];
    let _ = getrandom::fill(&mut byte);
    f64::from(byte[0]) / 255.0
}
