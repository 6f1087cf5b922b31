//! Results of a run: one folder with `report.json`, a histogram log for each latency, `counts.csv` and `report.html`.
//!
//! ```text
//!   a run ──Results::new──> Results ──write──> a folder ──read_runs──> compare ──> Comparison
//!                              ^                 │
//!                              └──── merge <─────┘
//! ```
//!
//! The histograms are the truth: percentiles in `report.json` are computed from them, and results are joined by adding histograms, never
//! percentiles.
//!
//! ```
//! use skytale_load::results::{Measure, Measured, Objective, REPORT_VERSION, Report, Results, histogram};
//! use std::collections::BTreeMap;
//! use std::time::Duration;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut second = histogram();
//! second.record(12_000)?;
//! let measured = Measured {
//!     interval: Duration::from_secs(1),
//!     latencies: BTreeMap::from([(Measure::Append, vec![second])]),
//!     counts: BTreeMap::new(),
//! };
//! let results = Results::new(Report { skytale_report: REPORT_VERSION, ..Report::default() }, measured);
//! let objective: Objective = "append.p99<50ms".parse()?;
//! assert!(objective.holds(&results.report, &results.measured).0);
//!
//! # let folder = tempfile::tempdir()?;
//! # let dir = folder.path().join("results");
//! results.write(&dir)?;
//! assert_eq!(Results::read(&dir)?.report, results.report);
//! # Ok(())
//! # }
//! ```

mod alike;
mod compare;
mod compute;
mod condition;
mod files;
mod measured;
mod merge;
mod metric;
mod objective;
mod page;
mod report;
#[cfg(test)]
mod sample;
mod statistics;
mod text;

pub use alike::Difference;
pub use compare::{Allow, CompareError, Compared, Comparison, NoInterval, SideShown, compare};
pub use condition::{Condition, ConditionError, Judged, Judgement};
pub use files::{REPORT_FILE, ReadError, WriteError, read_runs};
pub use merge::{MergeError, merge};
pub use metric::{Metric, Rate, Share, Stat};
pub use objective::{Objective, ObjectiveError};
pub use page::comparison_page;
pub use report::{
    CATCH_UP_MAX, CatchUp, Divergence, Latency, LatencySeries, Machine, NodeSeries, Planned, REPORT_VERSION, Report,
    Run, Series, Speed, Totals, Verdict, Verified, WorkloadSource,
};
pub use statistics::Interval;
pub use text::{LATENCY_HEADS, amount, bytes_text, duration_text, latency_rows, total_rows, verdict_words};

use hdrhistogram::Histogram;
use std::collections::BTreeMap;
use std::time::Duration;

/// A latency that a run measures. Each counts from the time at which the plan had it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Measure {
    /// Time from an append's planned time to its acknowledgement.
    Append,
    /// Time from an append's planned time to its delivery to a reader that follows at the head.
    Delivered,
    /// Time from a subscription's planned time to the head of that time.
    CaughtUp,
    /// Time from a session's planned time to its beginning, token included.
    Connected,
    /// Time from the request for a token to the token.
    Token,
    /// Time from an append's planned time until the generator gave it to the target: the part of the latency that is
    /// not the target's, or the target's only because it made the generator wait.
    SendDelay,
}

impl Measure {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Append,
        Self::Delivered,
        Self::CaughtUp,
        Self::Connected,
        Self::Token,
        Self::SendDelay,
    ];

    /// Its name in files, objectives and reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Append => "append",
            Self::Delivered => "delivered",
            Self::CaughtUp => "caught_up",
            Self::Connected => "connected",
            Self::Token => "token",
            Self::SendDelay => "send_delay",
        }
    }

    /// The one with this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|measure| measure.name() == name)
    }
}

/// A count that a run keeps over time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Count {
    /// Appends that the plan had in an interval.
    Planned,
    /// Appends given to the target.
    Sent,
    /// Appends acknowledged.
    Acknowledged,
    /// Entries delivered to readers.
    Delivered,
    /// Refusals.
    Refused,
    /// Appends that were due and not yet acknowledged, at the end of an interval.
    Backlog,
    /// Sessions, at the end of an interval.
    Online,
}

impl Count {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Planned,
        Self::Sent,
        Self::Acknowledged,
        Self::Delivered,
        Self::Refused,
        Self::Backlog,
        Self::Online,
    ];

    /// Its name in files and reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Planned => "planned",
            Self::Sent => "sent",
            Self::Acknowledged => "acknowledged",
            Self::Delivered => "delivered",
            Self::Refused => "refused",
            Self::Backlog => "backlog",
            Self::Online => "online",
        }
    }

    /// The one with this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|count| count.name() == name)
    }

    /// Whether it is a level at the end of an interval. Levels of neighbours do not add up.
    pub const fn is_level(self) -> bool {
        matches!(self, Self::Backlog | Self::Online)
    }
}

/// A histogram of microseconds: three digits, up to an hour.
pub type Histogram64 = Histogram<u64>;

/// The greatest latency that is distinguished, in microseconds: one hour.
pub const LATENCY_US_MAX: u64 = 3_600_000_000;

/// An empty histogram.
pub fn histogram() -> Histogram64 {
    // Bounds are constants that are allowed: this never fails.
    #[allow(clippy::expect_used, reason = "the bounds are constants")]
    Histogram::new_with_bounds(1, LATENCY_US_MAX, 3).expect("bounds of a histogram")
}

/// Measurements: everything in intervals of one length, from the run's beginning.
#[derive(Clone, Debug)]
pub struct Measured {
    /// The length of an interval: whole milliseconds.
    pub interval: Duration,
    /// A histogram an interval. Under [`Speed::Max`] there are none.
    pub latencies: BTreeMap<Measure, Vec<Histogram64>>,
    /// A number an interval.
    pub counts: BTreeMap<Count, Vec<u64>>,
}

/// A run's results. [`Results::new`] makes them.
#[derive(Clone, Debug)]
pub struct Results {
    /// The report. Its percentiles and series are those of `measured`.
    pub report: Report,
    /// Measurements from which it is computed.
    pub measured: Measured,
}
