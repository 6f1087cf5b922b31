//! The command: `skytale --help`.
//!
//! This is the composition root, and the only place that knows every other crate. It reads the configuration, starts
//! what a subcommand needs, and says what happened: data on stdout, everything else on stderr.
#![forbid(unsafe_code)]

mod agent;
mod cli;
mod client;
mod command;
mod config;
mod fleet;
mod http;
mod listener;
mod local;
mod names;
mod nats;
mod output;
mod process_metrics;
mod progress;
mod scratch;
mod serve;
mod shutdown;
mod stage;
mod telemetry;
mod time;

use std::process::ExitCode;

fn main() -> ExitCode {
    // Files that this makes are for its user alone: logs, databases, vaults, and those that a library creates by
    // itself.
    let others = rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO;
    let before = rustix::process::umask(others);
    rustix::process::umask(before | others);
    let exit = match cli::parse() {
        Ok(cli) => command::run(cli),
        Err(exit) => exit,
    };
    ExitCode::from(exit.code())
}
