//! `skytale completions`.

use crate::cli;
use crate::output::{Outcome, Output};
use clap_complete::{Shell, generate};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The shell.
    #[arg(value_enum)]
    shell: Shell,
}

pub(crate) fn run(args: &Args, output: &Output) -> Outcome {
    let mut script = Vec::new();
    generate(args.shell, &mut cli::definition(), "skytale", &mut script);
    output.write(&script)
}
