//! `skytale fleet demo`: agents talk while everything below them fails in turn.

mod dice;
mod faults;
mod judge;
mod kinds;
mod report;
mod story;
mod traffic;
mod trials;

use self::kinds::{Kind, Means};
use super::up::Size;
use crate::command::Session;
use crate::config::is_of_servers;
use crate::fleet::{Layout, Upkeep};
use crate::output::{Failure, Outcome};
use skytale_proto::Code;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Agents, at most.
const AGENTS_MAX: i64 = 16;
/// Often, so that a short run sees some of each.
const UPKEEP: Upkeep = Upkeep {
    checkpoint_every: 250,
    retention_check_s: 2,
};

/// Starts a fleet in a temporary folder, lets agents on different nodes and regions exchange messages and change the group
/// at once, kills, pauses and cuts off nodes, NATS servers and regions meanwhile, takes the API, its database, a disk and the
/// right time away, changes all keys, and compares what everyone has.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    size: Size,
    /// Agents that exchange messages.
    #[arg(long, value_name = "COUNT", default_value_t = 4, value_parser = clap::value_parser!(u8).range(2..=AGENTS_MAX))]
    agents: u8,
    /// Messages that each sends a second.
    #[arg(long, value_name = "COUNT", default_value_t = 25, value_parser = clap::value_parser!(u32).range(1..=2_000))]
    rate: u32,
    /// Bytes of each message.
    #[arg(long, value_name = "BYTES", default_value_t = 1_024, value_parser = clap::value_parser!(u32).range(32..=65_536))]
    payload_bytes: u32,
    /// The maximum duration of each fault, in seconds; the minimum is half of it.
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=120))]
    fault_s: u32,
    /// The duration of a relay node's pause, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=120))]
    pause_s: u32,
    /// The kinds of faults; may be given again [default: all that are possible on this machine, in a fleet of so many
    /// regions].
    #[arg(long = "fault", value_name = "FAULT", value_enum, value_delimiter = ',')]
    faults: Vec<Kind>,
    /// The number of times to go through the whole list of faults, each time in another order.
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    rounds: u32,
    /// Decides the order of faults, whom they hit, when, and for how long [default: a random one, which is shown].
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,
    /// Keep the data and the observations of the run, and say where.
    #[arg(long)]
    keep: bool,
    /// The folder for the data [default: a temporary folder].
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

impl Args {
    /// The faults of a round, in no order.
    fn faults(&self) -> Outcome<Vec<Kind>> {
        let means = Means::of_machine(usize::from(self.size.regions));
        if self.faults.is_empty() {
            return Ok(Kind::of(means));
        }
        self.faults.iter().try_for_each(|kind| kind.check(means))?;
        Ok(self.faults.clone())
    }
}

pub(crate) async fn run(args: &Args, session: &Session) -> Outcome {
    session.loaded.refuse_unused("fleet demo", is_of_servers)?;
    let faults = args.faults()?;
    let layout = Layout {
        upkeep: Some(UPKEEP),
        ..args.size.layout(SocketAddr::from(([127, 0, 0, 1], 0)), true)?
    };
    let folder = session
        .scratch
        .folder("skytale-fleet-", args.dir.as_deref(), args.keep)?;
    // Given up in the middle, everything that was started ends with it.
    let telling = Box::pin(story::tell(args, &faults, &layout, session, &folder));
    let told = session.shutdown.unless(telling).await;
    if args.keep {
        session.output.note(format_args!("data kept in {}", folder.display()));
    }
    let report = told?;
    session.output.give(&report)?;
    if report.ok {
        Ok(())
    } else if report.is_one_log {
        Err(
            Failure::new(Code::Environment, "the NATS servers refused relay nodes something")
                .help("What relay nodes may do is in ops/nats/accounts.conf."),
        )
    } else {
        Err(Failure::new(
            Code::Mismatch,
            "what was seen of the run cannot have happened on one log",
        ))
    }
}
