//! What went wrong: what failed, why, and what to do.

use super::style::printable;
use super::{Exit, Style};
use serde_json::json;
use skytale_proto::Code;
use std::error::Error;
use std::fmt::Write as _;

/// What a command gives when there is nothing to say but that it is done.
pub(crate) type Outcome<T = ()> = Result<T, Failure>;

/// A failure as a person or a program reads it.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    code: Code,
    what: String,
    why: Vec<String>,
    help: String,
    exit: Exit,
}

impl Failure {
    /// `what` says what was being done, and with what; the code's own help is what to do.
    pub(crate) fn new(code: Code, what: impl Into<String>) -> Self {
        Self {
            code,
            what: what.into(),
            why: Vec::new(),
            help: code.help().to_owned(),
            exit: Exit::of(code),
        }
    }

    /// Stdout is gone. A reader that has seen enough (`| head`) is no failure worth a word.
    pub(super) fn stdout(error: &std::io::Error) -> Self {
        let mut failure = Self::new(Code::Environment, "cannot write to standard output").because(error);
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            failure.exit = Exit::Done;
            failure.what.clear();
        }
        failure
    }

    /// Ended by a signal, which the person who sent it knows.
    pub(crate) fn interrupted(exit: Exit) -> Self {
        let mut failure = Self::new(Code::Closed, "");
        failure.exit = exit;
        failure
    }

    /// The rest of what was asked for was done, and the result says what.
    pub(crate) const fn partly(mut self) -> Self {
        self.exit = Exit::Partial;
        self
    }

    /// What was promised did not hold, whatever the code says of it elsewhere.
    pub(crate) const fn broken(mut self) -> Self {
        self.exit = Exit::Broken;
        self
    }

    /// Why: an error and its sources. What repeats the line before is left out.
    pub(crate) fn because(mut self, error: &(dyn Error + 'static)) -> Self {
        let mut next = Some(error);
        while let Some(error) = next {
            let text = error.to_string();
            // Many errors print their source as their own end: say it once.
            if !self.why.last().is_some_and(|before| before.contains(&text)) {
                self.why.push(text);
            }
            next = error.source();
        }
        self
    }

    /// Why, in words.
    pub(crate) fn since(mut self, text: impl Into<String>) -> Self {
        self.why.push(text.into());
        self
    }

    /// What to do, where there is more to say than the code's own sentence.
    pub(crate) fn help(mut self, text: impl Into<String>) -> Self {
        self.help = text.into();
        self
    }

    /// The code.
    pub(crate) const fn code(&self) -> Code {
        self.code
    }

    /// How the run ends.
    pub(crate) const fn exit(&self) -> Exit {
        self.exit
    }

    /// Whether there is anything to say.
    pub(crate) const fn is_silent(&self) -> bool {
        self.what.is_empty()
    }

    /// For a person.
    pub(crate) fn text(&self, style: &Style) -> String {
        let mut text = format!("{} {}\n", style.bad("error:"), printable(&self.what));
        for why in &self.why {
            // Writing to a String does not fail.
            let _ = writeln!(
                text,
                "  {} {}",
                style.bold("why:"),
                printable(why).replace('\n', "\n       ")
            );
        }
        if !self.help.is_empty() {
            let _ = writeln!(
                text,
                "  {}  {}",
                style.bold("do:"),
                self.help.replace('\n', "\n       ")
            );
        }
        let again = if self.code.is_retryable() {
            "; trying again can help"
        } else {
            ""
        };
        let _ = writeln!(
            text,
            "  {}",
            style.dim(&format!("{} {}{again}", self.code, self.code.name()))
        );
        text
    }

    /// For a program, on one line.
    pub(crate) fn json(&self) -> String {
        let value = json!({"error": {
            "code": self.code.to_string(),
            "name": self.code.name(),
            "what": self.what,
            "why": self.why,
            "help": self.help,
            "retryable": self.code.is_retryable(),
            "exit": self.exit.code(),
        }});
        format!("{value}\n")
    }
}

/// Says what was being done when something failed that has no code of its own.
pub(crate) trait Context<T> {
    /// A failure of this code.
    fn failing(self, code: Code, what: impl FnOnce() -> String) -> Outcome<T>;
}

impl<T, E: Error + 'static> Context<T> for Result<T, E> {
    fn failing(self, code: Code, what: impl FnOnce() -> String) -> Outcome<T> {
        self.map_err(|error| Failure::new(code, what()).because(&error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_reads_what_failed_why_and_what_to_do() {
        let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        let failure = Failure::new(Code::Offline, "cannot reach the API at http://127.0.0.1:1").because(&refused);
        assert_eq!(
            failure.text(&Style::PLAIN),
            "error: cannot reach the API at http://127.0.0.1:1\n  why: connection refused\n  do:  Sent messages wait \
             in the outbox and go out on reconnect.\n  SKY-5009 Offline; trying again can help\n"
        );
        let json: serde_json::Value = serde_json::from_str(&failure.json()).expect("JSON");
        assert_eq!(json["error"]["code"], "SKY-5009");
        assert_eq!(json["error"]["exit"], 6);
    }

    #[test]
    fn a_reader_that_has_seen_enough_is_no_failure() {
        let failure = Failure::stdout(&std::io::Error::from(std::io::ErrorKind::BrokenPipe));
        assert!(failure.is_silent());
        assert_eq!(failure.exit(), Exit::Done);
    }
}
