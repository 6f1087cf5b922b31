//! A peer's server: a program in a folder of its own, on a free port. It ends with this process.

use crate::process::Process;
use anyhow::{Context as _, bail};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Maximum time for a server to answer for the first time.
pub(super) const STARTS_WITHIN: Duration = Duration::from_secs(60);
/// Pause between two tries to reach it.
pub(super) const TRY_EVERY: Duration = Duration::from_millis(50);

/// Ports that no system gives to a request for any port: so nothing takes them between here and a server's start.
const PORTS: std::ops::Range<u16> = 10_000..32_000;

/// A program that is not installed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{program} is not installed; {help}")]
pub struct Absent {
    /// The server.
    pub program: &'static str,
    /// Way to get it.
    pub help: &'static str,
}

/// Runs a program until standard input, which is a pipe from here, is closed: so it ends however this process does. Then removes its
/// folder.
const RUN: &str = r#"
signal=$1 folder=$PWD
shift
"$@" >log 2>&1 &
server=$!
echo $server
cat >/dev/null
kill -s "$signal" $server
wait $server
cd /
rm -rf "$folder"
"#;

/// A server that runs.
#[derive(Debug)]
pub struct Server {
    shell: Child,
    /// Its end is the server's.
    input: Option<ChildStdin>,
    pid: u32,
    folder: Folder,
}

/// A folder for a server, removed with it.
#[derive(Debug)]
pub(super) struct Folder {
    dir: TempDir,
    /// User that runs the server, if that is another one.
    owner: Option<Owner>,
}

/// A user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Owner {
    uid: u32,
    gid: u32,
}

impl Folder {
    /// For a server that runs as this user.
    pub(super) fn new(parent: &Path) -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new().prefix("skytale-peer-").tempdir_in(parent)?;
        Ok(Self { dir, owner: None })
    }

    /// For a server that refuses to run as root: owned by one of these users, or else nobody, if this process is root's. A user may
    /// not reach the parent; then another place on the same disk is taken.
    pub(super) fn for_user(parent: &Path, name: &str) -> anyhow::Result<Self> {
        if fs::metadata("/proc/self")?.uid() != 0 {
            return Self::new(parent);
        }
        let owner = user(name)?
            .or(user("nobody")?)
            .context("no user to run the server as")?;
        let disk = fs::metadata(parent)?.dev();
        for parent in [parent, Path::new("/var/tmp"), Path::new("/tmp")] {
            if fs::metadata(parent)?.dev() != disk {
                continue;
            }
            let mut folder = Self::new(parent)?;
            chown(folder.path(), Some(owner.uid), Some(owner.gid))?;
            folder.owner = Some(owner);
            let is_reached = folder.command("test").arg("-w").arg(folder.path()).status()?;
            if is_reached.success() {
                return Ok(folder);
            }
        }
        bail!("{name} can reach no folder on the disk of {}", parent.display())
    }

    pub(super) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// A command as the user who runs the server, in its folder.
    pub(super) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = match self.owner {
            Some(Owner { uid, gid }) => {
                let mut command = Command::new("setpriv");
                command
                    .args([format!("--reuid={uid}"), format!("--regid={gid}")])
                    .arg("--clear-groups")
                    .arg(program);
                command
            }
            None => Command::new(program),
        };
        command.current_dir(self.path());
        command
    }
}

fn user(name: &str) -> anyhow::Result<Option<Owner>> {
    let users = fs::read_to_string("/etc/passwd")?;
    let Some(line) = users.lines().find(|line| line.split(':').next() == Some(name)) else {
        return Ok(None);
    };
    let mut ids = line.split(':').skip(2).map(str::parse);
    let mut next = || anyhow::Ok(ids.next().context("an id")??);
    Ok(Some(Owner {
        uid: next()?,
        gid: next()?,
    }))
}

impl Server {
    /// Starts a program in its folder, ended by a signal (`INT`, `TERM`).
    pub(super) fn start(folder: Folder, program: &Path, arguments: &[OsString], signal: &str) -> anyhow::Result<Self> {
        let mut shell = folder
            .command("sh")
            .args(["-c", RUN, "sh", signal])
            .arg(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let input = shell.stdin.take();
        let mut line = String::new();
        BufReader::new(shell.stdout.take().context("a pipe")?).read_line(&mut line)?;
        let pid = line.trim().parse().context("the server's id")?;
        Ok(Self {
            shell,
            input,
            pid,
            folder,
        })
    }

    /// Returns the kernel's figures of it.
    pub fn process(&self) -> Process {
        Process::of(self.pid)
    }

    /// Tries until a connection is up.
    pub(super) async fn reach<T, E: std::fmt::Display>(
        &self,
        mut connect: impl AsyncFnMut() -> Result<T, E>,
    ) -> anyhow::Result<T> {
        let until = Instant::now() + STARTS_WITHIN;
        loop {
            let error = match connect().await {
                Ok(connected) => return Ok(connected),
                Err(error) => error,
            };
            if Instant::now() > until || !self.process().is_running() {
                let log = fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
                bail!("the server does not answer: {error}\n{log}");
            }
            tokio::time::sleep(TRY_EVERY).await;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.input.take());
        // Its folder goes next.
        let _ = self.shell.wait();
    }
}

/// A program, named by a variable, in one of some folders, or on the path.
pub(super) fn program(variable: &str, name: &str, folders: &[PathBuf]) -> Option<PathBuf> {
    if let Some(named) = std::env::var_os(variable).filter(|named| !named.is_empty()) {
        return Some(named.into());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = folders.iter().cloned().chain(std::env::split_paths(&path));
    folders
        .map(|folder| folder.join(name))
        .find(|program| program.is_file())
}

/// A port on loopback that was free a moment ago.
pub(super) fn free_port() -> anyhow::Result<u16> {
    loop {
        let mut random = [0; 2];
        getrandom::fill(&mut random).map_err(|error| anyhow::anyhow!("no random bytes: {error}"))?;
        let port = PORTS.start + u16::from_le_bytes(random) % (PORTS.end - PORTS.start);
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
}
