//! Gives a link the entries of one channel, in order.

use super::{Attached, Link};
use crate::channel::Entry;
use crate::error::Refusal;
use crate::hub::Hub;
use crate::metrics;
use crate::queue::Gone;
use crate::wire::{Prefix, Publish};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// Entries taken from the log at once.
const ENTRIES_MAX: usize = 64;
/// Interval between looks at a relay node that lacks entries that another one had.
const BEHIND: Duration = Duration::from_millis(100);
/// Interval between attempts at a log that cannot be read.
const AGAIN: Duration = Duration::from_secs(1);

/// Gives a link a channel's entries until the link ends or leaves the channel.
pub(super) fn spawn(hub: &Arc<Hub>, link: &Arc<Link>, prefix: Prefix, attached: Arc<Attached>) {
    let cancel = attached.cancel.clone();
    let work = run(Arc::clone(hub), Arc::clone(link), prefix, attached);
    hub.tasks.spawn(async move {
        tokio::select! {
            () = cancel.cancelled() => {}
            () = work => {}
        }
    });
}

async fn run(hub: Arc<Hub>, link: Arc<Link>, prefix: Prefix, attached: Arc<Attached>) {
    settle(&hub, &link, &prefix, &attached).await;
    loop {
        if let Err(Gone) = barrier(&link, &attached).await {
            return;
        }
        let next = confirm(&attached);
        let position = attached.delivery.lock().handed();
        let read = tokio::select! {
            () = attached.changed.notified() => continue,
            () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => continue,
            read = attached.channel.read(position, ENTRIES_MAX) => read,
        };
        match read {
            // The relay node is behind the one that told of them.
            Ok(Ok(entries)) if entries.is_empty() => tokio::time::sleep(BEHIND).await,
            Ok(Ok(entries)) => {
                if let Err(Gone) = hand(&hub, &link, &attached, position, entries).await {
                    return;
                }
            }
            Ok(Err(first)) => {
                tracing::warn!(
                    link = link.id.0,
                    first,
                    "a member comes back to a log that gave up what it missed"
                );
                metrics::trimmed();
                attached.delivery.lock().trimmed(first);
                tell(&attached);
            }
            Err(refusal) => trouble(&refusal).await,
        }
    }
}

/// Moves cursors over messages that were read long enough ago. Gives when the next of it is.
fn confirm(attached: &Attached) -> Option<Instant> {
    loop {
        let due = {
            let mut confirming = attached.confirming.lock();
            let next = confirming.front()?.at;
            if next > Instant::now() {
                return Some(next);
            }
            confirming.pop_front()?
        };
        for member in due.members {
            attached.channel.received(member, due.offset);
        }
    }
}

/// Waits until a returning member is ready for its replay.
///
/// A client subscribes to the names of a session that it restores *before* the session can take frames: messages in
/// between would be dropped in the client, unnoticed. Two things show that it is ready: it has subscribed to all names
/// that it had, and it has sent something to the channel, which a restored session does first of all (it announces that
/// it is online). A client that merely lost its connection says nothing, and is ready: for it a while without a new
/// subscription must do.
async fn settle(hub: &Hub, link: &Link, prefix: &Prefix, attached: &Attached) {
    loop {
        let left = {
            let settled = attached.settled.lock();
            let have = hub.routes.lock().ids(link.id, prefix);
            if !settled.returning || (settled.awake && settled.wanted.is_subset(&have)) {
                break;
            }
            (settled.last + hub.config.times.settle()).saturating_duration_since(Instant::now())
        };
        if left.is_zero() {
            break;
        }
        tokio::select! {
            () = attached.changed.notified() => {}
            () = tokio::time::sleep(left) => {}
        }
    }
    tell(attached);
}

/// Says that the replay is done, where it is.
fn tell(attached: &Attached) {
    let done = attached.delivery.lock().is_replayed();
    if done {
        attached.replayed.send_replace(true);
    }
}

async fn hand(hub: &Hub, link: &Link, attached: &Attached, position: u64, entries: Vec<Entry>) -> Result<(), Gone> {
    let mut position = position;
    for entry in entries {
        // A member has joined that has less: begin again from there.
        if attached.delivery.lock().handed() != position {
            return Ok(());
        }
        let message = entry.frame.as_ref().and_then(|frame| {
            let publish = &frame.publish;
            let name = publish.header.destination.route()?;
            let own = frame.origin.bridge == hub.bridge && frame.origin.link == link.id
                || publish
                    .header
                    .source
                    .full()
                    .is_some_and(|source| attached.delivery.lock().is_all(&source));
            (!own && hub.routes.lock().reaches(link.id, name)).then(|| link.sealed(&onward(publish)))
        });
        let sent = message.is_some();
        if let Some(message) = message {
            link.queue.send(message).await?;
        }
        let mut delivery = attached.delivery.lock();
        if delivery.handed() != position {
            return Ok(());
        }
        let replay = delivery.hand(entry.offset);
        drop(delivery);
        if sent {
            metrics::delivered(replay);
        }
        position = entry.offset;
    }
    tell(attached);
    Ok(())
}

/// A stored frame has the ttl that it had when it came in; a receiver would drop it below 2.
fn onward(publish: &Publish) -> Publish {
    let mut publish = publish.clone();
    publish.header.ttl = publish.header.ttl.max(2);
    publish
}

async fn barrier(link: &Link, attached: &Attached) -> Result<(), Gone> {
    // Nobody behind a node has a cursor that could move.
    if link.is_node || !attached.delivery.lock().wants_barrier() {
        return Ok(());
    }
    let Some((id, message)) = link.barrier() else {
        return Ok(());
    };
    attached.delivery.lock().barrier_sent(id);
    link.queue.send(message).await
}

async fn trouble(refusal: &Refusal) {
    tracing::warn!(code = %refusal.code(), %refusal, "a channel's log cannot be read");
    metrics::refused(refusal.code());
    tokio::time::sleep(AGAIN).await;
}
