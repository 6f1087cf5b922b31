//! `skytale key`.

use super::Session;
use crate::client;
use crate::output::{Human, Outcome, Style, table};
use crate::time::utc;
use clap::Subcommand;
use serde::Serialize;
use skytale_proto::KeyId;
use skytale_proto::rest::{CreateKey, CreatedKey, Key, Keys};
use skytale_sdk::internals::net::Method;
use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Pages of keys that are read, at most.
const PAGES_MAX: usize = 1_000;
/// Scopes that an agent needs.
const AGENT_SCOPES: &[&str] = &[
    "relay:append",
    "relay:replay",
    "channels:create",
    "keypackages:publish",
    "keypackages:claim",
];

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make an API key. It is shown once.
    Create {
        /// The name of the key for people.
        #[arg(long, default_value = "unnamed")]
        label: String,
        /// A scope of the key, as in `relay:append` or `relay:replay@<channel>`; may be given again [default: what an
        /// agent needs].
        #[arg(long = "scope", value_name = "SCOPE")]
        scopes: Vec<String>,
        /// The lifetime of the key, in seconds from now [default: until it is revoked].
        #[arg(long, value_name = "SECONDS")]
        expires_in_s: Option<u64>,
    },
    /// List the account's API keys.
    List,
    /// Revoke an API key: its tokens and sessions end within 30 seconds.
    Revoke {
        /// The key's id, as `key list` shows it.
        id: KeyId,
    },
}

pub(crate) async fn run(command: Command, session: Session) -> Outcome {
    let client = client::account(&session.loaded)?;
    let failed = client::failed(&session.loaded);
    let work = async {
        match command {
            Command::Create {
                label,
                scopes,
                expires_in_s,
            } => {
                let scopes = if scopes.is_empty() {
                    AGENT_SCOPES.iter().map(|scope| (*scope).to_owned()).collect()
                } else {
                    scopes
                };
                let expires_s = expires_in_s.map(|seconds| now_s().saturating_add(seconds));
                let request = CreateKey {
                    label,
                    scopes,
                    expires_s,
                };
                let created: CreatedKey = client
                    .call(Method::Post, "/v1/keys", Some(&request))
                    .await
                    .map_err(&failed)?;
                session.output.give(&Created { created: &created })
            }
            Command::List => {
                let mut keys = Vec::new();
                let mut path = "/v1/keys".to_owned();
                for _ in 0..PAGES_MAX {
                    let page: Keys = client.call(Method::Get, &path, None::<&()>).await.map_err(&failed)?;
                    keys.extend(page.keys);
                    match page.next {
                        Some(next) => path = format!("/v1/keys?after={next}"),
                        None => break,
                    }
                }
                session.output.give(&List { keys })
            }
            Command::Revoke { id } => {
                let () = client
                    .call(Method::Delete, &format!("/v1/keys/{id}"), None::<&()>)
                    .await
                    .map_err(&failed)?;
                session.output.give(&Revoked { revoked: id })
            }
        }
    };
    session.shutdown.unless(work).await
}

fn now_s() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or(Duration::ZERO)
        .as_secs()
}

#[derive(Serialize)]
struct Created<'a> {
    #[serde(flatten)]
    created: &'a CreatedKey,
}

impl Human for Created<'_> {
    fn human(&self, to: &mut dyn fmt::Write, style: &Style) -> fmt::Result {
        writeln!(to, "key id   {}", self.created.key.id)?;
        writeln!(to, "scopes   {}", self.created.key.scopes.join(" "))?;
        writeln!(to, "{}", style.dim("The key, shown now and never again:"))?;
        writeln!(to, "export SKYTALE_API_KEY={}", self.created.secret)
    }
}

#[derive(Serialize)]
struct List {
    keys: Vec<Key>,
}

impl Human for List {
    fn human(&self, to: &mut dyn fmt::Write, style: &Style) -> fmt::Result {
        if self.keys.is_empty() {
            return writeln!(to, "no keys");
        }
        let rows = self.keys.iter().map(|key| {
            let state = match (key.revoked_s, key.expires_s) {
                (Some(revoked), _) => format!("revoked {}", utc(revoked)),
                (None, Some(expires)) => format!("until {}", utc(expires)),
                (None, None) => "in force".into(),
            };
            vec![
                key.id.to_string(),
                key.label.clone(),
                state,
                utc(key.created_s),
                key.scopes.join(" "),
            ]
        });
        table(to, style, &["key id", "label", "state", "made", "scopes"], rows)
    }
}

#[derive(Serialize)]
struct Revoked {
    revoked: KeyId,
}

impl Human for Revoked {
    fn human(&self, to: &mut dyn fmt::Write, _: &Style) -> fmt::Result {
        writeln!(
            to,
            "revoked {}: its tokens and sessions end within 30 seconds",
            self.revoked
        )
    }
}
