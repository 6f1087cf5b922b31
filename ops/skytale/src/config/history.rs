//! Retention of a history, as it is written.

use serde::de::{Error, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use skytale_sdk::Keep;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// Accepted values.
const EXPECTED: &str = "`all`, a number of messages such as 1000, or an age such as 30d (s, m, h, d, w)";

/// `all`, a number of messages, or an age.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct History {
    keep: Keep,
    text: Option<String>,
}

impl History {
    /// Returns it for the engine.
    pub(crate) const fn keep(&self) -> Keep {
        self.keep
    }
}

impl FromStr for History {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let keep = if text == "all" {
            Keep::All
        } else if let Ok(count) = text.parse() {
            Keep::Newest(count)
        } else if let Some(age) = age(text) {
            Keep::Younger(age)
        } else {
            return Err(format!("expected {EXPECTED}"));
        };
        Ok(Self {
            keep,
            text: Some(text.to_owned()),
        })
    }
}

/// An age: `90s`, `15m`, `12h`, `30d` or `2w`.
pub(crate) fn age(text: &str) -> Option<Duration> {
    let (number, unit_s) = [("s", 1), ("m", 60), ("h", 3_600), ("d", 86_400), ("w", 7 * 86_400)]
        .into_iter()
        .find_map(|(unit, seconds)| Some((text.strip_suffix(unit)?, seconds)))?;
    // Digits alone: a number's own parser takes a sign, too.
    if !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    number.parse::<u64>().ok()?.checked_mul(unit_s).map(Duration::from_secs)
}

impl Serialize for History {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.text.as_deref().unwrap_or("all"))
    }
}

impl<'de> Deserialize<'de> for History {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Written;
        impl Visitor<'_> for Written {
            type Value = History;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(EXPECTED)
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<History, E> {
                text.parse().map_err(|_| E::invalid_value(Unexpected::Str(text), &self))
            }
            fn visit_u64<E: Error>(self, count: u64) -> Result<History, E> {
                self.visit_str(&count.to_string())
            }
            fn visit_i64<E: Error>(self, count: i64) -> Result<History, E> {
                self.visit_str(&count.to_string())
            }
        }
        deserializer.deserialize_any(Written)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keep(text: &str) -> Option<Keep> {
        text.parse::<History>().ok().map(|history| history.keep())
    }

    #[test]
    fn a_history_is_all_a_number_or_an_age() {
        assert_eq!(keep("all"), Some(Keep::All));
        assert_eq!(keep("1000"), Some(Keep::Newest(1_000)));
        for (text, seconds) in [
            ("90s", 90),
            ("15m", 900),
            ("12h", 43_200),
            ("30d", 2_592_000),
            ("2w", 1_209_600),
        ] {
            assert_eq!(keep(text), Some(Keep::Younger(Duration::from_secs(seconds))));
        }
        for wrong in [
            "",
            "none",
            "d",
            "-1",
            "-1d",
            "+1d",
            "1.5d",
            "30 d",
            "30D",
            "99999999999999999999w",
        ] {
            assert_eq!(keep(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn what_was_written_is_shown() {
        for text in ["all", "1000", "30d"] {
            let history: History = serde_json::from_value(text.into()).expect("read");
            assert_eq!(serde_json::to_value(history).expect("shown"), text);
        }
        let history: History = serde_json::from_value(1_000.into()).expect("read");
        assert_eq!(history.keep(), Keep::Newest(1_000));
        assert!(serde_json::from_value::<History>((-1).into()).is_err());
    }
}
