//! `skytale bridge`: the way in for SLIM agents, in production.

use super::Session;
use crate::config::Layer;
use crate::output::{Human, Outcome, Style};
use crate::serve::{self, BridgeServer};
use serde::Serialize;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Serves SLIM agents over gRPC. Group messages go into the relay's log first, and members that were away get the
/// messages that they missed.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// TCP address to listen on [key: bridge.listen].
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// The API that gives the bridge tokens [key: bridge.api_url].
    #[arg(long, value_name = "URL")]
    api_url: Option<String>,
    /// The file of accounts [key: bridge.accounts_file].
    #[arg(long, value_name = "FILE")]
    accounts_file: Option<PathBuf>,
}

impl Args {
    pub(crate) fn layers(&self) -> Vec<Layer> {
        let listen = self
            .listen
            .map(|listen| Layer::flag("--listen", "bridge.listen", listen));
        let api_url = self
            .api_url
            .as_ref()
            .map(|url| Layer::flag("--api-url", "bridge.api_url", url));
        let accounts = self
            .accounts_file
            .as_ref()
            .map(|file| Layer::flag("--accounts-file", "bridge.accounts_file", file.display()));
        [listen, api_url, accounts].into_iter().flatten().collect()
    }
}

pub(crate) async fn run(_: Args, session: Session) -> Outcome {
    let setup = session.loaded.bridge()?;
    let tls = setup.tls.is_some();
    let server = BridgeServer::start(setup, Some(serve::metrics()?))
        .await
        .map_err(|error| session.loaded.refused_bridge(&error))?;
    session.output.give(&Listening {
        address: server.bridge.local_addr(),
        tls,
        admin: server.bridge.admin_addr(),
    })?;
    session.shutdown.requested().await;
    server.stop().await
}

#[derive(Serialize)]
struct Listening {
    address: SocketAddr,
    tls: bool,
    admin: Option<SocketAddr>,
}

impl Human for Listening {
    fn human(&self, to: &mut dyn fmt::Write, style: &Style) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        writeln!(to, "{} bridge", style.good("listening:"))?;
        writeln!(to, "  agents   {scheme}://{} (SLIM over gRPC)", self.address)?;
        match self.admin {
            Some(admin) => writeln!(to, "  operator http://{admin}/readyz, /metrics"),
            None => Ok(()),
        }
    }
}
