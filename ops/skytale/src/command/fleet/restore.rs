//! `skytale fleet restore`: what replicas hold goes back into the streams.

use crate::command::Session;
use crate::command::log::Dir;
use crate::output::{Failure, Human, Outcome, Style};
use serde::Serialize;
use skytale_log_store::LocalConfig;
use skytale_log_store::fleet::{RestoreError, Restored, restore};
use skytale_log_store::inspect::InspectError;
use skytale_log_store::local::OpenError;
use skytale_proto::Code;
use std::fmt;
use std::path::PathBuf;

/// Put back into the streams what relay nodes' replicas hold and the streams lack, after the NATS servers were put back to an older copy.
///
/// Stop all relay nodes first, and run this with a relay node's configuration where its data is. Every entry must come to the offset that
/// it had; the first that does not ends it, and nothing is lost by trying again. Afterwards each relay node that had followed further begins
/// with an empty `log` folder in its data folder: keep the old one until all is well.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Data folders of relay nodes, the one that has followed furthest first [key: relay.data_dir].
    #[arg(value_name = "DIR")]
    dirs: Vec<PathBuf>,
    /// Compare and count, and append nothing.
    #[arg(long)]
    dry_run: bool,
    /// The folder for a temporary replica of the streams: as large as they are [default: the system's temporary
    /// folder].
    #[arg(long, value_name = "DIR")]
    temp: Option<PathBuf>,
}

#[derive(Serialize)]
struct Done {
    replicas: Vec<PathBuf>,
    dry_run: bool,
    /// Entries of the replicas.
    entries: u64,
    /// Entries among these that the streams lacked.
    missing: u64,
    /// Logs that lacked any.
    logs: u64,
}

impl Human for Done {
    fn human(&self, to: &mut dyn fmt::Write, _: &Style) -> fmt::Result {
        let Self {
            entries, missing, logs, ..
        } = self;
        match (missing, self.dry_run) {
            (0, _) => writeln!(to, "the streams have all {entries} entries of the replicas"),
            (_, true) => writeln!(to, "{missing} of {entries} entries in {logs} logs would be put back"),
            (_, false) => writeln!(
                to,
                "{missing} of {entries} entries in {logs} logs were put back, each at its offset"
            ),
        }
    }
}

pub(crate) async fn run(args: &Args, session: &Session) -> Outcome {
    let folders: Vec<Option<PathBuf>> = match &args.dirs[..] {
        [] => vec![None],
        dirs => dirs.iter().cloned().map(Some).collect(),
    };
    let loaded = &session.loaded;
    let replicas = folders.into_iter().map(|dir| Dir::new(dir).find(loaded));
    let replicas: Vec<PathBuf> = replicas.collect::<Outcome<_>>()?;
    let temp = session
        .scratch
        .folder("skytale-restore-", args.temp.as_deref(), false)?;
    let config = loaded.fleet_over(LocalConfig::new(temp.join("log")))?.ok_or_else(|| {
        Failure::new(
            Code::Config,
            "configuration key `relay.fleet.nats` is missing: this is not a fleet's relay node",
        )
        .help("A relay node with a log of its own has nothing to restore from replicas.")
    })?;
    session
        .output
        .note("the streams are followed from their beginning, and compared");
    let output = &session.output;
    let restored = Box::pin(restore(config, &replicas, args.dry_run, |so_far| {
        output.note(format_args!("  {} entries, {} missing", so_far.entries, so_far.missing));
    }));
    let restored = session
        .shutdown
        .unless(async { restored.await.map_err(refused) })
        .await?;
    let Restored { entries, missing, logs } = restored;
    session.output.give(&Done {
        replicas,
        dry_run: args.dry_run,
        entries,
        missing,
        logs,
    })?;
    if missing > 0 && !args.dry_run {
        session.output.note(
            "Now move the `log` folder of each relay node's data aside, and start the nodes: they follow the streams from the beginning.",
        );
    }
    Ok(())
}

fn refused(error: RestoreError) -> Failure {
    let failure = Failure::new(error.code(), "nothing more is put back").because(&error);
    match &error {
        RestoreError::NodesRun { .. } => failure.help("Stop every relay node of the fleet, wait 15 s, and try again."),
        RestoreError::OtherEntry { .. } => failure.help(
            "Two histories cannot be joined. Put the streams back to a copy from before the other entries, or give up what only the replica \
             has: `skytale log export` copies it out.",
        ),
        RestoreError::Gap { .. } => failure.help("A copy of the streams that is newer than the replica's first entry is needed."),
        RestoreError::Inspect(InspectError::Open(OpenError::Locked { .. })) => failure.help("Stop the node first."),
        _ => failure.help("It is safe to try again: what was put back is found there."),
    }
}
