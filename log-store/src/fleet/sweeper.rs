//! Publishes the Welcomes that have been owed for too long: the node that took their bundle is gone, or could not.

use super::node::Node;
use super::welcomes::Published;
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
        let_go(&node);
        tokio::select! {
            () = sweep(&node, grace + jitter) => {}
            () = node.ended.cancelled() => return,
        }
    }
}

/// Tells authors whose frames are in the stream and were not folded in time: a follower may have to wait for its stream.
fn let_go(node: &Node) {
    let longest = 2 * node.config.append_timeout;
    for shard in node.handles.values() {
        for waiter in shard.pending.take_waiting(|waiter| waiter.since.elapsed() > longest) {
            let why = shard.unreachable("the frame is in the stream, and this node has not followed it there yet");
            shard.fail(waiter, why);
        }
    }
}

async fn sweep(node: &Arc<Node>, longer: Duration) {
    let mut overdue = Vec::new();
    for welcome in node.owed.overdue(longer, SWEPT_AT_ONCE) {
        let (log, id) = (welcome.log, welcome.id);
        match node.replica.seen(log, id).await {
            Ok(Some(_)) => node.owed.settle(&id),
            Ok(None) => overdue.push(welcome),
            Err(error) => tracing::warn!(%log, %id, %error, "an owed Welcome cannot be looked for"),
        }
    }
    let published = match node.publish_welcomes(overdue).await {
        Ok(published) => published,
        Err(error) if error.code().is_retryable() => {
            return tracing::debug!(%error, "owed Welcomes are published later");
        }
        Err(error) => return tracing::error!(%error, "owed Welcomes cannot be published"),
    };
    for Published { log, id, append } in published {
        // It may be folded later: other waiting callers must be let go meanwhile.
        let Ok(verdict) = tokio::time::timeout(node.config.append_timeout, append.verdict()).await else {
            return;
        };
        match verdict {
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
