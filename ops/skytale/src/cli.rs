//! The command line.

use crate::command::Command;
use crate::config::{Layer, SET_FLAG, profile};
use crate::output::{EXIT_CODES, Exit, Failure, Output};
use clap::error::ErrorKind;
use clap::{Args, CommandFactory as _, Parser};
use skytale_proto::Code;
use std::path::PathBuf;

/// End-to-end encrypted channels for AI agents, over a relay with a durable log.
#[derive(Debug, Parser)]
#[command(
    name = "skytale",
    version,
    propagate_version = true,
    arg_required_else_help = true,
    subcommand_required = true,
    max_term_width = 110,
    after_help = "First steps: `skytale demo`, then `skytale dev`. Exit codes: `skytale help exit-codes`.",
    after_long_help = EXIT_CODES
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Options of every command")]
pub(crate) struct Global {
    /// Configuration file [default: ./skytale.toml, then ~/.config/skytale/config.toml].
    #[arg(long, global = true, value_name = "FILE", env = "SKYTALE_CONFIG")]
    pub config: Option<PathBuf>,
    /// Use an API's address and key that `skytale login` has stored [env: SKYTALE_PROFILE] [default: `default`, or the only
    /// one there is].
    #[arg(long, global = true, value_name = "NAME")]
    pub profile: Option<profile::Name>,
    /// Set one configuration key, as in `--set relay.retention_s=86400`; may be given again.
    #[arg(long, global = true, value_name = "KEY=VALUE", value_parser = setting)]
    pub set: Vec<(String, String)>,
    /// Give results as JSON, one object a line, and failures as JSON on stderr.
    #[arg(long, global = true)]
    pub json: bool,
    /// No remarks and no progress on stderr; failures only.
    #[arg(long, short, global = true)]
    pub quiet: bool,
    /// Log filter for stderr: a level, or `target=level` pairs separated by commas.
    #[arg(long, global = true, value_name = "FILTER")]
    pub log: Option<String>,
}

impl Global {
    /// The settings among these options.
    pub(crate) fn layers(&self) -> Vec<Layer> {
        let set = self.set.iter().map(|(key, value)| Layer::flag(SET_FLAG, key, value));
        set.chain(self.log.iter().map(|filter| Layer::flag("--log", "log", filter)))
            .collect()
    }

    /// Returns the output for results.
    pub(crate) fn output(&self) -> Output {
        Output::new(self.json, self.quiet)
    }
}

fn setting(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.trim().to_owned(), value.to_owned())),
        _ => Err("give a key and a value, as in relay.retention_s=86400".into()),
    }
}

/// Reads the process's command line. A command line that ends here (help, version, a wrong line) has been answered.
pub(crate) fn parse() -> Result<Cli, Exit> {
    Cli::try_parse().map_err(|error| {
        let is_help = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
        if !is_help && std::env::args_os().any(|argument| argument == "--json") {
            let text = error.render().to_string();
            let what = text.lines().next().unwrap_or_default();
            let failure = Failure::new(Code::Usage, what.strip_prefix("error: ").unwrap_or(what));
            Output::new(true, false).fail(&failure);
        } else {
            // To stdout for help, to stderr otherwise; nobody reads it where that fails.
            let _ = error.print();
        }
        if is_help { Exit::Done } else { Exit::Usage }
    })
}

/// The whole command line, for completions.
pub(crate) fn definition() -> clap::Command {
    Cli::command()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        definition().debug_assert();
    }

    #[test]
    fn global_options_stand_before_or_after_the_command() {
        for line in [
            ["skytale", "--json", "config", "print"],
            ["skytale", "config", "print", "--json"],
        ] {
            assert!(Cli::try_parse_from(line).expect("parses").global.json);
        }
    }
}
