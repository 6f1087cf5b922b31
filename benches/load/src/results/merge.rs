//! Joins the results of the parts of one run.

use super::measured::{INTERVALS_MAX, add};
use super::{
    CatchUp, Count, Difference, Histogram64, Machine, Measured, NodeSeries, Report, Results, Totals, Verdict, alike,
    compute, histogram,
};
use std::collections::{BTreeMap, BTreeSet};

/// The most faults that joined results tell in words.
const FIRST_FAULTS_MAX: usize = 20;

/// Maximum ratio of the intervals of joined results to the longest interval of a part.
const LONGER_MAX: u64 = 60;

/// Reason why results cannot be joined.
#[derive(Debug, thiserror::Error)]
pub enum MergeError {
    /// There is nothing to join.
    #[error("there are no results")]
    Nothing,
    /// A part is missing.
    #[error("part {part} of {parts} is missing")]
    Missing {
        /// Its number.
        part: u32,
        /// Parts of the run.
        parts: u32,
    },
    /// A part is there twice.
    #[error("part {part} is there twice")]
    Twice {
        /// Its number.
        part: u32,
    },
    /// A part with a number that its run cannot have.
    #[error("part {part} of {parts} is not a part")]
    NoPart {
        /// Its number.
        part: u32,
        /// Parts of its run.
        parts: u32,
    },
    /// They are not of one run.
    #[error("they are not parts of one run: {0}")]
    Unlike(Difference),
    /// A part began after another one had ended.
    #[error("part {late} began after part {early} had ended")]
    Apart {
        /// The part that ended.
        early: u32,
        /// The part that began later.
        late: u32,
    },
}

impl MergeError {
    /// Returns the suggested fix.
    pub const fn help(&self) -> &'static str {
        match self {
            Self::Nothing | Self::Missing { .. } => "Name the folders of all parts of the run.",
            Self::Twice { .. } | Self::NoPart { .. } => "Name the folder of each part once.",
            Self::Unlike(_) => "Join parts of one run only; compare different runs with `skytale bench compare`.",
            Self::Apart { .. } => "Start all parts at the same time, on machines whose clocks agree.",
        }
    }
}

/// Joins the results of all parts of a run: values, counts and sums are added exactly. Parts are aligned by the time at which they began, to
/// a whole interval.
///
/// Parts whose intervals are not of one length are joined to the shortest length that all of them divide.
pub fn merge(mut parts: Vec<Results>) -> Result<Results, MergeError> {
    parts.sort_by_key(|part| part.report.run.part);
    check(&parts)?;
    let interval_ms = common_ms(&parts)?;
    for part in &mut parts {
        let width = interval_ms / compute::interval_ms(&part.measured);
        part.measured.join(usize::try_from(width).unwrap_or(usize::MAX));
    }
    apart(&parts, interval_ms)?;
    let base_ms = parts.iter().map(|part| part.report.run.started_ms).min().unwrap_or(0);
    let shift_ms = |report: &Report| report.run.started_ms.saturating_sub(base_ms);
    let mut parts = parts.into_iter();
    let Some(first) = parts.next() else {
        return Err(MergeError::Nothing);
    };
    let shift = shift_ms(&first.report);
    let mut joined = Joined::new(first, shift);
    for part in parts {
        let shift = shift_ms(&part.report);
        joined.add(part, shift);
    }
    Ok(joined.finish(base_ms))
}

fn check(parts: &[Results]) -> Result<(), MergeError> {
    let Some(first) = parts.first() else {
        return Err(MergeError::Nothing);
    };
    let a = &first.report;
    for part in parts.iter().skip(1) {
        let b = &part.report;
        let mut found = [alike::load(a, b), alike::target(a, b)].concat();
        if a.run.parts != b.run.parts {
            found.push(difference("run.parts", a.run.parts, b.run.parts));
        }
        if let Some(found) = found.into_iter().next() {
            return Err(MergeError::Unlike(found));
        }
    }
    let of = a.run.parts;
    let mut expected = 1;
    for part in parts.iter().map(|part| part.report.run.part) {
        match part {
            part if part == 0 || part > of => return Err(MergeError::NoPart { part, parts: of }),
            part if part < expected => return Err(MergeError::Twice { part }),
            part if part > expected => {
                return Err(MergeError::Missing {
                    part: expected,
                    parts: of,
                });
            }
            _ => expected += 1,
        }
    }
    if expected <= of {
        return Err(MergeError::Missing {
            part: expected,
            parts: of,
        });
    }
    Ok(())
}

/// Refuses parts of which one began after another one had ended.
fn apart(parts: &[Results], interval_ms: u64) -> Result<(), MergeError> {
    let end_ms = |report: &Report| report.run.started_ms.saturating_add(report.totals.duration_us / 1_000);
    let early = parts.iter().min_by_key(|part| end_ms(&part.report));
    let late = parts.iter().max_by_key(|part| part.report.run.started_ms);
    let base_ms = parts.iter().map(|part| part.report.run.started_ms).min().unwrap_or(0);
    let shift_ms_max = interval_ms.saturating_mul(INTERVALS_MAX as u64);
    let is_apart = |early: &Results, late_ms: u64| {
        late_ms > end_ms(&early.report) || late_ms.saturating_sub(base_ms) > shift_ms_max
    };
    match (early, late) {
        (Some(early), Some(late)) if is_apart(early, late.report.run.started_ms) => Err(MergeError::Apart {
            early: early.report.run.part,
            late: late.report.run.part,
        }),
        _ => Ok(()),
    }
}

/// The length of an interval that each part's length divides.
fn common_ms(parts: &[Results]) -> Result<u64, MergeError> {
    let mut common: u64 = 1;
    let mut longest = 1;
    for part in parts {
        let next = compute::interval_ms(&part.measured);
        let divisor = divisor(common, next);
        longest = next.max(longest);
        common = (common / divisor).saturating_mul(next);
    }
    if common <= longest.saturating_mul(LONGER_MAX) {
        return Ok(common);
    }
    let lengths = parts.iter().map(|part| compute::interval_ms(&part.measured));
    let (least, most) = (lengths.clone().min(), lengths.max());
    let (least, most) = (least.unwrap_or_default(), most.unwrap_or_default());
    Err(MergeError::Unlike(difference(
        "series.measured_interval_ms",
        least,
        most,
    )))
}

/// The greatest common divisor (Euclid).
fn divisor(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { divisor(b, a % b) }
}

fn difference(field: &str, a: impl ToString, b: impl ToString) -> Difference {
    Difference {
        field: field.to_owned(),
        a: a.to_string(),
        b: b.to_string(),
    }
}

/// Results that others are added to.
struct Joined {
    report: Report,
    measured: Measured,
    /// Acknowledged messages: the rate of each part times its time.
    messages: f64,
    machines: Vec<Machine>,
    parts: u32,
}

impl Joined {
    fn new(first: Results, shift_ms: u64) -> Self {
        let Results { report, measured } = first;
        let mut empty = Report {
            skytale_report: report.skytale_report,
            run: report.run.clone(),
            workload: report.workload.clone(),
            verdict: Verdict {
                valid: true,
                passed: true,
                ..Verdict::default()
            },
            ..Report::default()
        };
        empty.run.joined = 0;
        empty.totals.first_planned_us = u64::MAX;
        let mut joined = Self {
            report: empty,
            measured: Measured {
                interval: measured.interval,
                latencies: BTreeMap::new(),
                counts: BTreeMap::new(),
            },
            messages: 0.0,
            machines: Vec::new(),
            parts: report.run.parts,
        };
        joined.add(Results { report, measured }, shift_ms);
        joined
    }

    fn add(&mut self, part: Results, shift_ms: u64) {
        let Results { report, measured } = part;
        let interval_ms = compute::interval_ms(&self.measured);
        let shift = usize::try_from(shift_ms.saturating_add(interval_ms / 2) / interval_ms).unwrap_or(usize::MAX);
        for (measure, intervals) in measured.latencies {
            add_histograms(self.measured.latencies.entry(measure).or_default(), intervals, shift);
        }
        for (count, values) in measured.counts {
            add_counts(count, self.measured.counts.entry(count).or_default(), &values, shift);
        }
        let number = report.run.part;
        let into = &mut self.report;
        into.run.joined = into.run.joined.saturating_add(report.run.joined.max(1));
        self.messages += report.totals.acknowledged_per_s * report.totals.appending_s();
        add_totals(&mut into.totals, &report.totals, shift_ms.saturating_mul(1_000));
        add_verdict(&mut into.verdict, report.verdict, (self.parts > 1).then_some(number));
        let (a, b) = (&mut into.planned, &report.planned);
        a.operations = a.operations.saturating_add(b.operations);
        a.appends = a.appends.saturating_add(b.appends);
        a.duration_us = a.duration_us.max(b.duration_us);
        a.agents = a.agents.saturating_add(b.agents);
        a.channels = a.channels.saturating_add(b.channels);
        a.body_bytes = a.body_bytes.saturating_add(b.body_bytes);
        a.deliveries = a.deliveries.saturating_add(b.deliveries);
        let (a, b) = (&mut into.verified, &report.verified);
        a.channels = a.channels.saturating_add(b.channels);
        a.entries = a.entries.saturating_add(b.entries);
        a.readers = a.readers.saturating_add(b.readers);
        a.readers_short = a.readers_short.saturating_add(b.readers_short);
        a.readers_left = a.readers_left.saturating_add(b.readers_left);
        add_map(&mut into.refusals, report.refusals);
        let (a, b) = (&mut into.divergence, report.divergence);
        // Each part tells those of the whole workload.
        for (code, count) in b.captured_refusals {
            let most = a.captured_refusals.entry(code).or_default();
            *most = count.max(*most);
        }
        a.commits_lost = a.commits_lost.saturating_add(b.commits_lost);
        a.messages_outrun = a.messages_outrun.saturating_add(b.messages_outrun);
        a.claims_without_package = a.claims_without_package.saturating_add(b.claims_without_package);
        a.impossible = a.impossible.saturating_add(b.impossible);
        into.catch_up.extend(report.catch_up.into_iter().map(|one| CatchUp {
            at_ms: one.at_ms.saturating_add(shift_ms),
            ..one
        }));
        for node in report.nodes {
            add_node(&mut into.nodes, node, shift_ms);
        }
        if !self.machines.contains(&report.run.machine) {
            self.machines.push(report.run.machine);
        }
    }

    fn finish(self, started_ms: u64) -> Results {
        let mut report = self.report;
        report.run.started_ms = started_ms;
        (report.run.part, report.run.parts) = (1, 1);
        report.run.machine = together(self.machines);
        let totals = &mut report.totals;
        if totals.first_planned_us == u64::MAX {
            totals.first_planned_us = 0;
        }
        let appending_s = totals.appending_s();
        let per_second = |count: f64, seconds: f64| if seconds > 0.0 { count / seconds } else { 0.0 };
        totals.acknowledged_per_s = per_second(self.messages, appending_s);
        totals.delivered_per_s = per_second(totals.delivered as f64, totals.duration_us as f64 / 1e6);
        report.nodes.sort_by(|a, b| a.name.cmp(&b.name));
        Results::new(report, self.measured)
    }
}

impl Totals {
    /// The seconds from the first planned append to the last acknowledgement: what `acknowledged_per_s` is of.
    pub fn appending_s(&self) -> f64 {
        self.appending_us.saturating_sub(self.first_planned_us) as f64 / 1e6
    }
}

fn add_histograms(to: &mut Vec<Histogram64>, from: Vec<Histogram64>, shift: usize) {
    for (index, interval) in from.into_iter().enumerate() {
        let at = index.saturating_add(shift);
        while to.len() < at {
            to.push(histogram());
        }
        match to.get_mut(at) {
            Some(to) => add(to, &interval),
            None => to.push(interval),
        }
    }
}

/// Adds counts. Events that were still due when a part ended stay due; its sessions have ended.
fn add_counts(count: Count, to: &mut Vec<u64>, from: &[u64], shift: usize) {
    let last = |values: &[u64]| match count {
        Count::Backlog => values.last().copied().unwrap_or(0),
        _ => 0,
    };
    let (to_last, from_last) = (last(to), last(from));
    let end = from.len().saturating_add(shift);
    if to.len() < end {
        to.resize(end, to_last);
    }
    for (index, to) in to.iter_mut().enumerate().skip(shift) {
        let value = from.get(index - shift).copied().unwrap_or(from_last);
        *to = to.saturating_add(value);
    }
}

fn add_totals(to: &mut Totals, from: &Totals, shift_us: u64) {
    to.duration_us = to.duration_us.max(from.duration_us.saturating_add(shift_us));
    if from.appending_us > 0 {
        to.appending_us = to.appending_us.max(from.appending_us.saturating_add(shift_us));
        to.first_planned_us = to.first_planned_us.min(from.first_planned_us.saturating_add(shift_us));
    }
    to.sent = to.sent.saturating_add(from.sent);
    to.acknowledged = to.acknowledged.saturating_add(from.acknowledged);
    to.acknowledged_bytes = to.acknowledged_bytes.saturating_add(from.acknowledged_bytes);
    to.delivered = to.delivered.saturating_add(from.delivered);
    to.delivered_bytes = to.delivered_bytes.saturating_add(from.delivered_bytes);
    to.again = to.again.saturating_add(from.again);
    to.given_up = to.given_up.saturating_add(from.given_up);
    to.unacknowledged = to.unacknowledged.saturating_add(from.unacknowledged);
    to.impossible = to.impossible.saturating_add(from.impossible);
    to.unfinished = to.unfinished.saturating_add(from.unfinished);
    to.sessions = to.sessions.saturating_add(from.sessions);
    to.sessions_lost = to.sessions_lost.saturating_add(from.sessions_lost);
    to.generator_lag_p99_us = to.generator_lag_p99_us.max(from.generator_lag_p99_us);
    to.generator_cpu_us = to.generator_cpu_us.saturating_add(from.generator_cpu_us);
}

fn add_verdict(to: &mut Verdict, from: Verdict, part: Option<u32>) {
    let told = |text: String| match part {
        Some(part) => format!("part {part}: {text}"),
        None => text,
    };
    to.valid &= from.valid;
    to.passed &= from.passed;
    to.interrupted |= from.interrupted;
    to.faults = to.faults.saturating_add(from.faults);
    to.invalid_because.extend(from.invalid_because.into_iter().map(told));
    let room = FIRST_FAULTS_MAX.saturating_sub(to.first_faults.len());
    to.first_faults
        .extend(from.first_faults.into_iter().map(told).take(room));
}

fn add_map(to: &mut BTreeMap<String, u64>, from: BTreeMap<String, u64>) {
    for (name, count) in from {
        let sum = to.entry(name).or_default();
        *sum = sum.saturating_add(count);
    }
}

/// All parts ask the same nodes: the most frequent ones are kept.
fn add_node(to: &mut Vec<NodeSeries>, mut node: NodeSeries, shift_ms: u64) {
    for at in &mut node.at_ms {
        *at = at.saturating_add(shift_ms);
    }
    match to.iter_mut().find(|known| known.name == node.name) {
        Some(known) if known.at_ms.len() >= node.at_ms.len() => {}
        Some(known) => *known = node,
        None => to.push(node),
    }
}

/// One machine that stands for all of them. Machines that are alike in everything count once: they may be the same one.
fn together(machines: Vec<Machine>) -> Machine {
    let names = |of: fn(&Machine) -> &String| {
        let names: BTreeSet<&str> = machines.iter().map(|machine| of(machine).as_str()).collect();
        names.into_iter().collect::<Vec<_>>().join(" and ")
    };
    Machine {
        system: names(|machine| &machine.system),
        processor: names(|machine| &machine.processor),
        processors: machines
            .iter()
            .fold(0, |sum: u32, machine| sum.saturating_add(machine.processors)),
        memory_bytes: machines
            .iter()
            .fold(0, |sum: u64, machine| sum.saturating_add(machine.memory_bytes)),
    }
}

#[cfg(test)]
mod tests;
