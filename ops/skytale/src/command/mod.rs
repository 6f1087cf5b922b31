//! The subcommands, one file each.

mod account;
mod agents;
mod api;
mod audit;
mod bench;
mod bridge;
mod channel;
mod completions;
mod config;
mod consent;
mod contact;
mod demo;
mod dev;
mod examples;
mod fleet;
mod init;
mod key;
pub(crate) mod likeness;
mod log;
pub(crate) mod login;
mod reference;
mod relay;
mod vault;
mod whoami;

use crate::cli::{Cli, Global};
use crate::config::profile::{self, Asked};
use crate::config::{Layer, Loaded, Sources, load, read};
use crate::output::{Context as _, EXIT_CODES, Exit, Outcome, Output};
use crate::scratch::Scratch;
use crate::shutdown::Shutdown;
use crate::telemetry;
use clap::Subcommand;
use skytale_proto::Code;
use std::sync::Arc;
use std::time::Duration;

/// Commands of `skytale`.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Watch an agent that was away catch up on everything it missed, on a node of its own that is killed meanwhile.
    Demo(demo::Args),
    /// Run a whole node on this machine, and print what agents need to use it.
    Dev(dev::Args),
    /// Serve the API: accounts, keys, tokens, the directory of relay nodes.
    Api(api::Args),
    /// Serve a relay node: the log.
    Relay(relay::Args),
    /// Serve SLIM agents over gRPC, with the relay's log behind them.
    Bridge(bridge::Args),
    /// Run several relay nodes over one log.
    #[command(subcommand)]
    Fleet(fleet::Command),
    /// Make this agent's vault, and offer keys so that others can add it.
    Init(init::Args),
    /// Store where the API is and a key for it, so that no command needs them any more.
    Login(login::Login),
    /// Forget what `login` has stored.
    Logout,
    /// List what `login` has stored.
    Profiles,
    /// Say who this agent is.
    Whoami(whoami::Args),
    /// Make channels, send and read.
    #[command(subcommand, after_help = channel::BESIDE)]
    Channel(channel::Command),
    #[command(flatten)]
    Short(channel::Short),
    /// Give agents names.
    #[command(subcommand)]
    Contact(contact::Command),
    /// Say who may claim this agent's keys, and who may add it to channels without asking.
    #[command(after_help = consent::AFTER)]
    Consent(consent::Args),
    /// List the account's agents, or end one.
    #[command(subcommand)]
    Agents(agents::Command),
    /// Show the actions in the account: keys, tokens, agents, names.
    Audit(audit::Args),
    /// Back up the vault, or restore it.
    #[command(subcommand, after_help = examples::VAULT)]
    Vault(vault::Command),
    /// Make, list and revoke API keys.
    #[command(subcommand)]
    Key(key::Command),
    /// Make accounts, as the operator.
    #[command(subcommand)]
    Account(account::Command),
    /// Check, list or copy out a stopped node's data.
    #[command(subcommand, after_help = examples::LOG)]
    Log(log::Command),
    /// Capture or make workloads, replay them as load, and compare the results.
    #[command(subcommand)]
    Bench(bench::Command),
    /// Make, check or show the configuration.
    #[command(subcommand, after_help = examples::CONFIG)]
    Config(config::Command),
    /// Print completions for a shell.
    Completions(completions::Args),
    /// Explain the exit codes.
    #[command(name = "exit-codes", long_about = EXIT_CODES)]
    ExitCodes,
    /// Write and check the documentation's reference.
    #[command(subcommand, hide = true)]
    Reference(reference::Command),
}

/// Surroundings of a command.
#[derive(Debug)]
pub(crate) struct Session {
    /// The configuration in force.
    pub loaded: Loaded,
    /// Output for results.
    pub output: Output,
    /// Says when to stop.
    pub shutdown: Shutdown,
    /// Its temporary folders.
    pub scratch: Arc<Scratch>,
}

/// Runs the command, prints its failure, and returns the exit code.
pub(crate) fn run(cli: Cli) -> Exit {
    let output = cli.global.output();
    match dispatch(cli, output) {
        Ok(()) => Exit::Done,
        Err(failure) => {
            if !failure.is_silent() {
                output.fail(&failure);
            }
            failure.exit()
        }
    }
}

fn dispatch(cli: Cli, output: Output) -> Outcome {
    let global = cli.global;
    let client: fn(Vec<Layer>) -> Kind = |flags| Kind {
        default: telemetry::Default::Client,
        flags,
    };
    let server: fn(Vec<Layer>) -> Kind = |flags| Kind {
        default: telemetry::Default::Server,
        flags,
    };
    match cli.command {
        Command::Demo(args) => within(&global, client(Vec::new()), output, |session| demo::run(args, session)),
        Command::Dev(args) => within(&global, client(Vec::new()), output, |session| dev::run(args, session)),
        Command::Bridge(args) => within(&global, server(args.layers()), output, |session| {
            bridge::run(args, session)
        }),
        Command::Api(args) => {
            let kind = if args.is_errand() { client } else { server };
            within(&global, kind(args.layers()), output, |session| api::run(args, session))
        }
        Command::Relay(args) => {
            let kind = if args.is_errand() { client } else { server };
            within(&global, kind(args.layers()), output, |session| {
                relay::run(args, session)
            })
        }
        Command::Fleet(command) => within(&global, client(Vec::new()), output, |session| {
            fleet::run(command, session)
        }),
        Command::Init(args) => within(&global, client(args.agent.layers()), output, |session| {
            init::run(args, session)
        }),
        Command::Login(args) => {
            // Another profile's settings are of no use for a new one.
            let (name, global) = (
                asked(&global)?,
                Global {
                    profile: None,
                    ..global
                },
            );
            within_without_profile(&global, output, |session| login::login(args, name, session))
        }
        Command::Logout => login::logout(asked(&global)?, &output),
        Command::Profiles => login::profiles(Asked::of_process(global.profile.as_ref())?, &output),
        Command::Whoami(args) => within(&global, client(args.agent.layers()), output, |session| {
            whoami::run(args, session)
        }),
        Command::Channel(command) => within(&global, client(command.layers()), output, |session| {
            channel::run(command, session)
        }),
        Command::Short(short) => {
            let command = channel::Command::from(short);
            within(&global, client(command.layers()), output, |session| {
                channel::run(command, session)
            })
        }
        Command::Contact(command) => within(&global, client(command.layers()), output, |session| {
            contact::run(command, session)
        }),
        Command::Consent(args) => within(&global, client(args.agent.layers()), output, |session| {
            consent::run(args, session)
        }),
        Command::Agents(command) => within(&global, client(command.layers()), output, |session| {
            agents::run(command, session)
        }),
        Command::Audit(args) => within(&global, client(args.agent.layers()), output, |session| {
            audit::run(args, session)
        }),
        Command::Vault(command) => within(&global, client(command.layers()), output, |session| {
            vault::run(command, session)
        }),
        Command::Key(command) => within(&global, client(Vec::new()), output, |session| {
            key::run(command, session)
        }),
        Command::Account(command) => within(&global, client(Vec::new()), output, |session| {
            account::run(command, session)
        }),
        Command::Log(command) => plain(&global, |loaded| log::run(command, loaded, &output)),
        Command::Bench(command) if command.is_load() => within(&global, client(Vec::new()), output, |session| {
            bench::load(command, session)
        }),
        Command::Bench(command) => plain(&global, |loaded| bench::run(command, loaded, &output)),
        Command::Config(command) => config::run(command, &global, &output),
        Command::Completions(args) => completions::run(&args, &output),
        Command::Reference(command) => reference::run(&command, &output),
        Command::ExitCodes => output.write(format!("{EXIT_CODES}\n").as_bytes()),
    }
}

/// Reads the configuration and starts logging, for a command that needs no runtime.
fn plain(global: &Global, work: impl FnOnce(&Loaded) -> Outcome) -> Outcome {
    let loaded = configuration(global, Vec::new())?;
    remark(&loaded, &global.output());
    telemetry::start(
        loaded.config.log.as_deref(),
        telemetry::Default::Client,
        loaded.config.log_format,
        None,
    )?;
    work(&loaded)
}

/// Default log of a command, and its flags that are settings.
struct Kind {
    default: telemetry::Default,
    flags: Vec<Layer>,
}

/// The profile that is asked for, if one is.
fn asked(global: &Global) -> Outcome<Option<profile::Name>> {
    Ok(match Asked::of_process(global.profile.as_ref())? {
        Asked::Flag(name) | Asked::Variable(name) => Some(name),
        Asked::Nothing => None,
    })
}

/// Works as [`within`] does, for a client to which no profile applies.
fn within_without_profile<F>(global: &Global, output: Output, work: impl FnOnce(Session) -> F) -> Outcome
where
    F: Future<Output = Outcome>,
{
    let loaded = load(Sources::of_process(global.config.clone(), global.layers()))?;
    running(loaded, telemetry::Default::Client, output, work)
}

/// Reads the configuration, starts logging and a runtime, and runs `work` in it.
fn within<F>(global: &Global, kind: Kind, output: Output, work: impl FnOnce(Session) -> F) -> Outcome
where
    F: Future<Output = Outcome>,
{
    // A server refuses wrong keys together with missing ones.
    let loaded = match kind.default {
        telemetry::Default::Server => read_configuration(global, kind.flags)?,
        telemetry::Default::Client => configuration(global, kind.flags)?,
    };
    running(loaded, kind.default, output, work)
}

/// Starts logging and a runtime, and runs `work` in it.
fn running<F>(loaded: Loaded, default: telemetry::Default, output: Output, work: impl FnOnce(Session) -> F) -> Outcome
where
    F: Future<Output = Outcome>,
{
    remark(&loaded, &output);
    // Before the runtime, so that it is dropped after it.
    let scratch = Arc::new(Scratch::default());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .failing(Code::Environment, || "cannot start the runtime".into())?;
    let log = loaded.config.log.clone();
    let otlp_url = loaded
        .config
        .otlp_url
        .clone()
        .filter(|_| default == telemetry::Default::Server);
    let entered = runtime.enter();
    let traces = telemetry::start(log.as_deref(), default, loaded.config.log_format, otlp_url.as_deref())?;
    drop(entered);
    let outcome = runtime.block_on(async {
        let shutdown = Shutdown::listen()?;
        Box::pin(work(Session {
            loaded,
            output,
            shutdown,
            scratch: Arc::clone(&scratch),
        }))
        .await
    });
    traces.stop();
    // Blocking work that is still going on (a file being synced) may end; it does not hold up the exit.
    runtime.shutdown_timeout(Duration::from_secs(2));
    outcome
}

fn remark(loaded: &Loaded, output: &Output) {
    loaded.remarks.iter().for_each(|remark| output.note(remark));
}

fn configuration(global: &Global, mut flags: Vec<Layer>) -> Outcome<Loaded> {
    flags.extend(global.layers());
    let asked = Asked::of_process(global.profile.as_ref())?;
    profile::load_with(Sources::of_process(global.config.clone(), flags), &asked)
}

/// A server's configuration, with the problems of single keys.
fn read_configuration(global: &Global, mut flags: Vec<Layer>) -> Outcome<Loaded> {
    flags.extend(global.layers());
    read(Sources::of_process(global.config.clone(), flags))
}
