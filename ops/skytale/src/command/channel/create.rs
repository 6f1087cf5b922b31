//! `skytale channel create`.

use super::Session;
use crate::agent::{AgentArgs, Mode, failed, with_agent};
use crate::client;
use crate::output::{Failure, Human, Outcome, Style};
use reqwest::Method;
use serde::Serialize;
use skytale_proto::rest::{self, ChannelName, NameChannel};
use skytale_proto::{ChannelId, Code, Region};
use skytale_sdk::engine::ChannelState;
use std::fmt;
use std::time::Duration;
use tokio::time::{sleep, timeout};

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
    let created = with_agent(&session, &args.agent, Mode::Online, async |agent| {
        let what = "cannot make the channel";
        let created = match args.region {
            Some(region) => agent.create_channel_in(&args.label, Region(region)).await,
            None => agent.create_channel(&args.label).await,
        };
        let channel = created.map_err(failed(what))?;
        let in_the_log = async {
            while channel.info().await.map_err(failed(what))?.state == ChannelState::Creating {
                sleep(Duration::from_millis(10)).await;
            }
            Ok(())
        };
        match timeout(args.agent.timeout(), in_the_log).await {
            Ok(made) => made?,
            Err(_) => {
                let late = Failure::new(Code::Offline, format!("channel {} is not in the log yet", channel.id()));
                let waiting = channel.outbox().await.map_err(failed(what))?;
                // A relay node that answered has said why: that the fleet has no such region, say.
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
