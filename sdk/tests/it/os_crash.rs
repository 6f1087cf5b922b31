//! The machine of an agent crashes, and loses what the kernel had not written of its vault.
//!
//! `ops/test/os-crash.sh` runs this with a disk whose power can be cut: see `ops/test/crash-disk`. The agent is a
//! separate process with its vault on that disk; the relay node and another member are in this process, and survive.
//! The environment selects the scenarios; without it, nothing runs.
//!
//! | variable | means |
//! |---|---|
//! | `SKYTALE_TEST_CRASH` | the scenarios, each with its rounds: `rejoin:3 reboot:3 backup:10 restore:10` |
//! | `SKYTALE_TEST_CRASH_DISK` | the program that cuts the power |
//! | `SKYTALE_TEST_CRASH_FOLDER` | the disk's folder |
//! | `SKYTALE_TEST_CRASH_OUTSIDE` | a folder that never crashes |
//! | `SKYTALE_TEST_CRASH_AGENT` and others beside it | for the child, which is an agent: see `agent_process` |

mod agent_process;
mod backup;
mod disk;
mod pair;
mod reboot;
mod rejoin;
mod restore;
#[path = "../../../log-store/tests/it/fleet/crash/write_back.rs"]
mod write_back;

use crate::agent::world::watch;
use disk::Disk;
use std::fmt::Display;
use std::io::Write as _;
use std::time::Duration;

const SCENARIOS: &str = "SKYTALE_TEST_CRASH";
/// Time for writes of the kernel that are in flight when all processes are stopped.
const IN_FLIGHT: Duration = Duration::from_millis(100);

/// Runs the scenarios of the environment. Without it, does nothing.
pub(crate) fn scenarios() {
    let Ok(scenarios) = std::env::var(SCENARIOS) else {
        return;
    };
    watch();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let disk = Disk::from_environment();
        for scenario in scenarios.split(' ') {
            let (name, rounds) = scenario.split_once(':').expect("a scenario and its rounds");
            let rounds: u32 = rounds.parse().expect("a number of rounds");
            match name {
                "rejoin" => Box::pin(rejoin::rejoined(&disk, rounds)).await,
                "reboot" => Box::pin(reboot::rebooted(&disk, rounds)).await,
                "backup" => Box::pin(backup::backed_up(&disk, rounds)).await,
                "restore" => Box::pin(restore::restored(&disk, rounds)).await,
                other => panic!("no such scenario: {other}"),
            }
        }
    });
}

/// Runs the child. Without the environment, does nothing.
pub(crate) fn child() {
    agent_process::child();
}

/// Prints a line, at once: libtest may have started one of its own.
fn say(line: impl Display) {
    let mut out = std::io::stdout().lock();
    write!(out, "\n{line}\n").and_then(|()| out.flush()).expect("printed");
}

fn random(below: u64) -> u64 {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).expect("randomness");
    u64::from_le_bytes(bytes) % below.max(1)
}

/// Returns a random time up to a number of milliseconds.
fn random_time(up_to_ms: u64) -> Duration {
    Duration::from_micros(random(up_to_ms * 1_000))
}

fn random_ms(from: u64, to: u64) -> Duration {
    Duration::from_millis(from + random(to.saturating_sub(from)))
}
