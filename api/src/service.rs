//! The API as an [`axum::Router`].

use crate::audit::Actor;
use crate::auth::{KeyHasher, SharedSecret, VerifiedKeys};
use crate::config::{ApiConfig, ConfigError, KeyEncryptionKey, Mode};
use crate::directory::Distances;
use crate::health::Health;
use crate::rate::Rates;
use crate::request::Meta;
use crate::routes;
use crate::signing::{KeyRing, SigningError};
use crate::store::{Location, Store, StoreError, audit, fleet, nonces, relays, revocations};
use axum::Router;
use secrecy::{ExposeSecret, SecretString};
use skytale_proto::Code;
use skytale_proto::limits::REVOCATIONS_KEPT;
use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use zeroize::Zeroizing;

/// Interval between removals of expired rows.
const UPKEEP: Duration = Duration::from_secs(60);
/// Relay nodes not heard of for this long leave the directory.
const RELAY_SILENCE_MAX: Duration = Duration::from_secs(7 * 24 * 3_600);

/// Reason why the API does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The database, a file or the system.
    #[error("{0}")]
    Environment(String),
}

impl StartError {
    /// The code.
    pub const fn code(&self) -> Code {
        match self {
            Self::Config(error) => error.code(),
            Self::Environment(_) => Code::Environment,
        }
    }

    pub(crate) fn environment(what: &str, error: impl std::fmt::Display) -> Self {
        Self::Environment(format!("{what}: {error}"))
    }
}

impl From<StoreError> for StartError {
    fn from(error: StoreError) -> Self {
        Self::environment("`api.database` cannot be used", error)
    }
}

impl From<SigningError> for StartError {
    fn from(error: SigningError) -> Self {
        match error {
            SigningError::Seal(error) => Self::Config(ConfigError::new(
                "key_encryption_key",
                format!("does not fit: {error}; give the key that it was made with"),
            )),
            other => Self::environment("the signing key cannot be used", other),
        }
    }
}

/// The API without a listener. Clones are the same service.
#[derive(Clone)]
pub struct Service(Arc<Inner>);

pub(crate) struct Inner {
    pub config: ApiConfig,
    pub store: Store,
    pub health: Health,
    /// Time at which everything was last counted, for metrics.
    pub counted: tokio::sync::Mutex<Option<Instant>>,
    pub ring: KeyRing,
    pub hasher: KeyHasher,
    /// Hasher for keys of relay nodes alone: a flood of API keys keeps none of them from its heartbeat.
    pub relay_hasher: KeyHasher,
    pub verified: VerifiedKeys,
    pub rates: Rates,
    pub distances: Distances,
    pub admin: SharedSecret,
    pub relay: SharedSecret,
    admin_secret: SecretString,
    relay_secret: SecretString,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Inner {
    pub(crate) fn now_s(&self) -> u64 {
        self.config.clock.now_s()
    }
}

impl Service {
    /// Opens the database, loads or makes the signing key, and begins the upkeep. Refuses a configuration that
    /// must not start.
    pub async fn open(config: ApiConfig) -> Result<Self, StartError> {
        config.check()?;
        let location = Location::parse(config.database.expose_secret())?;
        let random = |error| StartError::environment("the system gave no random bytes", error);
        let store = Store::open(&location).await?;
        let key = match &config.key_encryption_key {
            Some(key) => key.clone(),
            None => dev_key(config.mode, &location)?,
        };
        let ring = KeyRing::open(store.clone(), key, config.clock.now_s()).await?;
        let limits = &config.limits;
        let hasher = |at_once, waiting_max, each_max| {
            KeyHasher::new(at_once, waiting_max, each_max)
                .map_err(|error| StartError::environment("key hashing", error))
        };
        let relay_hasher = hasher(1, limits.enrolments_max as usize, limits.enrolments_max as usize)?;
        let hasher = hasher(
            limits.hashes_max,
            limits.hashes_waiting_max,
            limits.hashes_waiting_max.div_ceil(8),
        )?;
        // In production both are there: the configuration was checked.
        let admin_secret = secret_or_random(config.admin_secret.as_ref()).map_err(random)?;
        let relay_secret = secret_or_random(config.relay_secret.as_ref()).map_err(random)?;
        let service = Self(Arc::new(Inner {
            store,
            health: Health::default(),
            counted: tokio::sync::Mutex::default(),
            ring,
            hasher,
            relay_hasher,
            verified: VerifiedKeys::new().map_err(random)?,
            rates: Rates::new(&config.limits),
            distances: config.distances()?,
            admin: SharedSecret::new(&admin_secret),
            relay: SharedSecret::new(&relay_secret),
            admin_secret,
            relay_secret,
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
            config,
        }));
        let upkeep = service.clone();
        service.0.tasks.spawn(async move { upkeep.keep_up().await });
        let watched = service.clone();
        service.0.tasks.spawn(async move {
            let inner = watched.inner();
            inner.health.keep(&inner.store, &inner.stop).await;
        });
        tracing::info!(database = ?location, "API opened");
        Ok(service)
    }

    /// Every route, to be served by a listener or put into another router. The server must give each request its
    /// [`axum::extract::ConnectInfo`] of a [`std::net::SocketAddr`]; without, all clients share one rate.
    pub fn router(&self) -> Router {
        routes::router(self)
    }

    /// Signs tokens with a new key from now on; returns its id. Tokens of the old one are good until they end.
    pub async fn rotate_signing_key(&self) -> Result<String, StartError> {
        let inner = self.inner();
        let view = inner.ring.rotate(Actor::Operator, &Meta::own(), inner.now_s()).await?;
        Ok(view.signer.kid().to_owned())
    }

    /// The operator's secret: the one configured, or in dev the one made up.
    pub fn admin_secret(&self) -> &SecretString {
        &self.0.admin_secret
    }

    /// The relay nodes' secret: the one configured, or in dev the one made up.
    pub fn relay_secret(&self) -> &SecretString {
        &self.0.relay_secret
    }

    /// Ends the upkeep, without waiting for it.
    pub(crate) fn stop(&self) {
        self.0.stop.cancel();
    }

    /// Ends the upkeep and closes the database. Requests must have ended.
    pub async fn close(&self) {
        self.stop();
        self.0.tasks.close();
        self.0.tasks.wait().await;
        self.0.store.close().await;
    }

    pub(crate) fn inner(&self) -> &Inner {
        &self.0
    }

    async fn keep_up(self) {
        let inner = self.inner();
        let mut ticks = tokio::time::interval(UPKEEP);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = inner.stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            inner.rates.tidy();
            if let Err(error) = self.sweep().await {
                tracing::warn!(%error, "upkeep will be tried again");
            }
        }
    }

    /// Drops expired rows, and rotates the signing key when it is due.
    async fn sweep(&self) -> Result<(), SigningError> {
        let inner = self.inner();
        let now_s = inner.now_s();
        let mut write = inner.store.write().await?;
        nonces::drop_old(&mut write, now_s).await?;
        relays::drop_silent(&mut write, now_s.saturating_sub(RELAY_SILENCE_MAX.as_secs())).await?;
        fleet::drop_silent(&mut write, now_s.saturating_sub(RELAY_SILENCE_MAX.as_secs())).await?;
        revocations::drop_old(&mut write, now_s.saturating_sub(REVOCATIONS_KEPT.as_secs())).await?;
        audit::drop_old(&mut write, now_s.saturating_sub(inner.config.audit_retention.as_secs())).await?;
        write.commit().await?;
        inner.ring.tidy(now_s).await?;
        if let Some(lifetime) = inner.config.signing_key_lifetime {
            let age_s = now_s.saturating_sub(inner.ring.view(now_s).await?.created_s);
            if age_s >= lifetime.as_secs() {
                match inner.ring.rotate(Actor::Upkeep, &Meta::own(), now_s).await {
                    // Another process did it.
                    Ok(_) | Err(SigningError::Contended) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }
}

fn secret_or_random(secret: Option<&SecretString>) -> Result<SecretString, getrandom::Error> {
    if let Some(secret) = secret {
        return Ok(secret.clone());
    }
    let mut bytes = Zeroizing::new([0; 32]);
    getrandom::fill(bytes.as_mut_slice())?;
    Ok(SecretString::from(data_encoding::HEXLOWER.encode(bytes.as_slice())))
}

/// In dev, the key encryption key is in a file beside the database: made where it is missing, mode 0600.
fn dev_key(mode: Mode, location: &Location) -> Result<KeyEncryptionKey, StartError> {
    let missing = || ConfigError::new("key_encryption_key", "is missing; make one with `openssl rand -hex 32`");
    let Location::Sqlite { path } = location else {
        return Err(missing().into());
    };
    if mode != Mode::Dev {
        return Err(missing().into());
    }
    let mut path = path.clone().into_os_string();
    path.push(".key");
    read_or_make_key(Path::new(&path))
        .map_err(|error| StartError::environment(&format!("key encryption key {}", Path::new(&path).display()), error))
}

fn read_or_make_key(path: &Path) -> io::Result<KeyEncryptionKey> {
    let mut bytes = Zeroizing::new([0; 32]);
    getrandom::fill(bytes.as_mut_slice()).map_err(io::Error::other)?;
    let text = Zeroizing::new(data_encoding::HEXLOWER.encode(bytes.as_slice()));
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(mut file) => {
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            Ok(KeyEncryptionKey::from_bytes(bytes))
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let text = Zeroizing::new(std::fs::read_to_string(path)?);
            KeyEncryptionKey::from_hex(&text).map_err(io::Error::other)
        }
        Err(error) => Err(error),
    }
}

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Service")
            .field("config", &self.0.config)
            .finish_non_exhaustive()
    }
}
