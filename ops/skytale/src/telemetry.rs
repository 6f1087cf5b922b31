//! Logging: to stderr, never to stdout.

use crate::config::LogFormat;
use crate::output::{Failure, Outcome};
use skytale_proto::Code;
use std::io::{self, IsTerminal};
use tracing_subscriber::EnvFilter;

/// What is logged where nothing else was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Default {
    /// A command that a person waits for or watches: warnings of the project's own parts.
    Client,
    /// A server: what happens, and warnings of the libraries below.
    Server,
}

impl Default {
    const fn filter(self) -> &'static str {
        match self {
            Self::Client => "warn,iroh=off,netwatch=off,noq=off,async_nats=off",
            Self::Server => "warn,skytale=info,skytale_api=info,skytale_relay_node=info,skytale_log_store=info",
        }
    }
}

/// Levels, and the word for none of them.
const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];

/// A word alone that is nearly a level: it would be taken for the name of a target, which nobody has.
fn meant_for_a_level(directive: &str) -> Option<(&str, &'static str)> {
    let word = directive.trim();
    let is_level = LEVELS.iter().any(|level| level.eq_ignore_ascii_case(word));
    if is_level || word.is_empty() || !word.bytes().all(|byte| byte.is_ascii_alphabetic()) {
        return None;
    }
    let likeness = |level: &&str| strsim::jaro_winkler(&word.to_ascii_lowercase(), level);
    let nearest = LEVELS.into_iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)))?;
    (likeness(&nearest) > 0.82).then_some((word, nearest))
}

/// Reads a log filter.
pub(crate) fn filter(directives: &str) -> Outcome<EnvFilter> {
    let no_filter = || Failure::new(Code::Config, format!("`{directives}` is no log filter"));
    let help = "A level (error, warn, info, debug, trace), or `target=level` pairs separated by commas.";
    if let Some((word, level)) = directives.split(',').find_map(meant_for_a_level) {
        let meant = format!("`{word}` is no level: did you mean `{level}`?");
        return Err(no_filter().since(meant).help(help));
    }
    EnvFilter::try_new(directives).map_err(|error| no_filter().because(&error).help(help))
}

/// Starts logging, once.
pub(crate) fn start(asked: Option<&str>, default: Default, format: LogFormat) -> Outcome {
    let filter = filter(asked.unwrap_or(default.filter()))?;
    let base = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr);
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let started = match format {
        LogFormat::Json => base.json().flatten_event(true).try_init(),
        LogFormat::Text => base.with_ansi(!no_color && io::stderr().is_terminal()).try_init(),
    };
    started.map_err(|error| Failure::new(Code::Environment, "cannot start logging").since(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_finger_in_a_level_is_seen() {
        let meant = |word| meant_for_a_level(word).map(|(_, level)| level);
        for (word, level) in [
            ("debg", "debug"),
            (" Inof", "info"),
            ("tracee", "trace"),
            ("eror", "error"),
        ] {
            assert_eq!(meant(word), Some(level), "{word}");
        }
        for word in ["debug", "WARN", "off", "iroh=off", "skytale_sdk", "hyper", ""] {
            assert_eq!(meant(word), None, "{word}");
        }
    }
}
