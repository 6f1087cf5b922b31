//! `skytale channel list`.

use super::Session;
use crate::agent::{AgentArgs, Mode, failed, with_agent};
use crate::output::{Human, Outcome, Style, table};
use serde::Serialize;
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
        agent.channels().await.map_err(failed("cannot list the channels"))
    });
    let channels = channels.await?.into_iter().map(Row::from).collect();
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
    state: &'static str,
    cursor: Offset,
    epoch: u64,
    unread: u64,
    outbox: u64,
}

impl From<ChannelInfo> for Row {
    fn from(info: ChannelInfo) -> Self {
        Self {
            channel: info.id,
            label: info.label,
            state: name(info.state),
            cursor: info.cursor,
            epoch: info.epoch,
            unread: info.unacked,
            outbox: info.outbox,
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

impl Human for List {
    fn human(&self, to: &mut dyn fmt::Write, style: &Style) -> fmt::Result {
        if self.channels.is_empty() {
            return writeln!(to, "no channels");
        }
        let rows = self.channels.iter().map(|row| {
            let numbers = [row.unread, row.outbox, row.cursor.get(), row.epoch].map(|number| number.to_string());
            [row.channel.to_string(), row.label.clone(), row.state.into()]
                .into_iter()
                .chain(numbers)
                .collect()
        });
        table(
            to,
            style,
            &["channel", "label", "state", "unread", "unsent", "cursor", "epoch"],
            rows,
        )
    }
}
