//! `skytale reference`: what the documentation is generated from and checked with. Not shown in the help: `ops/docs/generate`
//! and the test command run it.

mod cli;
mod configuration;
mod lines;

use crate::output::{Failure, Outcome, Output};
use clap::Subcommand;
use skytale_proto::Code;
use std::io::Read as _;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Write the page about every command, in Markdown.
    Cli,
    /// Write the page about every configuration key, in Markdown.
    Config,
    /// Read lines of shell from standard input, and say which of their `skytale` commands are none.
    Lines {
        /// Accept a command that lacks arguments, as one that is only mentioned does.
        #[arg(long)]
        mentioned: bool,
    },
}

pub(crate) fn run(command: &Command, output: &Output) -> Outcome {
    match command {
        Command::Cli => output.write(cli::page().as_bytes()),
        Command::Config => output.write(configuration::page().as_bytes()),
        Command::Lines { mentioned } => lines(*mentioned, output),
    }
}

fn lines(mentioned: bool, output: &Output) -> Outcome {
    let mut text = String::new();
    std::io::stdin()
        .read_to_string(&mut text)
        .map_err(|error| Failure::new(Code::Environment, "cannot read standard input").because(&error))?;
    let problems: Vec<String> = text.lines().flat_map(|line| lines::problems(line, mentioned)).collect();
    if problems.is_empty() {
        return Ok(());
    }
    output.write((problems.join("\n") + "\n").as_bytes())?;
    Err(Failure::new(
        Code::Usage,
        format!("{} of these commands cannot be run", problems.len()),
    ))
}
