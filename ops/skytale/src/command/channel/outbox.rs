//! `skytale channel outbox`.

use super::{Reference, Session};
use crate::agent::{AgentArgs, Mode, failed, with_agent};
use crate::output::{Human, Outcome, Style, table};
use crate::time::utc;
use serde::Serialize;
use skytale_proto::{ChannelId, FrameId};
use skytale_sdk::engine::{Queued, QueuedKind, Refusal};
use std::fmt;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The channel: its label, its id or the beginning of it, or its name org/namespace/name [default: all].
    channel: Option<Reference>,
    #[command(flatten)]
    pub(super) agent: AgentArgs,
}

pub(super) async fn run(args: Args, session: Session) -> Outcome {
    // Without the network: what is shown does not go out meanwhile.
    let waiting = with_agent(&session, &args.agent, Mode::Offline, async |agent| {
        let what = "cannot read the outbox";
        match &args.channel {
            Some(channel) => {
                let channel = channel.of(agent, &session).await?;
                channel.outbox().await.map_err(failed(what))
            }
            None => agent.outbox().await.map_err(failed(what)),
        }
    });
    let outbox = waiting.await?.into_iter().map(Row::from).collect();
    session.output.give(&Outbox { outbox })
}

#[derive(Serialize)]
struct Outbox {
    outbox: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    channel: ChannelId,
    frame_id: FrameId,
    kind: &'static str,
    /// By this machine's clock, unix milliseconds.
    since_ms: u64,
    bytes: u64,
    /// How often it was offered and refused.
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
const fn name(kind: QueuedKind) -> &'static str {
    match kind {
        QueuedKind::Create => "create",
        QueuedKind::Message => "message",
        QueuedKind::Add => "add",
        QueuedKind::Remove => "remove",
        QueuedKind::UpdateKeys => "rotate",
        QueuedKind::Leave => "leave",
        QueuedKind::LetGo => "let-go",
        QueuedKind::Digest => "digest",
        _ => "other",
    }
}

impl Human for Outbox {
    fn human(&self, to: &mut dyn fmt::Write, style: &Style) -> fmt::Result {
        if self.outbox.is_empty() {
            return writeln!(to, "nothing waits");
        }
        let rows = self.outbox.iter().map(|row| {
            let refused = row.last_refusal.as_ref();
            let refused = refused.map_or_else(String::new, |refused| {
                format!("{} {} at {}", refused.code, refused.name, utc(refused.at_ms / 1_000))
            });
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
