//! Scopes of an API key.

use skytale_proto::limits::TOKEN_SCOPES_MAX;
use skytale_proto::rest::KEY_SCOPES_MANAGEMENT;
use skytale_proto::token::{Action, Scope};
use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

/// One thing that an API key may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum KeyScope {
    /// `keys:write`: list, make and revoke the account's keys.
    KeysWrite,
    /// `agents:write`: end the account's agents.
    AgentsWrite,
    /// `audit:read`.
    AuditRead,
    /// A scope that it may put into tokens.
    Token(Scope),
}

impl KeyScope {
    const MANAGEMENT: [(&'static str, Self); 3] = [
        (KEY_SCOPES_MANAGEMENT[0], Self::KeysWrite),
        (KEY_SCOPES_MANAGEMENT[1], Self::AgentsWrite),
        (KEY_SCOPES_MANAGEMENT[2], Self::AuditRead),
    ];

    fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Token(own), Self::Token(wanted)) => own.covers(wanted),
            _ => self == other,
        }
    }
}

impl fmt::Display for KeyScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Token(scope) => scope.fmt(f),
            management => {
                let named = Self::MANAGEMENT.iter().find(|(_, scope)| scope == management);
                f.write_str(named.map_or("", |(name, _)| name))
            }
        }
    }
}

impl FromStr for KeyScope {
    type Err = ScopesError;
    fn from_str(text: &str) -> Result<Self, ScopesError> {
        if let Some((_, scope)) = Self::MANAGEMENT.iter().find(|(name, _)| *name == text) {
            return Ok(*scope);
        }
        text.parse().map(Self::Token).map_err(|_| ScopesError::Unknown {
            found: skytale_proto::shown(text, 80),
        })
    }
}

/// All scopes of an API key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct KeyScopes(BTreeSet<KeyScope>);

/// Texts that are not scopes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ScopesError {
    /// Not a scope.
    #[error("no such scope: `{found}`")]
    Unknown {
        /// The text found.
        found: String,
    },
    /// None at all.
    #[error("a key without scopes could do nothing")]
    None,
    /// More than fit into a token.
    #[error("{TOKEN_SCOPES_MAX} scopes at most")]
    TooMany,
}

impl KeyScopes {
    /// Everything: what an account's first key may do.
    pub(crate) fn all() -> Self {
        let management = KeyScope::MANAGEMENT.iter().map(|(_, scope)| *scope);
        let token = Action::ALL
            .into_iter()
            .map(|action| KeyScope::Token(Scope::everywhere(action)));
        Self(management.chain(token).collect())
    }

    /// Parses their texts.
    pub(crate) fn from_texts<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Self, ScopesError> {
        let mut scopes = BTreeSet::new();
        for text in texts {
            scopes.insert(text.parse()?);
            if scopes.len() > TOKEN_SCOPES_MAX {
                return Err(ScopesError::TooMany);
            }
        }
        if scopes.is_empty() {
            return Err(ScopesError::None);
        }
        Ok(Self(scopes))
    }

    /// Whether it may do this.
    pub(crate) fn allows(&self, wanted: &KeyScope) -> bool {
        self.0.iter().any(|own| own.covers(wanted))
    }

    /// The first that `other` has and this has not.
    pub(crate) fn lacks(&self, other: &Self) -> Option<KeyScope> {
        other.0.iter().find(|wanted| !self.allows(wanted)).copied()
    }

    /// Whether it may do this with some channel at least.
    pub(crate) fn allows_somewhere(&self, action: Action) -> bool {
        let is_it = |scope: &KeyScope| matches!(scope, KeyScope::Token(scope) if scope.action == action);
        self.0.iter().any(is_it)
    }

    /// The scopes that it may put into tokens.
    pub(crate) fn for_tokens(&self) -> Vec<Scope> {
        let token = |scope: &KeyScope| match scope {
            KeyScope::Token(scope) => Some(*scope),
            _ => None,
        };
        self.0.iter().filter_map(token).collect()
    }

    /// Returns their texts.
    pub(crate) fn to_texts(&self) -> Vec<String> {
        self.0.iter().map(KeyScope::to_string).collect()
    }
}

impl fmt::Display for KeyScopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_texts().join(" "))
    }
}

impl FromStr for KeyScopes {
    type Err = ScopesError;
    fn from_str(text: &str) -> Result<Self, ScopesError> {
        Self::from_texts(text.split_ascii_whitespace())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use skytale_proto::ChannelId;

    #[test]
    fn scopes_are_read_as_they_were_written() {
        let all = KeyScopes::all();
        assert_eq!(all.to_string().parse::<KeyScopes>(), Ok(all.clone()));
        assert_eq!(all.to_texts().len(), 8);
        assert!("".parse::<KeyScopes>().is_err());
        assert!("relay:append relay:fly".parse::<KeyScopes>().is_err());
    }

    #[test]
    fn a_key_lacks_what_it_was_not_given() {
        let channel = ChannelId::from_bytes([1; 16]);
        let narrow: KeyScopes = format!("keys:write relay:append@{channel}").parse().unwrap();
        let wide: KeyScopes = "relay:append".parse().unwrap();
        assert_eq!(
            narrow.lacks(&wide),
            Some(KeyScope::Token(Scope::everywhere(Action::Append)))
        );
        assert_eq!(wide.lacks(&narrow), Some(KeyScope::KeysWrite));
        assert_eq!(KeyScopes::all().lacks(&narrow), None);
        assert!(narrow.allows_somewhere(Action::Append) && !narrow.allows_somewhere(Action::Replay));
    }

    #[test]
    fn scopes_are_bounded() {
        let texts: Vec<String> = (0..=TOKEN_SCOPES_MAX as u8)
            .map(|n| Scope::on(Action::Append, ChannelId::from_bytes([n; 16])).to_string())
            .collect();
        let error = KeyScopes::from_texts(texts.iter().map(String::as_str));
        assert_eq!(error, Err(ScopesError::TooMany));
    }
}
