//! Processes of their own: an empty node that joins, and a relay node over a fleet's store.

use crate::common::{check, node};
use anyhow::{Context as _, bail, ensure};
use skytale_benches::client::{Agent, Client};
use skytale_benches::process::Process;
use skytale_benches::relay::{Relay, Tokens, parse_address, print_address};
use skytale_benches::stopwatch::Stopwatch;
use skytale_log_store::LogStore as _;
use skytale_log_store::cluster::Account;
use skytale_proto::LogId;
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use tokio::runtime::Runtime;

/// The role of a child process: its arguments, one a line.
pub(crate) const ROLE: &str = "SKYTALE_BENCH_FLEET_ROLE";

/// What the child does.
pub(crate) fn play(arguments: &[&str]) -> anyhow::Result<()> {
    let account = |user: &str, servers: &str| Account {
        user: user.to_owned(),
        servers: servers.split(',').map(str::to_owned).collect(),
    };
    match arguments {
        ["join", user, servers, folder, entries, logs @ ..] => {
            let logs = logs.iter().map(|log| Ok(log.parse()?));
            let logs = logs.collect::<anyhow::Result<Vec<LogId>>>()?;
            joins(&account(user, servers), folder.as_ref(), entries.parse()?, &logs)
        }
        ["relay", user, servers, folder] => serves(&account(user, servers), folder.as_ref()),
        _ => bail!("no such role: {arguments:?}"),
    }
}

fn role(kind: &str, account: &Account, folder: &Path) -> String {
    let (user, servers) = (&account.user, account.servers.join(","));
    format!("{kind}\n{user}\n{servers}\n{}", folder.display())
}

// ---- join

/// Lets a process of its own join a shard whose logs have so many entries each, and gives what it reports.
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

/// A relay node of a fleet in a process of its own.
pub(crate) struct Served {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    address: iroh::EndpointAddr,
    tokens: Tokens,
}

impl Served {
    pub(crate) fn start(account: &Account, folder: &Path) -> anyhow::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .env(ROLE, role("relay", account, folder))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdin = child.stdin.take().context("a pipe")?;
        let mut stdout = BufReader::new(child.stdout.take().context("a pipe")?);
        let address = parse_address(&line(&mut stdout)?)?;
        Ok(Self {
            child,
            stdin,
            stdout,
            address,
            tokens: Tokens::new(),
        })
    }

    pub(crate) async fn session(&self, agent: &Agent) -> anyhow::Result<Client> {
        Client::start(agent, &self.address, self.tokens.token(agent)?).await
    }

    pub(crate) fn process(&self) -> Process {
        Process::of(self.child.id())
    }

    pub(crate) fn end(mut self) -> anyhow::Result<()> {
        drop(self.stdin);
        ensure!(line(&mut self.stdout)? == "closed", "the child closes what it has");
        ensure!(self.child.wait()?.success(), "the child ends well");
        Ok(())
    }
}

fn line(from: &mut impl BufRead) -> anyhow::Result<String> {
    let mut line = String::new();
    from.read_line(&mut line)?;
    Ok(line.trim_end().to_owned())
}

/// Serves until its standard input is closed.
#[allow(clippy::print_stdout)]
fn serves(account: &Account, folder: &Path) -> anyhow::Result<()> {
    let runtime = Runtime::new()?;
    let store = Arc::new(runtime.block_on(node(account, folder, 1))?);
    let relay = runtime.block_on(Relay::start(store.clone()))?;
    println!("{}", print_address(relay.address())?);
    std::io::stdout().flush()?;
    let mut lines = std::io::stdin().lock().lines();
    while lines.next().transpose()?.is_some() {}
    runtime.block_on(relay.shutdown());
    runtime.block_on(store.close())?;
    println!("closed");
    Ok(())
}
