//! `skytale demo`: the whole path, on real input, before your eyes.

mod disk;
mod report;
mod returns;
mod story;

use super::Session;
use crate::config::{Transport, is_of_servers};
use crate::output::{Failure, Outcome};
use skytale_proto::Code;
use std::path::{Path, PathBuf};

/// The largest payload, in bytes.
const PAYLOAD_BYTES_MAX: u64 = skytale_sdk::PAYLOAD_BYTES_MAX as u64;

/// Starts a node in a temporary folder, lets two of three agents exchange messages while the third is away, kills the
/// relay node in the middle of it, brings the third agent back, and compares what everyone has.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Messages that are exchanged while one agent is away.
    #[arg(long, value_name = "COUNT", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(2..=100_000_000))]
    messages: u64,
    /// Bytes of each message.
    #[arg(long, value_name = "BYTES", default_value_t = 1_024, value_parser = clap::value_parser!(u64).range(32..=PAYLOAD_BYTES_MAX))]
    payload_bytes: u64,
    /// Membership and key changes in between.
    #[arg(long, value_name = "COUNT", default_value_t = 20, value_parser = clap::value_parser!(u64).range(0..=10_000))]
    changes: u64,
    /// The number of times that the relay node is killed and started again meanwhile.
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u64).range(0..=1_000))]
    kills: u64,
    /// Agents that exchange messages; one more is away.
    #[arg(long, value_name = "COUNT", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=16))]
    senders: u64,
    /// The transport of the agents' connections; `https` shows it without UDP.
    #[arg(long, value_enum, default_value_t)]
    transport: Transport,
    /// Show instead how an agent returns: after retention has passed, from an older copy of its vault, after 100 days,
    /// behind a change that it cannot apply, and to a relay node that was put back. Say for each which messages it
    /// reads and which ones it knows to be lost.
    #[arg(long, conflicts_with_all = ["messages", "payload_bytes", "changes", "kills", "senders", "transport"])]
    returns: bool,
    /// Keep the data, and say where.
    #[arg(long)]
    keep: bool,
    /// The folder for the data [default: a temporary folder].
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

pub(crate) async fn run(args: Args, session: Session) -> Outcome {
    session.loaded.refuse_unused("demo", is_of_servers)?;
    let folder = session
        .scratch
        .folder("skytale-demo-", args.dir.as_deref(), args.keep)?;
    let kept = args.keep.then(|| folder.display().to_string());
    match args.returns {
        true => returns::show(&session, &folder, kept).await,
        false => exchange(&args, &session, &folder, kept).await,
    }
}

async fn exchange(args: &Args, session: &Session, dir: &Path, kept: Option<String>) -> Outcome {
    let told = story::tell(args, session, dir).await;
    let mut report = told.inspect_err(|_| note_kept(session, kept.as_deref()))?;
    report.kept = kept;
    session.output.give(&report)?;
    if report.ok {
        Ok(())
    } else {
        Err(Failure::new(Code::Mismatch, "the agents do not have what was sent"))
    }
}

fn note_kept(session: &Session, kept: Option<&str>) {
    if let Some(kept) = kept {
        session.output.note(format_args!("data kept in {kept}"));
    }
}
