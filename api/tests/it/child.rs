//! An API in a process of its own: this test binary again, told to serve.

use crate::database::Database;
use crate::harness::{Client, config};
use skytale_api::Api;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const DATABASE: &str = "SKYTALE_TEST_SERVE_DATABASE";
const HASHES_WAITING: &str = "SKYTALE_TEST_SERVE_HASHES_WAITING";
const LISTENING: &str = "LISTENING ";

/// An API process. Killed when dropped.
pub(crate) struct Process {
    pub client: Client,
    /// All that it logged, at TRACE.
    pub log: PathBuf,
    child: Child,
}

impl Process {
    pub(crate) async fn start(database: &Database, hashes_waiting: usize) -> Self {
        let log = database.folder().join(format!("log-{}", uuid::Uuid::now_v7()));
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child::serves", "--nocapture", "--test-threads=1"])
            .env(DATABASE, &database.url)
            .env(HASHES_WAITING, hashes_waiting.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let listening = tokio::task::spawn_blocking(move || {
            let mut lines = stdout.lines().map_while(Result::ok);
            let line = lines.find_map(|line| line.split_once(LISTENING).map(|(_, address)| address.to_owned()));
            // Later lines are read too: a full pipe would stop the process.
            std::thread::spawn(move || lines.for_each(drop));
            line
        });
        let address = listening.await.unwrap();
        let text = || std::fs::read_to_string(&log).unwrap_or_default();
        let address = address.unwrap_or_else(|| panic!("the API does not serve:\n{}", text()));
        Self {
            client: Client::new(format!("http://{address}")),
            log,
            child,
        }
    }

    /// `SIGKILL`: it gets to do nothing more.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Lets it stop by itself.
    pub(crate) fn stop(mut self) {
        drop(self.child.stdin.take());
        assert!(self.child.wait().unwrap().success());
    }

    /// The most memory that it had, in KiB.
    pub(crate) fn peak_kib(&self) -> u64 {
        let status = std::fs::read_to_string(Path::new("/proc").join(self.child.id().to_string()).join("status"));
        let status = status.unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
        line.split_ascii_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Work of the child. Among the tests of the parent it has nothing to do.
#[test]
fn serves() {
    let Ok(url) = std::env::var(DATABASE) else { return };
    let waiting = std::env::var(HASHES_WAITING).unwrap().parse().unwrap();
    tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let mut config = config(&Database::at(url));
        config.limits.hashes_waiting_max = waiting;
        let api = Api::start(config).await.unwrap();
        println!("{LISTENING}{}", api.local_addr());
        let stopped = tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()));
        stopped.await.unwrap().unwrap();
        tokio::time::timeout(Duration::from_secs(60), api.shutdown())
            .await
            .unwrap();
    });
}
