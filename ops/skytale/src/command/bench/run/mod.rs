//! `skytale bench run`.

mod knobs;
mod place;
mod results;
mod scrape;
mod shown;

pub(super) use knobs::KnobArgs;

use super::results::unwritten;
use super::{read_events, unreadable};
use crate::command::Session;
use crate::config::is_of_servers;
use crate::output::{Context as _, Failure, Outcome};
pub(super) use place::Side;
use place::{Place, PlaceArgs};
use scrape::Scraper;
use shown::{Dry, Finished, Live};
use skytale_load::relay::RelayTarget;
use skytale_load::results::{NodeSeries, Results, WorkloadSource};
use skytale_load::run::{AgentsConfig, Progress, Ran, RunConfig, run as run_plan, run_agents};
use skytale_proto::Code;
use skytale_workload::Event;
use skytale_workload::plan::Plan;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Replays a workload as load, measures, and verifies that nothing was lost, doubled or reordered.
///
/// Agents and channels are fresh, bodies are random bytes of the sizes in the workload, nothing is encrypted. Without --local or --fleet
/// the target is the API of the configuration and the relay nodes that it names.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    load: LoadArgs,
    /// Run N times, one after the other, each into its own folder in the folder for results.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    repeat: u32,
    /// Say how long it would take, how many agents and bytes, and do nothing.
    #[arg(long)]
    dry_run: bool,
    /// The time to begin (RFC 3339, as in 2026-01-31T09:00:00Z), so that several parts begin together [default: now].
    #[arg(long, value_name = "TIME", value_parser = start_at)]
    start_at: Option<SystemTime>,
}

/// Workload of a run, and its place.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct LoadArgs {
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
    /// Keep the order in which the workload has the entries of a channel: a frame waits until those of other authors before it are
    /// acknowledged. Without it frames that are planned within a round trip may change places.
    #[arg(long)]
    keep_order: bool,
    /// The folder for results; it must not exist [default: the workload's name and the time].
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// End the run if nothing is acknowledged or delivered for so long after the last planned event. Such a run does not pass.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = super::duration)]
    patience: Duration,
    /// The maximum lateness of the generator itself, at its 99th percentile, for a run to be valid.
    #[arg(long, value_name = "DURATION", default_value = "50ms", value_parser = super::duration)]
    lag_max: Duration,
}

fn start_at(text: &str) -> Result<SystemTime, String> {
    let time = humantime::parse_rfc3339_weak(text)
        .map_err(|error| format!("{error}; give a time in UTC, as in 2026-01-31T09:00:00Z"))?;
    match time > SystemTime::now() {
        true => Ok(time),
        false => Err("this time is over".into()),
    }
}

pub(crate) async fn run(args: Args, session: Session) -> Outcome {
    session.loaded.refuse_unused("bench run", is_of_servers)?;
    let workload = Workload::read(&args.load)?;
    if args.dry_run {
        let plan = workload.plan(&args.load.knobs)?;
        return session.output.give(&Dry::new(&plan, &args.load.knobs));
    }
    let plan = Arc::new(workload.plan(&args.load.knobs)?);
    args.load.place.check(&plan, args.load.knobs.factor().is_some())?;
    let out = args.load.out()?;
    let two = args.load.place.has_two();
    let mut last = Ok(());
    for number in 1..=args.repeat {
        // The order is turned round each time, so that the first has no advantage.
        let sides: &[Side] = match (two, number % 2) {
            (false, _) => &[Side::A],
            (true, 1) => &[Side::A, Side::B],
            (true, _) => &[Side::B, Side::A],
        };
        for side in sides {
            let name = format!("run-{number}");
            let folder = match (two, side, args.repeat) {
                (false, _, 1) => out.clone(),
                (false, ..) => in_folder(&out, &name)?,
                (true, Side::A, _) => in_folder(&out.join("a"), &name)?,
                (true, Side::B, _) => in_folder(&out.join("b"), &name)?,
            };
            let results = once(
                &args.load,
                &args.load.knobs,
                *side,
                &session,
                &workload,
                &plan,
                args.start_at,
            )
            .await?;
            results.write(&folder).map_err(unwritten)?;
            let finished = Finished::new(&results, &folder);
            session.output.give(&finished)?;
            last = last.and(finished.outcome());
            if results.report.verdict.interrupted {
                // The results are written; the process ends as one that was interrupted.
                return last.and(session.shutdown.unless(std::future::pending()).await);
            }
        }
    }
    if two {
        let (a, b) = (out.join("a"), out.join("b"));
        session.output.note(format_args!(
            "Compare them: skytale bench compare {} {}",
            a.display(),
            b.display()
        ));
    }
    last
}

/// A folder in one that is made where it is missing.
pub(super) fn in_folder(out: &Path, name: &str) -> Outcome<PathBuf> {
    std::fs::create_dir_all(out).failing(Code::Environment, || format!("cannot make {}", out.display()))?;
    Ok(out.join(name))
}

impl LoadArgs {
    /// The folder for results: it is not there yet.
    pub(super) fn out(&self) -> Outcome<PathBuf> {
        let out = self.out.clone().unwrap_or_else(|| {
            let stem = self.file.file_stem().unwrap_or_default().to_string_lossy();
            let now = humantime::format_rfc3339_millis(SystemTime::now()).to_string();
            let part = match self.knobs.part {
                (_, 1) => String::new(),
                (part, parts) => format!("-part-{part}-of-{parts}"),
            };
            PathBuf::from(format!("{stem}-{}{part}", now.replace([':', '-'], "")))
        });
        if out.exists() {
            let failure = Failure::new(Code::Environment, format!("{} exists already", out.display()));
            return Err(failure.help("Give another folder with --out; results are never written over others."));
        }
        // A folder that cannot be made is not found out after the run.
        std::fs::create_dir_all(&out)
            .and_then(|()| std::fs::remove_dir(&out))
            .failing(Code::Environment, || format!("cannot make {}", out.display()))?;
        Ok(out)
    }

    pub(super) const fn knobs(&self) -> &KnobArgs {
        &self.knobs
    }

    fn settings(&self, knobs: &KnobArgs) -> BTreeMap<String, serde_json::Value> {
        let mut settings = knobs.settings();
        settings.extend(self.place.settings());
        settings.insert("keep_order".into(), self.keep_order.into());
        settings
    }
}

/// A workload, read as a whole.
pub(super) struct Workload {
    events: Vec<Event>,
    source: WorkloadSource,
    mls: bool,
}

impl Workload {
    pub(super) fn read(args: &LoadArgs) -> Outcome<Self> {
        let (events, source) = read_events(&args.file)?;
        Ok(Self {
            events,
            source,
            mls: args.mls,
        })
    }

    pub(super) fn plan(&self, knobs: &KnobArgs) -> Outcome<Plan> {
        let knobs = knobs.knobs();
        knobs
            .check()
            .map_err(|error| Failure::new(Code::Usage, format!("--{error}")))?;
        let plan = Plan::new(self.events.clone(), &knobs)
            .map_err(|error| Failure::new(Code::Usage, "no plan can be made of this workload").because(&error))?;
        Ok(if self.mls { plan.for_agents() } else { plan })
    }

    /// Returns the length of the schedule of all parts: their results have intervals of one length.
    fn whole(&self, knobs: &KnobArgs, plan: &Plan) -> Outcome<Duration> {
        if knobs.part.1 == 1 {
            return Ok(plan.duration);
        }
        let whole = knobs.whole();
        Ok(self.plan(&whole)?.duration)
    }
}

/// One run, with servers of its own where it has any.
pub(super) async fn once(
    args: &LoadArgs,
    knobs: &KnobArgs,
    side: Side,
    session: &Session,
    workload: &Workload,
    plan: &Arc<Plan>,
    start_at: Option<SystemTime>,
) -> Outcome<Results> {
    let starting = Place::start(&args.place, side, session);
    let mut place = session.shutdown.unless(Box::pin(starting)).await?;
    let config = RunConfig {
        in_flight: knobs.in_flight(),
        patience: args.patience,
        lag_max: args.lag_max,
        keep_order: args.keep_order,
        part: knobs.part.0,
        start_at,
        ..RunConfig::of(workload.whole(knobs, plan)?)
    };
    let done = Box::pin(against(args, session, plan, &config, &mut place)).await;
    let name = place.name().to_owned();
    if let Err(failure) = place.stop().await {
        // The measurements are not lost with it.
        session.output.note(failure.text(session.output.style()));
    }
    let (ran, nodes) = done?;
    Ok(results::results(ran, plan, args, knobs, &workload.source, name, nodes))
}

async fn against(
    args: &LoadArgs,
    session: &Session,
    plan: &Arc<Plan>,
    config: &RunConfig,
    place: &mut Place,
) -> Outcome<(Ran, Vec<NodeSeries>)> {
    let network = session.loaded.network()?;
    let stop = CancellationToken::new();
    let scraper = Scraper::start(place.nodes(&args.place));
    let mut live = Live::new(session.output, plan);
    let client = place.client().clone();
    let began = Notify::new();
    let mut each = |progress: &Progress| {
        began.notify_one();
        live.show(progress);
    };
    let running = async {
        let plan = Arc::clone(plan);
        if args.mls {
            let agents = AgentsConfig {
                dir: session.scratch.folder("skytale-vaults-", args.place.data(), false)?,
                api: client,
                network,
            };
            let ran = run_agents(agents, plan, config, stop.clone(), &mut each).await;
            return ran.map_err(|error| Failure::new(Code::Environment, error.to_string()));
        }
        let target = RelayTarget::new(client, plan.agents, network)
            .await
            .map_err(|error| Failure::new(error.code(), "cannot open the agents' endpoints").because(&error))?;
        let target = Arc::new(target);
        let ran = run_plan(Arc::clone(&target), plan, config, stop.clone(), &mut each).await;
        target.close().await;
        ran.map_err(|error| Failure::new(Code::Environment, error.to_string()))
    };
    let faults = place.faults(&args.place, &began);
    let mut is_hurt = false;
    let ran = {
        let running = Box::pin(running);
        tokio::pin!(running);
        tokio::pin!(faults);
        let mut is_asked = false;
        loop {
            tokio::select! {
                ran = &mut running => break ran,
                () = session.shutdown.requested(), if !is_asked => {
                    is_asked = true;
                    session.output.note("ending the run; writing the results of what has run so far");
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
    let ran = ran?;
    if !is_hurt && args.place.hurts() {
        session
            .output
            .note("the run ended before --kill-at or --stall-at was done");
    }
    Ok((ran, nodes))
}

/// Returns the source of a workload, with its events.
pub(super) fn source(
    path: &Path,
    header: &skytale_workload::Header,
    events: u64,
    duration: Duration,
) -> Outcome<WorkloadSource> {
    let mut hasher = blake3::Hasher::new();
    let mut file = std::fs::File::open(path).map_err(|error| unreadable(path)(error.into()))?;
    std::io::copy(&mut file, &mut hasher).map_err(|error| unreadable(path)(error.into()))?;
    Ok(WorkloadSource {
        name: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        blake3: hasher.finalize().to_string(),
        source: header.source.to_string(),
        made_by: header.made_by.clone(),
        events,
        duration_us: u64::try_from(duration.as_micros()).unwrap_or(u64::MAX),
    })
}
