//! `skytale fleet nats`: configuration files of NATS servers.

use crate::command::Session;
use crate::local::{private_folder, write_private};
use crate::nats::{Inventory, KEEPER, Users, render, retire, rotate};
use crate::output::{Failure, Human, Outcome, Style};
use serde::Serialize;
use skytale_proto::Code;
use std::fmt;
use std::path::PathBuf;

/// Means every relay node of the inventory.
const ALL: &str = "all";

/// End of the `--help`.
const NOTES: &str = "\
Each relay node has keys of its own. To change them without an outage:
  1. --rotate NODE makes new ones, and servers take both. Copy each server's accounts.conf, and reload the servers.
  2. Give the node its new files. It uses them within seconds, once every server takes them.
  3. --retire NODE ends the old ones. Copy each accounts.conf again, and reload the servers.
The keeper's key is changed in the same way, as that of `keeper`. Keys that sign checkpoints (checkpoint.nk) are not changed: take a node
out of the inventory whose key was stolen, and give it a new name.
A node that is taken out of the inventory is refused from the next reload on.";

/// Writes a folder for each server of an inventory, and the keys of those who may connect. Keys that are there stay.
#[derive(Debug, clap::Args)]
#[command(after_help = NOTES)]
pub(crate) struct Args {
    /// The file of servers and relay nodes: see ops/nats/inventory.toml.
    #[arg(long, value_name = "FILE")]
    inventory: PathBuf,
    /// The folder to write to. It holds secrets: the keys of relay nodes and operators.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Make new keys for a relay node, or for all; its old ones stay valid beside them. May be given again.
    #[arg(long, value_name = "NODE")]
    rotate: Vec<String>,
    /// End the old keys of a relay node, or of all. May be given again.
    #[arg(long, value_name = "NODE", conflicts_with = "rotate")]
    retire: Vec<String>,
}

pub(crate) fn run(args: &Args, session: &Session) -> Outcome {
    let inventory = Inventory::read(&args.inventory)?;
    private_folder(&args.out)?;
    private_folder(&args.out.join("nodes"))?;
    for node in named(&inventory, &args.retire)? {
        retire(&args.out, node)?;
    }
    for node in named(&inventory, &args.rotate)? {
        rotate(&args.out, node)?;
    }
    let users = Users::in_folder(&args.out, inventory.nodes())?;
    let nodes_file = args.out.join("fleet-nodes");
    write_private(&nodes_file, users.known_nodes().as_bytes())?;
    let nodes = users.nodes.iter().map(|user| Node {
        name: user.name.clone(),
        relay_key: user.relay.now.seed_file.clone(),
        sync_key: user.sync.now.seed_file.clone(),
        checkpoint_key: user.checkpoint.seed_file.clone(),
        old_keys: user.relay.old.is_some() || user.sync.old.is_some(),
    });
    let mut written = Written {
        servers: Vec::new(),
        remarks: inventory.remarks(),
        nodes: nodes.collect(),
        nodes_file,
        keeper_key: users.keeper.now.seed_file.clone(),
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
    for remark in inventory.remarks() {
        session.output.note(format_args!("warning: {remark}"));
    }
    session.output.note(
        "\nCopy each server's folder to its machine and run `nats-server -c nats-server.conf` in it (ops/systemd has a unit); where \
         it runs, `systemctl reload skytale-nats` takes up a new accounts.conf. Give each relay node the three keys in its own folder and \
         the file fleet-nodes, give the keeper its key and that file, and keep the operators' keys away from servers.",
    );
    if let Some(shared) = users.shared.iter().flatten().next() {
        session.output.note(format_args!(
            "\n{} is a key that all relay nodes shared. Servers take it as long as the file is there: give each node its own, then \
             remove relay.nk and relay-sync.nk, and run this again.",
            shared.seed_file.display()
        ));
    }
    Ok(())
}

/// Relay nodes that were named, each of which must be in the inventory.
fn named<'a>(inventory: &'a Inventory, names: &'a [String]) -> Outcome<Vec<&'a str>> {
    if names.iter().any(|name| name == ALL) {
        return Ok(inventory.nodes().collect());
    }
    let known = names.iter().map(|name| {
        if name == KEEPER {
            return Ok(KEEPER);
        }
        inventory.nodes().find(|node| node == name).ok_or_else(|| {
            let nodes: Vec<&str> = inventory.nodes().collect();
            Failure::new(Code::Config, format!("the inventory names no relay node {name}"))
                .help(format!("It names {}.", nodes.join(", ")))
        })
    });
    known.collect()
}

#[derive(Serialize)]
struct Written {
    servers: Vec<PathBuf>,
    /// Settings that are worth less than they seem.
    remarks: Vec<String>,
    nodes: Vec<Node>,
    /// Names and public signing keys of the relay nodes.
    nodes_file: PathBuf,
    keeper_key: PathBuf,
    operator_keys: Vec<PathBuf>,
}

#[derive(Serialize)]
struct Node {
    name: String,
    relay_key: PathBuf,
    sync_key: PathBuf,
    checkpoint_key: PathBuf,
    /// Servers still take the keys before.
    old_keys: bool,
}

impl Human for Written {
    fn human(&self, to: &mut dyn fmt::Write, _: &Style) -> fmt::Result {
        for dir in &self.servers {
            writeln!(to, "server      {}", dir.display())?;
        }
        for node in &self.nodes {
            let old = if node.old_keys { " (and its old keys)" } else { "" };
            writeln!(to, "relay node  {}{old}", node.relay_key.display())?;
            writeln!(
                to,
                "            {} (asks whether servers sync)",
                node.sync_key.display()
            )?;
            writeln!(to, "            {} (signs checkpoints)", node.checkpoint_key.display())?;
        }
        writeln!(to, "keeper      {}", self.keeper_key.display())?;
        writeln!(to, "all nodes   {}", self.nodes_file.display())?;
        for key in &self.operator_keys {
            writeln!(to, "operators   {}", key.display())?;
        }
        Ok(())
    }
}
