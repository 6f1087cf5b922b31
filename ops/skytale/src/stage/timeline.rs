//! Events as they happen, for a person: lines with the time since the beginning, and a bar below them.

use crate::output::{Output, Progress};
use std::fmt::Display;
use std::time::Instant;

/// The lines of a run, on stderr.
#[derive(Debug)]
pub(crate) struct Timeline {
    output: Output,
    began: Instant,
}

impl Timeline {
    pub(crate) fn new(output: Output) -> Self {
        Self {
            output,
            began: Instant::now(),
        }
    }

    /// Says that something happened.
    pub(crate) fn say(&self, text: impl Display) {
        let since = format!("[{:>7.2} s]", self.began.elapsed().as_secs_f64());
        self.output
            .note(format_args!("{} {text}", self.output.style().dim(&since)));
    }

    /// The same, above a bar.
    pub(crate) fn say_above(&self, bar: &Progress, text: impl Display) {
        bar.around(|| self.say(text));
    }

    pub(crate) fn bar(&self, total: u64, what: &str) -> Progress {
        self.output.progress(total, what)
    }
}
