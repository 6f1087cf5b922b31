//! `skytale relay`: a relay node, in production; and what an operator does with a fleet of them.

mod enrolment;
mod fleet;
mod rollback;

pub(crate) use self::rollback::accept_in;
use super::Session;
use crate::config::Layer;
use crate::output::{Failure, Human, Outcome, Style};
use crate::serve::{self, RelayServer};
use serde::Serialize;
use skytale_proto::{Code, EndpointId};
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use tokio::io::AsyncReadExt as _;

#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// The data folder [key: relay.data_dir].
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// UDP address to listen on [key: relay.listen].
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// The API whose tokens it takes [key: relay.api_url].
    #[arg(long, value_name = "URL")]
    api_url: Option<String>,
    /// Stop when standard input ends, as it does when the process that started this one is gone.
    #[arg(long, hide = true)]
    until_stdin_ends: bool,
}

/// Commands of an operator, with the operator's secret (SKYTALE_ADMIN_SECRET) if they are about a fleet.
#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Let a relay node into the fleet: make the key that it shows, which is shown once.
    Enrol(enrolment::Enrol),
    /// List the enrolments of relay nodes.
    Enrolments,
    /// Revoke an enrolment: its relay node leaves the directory at once, and serves no agents within 10 s.
    Revoke(enrolment::Revoke),
    /// List the enrolled relay nodes with their load.
    Fleet,
    /// Say that this node's data was put back to an earlier time, and that agents go on with it as it is. The node is
    /// stopped.
    AcceptRollback(rollback::AcceptRollback),
}

impl Args {
    /// Whether this is no server but something that an operator does.
    pub(crate) const fn is_errand(&self) -> bool {
        self.command.is_some()
    }

    pub(crate) fn layers(&self) -> Vec<Layer> {
        let data_dir = self
            .data_dir
            .as_ref()
            .map(|dir| Layer::flag("--data-dir", "relay.data_dir", dir.display()));
        let listen = self
            .listen
            .map(|listen| Layer::flag("--listen", "relay.listen", listen));
        let api_url = self
            .api_url
            .as_ref()
            .map(|url| Layer::flag("--api-url", "relay.api_url", url));
        [data_dir, listen, api_url].into_iter().flatten().collect()
    }
}

pub(crate) async fn run(args: Args, session: Session) -> Outcome {
    let Some(command) = args.command else {
        return Box::pin(serve(args.until_stdin_ends, session)).await;
    };
    let errand = async {
        match command {
            Command::Enrol(args) => enrolment::enrol(args, &session).await,
            Command::Enrolments => enrolment::list(&session).await,
            Command::Revoke(args) => enrolment::revoke(args, &session).await,
            Command::Fleet => fleet::run(&session).await,
            Command::AcceptRollback(args) => rollback::accept(args, &session).await,
        }
    };
    session.shutdown.unless(errand).await
}

async fn serve(until_stdin_ends: bool, session: Session) -> Outcome {
    let setup = session.loaded.relay()?;
    let server = RelayServer::start(setup, Some(serve::metrics()?)).await?;
    session.output.give(&Listening {
        endpoint: server.node.endpoint_id(),
        addresses: server.node.bound_addresses(),
        https: server.node.https_url(),
        admin: server.node.admin_address(),
    })?;
    let ended = tokio::select! {
        () = session.shutdown.requested() => Ok(()),
        () = stdin_ended(), if until_stdin_ends => Ok(()),
        reason = server.broken() => Err(Failure::new(Code::StoreStopped, "the log takes no more appends").since(reason)),
    };
    let stopped = server.stop().await;
    ended.and(stopped)
}

async fn stdin_ended() {
    let mut bytes = [0; 64];
    let mut stdin = tokio::io::stdin();
    while stdin.read(&mut bytes).await.is_ok_and(|read| read > 0) {}
}

#[derive(Serialize)]
struct Listening<'a> {
    endpoint: EndpointId,
    addresses: Vec<SocketAddr>,
    https: Option<&'a str>,
    admin: Option<SocketAddr>,
}

impl Human for Listening<'_> {
    fn human(&self, to: &mut dyn fmt::Write, style: &Style) -> fmt::Result {
        let addresses: Vec<_> = self.addresses.iter().map(ToString::to_string).collect();
        writeln!(to, "{} relay node {}", style.good("listening:"), self.endpoint)?;
        writeln!(to, "  agents   {} (QUIC)", addresses.join(", "))?;
        if let Some(url) = self.https {
            writeln!(to, "           {url} (QUIC over HTTPS)")?;
        }
        match self.admin {
            Some(admin) => writeln!(to, "  operator http://{admin}/readyz, /metrics"),
            None => Ok(()),
        }
    }
}
