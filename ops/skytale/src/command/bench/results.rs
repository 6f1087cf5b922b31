//! Results of load runs, as commands read, write and show them.

use crate::output::{Failure, Style, printable, table};
use skytale_load::results::{
    LATENCY_HEADS, ReadError, Results, WriteError, amount, duration_text, latency_rows, verdict_words,
};
use skytale_proto::Code;
use std::fmt;

/// A run for a person: the verdict, rates, latencies.
pub(super) fn show(to: &mut dyn fmt::Write, style: &Style, results: &Results) -> fmt::Result {
    let report = &results.report;
    for (is_bad, text) in verdict_words(report) {
        let text = printable(&text);
        writeln!(to, "{}", if is_bad { style.bad(&text) } else { text })?;
    }
    let totals = &report.totals;
    writeln!(
        to,
        "{} of {} appends acknowledged in {} ({} messages/s), {} entries delivered ({}/s)",
        totals.acknowledged,
        report.planned.appends,
        duration_text(totals.duration_us as f64),
        amount(totals.acknowledged_per_s),
        totals.delivered,
        amount(totals.delivered_per_s)
    )?;
    let rows = latency_rows(&results.measured);
    if !rows.is_empty() {
        writeln!(to)?;
        table(to, style, &LATENCY_HEADS, rows)?;
    }
    if !report.refusals.is_empty() {
        writeln!(to)?;
        let row = |(code, times): (&String, &u64)| vec![code.clone(), times.to_string()];
        table(to, style, &["refused", "times"], report.refusals.iter().map(row))?;
    }
    Ok(())
}

/// Results that cannot be read.
pub(super) fn unread(error: ReadError) -> Failure {
    let code = match error {
        ReadError::Missing { .. } | ReadError::NoResults { .. } => Code::NotFound,
        ReadError::Io { .. } => Code::Environment,
        _ => Code::BadRequest,
    };
    Failure::new(code, "cannot read the results")
        .because(&error)
        .help(error.help())
}

/// Results that cannot be written.
pub(super) fn unwritten(error: WriteError) -> Failure {
    Failure::new(Code::Environment, "cannot write the results")
        .because(&error)
        .help(error.help())
}
