//! `skytale api`: the API, in production.

mod rewrap_keys;

use super::Session;
use crate::config::Layer;
use crate::output::{Human, Outcome, Style};
use crate::serve::{self, start_api, stop_api};
use serde::Serialize;
use std::fmt;
use std::net::SocketAddr;

#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// Address to listen on, for HTTP [key: api.listen].
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// The URL that clients use, which is the issuer of tokens [key: api.url].
    #[arg(long, value_name = "URL")]
    url: Option<String>,
}

/// Work on a database that the API serves.
#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Encrypt the signing keys in the database under another key encryption key.
    RewrapKeys(rewrap_keys::Args),
}

impl Args {
    /// Whether this is no server but something that an operator does.
    pub(crate) const fn is_errand(&self) -> bool {
        self.command.is_some()
    }

    pub(crate) fn layers(&self) -> Vec<Layer> {
        let listen = self.listen.map(|listen| Layer::flag("--listen", "api.listen", listen));
        let url = self.url.as_ref().map(|url| Layer::flag("--url", "api.url", url));
        [listen, url].into_iter().flatten().collect()
    }
}

pub(crate) async fn run(args: Args, session: Session) -> Outcome {
    match args.command {
        Some(Command::RewrapKeys(args)) => rewrap_keys::run(args, session).await,
        None => serve(session).await,
    }
}

async fn serve(session: Session) -> Outcome {
    let mut config = session.loaded.api()?;
    if config.admin.enabled {
        config.metrics = Some(serve::metrics()?);
    }
    let url = config.url.clone();
    let api = start_api(config).await?;
    session.output.give(&Listening {
        address: api.local_addr(),
        url,
        admin: api.admin_addr(),
    })?;
    session.shutdown.requested().await;
    stop_api(api).await
}

#[derive(Serialize)]
struct Listening {
    address: SocketAddr,
    url: String,
    admin: Option<SocketAddr>,
}

impl Human for Listening {
    fn human(&self, to: &mut dyn fmt::Write, style: &Style) -> fmt::Result {
        writeln!(to, "{} API on http://{}", style.good("listening:"), self.address)?;
        writeln!(to, "  clients use {}", self.url)?;
        match self.admin {
            Some(admin) => writeln!(to, "  operator http://{admin}/readyz, /metrics"),
            None => Ok(()),
        }
    }
}
