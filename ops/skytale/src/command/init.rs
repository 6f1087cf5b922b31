//! `skytale init`.

use super::Session;
use super::consent::Claims;
use crate::agent::{AgentArgs, Mode, failed, vault, with_vault};
use crate::output::{Human, Outcome, Style};
use serde::Serialize;
use skytale_proto::AgentId;
use skytale_sdk::Consent;
use std::fmt;
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Make the vault alone; offer no keys yet, so that nobody can add this agent.
    #[arg(long)]
    offline: bool,
    #[command(flatten)]
    claims: Claims,
    #[command(flatten)]
    pub agent: AgentArgs,
}

pub(crate) async fn run(args: Args, session: Session) -> Outcome {
    let vault = vault(&session.loaded)?;
    let created = !vault.exists();
    let mode = if args.offline { Mode::Offline } else { Mode::Online };
    // Online, KeyPackages are on offer then: others can add this agent also while it is away.
    let made = with_vault(&session, &vault, &args.agent, mode, async |agent| {
        if let Some(consent) = args.claims.consent(agent).await? {
            let what = "cannot say who may claim this agent's keys";
            agent.set_consent(consent).await.map_err(failed(what))?;
            if mode == Mode::Online {
                agent.caught_up().await.map_err(failed(what))?;
            }
        }
        session.output.give(&Made {
            agent: agent.id(),
            vault: vault.clone(),
            created,
            online: mode == Mode::Online,
            by: match agent
                .consent()
                .await
                .map_err(failed("cannot read who may add this agent"))?
                .consent
            {
                Consent::Account => "agents of its account",
                Consent::Anyone => "every agent",
                _ => "those whom it allows",
            },
        })
    });
    made.await.map_err(|failure| match created && vault.exists() {
        true => failure.also(&format!(
            "The vault {} is made: once the node can be reached, run `skytale init` again, so that others can add this \
             agent.",
            vault.display()
        )),
        false => failure,
    })
}

#[derive(Serialize)]
struct Made {
    agent: AgentId,
    vault: PathBuf,
    created: bool,
    online: bool,
    /// Agents that can add it.
    #[serde(skip)]
    by: &'static str,
}

impl Human for Made {
    fn human(&self, to: &mut dyn fmt::Write, style: &Style) -> fmt::Result {
        let what = if self.created { "made" } else { "found" };
        writeln!(to, "agent  {}", style.bold(&self.agent.to_string()))?;
        writeln!(to, "vault  {} ({what})", self.vault.display())?;
        if self.online {
            writeln!(
                to,
                "{} keys are on offer: {} can add this agent, also while it is away",
                style.good("ready:"),
                self.by
            )
        } else {
            writeln!(
                to,
                "{}",
                style.dim("Nobody can add this agent before `skytale init` ran online once.")
            )
        }
    }
}
