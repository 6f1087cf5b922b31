//! A link with a SLIM node behind it: which names the bridge announces to it, and which channels it delivers.
//!
//! A node says which names its applications have, and not whose they are. So the bridge knows no member behind a node: it
//! keeps no cursor for them, and a node is given what a channel's log gets from the time on at which it subscribes.

use super::{Attached, Link, Settle, deliver};
use crate::channel::Channel;
use crate::delivery::{Delivery, Start};
use crate::hub::Hub;
use crate::metrics;
use crate::peers::Tell;
use crate::wire::proto::{Message, SlimHeader, Subscribe, Unsubscribe, message::MessageType};
use crate::wire::{FullName, Prefix};
use bytes::Bytes;
use parking_lot::Mutex;
use prost::Message as _;
use skytale_proto::Code;
use std::collections::BTreeSet;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use tokio::sync::{Notify, watch};

/// A node speaks for many applications: it has so many times the subscriptions and channels of another link.
pub(super) const APPLICATIONS: usize = 16;
/// Hops that an announcement has left: the node takes it, and tells no other node.
const ANNOUNCED_TTL: u32 = 2;
/// Stands for everyone behind a node. No component hashes to 0.
const BEHIND_NODE: FullName = FullName { prefix: [0; 3], id: 0 };

/// Tells a node of names as they come and go.
pub(super) async fn announce(hub: &Hub, link: &Link) {
    let limits = &hub.config.limits;
    let first_id = hub.bridge.wrapping_add(link.id.0 << 32) | 1;
    let mut changed = hub.names_changed.subscribe();
    let mut was_full = false;
    hub.peers.lock().node_up(
        link.id,
        link.rules.clone(),
        first_id,
        limits.subscriptions_max.saturating_mul(APPLICATIONS),
    );
    loop {
        loop {
            let next = hub.peers.lock().next(link.id);
            let Some(tell) = next else { break };
            tracing::debug!(link = link.id.0, name = ?tell.name.route(), add = tell.add, "announce to a node");
            if link.queue.send(message(&tell)).await.is_err() {
                return;
            }
            hub.peers.lock().sent(link.id);
            hub.names_told.send_replace(());
        }
        hub.names_told.send_replace(());
        let skipped = hub.peers.lock().skipped(link.id);
        if skipped > 0 && !std::mem::replace(&mut was_full, true) {
            tracing::warn!(
                link = link.id.0,
                skipped,
                "a node has as many names as it may, and is not told of others"
            );
        }
        if changed.changed().await.is_err() {
            return;
        }
    }
}

/// A peer link carries no header MAC.
fn message(tell: &Tell) -> Bytes {
    let name = tell.name.to_proto();
    let header = Some(SlimHeader {
        source: Some(name.clone()),
        destination: Some(name),
        fanout: 1,
        ttl: ANNOUNCED_TTL,
        ..SlimHeader::default()
    });
    let subscription_id = tell.id;
    let message_type = if tell.add {
        MessageType::Subscribe(Subscribe {
            header,
            subscription_id,
        })
    } else {
        MessageType::Unsubscribe(Unsubscribe {
            header,
            subscription_id,
        })
    };
    let message = Message {
        message_type: Some(message_type),
        ..Message::default()
    };
    message.encode_to_vec().into()
}

/// Gives a channel to each node that has subscribed to a name of it.
pub(super) fn attach_all(hub: &Arc<Hub>, prefix: Prefix, channel: &Arc<Channel>) {
    for link in hub.nodes() {
        if hub.routes.lock().has(link.id, &prefix) {
            attach(hub, &link, prefix, channel);
        }
    }
}

/// Gives a node a channel that is open on this bridge. One that is opened later finds the node by its subscription.
pub(super) fn attach_open(hub: &Arc<Hub>, link: &Arc<Link>, prefix: Prefix) {
    if let Some(channel) = hub.open_channel(&prefix) {
        attach(hub, link, prefix, &channel);
    }
}

fn attach(hub: &Arc<Hub>, link: &Arc<Link>, prefix: Prefix, channel: &Arc<Channel>) {
    let attached = {
        let mut all = link.attached.lock();
        let most = hub.config.limits.channels_max.saturating_mul(APPLICATIONS);
        if all.len() >= most && !all.contains_key(&prefix) {
            metrics::refused(Code::SubscriptionsFull);
            return;
        }
        let Entry::Vacant(entry) = all.entry(prefix) else {
            return;
        };
        let mut delivery = Delivery::default();
        let head = channel.head();
        delivery.join(BEHIND_NODE, Start { after: head, head });
        Arc::clone(entry.insert(Arc::new(Attached {
            channel: Arc::clone(channel),
            delivery: Mutex::new(delivery),
            changed: Notify::new(),
            replayed: watch::Sender::new(true),
            confirming: Mutex::default(),
            settled: Mutex::new(Settle {
                last: tokio::time::Instant::now(),
                returning: false,
                awake: true,
                wanted: BTreeSet::new(),
            }),
            cancel: link.cancel.child_token(),
        })))
    };
    deliver::spawn(hub, link, prefix, attached);
}

/// A node has no name of a channel any more.
pub(super) fn detach(link: &Link, prefix: &Prefix) {
    if let Some(attached) = link.attached.lock().remove(prefix) {
        attached.cancel.cancel();
    }
}
