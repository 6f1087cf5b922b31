//! Results of a run.

use super::{KnobArgs, LoadArgs};
use skytale_load::results::{
    Machine, NodeSeries, Planned, REPORT_VERSION, Report, Results, Run, Series, Verdict, WorkloadSource,
};
use skytale_load::run::Ran;
use skytale_workload::plan::Plan;

/// Faults that the report tells in words.
const FAULTS_SHOWN: usize = 20;

pub(super) fn results(
    ran: Ran,
    plan: &Plan,
    args: &LoadArgs,
    knobs: &KnobArgs,
    source: &WorkloadSource,
    place: String,
    nodes: Vec<NodeSeries>,
) -> Results {
    let verdict = Verdict {
        valid: ran.invalid_because.is_empty(),
        invalid_because: ran.invalid_because,
        passed: ran.fault_count == 0
            && ran.verified.entries > 0
            && (ran.interrupted || ran.totals.unfinished == 0 && ran.verified.readers_short == 0),
        faults: ran.fault_count,
        first_faults: ran.faults.into_iter().take(FAULTS_SHOWN).collect(),
        interrupted: ran.interrupted,
    };
    let mut settings = args.settings(knobs);
    settings.insert("lag_max_ms".into(), (args.lag_max.as_millis() as u64).into());
    let report = Report {
        skytale_report: REPORT_VERSION,
        run: Run {
            made_by: super::super::made_by(),
            revision: option_env!("SKYTALE_REVISION").map(str::to_owned),
            command: command_line(),
            started_ms: ran.started_ms,
            target: "relay".into(),
            place,
            level: if args.mls { "agent" } else { "relay" }.into(),
            speed: knobs.speed(),
            settings,
            machine: Machine::this(),
            part: knobs.part.0,
            parts: knobs.part.1,
            joined: 1,
        },
        workload: source.clone(),
        planned: Planned {
            operations: plan.events.len() as u64,
            appends: plan.appends(),
            duration_us: u64::try_from(plan.duration.as_micros()).unwrap_or(u64::MAX),
            agents: plan.agents,
            channels: plan.channels,
            body_bytes: plan.body_bytes(),
            deliveries: plan.deliveries(),
        },
        verdict,
        totals: ran.totals,
        verified: ran.verified,
        latencies_us: std::collections::BTreeMap::new(),
        series: Series::default(),
        catch_up: ran.catch_up,
        refusals: ran
            .refusals
            .into_iter()
            .map(|(code, count)| (format!("SKY-{code}"), count))
            .collect(),
        divergence: ran.divergence,
        nodes,
    };
    Results::new(report, ran.measured)
}

/// The command line, without the values of settings: a setting may be a secret.
fn command_line() -> Vec<String> {
    let mut is_setting = false;
    let shown = |word: String| {
        let value = std::mem::replace(&mut is_setting, word == "--set");
        match word.split_once('=') {
            Some((key, _)) if value => format!("{key}=..."),
            Some(("--set", rest)) => match rest.split_once('=') {
                Some((key, _)) => format!("--set={key}=..."),
                None => word,
            },
            _ if value => "...".to_owned(),
            _ => word,
        }
    };
    std::env::args().map(shown).collect()
}
