//! `skytale channel members`.

use super::{Reference, Session};
use crate::agent::{AgentArgs, Mode, failed, with_agent};
use crate::names::Names;
use crate::output::{Human, Outcome, Style, printable};
use serde::Serialize;
use skytale_proto::{AgentId, ChannelId};
use std::collections::BTreeMap;
use std::fmt;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The channel: its label, its id or the beginning of it, or its name org/namespace/name.
    channel: Reference,
    /// Show what the vault knows, without asking the network.
    #[arg(long)]
    offline: bool,
    #[command(flatten)]
    pub(super) agent: AgentArgs,
}

pub(super) async fn run(args: Args, session: Session) -> Outcome {
    let mode = if args.offline { Mode::Offline } else { Mode::Online };
    let members = with_agent(&session, &args.agent, mode, async |agent| {
        let what = "cannot list the members";
        let channel = args.channel.of(agent, &session).await?;
        let members = channel.members().await.map_err(failed(what))?;
        Ok(Members {
            channel: channel.id(),
            epoch: channel.epoch().await.map_err(failed(what))?,
            names: Names::of(agent).await?.among(&members),
            admins: channel.admins().await.map_err(failed(what))?,
            members,
            me: agent.id(),
        })
    });
    session.output.give(&members.await?)
}

#[derive(Serialize)]
struct Members {
    channel: ChannelId,
    epoch: u64,
    members: Vec<AgentId>,
    me: AgentId,
    /// The members that are admins.
    admins: Vec<AgentId>,
    /// Names of members in this vault, by their ids.
    names: BTreeMap<AgentId, String>,
}

impl Human for Members {
    fn human(&self, to: &mut dyn fmt::Write, style: &Style) -> fmt::Result {
        for member in &self.members {
            let me = if *member == self.me {
                style.dim("(me)")
            } else {
                String::new()
            };
            let name = self.names.get(member).map_or_else(String::new, |name| printable(name));
            let role = match self.admins.contains(member) {
                true => style.dim(" (admin)"),
                false => String::new(),
            };
            writeln!(to, "{}", format!("{member}  {name}{me}{role}").trim_end())?;
        }
        Ok(())
    }
}
