//! Processes of their own: an empty node that joins, and a relay node over a fleet's store.

use crate::common::{check, node};
use anyhow::{Context as _, bail, ensure};
use skytale_benches::process::Process;
use skytale_benches::served::{self, Served};
use skytale_benches::stopwatch::Stopwatch;
use skytale_log_store::LogStore as _;
use skytale_log_store::cluster::Account;
use skytale_proto::LogId;
use std::collections::HashMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use tokio::runtime::Runtime;

/// The role of a child process: its arguments, one a line.
pub(crate) const ROLE: &str = "SKYTALE_BENCH_FLEET_ROLE";

/// Runs the child's part.
pub(crate) fn play(arguments: &[&str]) -> anyhow::Result<()> {
    let account = |user: &str, servers: &str, folder: &str| Account {
        user: user.to_owned(),
        servers: servers.split(',').map(str::to_owned).collect(),
        nodes_file: Path::new(folder).join("nodes"),
    };
    match arguments {
        ["join", user, servers, folder, entries, logs @ ..] => {
            let logs = logs.iter().map(|log| Ok(log.parse()?));
            let logs = logs.collect::<anyhow::Result<Vec<LogId>>>()?;
            joins(
                &account(user, servers, folder),
                folder.as_ref(),
                entries.parse()?,
                &logs,
            )
        }
        ["relay", user, servers, folder] => serves(&account(user, servers, folder), folder.as_ref()),
        _ => bail!("no such role: {arguments:?}"),
    }
}

fn role(kind: &str, account: &Account, folder: &Path) -> String {
    let (user, servers) = (&account.user, account.servers.join(","));
    format!("{kind}\n{user}\n{servers}\n{}", folder.display())
}

// ---- join

/// Lets a process of its own join a shard whose logs have so many entries each, and returns its report.
pub(crate) fn join(account: &Account, logs: &[LogId], entries: u64) -> anyhow::Result<HashMap<String, f64>> {
    let folder = tempfile::tempdir()?;
    let mut role = format!("{}\n{entries}", role("join", account, folder.path()));
    for log in logs {
        role.push_str(&format!("\n{log}"));
    }
    let output = Command::new(std::env::current_exe()?)
        .env(ROLE, role)
        .stderr(Stdio::inherit())
        .output()?;
    ensure!(output.status.success(), "the child joins");
    let mut report = HashMap::new();
    for line in String::from_utf8(output.stdout)?.lines() {
        let (name, value) = line.split_once(' ').context("a name and a value")?;
        report.insert(name.to_owned(), value.parse()?);
    }
    Ok(report)
}

#[allow(clippy::print_stdout)]
fn joins(account: &Account, folder: &Path, entries: u64, logs: &[LogId]) -> anyhow::Result<()> {
    let (runtime, process) = (Runtime::new()?, Process::this());
    let before = process.memory()?;
    let stopwatch = Stopwatch::start();
    let store = runtime.block_on(node(account, folder, 1))?;
    let took = stopwatch.took();
    let after = process.memory()?;
    println!("before_kib {}\njoined_kib {}", before.resident_kib, after.resident_kib);
    println!("peak_kib {}\njoin_s {}", after.peak_kib, took.wall.as_secs_f64());
    println!("cpu_s {}", took.cpu.unwrap_or_default().as_secs_f64());
    for log in logs {
        ensure!(
            runtime.block_on(check(&store, *log))? == entries,
            "all entries are there"
        );
    }
    runtime.block_on(store.close()).map_err(Into::into)
}

// ---- a relay node

/// Starts a relay node of a fleet in a process of its own.
pub(crate) fn serve(account: &Account, folder: &Path) -> anyhow::Result<Served> {
    Served::start(ROLE, &role("relay", account, folder))
}

fn serves(account: &Account, folder: &Path) -> anyhow::Result<()> {
    let runtime = Runtime::new()?;
    let store = runtime.block_on(node(account, folder, 1))?;
    served::serve_relay(&runtime, Arc::new(store))
}
