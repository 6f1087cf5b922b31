//! `skytale channel outbox`.

use super::failed::{Failed, dropped, retried};
use super::{Reference, Session};
use crate::agent::{AgentArgs, Mode, failed, with_agent};
use crate::names::Names;
use crate::output::{Human, Outcome, Style, table};
use crate::time::utc;
use clap::Subcommand;
use serde::Serialize;
use skytale_proto::{AgentId, ChannelId, FrameId};
use skytale_sdk::{DeferredAdd, Queued, QueuedKind, Refusal};
use std::fmt;

#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Args {
    /// The channel: its label, its id or the beginning of it, or its name org/namespace/name [default: all].
    channel: Option<Reference>,
    #[command(flatten)]
    agent: AgentArgs,
    #[command(subcommand)]
    action: Option<Action>,
}

/// Action on sends that have failed.
#[derive(Debug, Subcommand)]
enum Action {
    /// Forget sends that have failed.
    Drop(Drop),
    /// Put messages that have failed into the outbox again, under ids of their own.
    Retry(Retry),
}

#[derive(Debug, clap::Args)]
pub(super) struct Drop {
    /// Their ids, as `skytale channel outbox` shows them.
    #[arg(required_unless_present = "all", value_name = "ID")]
    pub(super) ids: Vec<FrameId>,
    /// All of them, in all channels.
    #[arg(long, conflicts_with = "ids")]
    pub(super) all: bool,
    #[command(flatten)]
    pub(super) agent: AgentArgs,
}

#[derive(Debug, clap::Args)]
pub(super) struct Retry {
    /// Their ids, as `skytale channel outbox` shows them.
    #[arg(required = true, value_name = "ID")]
    pub(super) ids: Vec<FrameId>,
    #[command(flatten)]
    pub(super) agent: AgentArgs,
}

impl Args {
    pub(super) const fn agent(&self) -> &AgentArgs {
        match &self.action {
            None => &self.agent,
            Some(Action::Drop(args)) => &args.agent,
            Some(Action::Retry(args)) => &args.agent,
        }
    }
}

pub(super) async fn run(args: Args, session: Session) -> Outcome {
    match args.action {
        None => show(args, session).await,
        Some(Action::Drop(args)) => dropped(args, session).await,
        Some(Action::Retry(args)) => retried(args, session).await,
    }
}

async fn show(args: Args, session: Session) -> Outcome {
    // Without the network: shown messages do not go out meanwhile.
    let outbox = with_agent(&session, &args.agent, Mode::Offline, async |agent| {
        let what = "cannot read the outbox";
        let (waiting, not_sent, deferred) = match &args.channel {
            Some(channel) => {
                let channel = channel.of(agent, &session).await?;
                (
                    channel.outbox().await,
                    channel.failed().await,
                    channel.deferred_adds().await,
                )
            }
            None => (agent.outbox().await, agent.failed().await, agent.deferred_adds().await),
        };
        let names = Names::of(agent).await?;
        let deferred = deferred.map_err(failed(what))?.into_iter();
        Ok(Outbox {
            outbox: waiting.map_err(failed(what))?.into_iter().map(Row::from).collect(),
            failed: not_sent.map_err(failed(what))?.into_iter().map(Failed::from).collect(),
            deferred: deferred.map(|add| Deferred::new(add, &names)).collect(),
        })
    });
    session.output.give(&outbox.await?)
}

#[derive(Serialize)]
struct Outbox {
    outbox: Vec<Row>,
    failed: Vec<Failed>,
    deferred: Vec<Deferred>,
}

/// An addition that waits for its agent.
#[derive(Serialize)]
struct Deferred {
    channel: ChannelId,
    agent: AgentId,
    /// Name of the agent in this vault; null if it has none.
    agent_name: Option<String>,
    /// By this machine's clock, unix milliseconds.
    since_ms: u64,
    last_refusal: Option<Refused>,
}

impl Deferred {
    fn new(add: DeferredAdd, names: &Names) -> Self {
        Self {
            agent_name: names.get(&add.agent).map(str::to_owned),
            channel: add.channel,
            agent: add.agent,
            since_ms: add.since_ms,
            last_refusal: add.last_refusal.map(Refused::from),
        }
    }
}

#[derive(Serialize)]
struct Row {
    channel: ChannelId,
    frame_id: FrameId,
    kind: &'static str,
    /// By this machine's clock, unix milliseconds.
    since_ms: u64,
    bytes: u64,
    /// Number of times that it was offered and refused.
    attempts: u32,
    last_refusal: Option<Refused>,
}

#[derive(Serialize)]
struct Refused {
    code: String,
    name: &'static str,
    /// By this machine's clock, unix milliseconds.
    at_ms: u64,
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self {
            code: refusal.code.to_string(),
            name: refusal.code.name(),
            at_ms: refusal.at_ms,
        }
    }
}

impl From<Queued> for Row {
    fn from(queued: Queued) -> Self {
        Self {
            channel: queued.channel,
            frame_id: queued.frame_id,
            kind: name(queued.kind),
            since_ms: queued.since_ms,
            bytes: queued.bytes,
            attempts: queued.attempts,
            last_refusal: queued.last_refusal.map(Refused::from),
        }
    }
}

/// A kind, as it is shown. Stable.
pub(super) const fn name(kind: QueuedKind) -> &'static str {
    match kind {
        QueuedKind::Create => "create",
        QueuedKind::Message => "message",
        QueuedKind::Add => "add",
        QueuedKind::Remove => "remove",
        QueuedKind::UpdateKeys => "rotate",
        QueuedKind::Leave => "leave",
        QueuedKind::LetGo => "let-go",
        QueuedKind::Digest => "digest",
        QueuedKind::Rejoin => "rejoin",
        QueuedKind::Renew => "renew",
        QueuedKind::Reboot => "reboot",
        QueuedKind::Policy => "policy",
        QueuedKind::AddWaiting => "add-waiting",
        _ => "other",
    }
}

impl Human for Outbox {
    fn human(&self, to: &mut dyn fmt::Write, style: &Style) -> fmt::Result {
        if self.outbox.is_empty() {
            writeln!(to, "nothing waits")?;
        } else {
            self.waiting(to, style)?;
        }
        self.deferred(to, style)?;
        if self.failed.is_empty() {
            return Ok(());
        }
        writeln!(
            to,
            "\n{} `skytale channel outbox retry ID` sends a message again, `drop ID` forgets it",
            style.bad("failed:")
        )?;
        Failed::table(&self.failed, to, style)
    }
}

impl Refused {
    fn shown(refused: Option<&Self>) -> String {
        refused.map_or_else(String::new, |refused| {
            format!("{} {} at {}", refused.code, refused.name, utc(refused.at_ms / 1_000))
        })
    }
}

impl Outbox {
    fn deferred(&self, to: &mut dyn fmt::Write, style: &Style) -> fmt::Result {
        if self.deferred.is_empty() {
            return Ok(());
        }
        writeln!(to, "\n{} when they have keys on offer", style.bold("added later:"))?;
        let rows = self.deferred.iter().map(|row| {
            vec![
                row.channel.to_string(),
                row.agent.to_string(),
                row.agent_name.clone().unwrap_or_default(),
                utc(row.since_ms / 1_000),
                Refused::shown(row.last_refusal.as_ref()),
            ]
        });
        table(to, style, &["channel", "agent", "name", "since", "last refusal"], rows)
    }

    fn waiting(&self, to: &mut dyn fmt::Write, style: &Style) -> fmt::Result {
        let rows = self.outbox.iter().map(|row| {
            let refused = Refused::shown(row.last_refusal.as_ref());
            vec![
                row.channel.to_string(),
                row.frame_id.to_string(),
                row.kind.to_owned(),
                utc(row.since_ms / 1_000),
                row.bytes.to_string(),
                row.attempts.to_string(),
                refused,
            ]
        });
        let heads = ["channel", "frame", "kind", "since", "bytes", "refused", "last refusal"];
        table(to, style, &heads, rows)
    }
}
