//! The keys of those who may connect.

use crate::local::write_private;
use crate::output::{Context as _, Failure, Outcome};
use nkeys::KeyPair;
use skytale_proto::Code;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// A user's public key, and where its seed is.
#[derive(Clone, Debug)]
pub(crate) struct User {
    pub public: String,
    pub seed_file: PathBuf,
}

/// Those who may connect.
#[derive(Clone, Debug)]
pub(crate) struct Users {
    /// Relay nodes.
    pub relay: User,
    /// Relay nodes, asking servers whether they sync.
    pub sync: User,
    /// People.
    pub operator: User,
    /// People, in the system account.
    pub system: User,
}

impl Users {
    /// The keys kept in a folder; made where they are missing.
    pub(crate) fn in_folder(dir: &Path) -> Outcome<Self> {
        let user = |name: &str| user_in(&dir.join(format!("{name}.nk")));
        Ok(Self {
            relay: user("relay")?,
            sync: user("relay-sync")?,
            operator: user("operator")?,
            system: user("operator-system")?,
        })
    }
}

fn user_in(seed_file: &Path) -> Outcome<User> {
    let making = || format!("cannot make a key for {}", seed_file.display());
    let pair = match std::fs::read_to_string(seed_file).map(Zeroizing::new) {
        Ok(seed) => KeyPair::from_seed(seed.trim()).map_err(|error| {
            Failure::new(Code::Config, format!("{} holds no NKey seed", seed_file.display())).because(&error)
        })?,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let pair = KeyPair::new_user();
            let seed = Zeroizing::new(pair.seed().failing(Code::Environment, making)?);
            write_private(seed_file, seed.as_bytes())?;
            pair
        }
        Err(error) => {
            return Err(
                Failure::new(Code::Environment, format!("cannot read {}", seed_file.display())).because(&error),
            );
        }
    };
    Ok(User {
        public: pair.public_key(),
        seed_file: seed_file.to_owned(),
    })
}
