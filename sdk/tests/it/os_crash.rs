//! The machine of an agent crashes, and loses what the kernel had not written of its vault.
//!
//! `ops/test/os-crash.sh` runs this with a disk whose power can be cut: see `ops/test/crash-disk`. The agent is a process of
//! its own with its vault on that disk; the relay node and another member are in this process, and stay. What is to be done
//! is set by the environment; without it, nothing is.
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
/// For what the kernel was writing when everybody was stopped.
const IN_FLIGHT: Duration = Duration::from_millis(100);

/// What the environment says. Without it, nothing.
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

/// The child. Without the environment's words, nothing.
pub(crate) fn child() {
    agent_process::child();
}

/// Prints a line, at once: libtest may have begun one of its own.
fn say(line: impl Display) {
    let mut out = std::io::stdout().lock();
    write!(out, "\n{line}\n").and_then(|()| out.flush()).expect("printed");
}

fn random(below: u64) -> u64 {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).expect("randomness");
    u64::from_le_bytes(bytes) % below.max(1)
}

/// Some time up to so many milliseconds.
fn random_time(up_to_ms: u64) -> Duration {
    Duration::from_micros(random(up_to_ms * 1_000))
}

fn random_ms(from: u64, to: u64) -> Duration {
    Duration::from_millis(from + random(to.saturating_sub(from)))
}
