//! A wrong clock for a process, by libfaketime.

use std::path::{Path, PathBuf};
use tokio::process::Command;

/// Folder in which Debian's package `libfaketime` and others put the library.
const LIBRARIES: &str = "/usr/lib";
/// The library, in a folder of [`LIBRARIES`] or one below it.
const LIBRARY: &str = "faketime/libfaketime.so.1";

/// A clock that is wrong. The time that runs since the machine's start is left alone.
#[derive(Clone, Debug)]
pub(crate) struct WrongClock {
    library: PathBuf,
    /// Offset as libfaketime writes it: `+40d`, `-1h`.
    offset: &'static str,
}

impl WrongClock {
    /// One that is wrong by this; `None` where there is no libfaketime.
    pub(crate) fn by(offset: &'static str) -> Option<Self> {
        library().map(|library| Self { library, offset })
    }

    /// Lets a process go by it.
    pub(super) fn set(&self, command: &mut Command) {
        command
            .env("LD_PRELOAD", &self.library)
            .env("FAKETIME", self.offset)
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .env("NO_FAKE_STAT", "1");
    }
}

fn library() -> Option<PathBuf> {
    let libraries = Path::new(LIBRARIES);
    let below = std::fs::read_dir(libraries).into_iter().flatten().flatten();
    let mut folders = std::iter::once(libraries.to_owned()).chain(below.map(|folder| folder.path()));
    folders.find_map(|folder| Some(folder.join(LIBRARY)).filter(|file| file.is_file()))
}
