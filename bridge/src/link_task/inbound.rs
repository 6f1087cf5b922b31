//! Reads what the client sends.

use super::work::{self, Job, Room};
use super::{Link, node};
use crate::auth::Admitted;
use crate::error::Refusal;
use crate::hub::Hub;
use crate::link::{self, Identity};
use crate::metrics::{self, Dropped};
use crate::policy::Rules;
use crate::queue::Queue;
use crate::rate::Place;
use crate::routing::RouteError;
use crate::wire::{Body, Durability, FullName, Header, Inbound, Prefix, Publish};
use bytes::Bytes;
use parking_lot::Mutex;
use skytale_proto::Code;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;
use tokio_stream::StreamExt as _;
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

/// The version of SLIM whose wire format the bridge speaks.
const SLIM_VERSION: &str = "3.4.6";
/// Things to do for one link that wait. Frames among them have a bound of their own.
const JOBS_MAX: usize = 64;

/// Maximum time for a link that has ended to store the frames that it has read.
const STORE: Duration = Duration::from_secs(10);

/// Minimum bytes that a frame that waits for the log counts for: it costs more than its own.
const ROOM_BYTES_MIN: usize = 2 * 1024;

/// Caller on the other end.
#[derive(Debug)]
pub(crate) struct Caller {
    pub(crate) admitted: Admitted,
    pub(crate) place: Arc<Place>,
}

/// Runs a link until it ends.
pub(crate) async fn run(
    hub: Arc<Hub>,
    caller: Caller,
    mut stream: Streaming<Bytes>,
    queue: Queue,
    cancel: CancellationToken,
) {
    let ended = serve(&hub, caller, &mut stream, &queue, &cancel).await;
    metrics::link_ended(ended.as_ref().err().map(Refusal::code));
    match ended {
        Ok(()) => tracing::debug!("link closed"),
        Err(refusal) => {
            tracing::info!(code = %refusal.code(), %refusal, "link ended");
            metrics::refused(refusal.code());
            queue.end(refusal.status());
        }
    }
    cancel.cancel();
}

async fn serve(
    hub: &Arc<Hub>,
    caller: Caller,
    stream: &mut Streaming<Bytes>,
    queue: &Queue,
    cancel: &CancellationToken,
) -> Result<(), Refusal> {
    let negotiated = timeout(
        hub.config.times.negotiation(),
        negotiate(hub, &caller.admitted.rules, stream, queue),
    );
    let (mac, is_node) = match negotiated.await {
        Ok(Ok(Some(negotiated))) => negotiated,
        Ok(Ok(None)) => return Ok(()),
        Ok(Err(refusal)) => return Err(refusal),
        Err(_) => return Err(Refusal::new(Code::LinkNegotiation, "no link negotiation in time")),
    };
    let Admitted {
        account, rules, key, ..
    } = caller.admitted;
    let revoked = async {
        match key {
            Some(key) => key.ended().await,
            None => std::future::pending().await,
        }
    };
    let link = Arc::new(Link {
        id: hub.next_link(),
        account: account.into(),
        is_node,
        rules,
        mac,
        queue: queue.clone(),
        place: caller.place,
        attached: Mutex::default(),
        next_barrier: AtomicU64::new(1),
        confirm: hub.config.times.confirm(),
        cancel: cancel.clone(),
    });
    tracing::info!(link = link.id.0, account = %link.account, is_node, "link up");
    metrics::links(1.0);
    hub.enter(Arc::clone(&link));
    let (jobs, queued) = mpsc::channel(JOBS_MAX);
    let mut working = std::pin::pin!(work::run(Arc::clone(hub), Arc::clone(&link), queued));
    let announcing = async {
        if is_node {
            node::announce(hub, &link).await;
        } else {
            std::future::pending().await
        }
    };
    let limits = &hub.config.limits;
    let mut reader = Reader {
        hub: Arc::clone(hub),
        link: Arc::clone(&link),
        jobs,
        messages: Arc::new(Semaphore::new(limits.in_flight_messages_max)),
        bytes: Arc::new(Semaphore::new(limits.in_flight_bytes_max)),
        channels: HashSet::new(),
    };
    let mut has_worked = false;
    let ended = tokio::select! {
        () = cancel.cancelled() => Ok(()),
        () = hub.stop.cancelled() => Err(Refusal::new(Code::BridgeStopping, "the bridge is about to stop")),
        why = revoked => Err(why.into()),
        ended = reader.read(stream) => ended,
        () = &mut working => {
            has_worked = true;
            Ok(())
        }
        () = announcing => Ok(()),
    };
    // Frames that were read are stored, also if the client is gone.
    drop(reader);
    if !has_worked && timeout(STORE, working).await.is_err() {
        tracing::warn!(
            link = link.id.0,
            "frames of a link that has ended were not stored in time"
        );
        metrics::dropped(Dropped::Refused);
    }
    hub.leave(&link);
    metrics::links(-1.0);
    ended
}

/// The link's MAC, and whether a node is behind it; `None` where the client is gone.
async fn negotiate(
    hub: &Hub,
    rules: &Rules,
    stream: &mut Streaming<Bytes>,
    queue: &Queue,
) -> Result<Option<(link::LinkMac, bool)>, Refusal> {
    let Some(first) = next(stream).await? else {
        return Ok(None);
    };
    let wrong = |error: &dyn std::fmt::Display| Refusal::new(Code::LinkNegotiation, error);
    let Ok(Inbound::Link(body)) = Inbound::decode(&first) else {
        return Err(wrong(&link::NegotiationError::Expected));
    };
    let identity = Identity {
        slim_version: SLIM_VERSION.into(),
        node_id: hub.config.node_id.clone(),
    };
    let accepted = link::accept(body, &identity).map_err(|error| wrong(&error))?;
    if accepted.is_node && !rules.node {
        return Err(Refusal::new(Code::NameRefused, "this account may not link a SLIM node"));
    }
    metrics::link_started(accepted.hybrid);
    tracing::debug!(version = %accepted.version, node = %accepted.node_id, hybrid = accepted.hybrid, "link negotiated");
    if queue.send(accepted.reply).await.is_err() {
        return Ok(None);
    }
    Ok(Some((accepted.mac, accepted.is_node)))
}

/// The next message; `None` where the client is gone.
async fn next(stream: &mut Streaming<Bytes>) -> Result<Option<Bytes>, Refusal> {
    match stream.next().await {
        Some(Ok(message)) => Ok(Some(message)),
        Some(Err(status)) => refused(&status),
        None => Ok(None),
    }
}

fn refused(status: &Status) -> Result<Option<Bytes>, Refusal> {
    match status.code() {
        tonic::Code::OutOfRange | tonic::Code::ResourceExhausted => {
            Err(Refusal::new(Code::MessageTooLarge, "a message over the bridge's limit"))
        }
        tonic::Code::InvalidArgument | tonic::Code::Internal => Err(Refusal::new(Code::LinkMessage, status.message())),
        _ => Ok(None),
    }
}

struct Reader {
    hub: Arc<Hub>,
    link: Arc<Link>,
    jobs: mpsc::Sender<Job>,
    messages: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    channels: HashSet<Prefix>,
}

impl Reader {
    async fn read(&mut self, stream: &mut Streaming<Bytes>) -> Result<(), Refusal> {
        while let Some(message) = next(stream).await? {
            while let Some(wait) = self.link.place.usage.message() {
                // The client waits, and no one else.
                tokio::time::sleep(wait).await;
            }
            let message = Inbound::decode(&message).map_err(|error| Refusal::new(Code::LinkMessage, error))?;
            match message {
                Inbound::Publish(publish) => self.publish(publish).await?,
                Inbound::Subscribe(body) => self.subscribe(body).await?,
                Inbound::Unsubscribe(body) => self.unsubscribe(body).await?,
                Inbound::Ack { id } => self.link.answered(id),
                // A second negotiation changes nothing.
                Inbound::Link(_) => {}
            }
        }
        Ok(())
    }

    fn check(&self, header: &Header) -> Result<(), Refusal> {
        // Nodes sign nothing on peer links.
        if self.link.is_node || self.link.mac.verify(header) {
            Ok(())
        } else {
            Err(Refusal::new(Code::LinkMac, "a header MAC that is missing or wrong"))
        }
    }

    async fn publish(&mut self, mut publish: Publish) -> Result<(), Refusal> {
        tracing::trace!(
            link = self.link.id.0,
            source = ?publish.header.source.full(),
            destination = ?publish.header.destination.route(),
            kind = publish.message_type,
            fanout = publish.header.fanout,
            session = publish.session_type,
            "publish"
        );
        self.check(&publish.header)?;
        let ttl = publish.header.ttl.saturating_sub(1);
        if ttl == 0 {
            metrics::dropped(Dropped::Ttl);
            return Ok(());
        }
        if !self.link.rules.owns(&publish.header.source) {
            if self.link.is_node {
                // One application behind a node does not end the link of the others.
                metrics::refused(Code::NameRefused);
                metrics::dropped(Dropped::Refused);
                return Ok(());
            }
            return Err(Refusal::new(
                Code::NameRefused,
                "a source name that this account may not use",
            ));
        }
        if !self.link.rules.may_send_to(&publish.header.destination) {
            metrics::refused(Code::NameRefused);
            metrics::dropped(Dropped::Refused);
            return Ok(());
        }
        publish.header = publish.header.for_next_hop(ttl);
        let name = publish.header.destination.full();
        if let Some(name) = name {
            self.link.awake(&name.prefix);
        }
        match (publish.durability(), name) {
            (Durability::Durable, Some(name)) => {
                // Whether an application's name is a channel's too is known when its log is open.
                if !self.hub.is_application(&name) && !self.may_use(name.prefix) {
                    metrics::refused(Code::SubscriptionsFull);
                    metrics::dropped(Dropped::Refused);
                    return Ok(());
                }
                let room = self.room(publish.len()).await?;
                let publish = Box::new(publish);
                self.job(Job::Store { publish, name, room }).await
            }
            _ => {
                self.hub.route(&publish, self.link.id);
                Ok(())
            }
        }
    }

    /// Room among the frames that wait for the log: a client that is faster than the log is read no faster.
    async fn room(&self, bytes: usize) -> Result<Room, Refusal> {
        let ended = |_| Refusal::new(Code::BridgeStopping, "the link has ended");
        let bytes = bytes
            .max(ROOM_BYTES_MIN)
            .min(self.hub.config.limits.in_flight_bytes_max);
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        Ok(Room {
            _message: Arc::clone(&self.messages).acquire_owned().await.map_err(ended)?,
            _bytes: Arc::clone(&self.bytes).acquire_many_owned(bytes).await.map_err(ended)?,
            _account: Arc::clone(&self.link.place.usage.waiting)
                .acquire_many_owned(bytes)
                .await
                .map_err(ended)?,
        })
    }

    async fn job(&self, job: Job) -> Result<(), Refusal> {
        self.jobs
            .send(job)
            .await
            .map_err(|_| Refusal::new(Code::BridgeStopping, "the link has ended"))
    }

    /// Whether the link may use another channel.
    fn may_use(&mut self, prefix: Prefix) -> bool {
        let most = self.most(self.hub.config.limits.channels_max);
        self.channels.contains(&prefix) || (self.channels.len() < most && self.channels.insert(prefix))
    }

    /// A limit of one link, for this link.
    fn most(&self, limit: usize) -> usize {
        if self.link.is_node {
            limit.saturating_mul(node::APPLICATIONS)
        } else {
            limit
        }
    }

    async fn subscribe(&mut self, body: Body) -> Result<(), Refusal> {
        tracing::debug!(
            link = self.link.id.0,
            source = ?body.header.source.full(),
            destination = ?body.header.destination.route(),
            id = body.subscription_id,
            "subscribe"
        );
        self.check(&body.header)?;
        let refusal = match self.take(&body) {
            Ok(Some(job)) => return self.job(job).await,
            Ok(None) => {
                if let Some(name) = body.header.destination.route() {
                    self.hub.announced(name).await;
                }
                None
            }
            Err(refusal) => {
                metrics::refused(refusal.code());
                Some(refusal)
            }
        };
        work::ack(&self.link, body.subscription_id, refusal).await;
        Ok(())
    }

    /// Takes a subscription; what is left to do for it.
    fn take(&mut self, body: &Body) -> Result<Option<Job>, Refusal> {
        let header = &body.header;
        let full = Err(Refusal::new(Code::SubscriptionsFull, RouteError::TooMany));
        if header.ttl <= 1 {
            return Err(Refusal::new(Code::LinkMessage, "a subscription whose ttl has ended"));
        }
        let Some(name) = header.destination.route() else {
            return Err(Refusal::new(Code::LinkMessage, "a subscription to no name"));
        };
        if !self.link.rules.owns(&header.destination) {
            return Err(Refusal::new(Code::NameRefused, "a name that this account may not use"));
        }
        let job = self.membership(header)?.map(|(name, member)| Job::Join {
            name,
            member,
            subscription: body.subscription_id,
        });
        if job.is_some() && !self.may_use(name.prefix) {
            return full;
        }
        let most = self.most(self.hub.config.limits.subscriptions_max);
        let taken = {
            let mut routes = self.hub.routes.lock();
            let before = routes.count(self.link.id);
            let taken = routes.subscribe(self.link.id, name, body.subscription_id, most);
            taken.map(|()| routes.count(self.link.id) > before)
        };
        match taken {
            Ok(new) => {
                metrics::subscriptions(i64::from(new));
                self.hub
                    .rename(|peers| peers.subscribed(self.link.id, &header.destination));
                match name.id {
                    Some(_) if self.link.is_node => node::attach_open(&self.hub, &self.link, name.prefix),
                    Some(id) if job.is_none() => self.hub.add_application(FullName {
                        prefix: name.prefix,
                        id,
                    }),
                    _ => {}
                }
                Ok(job)
            }
            Err(_) => full,
        }
    }

    /// The channel and the member that a subscription is about, if it is about one; refused where the member is another's.
    fn membership(&self, header: &Header) -> Result<Option<(FullName, FullName)>, Refusal> {
        if self.link.is_node {
            // It does not say whose a name is.
            return Ok(None);
        }
        let membership = channel_of(header);
        if membership.is_some() && !self.link.rules.owns(&header.source) {
            return Err(Refusal::new(
                Code::NameRefused,
                "a member's name that this account may not use",
            ));
        }
        Ok(membership)
    }

    async fn unsubscribe(&mut self, body: Body) -> Result<(), Refusal> {
        self.check(&body.header)?;
        let membership = match self.membership(&body.header) {
            Ok(membership) => membership,
            Err(refusal) => {
                metrics::refused(refusal.code());
                work::ack(&self.link, body.subscription_id, Some(refusal)).await;
                return Ok(());
            }
        };
        let Some(name) = body.header.destination.route() else {
            let refusal = Refusal::new(Code::LinkMessage, "a subscription to no name");
            work::ack(&self.link, body.subscription_id, Some(refusal)).await;
            return Ok(());
        };
        let left = self
            .hub
            .routes
            .lock()
            .unsubscribe(self.link.id, name, body.subscription_id);
        let refusal = match left {
            Ok(remains) => {
                metrics::subscriptions(-1);
                if !remains {
                    self.hub.rename(|peers| peers.unsubscribed(self.link.id, name));
                }
                if self.hub.routes.lock().ids(self.link.id, &name.prefix).is_empty() {
                    self.channels.remove(&name.prefix);
                    if self.link.is_node {
                        node::detach(&self.link, &name.prefix);
                    }
                }
                if let Some((name, member)) = membership
                    && !remains
                {
                    let subscription = body.subscription_id;
                    return self
                        .job(Job::Leave {
                            name,
                            member,
                            subscription,
                        })
                        .await;
                }
                None
            }
            Err(error) => Some(Refusal::new(Code::LinkMessage, error)),
        };
        work::ack(&self.link, body.subscription_id, refusal).await;
        Ok(())
    }
}

/// The channel's name and the member, where a subscription is to a name of a channel: one with an id, under another prefix
/// than the application's own.
fn channel_of(header: &Header) -> Option<(FullName, FullName)> {
    let (name, member) = (header.destination.full()?, header.source.full()?);
    (name.prefix != member.prefix).then_some((name, member))
}
