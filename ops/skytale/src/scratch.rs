//! Temporary folders of a command, which are gone when it has ended, however it ended.

use crate::local::private_folder;
use crate::output::{Context as _, Outcome};
use skytale_proto::Code;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tempfile::TempDir;

/// Number of attempts to remove a folder in which something is still being written, and the wait between.
const TRIES: usize = 40;
const BETWEEN: Duration = Duration::from_millis(50);

/// Owns them. It is dropped after the runtime has ended: a task that is given up may write to its folder until then, and
/// a folder in which files appear cannot be removed.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    folders: Mutex<Vec<TempDir>>,
}

impl Scratch {
    /// Makes a private folder in `parent` (by default the system's temporary folder), which `keep` leaves there.
    pub(crate) fn folder(&self, prefix: &str, parent: Option<&Path>, keep: bool) -> Outcome<PathBuf> {
        let mut builder = tempfile::Builder::new();
        builder.prefix(prefix);
        let made = match parent {
            Some(parent) => {
                private_folder(parent)?;
                builder.tempdir_in(parent)
            }
            None => builder.tempdir(),
        };
        let mut folder = made.failing(Code::Environment, || "cannot make a temporary folder".into())?;
        let path = folder.path().to_owned();
        folder.disable_cleanup(keep);
        if !keep {
            self.folders.lock().unwrap_or_else(PoisonError::into_inner).push(folder);
        }
        Ok(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let folders = self.folders.get_mut().unwrap_or_else(PoisonError::into_inner);
        for folder in folders.drain(..) {
            remove(folder.path());
        }
    }
}

/// Removes it. A process that was killed, or a thread at a disk, may be in its last write. A folder that cannot be
/// removed is left to the system, as temporary files are.
fn remove(folder: &Path) {
    for _ in 0..TRIES {
        match std::fs::remove_dir_all(folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => std::thread::sleep(BETWEEN),
            _ => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Scratch;

    #[test]
    fn a_folder_goes_though_files_are_still_being_made_in_it() {
        let scratch = Scratch::default();
        let folder = scratch.folder("skytale-test-", None, false).expect("a folder");
        let busy = folder.clone();
        let writer = std::thread::spawn(move || {
            let mut number = 0_u32;
            // Ends when the folder is gone.
            while std::fs::write(busy.join(number.to_string()), b"x").is_ok() && number < 20_000 {
                number += 1;
            }
        });
        drop(scratch);
        writer.join().expect("no panic");
        assert!(!folder.exists());
    }

    #[test]
    fn a_folder_is_kept_where_that_is_wanted() {
        let parent = tempfile::tempdir().expect("a folder");
        let scratch = Scratch::default();
        let kept = scratch.folder("kept-", Some(parent.path()), true).expect("a folder");
        let gone = scratch.folder("gone-", Some(parent.path()), false).expect("a folder");
        assert!(kept.exists() && gone.exists());
        drop(scratch);
        assert!(kept.exists() && !gone.exists());
    }
}
