//! Place of a run: relay nodes that are there, or some of its own.

use super::scrape::Source;
use crate::client;
use crate::command::Session;
use crate::command::fleet::Size;
use crate::fleet::Machine;
use crate::local::LocalApi;
use crate::output::{Context as _, Failure, Outcome};
use crate::stage::{RelayProcess, settings};
use serde_json::Value;
use skytale_proto::Code;
use skytale_sdk::{ApiClient, ApiError, ApiKey};
use skytale_workload::plan::Plan;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::sync::Notify;

/// Interval between heartbeats of a fleet's relay nodes.
const HEARTBEAT: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, clap::Args)]
pub(super) struct PlaceArgs {
    /// Start an API and one relay node for the run, on this machine and a temporary folder.
    #[arg(long, conflicts_with = "fleet")]
    local: bool,
    /// Start an API, NATS servers and relay nodes for the run, on this machine and a temporary folder.
    #[arg(long)]
    fleet: bool,
    #[command(flatten)]
    size: Size,
    /// Kill a relay node of --local or --fleet (the last one) at this time of the run, and start it again two seconds later.
    #[arg(long, value_name = "TIME", value_parser = super::super::duration)]
    kill_at: Option<Duration>,
    /// Freeze a relay node of --local or --fleet (the last one) for two seconds at this time of the run.
    #[arg(long, value_name = "TIME", value_parser = super::super::duration)]
    stall_at: Option<Duration>,
    /// A relay node's admin address (ip:port), whose metrics go into the report; several may be given.
    #[arg(long, value_name = "ADDRESS")]
    metrics: Vec<SocketAddr>,
    /// With --local: record what the relay node sees in files of a tap in this folder, for `bench capture --from-tap`.
    #[arg(long, value_name = "DIR", requires = "local")]
    tap: Option<std::path::PathBuf>,
    /// With --local: run everything a second time, in turn, against a relay node of another `skytale` program, such as an older
    /// version. Results go into the folders `a` (this program) and `b` (the other one), for `bench compare`.
    #[arg(long, value_name = "PROGRAM", requires = "local")]
    versus: Option<std::path::PathBuf>,
    /// Run everything a second time, in turn, against the relay nodes of another API, whose key is in SKYTALE_VERSUS_API_KEY. Results go
    /// into the folders `a` and `b`.
    #[arg(long, value_name = "URL", conflicts_with_all = ["local", "fleet"])]
    versus_api: Option<String>,
    /// The folder in which --local and --fleet keep their data meanwhile [default: the system's temporary folder].
    #[arg(long, value_name = "DIR")]
    data: Option<std::path::PathBuf>,
}

/// One of two targets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Side {
    A,
    B,
}

/// Time for which a killed or stopped node stays so.
const DOWN_FOR: Duration = Duration::from_secs(2);

impl PlaceArgs {
    /// Whether there are two targets.
    pub(super) const fn has_two(&self) -> bool {
        self.versus.is_some() || self.versus_api.is_some()
    }

    /// Whether a node is to be killed or stopped.
    pub(super) const fn hurts(&self) -> bool {
        self.kill_at.is_some() || self.stall_at.is_some()
    }

    /// Refuses what a plan never comes to.
    pub(super) fn check(&self, plan: &Plan, is_timed: bool) -> Outcome {
        for (name, at) in [("--kill-at", self.kill_at), ("--stall-at", self.stall_at)] {
            if let Some(at) = at.filter(|at| is_timed && *at >= plan.duration) {
                let what = format!(
                    "{name} {at:?} is after the end of the run, which takes {:?}",
                    plan.duration
                );
                return Err(Failure::new(Code::Usage, what));
            }
        }
        Ok(())
    }

    /// Returns the folder for data during the run.
    pub(super) fn data(&self) -> Option<&std::path::Path> {
        self.data.as_deref()
    }

    pub(super) fn settings(&self) -> BTreeMap<String, Value> {
        let ms = |at: Option<Duration>| {
            at.map_or(Value::Null, |at| {
                Value::from(u64::try_from(at.as_millis()).unwrap_or(u64::MAX))
            })
        };
        let mut settings = BTreeMap::from([
            ("kill_at_ms".to_owned(), ms(self.kill_at)),
            ("stall_at_ms".to_owned(), ms(self.stall_at)),
        ]);
        if self.fleet {
            settings.insert("nodes".to_owned(), Value::from(self.size.nodes));
            settings.insert("regions".to_owned(), Value::from(self.size.regions));
        }
        settings
    }
}

/// Place of a run.
pub(super) struct Place {
    client: ApiClient,
    name: String,
    servers: Servers,
}

/// A client of the second API.
fn versus_client(url: &str) -> Outcome<ApiClient> {
    const KEY: &str = "SKYTALE_VERSUS_API_KEY";
    let unusable = |error: ApiError| {
        Failure::new(
            Code::Config,
            format!("the API at {url} cannot be used with the key in {KEY}"),
        )
        .because(&error)
    };
    let key = std::env::var(KEY).map_err(|_| {
        Failure::new(Code::Config, "the second API needs a key").help(format!("Set {KEY} to a key of its account."))
    })?;
    let key = ApiKey::new(key).map_err(unusable)?;
    ApiClient::new(url, key).map_err(unusable)
}

/// Threads for an API. They end with this, which may be dropped anywhere.
struct Threads(Option<Runtime>);

impl Threads {
    fn start() -> Outcome<Self> {
        let runtime = Runtime::new().failing(Code::Environment, || "cannot start a runtime".into())?;
        Ok(Self(Some(runtime)))
    }

    /// Does something on them.
    async fn run<T: Send + 'static>(&self, work: impl Future<Output = Outcome<T>> + Send + 'static) -> Outcome<T> {
        let failed = || "cannot start the API".to_owned();
        let runtime = self
            .0
            .as_ref()
            .ok_or_else(|| Failure::new(Code::Environment, failed()))?;
        runtime.spawn(work).await.failing(Code::Environment, failed)?
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// Servers that were started for a run.
enum Servers {
    None,
    Local {
        _threads: Threads,
        api: Box<LocalApi>,
        relay: Box<RelayProcess>,
    },
    Fleet(Box<Machine>),
}

impl Place {
    pub(super) async fn start(args: &PlaceArgs, side: Side, session: &Session) -> Outcome<Self> {
        if !args.local && !args.fleet {
            if args.kill_at.or(args.stall_at).is_some() {
                return Err(
                    Failure::new(Code::Usage, "--kill-at and --stall-at need --local or --fleet")
                        .help("Nodes that this command did not start are not its to kill."),
                );
            }
            if let (Side::B, Some(url)) = (side, &args.versus_api) {
                return Ok(Self {
                    client: versus_client(url)?,
                    name: url.clone(),
                    servers: Servers::None,
                });
            }
            return Ok(Self {
                client: client::account(&session.loaded)?,
                name: session.loaded.config.api_url.clone(),
                servers: Servers::None,
            });
        }
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let dir = session.scratch.folder("skytale-bench-", args.data.as_deref(), false)?;
        if args.local {
            // On threads of its own: a crowd of agents must not keep it from answering the relay node.
            let threads = Threads::start()?;
            let folder = dir.clone();
            let starting = async move { LocalApi::start_for_load(&folder, any, HEARTBEAT).await };
            let api = threads.run(starting).await?;
            let mut settings = settings(&api);
            let admin = toml::toml! {
                enabled = true
                listen = "127.0.0.1:0"
            };
            settings.insert("admin".into(), toml::Value::Table(admin));
            if !args.hurts() {
                // A node that is killed must be noticed soon. Otherwise a crowd's pings would be a load of their own.
                let session = toml::toml! {
                    keepalive_ms = 15_000
                };
                settings.insert("session".into(), toml::Value::Table(session));
            }
            if let Some(tap) = &args.tap {
                let tap =
                    std::path::absolute(tap).failing(Code::Environment, || "there is no working folder".into())?;
                let tap = toml::Value::String(tap.display().to_string());
                settings.insert(
                    "tap".into(),
                    toml::Value::Table(toml::Table::from_iter([("dir".to_owned(), tap)])),
                );
            }
            let dir = dir.join("relay");
            let relay = match (side, &args.versus) {
                (Side::B, Some(program)) => RelayProcess::start_program(program.clone(), &dir, settings).await?,
                _ => RelayProcess::start(&dir, settings).await?,
            };
            let client = api.client(&api.create_account().await?)?;
            api.registered(&client, relay.endpoint()).await?;
            return Ok(Self {
                client,
                name: "local".into(),
                servers: Servers::Local {
                    _threads: threads,
                    api: Box::new(api),
                    relay: Box::new(relay),
                },
            });
        }
        let layout = args.size.layout(any, false)?;
        let output = session.output;
        let machine = Machine::start(&dir, &layout, |text| output.note(text)).await?;
        let client = machine.api.client(&machine.api.create_account().await?)?;
        for node in &machine.nodes {
            machine.api.registered(&client, node.relay.endpoint()).await?;
        }
        Ok(Self {
            client,
            name: "fleet".into(),
            servers: Servers::Fleet(Box::new(machine)),
        })
    }

    pub(super) const fn client(&self) -> &ApiClient {
        &self.client
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The nodes whose metrics are wanted.
    pub(super) fn nodes(&self, args: &PlaceArgs) -> Vec<Source> {
        let mut sources = Vec::new();
        match &self.servers {
            Servers::None => {}
            Servers::Local { relay, .. } => sources.push(Source::of("relay", relay)),
            Servers::Fleet(machine) => {
                sources.extend(machine.nodes.iter().map(|node| Source::of(&node.name, &node.relay)));
            }
        }
        sources.extend(args.metrics.iter().map(|address| Source::at(*address)));
        sources
    }

    /// Kills or stops a node when its time comes; resolves when all of that is done.
    pub(super) async fn faults(&mut self, args: &PlaceArgs, began: &Notify) -> Outcome {
        let relay = match &mut self.servers {
            Servers::None => None,
            Servers::Local { relay, .. } => Some(&mut **relay),
            Servers::Fleet(machine) => machine.nodes.last_mut().map(|node| &mut node.relay),
        };
        let Some(relay) = relay else { return Ok(()) };
        began.notified().await;
        let begun = std::time::Instant::now();
        let mut faults: Vec<(Duration, bool)> = Vec::new();
        faults.extend(args.kill_at.map(|at| (at, true)));
        faults.extend(args.stall_at.map(|at| (at, false)));
        faults.sort_unstable();
        for (at, kills) in faults {
            tokio::time::sleep(at.saturating_sub(begun.elapsed())).await;
            if kills {
                relay.kill().await?;
            } else {
                relay.freeze()?;
            }
            tokio::time::sleep(DOWN_FOR).await;
            if kills {
                relay.restart().await?;
            } else {
                relay.thaw()?;
            }
        }
        Ok(())
    }

    pub(super) async fn stop(self) -> Outcome {
        match self.servers {
            Servers::None => Ok(()),
            Servers::Local { api, relay, _threads } => {
                let stopped = relay.stop().await;
                stopped.and(api.stop().await)
            }
            Servers::Fleet(machine) => machine.stop().await,
        }
    }
}
