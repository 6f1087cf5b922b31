//! The vault: one SQLCipher database that holds all that an agent must not lose.

mod error;
mod key;

pub use error::VaultError;
pub use key::VaultKey;
