//! `skytale init`.

use super::Session;
use crate::agent::{AgentArgs, Mode, vault, with_vault};
use crate::output::{Human, Outcome, Style};
use serde::Serialize;
use skytale_proto::AgentId;
use std::fmt;
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Make the vault alone; offer no keys yet, so that nobody can add this agent.
    #[arg(long)]
    offline: bool,
    #[command(flatten)]
    pub agent: AgentArgs,
}

pub(crate) async fn run(args: Args, session: Session) -> Outcome {
    let vault = vault(&session.loaded)?;
    let created = !vault.exists();
    let mode = if args.offline { Mode::Offline } else { Mode::Online };
    // Online, KeyPackages are on offer then: others can add this agent also while it is away.
    let made = with_vault(&session, &vault, &args.agent, mode, async |agent| {
        session.output.give(&Made {
            agent: agent.id(),
            vault: vault.clone(),
            created,
            online: mode == Mode::Online,
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
}

impl Human for Made {
    fn human(&self, to: &mut dyn fmt::Write, style: &Style) -> fmt::Result {
        let what = if self.created { "made" } else { "found" };
        writeln!(to, "agent  {}", style.bold(&self.agent.to_string()))?;
        writeln!(to, "vault  {} ({what})", self.vault.display())?;
        if self.online {
            writeln!(
                to,
                "{} keys are on offer: others can add this agent, also while it is away",
                style.good("ready:")
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
