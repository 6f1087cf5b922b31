//! `skytale dev`: a whole node on this machine.

mod running;

use self::running::{Held, Wanted, refuse_taken};
use super::{Session, login};
use crate::config::{BridgeSetup, RelaySetup, StoreSetup, identity};
use crate::local::{AUDIENCE, LocalApi, close_folder, on_this_machine, private_folder};
use crate::output::{Context as _, Failure, Human, Outcome, Style};
use crate::serve::{self, BridgeServer, RelayServer};
use serde::Serialize;
use skytale_bridge::{AuthConfig, BridgeConfig};
use skytale_proto::{Code, EndpointId};
use skytale_relay_node::{AdminConfig, HttpsConfig, LimitsConfig, RelayConfig, RelaySecret, TrustSource};
use skytale_sdk::ApiClient;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

/// A segment of a node that is tried out, in bytes: its disk has other uses.
const SEGMENT_BYTES: u32 = 4 * 1024 * 1024;
/// Warning if the node listens on more than loopback.
const BEYOND: &str = "warning: this node listens on all addresses, without TLS and without accounts for SLIM agents: whoever reaches them may \
    use it, and keys cross that network in clear. Publish its ports on this machine alone, as in `docker run -p 127.0.0.1:7600:7600 \
    -p 127.0.0.1:7601:7601/udp`.\n";

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The folder for data.
    #[arg(long, value_name = "DIR", default_value = ".skytale")]
    dir: PathBuf,
    /// Keep nothing: data goes to a temporary folder, removed at the end.
    #[arg(long, conflicts_with = "dir")]
    temp: bool,
    /// The API's address, for HTTP; port 0 is any free one [default: 127.0.0.1:7600].
    #[arg(long, value_name = "ADDRESS")]
    api_listen: Option<SocketAddr>,
    /// The relay node's address, for QUIC (UDP) [default: 127.0.0.1:7601].
    #[arg(long, value_name = "ADDRESS")]
    relay_listen: Option<SocketAddr>,
    /// The relay node's address without UDP, for QUIC over HTTP on this machine [default: 127.0.0.1:7605].
    #[arg(long, value_name = "ADDRESS", value_parser = loopback)]
    https_listen: Option<SocketAddr>,
    /// The address of the relay node's health and metrics [default: 127.0.0.1:7602].
    #[arg(long, value_name = "ADDRESS")]
    admin_listen: Option<SocketAddr>,
    /// The bridge's address, for SLIM agents (gRPC) [default: 127.0.0.1:7603].
    #[arg(long, value_name = "ADDRESS")]
    bridge_listen: Option<SocketAddr>,
    /// Listen on any free ports instead of the usual ones, for a node beside another one.
    #[arg(long)]
    any_port: bool,
    /// Listen on all addresses, as in a container whose ports are published on this machine. Anyone who reaches them
    /// may use the node, and keys cross that network in clear. Agents get 127.0.0.1, so publish each port under its own
    /// number.
    #[arg(long, conflicts_with = "any_port")]
    listen_all: bool,
}

/// Addresses on which a node listens.
#[derive(Clone, Copy, Debug)]
struct Addresses {
    api: SocketAddr,
    relay: SocketAddr,
    /// None where all addresses are listened on: it is for this machine alone.
    https: Option<SocketAddr>,
    admin: SocketAddr,
    bridge: SocketAddr,
}

impl Args {
    fn addresses(&self) -> Outcome<Addresses> {
        let usual = |port: u16| {
            let ip = match self.listen_all {
                true => Ipv4Addr::UNSPECIFIED,
                false => Ipv4Addr::LOCALHOST,
            };
            SocketAddr::from((ip, if self.any_port { 0 } else { port }))
        };
        let given = [
            self.api_listen,
            self.relay_listen,
            self.admin_listen,
            self.bridge_listen,
        ];
        let beyond = given.into_iter().flatten().find(|listen| !listen.ip().is_loopback());
        if let (Some(listen), false) = (beyond, self.listen_all) {
            return Err(Failure::new(Code::Usage, format!("{listen} is not a loopback address")).help(
                "This is for one machine alone. In a container, give `--listen-all` as well; for others, run `skytale api` and \
                 `skytale relay`.",
            ));
        }
        Ok(Addresses {
            api: self.api_listen.unwrap_or_else(|| usual(7600)),
            relay: self.relay_listen.unwrap_or_else(|| usual(7601)),
            https: self.https_listen.or_else(|| (!self.listen_all).then(|| usual(7605))),
            admin: self.admin_listen.unwrap_or_else(|| usual(7602)),
            bridge: self.bridge_listen.unwrap_or_else(|| usual(7603)),
        })
    }
}

impl Addresses {
    /// Refuses those that are taken.
    fn free(&self) -> Outcome {
        let tcp = |of, option, listen| Wanted {
            of,
            option,
            listen,
            is_udp: false,
        };
        let mut wanted = vec![
            tcp("API", "--api-listen", self.api),
            tcp("health and metrics", "--admin-listen", self.admin),
            tcp("bridge", "--bridge-listen", self.bridge),
            Wanted {
                of: "relay node, UDP",
                option: "--relay-listen",
                listen: self.relay,
                is_udp: true,
            },
        ];
        wanted.extend(
            self.https
                .map(|listen| tcp("relay node without UDP", "--https-listen", listen)),
        );
        refuse_taken(&wanted)
    }
}

pub(super) fn loopback(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr = text
        .parse()
        .map_err(|_| "give an address and port, as in 127.0.0.1:7600".to_owned())?;
    if address.ip().is_loopback() {
        Ok(address)
    } else {
        Err(
            "this is for one machine alone: give a loopback address; for others, run `skytale api` and `skytale relay`"
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
    let addresses = args.addresses()?;
    private_folder(dir)?;
    close_folder(dir)?;
    // Held until the end.
    let mut held = Held::take(dir)?;
    addresses.free()?;
    if args.listen_all {
        session.output.note(BEYOND);
    }
    let api = LocalApi::start(dir, addresses.api).await?;
    held.say(Some(&api.url))
        .failing(Code::Environment, || format!("cannot write into {}", dir.display()))?;
    let relay = async {
        let setup = relay_setup(dir, &addresses, &session, &api)?;
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
        .unless(Box::pin(announce(dir, &args, addresses, &session, &api, &relay)))
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
    addresses: Addresses,
    session: &Session,
    api: &LocalApi,
    relay: &RelayServer,
) -> Outcome<BridgeServer> {
    let key = api.key_in(&dir.join("api-key")).await?;
    let client = api.client(&key)?;
    api.registered(&client, relay.node.endpoint_id()).await?;
    let bridge = start_bridge(dir, addresses.bridge, client).await?;
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
    session
        .output
        .note("In Python: `python -m skytale` prints two programs to paste (`pip install ./sdk/python` in a clone).");
    tell_slim(session, &bridge);
    Ok(bridge)
}

/// Prints the settings that point a SLIM agent at the bridge.
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
        config: BridgeConfig {
            open_beyond_loopback: !listen.ip().is_loopback(),
            ..BridgeConfig::new(listen)
        },
        auth: AuthConfig {
            everyone: true,
            ..AuthConfig::default()
        },
        tls: None,
        client: identity(&dir.join("bridge.key"))?.config(client, 0),
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
fn relay_setup(dir: &Path, addresses: &Addresses, session: &Session, api: &LocalApi) -> Outcome<RelaySetup> {
    let (data_dir, loaded) = (dir.join("relay"), &session.loaded);
    let configured = loaded.relay_node(&data_dir);
    let node = RelayConfig {
        listen: vec![addresses.relay],
        // The addresses on which it listens, if they can be reached as they are.
        advertise: Vec::from_iter(
            addresses
                .relay
                .ip()
                .is_unspecified()
                .then(|| on_this_machine(addresses.relay).to_string()),
        ),
        region: 0,
        secret_key_file: Some(data_dir.join("endpoint.key")),
        issuer: api.issuer.clone(),
        audience: AUDIENCE.into(),
        disk_free_bytes_min: match loaded.source("relay.disk_free_bytes_min").as_str() {
            "default" => 0,
            _ => configured.disk_free_bytes_min,
        },
        limits: LimitsConfig {
            // There is one account.
            account_stored_bytes_max: configured.limits.account_stored_bytes_max.or(Some(u64::MAX)),
            ..configured.limits
        },
        https: HttpsConfig {
            listen: addresses.https,
            ..HttpsConfig::default()
        },
        admin: AdminConfig {
            listen: addresses.admin,
            allow_remote: !addresses.admin.ip().is_loopback(),
            ..AdminConfig::default()
        },
        ..configured
    };
    node.check().map_err(|error| loaded.refused_relay(&error))?;
    let mut log = loaded.relay_log(&data_dir);
    if loaded.source("relay.store.segment_bytes") == "default" {
        // A segment's space is reserved as a whole.
        log.segment_bytes = SEGMENT_BYTES;
    }
    Ok(RelaySetup {
        node,
        store: StoreSetup::Local(log),
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
