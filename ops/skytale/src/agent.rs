//! An agent as a command uses it: opened, or attached to the process that has its vault open; brought online; closed again
//! whatever happened.

use crate::client;
use crate::command::Session;
use crate::config::{Loaded, Transport};
use crate::local::private_folder;
use crate::output::{Failure, Outcome, Output, printable};
use crate::progress::while_it_catches_up;
use skytale_proto::{Code, Region};
use skytale_sdk::{
    Agent, AgentConfig, AgentError, Event, Token, TokenError, TokenProvider, TokenSource, TokenSubject, VaultKey,
};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::Duration;
use tokio::time::timeout;

/// Maximum time for sent messages to go out when a command ends.
const CLOSE_WITHIN: Duration = Duration::from_secs(5);
/// Maximum number of times that a command begins, if each time the process that has the vault open closes it meanwhile. Only
/// something broken gets there.
const ATTEMPTS_MAX: u32 = 1_000;
/// Pause before it begins again.
const AGAIN_AFTER: Duration = Duration::from_millis(25);

/// Default time to wait for the network.
const TIMEOUT: Duration = Duration::from_secs(15);

/// Time to wait for a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    /// This long, also if nothing listens: it may be about to start.
    Within(Duration),
    /// This long, and no longer than it takes to see that nothing listens.
    IfItListens(Duration),
}

impl From<Duration> for Patience {
    fn from(within: Duration) -> Self {
        Self::Within(within)
    }
}

/// Options of commands that use an agent.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Agent")]
pub(crate) struct AgentArgs {
    /// The agent's vault [key: vault]. If another process has the vault open, the command works through it.
    #[arg(long, value_name = "FILE")]
    pub vault: Option<PathBuf>,
    /// The file with the vault's key [key: vault_key_file].
    #[arg(long, value_name = "FILE")]
    pub vault_key_file: Option<PathBuf>,
    /// The API's URL [key: api_url].
    #[arg(long, value_name = "URL")]
    pub api_url: Option<String>,
    /// The transport to a relay node [key: transport]: auto, udp, https.
    #[arg(long, value_name = "TRANSPORT", value_enum)]
    pub transport: Option<Transport>,
    /// The maximum time to wait for the network, in seconds [default: 15, and no longer than it takes to see that
    /// nothing listens].
    #[arg(long, value_name = "SECONDS")]
    pub timeout_s: Option<u64>,
}

impl AgentArgs {
    /// The settings among these options.
    pub(crate) fn layers(&self) -> Vec<crate::config::Layer> {
        use crate::config::Layer;
        let vault = self
            .vault
            .as_ref()
            .map(|file| Layer::flag("--vault", "vault", file.display()));
        let key_file = self
            .vault_key_file
            .as_ref()
            .map(|file| Layer::flag("--vault-key-file", "vault_key_file", file.display()));
        let api_url = self
            .api_url
            .as_ref()
            .map(|url| Layer::flag("--api-url", "api_url", url));
        let transport = self
            .transport
            .map(|transport| Layer::flag("--transport", "transport", transport.name()));
        [vault, key_file, api_url, transport].into_iter().flatten().collect()
    }

    /// Returns the time to wait for the network.
    pub(crate) const fn timeout(&self) -> Duration {
        match self.timeout_s {
            Some(seconds) => Duration::from_secs(seconds),
            None => TIMEOUT,
        }
    }

    /// Returns the patience with which to wait for a session.
    pub(crate) const fn patience(&self) -> Patience {
        match self.timeout_s {
            Some(seconds) => Patience::Within(Duration::from_secs(seconds)),
            None => Patience::IfItListens(TIMEOUT),
        }
    }
}

/// Whether a command needs the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// The vault alone.
    Offline,
    /// Able to connect, when the command wants to.
    Able,
    /// Connected, and current.
    Online,
}

/// Opens the vault, goes online if it must, does `work`, and closes the vault. Where another process has the vault open
/// and closes it meanwhile, `work` is done again from its beginning: it keeps work outside that must not be done twice.
pub(crate) fn with_agent<'a, T: 'a>(
    session: &'a Session,
    args: &'a AgentArgs,
    mode: Mode,
    work: impl AsyncFnMut(&Agent) -> Outcome<T> + 'a,
) -> Pin<Box<dyn Future<Output = Outcome<T>> + 'a>> {
    Box::pin(async move {
        let vault = vault(&session.loaded)?;
        if !vault.exists() {
            return Err(
                Failure::new(Code::Environment, format!("there is no vault at {}", vault.display()))
                    .help("Make one: `skytale init`. Another vault is named by --vault or SKYTALE_VAULT."),
            );
        }
        with_vault(session, &vault, args, mode, work).await
    })
}

/// The same with a vault that is made where there is none.
pub(crate) fn with_vault<'a, T: 'a>(
    session: &'a Session,
    vault: &'a Path,
    args: &'a AgentArgs,
    mode: Mode,
    mut work: impl AsyncFnMut(&Agent) -> Outcome<T> + 'a,
) -> Pin<Box<dyn Future<Output = Outcome<T>> + 'a>> {
    Box::pin(async move {
        again_while_owners_go(async || {
            let agent = session.shutdown.unless(open(&session.loaded, vault, mode)).await?;
            let done = session.shutdown.unless(async {
                if mode == Mode::Online {
                    online(&agent, args).await?;
                }
                work(&agent).await
            });
            let done = done.await;
            agent.close(CLOSE_WITHIN).await;
            done
        })
        .await
    })
}

/// Repeats `attempt` while it fails because the process that had the vault open has closed it: of n commands that start at
/// once one may meet n - 1 such processes.
async fn again_while_owners_go<T>(mut attempt: impl AsyncFnMut() -> Outcome<T>) -> Outcome<T> {
    let mut attempts = 0;
    loop {
        attempts += 1;
        match attempt().await {
            Err(failure) if failure.code() == Code::VaultOwnerGone && attempts < ATTEMPTS_MAX => {
                tokio::time::sleep(AGAIN_AFTER).await;
            }
            done => return done,
        }
    }
}

/// Returns the path of the vault.
pub(crate) fn vault(loaded: &Loaded) -> Outcome<PathBuf> {
    if let Some(vault) = &loaded.config.vault {
        return Ok(vault.clone());
    }
    std::env::var_os("XDG_DATA_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".local/share")))
        .map(|data| data.join("skytale/agent.vault"))
        .ok_or_else(|| Failure::new(Code::Config, "no place for a vault is known").help("Set SKYTALE_VAULT to a file."))
}

/// Opens a vault, or makes one, or works through the process that has it open.
async fn open(loaded: &Loaded, vault: &Path, mode: Mode) -> Outcome<Agent> {
    if let Some(folder) = vault.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        private_folder(folder)?;
    }
    let tokens = match mode {
        Mode::Able | Mode::Online => TokenSource::new(client::account(loaded)?),
        // For another process that works through this one meanwhile, and goes online.
        Mode::Offline => match client::account(loaded) {
            Ok(account) => TokenSource::new(account),
            Err(_) => TokenSource::new(NoTokens),
        },
    };
    let mut config = AgentConfig::new(vault, vault_key(loaded, vault)?, tokens);
    // The inbox of a command that is run now and then is on disk: it never holds up the rest.
    config.driver.inbox_messages_max = u64::MAX;
    config.region = loaded.config.region.map(Region);
    config.network = loaded.network()?;
    config.engine.history = loaded.config.history.keep();
    Agent::open_or_attach(config).await.map_err(|error| {
        let failure = Failure::new(error.code(), format!("cannot open the vault {}", vault.display())).because(&error);
        match error.code() {
            Code::VaultKey => failure
                .help("Give the key that the vault was made with: SKYTALE_VAULT_KEY_FILE or SKYTALE_VAULT_PASSPHRASE."),
            Code::VaultInUse => failure.help(
                "Commands work through the process that has the vault open, if that is yours, of this version, and \
                 shares the vault. This one does not: end it, or give this agent a vault of its own (SKYTALE_VAULT).",
            ),
            Code::VaultDamaged => failure.help(
                "Restore the newest backup: `skytale vault restore FILE --force`. The damaged file is kept. A vault file that \
                 was copied under a running agent is no backup: `skytale vault backup` makes one.",
            ),
            _ => failure,
        }
    })
}

/// Returns the key that opens a vault.
pub(crate) fn vault_key(loaded: &Loaded, vault: &Path) -> Outcome<VaultKey> {
    let config = &loaded.config;
    match (&config.vault_passphrase, &config.vault_key_file) {
        (Some(_), Some(_)) => Err(Failure::new(
            Code::Config,
            format!(
                "both `vault_passphrase` ({}) and `vault_key_file` ({}) are set",
                loaded.source("vault_passphrase"),
                loaded.source("vault_key_file")
            ),
        )
        .help("Set the one that the vault was made with.")),
        (Some(passphrase), None) => {
            let passphrase = passphrase.reveal("vault_passphrase")?;
            if passphrase.is_empty() {
                return Err(Failure::new(Code::Config, "`vault_passphrase` is empty"));
            }
            Ok(VaultKey::passphrase(passphrase.as_str()))
        }
        (None, Some(file)) => Ok(VaultKey::file(file)),
        (None, None) => {
            let mut file = vault.as_os_str().to_owned();
            file.push(".key");
            Ok(VaultKey::file(file))
        }
    }
}

/// Brings an agent online, or reports the obstacle.
pub(crate) async fn connect(agent: &Agent, patience: impl Into<Patience>) -> Outcome {
    let (within, gives_up) = match patience.into() {
        Patience::Within(within) => (within, false),
        Patience::IfItListens(within) => (within, true),
    };
    let mut events = agent.events();
    let mut last = None;
    agent.connect().await.map_err(failed("cannot go online"))?;
    let waiting = async {
        let connected = agent.connected();
        tokio::pin!(connected);
        loop {
            tokio::select! {
                biased;
                connected = &mut connected => return connected.map_err(failed("cannot go online")),
                Some(event) = events.next() => match event {
                    Event::ConnectFailed { code, reason, .. } => last = Some((code, reason)),
                    Event::NobodyListens { reason } if gives_up => return Err(nobody_listens(reason)),
                    _ => {}
                }
            }
        }
    };
    match timeout(within, waiting).await {
        Ok(connected) => connected,
        Err(_) => {
            let failure = |code| Failure::new(code, format!("not online within {} s", within.as_secs()));
            Err(match last {
                Some((code, reason)) => failure(code).since(reason).help(
                    "Is the node running, and is this its address? `skytale config print` shows `api_url` and where it \
                     comes from. A relay node is reached over UDP, or over HTTPS where its operator serves that: a firewall may be \
                     in the way. `--log skytale_sdk=debug` shows each attempt; `--timeout-s` waits longer.",
                ),
                None => failure(Code::Offline),
            })
        }
    }
}

/// The node is down.
fn nobody_listens(reason: String) -> Failure {
    Failure::new(Code::Offline, "the node is not running").since(reason).help(
        "Start it (`skytale dev` on this machine), or set the address (`api_url`) of the one that runs: `skytale config \
         print` shows what is in force. `--timeout-s` waits for a node that is about to start.",
    )
}

/// Brings an agent online and up to date. A copy that another one has superseded gets no session: the command shows what
/// there is, and reports its state.
async fn online(agent: &Agent, args: &AgentArgs) -> Outcome {
    let done = match connect(agent, args.patience()).await {
        Ok(()) => current(agent, args.timeout()).await,
        failed => failed,
    };
    unless_superseded(done)
}

/// Brings an agent online and up to date, however long it takes until the node is there, and says that it waits.
pub(crate) async fn wait_online(agent: &Agent, args: &AgentArgs, output: &Output) -> Outcome {
    if args.timeout_s.is_some() {
        return online(agent, args).await;
    }
    let mut events = agent.events();
    agent.connect().await.map_err(failed("cannot go online"))?;
    let connected = agent.connected();
    tokio::pin!(connected);
    let mut told = false;
    let done = loop {
        tokio::select! {
            biased;
            connected = &mut connected => break connected.map_err(failed("cannot go online")),
            Some(event) = events.next() => {
                if let Event::NobodyListens { reason } | Event::ConnectFailed { reason, .. } = event
                    && !std::mem::replace(&mut told, true)
                {
                    let reason = printable(&reason);
                    output.note(format_args!("waiting for the node, Ctrl-C ends: {reason}"));
                }
            }
        }
    };
    if told && done.is_ok() {
        output.note("connected");
    }
    let done = match done {
        Ok(()) => current(agent, args.timeout()).await,
        failed => failed,
    };
    unless_superseded(done)
}

fn unless_superseded(done: Outcome) -> Outcome {
    match done {
        Err(failure) if failure.code() == Code::Superseded => Ok(()),
        done => done,
    }
}

/// Waits until an agent is current.
pub(crate) async fn current(agent: &Agent, within: Duration) -> Outcome {
    let mut events = agent.events();
    let mut last = None;
    let waiting = async {
        let caught_up = agent.caught_up();
        tokio::pin!(caught_up);
        loop {
            tokio::select! {
                biased;
                done = &mut caught_up => return done.map_err(failed("cannot catch up")),
                Some(event) = events.next() => match event {
                    Event::Gap { channel, expected, found } => {
                        let log = channel.map_or_else(|| "the agent's own log".into(), |id| format!("channel {id}"));
                        return Err(Failure::new(Code::Gap, format!("the relay's copy of {log} has a gap"))
                            .since(format!("entry {expected} had to come, {found} came")));
                    }
                    Event::Refused { code, reason, .. } | Event::VaultFailed { code, reason } => {
                        last = Some((code, reason));
                    }
                    Event::Disconnected { code, reason } | Event::ConnectFailed { code, reason, .. } => {
                        last = Some((code, reason));
                    }
                    _ => {}
                },
            }
        }
    };
    match while_it_catches_up(agent, within, waiting).await {
        Some(done) => done,
        None => {
            let what = format!("not caught up, and nothing came for {} s", within.as_secs());
            Err(match last {
                Some((code, reason)) => Failure::new(code, what).since(reason),
                None => Failure::new(Code::Offline, what)
                    .help("The agent keeps what came. Run again, or give `--timeout-s`."),
            })
        }
    }
}

/// Returns the report of an operation that failed.
pub(crate) fn failed(what: &str) -> impl Fn(AgentError) -> Failure {
    move |error| Failure::new(error.code(), what).because(&error)
}

/// For a command that never asks for one.
#[derive(Debug)]
struct NoTokens;

impl TokenProvider for NoTokens {
    async fn token(&self, _: &TokenSubject) -> Result<Token, TokenError> {
        Err(TokenError::new(Code::Offline, "this command does not go online"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn however_many_owners_close_the_vault_a_command_is_done_in_the_end() {
        let gone = || Failure::new(Code::VaultOwnerGone, "gone");
        let mut owners = 16;
        let done = again_while_owners_go(async || {
            owners -= 1;
            if owners > 0 { Err(gone()) } else { Ok("sent") }
        });
        assert_eq!(done.await.expect("done"), "sent");
        let failed = again_while_owners_go(async || Err::<(), _>(Failure::new(Code::Offline, "offline"))).await;
        assert_eq!(failed.expect_err("not repeated").code(), Code::Offline);
    }
}
