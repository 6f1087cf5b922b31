//! `skytale channel add`, `remove`, `leave`, `rotate`: changes to the group.

use super::{Agents, One, Session};
use crate::agent::{Mode, failed, with_agent};
use crate::names::Names;
use crate::output::{Failure, Human, Outcome, Style, printable};
use crate::progress::while_sends_leave;
use serde::Serialize;
use skytale_proto::{AgentId, ChannelId, Code, Offset};
use skytale_sdk::{Agent, AgentError, Channel, Delivered, Sent};
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// Agents to add.
#[derive(Debug, clap::Args)]
pub(crate) struct Add {
    #[command(flatten)]
    pub(super) agents: Agents,
    /// Add agents that offer no keys yet as soon as they do. This agent retries whenever it is online; `channel outbox`
    /// lists them, `channel remove` cancels.
    #[arg(long)]
    later: bool,
}

pub(super) async fn add(args: Add, session: Session) -> Outcome {
    let (args, later) = (args.agents, args.later);
    let what = "cannot add to the channel";
    // Whether something was done, though the process that had the vault open has closed it meanwhile.
    let mut begun = false;
    let added = with_agent(&session, &args.agent, Mode::Online, async |agent| {
        let channel = args.channel.of(agent, &session).await?;
        let (names, wanted) = meant(agent, &args, &[]).await?;
        if wanted.contains(&agent.id()) {
            return Err(Failure::new(
                Code::Usage,
                "this agent is in the channel, or another member has to add it",
            )
            .help("Give the ids of other agents: `skytale whoami` shows this one's."));
        }
        let (sent, refused) = match channel.add_available(&wanted).await {
            Ok(added) => (added.sent, added.refused),
            Err(AgentError::NobodyAdded { refused }) => (None, refused),
            Err(error) => return Err(failed(what)(error)),
        };
        begun |= sent.is_some();
        let is_deferred = |(_, error): &(AgentId, AgentError)| later && has_no_keys(error.code());
        let (deferred, refused): (Vec<_>, Vec<_>) = refused.into_iter().partition(is_deferred);
        let waiting: Vec<AgentId> = deferred.iter().map(|(agent, _)| *agent).collect();
        channel.add_later(&waiting).await.map_err(failed(what))?;
        let is_missing = |agent: &AgentId| {
            let mut missing = deferred.iter().chain(&refused);
            missing.any(|(missing, _)| missing == agent)
        };
        let agents: Vec<AgentId> = wanted.iter().filter(|agent| !is_missing(agent)).copied().collect();
        let changed = match sent {
            Some(sent) => {
                let settled = settle(agent, &channel, sent, what, args.agent.timeout(), "added", agents).await;
                settled.map_err(|failure| naming(failure, &refused, &names))?
            }
            // None of those who are no members.
            None if deferred.is_empty() && !refused.is_empty() => return Err(not_added(what, &refused, &names)),
            None => Changed::unneeded(&channel, "added", agents).await?,
        };
        let changed = Changed {
            needed: changed.needed || begun || !waiting.is_empty(),
            refused: refused.iter().map(Refused::from).collect(),
            deferred: waiting,
            ..changed.named(&names)
        };
        Ok((changed, refused, names))
    });
    let (changed, refused, names) = added.await?;
    session.output.give(&changed)?;
    if refused.is_empty() {
        return Ok(());
    }
    let what = format!("{} of {} not added", refused.len(), args.agents.len());
    Err(not_added(&what, &refused, &names).partly())
}

/// Whether an agent can be added once it has been online.
const fn has_no_keys(code: Code) -> bool {
    matches!(code, Code::KeyPackagesExhausted | Code::KeyPackageExpired)
}

/// Returns the reasons why agents were not added, one after another. The code is the first one's.
fn not_added(what: &str, refused: &[(AgentId, AgentError)], names: &Names) -> Failure {
    let code = refused
        .first()
        .map_or(Code::KeyPackagesExhausted, |(_, error)| error.code());
    let failure = naming(Failure::new(code, what), refused, names);
    match code {
        Code::KeyPackagesExhausted => failure.help(
            "An agent that offers no keys must come online once: run `skytale init` for it. Then add it \
             again. Or `--later` adds it when it was online.",
        ),
        Code::KeyPackageExpired => failure.help(
            "An agent whose keys are too old must come online once, with its clock set right: run `skytale init` for it. \
             Then add it again. Or `--later` adds it when it was online.",
        ),
        _ => failure,
    }
}

pub(super) async fn remove(args: Agents, session: Session) -> Outcome {
    let what = "cannot remove from the channel";
    let mut begun = false;
    let changed = with_agent(&session, &args.agent, Mode::Online, async |agent| {
        let channel = args.channel.of(agent, &session).await?;
        let members = channel.members().await.map_err(failed(what))?;
        let (names, gone) = meant(agent, &args, &members).await?;
        if gone.contains(&agent.id()) {
            return Err(Failure::new(Code::Usage, "an agent does not remove itself: it leaves")
                .help(format!("`skytale channel leave {}`", channel.id())));
        }
        let cancelled = channel.cancel_add(&gone).await.map_err(failed(what))?;
        begun |= cancelled > 0;
        if !gone.iter().any(|agent| members.contains(agent)) {
            let changed = Changed::unneeded(&channel, "removed", gone).await?;
            return Ok(Changed {
                needed: begun,
                ..changed.named(&names)
            });
        }
        let sent = channel.remove(&gone).await.map_err(failed(what))?;
        begun = true;
        let changed = settle(agent, &channel, sent, what, args.agent.timeout(), "removed", gone).await?;
        Ok(changed.named(&names))
    });
    session.output.give(&changed.await?)
}

/// The names of agents, and the agents that are meant.
pub(super) async fn meant(agent: &Agent, args: &Agents, members: &[AgentId]) -> Outcome<(Names, Vec<AgentId>)> {
    let names = Names::of(agent).await?;
    let meant = args.agents.iter().map(|wanted| wanted.among(&names, members));
    let meant = meant.collect::<Outcome<Vec<_>>>()?;
    Ok((names, meant))
}

pub(super) async fn leave(args: One, session: Session) -> Outcome {
    let what = "cannot leave the channel";
    let mut asked = None;
    let changed = with_agent(&session, &args.agent, Mode::Online, async |agent| {
        let channel = args.channel.of(agent, &session).await?;
        let sent = match asked {
            None => channel.leave().await.map_err(failed(what))?,
            // The process that had the vault open has closed it meanwhile.
            Some(id) => match channel.sent(id).await.map_err(failed(what))? {
                Some(sent) => sent,
                None => return Changed::made(&channel, "left", vec![agent.id()]).await,
            },
        };
        asked = Some(sent.frame_id());
        let changed = settle(
            agent,
            &channel,
            sent,
            what,
            args.agent.timeout(),
            "left",
            vec![agent.id()],
        )
        .await?;
        // The last member is gone without an entry.
        Ok(Changed {
            needed: true,
            ..changed
        })
    });
    session.output.give(&changed.await?)
}

pub(super) async fn rotate(args: One, session: Session) -> Outcome {
    let what = "cannot replace the keys";
    let changed = with_agent(&session, &args.agent, Mode::Online, async |agent| {
        let channel = args.channel.of(agent, &session).await?;
        let sent = channel.rotate().await.map_err(failed(what))?;
        settle(
            agent,
            &channel,
            sent,
            what,
            args.agent.timeout(),
            "rotated",
            vec![agent.id()],
        )
        .await
    });
    session.output.give(&changed.await?)
}

/// A new beginning of a group.
#[derive(Debug, clap::Args)]
pub(crate) struct Reboot {
    #[command(flatten)]
    pub(super) one: One,
    /// Do it. Without this nothing is done.
    #[arg(long)]
    yes: bool,
}

pub(super) async fn reboot(args: Reboot, session: Session) -> Outcome {
    if !args.yes {
        return Err(Failure::new(Code::Usage, "beginning a group again needs --yes").help(
            "It replaces the channel's group for all members. Do it only if no member can send: members that are out of \
             sync come back by themselves when another member is online. `skytale channel problems` shows how this \
             agent stands.",
        ));
    }
    let (args, what) = (args.one, "cannot begin the group again");
    let changed = with_agent(&session, &args.agent, Mode::Online, async |agent| {
        let channel = args.channel.of(agent, &session).await?;
        let sent = channel.reboot().await.map_err(failed(what))?;
        let changed = settle(
            agent,
            &channel,
            sent,
            what,
            args.agent.timeout(),
            "rebooted",
            Vec::new(),
        )
        .await?;
        Ok(Changed {
            agents: channel.members().await.map_err(failed(what))?,
            ..changed
        })
    });
    session.output.give(&changed.await?)?;
    session.output.note(
        "Members come over when they are online. A member that had no keys on offer asks to be added again, which any \
         member does: `skytale channel members` shows who is in the group.",
    );
    Ok(())
}

pub(super) async fn settle(
    agent: &Agent,
    channel: &Channel,
    sent: Sent,
    what: &str,
    within: Duration,
    change: &'static str,
    agents: Vec<AgentId>,
) -> Outcome<Changed> {
    let delivered = async { sent.delivered().await.map_err(failed(what)) };
    let delivered = match while_sends_leave(agent, channel.id(), within, delivered).await {
        Some(delivered) => delivered?,
        None => {
            let what = format!(
                "the change is not in the log, and nothing was sent for {} s",
                within.as_secs()
            );
            return Err(Failure::new(Code::Offline, what)
                .help("It is in the outbox, and is made when this agent is online the next time: do not ask for it again.")
                .kept());
        }
    };
    let info = channel.info().await.map_err(failed(what))?;
    Ok(Changed {
        channel: channel.id(),
        change,
        agents,
        needed: delivered != Delivered::Unneeded,
        offset: delivered.offset(),
        epoch: info.epoch,
        state: info.state.name(),
        refused: Vec::new(),
        deferred: Vec::new(),
        names: BTreeMap::new(),
    })
}

impl Changed {
    /// Adds this agent's names for the changed agents.
    pub(super) fn named(self, names: &Names) -> Self {
        Self {
            names: names.among(&self.agents),
            ..self
        }
    }

    /// `0123... alice`.
    fn shown(&self, agent: &AgentId) -> String {
        match self.names.get(agent) {
            Some(name) => format!("{agent} {}", printable(name)),
            None => agent.to_string(),
        }
    }

    /// It was so before.
    async fn unneeded(channel: &Channel, change: &'static str, agents: Vec<AgentId>) -> Outcome<Self> {
        Ok(Self {
            needed: false,
            ..Self::made(channel, change, agents).await?
        })
    }

    /// It is so now.
    async fn made(channel: &Channel, change: &'static str, agents: Vec<AgentId>) -> Outcome<Self> {
        let info = channel
            .info()
            .await
            .map_err(failed("cannot read the channel's state"))?;
        Ok(Self {
            channel: channel.id(),
            change,
            agents,
            needed: true,
            offset: None,
            epoch: info.epoch,
            state: info.state.name(),
            refused: Vec::new(),
            deferred: Vec::new(),
            names: BTreeMap::new(),
        })
    }
}

/// Names agents that were not added.
fn naming(failure: Failure, refused: &[(AgentId, AgentError)], names: &Names) -> Failure {
    refused.iter().fold(failure, |failure, (agent, error)| {
        failure.since(format!("{}: {} {error}", names.long(agent), error.code()))
    })
}

#[derive(Serialize)]
pub(super) struct Changed {
    channel: ChannelId,
    change: &'static str,
    agents: Vec<AgentId>,
    /// False where it had been so before.
    needed: bool,
    offset: Option<Offset>,
    epoch: u64,
    state: &'static str,
    /// Agents that were to be added, and were not.
    refused: Vec<Refused>,
    /// Agents that are added later.
    deferred: Vec<AgentId>,
    /// Names of the changed agents in this vault, by their ids.
    names: BTreeMap<AgentId, String>,
}

/// An agent that was not added, and why.
#[derive(Serialize)]
struct Refused {
    agent: AgentId,
    code: String,
    name: &'static str,
    why: String,
    retryable: bool,
}

impl From<&(AgentId, AgentError)> for Refused {
    fn from((agent, error): &(AgentId, AgentError)) -> Self {
        Self {
            agent: *agent,
            code: error.code().to_string(),
            name: error.code().name(),
            why: error.to_string(),
            retryable: error.is_retryable(),
        }
    }
}

impl Human for Changed {
    fn human(&self, to: &mut dyn fmt::Write, style: &Style) -> fmt::Result {
        if !self.needed {
            let what = match self.change {
                "added" => "all of them are in the channel",
                "removed" => "none of them is in the channel",
                "promoted" => "all of them are admins",
                "demoted" => "none of them is an admin",
                _ => "it was so before",
            };
            return writeln!(to, "{} {what}", style.dim("nothing to do:"));
        }
        match (self.change, self.state) {
            ("left", "leaving") => {
                writeln!(
                    to,
                    "{} a member that is online completes it, or the next one that writes",
                    style.good("leaving:")
                )
            }
            _ => {
                for agent in &self.agents {
                    writeln!(to, "{} {}", style.good(self.change), self.shown(agent))?;
                }
                for agent in &self.deferred {
                    writeln!(to, "{} {agent}, when it has keys on offer", style.bold("added later:"))?;
                }
                writeln!(to, "{}", style.dim(&format!("epoch {}", self.epoch)))
            }
        }
    }
}
