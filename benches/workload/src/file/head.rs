//! The first line of a workload file, and the last.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// The version of the format that this crate writes and reads.
pub const VERSION: u32 = 1;

/// Source of a workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// A relay node's log: appends, with the times that the log stored.
    Log,
    /// A relay node as it ran: appends, sessions, subscriptions, refusals.
    Tap,
    /// A profile: nobody's traffic.
    Synth,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Log => "log",
            Self::Tap => "tap",
            Self::Synth => "synth",
        })
    }
}

/// Method by which agents and channels became numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ids {
    /// Numbers in the order of first appearance, in a tap of its whole life ([`Part`]). The link to ids was keyed with
    /// a secret (HMAC-SHA256), and that is gone.
    HmacIndex,
    /// There never were ids.
    Synthetic,
}

/// The first line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// [`VERSION`]. Another one is refused.
    pub skytale_workload: u32,
    /// Source of the workload.
    pub source: Source,
    /// Program that made it, as in `skytale 0.1.0`, with the profile and seed of a synthetic one.
    pub made_by: String,
    /// Start of the workload, unix milliseconds; only if that was asked for.
    #[serde(default)]
    pub start_ms: Option<u64>,
    /// The unit of times: always `us`.
    pub unit: Unit,
    /// Method by which agents and channels became numbers. A header of a synthetic workload need not say it.
    pub ids: Ids,
    /// The part of all channels that is in it: 1 is all of them, and what a header means that does not say it.
    #[serde(default = "all_channels")]
    pub sample: f64,
    /// Part of a tap; only in files of a tap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<Part>,
    /// Its totals, if they were known when the file was begun; the last line always has them.
    #[serde(default)]
    pub totals: Option<Totals>,
}

const fn all_channels() -> f64 {
    1.0
}

/// Part of a tap that a file is. Parts of one life share the numbers of agents and channels, which are not in the order
/// of first appearance in each of them; a part begins where the one before it ended, if none is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Start of the life, unix milliseconds. The same in all parts of it.
    pub life_ms: u64,
    /// Its number in the life, from 0.
    pub number: u32,
}

/// The unit of times.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Unit {
    /// Microseconds.
    #[default]
    #[serde(rename = "us")]
    Microseconds,
}

impl Header {
    /// Makes the header of a file that is begun now.
    pub fn new(source: Source, made_by: impl Into<String>) -> Self {
        Self {
            skytale_workload: VERSION,
            source,
            made_by: made_by.into(),
            start_ms: None,
            unit: Unit::Microseconds,
            ids: if source == Source::Synth {
                Ids::Synthetic
            } else {
                Ids::HmacIndex
            },
            sample: 1.0,
            part: None,
            totals: None,
        }
    }
}

/// Totals of a workload. The last line is `{"totals": ...}` with these.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Events.
    pub events: u64,
    /// Microseconds from the start to the last event.
    pub duration_us: u64,
    /// Agents: their indexes are below this.
    pub agents: u32,
    /// Channels: their indexes are below this.
    pub channels: u32,
    /// Bytes of all bodies.
    pub body_bytes: u64,
    /// Events by kind.
    pub kinds: BTreeMap<String, u64>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Last {
    pub(super) totals: Totals,
}
