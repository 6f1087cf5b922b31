//! Results in words and in rows of tables, for pages and terminals.

use super::{Measure, Measured, Report, Speed, Verdict};

/// Heads of [`latency_rows`].
pub const LATENCY_HEADS: [&str; 7] = ["latency", "count", "p50", "p90", "p99", "p99.9", "max"];

/// A duration in microseconds with three digits and a sensible unit: `870 µs`, `12.3 ms`, `1.25 s`, `95.0 s`.
pub fn duration_text(us: f64) -> String {
    match us {
        us if us < 999.5 => format!("{us:.0} µs"),
        us if us < 999_500.0 => format!("{} ms", three(us / 1e3)),
        us => format!("{} s", three(us / 1e6)),
    }
}

/// A number with three digits at least: `0.125`, `12.5`, `1250`.
pub fn amount(value: f64) -> String {
    if value == 0.0 { "0".to_owned() } else { three(value) }
}

fn three(value: f64) -> String {
    match value.abs() {
        small if small < 0.9995 => format!("{value:.3}"),
        small if small < 9.995 => format!("{value:.2}"),
        small if small < 99.95 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

/// A size: `870 B`, `12.3 KiB`, `1.25 GiB`.
pub fn bytes_text(bytes: u64) -> String {
    let mut value = bytes as f64;
    if value < 1_024.0 {
        return format!("{bytes} B");
    }
    let mut units = ["KiB", "MiB", "GiB", "TiB"].into_iter();
    let mut unit = units.next().unwrap_or_default();
    value /= 1_024.0;
    while value >= 1_023.5 {
        let Some(next) = units.next() else { break };
        (value, unit) = (value / 1_024.0, next);
    }
    format!("{} {unit}", three(value))
}

/// A row for each latency that was measured, under [`LATENCY_HEADS`].
pub fn latency_rows(measured: &Measured) -> Vec<Vec<String>> {
    let row = |measure: Measure| {
        let whole = measured.whole(measure)?;
        let mut row = vec![words(measure).to_owned(), whole.len().to_string()];
        let quantiles = [0.5, 0.9, 0.99, 0.999].map(|share| whole.value_at_quantile(share));
        row.extend(
            quantiles
                .into_iter()
                .chain([whole.max()])
                .map(|us| duration_text(us as f64)),
        );
        Some(row)
    };
    Measure::ALL.into_iter().filter_map(row).collect()
}

/// A latency in words.
pub(super) const fn words(measure: Measure) -> &'static str {
    match measure {
        Measure::Append => "append acknowledged",
        Measure::Delivered => "delivered",
        Measure::CaughtUp => "caught up",
        Measure::Connected => "connected",
        Measure::Token => "token",
        Measure::SendDelay => "send delay",
    }
}

/// Sums over the run, as names and values.
pub fn total_rows(report: &Report) -> Vec<Vec<String>> {
    let totals = &report.totals;
    let seconds = |us: u64| duration_text(us as f64);
    let share = match totals.duration_us {
        0 => 0.0,
        duration => totals.generator_cpu_us as f64 / duration as f64,
    };
    let rows = [
        ("duration", seconds(totals.duration_us)),
        (
            "appends planned, sent, acknowledged",
            format!("{}, {}, {}", report.planned.appends, totals.sent, totals.acknowledged),
        ),
        ("messages acknowledged a second", amount(totals.acknowledged_per_s)),
        ("bodies acknowledged", bytes_text(totals.acknowledged_bytes)),
        ("sent again", totals.again.to_string()),
        ("given up after refusals", totals.given_up.to_string()),
        ("not acknowledged at the end", totals.unacknowledged.to_string()),
        (
            "due and not done at the end, not possible",
            format!("{}, {}", totals.unfinished, totals.impossible),
        ),
        ("entries delivered", totals.delivered.to_string()),
        ("entries delivered a second", amount(totals.delivered_per_s)),
        ("bodies delivered", bytes_text(totals.delivered_bytes)),
        (
            "sessions, lost",
            format!("{}, {}", totals.sessions, totals.sessions_lost),
        ),
        (
            "processor time of the generator",
            format!("{} ({share:.2} processors)", seconds(totals.generator_cpu_us)),
        ),
        (
            "verified channels, entries, readers",
            format!(
                "{}, {}, {}",
                report.verified.channels, report.verified.entries, report.verified.readers
            ),
        ),
        (
            "readers short of the end, that left before",
            format!("{}, {}", report.verified.readers_short, report.verified.readers_left),
        ),
    ];
    rows.into_iter()
        .map(|(name, value)| vec![name.to_owned(), value])
        .collect()
}

/// The verdict in sentences; true for those that say that something is wrong.
pub fn verdict_words(report: &Report) -> Vec<(bool, String)> {
    let Verdict {
        valid,
        invalid_because,
        passed,
        faults,
        first_faults,
        interrupted,
    } = &report.verdict;
    let mut words = Vec::new();
    if *valid {
        words.push((false, "Valid: the generator kept to the plan.".to_owned()));
    } else {
        let because = match invalid_because.is_empty() {
            true => "no reason is given".to_owned(),
            false => invalid_because.join("; "),
        };
        words.push((
            true,
            format!("Not valid, so no figure says anything of the target: {because}."),
        ));
    }
    let checked = &report.verified;
    if *passed {
        let text = format!(
            "Passed: {} readers agree on all {} entries of {} channels. Nothing was lost, doubled, reordered or forked.",
            checked.readers, checked.entries, checked.channels
        );
        words.push((false, text));
    } else {
        let mut why = Vec::new();
        if *faults > 0 {
            why.push(format!("{faults} faults"));
        }
        if report.totals.unfinished > 0 {
            why.push(format!("{} operations were due and not done", report.totals.unfinished));
        }
        if checked.readers_short > 0 {
            why.push(format!(
                "{} readers did not get all that was acknowledged",
                checked.readers_short
            ));
        }
        if why.is_empty() {
            why.push("no fault was found, but nothing was verified either".to_owned());
        }
        words.push((true, format!("Not passed: {}.", why.join("; "))));
    }
    words.extend(first_faults.iter().map(|fault| (true, format!("Fault: {fault}"))));
    if *interrupted {
        words.push((true, "Interrupted: the plan was not done.".to_owned()));
    }
    if report.run.speed == Speed::Max {
        let text = "Speed max: each operation waits for the target, so there are no latencies to compare.".to_owned();
        words.push((false, text));
    }
    words
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    #[test]
    fn numbers_have_three_digits_and_a_sensible_unit() {
        for (us, text) in [
            (0.0, "0 µs"),
            (870.0, "870 µs"),
            (999.6, "1.00 ms"),
            (12_345.0, "12.3 ms"),
            (999_499.0, "999 ms"),
            (1_250_000.0, "1.25 s"),
            (95_000_000.0, "95.0 s"),
            (3.6e9, "3600 s"),
        ] {
            assert_eq!(duration_text(us), text);
        }
        for (bytes, text) in [
            (870, "870 B"),
            (12_600, "12.3 KiB"),
            (1_048_575, "1.00 MiB"),
            (5 << 30, "5.00 GiB"),
        ] {
            assert_eq!(bytes_text(bytes), text);
        }
        for (value, text) in [(0.0, "0"), (0.1254, "0.125"), (9.999, "10.0"), (1_250.4, "1250")] {
            assert_eq!(amount(value), text);
        }
    }

    #[test]
    fn a_bad_run_says_why() {
        let mut report = sample::results(1, 20).report;
        assert!(verdict_words(&report).iter().all(|(is_bad, _)| !is_bad));
        report.verdict = Verdict {
            invalid_because: vec!["the generator was 2 s late".into()],
            faults: 3,
            first_faults: vec!["entry 7 is missing".into()],
            interrupted: true,
            ..Verdict::default()
        };
        let words = verdict_words(&report);
        assert!(words.iter().all(|(is_bad, _)| *is_bad));
        let all: String = words.into_iter().map(|(_, text)| text).collect();
        for told in ["2 s late", "3 faults", "entry 7", "Interrupted"] {
            assert!(all.contains(told), "{all}");
        }
    }

    #[test]
    fn rows_fit_their_heads() {
        let results = sample::results(1, 60);
        let rows = latency_rows(&results.measured);
        assert_eq!(rows.len(), Measure::ALL.len());
        assert!(rows.iter().all(|row| row.len() == LATENCY_HEADS.len()));
        assert!(total_rows(&results.report).iter().all(|row| row.len() == 2));
    }
}
