//! `skytale consent`: who may claim this agent's keys, and who may add it without asking.

use super::Session;
use crate::agent::{AgentArgs, Mode, failed, with_agent};
use crate::names::{AgentRef, Names};
use crate::output::{Failure, Human, Outcome, Style};
use serde::Serialize;
use skytale_proto::{AccountId, AgentId, Code};
use skytale_sdk::{Agent, Consent, Trust};
use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;

/// Shown by `skytale consent --help`.
pub(crate) const AFTER: &str = "\
Whoever may claim keys of this agent can add it to a channel. Without --trust for them, the addition
waits as a request: `skytale channel requests` lists those, and nothing of them is shown before.

Examples:
  skytale consent
  skytale consent --anyone
  skytale consent --allow bob --allow 6f1c0d2a-b3e9-4f58-86a7-c4d1e2f30951
  skytale consent --account --trust account --trust contacts";

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(super) claims: Claims,
    /// Agents that may add this one without asking, in place of the earlier setting: `account` (its own account's
    /// agents), `contacts` (agents that it has a name for), `anyone`, `nobody`, an agent or an account. May be given
    /// more than once.
    #[arg(long, value_name = "WHO")]
    trust: Vec<String>,
    /// Do not go online: the rule on claims is then in force when this agent is online the next time.
    #[arg(long)]
    offline: bool,
    #[command(flatten)]
    pub agent: AgentArgs,
}

/// Agents that may claim an agent's keys.
#[derive(Debug, Default, clap::Args)]
#[group(multiple = false)]
pub(crate) struct Claims {
    /// Let the agents of this agent's own account alone claim its keys. So it is without any of these options.
    #[arg(long)]
    account: bool,
    /// Let every agent claim its keys.
    #[arg(long)]
    anyone: bool,
    /// Let this agent, or all agents of this account, claim its keys, too: an id, or a name from `skytale contact list`. May
    /// be given more than once; those who are not given are no longer allowed.
    #[arg(long, value_name = "AGENT_OR_ACCOUNT")]
    allow: Vec<Allow>,
}

/// An account, or an agent as a person means it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Allow {
    Account(AccountId),
    Agent(AgentRef),
}

impl FromStr for Allow {
    type Err = Infallible;
    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(match text.parse() {
            Ok(account) => Self::Account(account),
            Err(_) => {
                let Ok(agent) = text.parse();
                Self::Agent(agent)
            }
        })
    }
}

impl Claims {
    /// Returns the requested consent, if there is one.
    pub(super) async fn consent(&self, agent: &Agent) -> Outcome<Option<Consent>> {
        if self.account {
            return Ok(Some(Consent::Account));
        }
        if self.anyone {
            return Ok(Some(Consent::Anyone));
        }
        if self.allow.is_empty() {
            return Ok(None);
        }
        let names = Names::of(agent).await?;
        let (mut accounts, mut agents) = (Vec::new(), Vec::new());
        for allow in &self.allow {
            match allow {
                Allow::Account(account) => accounts.push(*account),
                Allow::Agent(which) => agents.push(which.among(&names, &[])?),
            }
        }
        Ok(Some(Consent::Listed { accounts, agents }))
    }
}

pub(crate) async fn run(args: Args, session: Session) -> Outcome {
    let what = "cannot set who may add this agent";
    let changes = args.claims.account || args.claims.anyone || !args.claims.allow.is_empty();
    // The relay node has to know it; to look, or to set what stays in the vault, needs no network.
    let mode = match changes && !args.offline {
        true => Mode::Online,
        false => Mode::Offline,
    };
    let shown = with_agent(&session, &args.agent, mode, async |agent| {
        if let Some(trust) = trust(&args.trust, agent).await? {
            agent.set_trust(trust).await.map_err(failed(what))?;
        }
        if let Some(consent) = args.claims.consent(agent).await? {
            agent.set_consent(consent).await.map_err(failed(what))?;
            if mode == Mode::Online {
                let waiting = tokio::time::timeout(args.agent.timeout(), agent.caught_up());
                waiting
                    .await
                    .map_err(|_| {
                        Failure::new(Code::Offline, what).help("It is kept, and in force once this agent is online.")
                    })?
                    .map_err(failed(what))?;
            }
        }
        Shown::of(agent).await
    });
    session.output.give(&shown.await?)
}

async fn trust(given: &[String], agent: &Agent) -> Outcome<Option<Trust>> {
    if given.is_empty() {
        return Ok(None);
    }
    let mut trust = Trust::nobody();
    let names = Names::of(agent).await?;
    for who in given {
        match who.as_str() {
            "account" => trust.account = true,
            "contacts" => trust.contacts = true,
            "anyone" => trust.anyone = true,
            "nobody" if given.len() == 1 => {}
            "nobody" => {
                return Err(Failure::new(
                    Code::Usage,
                    "`--trust nobody` goes with no other `--trust`",
                ));
            }
            other => match other.parse() {
                Ok(Allow::Account(account)) => trust.accounts.push(account),
                Ok(Allow::Agent(which)) => trust.agents.push(which.among(&names, &[])?),
            },
        }
    }
    Ok(Some(trust))
}

#[derive(Serialize)]
struct Shown {
    /// The account of this agent; null before it was online once.
    account: Option<AccountId>,
    claims: Who,
    /// The relay node knows it.
    in_force: bool,
    trust: Trusted,
    #[serde(skip)]
    names: Names,
}

/// Agents that may claim keys.
#[derive(Serialize)]
struct Who {
    /// `account`, `listed` or `anyone`.
    who: &'static str,
    accounts: Vec<AccountId>,
    agents: Vec<AgentId>,
}

/// Agents that may add without asking.
#[derive(Serialize)]
struct Trusted {
    account: bool,
    contacts: bool,
    anyone: bool,
    accounts: Vec<AccountId>,
    agents: Vec<AgentId>,
}

impl Shown {
    async fn of(agent: &Agent) -> Outcome<Self> {
        let what = "cannot read who may add this agent";
        let status = agent.consent().await.map_err(failed(what))?;
        let trust = agent.trust().await.map_err(failed(what))?;
        let who = status.consent.name();
        let (accounts, agents) = match status.consent {
            Consent::Listed { accounts, agents } => (accounts, agents),
            _ => (Vec::new(), Vec::new()),
        };
        Ok(Self {
            account: status.account,
            claims: Who { who, accounts, agents },
            in_force: status.in_force,
            trust: Trusted {
                account: trust.account,
                contacts: trust.contacts,
                anyone: trust.anyone,
                accounts: trust.accounts,
                agents: trust.agents,
            },
            names: Names::of(agent).await?,
        })
    }
}

impl Human for Shown {
    fn human(&self, to: &mut dyn fmt::Write, style: &Style) -> fmt::Result {
        let account = self
            .account
            .map_or("not known yet".to_owned(), |account| account.to_string());
        writeln!(to, "account  {account}")?;
        let claims = match self.claims.who {
            "anyone" => "every agent".to_owned(),
            _ => list(
                &self.names,
                ["the agents of its account"].into_iter(),
                &self.claims.accounts,
                &self.claims.agents,
            ),
        };
        writeln!(to, "may claim its keys  {claims}")?;
        let trust = &self.trust;
        let trusted = match trust.anyone {
            true => "everyone".to_owned(),
            false => {
                let kinds = [
                    trust.account.then_some("the agents of its account"),
                    trust.contacts.then_some("its contacts"),
                ];
                list(&self.names, kinds.into_iter().flatten(), &trust.accounts, &trust.agents)
            }
        };
        writeln!(to, "may add it without asking  {trusted}")?;
        if !self.in_force {
            writeln!(
                to,
                "{} who may claim its keys is not in force yet: it is, once this agent was online",
                style.bad("waiting:")
            )?;
        }
        Ok(())
    }
}

fn list<'a>(names: &Names, kinds: impl Iterator<Item = &'a str>, accounts: &[AccountId], agents: &[AgentId]) -> String {
    let accounts = accounts.iter().map(|account| format!("account {account}"));
    let agents = agents.iter().map(|agent| names.short(agent));
    let all: Vec<String> = kinds.map(str::to_owned).chain(accounts).chain(agents).collect();
    match all.is_empty() {
        true => "nobody".to_owned(),
        false => all.join(", "),
    }
}
