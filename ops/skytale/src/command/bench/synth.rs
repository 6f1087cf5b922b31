//! `skytale bench synth`.

use super::{Written, duration, made_by, put, write};
use crate::output::{Failure, Outcome, Output};
use skytale_proto::Code;
use skytale_workload::synth::{Profile, Size, synthesize};
use skytale_workload::{Header, Source};
use std::path::PathBuf;
use std::time::Duration;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The profile: chatty-pair, fan-out, nightly-team, tool-swarm or reconnect-storm.
    #[arg(id = "traffic", value_name = "PROFILE", value_parser = profile)]
    profile: Profile,
    /// The workload file to write; never over another file.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The approximate number of agents.
    #[arg(long, default_value_t = 100, value_name = "N")]
    agents: u32,
    /// The length of the workload, as in 60s, 10m or 2h.
    #[arg(long, default_value = "60s", value_name = "DURATION", value_parser = duration)]
    duration: Duration,
    /// Messages a second, over all channels, while everyone is awake.
    #[arg(long, default_value_t = 100, value_name = "RATE")]
    rate: u32,
    /// Seed of the random numbers: the same seed gives the same workload.
    #[arg(long, default_value_t = 1, value_name = "SEED")]
    seed: u64,
}

fn profile(text: &str) -> Result<Profile, String> {
    Profile::named(text).ok_or_else(|| {
        let names: Vec<&str> = Profile::ALL.into_iter().map(Profile::name).collect();
        format!("no such profile; there are {}", names.join(", "))
    })
}

pub(super) fn run(args: &Args, output: &Output) -> Outcome {
    let size = Size {
        duration: args.duration,
        agents: args.agents,
        messages_per_second: args.rate,
    };
    let events = synthesize(args.profile, size, args.seed)
        .map_err(|error| Failure::new(Code::Usage, "cannot make a workload of this size").because(&error))?;
    let header = || {
        let made_by = format!("{}, profile {}, seed {}", made_by(), args.profile.name(), args.seed);
        Header::new(Source::Synth, made_by)
    };
    let (totals, file_bytes) = write(&args.file, header, |writer| {
        events.iter().try_for_each(|event| put(writer, event))
    })?;
    output.give(&Written {
        file: args.file.clone(),
        file_bytes,
        totals,
        made_up: 0,
        damaged: 0,
    })
}
