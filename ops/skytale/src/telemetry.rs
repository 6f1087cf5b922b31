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

/// Starts logging, once.
pub(crate) fn start(asked: Option<&str>, default: Default, format: LogFormat) -> Outcome {
    let directives = asked.unwrap_or(default.filter());
    let filter = EnvFilter::try_new(directives).map_err(|error| {
        Failure::new(Code::Config, format!("`{directives}` is no log filter"))
            .because(&error)
            .help("A level (error, warn, info, debug, trace), or `target=level` pairs separated by commas.")
    })?;
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
