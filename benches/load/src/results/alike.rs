//! Differences of two runs in the fields that must be the same.

use super::{Report, Speed};
use serde::Serialize;
use std::collections::BTreeSet;
use std::fmt;

/// A field in which two runs differ.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The field's name in `report.json`.
    pub field: String,
    /// Its value in the first.
    pub a: String,
    /// Its value in the second.
    pub b: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is {} in one and {} in the other", self.field, self.a, self.b)
    }
}

fn compared<T: PartialEq + fmt::Display>(found: &mut Vec<Difference>, field: &str, a: T, b: T) {
    if a != b {
        let field = field.to_owned();
        let (a, b) = (a.to_string(), b.to_string());
        found.push(Difference { field, a, b });
    }
}

/// Compares the replays: the workload, speed, level and settings.
pub(super) fn load(a: &Report, b: &Report) -> Vec<Difference> {
    let mut found = Vec::new();
    compared(&mut found, "workload.blake3", &a.workload.blake3, &b.workload.blake3);
    compared(&mut found, "run.speed", speed(a.run.speed), speed(b.run.speed));
    compared(&mut found, "run.level", &a.run.level, &b.run.level);
    let names: BTreeSet<&String> = a.run.settings.keys().chain(b.run.settings.keys()).collect();
    for name in names {
        let value = |report: &Report| match report.run.settings.get(name) {
            Some(value) => value.to_string(),
            None => "not set".to_owned(),
        };
        compared(&mut found, &format!("run.settings.{name}"), value(a), value(b));
    }
    found
}

/// Compares the targets.
pub(super) fn target(a: &Report, b: &Report) -> Vec<Difference> {
    let mut found = Vec::new();
    compared(&mut found, "run.target", &a.run.target, &b.run.target);
    compared(&mut found, "run.place", &a.run.place, &b.run.place);
    found
}

/// Compares the programs and machines that made the results. Results may differ in it, and people want to know.
pub(super) fn surroundings(a: &Report, b: &Report) -> Vec<Difference> {
    let mut found = Vec::new();
    let revision = |report: &Report| report.run.revision.clone().unwrap_or_else(|| "unknown".to_owned());
    compared(&mut found, "run.made_by", &a.run.made_by, &b.run.made_by);
    compared(&mut found, "run.revision", revision(a), revision(b));
    let (one, other) = (&a.run.machine, &b.run.machine);
    compared(&mut found, "run.machine.system", &one.system, &other.system);
    compared(&mut found, "run.machine.processor", &one.processor, &other.processor);
    compared(&mut found, "run.machine.processors", one.processors, other.processors);
    compared(
        &mut found,
        "run.machine.memory_bytes",
        one.memory_bytes,
        other.memory_bytes,
    );
    found
}

/// A speed in words.
pub(super) fn speed(speed: Speed) -> String {
    match speed {
        Speed::Factor(factor) => format!("{factor}x"),
        Speed::Max => "max".to_owned(),
    }
}
