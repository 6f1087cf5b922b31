//! `skytale dev`: a whole node on this machine.

use super::{Session, login};
use crate::config::{BridgeSetup, RelaySetup, StoreSetup, identity};
use crate::local::{AUDIENCE, LocalApi, private_folder};
use crate::output::{Failure, Human, Outcome, Style};
use crate::serve::{self, BridgeServer, RelayServer};
use serde::Serialize;
use skytale_bridge::{AuthConfig, BridgeConfig};
use skytale_proto::{Code, EndpointId};
use skytale_relay_node::{AdminConfig, HttpsConfig, RelayConfig, RelaySecret, TrustSource};
use skytale_sdk::net::ApiClient;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Where data is kept.
    #[arg(long, value_name = "DIR", default_value = ".skytale")]
    dir: PathBuf,
    /// Keep nothing: data goes to a temporary folder, removed at the end.
    #[arg(long, conflicts_with = "dir")]
    temp: bool,
    /// The API's address, for HTTP; port 0 is any free one.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7600", value_parser = loopback)]
    api_listen: SocketAddr,
    /// The relay node's address, for QUIC (UDP).
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7601", value_parser = loopback)]
    relay_listen: SocketAddr,
    /// The relay node's address without UDP, for QUIC over HTTP on this machine.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7605", value_parser = loopback)]
    https_listen: SocketAddr,
    /// The address of the relay node's health and metrics.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7602", value_parser = loopback)]
    admin_listen: SocketAddr,
    /// The bridge's address, for SLIM agents (gRPC).
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7603", value_parser = loopback)]
    bridge_listen: SocketAddr,
}

pub(super) fn loopback(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr = text
        .parse()
        .map_err(|_| "give an address and port, as in 127.0.0.1:7600".to_owned())?;
    if address.ip().is_loopback() {
        Ok(address)
    } else {
        Err(
            "this is for one machine alone: give a loopback address, and use `skytale api` and `skytale relay` otherwise"
                .into(),
        )
    }
}

pub(crate) async fn run(args: Args, session: Session) -> Outcome {
    let temporary = match args.temp {
        true => Some(session.scratch.folder("skytale-dev-", None, false)?),
        false => None,
    };
    let dir = temporary.as_deref().unwrap_or(&args.dir);
    session.loaded.refuse_unused("dev", is_decided)?;
    private_folder(dir)?;
    let api = LocalApi::start(dir, args.api_listen).await?;
    let relay = async {
        let setup = relay_setup(dir, &args, &session, &api)?;
        RelayServer::start(setup, Some(serve::metrics()?)).await
    };
    let relay = match Box::pin(relay).await {
        Ok(relay) => relay,
        Err(failure) => {
            // The first failure is the one to tell.
            let _ = api.stop().await;
            return Err(failure);
        }
    };
    let served = session
        .shutdown
        .unless(Box::pin(announce(dir, &args, &session, &api, &relay)))
        .await;
    let (served, bridge) = match served {
        Ok(bridge) => (Ok(()), Some(bridge)),
        Err(failure) => (Err(failure), None),
    };
    let ended = match served {
        Ok(()) => tokio::select! {
            () = session.shutdown.requested() => Ok(()),
            reason = relay.broken() => {
                Err(Failure::new(Code::StoreStopped, "the log takes no more appends").since(reason))
            }
        },
        Err(failure) => Err(failure),
    };
    session.output.note("stopping");
    // The bridge before the relay node, whose agent it is.
    let bridge = match bridge {
        Some(bridge) => bridge.stop().await,
        None => Ok(()),
    };
    // The relay node first: it tells its agents, and asks the API until it is gone.
    let relay = relay.stop().await;
    let api = api.stop().await;
    ended.and(bridge).and(relay).and(api)
}

async fn announce(
    dir: &Path,
    args: &Args,
    session: &Session,
    api: &LocalApi,
    relay: &RelayServer,
) -> Outcome<BridgeServer> {
    let key = api.key_in(&dir.join("api-key")).await?;
    let client = api.client(&key)?;
    api.registered(&client, relay.node.endpoint_id()).await?;
    let bridge = start_bridge(dir, args.bridge_listen, client).await?;
    let admin = relay.node.admin_address();
    let running = Running {
        api_url: &api.url,
        api_key: &key,
        relay: Relay {
            endpoint: relay.node.endpoint_id(),
            addresses: relay.node.bound_addresses(),
            https: relay.node.https_url().map(str::to_owned),
            admin,
        },
        bridge: bridge.bridge.local_addr(),
        dir,
        temporary: args.temp,
    };
    session.output.note(format_args!(
        "A node runs on this machine: API {}, relay node {} at {}. Data: {}{}.",
        running.api_url,
        running.relay.endpoint,
        running
            .relay
            .addresses
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(", "),
        dir.display(),
        if args.temp { " (removed at the end)" } else { "" },
    ));
    session
        .output
        .note("Copy these lines to each agent's terminal, and give each agent a vault of its own:\n");
    // Before anybody reads that the node is there.
    let offered = login::offer("dev", &api.url, &key);
    session.output.give(&running)?;
    match offered {
        Ok(line) => session
            .output
            .note(format_args!("\nOr paste this line into any terminal: {line}")),
        Err(failure) => session
            .output
            .note(format_args!("no profile is stored: {}", failure.reason())),
    }
    session
        .output
        .note("\nThen: `skytale init`, `skytale channel create`. Ctrl-C stops the node.");
    tell_slim(session, &bridge);
    Ok(bridge)
}

/// How to point a SLIM agent at the bridge.
pub(crate) fn tell_slim(session: &Session, bridge: &BridgeServer) {
    session.output.note(format_args!(
        "SLIM agents connect to the bridge, and get what they missed when they come back:\n\n    \
         config = slim_bindings.new_insecure_client_config(\"http://{}\")\n",
        bridge.bridge.local_addr()
    ));
}

/// A bridge that lets in who is on this machine.
pub(crate) async fn start_bridge(dir: &Path, listen: SocketAddr, client: ApiClient) -> Outcome<BridgeServer> {
    let setup = BridgeSetup {
        config: BridgeConfig::new(listen),
        auth: AuthConfig {
            everyone: true,
            ..AuthConfig::default()
        },
        tls: None,
        client: identity(&dir.join("bridge.key"))?.config(Arc::new(client), 0),
    };
    BridgeServer::start(setup, None)
        .await
        .map_err(|error| Failure::new(error.code(), "cannot start the bridge").because(&error))
}

/// Settings that are decided here: addresses are this command's own options, and the rest follows from there being one machine.
fn is_decided(key: &str) -> bool {
    const DECIDED: &[&str] = &[
        "relay.listen",
        "relay.advertise",
        "relay.data_dir",
        "relay.secret_key_file",
        "relay.api_url",
        "relay.issuer",
        "relay.audience",
        "relay.relay_secret",
        "relay.region",
    ];
    let sections = ["relay.admin.", "relay.https.", "relay.fleet.", "api.", "bridge."];
    DECIDED.contains(&key) || sections.iter().any(|section| key.starts_with(section))
}

/// A relay node with what else is configured in `[relay]`: retention, limits, the log's files.
fn relay_setup(dir: &Path, args: &Args, session: &Session, api: &LocalApi) -> Outcome<RelaySetup> {
    let (data_dir, loaded) = (dir.join("relay"), &session.loaded);
    let configured = loaded.relay_node(&data_dir);
    let node = RelayConfig {
        listen: vec![args.relay_listen],
        advertise: Vec::new(),
        region: 0,
        secret_key_file: Some(data_dir.join("endpoint.key")),
        issuer: api.issuer.clone(),
        audience: AUDIENCE.into(),
        disk_free_bytes_min: match loaded.source("relay.disk_free_bytes_min").as_str() {
            "default" => 0,
            _ => configured.disk_free_bytes_min,
        },
        https: HttpsConfig {
            listen: Some(args.https_listen),
            ..HttpsConfig::default()
        },
        admin: AdminConfig {
            listen: args.admin_listen,
            ..AdminConfig::default()
        },
        ..configured
    };
    node.check().map_err(|error| loaded.refused_relay(&error))?;
    Ok(RelaySetup {
        node,
        store: StoreSetup::Local(loaded.relay_log(&data_dir)),
        trust: TrustSource::Http {
            api_url: api.url.clone(),
            relay_secret: RelaySecret::new(api.relay_secret()),
        },
    })
}

#[derive(Serialize)]
struct Running<'a> {
    api_url: &'a str,
    api_key: &'a str,
    relay: Relay,
    bridge: SocketAddr,
    dir: &'a Path,
    temporary: bool,
}

#[derive(Serialize)]
struct Relay {
    endpoint: EndpointId,
    addresses: Vec<SocketAddr>,
    https: Option<String>,
    admin: Option<SocketAddr>,
}

impl Human for Running<'_> {
    fn human(&self, to: &mut dyn fmt::Write, _: &Style) -> fmt::Result {
        writeln!(to, "export SKYTALE_API_URL={}", self.api_url)?;
        writeln!(to, "export SKYTALE_API_KEY={}", self.api_key)
    }
}
