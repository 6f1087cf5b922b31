//! `skytale channel list`.

use super::Session;
use super::names::{self, Names};
use crate::agent::{AgentArgs, Mode, failed, with_agent};
use crate::output::{Human, Outcome, Style, table};
use serde::Serialize;
use skytale_proto::rest::ChannelName;
use skytale_proto::{ChannelId, Offset};
use skytale_sdk::engine::{ChannelInfo, ChannelState};
use std::fmt;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Show what the vault knows, without asking the network.
    #[arg(long)]
    offline: bool,
    #[command(flatten)]
    pub(super) agent: AgentArgs,
}

pub(super) async fn run(args: Args, session: Session) -> Outcome {
    let mode = if args.offline { Mode::Offline } else { Mode::Online };
    let channels = with_agent(&session, &args.agent, mode, async |agent| {
        let channels = agent.channels().await.map_err(failed("cannot list the channels"))?;
        let names = match mode {
            Mode::Offline => Names::new(),
            _ => names::of(&session, &channels).await,
        };
        Ok(channels.into_iter().map(|info| Row::new(info, &names)).collect())
    });
    let channels = channels.await?;
    session.output.give(&List { channels })
}

#[derive(Serialize)]
struct List {
    channels: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    channel: ChannelId,
    label: String,
    /// As the account's other agents find it. Not known offline.
    name: Option<ChannelName>,
    state: &'static str,
    cursor: Offset,
    epoch: u64,
    unread: u64,
    outbox: u64,
    /// Sent, will not be delivered, and not dismissed.
    failed: u64,
}

impl Row {
    fn new(info: ChannelInfo, names: &Names) -> Self {
        Self {
            channel: info.id,
            label: info.label,
            name: names.get(&info.id).cloned(),
            state: name(info.state),
            cursor: info.cursor,
            epoch: info.epoch,
            unread: info.unacked,
            outbox: info.outbox,
            failed: info.failed,
        }
    }
}

/// A state, as it is shown. Stable.
pub(super) const fn name(state: ChannelState) -> &'static str {
    match state {
        ChannelState::Creating => "creating",
        ChannelState::Active => "active",
        ChannelState::Leaving => "leaving",
        ChannelState::Left => "left",
    }
}

/// Says that sends have failed, where any have.
fn failed_hint(to: &mut dyn fmt::Write, style: &Style, failed: u64) -> fmt::Result {
    let text = match failed {
        0 => return Ok(()),
        1 => "1 send failed".to_owned(),
        more => format!("{more} sends failed"),
    };
    writeln!(
        to,
        "{} `skytale channel outbox` shows why",
        style.bad(&format!("{text}:"))
    )
}

impl Human for List {
    fn human(&self, to: &mut dyn fmt::Write, style: &Style) -> fmt::Result {
        if self.channels.is_empty() {
            return writeln!(to, "no channels");
        }
        let named = self.channels.iter().any(|row| row.name.is_some());
        let rows = self.channels.iter().map(|row| {
            let name = row.name.as_ref().map(ToString::to_string).unwrap_or_default();
            let numbers = [row.unread, row.outbox, row.cursor.get(), row.epoch].map(|number| number.to_string());
            [row.channel.to_string(), row.label.clone()]
                .into_iter()
                .chain(named.then_some(name))
                .chain([row.state.into()])
                .chain(numbers)
                .collect()
        });
        let heads: Vec<&str> = ["channel", "label"]
            .into_iter()
            .chain(named.then_some("name"))
            .chain(["state", "unread", "unsent", "cursor", "epoch"])
            .collect();
        table(to, style, &heads, rows)?;
        let failed = self.channels.iter().map(|row| row.failed).sum();
        failed_hint(to, style, failed)
    }
}
