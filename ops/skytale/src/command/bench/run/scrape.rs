//! Metrics of nodes during a run.

use crate::http;
use crate::stage::{RelayProcess, Standing};
use skytale_load::results::NodeSeries;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Interval between requests to nodes.
const EVERY: Duration = Duration::from_secs(1);
/// The most samples; with more, every second one is left out.
const SAMPLES_MAX: usize = 1_200;

/// A node to be asked.
#[derive(Clone, Debug)]
pub(super) struct Source {
    name: String,
    /// A process of this machine has a number too: the system tells its processor time and memory.
    standing: watch::Receiver<Standing>,
}

impl Source {
    pub(super) fn of(name: &str, relay: &RelayProcess) -> Self {
        Self {
            name: name.to_owned(),
            standing: relay.standing(),
        }
    }

    pub(super) fn at(address: SocketAddr) -> Self {
        Self {
            name: address.to_string(),
            standing: watch::Sender::new(Standing {
                admin: Some(address),
                process: None,
            })
            .subscribe(),
        }
    }
}

/// Asks nodes until it is stopped.
pub(super) struct Scraper {
    stop: CancellationToken,
    asking: JoinHandle<Vec<NodeSeries>>,
}

impl Scraper {
    pub(super) fn start(sources: Vec<Source>) -> Self {
        let stop = CancellationToken::new();
        let asking = tokio::spawn(ask(sources, stop.clone()));
        Self { stop, asking }
    }

    pub(super) async fn stop(self) -> Vec<NodeSeries> {
        self.stop.cancel();
        self.asking.await.unwrap_or_default()
    }
}

/// Last values of the counters.
#[derive(Debug, Default)]
struct Page {
    at: Option<Instant>,
    /// Sums of series by name.
    sums: BTreeMap<String, f64>,
    /// Cumulative buckets of a histogram, by name and upper bound.
    buckets: BTreeMap<String, BTreeMap<Bound, f64>>,
    cpu: Option<Duration>,
}

/// An upper bound of a bucket, in microunits, so that it has an order.
type Bound = u64;

async fn ask(sources: Vec<Source>, stop: CancellationToken) -> Vec<NodeSeries> {
    let begun = Instant::now();
    let mut all: Vec<(Source, Page, NodeSeries)> = sources
        .into_iter()
        .map(|source| {
            let series = NodeSeries {
                name: source.name.clone(),
                ..NodeSeries::default()
            };
            (source, Page::default(), series)
        })
        .collect();
    let mut every = tokio::time::interval(EVERY);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            _ = every.tick() => {}
        }
        for (source, last, series) in &mut all {
            let page = read(source).await;
            // Rates need a page before.
            if last.at.is_some() {
                let values = compare(last, &page);
                push(series, begun.elapsed(), values);
            }
            *last = page;
        }
    }
    all.into_iter().map(|(_, _, series)| series).collect()
}

fn push(series: &mut NodeSeries, at: Duration, values: BTreeMap<String, f64>) {
    if series.at_ms.len() >= SAMPLES_MAX {
        halve(&mut series.at_ms);
        series.metrics.values_mut().for_each(halve);
    }
    let before = series.at_ms.len();
    series.at_ms.push(u64::try_from(at.as_millis()).unwrap_or(u64::MAX));
    for (name, value) in values {
        let all = series.metrics.entry(name).or_default();
        all.resize(before, None);
        all.push(Some(value));
    }
    for all in series.metrics.values_mut() {
        all.resize(before + 1, None);
    }
}

/// Leaves out every second one.
fn halve<V>(values: &mut Vec<V>) {
    let mut number = 0;
    values.retain(|_| {
        number += 1;
        number % 2 == 0
    });
}

async fn read(source: &Source) -> Page {
    let mut page = Page {
        at: Some(Instant::now()),
        ..Page::default()
    };
    let Standing { admin, process } = *source.standing.borrow();
    if let Some(admin) = admin
        && let Ok((200, text)) = http::get(admin, "/metrics").await
    {
        parse(&text, &mut page);
    }
    if let Some(process) = process {
        page.cpu = cpu(process);
        if let Some(bytes) = memory(process) {
            page.sums.insert("memory_bytes".into(), bytes as f64);
        }
    }
    page
}

fn parse(text: &str, page: &mut Page) {
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some((series, value)) = line.rsplit_once(' ') else {
            continue;
        };
        let Ok(value) = value.parse::<f64>() else { continue };
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        if let Some(name) = name.strip_suffix("_bucket") {
            let bound = labels.split("le=\"").nth(1).and_then(|rest| rest.split('"').next());
            if let Some(bound) = bound.and_then(|bound| bound.parse::<f64>().ok()) {
                let bound = if bound.is_finite() {
                    (bound * 1e6) as u64
                } else {
                    u64::MAX
                };
                *page
                    .buckets
                    .entry(name.to_owned())
                    .or_default()
                    .entry(bound)
                    .or_default() += value;
            }
            continue;
        }
        let is_wanted = match name {
            "skytale_relay_verdicts_total" => labels.contains("\"appended\""),
            _ => true,
        };
        if is_wanted {
            *page.sums.entry(name.to_owned()).or_default() += value;
        }
    }
}

/// Returns the figures of the report from two pages.
fn compare(last: &Page, page: &Page) -> BTreeMap<String, f64> {
    let mut values = BTreeMap::new();
    let (Some(then), Some(now)) = (last.at, page.at) else {
        return values;
    };
    let seconds = now.duration_since(then).as_secs_f64().max(1e-3);
    let sum = |page: &Page, name: &str| page.sums.get(name).copied();
    // A node that was restarted counts from nothing.
    let grown = |name: &str| Some((sum(page, name)? - sum(last, name)?).max(0.0));
    let mut put = |name: &str, value: Option<f64>| {
        if let Some(value) = value {
            values.insert(name.to_owned(), value);
        }
    };
    put(
        "memory_bytes",
        sum(page, "memory_bytes").or_else(|| sum(page, "process_resident_memory_bytes")),
    );
    let cpu = match (last.cpu, page.cpu) {
        (Some(before), Some(now)) => Some(now.saturating_sub(before).as_secs_f64()),
        _ => grown("process_cpu_seconds_total"),
    };
    put("processors_used", cpu.map(|used| used / seconds));
    put("sessions", sum(page, "skytale_relay_sessions"));
    put(
        "appends_per_s",
        grown("skytale_relay_verdicts_total").map(|count| count / seconds),
    );
    put(
        "replay_bytes_per_s",
        grown("skytale_relay_replay_bytes_total").map(|bytes| bytes / seconds),
    );
    put(
        "reader_lag_entries_max",
        sum(page, "skytale_relay_reader_lag_entries_max"),
    );
    put(
        "follower_lag_messages",
        sum(page, "skytale_fleet_follower_lag_messages"),
    );
    for (name, metric, unit) in [
        ("sync_p99_ms", "skytale_store_sync_seconds", 1e3),
        ("publish_p99_ms", "skytale_fleet_publish_seconds", 1e3),
        ("batch_frames_p50", "skytale_store_batch_frames", 1.0),
        ("publish_batch_frames_p50", "skytale_fleet_publish_batch_frames", 1.0),
    ] {
        let share = if name.contains("p99") { 0.99 } else { 0.5 };
        put(
            name,
            quantile(last.buckets.get(metric), page.buckets.get(metric), share).map(|value| value * unit),
        );
    }
    values
}

/// The upper bound of the bucket in which a quantile of the values between two pages lies.
fn quantile(last: Option<&BTreeMap<Bound, f64>>, page: Option<&BTreeMap<Bound, f64>>, share: f64) -> Option<f64> {
    let page = page?;
    let before = |bound: &Bound| last.and_then(|last| last.get(bound)).copied().unwrap_or(0.0);
    let all = page
        .get(&u64::MAX)
        .map(|count| count - before(&u64::MAX))
        .filter(|count| *count > 0.0)?;
    let (bound, _) = page
        .iter()
        .find(|(bound, count)| *count - before(bound) >= all * share)?;
    let greatest = page.keys().rfind(|bound| **bound != u64::MAX)?;
    Some(*bound.min(greatest) as f64 / 1e6)
}

/// The processor time that a process of this machine has used.
fn cpu(process: u32) -> Option<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name may hold anything, in parentheses. The system's clock ticks at 100 Hz for everybody who reads this file.
    let mut fields = stat.rsplit_once(") ")?.1.split(' ').skip(11);
    let (user, system): (u64, u64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some(Duration::from_millis((user + system) * 10))
}

/// The memory that a process of this machine holds, in bytes.
fn memory(process: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    line.split_whitespace()
        .nth(1)?
        .parse::<u64>()
        .ok()
        .map(|kilobytes| kilobytes * 1_024)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(text: &str, at: Instant) -> Page {
        let mut page = Page {
            at: Some(at),
            ..Page::default()
        };
        parse(text, &mut page);
        page
    }

    #[test]
    fn rates_and_quantiles_are_of_what_came_between_two_pages() {
        let now = Instant::now();
        let before = page(
            "skytale_relay_verdicts_total{verdict=\"appended\"} 100\nskytale_relay_verdicts_total{verdict=\"refused\"} 7\n\
             skytale_store_sync_seconds_bucket{le=\"0.001\"} 90\nskytale_store_sync_seconds_bucket{le=\"+Inf\"} 90\n",
            now,
        );
        let after = page(
            "skytale_relay_verdicts_total{verdict=\"appended\"} 300\nskytale_relay_sessions 4\n\
             skytale_store_sync_seconds_bucket{le=\"0.001\"} 91\nskytale_store_sync_seconds_bucket{le=\"0.01\"} 100\n\
             skytale_store_sync_seconds_bucket{le=\"+Inf\"} 100\n",
            now + Duration::from_secs(2),
        );
        let values = compare(&before, &after);
        assert_eq!(values["appends_per_s"], 100.0);
        assert_eq!(values["sessions"], 4.0);
        assert_eq!(values["sync_p99_ms"], 10.0);
    }

    #[test]
    fn this_process_has_used_time_and_memory() {
        let process = std::process::id();
        assert!(memory(process).expect("memory") > 100_000);
        cpu(process).expect("a time");
    }
}
