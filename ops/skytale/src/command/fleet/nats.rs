//! `skytale fleet nats`: configuration files of NATS servers.

use crate::command::Session;
use crate::local::{private_folder, write_private};
use crate::nats::{Inventory, Users, render};
use crate::output::{Human, Outcome, Style};
use serde::Serialize;
use std::fmt;
use std::path::PathBuf;

/// Writes a folder for each server of an inventory, and the keys of those who may connect. Keys that are there stay.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Which servers there are: see ops/nats/inventory.toml.
    #[arg(long, value_name = "FILE")]
    inventory: PathBuf,
    /// Where the folders go. It holds secrets: the keys of relay nodes and operators.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

pub(crate) fn run(args: &Args, session: &Session) -> Outcome {
    let inventory = Inventory::read(&args.inventory)?;
    private_folder(&args.out)?;
    let users = Users::in_folder(&args.out)?;
    let mut written = Written {
        servers: Vec::new(),
        relay_key: users.relay.seed_file.clone(),
        sync_key: users.sync.seed_file.clone(),
        operator_keys: vec![users.operator.seed_file.clone(), users.system.seed_file.clone()],
    };
    for server in render(&inventory, &users) {
        let dir = args.out.join(&server.name);
        private_folder(&dir)?;
        write_private(&dir.join("nats-server.conf"), server.server.as_bytes())?;
        write_private(&dir.join("accounts.conf"), server.accounts.as_bytes())?;
        written.servers.push(dir);
    }
    session.output.give(&written)?;
    session.output.note(
        "\nCopy each server's folder to its machine and run `nats-server -c nats-server.conf` in it (ops/systemd has a unit). \
         Give relay nodes the two relay keys, and keep the operators' keys away from servers.",
    );
    Ok(())
}

#[derive(Serialize)]
struct Written {
    servers: Vec<PathBuf>,
    relay_key: PathBuf,
    sync_key: PathBuf,
    operator_keys: Vec<PathBuf>,
}

impl Human for Written {
    fn human(&self, to: &mut dyn fmt::Write, _: &Style) -> fmt::Result {
        for dir in &self.servers {
            writeln!(to, "server         {}", dir.display())?;
        }
        writeln!(to, "relay nodes    {}", self.relay_key.display())?;
        writeln!(
            to,
            "relay nodes    {} (asks whether servers sync)",
            self.sync_key.display()
        )?;
        for key in &self.operator_keys {
            writeln!(to, "operators      {}", key.display())?;
        }
        Ok(())
    }
}
