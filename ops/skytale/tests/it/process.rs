//! Runs the binary, away from the settings of the user who runs the tests.

use crate::schemas;
use serde_json::Value;
use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio};
use std::sync::{Mutex, PoisonError, mpsc};
use std::time::Duration;
use tempfile::TempDir;

/// Long enough for a slow machine; what takes longer hangs.
const WITHIN: Duration = Duration::from_secs(300);

/// A folder that is home and working folder of what runs in it.
pub(crate) struct Place {
    folder: TempDir,
    variables: Vec<(String, String)>,
}

impl Place {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        // As a home: secrets in it are out of others' reach.
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        std::fs::set_permissions(folder.path(), private).expect("set");
        Self {
            folder,
            variables: Vec::new(),
        }
    }

    /// With an environment variable for all that runs here from now on.
    pub(crate) fn set(&mut self, name: &str, value: impl Into<String>) {
        self.variables.push((name.into(), value.into()));
    }

    /// The environment variables that were set.
    pub(crate) fn variables(&self) -> &[(String, String)] {
        &self.variables
    }

    /// Without the environment variables that were set.
    pub(crate) fn unset_all(&mut self) {
        self.variables.clear();
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, contents: &str) -> PathBuf {
        std::fs::write(self.path(name), contents).expect("written");
        self.path(name)
    }

    pub(crate) fn command<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_skytale"));
        command
            .args(arguments)
            .current_dir(self.folder.path())
            .stdin(Stdio::null());
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("SKYTALE_") {
                command.env_remove(name);
            }
        }
        command
            .env("HOME", self.folder.path())
            .env_remove("XDG_CONFIG_HOME")
            .env_remove("XDG_DATA_HOME");
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs to the end.
    pub(crate) fn run<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Ran {
        Ran::to_the_end(self.command(arguments), None)
    }

    /// Runs to the end, with this on stdin.
    pub(crate) fn run_with<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>, stdin: &[u8]) -> Ran {
        Ran::to_the_end(self.command(arguments), Some(stdin))
    }

    /// Runs with `--json`, which must go well, and gives what it said.
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        let ran = self.run(std::iter::once(&"--json").chain(arguments));
        assert_eq!(ran.code, 0, "{arguments:?}: {}", ran.stderr);
        serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {}", ran.stdout))
    }
}

/// Ports that no system gives to a request for any port.
const PORTS: std::ops::Range<u16> = 10_000..32_000;

/// [`PORTS`], or this process's part of them: `TEST_PORTS=START-END`. Others that run beside it have other parts.
fn ports() -> std::ops::Range<u16> {
    let part = std::env::var("TEST_PORTS").ok();
    let part = part.as_deref().and_then(|part| part.split_once('-'));
    let part = part.and_then(|(start, end)| Some(start.parse().ok()?..end.parse().ok()?));
    part.filter(|part: &std::ops::Range<u16>| !part.is_empty())
        .unwrap_or(PORTS)
}

/// A port that nothing uses, by TCP or UDP, and that no other test of this process gets: a server may leave it and come back.
pub(crate) fn free_port() -> u16 {
    static NEXT: Mutex<Option<u16>> = Mutex::new(None);
    let mut next = NEXT.lock().unwrap_or_else(PoisonError::into_inner);
    let ports = ports();
    loop {
        let port = next.unwrap_or_else(|| {
            let mut random = [0; 2];
            getrandom::fill(&mut random).expect("random bytes");
            ports.start + u16::from_le_bytes(random) % (ports.end - ports.start)
        });
        *next = Some(if port + 1 < ports.end { port + 1 } else { ports.start });
        let any = (Ipv4Addr::UNSPECIFIED, port);
        if TcpListener::bind(any).is_ok() && UdpSocket::bind(any).is_ok() {
            return port;
        }
    }
}

fn words_of(command: &Command) -> Vec<String> {
    command
        .get_args()
        .map(|word| word.to_string_lossy().into_owned())
        .collect()
}

/// Result of a run.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    fn to_the_end(mut command: Command, stdin: Option<&[u8]>) -> Self {
        if stdin.is_some() {
            command.stdin(Stdio::piped());
        }
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("starts");
        if let (Some(bytes), Some(mut to)) = (stdin, child.stdin.take()) {
            // A command that refuses its line reads nothing.
            let _ = to.write_all(bytes);
        }
        let arguments = words_of(&command);
        let id = child.id();
        let (sender, ended) = mpsc::channel();
        std::thread::spawn(move || sender.send(child.wait_with_output()));
        match ended.recv_timeout(WITHIN) {
            Ok(output) => {
                let ran = Self::of(output.expect("output"));
                let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
                schemas::check_output(&arguments, &ran.stdout, &ran.stderr);
                ran
            }
            Err(_) => panic!("process {id} hangs: {command:?}"),
        }
    }

    fn of(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// The failure that it told as JSON.
    pub(crate) fn failure(&self) -> Value {
        let line = self.stderr.lines().last().unwrap_or_default();
        serde_json::from_str::<Value>(line).unwrap_or_else(|error| panic!("{error}: {}", self.stderr))["error"].clone()
    }
}

/// A server or follower that runs until it is asked to stop. Killed when dropped.
pub(crate) struct Running {
    child: Child,
    stdin: Option<ChildStdin>,
    arguments: Vec<String>,
    lines: BufReader<ChildStdout>,
    stderr: Option<PathBuf>,
}

impl Running {
    /// Starts; stderr goes to a file.
    pub(crate) fn start(mut command: Command, stderr: &Path) -> Self {
        let file = std::fs::File::create(stderr).expect("a file");
        let mut child = command.stdout(Stdio::piped()).stderr(file).spawn().expect("starts");
        let lines = BufReader::new(child.stdout.take().expect("piped"));
        Self {
            stdin: child.stdin.take(),
            child,
            arguments: words_of(&command),
            lines,
            stderr: Some(stderr.to_owned()),
        }
    }

    /// The same, with a stdin that stays open.
    pub(crate) fn start_with_stdin(mut command: Command, stderr: &Path) -> Self {
        command.stdin(Stdio::piped());
        Self::start(command, stderr)
    }

    /// Writes to its stdin.
    pub(crate) fn say(&mut self, text: &str) {
        let stdin = self.stdin.as_mut().expect("open");
        stdin
            .write_all(text.as_bytes())
            .and_then(|()| stdin.flush())
            .expect("written");
    }

    /// Ends its stdin, and gives its exit code and what else it said on stdout.
    pub(crate) fn hang_up(mut self) -> (i32, String) {
        drop(self.stdin.take());
        self.end()
    }

    /// Kills it.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("ended");
    }

    /// Waits until it has said this on stderr.
    pub(crate) fn wait_for_stderr(&mut self, text: &str) {
        let begun = std::time::Instant::now();
        while !self.stderr().contains(text) {
            assert!(begun.elapsed() < WITHIN, "never said `{text}`: {}", self.stderr());
            assert!(
                self.child.try_wait().expect("known").is_none(),
                "ended: {}",
                self.stderr()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The next line of stdout.
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        let watched = self.watched();
        self.lines.read_line(&mut line).expect("read");
        drop(watched);
        assert!(
            !line.is_empty(),
            "ended early, or was silent for too long: {}",
            self.stderr()
        );
        line
    }

    /// Kills it after a while, unless the result is dropped before: whoever reads from it does not hang.
    fn watched(&self) -> mpsc::Sender<()> {
        let (watched, ended) = mpsc::channel();
        let id = self.child.id().to_string();
        std::thread::spawn(move || {
            if ended.recv_timeout(WITHIN) == Err(mpsc::RecvTimeoutError::Timeout) {
                let _ = Command::new("kill").args(["-s", "KILL", &id]).status();
            }
        });
        watched
    }

    /// The next line of stdout, as JSON.
    pub(crate) fn json(&mut self) -> Value {
        let line = self.line();
        let arguments: Vec<&str> = self.arguments.iter().map(String::as_str).collect();
        schemas::check_output(&arguments, &line, "");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn stderr(&self) -> String {
        let path = self.stderr.as_ref().expect("a file");
        std::fs::read_to_string(path).unwrap_or_default()
    }

    /// Asks it to stop, and gives its exit code and what else it said on stdout.
    pub(crate) fn stop(mut self, signal: &str) -> (i32, String) {
        self.signal(signal);
        self.end()
    }

    /// The same, with the signal sent twice in a row.
    pub(crate) fn stop_twice(mut self, signal: &str) -> (i32, String) {
        let id = self.child.id().to_string();
        let sent = Command::new("kill").args(["-s", signal, &id, &id]).status();
        assert!(sent.expect("kill").success());
        self.end()
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: &str) {
        let sent = Command::new("kill")
            .args(["-s", signal, &self.child.id().to_string()])
            .status();
        assert!(sent.expect("kill").success());
    }

    /// Waits for its end. Gives its exit code, and what it printed since.
    pub(crate) fn end(&mut self) -> (i32, String) {
        let mut rest = String::new();
        let watched = self.watched();
        self.lines.read_to_string(&mut rest).expect("read");
        drop(watched);
        (self.child.wait().expect("ends").code().unwrap_or(-1), rest)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
