//! Copies of the vault.

use super::{Engine, EngineError};
use crate::vault::BackupInfo;
use std::path::Path;

impl Engine {
    /// Writes a consistent copy of the vault as it is now, encrypted with the vault's key. It is durable and checked
    /// when this returns. An existing file is replaced only if `replace` is set. Other calls wait meanwhile: a few
    /// seconds for 100 MB.
    ///
    /// See [`restore`](crate::vault::restore) for the way back.
    pub fn backup(&self, path: &Path, replace: bool) -> Result<BackupInfo, EngineError> {
        Ok(self.vault.backup(path, replace)?)
    }
}
