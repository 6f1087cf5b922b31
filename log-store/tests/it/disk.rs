//! File systems that can be full: tmpfs, which only root may mount.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// A file system of its own, in memory.
pub(crate) struct Disk {
    at: PathBuf,
    /// Mount point, if nobody else made it.
    folder: Option<TempDir>,
}

impl Disk {
    /// `None`, with a reason printed, where this user may not mount.
    pub(crate) fn mounted(mib: u32) -> Option<Self> {
        let folder = TempDir::new().expect("a folder");
        let mut disk = Self::mounted_at(folder.path(), mib)?;
        disk.folder = Some(folder);
        Some(disk)
    }

    /// Over a folder, which it hides.
    pub(crate) fn mounted_at(at: &Path, mib: u32) -> Option<Self> {
        fs::create_dir_all(at).expect("a folder");
        let options = format!("size={mib}m");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
            .arg(at)
            .output();
        match mounted {
            Ok(output) if output.status.success() => Some(Self {
                at: at.to_owned(),
                folder: None,
            }),
            Ok(output) => {
                eprintln!("skipped: no tmpfs: {}", String::from_utf8_lossy(&output.stderr).trim());
                None
            }
            Err(error) => {
                eprintln!("skipped: no tmpfs: {error}");
                None
            }
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.at
    }

    pub(crate) fn grow(&self, mib: u32) {
        let options = format!("remount,size={mib}m");
        let grown = Command::new("mount").args(["-o", &options]).arg(self.path()).status();
        assert!(grown.expect("mount").success());
    }

    /// Takes every byte that is left.
    pub(crate) fn take_all(&self) -> PathBuf {
        let path = self.path().join("others");
        let mut file = File::create(&path).expect("a file");
        let chunk = [7; 4_096];
        while file.write_all(&chunk).is_ok() {}
        path
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}
