//! `skytale agents`: the agents of the account.

use super::Session;
use crate::agent::{AgentArgs, Mode, vault, with_agent};
use crate::client;
use crate::config::Layer;
use crate::names::{AgentRef, Names};
use crate::output::{Failure, Human, Outcome, Style, table};
use crate::time::utc;
use clap::Subcommand;
use serde::Serialize;
use skytale_proto::rest::{self, Agents};
use skytale_proto::{AgentId, Code};
use skytale_sdk::internals::net::Method;
use std::fmt;

/// Pages of agents that are read, at most.
const PAGES_MAX: usize = 1_000;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List the account's agents: when each first proved itself, and when it was last given a token.
    List(List),
    /// End an agent, for good: it gets no tokens any more, and relay nodes end its sessions within 30 seconds.
    End(End),
}

#[derive(Debug, clap::Args)]
pub(crate) struct List {
    #[command(flatten)]
    agent: AgentArgs,
}

#[derive(Debug, clap::Args)]
pub(crate) struct End {
    /// The agent: its id or the beginning of it, or a name that this vault has for it.
    #[arg(value_name = "AGENT")]
    which: AgentRef,
    /// Do it. Without this nothing is done: an agent that was ended does not come back.
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    agent: AgentArgs,
}

impl Command {
    /// The settings among its options.
    pub(crate) fn layers(&self) -> Vec<Layer> {
        match self {
            Self::List(List { agent }) | Self::End(End { agent, .. }) => agent.layers(),
        }
    }
}

pub(crate) async fn run(command: Command, session: Session) -> Outcome {
    match command {
        Command::List(args) => list(args, &session).await,
        Command::End(args) => end(args, &session).await,
    }
}

/// The names that the vault has, if there is one that opens: they are a convenience.
pub(super) async fn names(session: &Session, args: &AgentArgs) -> Names {
    if !vault(&session.loaded).is_ok_and(|vault| vault.exists()) {
        return Names::default();
    }
    let named = with_agent(session, args, Mode::Offline, async |agent| Names::of(agent).await);
    named.await.unwrap_or_default()
}

async fn all(session: &Session) -> Outcome<Vec<rest::Agent>> {
    let client = client::account(&session.loaded)?;
    let asking = async {
        let mut agents = Vec::new();
        let mut path = "/v1/agents".to_owned();
        for _ in 0..PAGES_MAX {
            let page: Agents = client
                .call(Method::Get, &path, None::<&()>)
                .await
                .map_err(client::failed(&session.loaded))?;
            agents.extend(page.agents);
            match page.next {
                Some(next) => path = format!("/v1/agents?after={next}"),
                None => break,
            }
        }
        Ok(agents)
    };
    session.shutdown.unless(asking).await
}

async fn list(args: List, session: &Session) -> Outcome {
    let agents = all(session).await?;
    let names = names(session, &args.agent).await;
    let row = |agent: rest::Agent| Row {
        name: names.get(&agent.id).map(str::to_owned),
        agent,
    };
    session.output.give(&Listed {
        agents: agents.into_iter().map(row).collect(),
    })
}

async fn end(args: End, session: &Session) -> Outcome {
    let names = names(session, &args.agent).await;
    let known: Vec<AgentId> = all(session).await?.iter().map(|agent| agent.id).collect();
    let which = args.which.among(&names, &known)?;
    let shown = names.long(&which);
    if !known.contains(&which) {
        return Err(
            Failure::new(Code::NotFound, format!("the account has no agent {shown}"))
                .help("`skytale agents list` shows those that it has."),
        );
    }
    if !args.yes {
        return Err(Failure::new(Code::Usage, format!("ending {shown} needs --yes")).help(
            "An agent that was ended gets no tokens and does not come back: its messages stay, and members can remove it \
             from their channels.",
        ));
    }
    let client = client::account(&session.loaded)?;
    let path = format!("/v1/agents/{which}");
    let ending = client.call::<(), ()>(Method::Delete, &path, None);
    session
        .shutdown
        .unless(async { ending.await.map_err(client::failed(&session.loaded)) })
        .await?;
    session.output.give(&Ended {
        ended: which,
        name: names.get(&which).map(str::to_owned),
        shown,
    })
}

#[derive(Serialize)]
struct Row {
    #[serde(flatten)]
    agent: rest::Agent,
    /// Its name in this vault; null if it has none.
    name: Option<String>,
}

#[derive(Serialize)]
struct Listed {
    agents: Vec<Row>,
}

impl Human for Listed {
    fn human(&self, to: &mut dyn fmt::Write, style: &Style) -> fmt::Result {
        if self.agents.is_empty() {
            return writeln!(to, "no agents: `skytale init` makes one");
        }
        let rows = self.agents.iter().map(|row| {
            let agent = &row.agent;
            vec![
                agent.id.to_string(),
                row.name.clone().unwrap_or_default(),
                match agent.ended_s {
                    Some(ended) => format!("ended {}", utc(ended)),
                    None => "in force".to_owned(),
                },
                utc(agent.bound_s),
                utc(agent.seen_s),
            ]
        });
        table(to, style, &["agent", "name", "state", "first seen", "last token"], rows)
    }
}

#[derive(Serialize)]
struct Ended {
    ended: AgentId,
    name: Option<String>,
    #[serde(skip)]
    shown: String,
}

impl Human for Ended {
    fn human(&self, to: &mut dyn fmt::Write, style: &Style) -> fmt::Result {
        writeln!(
            to,
            "{} {}: its sessions end within 30 seconds",
            style.good("ended"),
            self.shown
        )
    }
}
