//! Output for people and programs: data on stdout, everything else on stderr.
//!
//! With `--json` each value on stdout is one JSON object on one line, in a shape that stays as it is (fields may be
//! added), and a failure is one JSON object on stderr.

mod exit;
mod failure;
mod progress;
mod style;
mod table;

pub(crate) use exit::{EXIT_CODES, Exit};
pub(crate) use failure::{Context, Failure, Outcome};
pub(crate) use progress::Progress;
pub(crate) use style::{Style, printable};
pub(crate) use table::table;

use serde::Serialize;
use skytale_proto::Code;
use std::fmt;
use std::io::{self, IsTerminal, Write};

/// A value that a command gives: [`Serialize`] is its stable JSON shape, this is how a person reads it.
pub(crate) trait Human {
    /// Writes it, lines ending with a newline.
    fn human(&self, to: &mut dyn fmt::Write, style: &Style) -> fmt::Result;
}

/// Output for results and remarks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    json: bool,
    quiet: bool,
    stdout: Style,
    stderr: Style,
}

impl Output {
    /// Makes an output as the terminal and `NO_COLOR` (<https://no-color.org>) say.
    pub(crate) fn new(json: bool, quiet: bool) -> Self {
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
            || std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self {
            json,
            quiet,
            stdout: Style::new(!no_color && io::stdout().is_terminal()),
            stderr: Style::new(!no_color && io::stderr().is_terminal()),
        }
    }

    /// Whether results are JSON.
    pub(crate) const fn is_json(&self) -> bool {
        self.json
    }

    /// Gives a result.
    pub(crate) fn give<T: Serialize + Human>(&self, value: &T) -> Outcome {
        let text = if self.json {
            let mut line = serde_json::to_string(value)
                .map_err(|error| Failure::new(Code::Environment, "cannot write the result as JSON").because(&error))?;
            line.push('\n');
            line
        } else {
            let mut text = String::new();
            value
                .human(&mut text, &self.stdout)
                .map_err(|error| Failure::new(Code::Environment, "cannot write the result").because(&error))?;
            text
        };
        self.write(text.as_bytes())
    }

    /// Gives bytes as they are: scripts, exported records.
    pub(crate) fn write(&self, bytes: &[u8]) -> Outcome {
        let mut stdout = io::stdout().lock();
        stdout
            .write_all(bytes)
            .and_then(|()| stdout.flush())
            .map_err(|error| Failure::stdout(&error))
    }

    /// A remark for a person, on stderr.
    pub(crate) fn note(&self, text: impl fmt::Display) {
        if !self.quiet {
            // A remark that cannot be written is not worth failing for.
            let _ = writeln!(io::stderr().lock(), "{text}");
        }
    }

    /// Prints a failure, on stderr.
    pub(crate) fn fail(&self, failure: &Failure) {
        let text = if self.json {
            failure.json()
        } else {
            failure.text(&self.stderr)
        };
        let _ = io::stderr().lock().write_all(text.as_bytes());
    }

    /// Returns the style for stderr.
    pub(crate) const fn style(&self) -> &Style {
        &self.stderr
    }

    /// Progress, shown only to a person at a terminal.
    pub(crate) fn progress(&self, total: u64, what: &str) -> Progress {
        Progress::new(!self.quiet && io::stderr().is_terminal(), total, what)
    }
}
