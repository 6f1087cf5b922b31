//! The relay node of a demonstration: this binary again, as a process of its own, so that it can be killed.

use super::clock::WrongClock;
use crate::local::{AUDIENCE, LocalApi, private_folder, write_private};
use crate::nats::free_port;
use crate::output::{Context as _, Failure, Outcome};
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use skytale_proto::{Code, EndpointId};
use std::fs::File;
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;

/// Maximum time until it listens.
const LISTENS_WITHIN: Duration = Duration::from_secs(60);
/// Maximum time for it to stop when it is asked to.
const STOPS_WITHIN: Duration = Duration::from_secs(30);

/// A relay node that runs.
#[derive(Debug)]
pub(crate) struct RelayProcess {
    program: PathBuf,
    dir: PathBuf,
    settings: toml::Table,
    /// The clock that it goes by, where that is wrong.
    clock: Option<WrongClock>,
    child: Child,
    endpoint: EndpointId,
    address: SocketAddr,
    admin: Option<SocketAddr>,
    standing: watch::Sender<Standing>,
}

/// State of a process now: both fields change when it is started again.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Standing {
    /// Its metrics, if it has them.
    pub admin: Option<SocketAddr>,
    pub process: Option<u32>,
}

/// Output of `skytale --json relay` when it listens.
#[derive(Debug, Deserialize)]
struct Listening {
    endpoint: EndpointId,
    addresses: Vec<SocketAddr>,
    admin: Option<SocketAddr>,
}

/// Settings of a relay node that a demonstration starts.
pub(crate) fn settings(api: &LocalApi) -> toml::Table {
    let mut settings = toml::toml! {
        disk_free_bytes_min = 0
        [admin]
        enabled = false
        // Agents notice that a relay node was killed by its silence, within twice this.
        [session]
        keepalive_ms = 1_000
        // The demonstration shows the speed of the whole, not the limits of one agent.
        [limits]
        frames_per_second = 1_000_000
        bytes_per_second = 2_000_000_000
        commits_per_minute = 1_000_000
        // All of its agents are of one account, which may have half of them.
        connections_max = 20_000
    };
    let texts = [
        ("api_url", api.url.clone()),
        ("issuer", api.issuer.clone()),
        ("audience", AUDIENCE.to_owned()),
        ("relay_secret", api.relay_secret().to_owned()),
    ];
    settings.extend(texts.map(|(key, text)| (key.to_owned(), toml::Value::String(text))));
    settings
}

impl RelayProcess {
    /// Starts one on a free port, with its data in `dir`.
    pub(crate) async fn start(dir: &Path, settings: toml::Table) -> Outcome<Self> {
        let program = std::env::current_exe().failing(Code::Environment, || "cannot start the relay node".into())?;
        Self::start_program(program, dir, settings).await
    }

    /// The same with another program, which must be a `skytale`.
    pub(crate) async fn start_program(program: PathBuf, dir: &Path, mut settings: toml::Table) -> Outcome<Self> {
        private_folder(dir)?;
        let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
        // It must be free again when the node is started again, so it is none that the system gives to anybody.
        let https = SocketAddr::from(([127, 0, 0, 1], free_port()?));
        let https = toml::Table::from_iter([("listen".to_owned(), toml::Value::String(https.to_string()))]);
        settings.insert("https".into(), toml::Value::Table(https));
        settings.insert("data_dir".into(), toml::Value::String(dir.display().to_string()));
        let (child, listening) = spawn(&program, dir, &settings, any_port, None).await?;
        let address = listening.addresses.first().copied().unwrap_or(any_port);
        let standing = watch::Sender::new(Standing {
            admin: listening.admin,
            process: child.id(),
        });
        Ok(Self {
            standing,
            program,
            dir: dir.to_owned(),
            settings,
            clock: None,
            child,
            endpoint: listening.endpoint,
            address,
            admin: listening.admin,
        })
    }

    /// Returns the address of its metrics, if it has them.
    pub(crate) const fn admin(&self) -> Option<SocketAddr> {
        self.admin
    }

    /// Watches its state, also after it was started again.
    pub(crate) fn standing(&self) -> watch::Receiver<Standing> {
        self.standing.subscribe()
    }

    pub(crate) const fn endpoint(&self) -> EndpointId {
        self.endpoint
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id().unwrap_or_default()
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// SIGSTOP: it is there and says nothing.
    pub(crate) fn freeze(&self) -> Outcome {
        self.signal(Signal::STOP)
    }

    /// SIGCONT.
    pub(crate) fn thaw(&self) -> Outcome {
        self.signal(Signal::CONT)
    }

    fn signal(&self, which: Signal) -> Outcome {
        let pid = self.child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        let signalling = || "cannot signal a relay node".to_owned();
        match pid {
            Some(pid) => kill_process(pid, which).failing(Code::Environment, signalling),
            None => Err(Failure::new(Code::Environment, signalling()).since("it has ended")),
        }
    }

    /// Asks it to stop, as for a new version, and waits until it has: its agents go elsewhere first.
    pub(crate) async fn drain(&mut self) -> Outcome {
        drop(self.child.stdin.take());
        match tokio::time::timeout(STOPS_WITHIN, self.child.wait()).await {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => Err(self.failed("the relay node did not stop in order").since(words(status))),
            Ok(Err(error)) => Err(self.failed("cannot see the relay node stop").because(&error)),
            Err(_) => Err(self.failed(&format!(
                "the relay node did not stop within {} s",
                STOPS_WITHIN.as_secs()
            ))),
        }
    }

    /// Returns the failure in words, if it has ended by itself or was killed by somebody else.
    pub(crate) fn ended(&mut self) -> Option<Failure> {
        let status = self.child.try_wait().ok().flatten()?;
        Some(self.failed("the relay node has ended").since(words(status)))
    }

    /// SIGKILL: no goodbye, no flush.
    pub(crate) async fn kill(&mut self) -> Outcome {
        self.child
            .kill()
            .await
            .failing(Code::Environment, || "cannot kill the relay node".into())
    }

    /// The clock that it goes by when it is started again; the machine's own without one.
    pub(crate) fn set_clock(&mut self, clock: Option<WrongClock>) {
        self.clock = clock;
    }

    /// Starts it again on the same data and the same port.
    pub(crate) async fn restart(&mut self) -> Outcome {
        let (child, listening) = spawn(
            &self.program,
            &self.dir,
            &self.settings,
            self.address,
            self.clock.as_ref(),
        )
        .await?;
        self.standing.send_replace(Standing {
            admin: listening.admin,
            process: child.id(),
        });
        self.child = child;
        self.admin = listening.admin;
        if listening.endpoint == self.endpoint {
            Ok(())
        } else {
            Err(Failure::new(Code::Mismatch, "the relay node came back as another one"))
        }
    }

    /// Asks it to stop by closing its stdin. One that was killed has stopped; one that was frozen goes on first.
    pub(crate) async fn stop(mut self) -> Outcome {
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return Ok(());
        }
        self.thaw()?;
        self.drain().await
    }

    fn failed(&self, what: &str) -> Failure {
        Failure::new(Code::Environment, what).help(log_tail(&self.dir))
    }
}

async fn spawn(
    program: &Path,
    dir: &Path,
    settings: &toml::Table,
    listen: SocketAddr,
    clock: Option<&WrongClock>,
) -> Outcome<(Child, Listening)> {
    let starting = || "cannot start the relay node".to_owned();
    let mut relay = settings.clone();
    relay.insert("listen".into(), toml::Value::String(listen.to_string()));
    let file = dir.join("relay.toml");
    // It holds the relay node's secret.
    write_private(
        &file,
        toml::Table::from_iter([("relay".to_owned(), toml::Value::Table(relay))])
            .to_string()
            .as_bytes(),
    )?;
    let log = File::options()
        .create(true)
        .append(true)
        .open(log_file(dir))
        .failing(Code::Environment, starting)?;
    let mut command = Command::new(program);
    command
        .args(["--json", "--config"])
        .arg(&file)
        .args(["relay", "--until-stdin-ends"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(log)
        .kill_on_drop(true);
    // Ctrl-C goes to the process that runs the demonstration, not past it: it ends the relay node by itself.
    command.process_group(0);
    // The settings of this process are not that one's; its log filter is.
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        if name.starts_with("SKYTALE_") && name != "SKYTALE_LOG" {
            command.env_remove(name);
        }
    }
    if let Some(clock) = clock {
        clock.set(&mut command);
    }
    let mut child = command.spawn().failing(Code::Environment, starting)?;
    let mut line = String::new();
    if let Some(stdout) = child.stdout.take() {
        let mut lines = BufReader::new(stdout);
        let read = tokio::time::timeout(LISTENS_WITHIN, lines.read_line(&mut line)).await;
        read.failing(Code::Environment, starting)?
            .failing(Code::Environment, starting)?;
    }
    let listening = serde_json::from_str(&line).map_err(|error| {
        Failure::new(Code::Environment, starting())
            .because(&error)
            .help(log_tail(dir))
    })?;
    Ok((child, listening))
}

/// Describes the end of a process.
fn words(status: ExitStatus) -> String {
    match (status.signal(), status.code()) {
        (Some(signal), _) => match Signal::from_named_raw(signal) {
            Some(Signal::KILL) => "it was killed (SIGKILL): by somebody, or by the system for lack of memory".into(),
            Some(Signal::TERM) => "it was ended by SIGTERM".into(),
            _ => format!("it was ended by signal {signal}"),
        },
        (None, Some(code)) => format!("it ended with exit code {code}"),
        (None, None) => "it ended, and nobody knows how".into(),
    }
}

fn log_file(dir: &Path) -> PathBuf {
    dir.join("relay.log")
}

/// The last lines that the relay node logged.
fn log_tail(dir: &Path) -> String {
    let text = std::fs::read_to_string(log_file(dir)).unwrap_or_default();
    let lines: Vec<_> = text.lines().rev().take(10).collect();
    let tail: Vec<_> = lines.into_iter().rev().collect();
    format!("Its last words ({}):\n{}", log_file(dir).display(), tail.join("\n"))
}
