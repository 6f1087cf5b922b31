//! `skytale fleet up`: a fleet on this machine, to learn it.

use crate::command::Session;
use crate::command::dev::{start_bridge, tell_slim};
use crate::config::is_of_servers;
use crate::fleet::{Layout, Machine, NodeSample, Watch};
use crate::local::{close_folder, private_folder};
use crate::nats::program;
use crate::output::{Context as _, Human, Outcome, Style, table};
use crate::serve::BridgeServer;
use serde::Serialize;
use skytale_proto::Code;
use std::fmt::{self, Write as _};
use std::io::{IsTerminal as _, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Interval between drawings of the table.
const DRAWN_EVERY: Duration = Duration::from_secs(1);

/// Starts NATS servers, relay nodes and the API on this machine, on loopback, and shows what the nodes are doing. Ctrl-C
/// ends all of it.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    pub size: Size,
    /// The folder for data [default: a temporary folder, removed at the end].
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// The API's address, for HTTP; port 0 is any free one.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7600", value_parser = crate::command::dev::loopback)]
    api_listen: SocketAddr,
    /// The bridge's address, for SLIM agents (gRPC); port 0 is any free one.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7603", value_parser = crate::command::dev::loopback)]
    bridge_listen: SocketAddr,
}

/// Size of a fleet.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Size {
    /// Regions, each with three NATS servers of its own.
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=3))]
    pub regions: u8,
    /// Relay nodes, over all regions.
    #[arg(long, value_name = "COUNT", default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=16))]
    pub nodes: u8,
    /// The program `nats-server` [default: the one on the PATH].
    #[arg(long, value_name = "FILE", env = "SKYTALE_NATS_SERVER")]
    pub nats_server: Option<PathBuf>,
}

impl Size {
    /// Returns the servers and nodes to start; with links that can be cut, for callers who mean to cut them.
    pub(crate) fn layout(&self, api_listen: SocketAddr, links: bool) -> Outcome<Layout> {
        Ok(Layout {
            nats_server: program(self.nats_server.as_deref())?,
            regions: usize::from(self.regions),
            nodes: usize::from(self.nodes),
            api_listen,
            links,
            upkeep: None,
        })
    }
}

pub(crate) async fn run(args: &Args, session: &Session) -> Outcome {
    session.loaded.refuse_unused("fleet up", is_of_servers)?;
    let layout = args.size.layout(args.api_listen, false)?;
    let temporary = match &args.dir {
        Some(dir) => {
            private_folder(dir)?;
            close_folder(dir)?;
            None
        }
        None => Some(session.scratch.folder("skytale-fleet-", None, false)?),
    };
    let dir = temporary.as_deref().or(args.dir.as_deref());
    let dir = dir.unwrap_or(Path::new("."));
    let say = |text: String| session.output.note(text);
    // Given up in the middle, everything that was started ends with it.
    let mut machine = session.shutdown.unless(Machine::start(dir, &layout, say)).await?;
    let announcing = Box::pin(announce(dir, args.bridge_listen, session, &machine));
    let (shown, bridge) = match session.shutdown.unless(announcing).await {
        Ok(bridge) => {
            let shown = tokio::select! {
                () = session.shutdown.requested() => Ok(()),
                shown = show(session, &mut machine) => shown,
            };
            (shown, Some(bridge))
        }
        Err(failure) => (Err(failure), None),
    };
    session.output.note("stopping");
    // The bridge before the relay nodes, whose agent it is.
    let bridge = match bridge {
        Some(bridge) => bridge.stop().await,
        None => Ok(()),
    };
    let stopped = machine.stop().await;
    shown.and(bridge).and(stopped)
}

async fn announce(dir: &Path, bridge: SocketAddr, session: &Session, machine: &Machine) -> Outcome<BridgeServer> {
    let key = machine.api.key_in(&dir.join("api-key")).await?;
    let client = machine.api.client(&key)?;
    for node in &machine.nodes {
        machine.api.registered(&client, node.relay.endpoint()).await?;
    }
    let bridge = start_bridge(dir, bridge, client).await?;
    session.output.note(format_args!(
        "Data: {}. Copy these lines to each agent's terminal, and give each agent a vault of its own:\n",
        dir.display()
    ));
    session.output.give(&Running {
        api_url: &machine.api.url,
        api_key: &key,
        bridge: bridge.bridge.local_addr(),
        dir,
    })?;
    session
        .output
        .note("\nThen: `skytale init`, `skytale channel create`. Ctrl-C ends the fleet.\n");
    tell_slim(session, &bridge);
    Ok(bridge)
}

#[derive(Serialize)]
struct Running<'a> {
    api_url: &'a str,
    api_key: &'a str,
    bridge: SocketAddr,
    dir: &'a Path,
}

impl Human for Running<'_> {
    fn human(&self, to: &mut dyn fmt::Write, _: &Style) -> fmt::Result {
        writeln!(to, "export SKYTALE_API_URL={}", self.api_url)?;
        writeln!(to, "export SKYTALE_API_KEY={}", self.api_key)
    }
}

/// Shows the table again and again: over itself on a terminal, as lines of JSON for a program.
async fn show(session: &Session, machine: &mut Machine) -> Outcome {
    let mut watch = Watch::default();
    let mut turns = tokio::time::interval(DRAWN_EVERY);
    let on_terminal = std::io::stdout().is_terminal() && !session.output.is_json();
    let mut drawn = 0;
    loop {
        turns.tick().await;
        for (node, ended) in machine.fallen() {
            let told = ended.remark(&node);
            session.output.note(format_args!(
                "{told}\n  The others go on; start the fleet again to have it back."
            ));
            // The table is drawn below this.
            drawn = 0;
        }
        let nodes = Nodes {
            nodes: watch.look(&machine.nodes).await,
        };
        if on_terminal {
            let text = over(&nodes, &mut drawn)?;
            session.output.write(text.as_bytes())?;
        } else if session.output.is_json() {
            session.output.give(&nodes)?;
        }
        std::io::stdout()
            .flush()
            .failing(Code::Environment, || "cannot write".into())?;
    }
}

/// The table, drawn over the one before.
fn over(nodes: &Nodes, drawn: &mut usize) -> Outcome<String> {
    let mut table = String::new();
    let style = Style::new(std::env::var_os("NO_COLOR").is_none_or(|set| set.is_empty()));
    nodes
        .human(&mut table, &style)
        .failing(Code::Environment, || "cannot write the table".into())?;
    let mut text = String::new();
    if *drawn > 0 {
        // Up to where the last one began, and away with it.
        let _ = write!(text, "\x1b[{drawn}A\x1b[J");
    }
    *drawn = table.lines().count();
    text.push_str(&table);
    Ok(text)
}

/// The nodes of a fleet at one moment.
#[derive(Serialize)]
pub(crate) struct Nodes {
    pub nodes: Vec<NodeSample>,
}

impl Human for Nodes {
    fn human(&self, to: &mut dyn fmt::Write, style: &Style) -> fmt::Result {
        let rows = self.nodes.iter().map(|node| {
            let lag: Vec<String> = node
                .lag
                .iter()
                .map(|lag| format!("{}: {}", lag.shard, lag.messages))
                .collect();
            vec![
                node.node.clone(),
                node.region.clone(),
                node.state.to_owned(),
                node.agents.to_string(),
                format!("{:.0}", node.appends_per_s),
                format!("{:.2}", node.replay_bytes_per_s / 1e6),
                match node.mirrors {
                    0 => format!("{} streams", node.streams),
                    mirrors => format!("{} streams, {mirrors} mirrors", node.streams),
                },
                if lag.is_empty() { "0".into() } else { lag.join("  ") },
            ]
        });
        table(
            to,
            style,
            &[
                "node",
                "region",
                "state",
                "agents",
                "appends/s",
                "replay MB/s",
                "follows",
                "lag by shard",
            ],
            rows,
        )
    }
}
