//! One link: reads the client's frames, and gives it those that it is subscribed to.
//!
//! ```text
//!   gRPC stream ─ inbound ─┬─ transient ──────────────> other links, at once
//!                          ├─ own names: routes, ack
//!                          └─ work, in order ─┬─ channel names: join, ack
//!                                             └─ durable ──> the channel's log
//!   the channel's log ─ delivery, one a channel ─> queue ─> gRPC stream
//! ```

mod deliver;
mod inbound;
mod node;
mod work;

pub(crate) use inbound::{Caller, run};

use crate::delivery::Delivery;
use crate::link::LinkMac;
use crate::metrics::{self, Dropped};
use crate::policy::Rules;
use crate::queue::{Gone, Queue};
use crate::rate::Place;
use crate::routing::LinkId;
use crate::wire::proto::{Message, Unsubscribe, message::MessageType};
use crate::wire::{FullName, Prefix, Publish, barrier};
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

/// A link that was negotiated.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) id: LinkId,
    pub(crate) account: Arc<str>,
    /// A SLIM node is behind it, with applications of its own.
    pub(crate) is_node: bool,
    rules: Rules,
    mac: LinkMac,
    queue: Queue,
    place: Arc<Place>,
    attached: Mutex<HashMap<Prefix, Arc<Attached>>>,
    next_barrier: AtomicU64,
    /// Time until a frame that a client has read counts as received.
    confirm: Duration,
    pub(crate) cancel: CancellationToken,
}

/// A channel on a link.
#[derive(Debug)]
struct Attached {
    channel: Arc<crate::channel::Channel>,
    delivery: Mutex<Delivery>,
    /// Names, members or confirmations have changed.
    changed: Notify,
    replayed: watch::Sender<bool>,
    /// Positions that members have read: they count from a time on, if the link is still up then.
    confirming: Mutex<VecDeque<Confirming>>,
    /// Whether a returning member is ready for its replay.
    settled: Mutex<Settle>,
    cancel: CancellationToken,
}

#[derive(Debug)]
struct Confirming {
    at: tokio::time::Instant,
    members: Vec<FullName>,
    offset: u64,
}

#[derive(Debug)]
struct Settle {
    /// Time of the last subscription of a name.
    last: tokio::time::Instant,
    returning: bool,
    /// It has sent something to the channel.
    awake: bool,
    /// The ids that it had.
    wanted: std::collections::BTreeSet<u128>,
}

impl Link {
    /// A frame as this link carries it.
    fn sealed(&self, publish: &Publish) -> Bytes {
        let mac = self.mac.sign(&publish.header);
        publish.encode(Some(&mac))
    }

    /// Gives the link a transient frame, if it has room for it.
    pub(crate) fn pass(&self, publish: &Publish) {
        match self.queue.try_send(publish.len(), || self.sealed(publish)) {
            Ok(true) => metrics::routed(),
            Ok(false) => metrics::dropped(Dropped::SlowLink),
            Err(Gone) => metrics::dropped(Dropped::NoMatch),
        }
    }

    fn attached(&self, prefix: &Prefix) -> Option<Arc<Attached>> {
        self.attached.lock().get(prefix).cloned()
    }

    /// The client has sent something to a channel: its session there is alive.
    fn awake(&self, prefix: &Prefix) {
        if let Some(attached) = self.attached(prefix) {
            let was = std::mem::replace(&mut attached.settled.lock().awake, true);
            if !was {
                attached.changed.notify_one();
            }
        }
    }

    /// A barrier behind all that was given to the link.
    fn barrier(&self) -> Option<(u64, Bytes)> {
        let id = self.next_barrier.fetch_add(1, Ordering::Relaxed);
        let unsubscribe = Unsubscribe {
            header: Some(barrier(id)),
            subscription_id: id,
        };
        let message = Message {
            message_type: Some(MessageType::Unsubscribe(unsubscribe)),
            ..Message::default()
        };
        Some((id, self.mac.seal(message)?))
    }

    /// The answer to a subscription of the bridge's: a barrier's.
    fn answered(&self, id: u64) {
        let attached: Vec<_> = self.attached.lock().values().cloned().collect();
        for attached in attached {
            let answered = attached.delivery.lock().answered(id);
            if let Some((members, offset)) = answered {
                attached.confirming.lock().push_back(Confirming {
                    at: tokio::time::Instant::now() + self.confirm,
                    members,
                    offset,
                });
                attached.changed.notify_one();
                return;
            }
        }
    }
}
