//! `skytale channel policy`, `promote`, `demote`: who may do what in a channel.

use super::change::{Changed, settle};
use super::{Agents, Reference, Session};
use crate::agent::{AgentArgs, Mode, failed, with_agent};
use crate::names::Names;
use crate::output::{Human, Outcome, Style};
use serde::Serialize;
use skytale_proto::{AgentId, ChannelId, Holders, Policy, Right};
use skytale_sdk::Channel;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// A channel's policy.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The channel: its label, its id or the beginning of it, or its name org/namespace/name.
    channel: Reference,
    /// Give a right to `admins` alone, or to all `members`: add, invite, remove, trim or policy. Can be given several times.
    #[arg(long, value_name = "RIGHT=WHO")]
    grant: Vec<Grant>,
    /// Show what the vault knows, without asking the network.
    #[arg(long, conflicts_with = "grant")]
    offline: bool,
    #[command(flatten)]
    pub(super) agent: AgentArgs,
}

/// `remove=admins`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Grant(pub(super) Right, pub(super) Holders);

impl FromStr for Grant {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (right, who) = text
            .split_once('=')
            .ok_or("expected RIGHT=WHO, such as remove=admins")?;
        let right = right
            .parse()
            .map_err(|error: skytale_proto::policy::PolicyWordError| error.to_string())?;
        let who = who
            .parse()
            .map_err(|error: skytale_proto::policy::PolicyWordError| error.to_string())?;
        Ok(Self(right, who))
    }
}

pub(super) async fn policy(args: Args, session: Session) -> Outcome {
    let mode = if args.offline { Mode::Offline } else { Mode::Online };
    let shown = with_agent(&session, &args.agent, mode, async |agent| {
        let what = "cannot change the policy";
        let channel = args.channel.of(agent, &session).await?;
        if !args.grant.is_empty() {
            let set: Vec<(Right, Holders)> = args.grant.iter().map(|Grant(right, who)| (*right, *who)).collect();
            let sent = channel.set_policy(&set).await.map_err(failed(what))?;
            settle(agent, &channel, sent, what, args.agent.timeout(), "policy", Vec::new()).await?;
        }
        shown(&channel, &Names::of(agent).await?).await
    });
    session.output.give(&shown.await?)
}

async fn shown(channel: &Channel, names: &Names) -> Outcome<Shown> {
    let what = "cannot read the channel's policy";
    let policy = channel.policy().await.map_err(failed(what))?;
    let admins = channel.admins().await.map_err(failed(what))?;
    let who = |right| {
        policy
            .as_ref()
            .map_or(Holders::Members, |policy: &Policy| policy.holders(right))
    };
    Ok(Shown {
        channel: channel.id(),
        rights: Right::ALL
            .into_iter()
            .map(|right| (right.name(), who(right).name()))
            .collect(),
        names: names.among(&admins),
        admins,
    })
}

pub(super) async fn promote(args: Agents, session: Session) -> Outcome {
    change(args, session, true).await
}

pub(super) async fn demote(args: Agents, session: Session) -> Outcome {
    change(args, session, false).await
}

async fn change(args: Agents, session: Session, promote: bool) -> Outcome {
    let (what, done) = match promote {
        true => ("cannot make them admins", "promoted"),
        false => ("cannot make them members like others", "demoted"),
    };
    let changed = with_agent(&session, &args.agent, Mode::Online, async |agent| {
        let channel = args.channel.of(agent, &session).await?;
        let members = channel.members().await.map_err(failed(what))?;
        let (names, agents) = super::change::meant(agent, &args, &members).await?;
        let sent = match promote {
            true => channel.promote(&agents).await,
            false => channel.demote(&agents).await,
        };
        let sent = sent.map_err(failed(what))?;
        let changed: Changed = settle(agent, &channel, sent, what, args.agent.timeout(), done, agents).await?;
        Ok(changed.named(&names))
    });
    session.output.give(&changed.await?)
}

#[derive(Serialize)]
struct Shown {
    channel: ChannelId,
    /// Holders of each right: `admins` or `members`.
    rights: BTreeMap<&'static str, &'static str>,
    /// The members that are admins.
    admins: Vec<AgentId>,
    /// Their names in this vault, by their ids.
    names: BTreeMap<AgentId, String>,
}

impl Human for Shown {
    fn human(&self, to: &mut dyn fmt::Write, style: &Style) -> fmt::Result {
        for right in Right::ALL {
            let who = self.rights.get(right.name()).copied().unwrap_or_default();
            writeln!(to, "{:<8}{who}", right.name())?;
        }
        for admin in &self.admins {
            let name = self
                .names
                .get(admin)
                .map_or_else(String::new, |name| crate::output::printable(name));
            writeln!(to, "{}", format!("{} {admin}  {name}", style.dim("admin")).trim_end())?;
        }
        Ok(())
    }
}
