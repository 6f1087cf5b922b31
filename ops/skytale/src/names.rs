//! Names of agents, as a person gives and reads them: always beside digits of the id, so that a name cannot lie.

use crate::command::likeness::{nearest, normal};
use crate::output::{Failure, Outcome, printable};
use skytale_proto::{AgentId, Code};
use skytale_sdk::{Agent, Contact};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::str::FromStr;
use std::time::{Duration, Instant};

/// Digits of an id that are shown beside a name: 64 bits, which nobody finds a second key for by trying.
pub(crate) const DIGITS: usize = 16;
/// The shortest beginning of an id that means an agent, in digits.
const PREFIX_MIN: usize = 8;

/// The names in a vault.
#[derive(Clone, Debug, Default)]
pub(crate) struct Names(BTreeMap<AgentId, String>);

impl From<&Vec<Contact>> for Names {
    fn from(contacts: &Vec<Contact>) -> Self {
        let named = contacts.iter().map(|contact| (contact.agent, contact.name.clone()));
        Self(named.collect())
    }
}

impl Names {
    /// Those that an agent gives. A process of an earlier version that has the vault open knows none.
    pub(crate) async fn of(agent: &Agent) -> Outcome<Self> {
        match agent.contacts().await {
            Ok(contacts) => Ok(Self::from(&contacts)),
            Err(error) if error.code() == Code::VaultOwnerVersion => Ok(Self::default()),
            Err(error) => Err(Failure::new(error.code(), "cannot read the names of agents").because(&error)),
        }
    }

    /// An agent's name.
    pub(crate) fn get(&self, agent: &AgentId) -> Option<&str> {
        self.0.get(agent).map(String::as_str)
    }

    /// Those of some agents.
    pub(crate) fn among(&self, agents: &[AgentId]) -> BTreeMap<AgentId, String> {
        let named = agents
            .iter()
            .filter_map(|agent| Some((*agent, self.0.get(agent)?.clone())));
        named.collect()
    }

    /// `alice (0123456789abcdef)`, or the digits alone.
    pub(crate) fn short(&self, agent: &AgentId) -> String {
        let id = agent.to_string();
        let digits = &id[..DIGITS];
        match self.get(agent) {
            Some(name) => format!("{} ({digits})", printable(name)),
            None => digits.to_owned(),
        }
    }

    /// The whole id, and the name behind it: `0123... alice`.
    pub(crate) fn long(&self, agent: &AgentId) -> String {
        match self.get(agent) {
            Some(name) => format!("{agent} {}", printable(name)),
            None => agent.to_string(),
        }
    }

    /// A text with the name behind each whole id that has one.
    pub(crate) fn annotate(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, (agent, _)| {
            let id = agent.to_string();
            match text.contains(&id) {
                true => text.replace(&id, &self.long(agent)),
                false => text,
            }
        })
    }

    /// No agent has this name.
    pub(crate) fn unknown(&self, name: &str) -> Failure {
        let failure = Failure::new(Code::NotFound, format!("no agent has the name `{}`", printable(name)));
        match nearest(name, self.0.values().map(String::as_str)) {
            Some(near) => failure.help(format!(
                "Did you mean `{}`? `skytale contact list` shows all names.",
                printable(near)
            )),
            None => failure.help(
                "Give the agent's id, as its `skytale whoami` shows it, or a name that `skytale contact list` shows.",
            ),
        }
    }
}

/// The names, for a command that runs on while others may give new ones.
#[derive(Debug)]
pub(crate) struct Book {
    names: Names,
    read: Instant,
}

/// Maximum age of the names that were read.
const READ_EVERY: Duration = Duration::from_secs(2);

impl Book {
    pub(crate) async fn of(agent: &Agent) -> Outcome<Self> {
        Ok(Self {
            names: Names::of(agent).await?,
            read: Instant::now(),
        })
    }

    /// The names as they are now, or were a moment ago.
    pub(crate) async fn names(&mut self, agent: &Agent) -> Outcome<&Names> {
        if self.read.elapsed() >= READ_EVERY {
            *self = Self::of(agent).await?;
        }
        Ok(&self.names)
    }
}

/// Reference of a person to an agent: its id, a name, or the beginning of the id of one that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AgentRef(String);

impl FromStr for AgentRef {
    type Err = Infallible;
    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self(text.to_owned()))
    }
}

impl AgentRef {
    /// The agent that is meant. The beginning of an id is looked for among those with names and `others`.
    pub(crate) fn among(&self, names: &Names, others: &[AgentId]) -> Outcome<AgentId> {
        if let Ok(agent) = self.0.parse() {
            return Ok(agent);
        }
        let name = normal(&self.0);
        if let Some((agent, _)) = names.0.iter().find(|(_, known)| **known == name) {
            return Ok(*agent);
        }
        let is_digits = name.len() >= PREFIX_MIN && name.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !is_digits {
            return Err(names.unknown(&name));
        }
        let digits = name.to_ascii_lowercase();
        let known = names.0.keys().chain(others);
        let mut found: Vec<_> = known.filter(|agent| agent.to_string().starts_with(&digits)).collect();
        found.sort();
        found.dedup();
        match found.as_slice() {
            [] => Err(Failure::new(
                Code::NotFound,
                format!("no agent that is known here has an id that begins with {digits}"),
            )
            .help("Give the whole id, as the agent's `skytale whoami` shows it.")),
            [one] => Ok(**one),
            several => {
                let ids: Vec<_> = several.iter().map(ToString::to_string).collect();
                Err(
                    Failure::new(Code::Usage, format!("several agents' ids begin with {digits}"))
                        .help(format!("Give more of the one that is meant: {}.", ids.join(", "))),
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_is_meant_by_its_id_its_name_or_the_beginning_of_its_id() {
        let (alice, bob) = (AgentId::from_bytes([0xaa; 32]), AgentId::from_bytes([0xbb; 32]));
        let names = Names::from(&vec![Contact::new("alice", alice)]);
        let find = |text: &str, others: &[AgentId]| AgentRef(text.into()).among(&names, others);
        assert_eq!(find("alice", &[]).expect("by name"), alice);
        assert_eq!(find(&bob.to_string(), &[]).expect("by id"), bob);
        assert_eq!(find("AAAAAAAAAA", &[]).expect("by its beginning"), alice);
        assert_eq!(find("bbbbbbbb", &[bob]).expect("of another"), bob);
        assert_eq!(find("bbbbbbbb", &[]).expect_err("not known").code(), Code::NotFound);
        let slip = find("alcie", &[])
            .expect_err("no such name")
            .text(&crate::output::Style::PLAIN);
        assert!(slip.contains("Did you mean `alice`?"), "{slip}");
        assert_eq!(names.short(&alice), "alice (aaaaaaaaaaaaaaaa)");
        assert_eq!(names.short(&bob), "bbbbbbbbbbbbbbbb");
        let text = format!("{alice} and {bob}");
        assert_eq!(names.annotate(&text), format!("{alice} alice and {bob}"));
    }
}
