//! State shared by all links: routes, channels, the relay client.

use crate::channel::Channel;
use crate::config::BridgeConfig;
use crate::error::Refusal;
use crate::link_task::Link;
use crate::metrics::{self, Dropped};
use crate::peers::Peers;
use crate::rate::Accounts;
use crate::routing::{LinkId, Routes};
use crate::stored::{Log, Origin, decode_frame, encode_frame};
use crate::wire::{EncodedName, FullName, Prefix, Publish};
use lru::LruCache;
use parking_lot::Mutex;
use skytale_proto::Offset;
use skytale_sdk::internals::raw::{RawClient, RawItem, RawWriter};
use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{OnceCell, Semaphore, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Interval at which unused channels are closed.
const SWEEP: Duration = Duration::from_secs(30);
/// Transient frames on their way to other bridges.
const EXCHANGE_MAX: usize = 1_024;
/// Maximum time that a subscription's acknowledgement waits for nodes to learn of the name. One that is not by then is
/// slow, and nobody waits for it until it has caught up.
const ANNOUNCE: Duration = Duration::from_millis(500);

/// Applications whose names are remembered, with those that are gone.
const APPLICATIONS_MAX: NonZeroUsize = NonZeroUsize::new(65_536).expect("not 0");

type Opened = Arc<OnceCell<Arc<Channel>>>;

#[derive(Debug)]
pub(crate) struct Hub {
    pub(crate) config: Arc<BridgeConfig>,
    pub(crate) client: RawClient,
    pub(crate) domain: OnceCell<String>,
    /// This process, among all bridges.
    pub(crate) bridge: u64,
    pub(crate) accounts: Arc<Accounts>,
    pub(crate) routes: Mutex<Routes>,
    /// Names that applications have as their own: no channels.
    applications: Mutex<LruCache<FullName, ()>>,
    pub(crate) peers: Mutex<Peers>,
    /// There is something to tell nodes.
    pub(crate) names_changed: watch::Sender<()>,
    /// A name was announced to a node, or withdrawn.
    pub(crate) names_told: watch::Sender<()>,
    links: Mutex<HashMap<LinkId, Arc<Link>>>,
    channels: Mutex<HashMap<Prefix, Opened>>,
    exchange: OnceCell<RawWriter>,
    exchange_room: Arc<Semaphore>,
    next_link: AtomicU64,
    pub(crate) tasks: TaskTracker,
    pub(crate) stop: CancellationToken,
}

impl Hub {
    pub(crate) fn new(config: BridgeConfig, client: RawClient) -> Result<Arc<Self>, getrandom::Error> {
        Ok(Arc::new(Self {
            config: Arc::new(config),
            client,
            domain: OnceCell::new(),
            bridge: getrandom::u64()?,
            accounts: Arc::default(),
            routes: Mutex::default(),
            applications: Mutex::new(LruCache::new(APPLICATIONS_MAX)),
            peers: Mutex::default(),
            names_changed: watch::Sender::new(()),
            names_told: watch::Sender::new(()),
            links: Mutex::default(),
            channels: Mutex::default(),
            exchange: OnceCell::new(),
            exchange_room: Arc::new(Semaphore::new(EXCHANGE_MAX)),
            next_link: AtomicU64::new(1),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        }))
    }

    pub(crate) fn next_link(&self) -> LinkId {
        LinkId(self.next_link.fetch_add(1, Ordering::Relaxed))
    }

    pub(crate) fn links(&self) -> usize {
        self.links.lock().len()
    }

    pub(crate) fn enter(&self, link: Arc<Link>) {
        self.links.lock().insert(link.id, link);
    }

    /// A link is gone, with its subscriptions.
    pub(crate) fn leave(&self, link: &Link) {
        let count = {
            let mut routes = self.routes.lock();
            let count = routes.count(link.id);
            routes.drop_link(link.id);
            count
        };
        metrics::subscriptions(-i64::try_from(count).unwrap_or(0));
        self.links.lock().remove(&link.id);
        self.rename(|peers| peers.link_down(link.id, &link.account));
    }

    /// An application has subscribed to its own name.
    pub(crate) fn add_application(&self, name: FullName) {
        self.applications.lock().put(name, ());
    }

    /// Whether a name is an application's, so that a frame to it is no channel's.
    pub(crate) fn is_application(&self, name: &FullName) -> bool {
        // An account could claim a channel's name as an application's: members of it know better.
        self.applications.lock().get(name).is_some()
            && !self
                .open_channel(&name.prefix)
                .is_some_and(|channel| channel.has_name(name.id))
    }

    /// Changes what can be announced to nodes.
    pub(crate) fn rename(&self, change: impl FnOnce(&mut Peers)) {
        change(&mut self.peers.lock());
        self.names_changed.send_replace(());
    }

    /// Waits until nodes learned of a name, as long as they read.
    pub(crate) async fn announced(&self, name: EncodedName) {
        let mut told = self.names_told.subscribe();
        let all = async {
            while !self.peers.lock().is_told(&name) {
                let _ = told.changed().await;
            }
        };
        if timeout(ANNOUNCE, all).await.is_err() {
            self.peers.lock().give_up(&name);
        }
    }

    /// The links that have a node behind them.
    pub(crate) fn nodes(&self) -> Vec<Arc<Link>> {
        let nodes: Vec<LinkId> = self.peers.lock().nodes().collect();
        let links = self.links.lock();
        nodes.iter().filter_map(|link| links.get(link).cloned()).collect()
    }

    /// A channel that is open.
    pub(crate) fn open_channel(&self, prefix: &Prefix) -> Option<Arc<Channel>> {
        self.channels.lock().get(prefix)?.get().cloned()
    }

    /// The bridges of one domain find the same logs.
    async fn domain(&self) -> Result<&str, Refusal> {
        let found = self.domain.get_or_try_init(|| async {
            match &self.config.domain {
                Some(domain) => Ok(domain.clone()),
                None => self.client.account().await.map(|account| account.to_string()),
            }
        });
        Ok(found.await?)
    }

    /// A channel's log. Waits for the relay.
    pub(crate) async fn channel(&self, prefix: Prefix) -> Result<Arc<Channel>, Refusal> {
        let cell = Arc::clone(self.channels.lock().entry(prefix).or_default());
        let domain = self.domain().await?;
        let opened = cell.get_or_try_init(|| Channel::open(&self.client, &self.config, domain, prefix, &self.tasks));
        Ok(Arc::clone(opened.await?))
    }

    /// The same, where it has a log: it has one when a member has subscribed to it, here or at another bridge.
    pub(crate) async fn existing_channel(&self, prefix: Prefix) -> Result<Option<Arc<Channel>>, Refusal> {
        if let Some(channel) = self.open_channel(&prefix) {
            return Ok(Some(channel));
        }
        let log = Log::Frames(prefix).channel(self.domain().await?, self.config.region);
        match self.client.status(log).await? {
            Some(_) => Ok(Some(self.channel(prefix).await?)),
            None => Ok(None),
        }
    }

    /// Gives a transient frame to those who are here, and to other bridges.
    pub(crate) fn route(&self, publish: &Publish, from: LinkId) {
        let given = self.route_here(publish, Some(from));
        let elsewhere = self.config.exchange && (given == 0 || publish.header.fanout > 1);
        if elsewhere {
            self.exchange(publish, from);
        } else if given == 0 {
            metrics::dropped(Dropped::NoMatch);
        }
    }

    /// Gives a transient frame to links of this bridge; to how many.
    fn route_here(&self, publish: &Publish, from: Option<LinkId>) -> usize {
        let Some(name) = publish.header.destination.route() else {
            return 0;
        };
        let to = {
            let mut routes = self.routes.lock();
            if publish.header.fanout > 1 {
                routes.all(name, from)
            } else {
                routes.one(name, from).into_iter().collect()
            }
        };
        let links: Vec<Arc<Link>> = {
            let links = self.links.lock();
            to.iter().filter_map(|link| links.get(link).cloned()).collect()
        };
        for link in &links {
            link.pass(publish);
        }
        links.len()
    }

    /// Puts a transient frame on its way to the other bridges. One that finds no room is dropped: it matters now or never.
    fn exchange(&self, publish: &Publish, from: LinkId) {
        let room = Arc::clone(&self.exchange_room).try_acquire_owned();
        let (Some(writer), Ok(room)) = (self.exchange.get().cloned(), room) else {
            metrics::dropped(Dropped::Exchange);
            return;
        };
        let body = encode_frame(self.origin(from), publish);
        self.tasks.spawn(async move {
            let _room = room;
            let sent = async { writer.append(body).await?.outcome().await };
            if sent.await.is_err() {
                metrics::dropped(Dropped::Exchange);
            }
        });
    }

    pub(crate) fn is_exchanging(&self) -> bool {
        self.exchange.initialized()
    }

    pub(crate) const fn origin(&self, link: LinkId) -> Origin {
        Origin {
            bridge: self.bridge,
            link,
        }
    }

    /// Brings transient frames of other bridges to the links here, from now on.
    pub(crate) async fn follow_exchange(self: Arc<Self>) -> Result<(), Refusal> {
        let log = Log::Exchange.channel(self.domain().await?, self.config.region);
        self.client.create(log).await?;
        let head = self
            .client
            .status(log)
            .await?
            .map_or(Offset::ZERO, |status| status.head);
        let _ = self.exchange.set(self.client.writer(log));
        let mut reader = self.client.reader(log, head);
        loop {
            let item = tokio::select! {
                () = self.stop.cancelled() => return Ok(()),
                item = reader.next() => item?,
            };
            let Some(RawItem::Entries(entries)) = item else {
                continue;
            };
            for stored in entries
                .into_iter()
                .filter_map(|entry| entry.body)
                .filter_map(decode_frame)
            {
                if stored.origin.bridge != self.bridge {
                    self.route_here(&stored.publish, None);
                }
            }
        }
    }

    /// Closes channels that nobody uses.
    pub(crate) async fn sweep(self: Arc<Self>) {
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = tokio::time::sleep(SWEEP) => {}
            }
            let idle: Vec<Arc<Channel>> = {
                let channels = self.channels.lock();
                metrics::channels(channels.len());
                channels
                    .values()
                    .filter_map(|cell| cell.get())
                    .filter(|channel| Arc::strong_count(channel) == 1)
                    .cloned()
                    .collect()
            };
            for channel in &idle {
                let _ = channel.flush().await;
            }
            drop(idle);
            self.channels.lock().retain(|_, cell| {
                let in_use = |channel: &Arc<Channel>| Arc::strong_count(channel) > 1 || !channel.is_settled();
                Arc::strong_count(cell) > 1 || cell.get().is_some_and(in_use)
            });
        }
    }

    /// Writes what members have received, before the end.
    pub(crate) async fn flush(&self) {
        let open: Vec<Arc<Channel>> = self
            .channels
            .lock()
            .values()
            .filter_map(|cell| cell.get().cloned())
            .collect();
        for channel in open {
            if let Err(error) = channel.flush().await {
                tracing::warn!(code = %error.code(), %error, "cursors not written at the end");
            }
        }
    }
}
