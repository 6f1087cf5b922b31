//! One stock client in its process.

use parking_lot::Mutex;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

/// Both sides of a SLIM identity know it.
pub(crate) const SECRET: &str = "a-shared-secret-of-more-than-32-characters";

pub(crate) struct Agent {
    child: Child,
    input: ChildStdin,
    events: Arc<Mutex<Vec<serde_json::Value>>>,
    label: String,
}

/// Script of a process: one of `tests/slim`, and the virtual environment with its packages.
#[derive(Clone, Copy)]
pub(crate) enum Script {
    /// Sessions.
    Agent,
    /// SLIMRPC.
    Rpc,
    /// A2A by `slima2a`.
    A2a,
}

impl Script {
    const fn file(self) -> &'static str {
        match self {
            Self::Agent => "agent.py",
            Self::Rpc => "rpc.py",
            Self::A2a => "a2a_echo.py",
        }
    }

    fn python(self) -> PathBuf {
        match self {
            Self::Agent | Self::Rpc => python("SKYTALE_SLIM_PYTHON", "slim-3.3.8"),
            Self::A2a => python("SKYTALE_SLIMA2A_PYTHON", "slima2a-0.9.3"),
        }
    }
}

/// The Python of a virtual environment that `ops/test/run` makes.
fn python(variable: &str, folder: &str) -> PathBuf {
    if let Some(python) = std::env::var_os(variable) {
        return python.into();
    }
    let cache = std::env::var_os("SKYTALE_TEST_CACHE").map_or_else(
        || PathBuf::from(std::env::var_os("HOME").expect("a home")).join(".cache/skytale-test"),
        PathBuf::from,
    );
    let python = cache.join(folder).join("bin/python");
    assert!(
        python.exists(),
        "{} is missing: `ops/test/run test` installs it, or set {variable}",
        python.display()
    );
    python
}

/// Runs a script of `tests/slim` to its end; gives its output.
pub(crate) fn run(script: &str, arguments: &[&str]) -> String {
    let path = format!("{}/tests/slim/{script}", env!("CARGO_MANIFEST_DIR"));
    let output = Command::new(Script::Agent.python())
        .arg("-B")
        .arg(path)
        .args(arguments)
        .output()
        .expect("python runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{script}: {}", text(&output.stderr));
    text(&output.stdout)
}

impl Agent {
    pub(crate) fn spawn(label: &str) -> Self {
        Self::spawn_script(Script::Agent, label)
    }

    pub(crate) fn spawn_script(script: Script, label: &str) -> Self {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/slim");
        let mut command = Command::new(script.python());
        // Python writes no compiled files beside the scripts.
        command.arg("-B").arg(format!("{folder}/{}", script.file()));
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        if std::env::var_os("SLIM_LOG").is_none() {
            command.stderr(Stdio::null());
        }
        let mut child = command.spawn().expect("python runs");
        let input = child.stdin.take().expect("piped");
        let output = BufReader::new(child.stdout.take().expect("piped"));
        let events = Arc::new(Mutex::new(Vec::new()));
        let (to, name, show) = (
            Arc::clone(&events),
            label.to_owned(),
            std::env::var_os("SLIM_LOG").is_some(),
        );
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if show {
                    eprintln!("[{name}] {line}");
                }
                if let Ok(event) = serde_json::from_str(&line) {
                    to.lock().push(event);
                }
            }
        });
        Self {
            child,
            input,
            events,
            label: label.into(),
        }
    }

    /// One that is connected and listens for sessions.
    pub(crate) async fn start(endpoint: &str, name: &str, state: Option<&str>) -> Self {
        Self::start_with(endpoint, name, state, serde_json::json!({})).await
    }

    pub(crate) async fn start_with(endpoint: &str, name: &str, state: Option<&str>, more: serde_json::Value) -> Self {
        Self::start_script(Script::Agent, endpoint, name, state, more).await
    }

    pub(crate) async fn start_script(
        script: Script,
        endpoint: &str,
        name: &str,
        state: Option<&str>,
        more: serde_json::Value,
    ) -> Self {
        let mut agent = Self::spawn_script(script, name);
        let mut command = serde_json::json!({
            "do": "start", "endpoint": endpoint, "own": format!("org/ns/{name}"), "secret": SECRET, "state": state,
        });
        for (key, value) in more.as_object().expect("an object") {
            command[key] = value.clone();
        }
        agent.tell(command);
        agent.wait("started").await;
        agent
    }

    pub(crate) fn tell(&mut self, command: serde_json::Value) {
        writeln!(self.input, "{command}").expect("it runs");
    }

    fn count(&self, event: &str) -> usize {
        self.events.lock().iter().filter(|e| e["event"] == event).count()
    }

    /// Waits for the first event of a kind.
    pub(crate) async fn wait(&self, event: &str) -> serde_json::Value {
        self.wait_nth(event, 1).await
    }

    /// Waits for the nth event of a kind.
    pub(crate) async fn wait_nth(&self, event: &str, nth: usize) -> serde_json::Value {
        for _ in 0..1_200 {
            let failed = self.events.lock().iter().find(|e| e["event"] == "error").cloned();
            if self.count(event) >= nth {
                break;
            }
            if let Some(failed) = failed {
                panic!("{}: {failed}, waiting for {event}", self.label);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let events = self.events.lock();
        let found = events.iter().filter(|e| e["event"] == event).nth(nth - 1);
        found
            .unwrap_or_else(|| panic!("{}: no {event} within 120 s; last: {:?}", self.label, events.last()))
            .clone()
    }

    /// Runs a command, and waits for the event that says it is done.
    pub(crate) async fn done(&mut self, command: serde_json::Value, event: &str) {
        let nth = self.count(event) + 1;
        self.tell(command);
        self.wait_nth(event, nth).await;
    }

    /// The same, where it may take so long and then be tried in another way; whether it was done.
    pub(crate) async fn done_within(&mut self, command: serde_json::Value, event: &str, within: Duration) -> bool {
        self.tell(command);
        tokio::time::timeout(within, self.wait(event)).await.is_ok()
    }

    /// The payloads that came, in order.
    pub(crate) fn messages(&self) -> Vec<String> {
        self.texts("message", "payload")
    }

    /// A text of each event of a kind.
    pub(crate) fn texts(&self, event: &str, key: &str) -> Vec<String> {
        self.events
            .lock()
            .iter()
            .filter(|e| e["event"] == event)
            .map(|e| e[key].as_str().expect("text").to_owned())
            .collect()
    }

    pub(crate) async fn received(&self, count: usize) -> Vec<String> {
        super::super::world::until(&format!("{}: {count} messages", self.label), || {
            self.messages().len() >= count
        })
        .await;
        self.messages()
    }

    /// SIGKILL.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("gone");
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
