//! `skytale fleet`: several relay nodes over one log.

mod demo;
mod doctor;
mod keeper;
mod nats;
mod restore;
mod up;

pub(crate) use up::Size;

use super::{Session, examples};
use crate::output::Outcome;
use clap::Subcommand;

/// Commands on a fleet.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start a fleet on this machine: NATS servers, relay nodes, the API; and watch it.
    #[command(after_help = examples::FLEET_UP)]
    Up(up::Args),
    /// Watch agents talk while nodes, NATS servers and regions are killed and cut off, and compare their messages.
    #[command(after_help = examples::FLEET_DEMO)]
    Demo(demo::Args),
    /// Write the configuration of the NATS servers that the relay nodes share.
    #[command(after_help = examples::FLEET_NATS)]
    Nats(nats::Args),
    /// Run the keeper: purge from the streams what a checkpoint has taken the place of.
    Keeper(keeper::Args),
    /// Put back into the streams what relay nodes' replicas hold.
    Restore(restore::Args),
    /// Say what a fleet's NATS servers and streams lack, and the command that mends it.
    Doctor(doctor::Args),
}

pub(crate) async fn run(command: Command, session: Session) -> Outcome {
    match command {
        Command::Up(args) => Box::pin(up::run(&args, &session)).await,
        Command::Demo(args) => demo::run(&args, &session).await,
        Command::Nats(args) => nats::run(&args, &session),
        Command::Keeper(args) => Box::pin(keeper::run(&args, &session)).await,
        Command::Restore(args) => restore::run(&args, &session).await,
        Command::Doctor(args) => doctor::run(args, &session).await,
    }
}
