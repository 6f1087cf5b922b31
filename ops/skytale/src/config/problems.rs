//! Everything that is wrong with a configuration, told at once.

use super::{Layer, Loaded};
use crate::output::{Failure, Outcome};
use skytale_proto::Code;

/// Problems by key. The first problem of a key counts: the rest follows from it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Problems(Vec<(String, Failure)>);

impl Problems {
    /// Adds a problem of a key, unless the key has one already.
    pub(crate) fn add(&mut self, key: &str, failure: Failure) {
        if !self.has(key) {
            self.0.push((key.to_owned(), failure));
        }
    }

    /// Adds all that one examination found: several things may be wrong with one key.
    pub(crate) fn extend(&mut self, found: impl IntoIterator<Item = (String, Failure)>) {
        let new: Vec<_> = found.into_iter().filter(|(key, _)| !self.has(key)).collect();
        self.0.extend(new);
    }

    /// The value, or the problem of the key.
    pub(crate) fn take<T>(&mut self, key: &str, outcome: Outcome<T>) -> Option<T> {
        outcome.map_err(|failure| self.add(key, failure)).ok()
    }

    /// The value of a key that has no default.
    pub(crate) fn need<'a, T>(&mut self, loaded: &Loaded, key: &str, value: Option<&'a T>) -> Option<&'a T> {
        self.take(key, loaded.need(key, value))
    }

    /// Whether a key is known to be wrong.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.0.iter().any(|(known, _)| known == key)
    }

    /// Nothing, or one failure for all of it.
    pub(crate) fn outcome(self, of: &str) -> Outcome {
        let mut failures: Vec<Failure> = self.0.into_iter().map(|(_, failure)| failure).collect();
        match failures.len() {
            0 => Ok(()),
            1 => failures.pop().map_or(Ok(()), |failure| Err(failure.of_setup())),
            several => Err(
                Failure::several(format!("{several} problems in the configuration{of}"), failures)
                    .help("Correct them all; `skytale config print` shows what is in force and where it comes from.")
                    .of_setup(),
            ),
        }
    }
}

impl Loaded {
    /// The value of a key that has no default, or the missing part and the way to give it.
    pub(crate) fn need<'a, T>(&self, key: &str, value: Option<&'a T>) -> Outcome<&'a T> {
        value.ok_or_else(|| {
            let failure = Failure::new(Code::Config, format!("configuration key `{key}` is needed and not set"));
            let example = super::expected::example(key).unwrap_or_else(|| "...".into());
            let place = match key.rsplit_once('.') {
                Some((section, name)) => format!("`{name} = {example}` in [{section}]"),
                None => format!("`{key} = {example}` above all sections"),
            };
            let made = match key {
                "api.admin_secret" | "api.relay_secret" | "api.key_encryption_key" => {
                    "Make one with `openssl rand -hex 32`, in a file with mode 0600. "
                }
                _ => "",
            };
            failure.help(format!(
                "{made}Set it in the file, as in {place}, or as {}; `skytale config init` writes a file with every key.",
                Layer::variable(key)
            ))
        })
    }

    /// A key whose value cannot be used.
    pub(crate) fn refused(&self, key: &str, problem: &str) -> Failure {
        let source = match self.source(key).as_str() {
            "default" => String::new(),
            source => format!(" ({source})"),
        };
        Failure::new(Code::Config, format!("configuration key `{key}`{source} {problem}"))
    }
}
