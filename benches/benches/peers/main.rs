//! The same workload against our relay node and against its peers, on the same machine and disk, in turn.
//!
//! ```text
//!   cargo bench -p skytale-benches --bench peers -- WORKLOAD.skw --repeat 5 --out results
//! ```
//!
//! In each round every target runs once, with a fresh server in a process of its own; the first place moves on by one.
//! The result is the ratio to ours of the same round. Every run is verified; one with a fault fails the program.

mod args;
mod figures;
mod plot;
mod results;
mod which;

use anyhow::{Context as _, ensure};
use args::Args;
use clap::Parser as _;
use figures::{Figures, Rounds, table};
use skytale_benches::peers::Absent;
use skytale_benches::served::serve_relay;
use skytale_load::results::{Results, Speed};
use skytale_load::run::RunConfig;
use skytale_log_store::{LocalConfig, LocalStore};
use skytale_workload::plan::{Knobs, Plan};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Runtime;
use which::{NODE, Which, once};

/// Pause between two runs, after the writes of the one before are on disk.
const PAUSE: Duration = Duration::from_secs(1);
/// The magic number of tmpfs (`statfs(2)`).
const TMPFS: i64 = 0x0102_1994;

fn main() -> anyhow::Result<ExitCode> {
    let runtime = Runtime::new()?;
    if let Some(folder) = std::env::var_os(NODE) {
        let store = runtime.block_on(LocalStore::open(LocalConfig::new(Path::new(&folder))))?;
        serve_relay(&runtime, Arc::new(store))?;
        return Ok(ExitCode::SUCCESS);
    }
    runtime.block_on(compare(&Args::parse()))
}

#[allow(clippy::print_stdout)]
async fn compare(args: &Args) -> anyhow::Result<ExitCode> {
    let dir = args.dir.clone().unwrap_or_else(std::env::temp_dir);
    let statfs = rustix::fs::statfs(&dir).with_context(|| format!("cannot look at {}", dir.display()))?;
    ensure!(
        statfs.f_type != TMPFS,
        "{} is in memory, where a sync costs nothing; give a folder on a disk with --dir",
        dir.display()
    );
    let (events, source) = args.workload()?;
    let (speed, in_flight) = match args.speed.0 {
        Speed::Factor(factor) => (Some(factor), None),
        Speed::Max => (None, Some(args.in_flight)),
    };
    let knobs = Knobs {
        speed,
        ..Knobs::default()
    };
    knobs.check()?;
    let plan = Arc::new(Plan::new(events, &knobs)?);
    let config = RunConfig {
        in_flight,
        lag_max: Duration::from_millis(args.lag_max),
        ..RunConfig::of(plan.duration)
    };
    if let Some(out) = &args.out {
        std::fs::create_dir(out).with_context(|| format!("cannot make the folder {}", out.display()))?;
    }
    println!(
        "{}: {} agents, {} channels, {} appends, {} s planned, data in {}",
        source.name,
        plan.agents,
        plan.channels,
        plan.appends(),
        plan.duration.as_secs(),
        dir.display()
    );
    let (mut rounds, mut last) = (Rounds::new(), BTreeMap::new());
    let mut absent: Vec<(Which, Absent)> = Vec::new();
    let mut is_passed = true;
    for round in 0..args.rounds() as usize {
        let mut targets = args.targets.clone();
        let count = targets.len().max(1);
        targets.rotate_left(round % count);
        for which in targets {
            if absent.iter().any(|(other, _)| *other == which) {
                continue;
            }
            rustix::fs::sync();
            tokio::time::sleep(PAUSE).await;
            let once = match once(which, &plan, &config, &dir).await {
                Ok(once) => once,
                Err(error) => match error.downcast_ref::<Absent>() {
                    Some(missing) => {
                        println!("left out: {}: {missing}", which.name());
                        absent.push((which, *missing));
                        continue;
                    }
                    None => return Err(error.context(which.name())),
                },
            };
            let server = once.server;
            let results = results::results(once, which, &plan, args, &source);
            println!("round {}: {}", round + 1, line(which, &results));
            is_passed &= is_good(&results);
            rounds.entry(which).or_default().push(Figures::of(&results, server));
            if let Some(out) = &args.out {
                results.write(&folder(out, which, round))?;
            }
            last.entry(which).or_insert_with(Vec::new).push(results);
        }
    }
    println!("\n{}", table(&rounds));
    println!(
        "Bold: the ratio to ours of the same round, median (least .. greatest). Latencies: milliseconds from the planned time."
    );
    for (which, absent) in &absent {
        println!("left out: {}: {absent}", which.name());
    }
    if let Some(out) = &args.out {
        for (name, svg) in plot::plots(&last) {
            std::fs::write(out.join(format!("{name}.svg")), svg)?;
        }
    }
    Ok(if is_passed {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn folder(out: &Path, which: Which, round: usize) -> PathBuf {
    out.join(format!("{}-{}", which.name(), round + 1))
}

/// Nothing was lost, doubled or reordered, and all came.
fn is_good(results: &Results) -> bool {
    let report = &results.report;
    report.verdict.passed && report.verified.readers_short == 0 && report.totals.unacknowledged == 0
}

/// A run in one line.
fn line(which: Which, results: &Results) -> String {
    let report = &results.report;
    let (verdict, totals, verified) = (&report.verdict, &report.totals, &report.verified);
    let mut line = format!(
        "{}: {} of {} acknowledged, {} entries in {} channels verified by {} readers, {} short, {} faults",
        which.name(),
        totals.acknowledged,
        report.planned.appends,
        verified.entries,
        verified.channels,
        verified.readers,
        verified.readers_short,
        verdict.faults
    );
    for why in verdict.invalid_because.iter().chain(&verdict.first_faults) {
        line.push_str(&format!("\n    {why}"));
    }
    line
}
