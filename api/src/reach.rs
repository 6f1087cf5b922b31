//! Whether the database can be reached, before anything is begun with it.

use crate::config::ConfigError;
use crate::store::{Location, Store, StoreError};
use secrecy::{ExposeSecret as _, SecretString};
use skytale_proto::Code;

/// A database that cannot be reached. No text holds its password.
#[derive(Debug, thiserror::Error)]
pub enum ReachError {
    /// This is no database.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// It does not answer, or refuses.
    #[error("{0}")]
    Database(String),
}

impl ReachError {
    /// The code.
    pub const fn code(&self) -> Code {
        match self {
            Self::Config(_) => Code::Config,
            Self::Database(_) => Code::Environment,
        }
    }
}

impl From<StoreError> for ReachError {
    fn from(error: StoreError) -> Self {
        Self::Database(error.to_string())
    }
}

/// Connects to the database once, and changes nothing in it. A SQLite file that is missing is made at the start.
pub async fn reach_database(database: &SecretString) -> Result<(), ReachError> {
    let location = Location::parse(database.expose_secret())?;
    Ok(Store::try_out(&location).await?)
}
