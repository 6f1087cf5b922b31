//! Ours against the limit, in turn.
//!
//! ```text
//!   ours  limit | limit  ours | ours  limit | ...        each pair gives one ratio
//! ```
//!
//! Criterion decides how many pairs, and reports each side; the closing table gives the median of the pairs' ratios
//! with the least and the greatest. `CPU` is how many times the limit's processor time ours took, all threads of the
//! process together: it tells work from waiting, and a busy machine changes it less.

use crate::stopwatch::Took;
use criterion::{Criterion, SamplingMode, Throughput};
use std::fmt;
use std::time::Duration;

/// Tools for one run of a benchmark: criterion, its size, and the table that closes it.
pub struct Bench {
    criterion: Criterion,
    title: String,
    rows: Vec<Row>,
    notes: Vec<String>,
}

/// A case: the measurement, its unit, and its aim.
#[derive(Clone, Debug)]
pub struct Case {
    /// Its name in criterion's report and in the table.
    pub name: String,
    /// Work of one turn, of either side.
    pub work: Work,
    /// Aim for the ratio.
    pub aim: Aim,
    /// Pairs that criterion takes for each side, at least 10.
    pub pairs: usize,
}

/// Work of one turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// A number of elements of so many bytes each: the ratio is one of rates, ours / limit.
    Elements {
        /// Number of elements.
        count: u64,
        /// Each one's length, in bytes.
        bytes: u64,
    },
    /// One thing after another, each waited for: a turn's time is that of one. The ratio is one of times, ours / limit.
    Latency,
}

/// Aim for a ratio.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Aim {
    /// At least this part of the limit's rate.
    AtLeast(f64),
    /// At most this many times the limit's time.
    AtMost(f64),
    /// No aim: it is there to explain another.
    None,
}

/// Times of both sides of one pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair {
    /// Ours.
    pub ours: Took,
    /// The limit's.
    pub limit: Took,
}

#[derive(Debug)]
struct Row {
    name: String,
    work: Work,
    aim: Aim,
    pairs: Vec<Pair>,
}

/// Whether `--quick` was given: then cases are small, and figures only tell that everything runs.
pub fn quick() -> bool {
    std::env::args().any(|argument| argument == "--quick")
}

/// `full`, or `quick` where `--quick` was given.
pub fn sized<T>(full: T, quick_size: T) -> T {
    if quick() { quick_size } else { full }
}

/// Whether a case is to be measured: all are, unless the command line has a part of a name.
pub fn wanted(name: &str) -> bool {
    let mut arguments = std::env::args().skip(1);
    let only = arguments.find(|argument| !argument.starts_with('-'));
    only.is_none_or(|only| name.contains(&only))
}

impl Bench {
    /// A benchmark, with criterion's own arguments taken from the command line.
    pub fn new(title: &'static str) -> Self {
        let criterion = Criterion::default()
            .without_plots()
            .warm_up_time(Duration::from_millis(sized(500, 50)))
            .measurement_time(Duration::from_secs(sized(3, 1)))
            .configure_from_args();
        Self {
            criterion,
            ..Self::tabled(title)
        }
    }

    /// A benchmark whose cases are all measured elsewhere, and that reads no arguments: see [`Bench::add`].
    pub fn tabled(title: impl Into<String>) -> Self {
        Self {
            criterion: Criterion::default().without_plots(),
            title: title.into(),
            rows: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// Measures a case. Each call of `turn` runs one side once and returns its time; other work (setting up, checking)
    /// is not measured.
    pub fn versus(&mut self, case: Case, mut turn: impl FnMut(Side) -> Took) {
        let mut pairs = Vec::new();
        let mut group = self.criterion.benchmark_group(&case.name);
        group.sample_size(case.pairs.max(10)).sampling_mode(SamplingMode::Flat);
        if let Work::Elements { count, bytes } = case.work {
            group.throughput(Throughput::ElementsAndBytes {
                elements: count,
                bytes: count * bytes,
            });
        }
        for side in [Side::Ours, Side::Limit] {
            group.bench_function(side.name(), |bencher| {
                bencher.iter_custom(|iterations| {
                    let mut total = Duration::ZERO;
                    for _ in 0..iterations {
                        let pair = in_turn(pairs.len(), &mut turn);
                        pairs.push(pair);
                        total += pair.of(side).wall;
                    }
                    total
                });
            });
        }
        group.finish();
        self.add(case, pairs);
    }

    /// Adds a case whose pairs were measured elsewhere.
    pub fn add(&mut self, case: Case, pairs: Vec<Pair>) {
        // The first pair warms up what criterion cannot know of.
        let pairs = if pairs.len() > 1 { pairs[1..].to_vec() } else { pairs };
        if !pairs.is_empty() {
            self.rows.push(Row {
                name: case.name,
                work: case.work,
                aim: case.aim,
                pairs,
            });
        }
    }

    /// A line under the table.
    pub fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    /// Prints the table.
    #[allow(clippy::print_stdout)]
    pub fn close(self) {
        self.criterion.final_summary();
        println!("{self}");
    }
}

impl fmt::Debug for Bench {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bench")
            .field("title", &self.title)
            .field("rows", &self.rows)
            .finish_non_exhaustive()
    }
}

/// Side of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The measured side.
    Ours,
    /// The side that it is measured against.
    Limit,
}

impl Side {
    const fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Limit => "limit",
        }
    }
}

impl Pair {
    const fn of(&self, side: Side) -> Took {
        match side {
            Side::Ours => self.ours,
            Side::Limit => self.limit,
        }
    }
}

/// One pair; the first side changes with its number.
pub fn in_turn(number: usize, turn: &mut impl FnMut(Side) -> Took) -> Pair {
    if number.is_multiple_of(2) {
        let ours = turn(Side::Ours);
        let limit = turn(Side::Limit);
        Pair { ours, limit }
    } else {
        let limit = turn(Side::Limit);
        let ours = turn(Side::Ours);
        Pair { ours, limit }
    }
}

impl Row {
    fn ratio(&self, pair: &Pair) -> f64 {
        let (ours, limit) = (pair.ours.wall.as_secs_f64(), pair.limit.wall.as_secs_f64());
        match self.work {
            Work::Elements { .. } => limit / ours,
            Work::Latency => ours / limit,
        }
    }

    /// Returns the ratio of our work on the processor to the limit's; `None` if that was not measured.
    fn processor(&self) -> Option<f64> {
        let ratio = |pair: &Pair| Some(pair.ours.cpu?.as_secs_f64() / pair.limit.cpu?.as_secs_f64());
        let ratios: Option<Vec<f64>> = self.pairs.iter().map(ratio).collect();
        ratios.map(|ratios| median(ratios.into_iter()))
    }

    fn figure(&self, side: Side) -> String {
        let time = median(self.pairs.iter().map(|pair| pair.of(side).wall.as_secs_f64()));
        match self.work {
            Work::Elements { count, bytes } => {
                let rate = count as f64 / time;
                format!("{}/s, {:.0} MiB/s", thousands(rate), rate * bytes as f64 / 1_048_576.0)
            }
            Work::Latency => format!("{:.1} µs", time * 1e6),
        }
    }
}

impl fmt::Display for Bench {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head = [
            "", "ratio", "least", "greatest", "aim", "", "ours", "limit", "CPU", "pairs",
        ]
        .map(String::from);
        let mut lines = vec![head];
        for row in &self.rows {
            let ratios = || row.pairs.iter().map(|pair| row.ratio(pair));
            let middle = median(ratios());
            let (aim, held) = match row.aim {
                Aim::AtLeast(least) => (format!(">= {least}"), Some(middle >= least)),
                Aim::AtMost(most) => (format!("<= {most}"), Some(middle <= most)),
                Aim::None => (String::new(), None),
            };
            lines.push([
                row.name.clone(),
                format!("{middle:.2}"),
                format!("{:.2}", ratios().fold(f64::INFINITY, f64::min)),
                format!("{:.2}", ratios().fold(0.0, f64::max)),
                aim,
                held.map_or("", |held| if held { "reached" } else { "MISSED" }).into(),
                row.figure(Side::Ours),
                row.figure(Side::Limit),
                row.processor().map_or_else(String::new, |times| format!("{times:.2}x")),
                row.pairs.len().to_string(),
            ]);
        }
        let mut widths = [0; 10];
        for line in &lines {
            for (width, cell) in widths.iter_mut().zip(line) {
                *width = cell.chars().count().max(*width);
            }
        }
        writeln!(f, "\n{}", self.title)?;
        for line in &lines {
            for (index, (width, cell)) in widths.iter().zip(line).enumerate() {
                if index == 0 {
                    write!(f, "  {cell:<width$}")?;
                } else {
                    write!(f, "  {cell:>width$}")?;
                }
            }
            writeln!(f)?;
        }
        self.notes.iter().try_for_each(|note| writeln!(f, "  {note}"))
    }
}

/// The middle value; 0 of none.
pub fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => 0.0,
        length if length % 2 == 1 => values[length / 2],
        length => f64::midpoint(values[length / 2 - 1], values[length / 2]),
    }
}

fn thousands(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn took(seconds: u64) -> Took {
        Took {
            wall: Duration::from_secs(seconds),
            cpu: Some(Duration::from_secs(3 * seconds)),
        }
    }

    #[test]
    fn the_median_is_the_middle_of_the_values() {
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()), 2.0);
        assert_eq!(median([4.0, 1.0, 2.0, 3.0].into_iter()), 2.5);
        assert_eq!(median(std::iter::empty()), 0.0);
    }

    #[test]
    fn sides_take_turns_at_going_first() {
        let mut order = Vec::new();
        let mut turn = |side| {
            order.push(side);
            took(1)
        };
        in_turn(0, &mut turn);
        in_turn(1, &mut turn);
        assert_eq!(order, [Side::Ours, Side::Limit, Side::Limit, Side::Ours]);
    }

    #[test]
    fn a_ratio_of_rates_and_one_of_times_look_the_right_way() {
        let pair = Pair {
            ours: took(2),
            limit: took(1),
        };
        let row = |work| Row {
            name: String::new(),
            work,
            aim: Aim::None,
            pairs: vec![pair],
        };
        assert_eq!(row(Work::Elements { count: 1, bytes: 1 }).ratio(&pair), 0.5);
        assert_eq!(row(Work::Latency).ratio(&pair), 2.0);
        assert_eq!(row(Work::Latency).processor(), Some(2.0));
        assert_eq!(thousands(1_234_567.0), "1,234,567");
    }
}
