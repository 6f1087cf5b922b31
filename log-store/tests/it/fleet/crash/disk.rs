//! A disk whose power can be cut.

use super::word;
use std::path::{Path, PathBuf};
use std::process::Command;

/// See `ops/test/crash-disk`, which does all of it.
pub(super) struct Disk {
    program: String,
    folder: PathBuf,
    outside: PathBuf,
}

impl Disk {
    pub(super) fn from_environment() -> Self {
        Self {
            program: word("SKYTALE_TEST_CRASH_DISK"),
            folder: word("SKYTALE_TEST_CRASH_FOLDER").into(),
            outside: word("SKYTALE_TEST_CRASH_OUTSIDE").into(),
        }
    }

    /// Returns its mount point.
    pub(super) fn live(&self) -> PathBuf {
        self.folder.join("live")
    }

    /// A folder somewhere else.
    pub(super) fn outside(&self) -> &Path {
        &self.outside
    }

    /// Takes what is durable by now. Writers must pause.
    pub(super) fn copy(&self) {
        self.act("copy");
    }

    /// From now on the disk has what was copied. Nobody may have it open.
    pub(super) fn cut(&self) {
        self.act("cut");
    }

    /// Gives what was copied to somebody who looks at it.
    pub(super) fn show<T>(&self, look: impl FnOnce(&Path) -> T) -> T {
        self.act("show");
        let seen = look(&self.folder.join("copy"));
        self.act("hide");
        seen
    }

    fn act(&self, action: &str) {
        let done = Command::new(&self.program)
            .arg(action)
            .arg(&self.folder)
            .status()
            .expect("the program");
        assert!(done.success(), "the disk does not {action}");
    }
}
