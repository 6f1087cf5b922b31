//! `skytale demo`: the whole path, on real input, before your eyes.

mod disk;
mod report;
mod story;

use super::Session;
use crate::output::{Context as _, Failure, Outcome};
use skytale_proto::Code;
use std::path::PathBuf;

/// The largest payload, in bytes.
const PAYLOAD_BYTES_MAX: u64 = skytale_sdk::engine::PAYLOAD_BYTES_MAX as u64;

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
    /// How often the relay node is killed and started again meanwhile.
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u64).range(0..=1_000))]
    kills: u64,
    /// Agents that exchange messages; one more is away.
    #[arg(long, value_name = "COUNT", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=16))]
    senders: u64,
    /// Keep the data, and say where.
    #[arg(long)]
    keep: bool,
    /// Where the data goes [default: a temporary folder].
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

pub(crate) async fn run(args: Args, session: Session) -> Outcome {
    let making = || "cannot make a folder for the demonstration".to_owned();
    let mut builder = tempfile::Builder::new();
    builder.prefix("skytale-demo-");
    let folder = match &args.dir {
        Some(dir) => {
            crate::local::private_folder(dir)?;
            builder.tempdir_in(dir)
        }
        None => builder.tempdir(),
    };
    let mut folder = folder.failing(Code::Environment, making)?;
    folder.disable_cleanup(args.keep);
    let told = story::tell(&args, &session, folder.path()).await;
    let kept = args.keep.then(|| folder.path().display().to_string());
    match told {
        Ok(mut report) => {
            report.kept = kept;
            session.output.give(&report)?;
            if report.ok {
                Ok(())
            } else {
                Err(Failure::new(Code::Mismatch, "the agents do not have what was sent"))
            }
        }
        Err(failure) => {
            if let Some(kept) = kept {
                session.output.note(format_args!("data kept in {kept}"));
            }
            Err(failure)
        }
    }
}
