//! `skytale channel create`.

use super::roles::Grant;
use super::{Session, naming};
use crate::agent::{AgentArgs, Mode, failed, with_agent};
use crate::client;
use crate::command::likeness::normal;
use crate::output::{Failure, Human, Outcome, Style};
use serde::Serialize;
use skytale_proto::rest::{self, ChannelName, NameChannel, Relays};
use skytale_proto::{ChannelId, Code, Policy, Region};
use skytale_sdk::internals::net::Method;
use skytale_sdk::{Agent, Channel, ChannelState};
use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;
use tokio::time::timeout;

/// Interval between looks at the channel while the command waits for it and nothing happens.
const LOOK_EVERY: Duration = Duration::from_millis(10);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The label for this agent. It never leaves the vault.
    label: String,
    /// Give it a name that the account's other agents can look up, org/namespace/name.
    #[arg(long, value_name = "NAME")]
    name: Option<ChannelName>,
    /// Use the label although another channel has it, or it looks like another channel's label or id.
    #[arg(long)]
    force: bool,
    /// Give a right to `admins` alone, or to all `members`: add, invite, remove, trim or policy [default: this agent, the admin,
    /// removes, trims and changes the policy; members add and invite].
    #[arg(long, value_name = "RIGHT=WHO")]
    policy: Vec<Grant>,
    /// The region where its log is at home, for ever [default: the agent's, or else that of the nearest relay node].
    #[arg(long, value_name = "NUMBER")]
    region: Option<u8>,
    #[command(flatten)]
    pub(super) agent: AgentArgs,
}

const WHAT: &str = "cannot make the channel";

pub(super) async fn run(args: Args, session: Session) -> Outcome {
    let mut made = None;
    let created = with_agent(&session, &args.agent, Mode::Online, async |agent| {
        let channel = match made {
            // It is not made again if the process that has the vault open closes it.
            Some(channel) => agent.channel(channel).await.map_err(failed(WHAT))?,
            None => {
                let channels = agent.channels().await.map_err(failed(WHAT))?;
                let label = naming::usable(&args.label, None, &channels, args.force)?;
                if let Some(name) = &args.name {
                    is_free(&session, name).await?;
                }
                let mut policy = Policy::new(agent.id());
                for Grant(right, who) in &args.policy {
                    policy.set(*right, *who);
                }
                let created = match args.region {
                    _ if !args.policy.is_empty() => {
                        agent
                            .create_channel_with(&label, args.region.map(Region), &policy)
                            .await
                    }
                    Some(region) => agent.create_channel_in(&label, Region(region)).await,
                    None => agent.create_channel(&label).await,
                };
                created.map_err(failed(WHAT))?
            }
        };
        made = Some(channel.id());
        in_the_log(agent, &session, &channel, &args).await?;
        if let Some(name) = &args.name
            && let Err(failure) = give_name(&session, name, channel.id()).await
        {
            return Err(taken_back(&channel, failure).await);
        }
        Ok(Created {
            channel: channel.id(),
            label: normal(&args.label),
            name: args.name.clone(),
        })
    });
    session.output.give(&created.await?)
}

/// Waits until the channel is in the log. One that is refused for good is not left behind.
async fn in_the_log(agent: &Agent, session: &Session, channel: &Channel, args: &Args) -> Outcome {
    let mut events = agent.events();
    let settled = async {
        loop {
            if channel.info().await.map_err(failed(WHAT))?.state == ChannelState::Active {
                return Ok(None);
            }
            // Refused for good.
            if let Some(refused) = channel.failed().await.map_err(failed(WHAT))?.first() {
                return Ok(Some(refused.code));
            }
            // Any event may be the one that the command waits for.
            let _ = timeout(LOOK_EVERY, events.next()).await;
        }
    };
    if let Ok(settled) = timeout(args.agent.timeout(), settled).await {
        return match settled? {
            None => Ok(()),
            Some(code) => {
                let failure = refused(session, channel.id().home(), code).await;
                Err(taken_back(channel, failure).await)
            }
        };
    }
    let late = Failure::new(Code::Offline, format!("channel {} is not in the log yet", channel.id()));
    let waiting = channel.outbox().await.map_err(failed(WHAT))?;
    let late = match waiting.into_iter().find_map(|queued| queued.last_refusal) {
        // A relay node that answered has said why.
        Some(refusal) => late.since(format!(
            "a relay node refused it: {}. {}",
            refusal.code,
            refusal.code.help()
        )),
        None => late,
    };
    Err(late
        .help("The channel is in the vault, and comes into the log when this agent is online the next time: do not make it again.")
        .also(args.name.as_ref().map_or("", |_| "It has no name that other agents can look up."))
        .kept())
}

/// Says so before anything is made if the account has the name in use.
async fn is_free(session: &Session, name: &ChannelName) -> Outcome {
    let client = client::account(&session.loaded)?;
    let path = format!("/v1/channels/{name}");
    match client.call::<(), rest::Channel>(Method::Get, &path, None).await {
        Ok(channel) => Err(Failure::new(
            Code::Conflict,
            format!("the account has a channel `{name}`: {}", channel.channel),
        )
        .help("Give another name. Nothing was made.")),
        // The API reports any other problem with it when the name is given.
        Err(_) => Ok(()),
    }
}

async fn give_name(session: &Session, name: &ChannelName, channel: ChannelId) -> Outcome {
    let request = NameChannel {
        name: name.clone(),
        channel,
    };
    let client = client::account(&session.loaded)?;
    let _: rest::Channel = client
        .call(Method::Post, "/v1/channels", Some(&request))
        .await
        .map_err(client::failed(&session.loaded))?;
    Ok(())
}

/// The request failed: this agent, the only member, leaves the channel and forgets it.
async fn taken_back(channel: &Channel, failure: Failure) -> Failure {
    let gone = async {
        channel.leave().await?;
        channel.forget().await
    };
    match gone.await {
        Ok(()) => failure.also("Nothing was made."),
        Err(error) => {
            let id = channel.id();
            failure.since(format!("channel {id} stays: {error}")).also(&format!(
                "Channel {id} was made, without the name: `skytale channel leave {id}` and `skytale channel forget {id}` take \
                 it away."
            ))
        }
    }
}

/// Returns the failure for a channel that cannot be made.
async fn refused(session: &Session, home: Region, code: Code) -> Failure {
    if code != Code::UnknownLog {
        return Failure::new(code, "the relay node refused the channel");
    }
    // The only log that nobody can make is one of a region that the fleet does not have.
    let failure = Failure::new(code, format!("the fleet has no region {}", home.0))
        .since("the relay node knows no place for the channel's log");
    match regions(session).await {
        Some(regions) => failure.help(format!(
            "There are relay nodes in {}: give one of them with --region, or none for the nearest.",
            regions.join(", ")
        )),
        None => failure.help("Give another one with --region, or none for that of the nearest relay node."),
    }
}

/// The regions of the relay nodes that there are, in words; `None` where nobody says.
async fn regions(session: &Session) -> Option<Vec<String>> {
    let client = client::account(&session.loaded).ok()?;
    let listed: Relays = client.call(Method::Get, "/v1/relays", None::<&()>).await.ok()?;
    let regions: BTreeSet<u8> = listed.relays.iter().map(|relay| relay.region).collect();
    (!regions.is_empty()).then(|| regions.iter().map(|region| format!("region {region}")).collect())
}

#[derive(Serialize)]
struct Created {
    channel: ChannelId,
    label: String,
    name: Option<ChannelName>,
}

impl Human for Created {
    fn human(&self, to: &mut dyn fmt::Write, _: &Style) -> fmt::Result {
        writeln!(to, "{}", self.channel)
    }
}
