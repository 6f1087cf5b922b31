//! Names that people give: an account's org, and channels within it.

use serde::{Deserialize, Deserializer, Serialize};
use std::fmt;
use std::str::FromStr;

/// The longest part of a name, in bytes.
const PART_BYTES_MAX: usize = 63;

/// Text that is not a name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "not {expected}; a part begins with a letter or digit, then has a-z, 0-9, `.`, `_` or `-`, 63 characters at most"
)]
pub struct NameError {
    expected: &'static str,
}

/// An account's org: the first part of its channels' names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct OrgName(String);

/// A channel's name: `org/namespace/name`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct ChannelName(String);

impl OrgName {
    /// Returns the text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl ChannelName {
    /// Returns the text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first part.
    pub fn org(&self) -> &str {
        self.0.split('/').next().unwrap_or_default()
    }
}

impl FromStr for OrgName {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        if is_part(text) {
            Ok(Self(text.to_owned()))
        } else {
            Err(NameError { expected: "an org" })
        }
    }
}

impl FromStr for ChannelName {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        if text.split('/').count() == 3 && text.split('/').all(is_part) {
            Ok(Self(text.to_owned()))
        } else {
            Err(NameError {
                expected: "a channel name (`org/namespace/name`)",
            })
        }
    }
}

fn is_part(text: &str) -> bool {
    let alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    text.len() <= PART_BYTES_MAX
        && text.bytes().next().is_some_and(alphanumeric)
        && text.bytes().all(|byte| alphanumeric(byte) || b"._-".contains(&byte))
}

macro_rules! text_form {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

text_form!(OrgName);
text_form!(ChannelName);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_text_is_a_name_or_an_error(text in "\\PC{0,80}") {
            if let Ok(name) = text.parse::<ChannelName>() {
                prop_assert_eq!(name.to_string(), text);
            }
        }
    }

    #[test]
    fn a_name_has_three_parts_that_look_the_same_everywhere() {
        let name: ChannelName = "acme/support/tier-1.eu_west".parse().unwrap();
        assert_eq!(name.org(), "acme");
        for wrong in [
            "",
            "acme",
            "acme/a",
            "acme/a/b/c",
            "acme//b",
            "/a/b",
            "a/b/",
            "Acme/a/b",
            "acme/a/ä",
            "acme/a/b c",
            "acme/a/../b",
            "acme/-a/b",
            "acme/.a/b",
            "acme/a/b%2f",
            "acme/a/b\n",
            "a\0/b/c",
        ] {
            assert!(wrong.parse::<ChannelName>().is_err(), "{wrong:?}");
        }
        assert!(format!("a/b/{}", "c".repeat(63)).parse::<ChannelName>().is_ok());
        assert!(format!("a/b/{}", "c".repeat(64)).parse::<ChannelName>().is_err());
        assert!("acme".parse::<OrgName>().is_ok());
        assert!("acme/a".parse::<OrgName>().is_err());
    }
}
