//! The node: accepts connections, runs what belongs to it, drains, stops.

use crate::accounts::Accounts;
use crate::admin;
use crate::clock::{self, Clock};
use crate::config::{ADDRESS_CONNECTIONS_MAX, ConfigError, RelayConfig};
use crate::directory::{Place, Presence};
use crate::drain::told_over;
use crate::endpoint::{self, BindError, Receiving, SendWindows};
use crate::https::{self, Https, HttpsError};
use crate::incoming::Room;
use crate::limited::Limited;
use crate::load::Load;
use crate::rate::Rates;
use crate::readers::Readers;
use crate::rollback::AcceptedRollback;
use crate::secret_key::{self, SecretKeyError};
use crate::session::{self, Ending, Sessions};
use crate::tap::Tap;
use crate::trust::{self, Api, ApiUrlError, EnrolmentKeyError, Keeper, KeptFor, Trust, TrustSource};
use crate::turns::Turns;
use crate::usage::{Quotas, Usage};
use iroh::endpoint::{Incoming, IncomingAddr};
use iroh::{Endpoint, SecretKey};
use skytale_http::RenderMetrics;
use skytale_http::addresses::{Addresses, Begun, Entry};
use skytale_log_store::LogStore;
use skytale_proto::rest::Relay;
use skytale_proto::{Code, EndpointId, EnrolmentId};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, interval, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

/// Connections that learn why they are turned away, at once; more are refused without a word.
const TURNED_AWAY_MAX: usize = 64;
/// Maximum time for ended sessions to say so.
const END_WITHIN: Duration = Duration::from_secs(3);
/// Maximum time for the endpoint to tell its peers that it is gone.
const CLOSE_WITHIN: Duration = Duration::from_secs(3);
/// Time that sessions without a stream may stay after all agents learned of a drain.
const EMPTY_AFTER: Duration = Duration::from_secs(1);
/// Interval at which a drain looks for sessions without a stream.
const EMPTY_EVERY: Duration = Duration::from_millis(250);
/// Interval at which state that is no longer needed is dropped.
const TIDY_EVERY: Duration = Duration::from_secs(30);

/// A relay node that runs. Stop it with [`RelayNode::shutdown`]; dropped, it stops without saying so to its agents.
#[derive(Debug)]
pub struct RelayNode {
    shared: Arc<Shared>,
    endpoint: Endpoint,
    _receiving: Receiving,
    admin: Option<SocketAddr>,
    stop: CancellationToken,
    background: TaskTracker,
    connections: TaskTracker,
    /// Enrolment of the node.
    place: Option<Place>,
}

/// State shared by all parts of a node.
pub(crate) struct Shared {
    /// The node's own endpoint.
    pub(crate) endpoint: EndpointId,
    pub(crate) config: RelayConfig,
    pub(crate) store: Arc<dyn LogStore>,
    pub(crate) trust: Trust,
    pub(crate) clock: Arc<Clock>,
    pub(crate) sessions: Arc<Sessions>,
    pub(crate) rates: Rates,
    pub(crate) readers: Arc<Readers>,
    pub(crate) load: Load,
    pub(crate) limited: Limited,
    pub(crate) presence: Presence,
    /// Time until which the node drains, once it does.
    pub(crate) drain: watch::Sender<Option<Instant>>,
    /// State shared by the sessions of an account.
    pub(crate) accounts: Accounts,
    /// Quotas of an account.
    pub(crate) quotas: Quotas,
    /// Turns of accounts to append.
    pub(crate) turns: Turns,
    /// Places for connections.
    pub(crate) places: Arc<Semaphore>,
    /// Connections that have not said Hello.
    pub(crate) addresses: Addresses,
    pub(crate) send_windows: SendWindows,
    /// Room for requests.
    pub(crate) incoming: Room,
    /// Subscriptions that entries are being sent to.
    pub(crate) sending: AtomicUsize,
    /// The operator's word on logs that went back.
    pub(crate) rollback: Option<AcceptedRollback>,
    /// The way in without UDP, where it is served.
    pub(crate) https: OnceLock<Https>,
    /// The recorder of workloads, where there is one.
    pub(crate) tap: Option<Tap>,
}

/// A node that cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The secret key file cannot be used.
    #[error(transparent)]
    SecretKey(#[from] SecretKeyError),
    /// The QUIC endpoint cannot be bound.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The API's URL cannot be used.
    #[error(transparent)]
    ApiUrl(#[from] ApiUrlError),
    /// The relay secret looks like an enrolment's key and is none.
    #[error(transparent)]
    EnrolmentKey(#[from] EnrolmentKeyError),
    /// The operator's word on logs that went back cannot be read.
    #[error("cannot read the accepted rollback in {dir}: {source}", dir = .dir.display())]
    Rollback {
        /// The data folder.
        dir: PathBuf,
        /// The reason.
        source: std::io::Error,
    },
    /// HTTPS cannot be served.
    #[error(transparent)]
    Https(#[from] HttpsError),
    /// The admin port cannot be bound.
    #[error("cannot serve admin HTTP on {listen}: {source}")]
    Admin {
        /// The address.
        listen: SocketAddr,
        /// Error of the system.
        source: std::io::Error,
    },
}

impl StartError {
    /// The code that goes with this.
    pub const fn code(&self) -> Code {
        match self {
            Self::Config(_) | Self::ApiUrl(_) | Self::EnrolmentKey(_) => Code::Config,
            Self::SecretKey(_) | Self::Bind(_) | Self::Rollback { .. } | Self::Admin { .. } | Self::Https(_) => {
                Code::Environment
            }
        }
    }
}

impl RelayNode {
    /// Starts a node over a store, which stays the caller's to close after [`RelayNode::shutdown`]. `metrics` renders
    /// what the recorder of this process holds; without it `/metrics` is not served.
    pub async fn start(
        config: RelayConfig,
        store: Arc<dyn LogStore>,
        trust: TrustSource,
        metrics: Option<RenderMetrics>,
    ) -> Result<Self, StartError> {
        let enrolment = enrolment(&trust)?;
        if let Some(problem) = config.problems_with(&trust).into_iter().next() {
            return Err(problem.into());
        }
        let key = match &config.secret_key_file {
            Some(path) => secret_key::read_or_make(path)?,
            None => SecretKey::generate(),
        };
        let rollback = match &config.data_dir {
            Some(dir) => AcceptedRollback::read(dir).map_err(|source| StartError::Rollback {
                dir: dir.clone(),
                source,
            })?,
            None => None,
        };
        let https = https::Bound::bind(&config.https).await?;
        let own_url = https.as_ref().map(https::Bound::own_url);
        let (endpoint, receiving) = endpoint::bind(&config, key.clone(), own_url).await?;
        let clock = Arc::new(Clock::default());
        let api = match &trust {
            TrustSource::Static(_) => None,
            TrustSource::Http { api_url, relay_secret } => {
                let tls = endpoint.tls_config().clone();
                Some(Api::new(
                    api_url,
                    relay_secret.clone(),
                    tls,
                    &config.trust,
                    clock.clone(),
                )?)
            }
        };
        let own = EndpointId::from_bytes(*key.public().as_bytes());
        let keeper = keeper(&trust, &config, &own);
        let shared = Arc::new(Shared {
            endpoint: own,
            trust: Trust::new(
                config.trust.clone(),
                &config.issuer,
                &config.audience,
                &trust,
                keeper,
                clock.clone(),
            ),
            clock,
            sessions: Arc::default(),
            rates: Rates::new(&config.limits),
            readers: Arc::default(),
            load: Load::default(),
            limited: Limited::default(),
            presence: Presence::default(),
            drain: watch::Sender::new(None),
            accounts: Accounts::new(&config.limits, Usage::open(config.data_dir.as_deref())),
            quotas: quotas(&config),
            turns: Turns::new(config.limits.append_window_bytes),
            places: Arc::new(Semaphore::new(config.limits.connections_max as usize)),
            addresses: Addresses::new(config.limits.address_connections_max, ADDRESS_CONNECTIONS_MAX),
            send_windows: SendWindows::new(&endpoint, &config.limits),
            incoming: Room::new(config.limits.receive_bytes_max),
            sending: AtomicUsize::new(0),
            rollback,
            https: OnceLock::new(),
            tap: Tap::start(&config.tap),
            store,
            config,
        });
        let mut node = Self {
            shared,
            endpoint,
            _receiving: receiving,
            admin: None,
            stop: CancellationToken::new(),
            background: TaskTracker::new(),
            connections: TaskTracker::new(),
            place: None,
        };
        node.serve_admin(metrics).await?;
        if let Some(bound) = https {
            let id = node.endpoint.id();
            let served = Https::start(bound, node.shared.clone(), id, &node.background, &node.stop);
            info!(url = served.url(), "relay node serves HTTPS");
            let _ = node.shared.https.set(served);
        }
        if let Some(api) = api {
            node.follow(Arc::new(api), enrolment, &key);
        }
        node.run(tidy(node.shared.clone()));
        node.run(clock::watch(node.shared.clone()));
        node.background.spawn(accept(
            node.shared.clone(),
            node.endpoint.clone(),
            node.connections.clone(),
            node.stop.clone(),
        ));
        info!(endpoint = %node.endpoint_id(), addresses = ?node.bound_addresses(), "relay node listens");
        Ok(node)
    }

    /// The endpoint's id: what agents connect to.
    pub fn endpoint_id(&self) -> EndpointId {
        EndpointId::from_bytes(*self.endpoint.id().as_bytes())
    }

    /// The UDP addresses that it listens on.
    pub fn bound_addresses(&self) -> Vec<SocketAddr> {
        self.endpoint.bound_sockets()
    }

    /// Returns the HTTPS address for agents, if HTTPS is served.
    pub fn https_url(&self) -> Option<&str> {
        self.shared.https.get().map(Https::url)
    }

    /// The TCP address of HTTPS, where it is served.
    pub fn https_address(&self) -> Option<SocketAddr> {
        self.shared.https.get().map(Https::at)
    }

    /// The TCP address of admin HTTP, where it is served.
    pub const fn admin_address(&self) -> Option<SocketAddr> {
        self.admin
    }

    /// Returns its knowledge of the time: readings of other clocks are reported there.
    pub fn clock(&self) -> &Arc<Clock> {
        &self.shared.clock
    }

    /// Returns the number of running sessions.
    pub fn sessions(&self) -> usize {
        self.shared.sessions.len()
    }

    /// Returns the number of frames that wait for their account's turn to append.
    pub fn appends_waiting(&self) -> usize {
        self.shared.turns.waiting()
    }

    /// Takes no new connection, and tells every session to go elsewhere: a few hundred a second, each of which is served
    /// until its turn; then its new appends are refused, and those in flight are finished. The relay directory learns at
    /// once. A session ends when it has no stream left, or when `within` is over. Returns when
    /// none is left.
    pub async fn drain(&self, within: Duration) {
        let deadline = Instant::now() + within;
        self.shared.drain.send_replace(Some(deadline));
        info!(sessions = self.sessions(), "relay node drains");
        self.connections.close();
        let all_told = told_over(self.sessions(), within);
        let empty = async {
            sleep(all_told + EMPTY_AFTER).await;
            loop {
                self.shared.sessions.end_empty(&stops());
                sleep(EMPTY_EVERY).await;
            }
        };
        let left = async {
            tokio::select! {
                () = self.connections.wait() => {}
                () = empty => {}
            }
        };
        if timeout_at(deadline, left).await.is_err() {
            self.end_sessions().await;
        }
    }

    /// Ends every session, leaves the relay directory and stops. Call [`RelayNode::drain`] before it to let agents leave by themselves.
    pub async fn shutdown(mut self) {
        self.shared.drain.send_replace(Some(Instant::now()));
        self.connections.close();
        self.end_sessions().await;
        if let Some(https) = self.shared.https.get() {
            https.shutdown().await;
        }
        self.stop.cancel();
        self.background.close();
        if timeout(CLOSE_WITHIN, self.endpoint.close()).await.is_err() {
            warn!("the endpoint took too long to close");
        }
        self.connections.wait().await;
        self.background.wait().await;
        if let Some(tap) = &self.shared.tap {
            tap.finish().await;
        }
        write_usage(self.shared.clone()).await;
        // Nothing sends heartbeats now: removed streams stay out.
        if let Some(place) = self.place.take() {
            place.leave().await;
        }
        info!("relay node stopped");
    }

    async fn end_sessions(&self) {
        self.shared.sessions.end_all(&stops());
        if timeout(END_WITHIN, self.connections.wait()).await.is_err() {
            warn!("some connections took too long to end");
        }
    }

    async fn serve_admin(&mut self, metrics: Option<RenderMetrics>) -> Result<(), StartError> {
        let config = &self.shared.config.admin;
        if !config.enabled {
            return Ok(());
        }
        let error = |source| StartError::Admin {
            listen: config.listen,
            source,
        };
        let listener = tokio::net::TcpListener::bind(config.listen).await.map_err(error)?;
        self.admin = Some(listener.local_addr().map_err(error)?);
        let serve = admin::serve(listener, self.shared.clone(), metrics, self.stop.clone());
        self.background.spawn(serve);
        Ok(())
    }

    fn follow(&mut self, api: Arc<Api>, enrolment: Option<EnrolmentId>, key: &SecretKey) {
        let node = self.shared.clone();
        self.run(trust::follow_keys(node.clone(), api.clone()));
        self.run(trust::follow_revocations(node.clone(), api.clone()));
        self.run(trust::end_unserved(node.clone()));
        let region = node.config.region;
        let addresses = self.addresses();
        let https_url = self.https_url().map(str::to_owned);
        match enrolment {
            Some(enrolment) => {
                let place = Place::new(api, &enrolment, key, addresses, https_url, region);
                self.place = Some(place.clone());
                // Ends by itself: a heartbeat that is on its way is waited for.
                self.background.spawn(place.keep(node, self.stop.clone()));
            }
            None => {
                let endpoint = self.endpoint_id();
                let relay = Relay {
                    endpoint,
                    addresses,
                    region,
                    https_url,
                };
                self.run(trust::register(node, api, relay));
            }
        }
    }

    /// Returns the addresses under which agents reach the node.
    fn addresses(&self) -> Vec<String> {
        let advertised = &self.shared.config.advertise;
        if advertised.is_empty() {
            self.bound_addresses().iter().map(ToString::to_string).collect()
        } else {
            advertised.clone()
        }
    }

    /// Runs something until the node stops.
    fn run(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.background.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = task => {}
            }
        });
    }
}

impl Drop for RelayNode {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Shared {
    pub(crate) fn is_draining(&self) -> bool {
        self.drain.borrow().is_some()
    }

    /// Connections there are, with those that have not said Hello.
    pub(crate) fn connections(&self) -> usize {
        (self.config.limits.connections_max as usize).saturating_sub(self.places.available_permits())
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("config", &self.config)
            .field("connections", &self.connections())
            .finish_non_exhaustive()
    }
}

/// Returns the keeper of the API's facts across a restart, if there is a data folder.
fn keeper(trust: &TrustSource, config: &RelayConfig, endpoint: &EndpointId) -> Option<Keeper> {
    let TrustSource::Http { api_url, relay_secret } = trust else {
        return None;
    };
    let kept_for = KeptFor {
        endpoint,
        api_url,
        issuer: &config.issuer,
        audience: &config.audience,
    };
    Some(relay_secret.keeper(config.data_dir.as_deref()?, kept_for))
}

/// The enrolment whose key the node has, if it has one.
fn enrolment(trust: &TrustSource) -> Result<Option<EnrolmentId>, StartError> {
    match trust {
        TrustSource::Http { relay_secret, .. } => Ok(relay_secret.enrolment()?),
        TrustSource::Static(_) => Ok(None),
    }
}

const fn stops() -> Ending {
    Ending::new(Code::Draining, "this relay node stops")
}

async fn accept(node: Arc<Shared>, endpoint: Endpoint, connections: TaskTracker, stop: CancellationToken) {
    let turned_away = Arc::new(Semaphore::new(TURNED_AWAY_MAX));
    loop {
        let incoming = tokio::select! {
            incoming = endpoint.accept() => incoming,
            () = stop.cancelled() => return,
        };
        let Some(incoming) = incoming else { return };
        if node.is_draining() {
            let why = Ending::new(Code::Draining, "this relay node is about to stop");
            refuse(&turned_away, &connections, incoming, why);
            continue;
        }
        let Some(incoming) = validated(&node, incoming) else {
            continue;
        };
        let waits = match at_address(&node, &incoming) {
            Entry::Begun(waits) => waits,
            Entry::Unproven => {
                // One whose token cannot be given has shown it already.
                let _ = incoming.retry();
                continue;
            }
            Entry::Full => {
                node.limited.note(Some(Code::AddressConnections));
                let why = Ending::new(
                    Code::AddressConnections,
                    "this address has as many connections that have not said Hello as it may have",
                );
                refuse(&turned_away, &connections, incoming, why);
                continue;
            }
        };
        match node.places.clone().try_acquire_owned() {
            Ok(place) => {
                connections.spawn(Box::pin(session::serve(node.clone(), incoming, place, waits)));
            }
            Err(_) => {
                let why = Ending::new(
                    Code::TooManyConnections,
                    "this relay node has as many connections as it takes",
                );
                refuse(&turned_away, &connections, incoming, why);
            }
        }
    }
}

/// With half of the places taken, a client must show first that it receives at its address: an address that is made up
/// takes no place then.
fn validated(node: &Shared, incoming: Incoming) -> Option<Incoming> {
    let crowded = node.connections() * 2 > node.config.limits.connections_max as usize;
    if !crowded || incoming.remote_addr_validated() {
        return Some(incoming);
    }
    match incoming.retry() {
        Ok(()) => None,
        Err(error) => Some(error.into_incoming()),
    }
}

/// Whether a connection may begin, by where it comes from. One that comes over HTTPS has shown a token there.
fn at_address(node: &Shared, incoming: &Incoming) -> Entry {
    match incoming.remote_addr() {
        IncomingAddr::Ip(address) => node.addresses.enter(address.ip(), incoming.remote_addr_validated()),
        _ => Entry::Begun(Begun::elsewhere()),
    }
}

fn refuse(turned_away: &Arc<Semaphore>, connections: &TaskTracker, incoming: Incoming, why: Ending) {
    match turned_away.clone().try_acquire_owned() {
        Ok(place) => {
            connections.spawn(session::turn_away(incoming, why, place));
        }
        Err(_) => incoming.refuse(),
    }
}

async fn tidy(node: Arc<Shared>) {
    let mut turns = interval(TIDY_EVERY);
    loop {
        turns.tick().await;
        node.rates.forget_idle();
        node.accounts.forget_idle();
        write_usage(node.clone()).await;
    }
}

/// Writes down the usage of accounts, without bytes that are no longer stored.
async fn write_usage(node: Arc<Shared>) {
    let written = tokio::task::spawn_blocking(move || {
        let (given_up_ms, now_ms) = (node.store.given_up_ms(), node.clock.now().unix_ms);
        node.accounts.usage.tidy(given_up_ms, now_ms);
    });
    if let Err(error) = written.await {
        warn!(%error, "what accounts have stored was not written down");
    }
}

/// Returns the quotas of an account, if they are set or can be known.
fn quotas(config: &RelayConfig) -> Quotas {
    // So that one account alone does not fill the disk; and where there is only one, nearly all of it is its own.
    let most_of_disk = || Some(disk_bytes(config.data_dir.as_deref()?).ok()? / 10 * 9);
    let bytes = config.limits.account_stored_bytes_max.or_else(most_of_disk);
    Quotas {
        bytes: bytes.unwrap_or(u64::MAX),
        channels: config.limits.account_channels_per_day,
    }
}

/// The size of the file system that a folder is on.
fn disk_bytes(folder: &Path) -> std::io::Result<u64> {
    let status = rustix::fs::statvfs(folder)?;
    Ok(status.f_blocks.saturating_mul(status.f_frsize))
}
