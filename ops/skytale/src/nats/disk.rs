//! A small disk for one server's store: a tmpfs in a mount namespace of its own, which is gone when the process that holds it
//! is, however that ends.

use crate::output::{Context as _, Failure, Outcome};
use skytale_proto::Code;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Mounts the disk, says so, and holds it until the input ends.
const HOLDER: &str = "mount -t tmpfs -o size=\"$1\",mode=700 tmpfs \"$0\" && echo mounted && read -r _";
/// Ways to get a mount namespace: as root, and where the system gives one to anybody.
const WAYS: [&[&str]; 2] = [&["--mount"], &["--user", "--map-root-user", "--mount"]];
/// The file that takes what room there is.
const FILLER: &str = "filler";
/// Block that is written to it at once.
const BLOCK: [u8; 4_096] = [0; 4_096];

/// A small disk.
#[derive(Debug)]
pub(crate) struct SmallDisk {
    holder: Child,
    path: PathBuf,
}

impl SmallDisk {
    /// Mounts one over an empty folder, seen by nobody who does not come by [`Self::path`].
    pub(crate) fn mounted(at: &Path, bytes: u64) -> Outcome<Self> {
        let mut problem = String::new();
        for way in WAYS {
            match Self::try_mount(way, at, bytes) {
                Ok(disk) => return Ok(disk),
                Err(why) => problem = why,
            }
        }
        Err(Failure::new(Code::Environment, "cannot mount a small disk (tmpfs)").since(problem))
    }

    /// Whether this user may mount one.
    pub(crate) fn is_possible() -> bool {
        let tried = tempfile::tempdir().ok().map(|dir| Self::mounted(dir.path(), 1 << 20));
        matches!(tried, Some(Ok(_)))
    }

    fn try_mount(way: &[&str], at: &Path, bytes: u64) -> Result<Self, String> {
        let mut command = Command::new("unshare");
        command
            .args(way)
            .args(["sh", "-c", HOLDER])
            .arg(at)
            .arg(bytes.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Ctrl-C goes to the process that started the fleet, not past it.
            .process_group(0);
        let mut holder = command.spawn().map_err(|error| format!("unshare: {error}"))?;
        let mut line = String::new();
        if let Some(stdout) = holder.stdout.take() {
            let read = BufReader::new(stdout).read_line(&mut line);
            read.map_err(|error| error.to_string())?;
        }
        if line.trim() != "mounted" {
            let said = holder.wait_with_output().map_err(|error| error.to_string())?;
            return Err(String::from_utf8_lossy(&said.stderr).trim().to_owned());
        }
        let root = format!("/proc/{}/root", holder.id());
        let inside = at.strip_prefix("/").unwrap_or(at);
        Ok(Self {
            path: Path::new(&root).join(inside),
            holder,
        })
    }

    /// Returns its path, for every process of this user.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Leaves no room.
    pub(crate) fn fill(&self) -> Outcome {
        let filling = || "cannot fill the small disk".to_owned();
        let mut file = File::create(self.path.join(FILLER)).failing(Code::Environment, filling)?;
        loop {
            match file.write_all(&BLOCK) {
                Ok(()) => {}
                Err(error) if error.kind() == std::io::ErrorKind::StorageFull => return Ok(()),
                Err(error) => return Err(Failure::new(Code::Environment, filling()).because(&error)),
            }
        }
    }

    /// Makes room again.
    pub(crate) fn clear(&self) -> Outcome {
        std::fs::remove_file(self.path.join(FILLER))
            .failing(Code::Environment, || "cannot make room on the small disk".into())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(self.holder.stdin.take());
        // Without its input it ends by itself; this one waits for nobody.
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_disk_fills_has_room_again_and_is_seen_by_nobody_else() {
        let dir = tempfile::tempdir().expect("a folder");
        let disk = match SmallDisk::mounted(dir.path(), 1 << 20) {
            Ok(disk) => disk,
            Err(why) => {
                eprintln!("skipped: {why:?}");
                return;
            }
        };
        let file = disk.path().join("kept");
        disk.fill().expect("filled");
        assert!(std::fs::write(&file, [1; 8_192]).is_err(), "there is room");
        disk.clear().expect("cleared");
        std::fs::write(&file, [1; 8_192]).expect("there is room again");
        assert_eq!(std::fs::read_dir(dir.path()).expect("a folder").count(), 0);
        drop(disk);
        assert!(!file.exists());
    }
}
