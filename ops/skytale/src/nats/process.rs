//! A NATS server as a process of this one, on loopback: it ends when this one does, however that ends.

use super::disk::SmallDisk;
use super::render::Rendered;
use crate::http;
use crate::local::{copy_folder, private_folder, replace_folder, write_private};
use crate::output::{Context as _, Failure, Outcome};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use skytale_proto::Code;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, ChildStdin, Command};

/// Folder in which a server on this machine keeps its streams, in its own.
pub(super) const STORE: &str = "data";
/// Maximum time for a server to move its leaders and clients to others before it ends.
const LEAVES_WITHIN: Duration = Duration::from_secs(60);
/// Maximum time for it to take up other accounts.
const RELOADS_WITHIN: Duration = Duration::from_secs(30);
/// Lines of a server's log that are shown when it fails.
const LAST_WORDS: usize = 10;
/// Runs the server, says which process it is, and ends when it does; kills it when the input ends.
const WRAPPER: &str = "exec 3<&0; \"$0\" -c nats-server.conf >>nats.log 2>&1 & server=$!; echo $server; \
                       { read -r _ <&3; kill -9 $server; } 2>/dev/null & reader=$!; \
                       wait $server; kill $reader 2>/dev/null";

/// A server.
#[derive(Debug)]
pub(crate) struct NatsServer {
    pub name: String,
    /// Its region's place in the list.
    pub region: usize,
    dir: PathBuf,
    monitor: SocketAddr,
    running: Option<Running>,
    /// Disk of its store, if that is not in its folder.
    disk: Option<SmallDisk>,
}

#[derive(Debug)]
struct Running {
    wrapper: Child,
    pid: Pid,
    /// While this is open, the server may run. Not the child's own any more, which is closed by waiting for it.
    _lifeline: Option<ChildStdin>,
}

impl NatsServer {
    /// Writes its files into a folder of its own. It does not run yet.
    pub(super) fn lay_out(dir: &Path, rendered: &Rendered, region: usize, monitor: u16) -> Outcome<Self> {
        let dir = dir.join(&rendered.name);
        private_folder(&dir)?;
        write_private(&dir.join("nats-server.conf"), rendered.server.as_bytes())?;
        write_private(&dir.join("accounts.conf"), rendered.accounts.as_bytes())?;
        Ok(Self {
            name: rendered.name.clone(),
            region,
            dir,
            monitor: SocketAddr::from(([127, 0, 0, 1], monitor)),
            running: None,
            disk: None,
        })
    }

    pub(super) const fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// Whether it was started and is no longer there, although nobody ended it.
    pub(super) fn is_gone(&self) -> bool {
        let gone = |running: &Running| test_kill_process(running.pid).is_err();
        self.running.as_ref().is_some_and(gone)
    }

    /// Returns the path of its log, over all its lives.
    pub(super) fn log(&self) -> PathBuf {
        self.dir.join("nats.log")
    }

    /// Starts it, again where it ran before: with its data.
    pub(super) async fn run(&mut self, program: &Path) -> Outcome {
        let starting = || format!("cannot start the NATS server {}", self.name);
        let mut command = Command::new("sh");
        command
            .args(["-c", WRAPPER])
            .arg(program)
            .current_dir(&self.dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            // Ctrl-C goes to the process that started the fleet, not past it.
            .process_group(0);
        let mut wrapper = command.spawn().failing(Code::Environment, starting)?;
        let mut line = String::new();
        if let Some(stdout) = wrapper.stdout.take() {
            let mut lines = BufReader::new(stdout);
            lines.read_line(&mut line).await.failing(Code::Environment, starting)?;
        }
        let pid = line.trim().parse().ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| Failure::new(Code::Environment, starting()))?;
        self.running = Some(Running {
            _lifeline: wrapper.stdin.take(),
            wrapper,
            pid,
        });
        Ok(())
    }

    /// SIGKILL.
    pub(super) async fn kill(&mut self) -> Outcome {
        self.signal(Signal::KILL)?;
        self.ended().await
    }

    /// Keeps a copy of its store while it does not run, in the place of the one before.
    pub(super) fn keep_copy(&self) -> Outcome {
        replace_folder(&self.copy(), &self.store())
    }

    /// Puts it in the place of its store.
    pub(super) fn put_copy_back(&self) -> Outcome {
        replace_folder(&self.store(), &self.copy())
    }

    /// Moves the store of a server that does not run to a disk that has so much room for more.
    pub(super) fn move_to_small_disk(&mut self, room: u64) -> Outcome {
        let (store, at) = (self.store(), self.dir.join("disk"));
        private_folder(&at)?;
        let disk = SmallDisk::mounted(&at, bytes_in(&store)? + room)?;
        let moved = disk.path().join(STORE);
        copy_folder(&store, &moved)?;
        let moving = || format!("cannot move {}", store.display());
        std::fs::remove_dir_all(&store).failing(Code::Environment, moving)?;
        std::os::unix::fs::symlink(&moved, &store).failing(Code::Environment, moving)?;
        self.disk = Some(disk);
        Ok(())
    }

    /// And back to its folder.
    pub(super) fn move_from_small_disk(&mut self) -> Outcome {
        let Some(disk) = self.disk.take() else { return Ok(()) };
        let store = self.store();
        let moving = || format!("cannot move {}", store.display());
        std::fs::remove_file(&store).failing(Code::Environment, moving)?;
        copy_folder(&disk.path().join(STORE), &store)
    }

    /// The small disk that its store is on.
    pub(super) fn small_disk(&self) -> Outcome<&SmallDisk> {
        let missing = || format!("the store of the NATS server {} is on no small disk", self.name);
        self.disk
            .as_ref()
            .ok_or_else(|| Failure::new(Code::Environment, missing()))
    }

    fn store(&self) -> PathBuf {
        self.dir.join(STORE)
    }

    fn copy(&self) -> PathBuf {
        self.dir.join("copy")
    }

    /// Lame duck mode: it hands its streams over to the others, sends its clients to them, and ends.
    pub(super) async fn leave(&mut self) -> Outcome {
        self.signal(Signal::USR2)?;
        match tokio::time::timeout(LEAVES_WITHIN, self.ended()).await {
            Ok(ended) => ended,
            Err(_) => {
                let what = format!("the NATS server {} does not end in lame duck mode", self.name);
                Err(self.failed(what))
            }
        }
    }

    async fn ended(&mut self) -> Outcome {
        let ending = || format!("cannot see the NATS server {} end", self.name);
        if let Some(running) = &mut self.running {
            running.wrapper.wait().await.failing(Code::Environment, ending)?;
        }
        self.running = None;
        Ok(())
    }

    pub(super) fn signal(&self, which: Signal) -> Outcome {
        let signalling = || format!("cannot signal the NATS server {}", self.name);
        match &self.running {
            Some(running) => kill_process(running.pid, which).failing(Code::Environment, signalling),
            None => Ok(()),
        }
    }

    /// Gives it other accounts, and has it take them up. Waits until it has.
    pub(super) async fn take_accounts(&self, accounts: &str) -> Outcome {
        write_private(&self.dir.join("accounts.conf"), accounts.as_bytes())?;
        if !self.is_running() {
            return Ok(());
        }
        let Some(before) = self.loaded().await else {
            return Err(self.failed(format!(
                "the NATS server {} does not say when it was configured",
                self.name
            )));
        };
        let begun = Instant::now();
        self.signal(Signal::HUP)?;
        while self.loaded().await.is_none_or(|now| now == before) {
            if begun.elapsed() > RELOADS_WITHIN {
                return Err(self.failed(format!("the NATS server {} does not take up its accounts", self.name)));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Returns the time at which it took up its configuration.
    async fn loaded(&self) -> Option<String> {
        Some(self.page("/varz").await?["config_load_time"].as_str()?.to_owned())
    }

    /// Whether it says that it is well: with its leaders, and its streams current.
    pub(super) async fn is_well(&self) -> bool {
        matches!(http::get(self.monitor, "/healthz").await, Ok((200, _)))
    }

    /// A page of its monitoring port, as JSON.
    pub(super) async fn page(&self, path: &str) -> Option<serde_json::Value> {
        let (status, text) = http::get(self.monitor, path).await.ok()?;
        (status == 200).then(|| serde_json::from_str(&text).ok()).flatten()
    }

    pub(super) fn failed(&self, what: String) -> Failure {
        let text = std::fs::read(self.log()).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let mut tail: Vec<&str> = text.lines().rev().take(LAST_WORDS).collect();
        tail.reverse();
        Failure::new(Code::Environment, what).help(format!(
            "Its last words ({}):\n{}",
            self.log().display(),
            tail.join("\n")
        ))
    }
}

/// Bytes of all files in a folder.
fn bytes_in(dir: &Path) -> Outcome<u64> {
    let reading = || format!("cannot read {}", dir.display());
    let mut bytes = 0;
    for entry in std::fs::read_dir(dir).failing(Code::Environment, reading)? {
        let entry = entry.failing(Code::Environment, reading)?;
        let metadata = entry.metadata().failing(Code::Environment, reading)?;
        bytes += if metadata.is_dir() {
            bytes_in(&entry.path())?
        } else {
            metadata.len()
        };
    }
    Ok(bytes)
}
