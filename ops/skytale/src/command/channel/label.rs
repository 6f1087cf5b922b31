//! `skytale channel label`.

use super::{Reference, Session, naming};
use crate::agent::{AgentArgs, Mode, failed, with_agent};
use crate::output::{Human, Outcome, Style, printable};
use serde::Serialize;
use skytale_proto::ChannelId;
use std::fmt;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The channel: its label, its id or the beginning of it, or its name org/namespace/name.
    channel: Reference,
    /// The new label for this agent; an empty one takes the label away.
    label: String,
    /// Give the label although another channel has it, or it looks like another channel's label or id.
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    pub(super) agent: AgentArgs,
}

pub(super) async fn run(args: Args, session: Session) -> Outcome {
    let labelled = with_agent(&session, &args.agent, Mode::Offline, async |agent| {
        let what = "cannot label the channel";
        let channel = args.channel.of(agent, &session).await?;
        let channels = agent.channels().await.map_err(failed(what))?;
        let before = channels.iter().find(|info| info.id == channel.id());
        let label = naming::usable(&args.label, Some(channel.id()), &channels, args.force)?;
        channel.relabel(&label).await.map_err(failed(what))?;
        let shared = |info: &&_| is_shared(info, channel.id(), &label);
        Ok(Labelled {
            channel: channel.id(),
            before: before.map(|info| info.label.clone()).unwrap_or_default(),
            shared_with: channels.iter().filter(shared).map(|info| info.id).collect(),
            label: label.clone(),
        })
    });
    session.output.give(&labelled.await?)
}

fn is_shared(info: &skytale_sdk::ChannelInfo, channel: ChannelId, label: &str) -> bool {
    info.id != channel && !label.is_empty() && info.label == label
}

#[derive(Serialize)]
struct Labelled {
    channel: ChannelId,
    label: String,
    /// The label that it had.
    before: String,
    /// Other channels with the same label: commands ask for an id there.
    shared_with: Vec<ChannelId>,
}

impl Human for Labelled {
    fn human(&self, to: &mut dyn fmt::Write, style: &Style) -> fmt::Result {
        if self.label.is_empty() {
            return writeln!(to, "{} has no label", self.channel);
        }
        writeln!(
            to,
            "{} {} is `{}`",
            style.good("labelled:"),
            self.channel,
            printable(&self.label)
        )?;
        for other in &self.shared_with {
            writeln!(
                to,
                "{} {other} has this label, too: name them by their ids",
                style.dim("note:")
            )?;
        }
        Ok(())
    }
}
