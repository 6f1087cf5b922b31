//! `skytale fleet`: several relay nodes over one log.

mod nats;

use super::Session;
use crate::output::Outcome;
use clap::Subcommand;

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Write the configuration of the NATS servers that the relay nodes share.
    Nats(nats::Args),
}

pub(crate) async fn run(command: Command, session: Session) -> Outcome {
    match command {
        Command::Nats(args) => nats::run(&args, &session),
    }
}
