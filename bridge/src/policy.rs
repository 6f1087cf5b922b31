//! Names that accounts may use.
//!
//! A pattern is `org/namespace/service`, where the last parts may be `*`. The text of a name is compared, and only if
//! it hashes to the routed name. A name that carries no text, or a wrong one, matches nothing but `*/*/*`.

use crate::wire::Name;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// A pattern of names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern([Option<String>; 3]);

/// Text that is not a pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a pattern of names (`org/namespace/service`, where parts may be `*`)")]
pub struct PatternError;

impl FromStr for Pattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        let parts: Vec<&str> = text.split('/').collect();
        let [org, namespace, service]: [&str; 3] = parts.try_into().map_err(|_| PatternError)?;
        if [org, namespace, service].iter().any(|part| part.is_empty()) {
            return Err(PatternError);
        }
        let part = |text: &str| (text != "*").then(|| text.to_owned());
        Ok(Self([part(org), part(namespace), part(service)]))
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let part = |at: &Option<String>| at.clone().unwrap_or_else(|| "*".into());
        let [org, namespace, service] = &self.0;
        write!(f, "{}/{}/{}", part(org), part(namespace), part(service))
    }
}

impl Pattern {
    /// Whether a name matches.
    pub fn matches(&self, name: &Name) -> bool {
        if self.0.iter().all(Option::is_none) {
            return true;
        }
        name.components().is_some_and(|components| {
            self.0
                .iter()
                .zip(components)
                .all(|(part, text)| part.as_deref().is_none_or(|part| part == text))
        })
    }
}

/// Rules of an account.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// Names that it may subscribe to, and send as.
    pub names: Vec<Pattern>,
    /// Names that it may send to, beside its own.
    pub destinations: Vec<Pattern>,
    /// Whether it may link a SLIM node, which speaks for the applications behind it.
    pub node: bool,
}

impl Rules {
    /// Everything: for `dev`.
    pub fn everything() -> Self {
        Self {
            names: vec![Pattern([None, None, None])],
            destinations: Vec::new(),
            node: true,
        }
    }

    /// Whether it may subscribe to a name, or send as it.
    pub fn owns(&self, name: &Name) -> bool {
        self.names.iter().any(|pattern| pattern.matches(name))
    }

    /// Whether it may send to a name.
    pub fn may_send_to(&self, name: &Name) -> bool {
        self.owns(name) || self.destinations.iter().any(|pattern| pattern.matches(name))
    }
}

/// The rules of all accounts. An account that is not in it may do nothing.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// Rules by the account's label.
    pub accounts: BTreeMap<String, Rules>,
}

impl Policy {
    /// The rules of an account.
    pub fn of(&self, account: &str) -> Rules {
        self.accounts.get(account).cloned().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::component_hash;
    use bytes::Bytes;

    fn name(parts: [&str; 3]) -> Name {
        Name {
            encoded: Some(crate::wire::Encoded {
                prefix: parts.map(component_hash),
                id: None,
            }),
            strings: Some(parts.map(|part| Bytes::copy_from_slice(part.as_bytes()))),
        }
    }

    #[test]
    fn patterns_match_text_that_is_routed() {
        let rules = Rules {
            names: vec!["org/ns/*".parse().expect("a pattern")],
            destinations: vec!["org/other/one".parse().expect("a pattern")],
            node: false,
        };
        let own = name(["org", "ns", "agent"]);
        assert!(rules.owns(&own) && rules.may_send_to(&own));
        let other = name(["org", "other", "one"]);
        assert!(!rules.owns(&other) && rules.may_send_to(&other));
        assert!(!rules.may_send_to(&name(["org", "other", "two"])));
        // The text says one thing, the route another.
        let mut forged = name(["victim", "ns", "agent"]);
        forged.strings = own.strings.clone();
        assert!(!rules.may_send_to(&forged));
        let mut silent = name(["org", "ns", "agent"]);
        silent.strings = None;
        assert!(!rules.owns(&silent));
        assert!(Rules::everything().owns(&silent));
    }

    #[test]
    fn who_has_no_rules_may_do_nothing() {
        let rules = Policy::default().of("nobody");
        assert!(!rules.may_send_to(&name(["a", "b", "c"])));
    }

    #[test]
    fn patterns_have_three_parts() {
        for text in ["", "a", "a/b", "a/b/c/d", "a//c"] {
            assert!(text.parse::<Pattern>().is_err(), "{text}");
        }
        assert_eq!("a/*/c".parse::<Pattern>().expect("fine").to_string(), "a/*/c");
    }
}
