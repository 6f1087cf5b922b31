//! A NATS server as a process of this one, on loopback: it ends when this one does, however that ends.

use super::render::Rendered;
use crate::http;
use crate::local::{private_folder, replace_folder, write_private};
use crate::output::{Context as _, Failure, Outcome};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use skytale_proto::Code;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, ChildStdin, Command};

/// Where a server on this machine keeps its streams, in its folder.
pub(super) const STORE: &str = "data";
/// How long a server may take to move its leaders and clients to others before it ends.
const LEAVES_WITHIN: Duration = Duration::from_secs(60);
/// Lines of a server's log that are told when it fails.
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

    /// What it logged, over all its lives.
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
            // Ctrl-C goes to whoever started the fleet, not past it.
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

    /// Keeps a copy of what it stored while it does not run, in the place of the one before.
    pub(super) fn keep_copy(&self) -> Outcome {
        replace_folder(&self.copy(), &self.store())
    }

    /// Puts it in the place of what it stored.
    pub(super) fn put_copy_back(&self) -> Outcome {
        replace_folder(&self.store(), &self.copy())
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
