//! Whether a configuration can be used, before anything is started with it.

use super::bridge::Checked;
use super::relay::RelaySetup;
use super::{Loaded, Problems};
use crate::agent;
use crate::output::{Failure, Outcome};
use crate::telemetry;
use skytale_api::ApiConfig;
use skytale_proto::Code;
use skytale_sdk::{ApiClient, ApiKey};

/// Part of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Part {
    /// `skytale api`: `[api]`.
    Api,
    /// `skytale relay`: `[relay]`.
    Relay,
    /// `skytale bridge`: `[bridge]`.
    Bridge,
    /// Agents and their commands: the keys above all sections.
    Agent,
}

impl Part {
    pub(crate) const ALL: [Self; 4] = [Self::Api, Self::Relay, Self::Bridge, Self::Agent];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Relay => "relay",
            Self::Bridge => "bridge",
            Self::Agent => "agent",
        }
    }

    /// Whether a key is of it.
    fn has(self, key: &str) -> bool {
        match (self, key.split_once('.')) {
            (Self::Agent, None) => !matches!(key, "log" | "log_format"),
            (part, Some((section, _))) => part != Self::Agent && part.name() == section,
            (_, None) => false,
        }
    }
}

/// Usable parts of the configuration that were checked.
#[derive(Default)]
pub(super) struct Usable {
    pub(super) api: Option<ApiConfig>,
    pub(super) relay: Option<RelaySetup>,
    pub(super) bridge: Option<Checked>,
    pub(super) agent: Option<ApiClient>,
}

impl Loaded {
    /// The parts of which something is set.
    pub(crate) fn parts(&self) -> Vec<Part> {
        let parts = Part::ALL.into_iter();
        parts.filter(|part| self.sets(|key| part.has(key))).collect()
    }

    /// Refuses all at once that is wrong with these parts. With `connect`, addresses are bound and connections tried.
    pub(crate) async fn check(&self, parts: &[Part], asked: bool, connect: bool) -> Outcome {
        let mut problems = self.problems.clone();
        if let Some(filter) = &self.config.log {
            problems.take("log", telemetry::filter(filter));
        }
        let mut usable = Usable::default();
        for part in parts {
            match part {
                Part::Api => usable.api = Some(self.api_config(&mut problems)),
                Part::Relay => {
                    let setup = self.relay_setup(&mut problems);
                    self.relay_files(&setup, &mut problems);
                    usable.relay = Some(setup);
                }
                Part::Bridge => usable.bridge = Some(self.bridge_setup(&mut problems)),
                Part::Agent => usable.agent = self.agent_client(asked, &mut problems),
            }
        }
        if connect {
            self.reach(usable, &mut problems).await;
        }
        let names: Vec<&str> = parts.iter().map(|part| part.name()).collect();
        let of = match names.is_empty() {
            true => String::new(),
            false => format!(" ({})", names.join(", ")),
        };
        problems.outcome(&of)
    }

    /// The client of the API that an agent uses. The key is needed where an agent is asked for, and looked at where there is
    /// one.
    fn agent_client(&self, asked: bool, problems: &mut Problems) -> Option<ApiClient> {
        let config = &self.config;
        if let Some(secret) = &config.admin_secret {
            let secret = secret.reveal("admin_secret");
            let usable = secret.and_then(|secret| {
                let operator = ApiKey::operator(secret.as_str());
                operator.map_err(|error| self.refused("admin_secret", "cannot be used").because(&error))
            });
            problems.take("admin_secret", usable);
        }
        problems.take("ca_file", self.network().map(|_| ()));
        self.vault_files(problems);
        if asked || config.api_key.is_some() {
            let (url, key) = (
                ("api_url", Some(config.api_url.as_str())),
                ("api_key", config.api_key.as_ref()),
            );
            return self.api_client(url, key, problems);
        }
        problems.take("api_url", self.client_url("api_url", &config.api_url));
        None
    }

    /// The vault's place and its key. Both are made by `skytale init`.
    fn vault_files(&self, problems: &mut Problems) {
        let Some(vault) = problems.take("vault", agent::vault(self)) else {
            return;
        };
        if vault.is_dir() {
            problems.add("vault", self.refused("vault", "is a folder, and must be a file"));
        } else if !vault.exists() {
            problems.take("vault", self.can_be_made("vault", &vault));
        }
        let key = match &self.config.vault_passphrase {
            Some(_) => "vault_passphrase",
            None => "vault_key_file",
        };
        let Some(vault_key) = problems.take(key, agent::vault_key(self, &vault)) else {
            return;
        };
        let Some(file) = vault_key.path() else { return };
        if file.exists() {
            let read = std::fs::read_to_string(file).map(|_| ()).map_err(|error| {
                let what = format!("`{key}` ({}): cannot read {}", self.source(key), file.display());
                Failure::new(Code::Environment, what).because(&error)
            });
            problems.take(key, read);
        } else if vault.exists() {
            let what = format!("`{key}` ({}): {} is missing", self.source(key), file.display());
            problems.add(
                key,
                Failure::new(Code::Environment, what).since(format!("it opens {}", vault.display())),
            );
        }
    }
}
