//! `skytale channel create`.

use super::Session;
use crate::agent::{AgentArgs, Mode, failed, with_agent};
use crate::client;
use crate::output::{Failure, Human, Outcome, Style};
use reqwest::Method;
use serde::Serialize;
use skytale_proto::rest::{self, ChannelName, NameChannel, Relays};
use skytale_proto::{ChannelId, Code, Region};
use skytale_sdk::engine::ChannelState;
use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;
use tokio::time::timeout;

/// How often the channel is looked at while it is waited for, where nothing happens.
const LOOK_EVERY: Duration = Duration::from_millis(10);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What this agent calls it. It never leaves the vault.
    label: String,
    /// Give it a name that the account's other agents can look up, org/namespace/name.
    #[arg(long, value_name = "NAME")]
    name: Option<ChannelName>,
    /// The region where its log is at home, for ever [default: the agent's, or else that of the nearest relay node].
    #[arg(long, value_name = "NUMBER")]
    region: Option<u8>,
    #[command(flatten)]
    pub(super) agent: AgentArgs,
}

pub(super) async fn run(args: Args, session: Session) -> Outcome {
    let mut made = None;
    let created = with_agent(&session, &args.agent, Mode::Online, async |agent| {
        let what = "cannot make the channel";
        let mut events = agent.events();
        let created = match (made, args.region) {
            (Some(channel), _) => agent.channel(channel).await,
            (None, Some(region)) => agent.create_channel_in(&args.label, Region(region)).await,
            (None, None) => agent.create_channel(&args.label).await,
        };
        let channel = created.map_err(failed(what))?;
        // It is not made again if the process that has the vault open closes it.
        made = Some(channel.id());
        let in_the_log = async {
            loop {
                if channel.info().await.map_err(failed(what))?.state == ChannelState::Active {
                    return Ok(None);
                }
                // Refused for good.
                if let Some(refused) = channel.failed().await.map_err(failed(what))?.first() {
                    return Ok(Some(refused.code));
                }
                // Whatever happens may be what is waited for.
                let _ = timeout(LOOK_EVERY, events.next()).await;
            }
        };
        match timeout(args.agent.timeout(), in_the_log).await {
            Ok(made) => {
                if let Some(code) = made? {
                    return Err(refused(&session, channel.id().home(), code).await);
                }
            }
            Err(_) => {
                let late = Failure::new(Code::Offline, format!("channel {} is not in the log yet", channel.id()));
                let waiting = channel.outbox().await.map_err(failed(what))?;
                // A relay node that answered has said why.
                return Err(match waiting.into_iter().find_map(|queued| queued.last_refusal) {
                    Some(refusal) => late.since(format!(
                        "a relay node refused it: {}. {}",
                        refusal.code,
                        refusal.code.help()
                    )),
                    None => late,
                });
            }
        }
        if let Some(name) = &args.name {
            let request = NameChannel {
                name: name.clone(),
                channel: channel.id(),
            };
            let client = client::account(&session.loaded)?;
            let _: rest::Channel = client
                .call(Method::POST, "/v1/channels", Some(&request))
                .await
                .map_err(client::failed(&session.loaded))?;
        }
        Ok(Created {
            channel: channel.id(),
            label: args.label.clone(),
            name: args.name.clone(),
        })
    });
    session.output.give(&created.await?)
}

/// Why there will be no such channel.
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
    let listed: Relays = client.call(Method::GET, "/v1/relays", None::<&()>).await.ok()?;
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
