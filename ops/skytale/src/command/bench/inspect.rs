//! `skytale bench inspect`.

use super::{unreadable, write_page};
use crate::output::{Context as _, Human, Outcome, Output, Style, printable, table};
use crate::time::utc;
use serde::Serialize;
use skytale_proto::Code;
use skytale_workload::report::{Line, Page, Part, Plot};
use skytale_workload::{End, Header, Reader, Series, Spread, Summarizer, Summary};
use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The workload file.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Write a page of HTML too; never over another file.
    #[arg(long, value_name = "PAGE")]
    html: Option<PathBuf>,
}

pub(super) fn run(args: &Args, output: &Output) -> Outcome {
    let path = &args.file;
    let file = File::open(path).failing(Code::Environment, || format!("cannot open {}", path.display()))?;
    let mut reader = Reader::new(file).map_err(unreadable(path))?;
    let mut summarizer = Summarizer::default();
    while let Some(event) = reader.next_event().map_err(unreadable(path))? {
        summarizer.add(&event);
    }
    let is_whole = reader.end() == Some(&End::Whole);
    let summary = summarizer.finish();
    let inspected = Inspected::new(reader.header().clone(), is_whole, &summary);
    if let Some(to) = &args.html {
        write_page(to, &inspected.page(path, &summary))?;
    }
    output.give(&inspected)
}

/// A distribution, in its unit.
#[derive(Serialize)]
struct Quantiles {
    count: u64,
    mean: f64,
    p50: u64,
    p90: u64,
    p99: u64,
    max: u64,
}

impl Quantiles {
    fn of(spread: &Spread) -> Option<Self> {
        (!spread.is_empty()).then(|| Self {
            count: spread.len(),
            mean: spread.mean(),
            p50: spread.quantile(0.5),
            p90: spread.quantile(0.9),
            p99: spread.quantile(0.99),
            max: spread.max(),
        })
    }
}

/// A count over time.
#[derive(Serialize)]
struct OverTime {
    bucket_s: f64,
    messages_per_s: Vec<f64>,
    bytes_per_s: Vec<f64>,
}

#[derive(Serialize)]
struct Inspected {
    header: Header,
    /// False where the file was cut: the rest is of what there is.
    whole: bool,
    events: u64,
    duration_s: f64,
    kinds: BTreeMap<&'static str, u64>,
    agents: usize,
    channels: usize,
    online_max: usize,
    body_bytes: u64,
    delivered_bytes: u64,
    messages_per_s: f64,
    messages_in_one_second_max: u64,
    message_bytes: Option<Quantiles>,
    readers: Option<Quantiles>,
    channel_messages: Option<Quantiles>,
    away_ms: Option<Quantiles>,
    backlog: Option<Quantiles>,
    refused: BTreeMap<u32, u64>,
    over_time: OverTime,
}

impl Inspected {
    fn new(header: Header, whole: bool, summary: &Summary) -> Self {
        let duration_s = summary.duration.as_secs_f64();
        let messages: u64 = summary.messages.values().iter().sum();
        Self {
            header,
            whole,
            events: summary.events,
            duration_s,
            kinds: summary.kinds.clone(),
            agents: summary.agents,
            channels: summary.channels,
            online_max: summary.online_max,
            body_bytes: summary.body_bytes,
            delivered_bytes: summary.delivered_bytes,
            messages_per_s: if duration_s > 0.0 {
                messages as f64 / duration_s
            } else {
                0.0
            },
            messages_in_one_second_max: summary.second_max,
            message_bytes: Quantiles::of(&summary.message_bytes),
            readers: Quantiles::of(&summary.fan_out),
            channel_messages: Quantiles::of(&summary.channel_messages),
            away_ms: Quantiles::of(&summary.away_ms),
            backlog: Quantiles::of(&summary.backlog),
            refused: summary.refused.clone(),
            over_time: OverTime {
                bucket_s: summary.messages.bucket().as_secs_f64(),
                messages_per_s: summary.messages.per_second().collect(),
                bytes_per_s: summary.bytes.per_second().collect(),
            },
        }
    }
}

/// Remark on a file that was cut.
const CUT: &str = "this is what there is up to the cut";
const HEADS: [&str; 7] = ["", "count", "mean", "p50", "p90", "p99", "max"];

impl Inspected {
    fn origin(&self) -> String {
        let made = &self.header;
        let mut text = format!("{} by {}", made.source, printable(&made.made_by));
        if let Some(start) = made.start_ms {
            text += &format!(", from {}", utc(start / 1_000));
        }
        if made.sample < 1.0 {
            text += &format!(", {} of all channels", made.sample);
        }
        text
    }

    fn sizes(&self) -> [String; 2] {
        [
            format!(
                "{} events in {:.1} s; {} agents ({} online at once at most), {} channels",
                self.events, self.duration_s, self.agents, self.online_max, self.channels
            ),
            format!(
                "{} bytes of bodies, {} with each reader's",
                self.body_bytes, self.delivered_bytes
            ),
        ]
    }

    fn spreads(&self) -> Vec<Vec<String>> {
        let spreads = [
            ("message bytes", &self.message_bytes),
            ("readers of a message", &self.readers),
            ("messages of a channel", &self.channel_messages),
            ("away, ms", &self.away_ms),
            ("backlog at return, entries", &self.backlog),
        ];
        let row = |(name, spread): (&str, &Option<Quantiles>)| {
            let spread = spread.as_ref()?;
            let numbers = [spread.p50, spread.p90, spread.p99, spread.max].map(|number| number.to_string());
            let mut row = vec![name.to_owned(), spread.count.to_string(), format!("{:.1}", spread.mean)];
            row.extend(numbers);
            Some(row)
        };
        spreads.into_iter().filter_map(row).collect()
    }

    fn counts(&self) -> Vec<Vec<String>> {
        let row = |(kind, count): (&&str, &u64)| vec![(*kind).to_owned(), count.to_string()];
        self.kinds.iter().map(row).collect()
    }

    fn refusals(&self) -> Vec<Vec<String>> {
        let row = |(code, count): (&u32, &u64)| vec![format!("SKY-{code}"), count.to_string()];
        self.refused.iter().map(row).collect()
    }

    fn page(&self, path: &Path, summary: &Summary) -> Page {
        let mut parts = vec![Part::Text(self.origin())];
        if !self.whole {
            parts.push(Part::Bad(format!("The file was cut: {CUT}.")));
        }
        parts.extend(self.sizes().map(Part::Text));
        for (title, unit, series) in [
            ("Messages over time", "messages/s", &summary.messages),
            ("Bytes over time", "bytes/s", &summary.bytes),
            ("Sessions that begin", "sessions/s", &summary.connects),
        ] {
            if !series.values().is_empty() {
                parts.extend([
                    Part::Heading(title.into()),
                    Part::Plot(over_time(title, unit, series, summary.duration)),
                ]);
            }
        }
        let mut table = |title: &str, heads: &[&str], rows: Vec<Vec<String>>| {
            if !rows.is_empty() {
                let heads = heads.iter().map(|head| (*head).to_owned()).collect();
                parts.extend([Part::Heading(title.into()), Part::Table { heads, rows }]);
            }
        };
        table("Distributions", &HEADS, self.spreads());
        table("Events", &["kind", "events"], self.counts());
        table("Refusals", &["code", "times"], self.refusals());
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
        Page {
            title: format!("Workload {name}"),
            parts,
        }
    }
}

/// All plots of a page have the same times.
fn over_time(title: &str, unit: &str, series: &Series, duration: Duration) -> Plot {
    let bucket = series.bucket().as_secs_f64();
    let buckets = (duration.as_secs_f64() / bucket).ceil().max(1.0) as usize;
    let values = series.per_second().chain(std::iter::repeat(0.0));
    let points = values.take(buckets).enumerate();
    Plot {
        title: title.to_owned(),
        x_unit: "seconds".into(),
        y_unit: unit.to_owned(),
        lines: vec![Line {
            label: title.to_owned(),
            points: points
                .map(|(number, value)| ((number as f64 + 0.5) * bucket, value))
                .collect(),
        }],
        ..Plot::default()
    }
}

/// Columns of the plot of rates.
const COLUMNS: usize = 60;
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Rates as one line of bars, the greatest of each column.
fn plot(values: &[f64]) -> String {
    let width = values.len().div_ceil(COLUMNS).max(1);
    let columns: Vec<f64> = values
        .chunks(width)
        .map(|column| column.iter().copied().fold(0.0, f64::max))
        .collect();
    let max = columns.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
    let bar = |value: &f64| {
        let level = (value / max * 7.0).round() as usize;
        BARS.get(level).copied().unwrap_or('█')
    };
    columns.iter().map(bar).collect()
}

impl Human for Inspected {
    fn human(&self, to: &mut dyn fmt::Write, style: &Style) -> fmt::Result {
        writeln!(to, "{}", self.origin())?;
        if !self.whole {
            writeln!(to, "{} {CUT}", style.bad("the file was cut:"))?;
        }
        for line in self.sizes() {
            writeln!(to, "{line}")?;
        }
        writeln!(to, "\n{}", style.bold("Messages"))?;
        writeln!(
            to,
            "{:.1}/s on average, {} in the busiest second",
            self.messages_per_s, self.messages_in_one_second_max
        )?;
        writeln!(to, "{}\n", plot(&self.over_time.messages_per_s))?;
        table(to, style, &HEADS, self.spreads())?;
        writeln!(to)?;
        table(to, style, &["kind", "events"], self.counts())?;
        if !self.refused.is_empty() {
            writeln!(to)?;
            table(to, style, &["refused", "times"], self.refusals())?;
        }
        Ok(())
    }
}
