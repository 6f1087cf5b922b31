//! Figures of a process from the kernel, of this one or another.

use anyhow::Context as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Ticks of `/proc/<pid>/stat` in a second: the same on every Linux.
const TICKS_PER_SECOND: u64 = 100;

/// A process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    proc: PathBuf,
}

/// Its memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Resident now, in KiB.
    pub resident_kib: u64,
    /// The most that was resident since the process began, or since [`Process::forget_peak`], in KiB.
    pub peak_kib: u64,
}

impl Process {
    /// This one.
    pub fn this() -> Self {
        Self {
            proc: "/proc/self".into(),
        }
    }

    /// The one with an id.
    pub fn of(pid: u32) -> Self {
        Self {
            proc: format!("/proc/{pid}").into(),
        }
    }

    /// The one whose id is in a file.
    pub fn from_pid_file(path: &Path) -> anyhow::Result<Self> {
        Ok(Self::of(fs::read_to_string(path)?.trim().parse()?))
    }

    /// Processor time of all its threads since it began, those that ended included.
    pub fn cpu(&self) -> anyhow::Result<Duration> {
        // Fields 14 and 15: user and system.
        Ok(ticks(self.stat(14)? + self.stat(15)?))
    }

    /// How many times a thread of it that still runs gave its processor up to wait for something.
    pub fn waits(&self) -> anyhow::Result<u64> {
        let mut sum = 0;
        for task in fs::read_dir(self.proc.join("task"))? {
            // A thread that has just ended waits no more.
            let Ok(status) = fs::read_to_string(task?.path().join("status")) else {
                continue;
            };
            let line = status
                .lines()
                .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
            sum += line.context("a thread's switches")?.trim().parse::<u64>()?;
        }
        Ok(sum)
    }

    /// Processor time with that of all its children, those that it has waited for included.
    pub fn cpu_with_children(&self) -> anyhow::Result<Duration> {
        let mut sum = self.cpu()? + ticks(self.stat(16)? + self.stat(17)?);
        let own = self.stat(1)?;
        for entry in fs::read_dir("/proc")? {
            let entry = entry?;
            if entry
                .file_name()
                .to_string_lossy()
                .starts_with(|first: char| first.is_ascii_digit())
            {
                let child = Self { proc: entry.path() };
                // One that has just ended has nothing to tell here: its parent has.
                if child.stat(4).is_ok_and(|parent| parent == own) {
                    sum += child.cpu_with_children().unwrap_or_default();
                }
            }
        }
        Ok(sum)
    }

    /// Whether it is there, and has not ended.
    pub fn is_running(&self) -> bool {
        let stat = fs::read_to_string(self.proc.join("stat")).unwrap_or_default();
        stat.rsplit_once(')')
            .is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
    }

    /// A number of `/proc/<pid>/stat`, which counts its fields from 1.
    fn stat(&self, field: usize) -> anyhow::Result<u64> {
        let stat = fs::read_to_string(self.proc.join("stat"))?;
        // The part before may hold spaces: the program's name, in parentheses.
        let (pid, rest) = stat.rsplit_once(')').context("a program's name")?;
        let value = match field {
            1 => pid.split_whitespace().next(),
            _ => rest.split_whitespace().nth(field.saturating_sub(3)),
        };
        Ok(value.context("a field")?.parse()?)
    }

    /// Its memory.
    pub fn memory(&self) -> anyhow::Result<Memory> {
        let status = fs::read_to_string(self.proc.join("status"))?;
        let value = |name: &str| -> anyhow::Result<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
            Ok(kib.with_context(|| format!("{name} of the process"))?.trim().parse()?)
        };
        Ok(Memory {
            resident_kib: value("VmRSS:")?,
            peak_kib: value("VmHWM:")?,
        })
    }

    /// Resets the peak.
    pub fn forget_peak(&self) -> anyhow::Result<()> {
        Ok(fs::write(self.proc.join("clear_refs"), "5")?)
    }
}

/// UDP datagrams that this system has received so far. Those that were received as one count as one.
pub fn datagrams() -> anyhow::Result<u64> {
    let text = fs::read_to_string("/proc/net/snmp")?;
    // The first of the two lines names the values of the second.
    let values = text.lines().filter_map(|line| line.strip_prefix("Udp: ")).nth(1);
    let received = values.and_then(|values| values.split(' ').next());
    Ok(received.context("the figures of UDP")?.parse()?)
}

fn ticks(count: u64) -> Duration {
    Duration::from_millis(count * 1_000 / TICKS_PER_SECOND)
}

/// Bytes of all files under a folder, as many as the file system has set aside for them.
pub fn disk_bytes(folder: &Path) -> anyhow::Result<u64> {
    use std::os::unix::fs::MetadataExt as _;
    let mut bytes = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        // A file that goes away meanwhile takes no room.
        let Ok(metadata) = entry.metadata() else { continue };
        bytes += if metadata.is_dir() {
            disk_bytes(&entry.path())?
        } else {
            metadata.blocks() * 512
        };
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_knows_its_memory_and_its_time() {
        let this = Process::this();
        let held = vec![1u8; 32 * 1024 * 1024];
        let memory = this.memory().unwrap();
        assert!(memory.resident_kib >= 32 * 1024 && memory.peak_kib >= memory.resident_kib);
        assert!(held.iter().all(|byte| *byte == 1));
        let before = this.cpu().unwrap();
        let mut value = 1u64;
        while this.cpu().unwrap() == before {
            value = std::hint::black_box(value.wrapping_mul(3));
        }
    }

    #[test]
    fn a_process_counts_the_time_of_its_children() {
        let this = Process::this();
        let before = this.cpu_with_children().unwrap();
        let work = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; echo; cat >/dev/null";
        let mut child = std::process::Command::new("sh")
            .args(["-c", work])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = child.stdout.take().unwrap();
        std::io::Read::read_exact(&mut output, &mut [0]).unwrap();
        let spent = Process::of(child.id());
        let of_child = spent.cpu().unwrap();
        assert!(this.cpu_with_children().unwrap() >= before + of_child);
        assert!(of_child > Duration::ZERO && spent.is_running());
        drop(child.stdin.take());
        child.wait().unwrap();
        assert!(this.cpu_with_children().unwrap() >= before + of_child);
        assert!(!spent.is_running());
    }

    #[test]
    fn a_folder_takes_as_much_disk_as_its_files() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("inner")).unwrap();
        let written = vec![7; 100_000];
        let path = folder.path().join("inner").join("file");
        fs::write(&path, &written).unwrap();
        fs::File::open(&path).unwrap().sync_all().unwrap();
        let bytes = disk_bytes(folder.path()).unwrap();
        assert!((100_000..200_000).contains(&bytes), "{bytes}");
    }
}
