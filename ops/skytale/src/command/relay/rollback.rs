//! `skytale relay accept-rollback`: an operator's word that a node's data was put back to an earlier time.

use super::super::Session;
use crate::output::{Failure, Human, Outcome, Style};
use crate::time::utc;
use serde::Serialize;
use skytale_log_store::inspect::{self, InspectError};
use skytale_log_store::local::OpenError;
use skytale_proto::{Code, Offset};
use skytale_relay_node::AcceptedRollback;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

#[derive(Debug, clap::Args)]
pub(crate) struct AcceptRollback {
    /// The data folder of the relay node, or of `skytale dev` [key: relay.data_dir].
    #[arg(value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Do it. Without this nothing is done.
    #[arg(long)]
    yes: bool,
}

pub(super) async fn accept(args: AcceptRollback, session: &Session) -> Outcome {
    if !args.yes {
        return Err(Failure::new(Code::Usage, "accepting a rollback needs --yes").help(
            "Put the newest data back first, if you have it: then nothing is lost. With --yes, agents that had read entries \
             which are gone go on with the log as it is now, and send again what they had sent.",
        ));
    }
    let relay = &session.loaded.config.relay;
    if !relay.fleet.nats.is_empty() {
        return Err(Failure::new(
            Code::Usage,
            "this node is one of a fleet, whose log is in NATS JetStream",
        )
        .help("A node of a fleet that was put back catches up by itself."));
    }
    let dir = match &args.dir {
        Some(dir) => dir.clone(),
        None => session.loaded.need("relay.data_dir", relay.data_dir.as_ref())?.clone(),
    };
    let accepted = accept_in(&node_dir(&dir)?).await?;
    session.output.give(&accepted)
}

/// Checks the log of a stopped relay node, and writes the operator's word beside it.
pub(crate) async fn accept_in(dir: &Path) -> Outcome<Accepted> {
    let log = dir.join("log");
    let report = tokio::task::spawn_blocking(move || inspect::verify(&log));
    let report = match report.await {
        Ok(report) => report.map_err(|error| explained(dir, &error))?,
        Err(error) => return Err(Failure::new(Code::Environment, "the log was not looked at").because(&error)),
    };
    if !report.is_whole() {
        return Err(
            Failure::new(Code::StoreCorrupt, format!("the log in {} is damaged", dir.display()))
                .help("`skytale log verify` says where. Restore a copy that is whole first."),
        );
    }
    let at_ms = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let at_ms = u64::try_from(at_ms.as_millis()).unwrap_or(u64::MAX);
    // A clock that is behind must not make it older than the last one.
    let before = AcceptedRollback::read(dir).ok().flatten().map_or(0, |word| word.at_ms);
    let at_ms = at_ms.max(before + 1);
    let heads = report.logs.iter().map(|(log, report)| (*log, report.head)).collect();
    let word = AcceptedRollback::new(at_ms, heads);
    let file = word.write(dir).map_err(|error| {
        Failure::new(Code::Environment, format!("cannot write to {}", dir.display())).because(&error)
    })?;
    Ok(Accepted {
        file,
        at_ms,
        logs: word.heads.len(),
        entries: word.heads.values().copied().map(Offset::get).sum(),
    })
}

/// The folder of the relay node, given it or the folder of a whole local node.
fn node_dir(dir: &Path) -> Outcome<PathBuf> {
    ["", "relay"]
        .iter()
        .map(|place| dir.join(place))
        .find(|place| place.join("log/FORMAT").is_file())
        .ok_or_else(|| {
            Failure::new(Code::Environment, format!("there is no log in {}", dir.display()))
                .help("Name the folder that the relay node has as `relay.data_dir`, or `skytale dev` as `--dir`.")
        })
}

fn explained(dir: &Path, error: &InspectError) -> Failure {
    let failure = Failure::new(error.code(), format!("cannot look at the log in {}", dir.display())).because(error);
    match error {
        InspectError::Open(OpenError::Locked { .. }) => {
            failure.help("Stop the node first. Agents learn of it when the node starts again.")
        }
        _ => failure,
    }
}

#[derive(Serialize)]
pub(crate) struct Accepted {
    file: PathBuf,
    at_ms: u64,
    logs: usize,
    entries: u64,
}

impl Human for Accepted {
    fn human(&self, to: &mut dyn fmt::Write, style: &Style) -> fmt::Result {
        writeln!(
            to,
            "{} the log is whole, and as it is now it counts: {} entries in {} logs",
            style.good("accepted:"),
            self.entries,
            self.logs
        )?;
        writeln!(
            to,
            "  written to {} at {}",
            self.file.display(),
            utc(self.at_ms / 1_000)
        )?;
        writeln!(
            to,
            "  start the node: agents that had read more settle when they connect, and say from where on"
        )
    }
}
