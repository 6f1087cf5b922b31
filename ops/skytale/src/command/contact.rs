//! `skytale contact`: names for agents. They stay in the vault.

use super::Session;
use super::likeness::{looks_like, normal};
use crate::agent::{AgentArgs, Mode, failed, with_agent};
use crate::config::Layer;
use crate::names::{AgentRef, Names};
use crate::output::{Failure, Human, Outcome, Style, printable, table};
use clap::Subcommand;
use serde::Serialize;
use skytale_proto::{AgentId, Code};
use skytale_sdk::Contact;
use std::fmt;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Give an agent a name, which commands then take in its id's place and show beside it.
    Add(Add),
    /// List the names and whose they are.
    List(List),
    /// Take a name away.
    Remove(Remove),
}

#[derive(Debug, clap::Args)]
pub(crate) struct Add {
    /// The name: letters, digits, `-`, `_`, `.`, `@`.
    name: String,
    /// The agent's id, as its `skytale whoami` shows it. Ask its owner for it in a way that you trust.
    agent: AgentRef,
    /// Give the name although another agent has it, this agent has another one, or it looks like another agent's.
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    args: AgentArgs,
}

#[derive(Debug, clap::Args)]
pub(crate) struct List {
    #[command(flatten)]
    args: AgentArgs,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Remove {
    /// The name.
    name: String,
    #[command(flatten)]
    args: AgentArgs,
}

impl Command {
    /// The settings among its options.
    pub(crate) fn layers(&self) -> Vec<Layer> {
        match self {
            Self::Add(Add { args, .. }) | Self::List(List { args }) | Self::Remove(Remove { args, .. }) => {
                args.layers()
            }
        }
    }
}

pub(crate) async fn run(command: Command, session: Session) -> Outcome {
    match command {
        Command::Add(args) => add(args, session).await,
        Command::List(args) => list(args, session).await,
        Command::Remove(args) => remove(args, session).await,
    }
}

async fn add(args: Add, session: Session) -> Outcome {
    let what = "cannot give the name";
    let name = normal(&args.name);
    let added = with_agent(&session, &args.args, Mode::Offline, async |agent| {
        let contacts = agent.contacts().await.map_err(failed(what))?;
        let named = args.agent.among(&Names::from(&contacts), &[])?;
        if named == agent.id() {
            return Err(Failure::new(
                Code::Usage,
                "this agent needs no name: it is shown as `me`",
            ));
        }
        if !args.force {
            refuse_likeness(&name, named, &contacts)?;
        }
        agent.set_contact(&name, named).await.map_err(failed(what))?;
        Ok(Added {
            contact: Contact::new(&name, named),
        })
    });
    session.output.give(&added.await?)
}

/// Refuses a name that is another agent's, or could be taken for it.
fn refuse_likeness(name: &str, agent: AgentId, contacts: &[Contact]) -> Outcome {
    if name == "me" {
        return Err(Failure::new(Code::Usage, "`me` is what this agent itself is shown as").help("Give another name."));
    }
    for contact in contacts {
        let other = printable(&contact.name);
        let problem = if contact.name == name && contact.agent != agent {
            format!("`{other}` is the name of {}", contact.agent)
        } else if contact.agent == agent && contact.name != name {
            format!("this agent has the name `{other}`")
        } else if contact.agent != agent && looks_like(&contact.name, name) {
            format!(
                "`{}` looks like `{other}`, the name of {}",
                printable(name),
                contact.agent
            )
        } else {
            continue;
        };
        return Err(Failure::new(Code::Usage, problem)
            .help("Give another name, or do it all the same with `--force`. `skytale contact list` shows all names."));
    }
    Ok(())
}

async fn list(args: List, session: Session) -> Outcome {
    let listed = with_agent(&session, &args.args, Mode::Offline, async |agent| {
        let contacts = agent.contacts().await.map_err(failed("cannot list the names"))?;
        Ok(Listed { contacts })
    });
    session.output.give(&listed.await?)
}

async fn remove(args: Remove, session: Session) -> Outcome {
    let what = "cannot take the name away";
    let name = normal(&args.name);
    let mut removed = None;
    let done = with_agent(&session, &args.args, Mode::Offline, async |agent| {
        removed = agent.remove_contact(&name).await.map_err(failed(what))?;
        if removed.is_some() {
            return Ok(());
        }
        let names = Names::of(agent).await?;
        Err(names.unknown(&name))
    });
    done.await?;
    let Some(agent) = removed else { return Ok(()) };
    session.output.give(&Removed {
        removed: Contact::new(name, agent),
    })
}

#[derive(Serialize)]
struct Added {
    #[serde(flatten)]
    contact: Contact,
}

impl Human for Added {
    fn human(&self, to: &mut dyn fmt::Write, style: &Style) -> fmt::Result {
        let Contact { name, agent, .. } = &self.contact;
        writeln!(to, "{} {agent} is `{}`", style.good("named:"), printable(name))
    }
}

#[derive(Serialize)]
struct Listed {
    contacts: Vec<Contact>,
}

impl Human for Listed {
    fn human(&self, to: &mut dyn fmt::Write, style: &Style) -> fmt::Result {
        if self.contacts.is_empty() {
            return writeln!(to, "no names: `skytale contact add NAME AGENT` gives one");
        }
        let row = |contact: &Contact| vec![contact.name.clone(), contact.agent.to_string()];
        table(to, style, &["name", "agent"], self.contacts.iter().map(row))
    }
}

#[derive(Serialize)]
struct Removed {
    removed: Contact,
}

impl Human for Removed {
    fn human(&self, to: &mut dyn fmt::Write, style: &Style) -> fmt::Result {
        let Contact { name, agent, .. } = &self.removed;
        writeln!(to, "{} `{}`, of {agent}", style.good("removed"), printable(name))
    }
}
