//! Scopes: an action, on every channel or on one.

use crate::{AgentId, ChannelId, LogId};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::str::FromStr;

/// Right that a token grants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// `relay:append`: commits, proposals, messages and raw frames.
    Append,
    /// `relay:replay`: subscriptions; to the agent's own log with or without named channels.
    Replay,
    /// `channels:create`.
    CreateChannel,
    /// `keypackages:publish`, on the agent's own log.
    PublishKeyPackages,
    /// `keypackages:claim`, on any agent's log.
    ClaimKeyPackages,
}

impl Action {
    /// All actions.
    pub const ALL: [Self; 5] = [
        Self::Append,
        Self::Replay,
        Self::CreateChannel,
        Self::PublishKeyPackages,
        Self::ClaimKeyPackages,
    ];

    /// Returns the text.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Append => "relay:append",
            Self::Replay => "relay:replay",
            Self::CreateChannel => "channels:create",
            Self::PublishKeyPackages => "keypackages:publish",
            Self::ClaimKeyPackages => "keypackages:claim",
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Text that is not a scope.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a scope (as `relay:append` or `relay:append@<channel id>`): `{found}`")]
pub struct ScopeError {
    found: String,
}

/// An action, on every channel or on one. Text: `relay:append` or `relay:append@<channel id>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Scope {
    /// The action.
    pub action: Action,
    /// The only channel it is allowed on; `None` is every channel.
    pub channel: Option<ChannelId>,
}

impl Scope {
    /// An action on every channel.
    pub const fn everywhere(action: Action) -> Self {
        Self { action, channel: None }
    }

    /// An action on one channel.
    pub const fn on(action: Action, channel: ChannelId) -> Self {
        Self {
            action,
            channel: Some(channel),
        }
    }

    /// Whether this scope allows `agent` an action on a log.
    ///
    /// A scope with a channel allows that channel's log and no other, except for one thing: an agent
    /// with any replay scope reads its own log, since the Welcome to that very channel comes there.
    /// KeyPackages are published on the agent's own log and claimed on anyone's.
    pub fn allows(&self, agent: &AgentId, action: Action, log: &LogId) -> bool {
        if self.action != action {
            return false;
        }
        match (action, log) {
            (Action::Append | Action::Replay | Action::CreateChannel, LogId::Channel(id)) => {
                self.channel.is_none_or(|only| only == *id)
            }
            (Action::Replay, LogId::Agent(owner)) => owner == agent,
            (Action::PublishKeyPackages, LogId::Agent(owner)) => self.channel.is_none() && owner == agent,
            (Action::ClaimKeyPackages, LogId::Agent(_)) => self.channel.is_none(),
            (Action::Append | Action::CreateChannel, LogId::Agent(_)) => false,
            (Action::PublishKeyPackages | Action::ClaimKeyPackages, LogId::Channel(_)) => false,
        }
    }

    /// Whether everything that `other` allows is allowed by this scope.
    pub fn covers(&self, other: &Self) -> bool {
        self.action == other.action && (self.channel.is_none() || self.channel == other.channel)
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.channel {
            None => self.action.fmt(f),
            Some(channel) => write!(f, "{}@{channel}", self.action),
        }
    }
}

impl FromStr for Scope {
    type Err = ScopeError;
    fn from_str(text: &str) -> Result<Self, ScopeError> {
        let wrong = || ScopeError {
            found: crate::shown(text, 80),
        };
        let (action, channel) = match text.split_once('@') {
            None => (text, None),
            Some((action, channel)) => (action, Some(channel.parse().map_err(|_| wrong())?)),
        };
        let action = Action::ALL.into_iter().find(|known| known.as_str() == action);
        Ok(Self {
            action: action.ok_or_else(wrong)?,
            channel,
        })
    }
}

impl Serialize for Scope {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Scope {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}
