//! Small disks and read-only ones, where this user may mount.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A file system on a folder. Unmounted when dropped.
pub(crate) struct Disk(PathBuf);

impl Disk {
    /// A tmpfs. `None`, with a reason printed, where this user may not mount.
    pub(crate) fn small(at: PathBuf, mib: u32) -> Option<Self> {
        std::fs::create_dir(&at).unwrap();
        let options = format!("size={mib}m,mode=700");
        mount([
            OsStr::new("-t"),
            "tmpfs".as_ref(),
            "-o".as_ref(),
            options.as_ref(),
            "tmpfs".as_ref(),
            at.as_ref(),
        ])
        .then_some(Self(at))
    }

    /// A folder once more, read-only.
    pub(crate) fn read_only(of: &Path, at: PathBuf) -> Option<Self> {
        std::fs::create_dir(&at).unwrap();
        if !mount([OsStr::new("--bind"), of.as_ref(), at.as_ref()]) {
            return None;
        }
        let disk = Self(at);
        mount([OsStr::new("-o"), "remount,bind,ro".as_ref(), disk.0.as_ref()]).then_some(disk)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Leaves no room.
    pub(crate) fn fill(&self) {
        let mut file = File::create(self.0.join("filler")).unwrap();
        while file.write_all(&[0; 4_096]).is_ok() {}
    }

    /// Makes room again.
    pub(crate) fn clear(&self) {
        std::fs::remove_file(self.0.join("filler")).unwrap();
    }
}

fn mount<'a>(arguments: impl IntoIterator<Item = &'a OsStr>) -> bool {
    match Command::new("mount").args(arguments).output() {
        Ok(output) if output.status.success() => true,
        Ok(output) => {
            eprintln!("skipped: no mount: {}", String::from_utf8_lossy(&output.stderr).trim());
            false
        }
        Err(error) => {
            eprintln!("skipped: no mount: {error}");
            false
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
