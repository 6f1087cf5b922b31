//! `skytale api rewrap-keys`: another key encryption key.

use super::Session;
use crate::config::Secret;
use crate::output::{Failure, Human, Outcome, Style};
use serde::Serialize;
use skytale_api::{KeyEncryptionKey, Rewrapped, rewrap_signing_keys};
use skytale_proto::Code;
use std::fmt;
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The file that holds the new key: 64 hex digits, as `openssl rand -hex 32` prints them.
    #[arg(long, value_name = "FILE")]
    new_key_file: PathBuf,
}

/// The old key and the database are those of the configuration.
pub(crate) async fn run(args: Args, session: Session) -> Outcome {
    let (database, old) = session.loaded.api_keys()?;
    let shown = args.new_key_file.display();
    let text = Secret::new(format!("file:{shown}")).reveal("--new-key-file")?;
    let new = KeyEncryptionKey::from_hex(&text)
        .map_err(|error| Failure::new(Code::Config, format!("{shown} {}", error.problem)))?;
    // Not cut short by a signal: it is one transaction, which is quickly done.
    let done = rewrap_signing_keys(&database, &old, &new).await.map_err(|error| {
        Failure::new(error.code(), "the signing keys were left as they are")
            .because(&error)
            .help("The old key is `api.key_encryption_key`, the database `api.database`: check both.")
    })?;
    session.output.give(&Told::from(done))
}

#[derive(Serialize)]
struct Told {
    rewrapped: usize,
    already: usize,
}

impl From<Rewrapped> for Told {
    fn from(done: Rewrapped) -> Self {
        Self {
            rewrapped: done.rewrapped,
            already: done.already,
        }
    }
}

impl Human for Told {
    fn human(&self, to: &mut dyn fmt::Write, style: &Style) -> fmt::Result {
        writeln!(
            to,
            "{} {} signing keys are encrypted under the new key, {} were before",
            style.good("done:"),
            self.rewrapped,
            self.already
        )?;
        writeln!(
            to,
            "Set `api.key_encryption_key` to the new key and start every API process again; those that run give tokens \
             meanwhile, and rotate no signing key. Keep the old key for backups made before."
        )
    }
}
