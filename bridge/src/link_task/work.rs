//! What a link's client asks of logs, in the order in which it asked.

use super::{Attached, Link, Settle, deliver};
use crate::delivery::{Delivery, Start};
use crate::error::Refusal;
use crate::hub::Hub;
use crate::metrics::{self, Dropped};
use crate::stored::encode_frame;
use crate::wire::{EncodedName, FullName, Publish, subscription_ack};
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use parking_lot::Mutex;
use skytale_proto::Code;
use std::collections::BTreeSet;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::{Notify, OwnedSemaphorePermit, mpsc, watch};
use tokio::time::timeout;

/// One thing to do.
#[derive(Debug)]
pub(super) enum Job {
    /// A subscription to a name of a channel.
    Join {
        name: FullName,
        member: FullName,
        subscription: u64,
    },
    /// The end of one, after which the link has none of that name left.
    Leave {
        name: FullName,
        member: FullName,
        subscription: u64,
    },
    /// A durable frame.
    Store {
        publish: Publish,
        name: FullName,
        room: Room,
    },
}

/// A frame's room among those that wait for the log.
#[derive(Debug)]
pub(super) struct Room {
    pub(super) _message: OwnedSemaphorePermit,
    pub(super) _bytes: OwnedSemaphorePermit,
}

pub(super) async fn run(hub: Arc<Hub>, link: Arc<Link>, mut jobs: mpsc::Receiver<Job>) {
    let mut pending: FuturesUnordered<BoxFuture<'static, ()>> = FuturesUnordered::new();
    loop {
        tokio::select! {
            biased;
            Some(()) = pending.next() => {}
            job = jobs.recv() => match job {
                Some(Job::Join { name, member, subscription }) => {
                    let joined = timeout(hub.config.times.attach(), join(&hub, &link, name, member));
                    let outcome = joined.await.unwrap_or_else(|_| {
                        Err(Refusal::new(Code::LogUnreachable, "the channel's log was not reached in time"))
                    });
                    if let Err(refusal) = &outcome {
                        tracing::warn!(link = link.id.0, code = %refusal.code(), %refusal, "not subscribed");
                        metrics::refused(refusal.code());
                        // Without the log there is no subscription either: the client would miss frames unnoticed.
                        let route = EncodedName { prefix: name.prefix, id: Some(name.id) };
                        if hub.routes.lock().unsubscribe(link.id, route, subscription).is_ok() {
                            metrics::subscriptions(-1);
                        }
                    }
                    ack(&link, subscription, outcome.err()).await;
                }
                Some(Job::Leave { name, member, subscription }) => {
                    let left = timeout(hub.config.times.attach(), leave(&hub, &link, name, member));
                    let outcome = left.await.unwrap_or_else(|_| {
                        Err(Refusal::new(Code::LogUnreachable, "the channel's log was not reached in time"))
                    });
                    ack(&link, subscription, outcome.err()).await;
                }
                Some(Job::Store { publish, name, room }) => {
                    if let Some(attached) = link.attached(&name.prefix)
                        && publish.is_online_announcement()
                    {
                        // Others would answer with changes to the group before the member has what it missed.
                        let mut replayed = attached.replayed.subscribe();
                        let _ = replayed.wait_for(|replayed| *replayed).await;
                    }
                    if let Some(stored) = store(&hub, &link, publish, name, room).await {
                        pending.push(stored);
                    }
                }
                None => return,
            },
        }
    }
}

pub(super) async fn ack(link: &Link, subscription: u64, refused: Option<Refusal>) {
    if subscription != 0 {
        let message = subscription_ack(subscription, refused.map(|refusal| refusal.to_string()));
        let _ = link.queue.send(message).await;
    }
}

/// Queues a frame for the log; what is left to wait for.
async fn store(
    hub: &Arc<Hub>,
    link: &Arc<Link>,
    publish: Publish,
    name: FullName,
    room: Room,
) -> Option<BoxFuture<'static, ()>> {
    let began = Instant::now();
    let body = encode_frame(hub.origin(link.id), &publish);
    let bytes = body.len();
    if !link.place.usage.store(bytes) {
        metrics::refused(Code::RateLimited);
        metrics::dropped(Dropped::Refused);
        return None;
    }
    let queued = async { hub.channel(name.prefix).await?.append(body).await };
    let pending = match queued.await {
        Ok(pending) => pending,
        Err(refusal) => {
            tracing::warn!(link = link.id.0, code = %refusal.code(), %refusal, "frame not stored");
            metrics::refused(refusal.code());
            metrics::dropped(Dropped::Refused);
            return None;
        }
    };
    let link = link.id;
    Some(Box::pin(async move {
        let _room = room;
        match pending.outcome().await {
            Ok(receipt) => {
                tracing::trace!(link = link.0, offset = %receipt.offset, "frame stored");
                metrics::stored(bytes, began.elapsed());
            }
            Err(error) => {
                tracing::warn!(link = link.0, code = %error.code(), %error, "frame not stored");
                metrics::refused(error.code());
                metrics::dropped(Dropped::Refused);
            }
        }
    }))
}

async fn join(hub: &Arc<Hub>, link: &Arc<Link>, name: FullName, member: FullName) -> Result<(), Refusal> {
    let channel = hub.channel(name.prefix).await?;
    let ids = hub.routes.lock().ids(link.id, &name.prefix);
    let known_here = link
        .attached(&name.prefix)
        .is_some_and(|attached| attached.delivery.lock().has(&member));
    let (cursor, returning) = channel.join(member, &ids).await?;
    let start = Start {
        after: cursor.offset,
        head: channel.head().max(cursor.offset),
    };
    let (attached, new) = match link.attached.lock().entry(name.prefix) {
        Entry::Occupied(entry) => (Arc::clone(entry.get()), false),
        Entry::Vacant(entry) => {
            let attached = Arc::new(Attached {
                channel: Arc::clone(&channel),
                delivery: Mutex::new(Delivery::default()),
                changed: Notify::new(),
                replayed: watch::Sender::new(false),
                settled: Mutex::new(Settle {
                    last: tokio::time::Instant::now(),
                    returning: false,
                    awake: false,
                    wanted: BTreeSet::new(),
                }),
                cancel: link.cancel.child_token(),
            });
            (Arc::clone(entry.insert(attached)), true)
        }
    };
    {
        let mut settled = attached.settled.lock();
        settled.last = tokio::time::Instant::now();
        if returning && !known_here {
            settled.returning = true;
            settled.wanted.extend(cursor.ids);
        }
    }
    if !known_here {
        attached.delivery.lock().join(member, start);
        attached.replayed.send_replace(false);
        if returning {
            tracing::info!(
                link = link.id.0,
                after = start.after,
                head = start.head,
                "a member comes back"
            );
        }
    }
    attached.changed.notify_one();
    if new {
        let cancel = attached.cancel.clone();
        let work = deliver::run(Arc::clone(hub), Arc::clone(link), name.prefix, attached);
        hub.tasks.spawn(async move {
            tokio::select! {
                () = cancel.cancelled() => {}
                () = work => {}
            }
        });
    }
    Ok(())
}

async fn leave(hub: &Arc<Hub>, link: &Arc<Link>, name: FullName, member: FullName) -> Result<(), Refusal> {
    if !hub.routes.lock().ids(link.id, &name.prefix).is_empty() {
        // It still has another name of the channel.
        return Ok(());
    }
    let Some(attached) = link.attached(&name.prefix) else {
        return Ok(());
    };
    attached.channel.leave(member).await?;
    if attached.delivery.lock().leave(&member) {
        link.attached.lock().remove(&name.prefix);
        attached.cancel.cancel();
    }
    Ok(())
}
