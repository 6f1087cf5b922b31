//! Results of a run.

use crate::args::Args;
use crate::which::{Once, Which};
use skytale_load::results::{
    Machine, NodeSeries, Planned, REPORT_VERSION, Report, Results, Run, Series, Speed, Verdict, WorkloadSource,
};
use skytale_workload::plan::Plan;
use std::collections::BTreeMap;

/// Faults that the report tells in words.
const FAULTS_SHOWN: usize = 20;

pub(crate) fn results(once: Once, which: Which, plan: &Plan, args: &Args, source: &WorkloadSource) -> Results {
    let ran = once.ran;
    let mut settings = BTreeMap::from([("lag_max_ms".to_owned(), args.lag_max.into())]);
    if matches!(args.speed.0, Speed::Max) {
        settings.insert("in_flight".into(), args.in_flight.into());
    }
    let report = Report {
        skytale_report: REPORT_VERSION,
        run: Run {
            made_by: format!("skytale-benches {}", env!("CARGO_PKG_VERSION")),
            revision: option_env!("SKYTALE_REVISION").map(str::to_owned),
            command: std::env::args().collect(),
            started_ms: ran.started_ms,
            target: which.name().to_owned(),
            place: "loopback".into(),
            level: "relay".into(),
            speed: args.speed.0,
            settings,
            machine: Machine::this(),
            part: 1,
            parts: 1,
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
        verdict: Verdict {
            valid: ran.invalid_because.is_empty(),
            invalid_because: ran.invalid_because,
            passed: ran.fault_count == 0,
            faults: ran.fault_count,
            first_faults: ran.faults.into_iter().take(FAULTS_SHOWN).collect(),
            interrupted: ran.interrupted,
        },
        verified: ran.verified,
        latencies_us: BTreeMap::new(),
        series: Series::default(),
        catch_up: ran.catch_up,
        refusals: ran
            .refusals
            .into_iter()
            .map(|(code, count)| (format!("SKY-{code}"), count))
            .collect(),
        divergence: ran.divergence,
        nodes: vec![NodeSeries {
            name: which.name().to_owned(),
            at_ms: vec![ran.totals.duration_us / 1_000],
            metrics: BTreeMap::from([(
                "server_processor_seconds".to_owned(),
                vec![Some(once.server.as_secs_f64())],
            )]),
        }],
        totals: ran.totals,
    };
    Results::new(report, ran.measured)
}
