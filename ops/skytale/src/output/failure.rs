//! Failures of a command: each with the failed operation, the reason, and the advice.

use super::style::printable;
use super::{Exit, Style};
use serde_json::json;
use skytale_proto::Code;
use std::error::Error;
use std::fmt::Write as _;

/// Result of a command that reports nothing but success.
pub(crate) type Outcome<T = ()> = Result<T, Failure>;

/// A failure as a person or a program reads it.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    code: Code,
    what: String,
    why: Vec<String>,
    help: String,
    exit: Exit,
    /// The single failures, if it is several at once.
    parts: Vec<Failure>,
    kept: bool,
}

impl Failure {
    /// `what` names the failed operation, and its object; the code's own help is what to do.
    pub(crate) fn new(code: Code, what: impl Into<String>) -> Self {
        Self {
            code,
            what: what.into(),
            why: Vec::new(),
            help: code.help().to_owned(),
            exit: Exit::of(code),
            parts: Vec::new(),
            kept: false,
        }
    }

    /// Several failures as one, with the code of the first.
    pub(crate) fn several(what: impl Into<String>, parts: Vec<Self>) -> Self {
        let code = parts.first().map_or(Code::Config, Self::code);
        Self {
            parts,
            ..Self::new(code, what)
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

    /// The rest of the request was done, and the result says which part.
    pub(crate) const fn partly(mut self) -> Self {
        self.exit = Exit::Partial;
        self
    }

    /// The configuration or the surroundings are to be changed first, whatever the code says of it elsewhere.
    pub(crate) const fn of_setup(mut self) -> Self {
        self.exit = Exit::Setup;
        self
    }

    /// Marks a message that is in the outbox, and goes out by itself. Doing it again would send it twice.
    pub(crate) fn queued(mut self) -> Self {
        self = self.kept();
        let help = std::mem::take(&mut self.help);
        self.help(
            "It is in the outbox, durably, and goes out when this agent is online the next time: do not send it again.",
        )
        .also(&help)
    }

    /// Marks a promise that did not hold, no matter what the code says of it elsewhere.
    pub(crate) const fn broken(mut self) -> Self {
        self.exit = Exit::Broken;
        self
    }

    /// Adds an error and its sources as the reason. Text that repeats the line before is left out.
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

    /// Adds the reason, in words.
    pub(crate) fn since(mut self, text: impl Into<String>) -> Self {
        self.why.push(text.into());
        self
    }

    /// Sets the advice, if there is more to say than the code's own sentence.
    pub(crate) fn help(mut self, text: impl Into<String>) -> Self {
        self.help = text.into();
        self
    }

    /// Marks a request that is in the vault, and is done by itself later. Doing it again would do it twice. A broken
    /// promise is the graver news, and keeps its exit code.
    pub(crate) fn kept(mut self) -> Self {
        if self.exit != Exit::Broken {
            self.exit = Exit::Queued;
        }
        self.kept = true;
        self
    }

    /// Whether the request is in the vault, and is done by itself later.
    pub(crate) const fn is_kept(&self) -> bool {
        self.kept
    }

    /// Adds to the advice.
    pub(crate) fn also(mut self, text: &str) -> Self {
        if !self.help.is_empty() && !text.is_empty() {
            self.help.push(' ');
        }
        self.help.push_str(text);
        self
    }

    /// Whether doing the same again can help, and does no harm.
    const fn is_retryable(&self) -> bool {
        self.code.is_retryable() && !self.kept
    }

    /// The code.
    pub(crate) const fn code(&self) -> Code {
        self.code
    }

    /// Returns the failed operation and the reason, on one line.
    pub(crate) fn reason(&self) -> String {
        let parts: Vec<&str> = std::iter::once(&self.what)
            .chain(&self.why)
            .map(String::as_str)
            .collect();
        parts.join(": ")
    }

    /// Returns the advice.
    pub(crate) fn advice(&self) -> &str {
        &self.help
    }

    /// Returns the end of the run.
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
        for (number, part) in self.parts.iter().enumerate() {
            let _ = writeln!(
                text,
                "  {}. {}",
                number + 1,
                printable(&part.what).replace('\n', "\n     ")
            );
            for why in &part.why {
                let why = printable(why).replace('\n', "\n          ");
                let _ = writeln!(text, "     {} {why}", style.bold("why:"));
            }
            // The advice that helps any such failure is said once, below.
            if !part.help.is_empty() && part.help != part.code.help() {
                let help = part.help.replace('\n', "\n          ");
                let _ = writeln!(text, "     {}  {help}", style.bold("do:"));
            }
        }
        if !self.help.is_empty() {
            let _ = writeln!(
                text,
                "  {}  {}",
                style.bold("do:"),
                self.help.replace('\n', "\n       ")
            );
        }
        let again = if self.is_retryable() {
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

    /// Returns it as a remark of a command that goes on.
    pub(crate) fn remark(&self, of: &str) -> String {
        let said = std::iter::once(&self.what).chain(&self.why);
        let said: Vec<String> = said.map(|text| printable(text)).collect();
        format!(
            "warning: {of}: {}\n  {}",
            said.join(": "),
            self.help.replace('\n', "\n  ")
        )
    }

    /// For a program, on one line.
    pub(crate) fn json(&self) -> String {
        let mut error = json!({
            "code": self.code.to_string(),
            "name": self.code.name(),
            "what": self.what,
            "why": self.why,
            "help": self.help,
            "retryable": self.is_retryable(),
            "exit": self.exit.code(),
        });
        if !self.parts.is_empty() {
            let parts = self.parts.iter().map(
                |part| json!({"code": part.code.to_string(), "what": part.what, "why": part.why, "help": part.help}),
            );
            error["problems"] = parts.collect();
        }
        format!("{}\n", json!({ "error": error }))
    }
}

/// Names the operation when something failed that has no code of its own.
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
            "error: cannot reach the API at http://127.0.0.1:1\n  why: connection refused\n  do:  Check that the node \
             runs and can be reached; an agent that runs reconnects by itself.\n  SKY-5009 Offline; trying again can help\n"
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
