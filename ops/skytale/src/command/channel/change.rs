//! `skytale channel add`, `remove`, `leave`, `rotate`: changes to the group.

use super::{Agents, One, Session, list};
use crate::agent::{Mode, failed, with_agent};
use crate::output::{Failure, Human, Outcome, Style};
use serde::Serialize;
use skytale_proto::{AgentId, ChannelId, Code, Offset};
use skytale_sdk::channel::{Channel, Delivered, Sent};
use std::fmt;
use std::time::Duration;
use tokio::time::timeout;

pub(super) async fn add(args: Agents, session: Session) -> Outcome {
    let what = "cannot add to the channel";
    let changed = with_agent(&session, &args.agent, Mode::Online, async |agent| {
        let channel = args.channel.of(agent, &session).await?;
        let members = channel.members().await.map_err(failed(what))?;
        if args.agents.iter().all(|agent| members.contains(agent)) {
            return Changed::unneeded(&channel, "added", args.agents.clone()).await;
        }
        let sent = channel.add(&args.agents).await.map_err(|error| {
            let failure = failed(what)(error);
            if failure.code() == Code::KeyPackagesExhausted {
                return failure.help("That agent offers no keys yet: run `skytale init` for it once, online.");
            }
            failure
        })?;
        settle(&channel, sent, what, args.agent.timeout(), "added", args.agents.clone()).await
    });
    session.output.give(&changed.await?)
}

pub(super) async fn remove(args: Agents, session: Session) -> Outcome {
    let what = "cannot remove from the channel";
    let changed = with_agent(&session, &args.agent, Mode::Online, async |agent| {
        let channel = args.channel.of(agent, &session).await?;
        let members = channel.members().await.map_err(failed(what))?;
        if !args.agents.iter().any(|agent| members.contains(agent)) {
            return Changed::unneeded(&channel, "removed", args.agents.clone()).await;
        }
        let sent = channel.remove(&args.agents).await.map_err(failed(what))?;
        settle(
            &channel,
            sent,
            what,
            args.agent.timeout(),
            "removed",
            args.agents.clone(),
        )
        .await
    });
    session.output.give(&changed.await?)
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
        settle(&channel, sent, what, args.agent.timeout(), "left", vec![agent.id()]).await
    });
    session.output.give(&changed.await?)
}

pub(super) async fn rotate(args: One, session: Session) -> Outcome {
    let what = "cannot replace the keys";
    let changed = with_agent(&session, &args.agent, Mode::Online, async |agent| {
        let channel = args.channel.of(agent, &session).await?;
        let sent = channel.rotate().await.map_err(failed(what))?;
        settle(&channel, sent, what, args.agent.timeout(), "rotated", vec![agent.id()]).await
    });
    session.output.give(&changed.await?)
}

async fn settle(
    channel: &Channel,
    sent: Sent,
    what: &str,
    within: Duration,
    change: &'static str,
    agents: Vec<AgentId>,
) -> Outcome<Changed> {
    let delivered = match timeout(within, sent.delivered()).await {
        Ok(delivered) => delivered.map_err(failed(what))?,
        Err(_) => {
            let what = format!("the change is not in the log within {} s", within.as_secs());
            return Err(Failure::new(Code::Offline, what)
                .help("It waits in the outbox, and is made when this agent is online the next time."));
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
        state: list::name(info.state),
    })
}

impl Changed {
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
            state: list::name(info.state),
        })
    }
}

#[derive(Serialize)]
struct Changed {
    channel: ChannelId,
    change: &'static str,
    agents: Vec<AgentId>,
    /// False where it had been so before.
    needed: bool,
    offset: Option<Offset>,
    epoch: u64,
    state: &'static str,
}

impl Human for Changed {
    fn human(&self, to: &mut dyn fmt::Write, style: &Style) -> fmt::Result {
        if !self.needed {
            return writeln!(to, "{} it was so before", style.dim("nothing to do:"));
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
                    writeln!(to, "{} {agent}", style.good(self.change))?;
                }
                writeln!(to, "{}", style.dim(&format!("epoch {}", self.epoch)))
            }
        }
    }
}
