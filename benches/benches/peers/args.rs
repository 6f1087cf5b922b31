//! The command line.

use crate::which::Which;
use anyhow::{Context as _, ensure};
use skytale_load::results::{Speed, WorkloadSource};
use skytale_workload::synth::{Profile, Size, synthesize};
use skytale_workload::{Event, Header, Reader, Source, Writer};
use std::path::PathBuf;
use std::time::Duration;

/// Runs one workload against our relay node and against its peers, in turn, and compares them.
#[derive(Debug, clap::Parser)]
pub(crate) struct Args {
    /// The workload file; without one, a profile.
    #[arg(value_name = "WORKLOAD.skw")]
    pub(crate) file: Option<PathBuf>,
    /// A workload that is made here: chatty-pair, fan-out, nightly-team, tool-swarm or reconnect-storm.
    #[arg(long, value_parser = profile, default_value = "chatty-pair", conflicts_with = "file")]
    profile: Profile,
    /// Its agents.
    #[arg(long, default_value_t = 64, value_name = "N")]
    agents: u32,
    /// Its messages a second.
    #[arg(long, default_value_t = 200, value_name = "RATE")]
    rate: u32,
    /// Its length in seconds.
    #[arg(long, default_value_t = 10, value_name = "S")]
    seconds: u64,
    /// Its seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Replay speed, as a multiple of the workload's; or `max`, as fast as each target takes it.
    #[arg(long, default_value = "1", value_parser = speed)]
    pub(crate) speed: MaybeSpeed,
    /// Under `--speed max`: how many events are open at most.
    #[arg(long, default_value_t = 256, value_name = "N")]
    pub(crate) in_flight: usize,
    /// Rounds, in each of which every target runs once.
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    repeat: u32,
    /// Two seconds and one round: does everything run?
    #[arg(long)]
    quick: bool,
    /// The targets.
    #[arg(long, value_delimiter = ',', default_value = "ours,jetstream,redis,postgres")]
    pub(crate) targets: Vec<Which>,
    /// Folder for the servers' data: on the disk that is asked about [default: the system's folder for temporary
    /// files].
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
    /// A new folder for the results of each run.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Maximum lateness of the generator itself at its 99th percentile, in milliseconds, for a run to be valid.
    #[arg(long, default_value_t = 50, value_name = "MS")]
    pub(crate) lag_max: u64,
    /// Given by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

/// A speed that clap can keep.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MaybeSpeed(pub(crate) Speed);

fn profile(text: &str) -> Result<Profile, String> {
    Profile::named(text).ok_or_else(|| {
        let names: Vec<&str> = Profile::ALL.into_iter().map(Profile::name).collect();
        format!("no such profile; there are {}", names.join(", "))
    })
}

fn speed(text: &str) -> Result<MaybeSpeed, String> {
    if text == "max" {
        return Ok(MaybeSpeed(Speed::Max));
    }
    let factor = text.parse().map_err(|_| "must be a number, or `max`".to_owned())?;
    Ok(MaybeSpeed(Speed::Factor(factor)))
}

impl Args {
    /// In each of which every target runs once.
    pub(crate) const fn rounds(&self) -> u32 {
        if self.quick { 1 } else { self.repeat }
    }

    /// The workload that is named.
    pub(crate) fn workload(&self) -> anyhow::Result<(Vec<Event>, WorkloadSource)> {
        let (bytes, name) = match &self.file {
            Some(path) => {
                let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                (bytes, name)
            }
            None => (self.synthesized()?, format!("{}.skw", self.profile.name())),
        };
        let mut reader = Reader::new(bytes.as_slice())?;
        let mut events = Vec::new();
        while let Some(event) = reader.next_event()? {
            events.push(event);
        }
        ensure!(!events.is_empty(), "the workload has no events");
        let duration = events.last().map_or(Duration::ZERO, |event| event.at);
        let source = WorkloadSource {
            name,
            blake3: blake3::hash(&bytes).to_string(),
            source: reader.header().source.to_string(),
            made_by: reader.header().made_by.clone(),
            events: events.len() as u64,
            duration_us: u64::try_from(duration.as_micros())?,
        };
        Ok((events, source))
    }

    /// A workload file, as `skytale bench synth` makes it.
    fn synthesized(&self) -> anyhow::Result<Vec<u8>> {
        let profile = self.profile;
        let size = Size {
            duration: Duration::from_secs(if self.quick { 2 } else { self.seconds }),
            agents: self.agents,
            messages_per_second: self.rate,
        };
        let made_by = format!(
            "skytale {}, profile {}, seed {}",
            env!("CARGO_PKG_VERSION"),
            profile.name(),
            self.seed
        );
        let mut writer = Writer::new(Vec::new(), &Header::new(Source::Synth, made_by))?;
        for event in synthesize(profile, size, self.seed)? {
            writer.write(&event)?;
        }
        Ok(writer.finish()?.0)
    }
}
