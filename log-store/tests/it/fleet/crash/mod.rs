//! A machine crashes, and loses what the kernel had not written: a node's, or that of the NATS servers.
//!
//! `ops/test/os-crash.sh` runs this with a disk whose power can be cut: see `ops/test/crash-disk`. The environment
//! chooses the scenarios; without it, none runs.
//!
//! | variable | means |
//! |---|---|
//! | `SKYTALE_TEST_CRASH` | the scenarios, each with its rounds: `replica:3 bootstrap:3`, or `servers:2 one-server:1` |
//! | `SKYTALE_TEST_CRASH_DISK` | the program that cuts the power |
//! | `SKYTALE_TEST_CRASH_FOLDER` | the disk's folder |
//! | `SKYTALE_TEST_CRASH_OUTSIDE` | a folder that never crashes; the servers' is the temporary one |
//! | `SKYTALE_TEST_NO_SYNC` | for `servers`: they acknowledge without syncing |
//! | `SKYTALE_TEST_CRASH_NODE`, `_USER`, `_SERVERS`, `_KIND` | for the child, which is a node: its folder, user, servers and settings |

mod bootstrap;
mod disk;
mod left;
mod load;
mod node;
mod replica;
mod retention;
mod servers;
mod write_back;

use super::cluster::{Account, Cluster, Sync};
use super::script::settings;
use disk::Disk;
use skytale_log_store::LocalConfig;
use skytale_log_store::fleet::{FleetConfig, RegionConfig};
use skytale_log_store::local::Retention;
use skytale_proto::Region;
use std::fmt::Display;
use std::future::Future;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

const SCENARIOS: &str = "SKYTALE_TEST_CRASH";
/// Entries are kept for so long, where they are given up at all: longer than a node that comes back takes.
const RETENTION: Duration = Duration::from_secs(4);
const NO_SYNC: &str = "SKYTALE_TEST_NO_SYNC";

fn word(variable: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| panic!("{variable} is not set"))
}

/// Prints a line, at once: libtest may have begun one of its own.
fn say(line: impl Display) {
    let mut out = std::io::stdout().lock();
    write!(out, "\n{line}\n").and_then(|()| out.flush()).expect("printed");
}

fn run(future: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(future);
}

/// Runs the scenarios that the environment names. Without it, nothing.
#[test]
fn scenarios() {
    if let Ok(scenarios) = std::env::var(SCENARIOS) {
        run(Box::pin(try_all(scenarios)));
    }
}

async fn try_all(scenarios: String) {
    let disk = Disk::from_environment();
    let sync = std::env::var_os(NO_SYNC).map_or(Sync::Always, |_| Sync::Sometimes);
    let cluster = Cluster::start_with(servers::SERVERS, sync).await;
    say("the servers are up");
    for scenario in scenarios.split(' ') {
        let (name, rounds) = scenario.split_once(':').expect("a scenario and its rounds");
        let rounds = rounds.parse().expect("a number of rounds");
        match (name, sync) {
            ("replica", Sync::Always) => Box::pin(replica::followed(&cluster, &disk, rounds)).await,
            ("retention", Sync::Always) => Box::pin(retention::given_up(&cluster, &disk, rounds)).await,
            ("bootstrap", Sync::Always) => Box::pin(bootstrap::bootstrapped(&cluster, &disk, rounds)).await,
            ("servers", Sync::Always) => Box::pin(servers::all(&cluster, &disk, rounds)).await,
            ("servers", Sync::Sometimes) => Box::pin(servers::all_unsynced(&cluster, &disk, rounds)).await,
            ("one-server", Sync::Always) => Box::pin(servers::one(&cluster, &disk, rounds)).await,
            other => panic!("no such scenario: {other:?}"),
        }
    }
}

/// The child: a node that goes on until it is killed. Without the environment's words, nothing.
#[test]
fn child() {
    if let Some((kind, account, folder)) = node::told() {
        run(Box::pin(node::go_on(kind.settings(&account, &folder))));
    }
}

/// A fleet's settings: small segments, frequent checkpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    TwoShards,
    OneShard,
    /// One shard, of which little is kept.
    Retention,
}

impl Kind {
    fn settings(self, account: &Account, dir: &Path) -> FleetConfig {
        let settings = settings(account, dir);
        let (shards, checkpoint_every) = match self {
            Self::TwoShards => (2, 200),
            Self::OneShard | Self::Retention => (1, 300),
        };
        FleetConfig {
            regions: vec![RegionConfig {
                region: Region(0),
                shards,
                cluster: None,
                tags: Vec::new(),
            }],
            checkpoint_every,
            retention: (self == Self::Retention).then_some(RETENTION),
            retention_every: Duration::from_millis(200),
            request_timeout: Duration::from_secs(1),
            alarm_after: Duration::from_secs(20),
            local: local(dir),
            ..settings
        }
    }
}

fn local(dir: &Path) -> LocalConfig {
    LocalConfig {
        retention: Retention {
            check_every: Duration::from_millis(100),
            ..Retention::default()
        },
        segment_bytes: 512 * 1024,
        cache_bytes: 64 * 1024,
        states_max: 64,
        ..LocalConfig::new(dir)
    }
}

fn random(below: u64) -> u64 {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).expect("randomness");
    u64::from_le_bytes(bytes) % below.max(1)
}

fn random_ms(from: u64, to: u64) -> Duration {
    Duration::from_millis(from + random(to - from))
}
