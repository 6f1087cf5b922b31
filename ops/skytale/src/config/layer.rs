//! One setting from outside the file: an environment variable or a flag.

use figment::value::{Dict, Map, Value};
use figment::{Metadata, Profile, Provider};

/// A key, its value as text, and where it came from. Text becomes a number or a bool where the key is one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Layer {
    source: String,
    key: String,
    value: String,
}

/// Before the names of environment variables that are settings.
const PREFIX: &str = "SKYTALE_";
/// Variables that begin like settings and are none.
const OTHERS: &[&str] = &["SKYTALE_CONFIG", "SKYTALE_NATS_SERVER", "SKYTALE_PROFILE"];
/// Beginnings of variables that belong to the project's scripts.
const SCRIPTS: &[&str] = &["SKYTALE_CI_", "SKYTALE_TEST_"];

impl Layer {
    /// A setting by a flag, such as `--listen`.
    pub(crate) fn flag(flag: &str, key: &str, value: impl ToString) -> Self {
        Self {
            source: format!("flag {flag}"),
            key: key.into(),
            value: value.to_string(),
        }
    }

    /// A setting by a profile.
    pub(super) fn profile(profile: &str, key: &str, value: &str) -> Self {
        Self {
            source: format!("profile {profile}"),
            key: key.into(),
            value: value.into(),
        }
    }

    /// The settings among environment variables: `SKYTALE_RELAY__DATA_DIR` is `relay.data_dir`.
    pub(crate) fn environment(variables: impl Iterator<Item = (String, String)>) -> Vec<Self> {
        let mut layers: Vec<_> = variables
            .filter(|(name, value)| {
                !OTHERS.contains(&name.as_str())
                    && !SCRIPTS.iter().any(|script| name.starts_with(script))
                    && !is_of_kubernetes(name, value)
            })
            .filter_map(|(name, value)| {
                let key = name.strip_prefix(PREFIX)?.to_ascii_lowercase().replace("__", ".");
                Some(Self {
                    source: format!("environment variable {name}"),
                    key,
                    value,
                })
            })
            .collect();
        layers.sort_by(|a, b| a.key.cmp(&b.key));
        layers
    }

    /// The name of the variable that sets a key.
    pub(crate) fn variable(key: &str) -> String {
        format!("{PREFIX}{}", key.to_ascii_uppercase().replace('.', "__"))
    }
}

impl Layer {
    /// The key that it sets.
    pub(super) fn key(&self) -> &str {
        &self.key
    }

    /// Returns its origin, in words.
    pub(super) fn source(&self) -> &str {
        &self.source
    }
}

/// Whether Kubernetes put a variable there, for a Service of a name that begins with `skytale`: as in `SKYTALE_SERVICE_HOST`,
/// `SKYTALE_API_SERVICE_PORT_HTTP`, `SKYTALE_PORT` and `SKYTALE_PORT_7600_TCP_ADDR`.
fn is_of_kubernetes(name: &str, value: &str) -> bool {
    let is_link = |rest: &str| {
        let mut parts = rest.split('_');
        let is_number = parts
            .next()
            .is_some_and(|port| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()));
        is_number && matches!(parts.next(), Some("TCP" | "UDP" | "SCTP"))
    };
    name.ends_with("_SERVICE_HOST")
        || name.ends_with("_SERVICE_PORT")
        || name.contains("_SERVICE_PORT_")
        || (name.ends_with("_PORT") && value.contains("://"))
        || name
            .match_indices("_PORT_")
            .any(|(at, found)| is_link(&name[at + found.len()..]))
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.source.clone()).interpolater(|_: &Profile, keys: &[&str]| keys.join("."))
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        let nested = self
            .key
            .rsplit('.')
            .fold(Value::from(self.value.clone()), |value, part| {
                Value::from(Dict::from([(part.to_owned(), value)]))
            });
        let dict = nested.into_dict().unwrap_or_default();
        Ok(Map::from([(Profile::Default, dict)]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_names_its_key_both_ways() {
        let variables = [
            ("SKYTALE_RELAY__DATA_DIR", "/srv"),
            ("SKYTALE_API_URL", "http://x"),
            ("SKYTALE_CONFIG", "c.toml"),
            ("SKYTALE_NATS_SERVER", "/usr/bin/nats-server"),
            ("SKYTALE_CI_CACHE", "/cache"),
            ("HOME", "/root"),
        ];
        let layers = Layer::environment(variables.map(|(n, v)| (n.to_owned(), v.to_owned())).into_iter());
        let keys: Vec<_> = layers.iter().map(|layer| layer.key.as_str()).collect();
        assert_eq!(keys, ["api_url", "relay.data_dir"]);
        assert_eq!(Layer::variable("relay.data_dir"), "SKYTALE_RELAY__DATA_DIR");
    }

    #[test]
    fn what_kubernetes_says_of_services_is_no_setting() {
        for (name, value) in [
            ("SKYTALE_SERVICE_HOST", "10.96.0.7"),
            ("SKYTALE_SERVICE_PORT", "7600"),
            ("SKYTALE_API_SERVICE_PORT_HTTP", "7600"),
            ("SKYTALE_PORT", "tcp://10.96.0.7:7600"),
            ("SKYTALE_PORT_7600_TCP", "tcp://10.96.0.7:7600"),
            ("SKYTALE_RELAY_PORT_7601_UDP_ADDR", "10.96.0.8"),
        ] {
            let layers = Layer::environment([(name.to_owned(), value.to_owned())].into_iter());
            assert_eq!(layers, [], "{name}");
        }
        for name in ["SKYTALE_PORT_", "SKYTALE_PORT_X_TCP", "SKYTALE_RELAY__LISTEN"] {
            assert!(!is_of_kubernetes(name, "127.0.0.1:1"), "{name}");
        }
    }
}
