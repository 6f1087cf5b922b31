//! `skytale whoami`.

use super::Session;
use crate::agent::{AgentArgs, Mode, failed, vault, with_agent};
use crate::output::{Human, Outcome, Style};
use serde::Serialize;
use skytale_proto::{AccountId, AgentId, EndpointId};
use std::fmt;
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Print the agent's id and nothing else.
    #[arg(long)]
    id: bool,
    #[command(flatten)]
    pub agent: AgentArgs,
}

pub(crate) async fn run(args: Args, session: Session) -> Outcome {
    let vault = vault(&session.loaded)?;
    let who = with_agent(&session, &args.agent, Mode::Offline, async |agent| {
        let channels = agent.channels().await.map_err(failed("cannot list the channels"))?;
        Ok(Who {
            agent: agent.id(),
            endpoint: agent.endpoint_id().map_err(failed("cannot read the endpoint's id"))?,
            vault: vault.clone(),
            account: agent
                .consent()
                .await
                .map_err(failed("cannot read the agent's account"))?
                .account,
            channels: channels.len(),
            id_only: args.id,
        })
    });
    session.output.give(&who.await?)
}

#[derive(Serialize)]
struct Who {
    agent: AgentId,
    endpoint: EndpointId,
    /// Account, as the relay node knows it; null before this agent was online once.
    account: Option<AccountId>,
    vault: PathBuf,
    channels: usize,
    #[serde(skip)]
    id_only: bool,
}

impl Human for Who {
    fn human(&self, to: &mut dyn fmt::Write, _: &Style) -> fmt::Result {
        if self.id_only {
            return writeln!(to, "{}", self.agent);
        }
        writeln!(to, "agent     {}", self.agent)?;
        writeln!(to, "endpoint  {}", self.endpoint)?;
        if let Some(account) = &self.account {
            writeln!(to, "account   {account}")?;
        }
        writeln!(to, "vault     {}", self.vault.display())?;
        writeln!(to, "channels  {}", self.channels)
    }
}
