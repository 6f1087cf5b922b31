//! `skytale bench run`.

mod knobs;
mod place;
mod results;
mod scrape;
mod shown;

use super::{read_events, unreadable};
use crate::command::Session;
use crate::output::{Context as _, Failure, Outcome};
use knobs::{KnobArgs, Rate};
use place::{Place, PlaceArgs};
use scrape::Scraper;
use shown::{Dry, Finished, Live};
use skytale_load::relay::RelayTarget;
use skytale_load::results::Results;
use skytale_load::run::{AgentsConfig, RunConfig, run as run_plan, run_agents};
use skytale_proto::Code;
use skytale_workload::plan::Plan;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio_util::sync::CancellationToken;

/// Replays a workload as load, measures, and verifies that nothing was lost, doubled or reordered.
///
/// Agents and channels are fresh, bodies are random bytes of the sizes in the workload, nothing is encrypted. Without --local or --fleet
/// the target is the API of the configuration and the relay nodes that it names.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The workload.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    place: PlaceArgs,
    #[command(flatten)]
    knobs: KnobArgs,
    /// Replay with real agents of the SDK, each with a vault, that encrypt and decrypt: end to end. Without it nothing is encrypted, so
    /// that the generator costs little.
    #[arg(long)]
    mls: bool,
    /// The folder for results; it must not exist [default: the workload's name and the time].
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// So many runs, one after the other, each into a folder of its own in the folder for results.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    repeat: u32,
    /// Say how long it would take, how many agents and bytes, and do nothing.
    #[arg(long)]
    dry_run: bool,
    /// When to begin (RFC 3339, as in 2026-01-31T09:00:00Z), so that several parts begin together [default: now].
    #[arg(long, value_name = "TIME", value_parser = start_at)]
    start_at: Option<SystemTime>,
    /// How long the end of a run may take without any progress.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = super::duration)]
    patience: Duration,
    /// How late the generator itself may be, at its 99th percentile, before the run is called invalid.
    #[arg(long, value_name = "DURATION", default_value = "50ms", value_parser = super::duration)]
    lag_max: Duration,
}

fn start_at(text: &str) -> Result<SystemTime, String> {
    humantime::parse_rfc3339_weak(text)
        .map_err(|error| format!("{error}; give a time in UTC, as in 2026-01-31T09:00:00Z"))
}

pub(crate) async fn run(args: Args, session: Session) -> Outcome {
    let (events, source) = read_events(&args.file)?;
    let knobs = args.knobs.knobs()?;
    knobs
        .check()
        .map_err(|error| Failure::new(Code::Usage, format!("--{error}")))?;
    let plan = Plan::new(events, &knobs)
        .map_err(|error| Failure::new(Code::Usage, "no plan can be made of this workload").because(&error))?;
    let plan = Arc::new(if args.mls { plan.for_agents() } else { plan });
    if args.dry_run {
        return session.output.give(&Dry::new(&plan, &knobs, &args.knobs));
    }
    let out = args.out.clone().unwrap_or_else(|| default_folder(&args.file));
    if out.exists() {
        return Err(
            Failure::new(Code::Environment, format!("{} exists already", out.display()))
                .help("Give another folder with --out; results are never written over others."),
        );
    }
    let mut last = Ok(());
    for number in 1..=args.repeat {
        let folder = match args.repeat {
            1 => out.clone(),
            _ => {
                std::fs::create_dir_all(&out)
                    .failing(Code::Environment, || format!("cannot make {}", out.display()))?;
                out.join(format!("run-{number}"))
            }
        };
        let results = once(&args, &session, &plan, &knobs, &source).await?;
        results.write(&folder).map_err(super::results::unwritten)?;
        let finished = Finished::new(&results, &folder);
        session.output.give(&finished)?;
        last = last.and(finished.outcome());
        if results.report.verdict.interrupted {
            break;
        }
    }
    last
}

/// The workload's name and the time, in the folder where the command runs.
fn default_folder(file: &Path) -> PathBuf {
    let stem = file.file_stem().unwrap_or_default().to_string_lossy();
    let now = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    PathBuf::from(format!("{stem}-{}", now.replace([':', '-'], "")))
}

async fn once(
    args: &Args,
    session: &Session,
    plan: &Arc<Plan>,
    knobs: &skytale_workload::plan::Knobs,
    source: &skytale_load::results::WorkloadSource,
) -> Outcome<Results> {
    let starting = Place::start(&args.place, session);
    let mut place = session.shutdown.unless(Box::pin(starting)).await?;
    let done = Box::pin(against(args, session, plan, knobs, source, &mut place)).await;
    let stopped = place.stop().await;
    let results = done?;
    stopped?;
    Ok(results)
}

async fn against(
    args: &Args,
    session: &Session,
    plan: &Arc<Plan>,
    knobs: &skytale_workload::plan::Knobs,
    source: &skytale_load::results::WorkloadSource,
    place: &mut Place,
) -> Outcome<Results> {
    let network = session.loaded.network()?;
    let config = RunConfig {
        in_flight: match args.knobs.speed {
            Rate::Max => Some(args.knobs.in_flight as usize),
            Rate::Factor(_) => None,
        },
        patience: args.patience,
        lag_max: args.lag_max,
        part: knobs.part.0,
        start_at: args.start_at,
        ..RunConfig::of(plan.duration)
    };
    let stop = CancellationToken::new();
    let scraper = Scraper::start(place.nodes(&args.place));
    let mut live = Live::new(session.output, plan);
    let place_client = place.client().clone();
    let running = async {
        let plan = Arc::clone(plan);
        if args.mls {
            let agents = AgentsConfig {
                dir: session.scratch.folder("skytale-vaults-", None, false)?,
                api: place_client,
                network,
            };
            let ran = run_agents(agents, plan, &config, stop.clone(), |progress| live.show(progress)).await;
            return ran.map_err(|error| Failure::new(Code::Environment, error.to_string()));
        }
        let target = RelayTarget::new(place_client, plan.agents, network)
            .await
            .map_err(|error| Failure::new(error.code(), "cannot open the agents' endpoints").because(&error))?;
        let target = Arc::new(target);
        let ran = run_plan(Arc::clone(&target), plan, &config, stop.clone(), |progress| {
            live.show(progress)
        })
        .await;
        target.close().await;
        ran.map_err(|error| Failure::new(Code::Environment, error.to_string()))
    };
    let faults = place.faults(&args.place);
    let ran = {
        let running = Box::pin(running);
        tokio::pin!(running);
        tokio::pin!(faults);
        let (mut is_asked, mut is_hurt) = (false, false);
        loop {
            tokio::select! {
                ran = &mut running => break ran,
                () = session.shutdown.requested(), if !is_asked => {
                    is_asked = true;
                    session.output.note("ending the run; the results are of what there is");
                    stop.cancel();
                }
                hurt = &mut faults, if !is_hurt => {
                    is_hurt = true;
                    hurt?;
                }
            }
        }
    };
    let nodes = scraper.stop().await;
    drop(live);
    Ok(results::results(ran?, plan, knobs, args, source, place, nodes))
}

impl Args {
    fn settings(&self) -> std::collections::BTreeMap<String, serde_json::Value> {
        let mut settings = self.knobs.settings();
        settings.extend(self.place.settings());
        settings
    }
}

/// What a workload is, with its events.
pub(super) fn source(
    path: &Path,
    header: &skytale_workload::Header,
    events: u64,
    duration: Duration,
) -> Outcome<skytale_load::results::WorkloadSource> {
    let mut hasher = blake3::Hasher::new();
    let mut file = std::fs::File::open(path).map_err(|error| unreadable(path)(error.into()))?;
    std::io::copy(&mut file, &mut hasher).map_err(|error| unreadable(path)(error.into()))?;
    Ok(skytale_load::results::WorkloadSource {
        name: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        blake3: hasher.finalize().to_string(),
        source: header.source.to_string(),
        made_by: header.made_by.clone(),
        events,
        duration_us: u64::try_from(duration.as_micros()).unwrap_or(u64::MAX),
    })
}
