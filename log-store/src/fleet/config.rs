//! The settings of a fleet's node.

use super::keys::KeyFile;
use super::shards::Shards;
use super::signer::{KnownNodes, Signer};
use crate::LocalConfig;
use async_nats::jetstream::stream::Placement;
use skytale_proto::{Region, limits};
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Messages in one batch, at most: the server's own limit is 1,000.
pub const BATCH_MESSAGES_MAX: usize = 1_000;
/// Maximum bytes that a message takes on the wire beyond its frame.
pub(super) const MESSAGE_OVERHEAD_BYTES: usize = 512;

/// Settings of a [`super::FleetStore`]. [`FleetConfig::new`] gives the defaults.
#[derive(Clone, Debug)]
pub struct FleetConfig {
    /// Connection to NATS.
    pub nats: NatsConfig,
    /// The regions, each with how many shards it has. Fixed once the streams exist.
    pub regions: Vec<RegionConfig>,
    /// The region that this node is in: it follows the streams of the others by mirrors here. `None` follows every stream
    /// itself.
    pub here: Option<Region>,
    /// Copies of each stream that a new one gets, and that an existing one must have.
    pub replicas: usize,
    /// The folder and settings of this node's replica.
    pub local: LocalConfig,
    /// Proof that servers sync before they acknowledge.
    pub sync: SyncProof,
    /// Serve although an acknowledgement means less than a synced quorum; every acknowledgement then says so.
    pub allow_weaker: bool,
    /// Frames in one published batch, at most.
    pub batch_frames_max: usize,
    /// Bytes of frames in one published batch, at most; one frame larger than that goes alone.
    pub batch_bytes_max: usize,
    /// Frames that may wait for their verdict; an append beyond them waits for room.
    pub queue_frames_max: usize,
    /// Bytes of frames that may wait for their verdict; an append beyond them waits for room.
    pub queue_bytes_max: usize,
    /// Maximum time for an append before its author learns that the home region cannot be reached.
    pub append_timeout: Duration,
    /// Time after which a request to NATS counts as lost.
    pub request_timeout: Duration,
    /// Interval between comparisons of each stream with the fold.
    pub verify_every: Duration,
    /// Interval between checks that the servers sync.
    pub ask_sync_every: Duration,
    /// Time that a stream must go on contradicting the fold before that is believed: longer than a server that was cut
    /// off takes to notice that it no longer leads.
    pub alarm_after: Duration,
    /// Time that a bundle's Welcomes may be missing before any node publishes them.
    pub welcome_grace: Duration,
    /// Messages of a shard from one checkpoint to the next. The same on all nodes: written into the streams' metadata.
    pub checkpoint_every: u64,
    /// Signs what this node vouches for. `None`: it vouches for no checkpoint.
    pub signer: Option<Signer>,
    /// Nodes whose checkpoints count.
    pub known_nodes: KnownNodes,
    /// Number of known nodes that must vouch for a checkpoint before anybody begins with it, or anything is given up by
    /// it.
    pub witnesses: usize,
    /// Retention of entries; `None` keeps them. The same on all nodes.
    pub retention: Option<Duration>,
    /// Interval at which this node looks for entries to give up.
    pub retention_every: Duration,
    /// This node's own clock.
    pub wall_clock: fn() -> SystemTime,
    /// Maximum difference between clocks of nodes and servers that still agree.
    pub clock_tolerance: Duration,
    /// Maximum time for NATS to answer while the store opens. A node that has a replica does not wait for it.
    pub open_timeout: Duration,
}

/// A region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegionConfig {
    /// Its number: the first byte of the ids of its channels.
    pub region: Region,
    /// Number of its shards.
    pub shards: u16,
    /// The cluster that its streams are placed in, where there are several.
    pub cluster: Option<String>,
    /// Tags that the servers of its streams must have.
    pub tags: Vec<String>,
}

/// Connection to NATS.
#[derive(Clone, Debug)]
pub struct NatsConfig {
    /// Addresses of servers, such as `nats://10.0.0.1:4222`.
    pub servers: Vec<String>,
    /// Identity of this node.
    pub auth: NatsAuth,
    /// TLS beyond what the addresses say.
    pub tls: NatsTls,
    /// Name of this connection, as the servers show it.
    pub name: String,
    /// The prefix of this node's inboxes, where its user may not use the common one.
    pub inbox_prefix: Option<String>,
}

/// Identity of a connection.
#[derive(Clone)]
pub enum NatsAuth {
    /// Nobody.
    None,
    /// A user with a password.
    Password {
        /// The user.
        user: String,
        /// The password.
        password: Secret,
    },
    /// The seed of an NKey.
    NKey(Secret),
    /// The seed of an NKey in a file: if the file changes, the node goes on with its new contents, if servers take
    /// them.
    NKeyFile(KeyFile),
    /// A credentials file.
    Credentials(PathBuf),
}

/// TLS settings.
#[derive(Clone, Debug, Default)]
pub struct NatsTls {
    /// Refuse a connection without TLS.
    pub required: bool,
    /// A file of root certificates to trust, besides the system's.
    pub roots: Option<PathBuf>,
    /// This node's certificate and key.
    pub certificate: Option<(PathBuf, PathBuf)>,
}

/// A secret: shown as `[redacted]`, overwritten when it goes.
#[derive(Clone)]
pub struct Secret(zeroize::Zeroizing<String>);

impl Secret {
    /// Takes a secret in.
    pub fn new(secret: impl Into<String>) -> Self {
        Self(zeroize::Zeroizing::new(secret.into()))
    }

    pub(super) fn reveal(&self) -> String {
        self.0.as_str().to_owned()
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[redacted]")
    }
}

impl std::fmt::Debug for NatsAuth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::None => f.write_str("None"),
            Self::Password { user, password } => {
                let mut shown = f.debug_struct("Password");
                shown.field("user", user).field("password", password).finish()
            }
            Self::NKeyFile(file) => f.debug_tuple("NKeyFile").field(file).finish(),
            Self::NKey(seed) => f.debug_tuple("NKey").field(seed).finish(),
            Self::Credentials(path) => f.debug_tuple("Credentials").field(path).finish(),
        }
    }
}

/// Proof that servers sync a message before they acknowledge it (`sync_interval: always`). No user of an ordinary
/// account can see that.
#[derive(Clone, Debug)]
pub enum SyncProof {
    /// Asked of every server, at start and from time to time, as a user of the system account.
    System(NatsAuth),
    /// The operator says so. Nothing is checked.
    Stated {
        /// Whether they do.
        always: bool,
    },
}

impl FleetConfig {
    /// The defaults: one region with eight shards, three copies of each, checked by a user of the system account.
    pub fn new(nats: NatsConfig, sync: SyncProof, local: LocalConfig) -> Self {
        Self {
            nats,
            regions: vec![RegionConfig {
                region: Region::default(),
                shards: 8,
                cluster: None,
                tags: Vec::new(),
            }],
            here: None,
            replicas: 3,
            local,
            sync,
            allow_weaker: false,
            batch_frames_max: 512,
            batch_bytes_max: 900 * 1024,
            queue_frames_max: 8_192,
            queue_bytes_max: 32 * 1024 * 1024,
            append_timeout: Duration::from_secs(15),
            request_timeout: Duration::from_secs(5),
            verify_every: Duration::from_secs(10),
            ask_sync_every: Duration::from_secs(60),
            alarm_after: Duration::from_secs(30),
            welcome_grace: Duration::from_secs(5),
            checkpoint_every: 100_000,
            signer: None,
            known_nodes: KnownNodes::Nobody,
            witnesses: 2,
            retention: Some(limits::RETENTION),
            retention_every: Duration::from_secs(600),
            wall_clock: SystemTime::now,
            clock_tolerance: Duration::from_secs(30),
            open_timeout: Duration::from_secs(30),
        }
    }

    /// Returns the time by this node's own clock, unix milliseconds.
    pub(super) fn now_ms(&self) -> u64 {
        let now = (self.wall_clock)().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
    }

    /// Returns the placement of a home region's streams; `None` if they may be anywhere.
    pub(super) fn placement(&self, home: Region) -> Option<Placement> {
        let region = self.regions.iter().find(|region| region.region == home)?;
        (region.cluster.is_some() || !region.tags.is_empty()).then(|| Placement {
            cluster: region.cluster.clone(),
            tags: region.tags.clone(),
        })
    }

    pub(super) fn shards(&self) -> Result<Shards, String> {
        let regions = self.regions.iter().map(|region| (region.region, region.shards));
        Shards::new(regions).ok_or_else(|| {
            format!(
                "each region must be named once and have between 1 and {} shards",
                super::shards::SHARDS_MAX
            )
        })
    }

    /// Returns the problem in the settings, if there is one.
    pub(super) fn problem(&self) -> Option<String> {
        let first = self.problems().into_iter().next();
        first.map(|(name, problem)| format!("{name} {problem}"))
    }

    /// Every setting that cannot work: its name, and its problem.
    pub fn problems(&self) -> Vec<(&'static str, String)> {
        let mut found = Vec::new();
        let mut refuse = |wrong: bool, name, problem: String| {
            if wrong {
                found.push((name, problem));
            }
        };
        refuse(self.nats.servers.is_empty(), "nats", "names no NATS server".into());
        for server in &self.nats.servers {
            refuse(
                server.parse::<async_nats::ServerAddr>().is_err(),
                "nats",
                format!(
                    "has `{}`, which is no address of a NATS server, such as nats://10.0.0.1:4222",
                    skytale_proto::shown(server, 80)
                ),
            );
        }
        if let Err(problem) = self.shards() {
            refuse(true, "regions", format!("cannot be used: {problem}"));
        }
        if let Some(here) = self.here {
            let is_one = self.regions.iter().any(|region| region.region == here);
            let problem = format!("name no region {}, which is the node's", here.0);
            refuse(!is_one, "regions", problem);
        }
        refuse(
            !matches!(self.replicas, 1 | 3 | 5),
            "replicas",
            "must be 1, 3 or 5".into(),
        );
        refuse(
            !(1..=BATCH_MESSAGES_MAX).contains(&self.batch_frames_max),
            "batch_frames_max",
            format!("must be between 1 and {BATCH_MESSAGES_MAX}"),
        );
        refuse(
            self.queue_bytes_max < limits::FRAME_BYTES_MAX || self.queue_bytes_max > u32::MAX as usize,
            "queue_bytes_max",
            format!(
                "must be between {} (one frame) and {}",
                limits::FRAME_BYTES_MAX,
                u32::MAX
            ),
        );
        for (name, is_zero) in [
            ("queue_frames_max", self.queue_frames_max == 0),
            ("batch_bytes_max", self.batch_bytes_max == 0),
            ("checkpoint_every", self.checkpoint_every == 0),
            ("witnesses", self.witnesses == 0),
            ("append_timeout", self.append_timeout.is_zero()),
            ("request_timeout", self.request_timeout.is_zero()),
            ("verify_every", self.verify_every.is_zero()),
            ("ask_sync_every", self.ask_sync_every.is_zero()),
            ("welcome_grace", self.welcome_grace.is_zero()),
            ("retention_every", self.retention_every.is_zero()),
        ] {
            refuse(is_zero, name, "must be above 0".into());
        }
        found
    }
}
