//! Copies of the vault.

use super::{Engine, EngineError};
use crate::vault::BackupInfo;
use std::path::Path;

impl Engine {
    /// Writes a copy of the vault as it is now: consistent, encrypted with the vault's key, durable and checked when this
    /// returns. A file of that name is replaced only if `replace` says so. Other calls wait as long as it takes: a few
    /// seconds for 100 MB.
    ///
    /// See [`restore`](crate::vault::restore) for the way back.
    pub fn backup(&self, path: &Path, replace: bool) -> Result<BackupInfo, EngineError> {
        Ok(self.vault.backup(path, replace)?)
    }
}
