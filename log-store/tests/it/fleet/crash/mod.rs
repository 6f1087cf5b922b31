//! A machine crashes, and loses what the kernel had not written: a node's, or that of the NATS servers.
//!
//! `ops/test/os-crash.sh` runs this with a disk whose power can be cut: see `ops/test/crash-disk`. What is to be done is told
//! by the environment; without it, nothing is.
//!
//! | variable | means |
//! |---|---|
//! | `SKYTALE_TEST_CRASH` | the scenario: `replica`, `bootstrap`, `servers` or `one-server` |
//! | `SKYTALE_TEST_CRASH_ROUNDS` | how often |
//! | `SKYTALE_TEST_CRASH_DISK` | the program that cuts the power |
//! | `SKYTALE_TEST_CRASH_FOLDER` | the disk's folder |
//! | `SKYTALE_TEST_CRASH_OUTSIDE` | a folder that crashes never |
//! | `SKYTALE_TEST_NO_SYNC` | for `servers`: they acknowledge without syncing |
//! | `SKYTALE_TEST_CRASH_NODE`, `_USER`, `_SERVERS` | for the child, which is a node: its folder, user and servers |

mod disk;
mod load;
mod node;
mod replica;
mod servers;
mod write_back;

use super::cluster::Account;
use super::script::settings;
use disk::Disk;
use skytale_log_store::LocalConfig;
use skytale_log_store::fleet::{FleetConfig, RegionConfig};
use skytale_proto::Region;
use std::future::Future;
use std::path::Path;
use std::time::Duration;

const SCENARIO: &str = "SKYTALE_TEST_CRASH";
const ROUNDS: &str = "SKYTALE_TEST_CRASH_ROUNDS";
const NO_SYNC: &str = "SKYTALE_TEST_NO_SYNC";

fn word(variable: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| panic!("{variable} is not set"))
}

fn run(future: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(future);
}

/// What the environment says. Without it, nothing.
#[test]
fn scenario() {
    let (Ok(scenario), Ok(rounds)) = (std::env::var(SCENARIO), std::env::var(ROUNDS)) else {
        return;
    };
    let disk = Disk::from_environment();
    let rounds = rounds.parse().expect("a number of rounds");
    let unsynced = std::env::var_os(NO_SYNC).is_some();
    match (scenario.as_str(), unsynced) {
        ("replica", false) => run(Box::pin(replica::followed(&disk, rounds))),
        ("bootstrap", false) => run(Box::pin(replica::bootstrapped(&disk, rounds))),
        ("servers", false) => run(Box::pin(servers::all(&disk, rounds))),
        ("servers", true) => run(Box::pin(servers::all_unsynced(&disk, rounds))),
        ("one-server", false) => run(Box::pin(servers::one(&disk, rounds))),
        other => panic!("no such scenario: {other:?}"),
    }
}

/// The child: a node that goes on until it is killed. Without the environment's words, nothing.
#[test]
fn child() {
    if let Some((account, folder)) = node::told() {
        run(Box::pin(node::go_on(config(&word(SCENARIO), &account, &folder))));
    }
}

/// Settings of a scenario's nodes: small segments, frequent checkpoints.
fn config(scenario: &str, account: &Account, dir: &Path) -> FleetConfig {
    let settings = settings(account, dir);
    let settings = FleetConfig {
        checkpoint_every: 200,
        retention: None,
        request_timeout: Duration::from_secs(1),
        alarm_after: Duration::from_secs(20),
        local: LocalConfig {
            segment_bytes: 256 * 1024,
            cache_bytes: 64 * 1024,
            states_max: 64,
            ..settings.local.clone()
        },
        ..settings
    };
    if scenario != "bootstrap" {
        return settings;
    }
    FleetConfig {
        regions: vec![RegionConfig {
            region: Region(0),
            shards: 1,
            cluster: None,
            tags: Vec::new(),
        }],
        checkpoint_every: 100,
        ..settings
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
