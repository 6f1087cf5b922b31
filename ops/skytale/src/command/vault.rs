//! `skytale vault`: copies of an agent's vault, and the way back.

use super::Session;
use crate::agent::{AgentArgs, Mode, connect, failed, vault, vault_key, with_agent};
use crate::config::Layer;
use crate::local::private_folder;
use crate::output::{Context as _, Failure, Human, Outcome, Style};
use crate::time::utc;
use clap::Subcommand;
use serde::Serialize;
use skytale_proto::{ChannelId, Code};
use skytale_sdk::{Agent, BackupInfo, BackupKey, Problem, RestoreInfo, VaultError, restore as put_back};
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::timeout;

/// Time for which a request that is to go out is left alone before it is looked for again.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Write a copy of the vault to a file: consistent, encrypted with the vault's key, checked.
    Backup(Backup),
    /// Make a vault of a backup. The agent takes fresh keys in every channel before it sends again.
    Restore(Restore),
    /// Go on with this copy of the vault, where another copy has taken its place. The other copy is stopped.
    Takeover(Takeover),
}

#[derive(Debug, clap::Args)]
pub(crate) struct Backup {
    /// The file to write. The folder must exist.
    file: PathBuf,
    /// Replace a file of that name.
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    agent: AgentArgs,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Restore {
    /// The backup.
    file: PathBuf,
    /// Replace a vault that exists. The old one is moved aside, not deleted.
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    agent: AgentArgs,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Takeover {
    /// Do it. Without this nothing is done.
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    agent: AgentArgs,
}

impl Command {
    /// The settings among its options.
    pub(crate) fn layers(&self) -> Vec<Layer> {
        match self {
            Self::Backup(args) => args.agent.layers(),
            Self::Restore(args) => args.agent.layers(),
            Self::Takeover(args) => args.agent.layers(),
        }
    }
}

pub(crate) async fn run(command: Command, session: Session) -> Outcome {
    match command {
        Command::Backup(args) => backup(args, session).await,
        Command::Restore(args) => restore(args, session).await,
        Command::Takeover(args) => take_over(args, session).await,
    }
}

async fn backup(args: Backup, session: Session) -> Outcome {
    let made = with_agent(&session, &args.agent, Mode::Offline, async |agent| {
        let what = format!("cannot back up the vault to {}", args.file.display());
        agent.backup(&args.file, args.force).await.map_err(|error| {
            let failure = failed(&what)(error);
            match failure.code() {
                Code::Environment => failure.help("Choose another file, or give --force to replace one."),
                _ => failure,
            }
        })
    });
    session.output.give(&Made::from(made.await?))
}

async fn restore(args: Restore, session: Session) -> Outcome {
    let vault = vault(&session.loaded)?;
    if let Some(folder) = vault.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        private_folder(folder)?;
    }
    let key = vault_key(&session.loaded, &vault)?;
    let (file, target) = (args.file.clone(), vault.clone());
    let done = tokio::task::spawn_blocking(move || put_back(&file, &target, &key, args.force))
        .await
        .failing(Code::Environment, || "cannot restore the vault".into())?;
    let done = done.map_err(|error| explained(&args.file, &vault, &error))?;
    session.output.give(&Restored::from(done))
}

async fn take_over(args: Takeover, session: Session) -> Outcome {
    if !args.yes {
        return Err(Failure::new(Code::Usage, "taking over needs --yes").help(
            "Stop whatever uses the other copy first. Its messages that are not in the log yet are lost with it. This copy \
             then asks to be added again in each channel, and cannot read what was sent meanwhile.",
        ));
    }
    let taken = with_agent(&session, &args.agent, Mode::Able, async |agent| {
        let what = "cannot take the vault over";
        // Before it goes online: a copy that was superseded takes no session.
        let channels = agent.take_over().await.map_err(failed(what))?;
        connect(agent, args.agent.patience()).await?;
        // A request that cannot go out now goes out when this agent is online the next time.
        let asked = timeout(args.agent.timeout(), asked(agent, &channels)).await;
        let asked = asked.unwrap_or(Ok(false))?;
        Ok(Taken { channels, asked })
    });
    session.output.give(&taken.await?)
}

/// Waits until the requests to be added again are in the log, or answered.
async fn asked(agent: &Agent, channels: &[ChannelId]) -> Outcome<bool> {
    let mut events = agent.events();
    loop {
        let problems = agent.problems().await.map_err(failed("cannot take the vault over"))?;
        let waits = |problem: &Problem| matches!(problem, Problem::OutOfSync { asked: None, .. });
        let is_waiting = |(channel, problems): &(Option<ChannelId>, Vec<Problem>)| {
            channel.is_some_and(|channel| channels.contains(&channel)) && problems.iter().any(waits)
        };
        if !problems.iter().any(is_waiting) {
            return Ok(true);
        }
        // A request in the log is no event of its own: look again now and then.
        let _ = timeout(LOOK_AGAIN, events.next()).await;
    }
}

fn explained(file: &Path, vault: &Path, error: &VaultError) -> Failure {
    let what = format!("cannot restore {} to {}", file.display(), vault.display());
    let failure = Failure::new(error.code(), what).because(error);
    match error {
        VaultError::Exists { .. } => failure.help(
            "Give --force to replace it (the old vault is moved aside, not deleted), or another place with --vault.",
        ),
        VaultError::InUse { .. } => failure.help("Stop the agent that has the vault open, then restore."),
        VaultError::Key { .. } => failure.help(
            "Give the key of the vault that was backed up: its key file (--vault-key-file), or its passphrase \
             (SKYTALE_VAULT_PASSPHRASE) with the backup's .kdf file beside the backup.",
        ),
        VaultError::Damaged { .. } => {
            failure.help("Restore another backup. This one, and the vault, stay as they are.")
        }
        _ => failure,
    }
}

#[derive(Serialize)]
struct Taken {
    /// The channels in which this copy asks to be added again.
    channels: Vec<ChannelId>,
    /// The requests are in the log.
    asked: bool,
}

impl Human for Taken {
    fn human(&self, to: &mut dyn fmt::Write, style: &Style) -> fmt::Result {
        if self.channels.is_empty() {
            return writeln!(
                to,
                "{} no other copy has taken this vault's place",
                style.dim("nothing to do:")
            );
        }
        for channel in &self.channels {
            writeln!(to, "{} {channel}", style.good("taken over:"))?;
        }
        let next = match self.asked {
            true => "Any member that is online adds this agent again. `skytale channel list` shows when that is done.",
            false => "The requests go out when this agent is online: run `skytale channel list`.",
        };
        writeln!(
            to,
            "{}",
            style.dim(&format!("{next} Never use the other copy again: delete it."))
        )
    }
}

#[derive(Serialize)]
struct Made {
    file: PathBuf,
    bytes: u64,
    /// By this machine's clock, unix milliseconds.
    at_ms: u64,
    /// `passphrase`, `file` or `raw`.
    key: &'static str,
    /// The file with the parameters of the passphrase, which belongs to the backup.
    key_parameters: Option<PathBuf>,
    /// The vault's key file, which is not part of the backup.
    key_file: Option<PathBuf>,
}

impl From<BackupInfo> for Made {
    fn from(made: BackupInfo) -> Self {
        let (key, key_parameters, key_file) = match made.key {
            BackupKey::Passphrase { parameters } => ("passphrase", Some(parameters), None),
            BackupKey::File { path } => ("file", None, Some(path)),
            _ => ("raw", None, None),
        };
        Self {
            file: made.path,
            bytes: made.bytes,
            at_ms: made.at_ms,
            key,
            key_parameters,
            key_file,
        }
    }
}

impl Human for Made {
    fn human(&self, to: &mut dyn fmt::Write, style: &Style) -> fmt::Result {
        let (file, bytes) = (self.file.display(), self.bytes);
        writeln!(to, "{} {file} ({bytes} bytes)", style.good("backed up:"))?;
        if let Some(parameters) = &self.key_parameters {
            let parameters = parameters.display();
            writeln!(
                to,
                "key        the vault's passphrase, with {parameters}: keep both files together"
            )?;
        }
        if let Some(key_file) = &self.key_file {
            let key_file = key_file.display();
            writeln!(
                to,
                "key        {key_file}: not in the backup, keep a copy of it in another place"
            )?;
        }
        let next = format!("skytale vault restore {file}");
        writeln!(to, "{}", style.dim(&format!("To use it: `{next}`.")))
    }
}

#[derive(Serialize)]
struct Restored {
    vault: PathBuf,
    bytes: u64,
    /// Time of the backup, unix milliseconds; null if the file is a plain copy of a vault.
    backup_ms: Option<u64>,
    /// Path of the replaced vault.
    replaced: Option<PathBuf>,
}

impl From<RestoreInfo> for Restored {
    fn from(done: RestoreInfo) -> Self {
        Self {
            vault: done.vault,
            bytes: done.bytes,
            backup_ms: done.backup_ms,
            replaced: done.replaced,
        }
    }
}

impl Human for Restored {
    fn human(&self, to: &mut dyn fmt::Write, style: &Style) -> fmt::Result {
        let of = self.backup_ms.map_or_else(
            || "a plain copy of a vault".into(),
            |ms| format!("backup of {}", utc(ms / 1_000)),
        );
        writeln!(to, "{} {} ({of})", style.good("restored:"), self.vault.display())?;
        if let Some(replaced) = &self.replaced {
            writeln!(
                to,
                "replaced   {}: delete it when you no longer need it",
                replaced.display()
            )?;
        }
        let next = "Never use the replaced vault, or another copy, at the same time. `skytale channel list` catches up; \
                    the agent takes fresh keys in every channel before it sends.";
        writeln!(to, "{}", style.dim(next))
    }
}
