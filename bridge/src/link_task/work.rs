//! Requests of a link's client to logs, in the order in which it made them.

use super::{Attached, Link, Settle, deliver, node};
use crate::delivery::{Delivery, Start};
use crate::error::Refusal;
use crate::hub::Hub;
use crate::metrics::{self, Dropped};
use crate::stored::encode_frame;
use crate::wire::{EncodedName, FullName, Prefix, Publish, subscription_ack};
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use parking_lot::Mutex;
use skytale_proto::Code;
use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap, VecDeque};
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
        publish: Box<Publish>,
        name: FullName,
        room: Room,
    },
}

/// Members of one channel on one link. An application has one.
const MEMBERS_MAX: usize = 64;

/// A frame's room among those that wait for the log.
#[derive(Debug)]
pub(super) struct Room {
    pub(super) _message: OwnedSemaphorePermit,
    pub(super) _bytes: OwnedSemaphorePermit,
    pub(super) _account: OwnedSemaphorePermit,
}

/// Frames of one channel that wait until the member's replay is done, in order.
type Held = HashMap<Prefix, VecDeque<(Box<Publish>, Room)>>;

pub(super) async fn run(hub: Arc<Hub>, link: Arc<Link>, mut jobs: mpsc::Receiver<Job>) {
    let mut replays: FuturesUnordered<BoxFuture<'static, Prefix>> = FuturesUnordered::new();
    let mut held = Held::new();
    loop {
        tokio::select! {
            biased;
            Some(prefix) = replays.next() => {
                for (publish, room) in held.remove(&prefix).into_iter().flatten() {
                    store(&hub, &link, publish, prefix, room).await;
                }
            }
            job = jobs.recv() => match job {
                Some(Job::Join { name, member, subscription }) => {
                    let outcome = within(&hub, join(&hub, &link, name, member)).await;
                    let route = EncodedName { prefix: name.prefix, id: Some(name.id) };
                    if let Err(refusal) = &outcome {
                        tracing::warn!(link = link.id.0, code = %refusal.code(), %refusal, "not subscribed");
                        metrics::refused(refusal.code());
                        // Without the log there is no subscription either: the client would miss frames unnoticed.
                        let left = hub.routes.lock().unsubscribe(link.id, route, subscription);
                        if let Ok(remains) = left {
                            metrics::subscriptions(-1);
                            if !remains {
                                hub.rename(|peers| peers.unsubscribed(link.id, route));
                            }
                        }
                    } else {
                        hub.rename(|peers| peers.joined(link.id, route, member));
                        hub.announced(route).await;
                    }
                    ack(&link, subscription, outcome.err()).await;
                }
                Some(Job::Leave { name, member, subscription }) => {
                    let outcome = within(&hub, leave(&hub, &link, name, member)).await;
                    ack(&link, subscription, outcome.err()).await;
                }
                Some(Job::Store { publish, name, room }) => {
                    let prefix = name.prefix;
                    if let Some(waiting) = held.get_mut(&prefix) {
                        waiting.push_back((publish, room));
                    } else if let Some(replay) = replay(&link, &publish, prefix) {
                        held.insert(prefix, VecDeque::from([(publish, room)]));
                        replays.push(replay);
                    } else {
                        store(&hub, &link, publish, prefix, room).await;
                    }
                }
                None => {
                    // Nobody is replayed to any more: frames that were read are stored all the same.
                    for (prefix, waiting) in held {
                        for (publish, room) in waiting {
                            store(&hub, &link, publish, prefix, room).await;
                        }
                    }
                    return;
                }
            },
        }
    }
}

async fn within<T>(hub: &Hub, work: impl Future<Output = Result<T, Refusal>>) -> Result<T, Refusal> {
    timeout(hub.config.times.attach(), work).await.unwrap_or_else(|_| {
        Err(Refusal::new(
            Code::LogUnreachable,
            "the channel's log was not reached in time",
        ))
    })
}

/// A member that announces that it is online while it still gets the messages that it missed: what to wait for. Others
/// would answer with changes to the group before the member has it.
fn replay(link: &Link, publish: &Publish, prefix: Prefix) -> Option<BoxFuture<'static, Prefix>> {
    let attached = link.attached(&prefix)?;
    if !publish.is_online_announcement() || *attached.replayed.borrow() {
        return None;
    }
    let mut replayed = attached.replayed.subscribe();
    Some(Box::pin(async move {
        let _ = replayed.wait_for(|replayed| *replayed).await;
        prefix
    }))
}

pub(super) async fn ack(link: &Link, subscription: u64, refused: Option<Refusal>) {
    if subscription != 0 {
        let message = subscription_ack(subscription, refused.map(|refusal| refusal.to_string()));
        let _ = link.queue.send(message).await;
    }
}

/// Queues a frame for the log. Its room is taken until the log has answered, also where the link ends before that.
async fn store(hub: &Arc<Hub>, link: &Arc<Link>, publish: Box<Publish>, prefix: Prefix, room: Room) {
    let began = Instant::now();
    let body = encode_frame(hub.origin(link.id), &publish);
    let bytes = body.len();
    let queued = async {
        let name = publish.header.destination.full();
        let (Some(name), Some(channel)) = (name, hub.existing_channel(prefix).await?) else {
            return Ok(None);
        };
        if hub.is_application(&name) {
            // Members may have joined at another bridge.
            channel.refresh().await?;
            if hub.is_application(&name) {
                return Ok(None);
            }
        }
        if !link.place.usage.store(bytes) {
            return Err(Refusal::new(
                Code::RateLimited,
                "the account has stored as much as it may for now",
            ));
        }
        node::attach_all(hub, prefix, &channel);
        channel.append(body).await.map(Some)
    };
    let pending = match queued.await {
        Ok(Some(pending)) => pending,
        Ok(None) => {
            // Nobody has subscribed to it as to a channel: it is an application's name.
            hub.route(&publish, link.id);
            return;
        }
        Err(refusal) => {
            if refusal.code() != Code::RateLimited {
                tracing::warn!(link = link.id.0, code = %refusal.code(), %refusal, "frame not stored");
            }
            metrics::refused(refusal.code());
            metrics::dropped(Dropped::Refused);
            return;
        }
    };
    let link = link.id;
    hub.tasks.spawn(async move {
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
    });
}

async fn join(hub: &Arc<Hub>, link: &Arc<Link>, name: FullName, member: FullName) -> Result<(), Refusal> {
    let channel = hub.channel(name.prefix).await?;
    node::attach_all(hub, name.prefix, &channel);
    let ids = hub.routes.lock().ids(link.id, &name.prefix);
    let known_here = link
        .attached(&name.prefix)
        .is_some_and(|attached| attached.delivery.lock().has(&member));
    let members = link
        .attached(&name.prefix)
        .map_or(0, |attached| attached.delivery.lock().count());
    if !known_here && members >= MEMBERS_MAX {
        return Err(Refusal::new(
            Code::SubscriptionsFull,
            "the link has as many members of the channel as it may",
        ));
    }
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
                confirming: Mutex::default(),
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
        let replayed = {
            let mut delivery = attached.delivery.lock();
            delivery.join(member, start);
            delivery.is_replayed()
        };
        // Of a new one the delivery says it, when the member is ready.
        attached.replayed.send_replace(replayed && !new);
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
        deliver::spawn(hub, link, name.prefix, attached);
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
    hub.rename(|peers| peers.left(name.prefix, member));
    if attached.delivery.lock().leave(&member) {
        link.attached.lock().remove(&name.prefix);
        attached.cancel.cancel();
    }
    Ok(())
}
