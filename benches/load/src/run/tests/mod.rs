//! Runs against a target that does one thing wrong: the run says so.

mod memory;

use super::{Ran, RunConfig, run};
use crate::results::{Count, Histogram64, Measure, histogram};
use memory::{Memory, Plant, STALL};
use skytale_workload::plan::{Knobs, Plan};
use skytale_workload::synth::{Profile, Size, synthesize};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

const AGENTS: u32 = 6;

async fn ran(memory: &Memory, profile: Profile, seconds: u64) -> Ran {
    ran_with(memory, profile, seconds, false).await
}

async fn ran_with(memory: &Memory, profile: Profile, seconds: u64, keep_order: bool) -> Ran {
    let size = Size {
        duration: Duration::from_secs(seconds),
        agents: AGENTS,
        messages_per_second: 200,
    };
    let events = synthesize(profile, size, 7).expect("a workload");
    let plan = Arc::new(Plan::new(events, &Knobs::default()).expect("a plan"));
    let config = RunConfig {
        patience: Duration::from_secs(2),
        keep_order,
        ..RunConfig::of(plan.duration)
    };
    let stop = CancellationToken::new();
    run(Arc::new(memory.clone()), plan, &config, stop, |_| {})
        .await
        .expect("it runs")
}

/// The faults of a run with something planted.
async fn faults(plant: Plant) -> Vec<String> {
    let ran = ran(&Memory::with(Some(plant)), Profile::ChattyPair, 1).await;
    assert!(ran.fault_count > 0, "{plant:?} was not seen");
    ran.faults
}

fn says(faults: &[String], what: &str) -> bool {
    faults.iter().any(|fault| fault.contains(what))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clean_run_of_each_profile_has_no_fault() {
    for profile in Profile::ALL {
        let ran = ran(&Memory::with(None), profile, 1).await;
        assert_eq!(ran.faults, Vec::<String>::new(), "{}", profile.name());
        assert_eq!(ran.verified.readers_short, 0);
        assert!(
            ran.verified.entries > 20 && ran.verified.readers > 0,
            "{:?}",
            ran.verified
        );
        assert_eq!(ran.totals.acknowledged, ran.totals.sent);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_entry_is_named() {
    let faults = faults(Plant::Lose).await;
    assert!(says(&faults, "was not shown") || says(&faults, "was due"), "{faults:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entry_delivered_twice_is_named() {
    let faults = faults(Plant::Twice).await;
    assert!(says(&faults, " is at "), "{faults:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entries_in_another_order_are_named() {
    let faults = faults(Plant::Swap).await;
    assert!(says(&faults, ", which comes before it"), "{faults:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_bytes_for_one_reader_are_named() {
    let faults = faults(Plant::Alter).await;
    assert!(says(&faults, "or their bytes differ"), "{faults:?}");
}

/// A reader whose sessions are lost has not read what it was to read, even between two of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_that_never_hear_again_are_short() {
    let memory = Memory::with(Some(Plant::Deaf));
    let ran = ran(&memory, Profile::FanOut, 1).await;
    // If the author lost its session first, nothing came that they could miss: then it has not done what was due.
    let is_short = ran.verified.readers_short >= u64::from(AGENTS) - 1;
    assert!(
        is_short || ran.totals.unfinished > 0,
        "{:?} {:?}",
        ran.verified,
        ran.totals
    );
    assert!(ran.totals.sessions_lost > 0);
}

/// Events that are due during a stall count as late as they are, although the target gets few requests meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stall_shows_in_latencies_although_little_was_in_flight() {
    let memory = Memory::with(Some(Plant::Stall));
    let ran = ran(&memory, Profile::ChattyPair, 5).await;
    assert_eq!(ran.fault_count, 0, "{:?}", ran.faults);
    let appends = &ran.measured.latencies[&Measure::Append];
    let mut whole = histogram();
    for interval in appends {
        whole.add(interval).expect("the same bounds");
    }
    let second_us = 1_000_000;
    assert!(whole.value_at_quantile(0.99) > second_us);
    // The one that was under way when it began.
    assert!(u128::from(whole.max()) >= STALL.as_micros());
    let is_late = |interval: &&Histogram64| interval.value_at_quantile(0.99) > second_us;
    assert!(appends.iter().any(|interval| is_late(&interval)));
    // A generator that waited for the target would have noted as many late appends as were in flight: one an agent.
    let late = whole.len() - whole.count_between(1, second_us);
    assert!(memory.in_flight_max() <= AGENTS as usize, "{}", memory.in_flight_max());
    assert!(late > 10 * u64::from(AGENTS), "{late}");
    let counts = &ran.measured.counts;
    let stalled = counts[&Count::Planned].iter().zip(&counts[&Count::Acknowledged]);
    let stalled = stalled.filter(|(planned, acknowledged)| **planned > 0 && **acknowledged == 0);
    assert!(stalled.count() >= 15);
    assert!(counts[&Count::Backlog].iter().max() > Some(&(20 * u64::from(AGENTS))));
}

/// The author of what was lost with a session waits for the answer to it: so nobody goes on before it was sent again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_author_that_waits_for_its_turn_sends_again_what_its_session_lost() {
    let memory = Memory::with(Some(Plant::Sever));
    let ran = ran_with(&memory, Profile::ChattyPair, 2, true).await;
    assert_eq!(ran.faults, Vec::<String>::new());
    assert_eq!(ran.totals.sessions_lost, 1);
    assert_eq!(ran.totals.unfinished, 0, "{:?}", ran.totals);
    assert_eq!(ran.totals.acknowledged, ran.totals.sent);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_on_a_session_that_a_refusal_ended_is_made_on_the_next_one() {
    let memory = Memory::with(Some(Plant::RefuseClaims));
    let ran = ran(&memory, Profile::ReconnectStorm, 1).await;
    assert_eq!(ran.faults, Vec::<String>::new());
    assert!(ran.totals.sessions_lost > 0, "no session was lost: nothing was tested");
    assert_eq!(ran.totals.given_up, 0);
}
