//! A small disk that tests can fill.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Mutex, PoisonError};

/// Held while a process is started. Until it executes its program it has every open file of this one, and so the blocks of files
/// that are removed meanwhile: they would come back after a disk was filled.
static STARTING: Mutex<()> = Mutex::new(());

fn run(command: &mut Command) -> std::io::Result<Output> {
    let _starting = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
    command.output()
}

/// A file system in memory of a given size. Removed when dropped.
pub(crate) struct Disk {
    folder: tempfile::TempDir,
}

impl Disk {
    /// Mounts one; `None`, with a note of the reason, if this process may not mount.
    pub(crate) fn of(options: &str) -> Option<Self> {
        let folder = tempfile::tempdir().expect("a folder");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(folder.path());
        match run(&mut mount) {
            Ok(output) if output.status.success() => Some(Self { folder }),
            Ok(output) => {
                eprintln!("not mounted: {}", String::from_utf8_lossy(&output.stderr));
                None
            }
            Err(error) => {
                eprintln!("not mounted: {error}");
                None
            }
        }
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    fn ballast(&self) -> PathBuf {
        self.path().join("ballast")
    }

    /// Takes all remaining space.
    pub(crate) fn fill(&self) {
        let _starting = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
        let mut file = File::options()
            .create(true)
            .append(true)
            .open(self.ballast())
            .expect("made");
        for bytes in [64 * 1024, 4 * 1024] {
            while file.write_all(&vec![1; bytes]).is_ok() {}
        }
    }

    /// Frees the space again.
    pub(crate) fn make_room(&self) {
        // Cut first: a process that is just being started may have the file open.
        let ballast = File::options().write(true).open(self.ballast()).expect("there");
        ballast.set_len(0).expect("cut");
        std::fs::remove_file(self.ballast()).expect("removed");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: a test that fails may leave files open.
        let _ = run(Command::new("umount").arg("-l").arg(self.path()));
    }
}
