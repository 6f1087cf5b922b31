//! Result of each return.

use crate::output::{Human, Style, table};
use serde::Serialize;
use std::fmt;

/// All returns. Fields are stable.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Report {
    /// Whether everything was as it must be.
    pub ok: bool,
    pub returns: Vec<Row>,
    /// Folder of the data, if it was kept.
    pub kept: Option<String>,
}

/// One return.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Row {
    /// Event during the absence.
    pub event: &'static str,
    /// Messages sent since the agent went away.
    pub sent: u64,
    /// Those that it has read, each once.
    pub read: u64,
    /// Those that it knows it will never read.
    pub told_lost: u64,
    /// The ranges of offsets that it learned, with the reason.
    pub lost: Vec<String>,
    /// Those that it neither read nor learned of. Must be 0.
    pub untold: u64,
    /// Those that it was shown more than once. Must be 0.
    pub twice: u64,
    /// Messages that nobody sent. Must be 0.
    pub foreign: u64,
    /// The offset at which it found that it was shown another log.
    pub diverged_at: Option<u64>,
    /// Its state now, and how it got there.
    pub state: String,
    /// Time from opening its vault to an own message in the log, in seconds.
    pub took_s: f64,
    /// Problems found.
    pub problems: Vec<String>,
}

impl Row {
    pub(super) fn is_ok(&self) -> bool {
        self.problems.is_empty() && self.untold == 0 && self.twice == 0 && self.foreign == 0
    }
}

impl Report {
    pub(super) fn new(returns: Vec<Row>, kept: Option<String>) -> Self {
        Self {
            ok: !returns.is_empty() && returns.iter().all(Row::is_ok),
            returns,
            kept,
        }
    }
}

impl Human for Report {
    fn human(&self, to: &mut dyn fmt::Write, style: &Style) -> fmt::Result {
        let rows = self.returns.iter().map(|row| {
            vec![
                row.event.to_owned(),
                format!("{} of {}", row.read, row.sent),
                row.told_lost.to_string(),
                row.state.clone(),
                format!("{:.2} s", row.took_s),
            ]
        });
        table(to, style, &["event", "read", "told lost", "state after", "time"], rows)?;
        writeln!(to)?;
        for row in &self.returns {
            for lost in &row.lost {
                writeln!(to, "  {}: told that it lost {lost}", row.event)?;
            }
        }
        for row in self.returns.iter().filter(|row| !row.is_ok()) {
            let numbers = [
                (row.untold, "lost untold"),
                (row.twice, "shown twice"),
                (row.foreign, "sent by nobody"),
            ];
            let numbers = numbers.into_iter().filter(|(count, _)| *count > 0);
            let found: Vec<String> = numbers.map(|(count, what)| format!("{count} {what}")).collect();
            let all = [found, row.problems.clone()].concat().join("; ");
            writeln!(to, "  {} {}: {all}", style.bad("MISMATCH:"), row.event)?;
        }
        if let Some(kept) = &self.kept {
            writeln!(to, "  data kept in {kept}")?;
        }
        if self.ok {
            let what = "each message was read once, or its loss was reported";
            writeln!(to, "  {} {what}", style.good("ok:"))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> Row {
        Row {
            event: "retention passed",
            sent: 5,
            read: 3,
            told_lost: 2,
            state: "current".into(),
            ..Row::default()
        }
    }

    #[test]
    fn it_is_good_only_when_nothing_was_lost_untold_or_shown_twice() {
        assert!(Report::new(vec![row()], None).ok);
        assert!(!Report::new(vec![], None).ok);
        let spoil: [fn(&mut Row); 4] = [
            |row| row.untold = 1,
            |row| row.twice = 1,
            |row| row.foreign = 1,
            |row| row.problems.push("not current".into()),
        ];
        for spoil in spoil {
            let mut spoiled = row();
            spoil(&mut spoiled);
            let report = Report::new(vec![row(), spoiled], None);
            assert!(!report.ok);
            let mut text = String::new();
            report.human(&mut text, &Style::PLAIN).expect("written");
            assert!(text.contains("MISMATCH: retention passed: "), "{text}");
            assert!(!text.contains("ok:"), "{text}");
        }
    }
}
