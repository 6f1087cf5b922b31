//! A node in a process of its own: this binary again. It says how far it is and what it acknowledged, and is stopped and
//! killed with the machine that it is said to be on.

use super::super::cluster::Account;
use super::load::{Acknowledged, Load};
use super::write_back::WriteBack;
use super::{Kind, say, word};
use skytale_log_store::fleet::FleetConfig;
use skytale_log_store::{FleetStore, LogStore as _};
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

const FOLDER: &str = "SKYTALE_TEST_CRASH_NODE";
const USER: &str = "SKYTALE_TEST_CRASH_USER";
const SERVERS: &str = "SKYTALE_TEST_CRASH_SERVERS";
const NODES: &str = "SKYTALE_TEST_CRASH_NODES";
const KIND: &str = "SKYTALE_TEST_CRASH_KIND";
/// Authors at the child itself.
const AUTHORS: usize = 2;
/// Waiting for longer is hanging.
const HANGING: Duration = Duration::from_secs(90);

/// Returns the child's settings, identity, and folder.
pub(super) fn told() -> Option<(Kind, Account, PathBuf)> {
    let folder = std::env::var_os(FOLDER)?;
    let kinds = [Kind::TwoShards, Kind::OneShard, Kind::Retention];
    let named = |kind: &Kind| format!("{kind:?}") == word(KIND);
    let kind = kinds.into_iter().find(named).expect("settings");
    let account = Account {
        user: word(USER),
        servers: word(SERVERS).split(',').map(str::to_owned).collect(),
        nodes_file: word(NODES).into(),
    };
    Some((kind, account, folder.into()))
}

/// The child.
pub(super) async fn go_on(config: FleetConfig) {
    // The machine writes back what it likes from the beginning.
    let _writes_back = WriteBack::start(&config.local.dir);
    let store = Arc::new(FleetStore::open(config).await.expect("the node opens"));
    say("open .");
    store.ready().await.expect("it catches up");
    say("ready .");
    let _load = Load::start_telling(&[&store], AUTHORS, Arc::new(|told: &Acknowledged| say(told.line())));
    let mut stopped = store.stopped();
    loop {
        let at: u64 = store.health().shards.iter().map(|shard| shard.position).sum();
        say(format_args!("at {at} ."));
        let stops = stopped.wait_for(Option::is_some);
        if let Ok(reason) = tokio::time::timeout(Duration::from_millis(20), stops).await {
            panic!("stopped: {:?}", *reason.expect("the store is there"));
        }
    }
}

/// The child's process, as its parent has it.
pub(super) struct NodeProcess {
    /// It kills the node when its input ends, and so with this process, however that ends.
    shell: Child,
    input: Option<ChildStdin>,
    pid: u32,
    told: PathBuf,
}

impl NodeProcess {
    /// Starts a node in a folder; what it says goes to a file.
    pub(super) fn start(kind: Kind, account: &Account, folder: &Path, said: PathBuf) -> Self {
        let script = "\"$0\" \"$@\" & node=$!; echo $node >&2; read -r _; kill -9 $node; wait $node";
        let mut shell = Command::new("sh")
            .args(["-c", script])
            .arg(std::env::current_exe().expect("this program"))
            .args(["--exact", "fleet::crash::child", "--nocapture"])
            .env(FOLDER, folder)
            .env(USER, &account.user)
            .env(SERVERS, account.servers.join(","))
            .env(NODES, &account.nodes_file)
            .env(KIND, format!("{kind:?}"))
            .stdin(Stdio::piped())
            .stdout(File::create(&said).expect("created"))
            .stderr(Stdio::piped())
            .spawn()
            .expect("a shell");
        let mut lines = BufReader::new(shell.stderr.take().expect("its output"));
        let mut line = String::new();
        lines.read_line(&mut line).expect("the node's id");
        // Complaints of the node.
        std::thread::spawn(move || {
            lines
                .lines()
                .map_while(Result::ok)
                .for_each(|line| say(format_args!("node: {line}")))
        });
        Self {
            input: shell.stdin.take(),
            shell,
            pid: line.trim().parse().expect("the node's id"),
            told: said,
        }
    }

    fn lines(&self) -> Vec<String> {
        let said = std::fs::read_to_string(&self.told).expect("read");
        said.lines().map(str::to_owned).collect()
    }

    /// Waits until it has caught up.
    pub(super) async fn ready(&self) {
        self.says("ready .").await;
    }

    /// Waits until it has opened its replica, empty ones with a checkpoint in them.
    pub(super) async fn opens(&self) {
        self.says("open .").await;
    }

    async fn says(&self, line: &str) {
        let begun = Instant::now();
        while !self.said(line) {
            assert!(
                begun.elapsed() < HANGING,
                "the node does not say `{line}`: {:?}",
                self.lines()
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub(super) fn is_ready(&self) -> bool {
        self.said("ready .")
    }

    fn said(&self, line: &str) -> bool {
        self.lines().iter().any(|said| said == line)
    }

    /// Returns the position that it reported: messages of all shards.
    pub(super) fn at(&self) -> u64 {
        let at = |line: &String| line.strip_prefix("at ")?.strip_suffix(" .")?.parse().ok();
        self.lines().iter().rev().find_map(at).unwrap_or_default()
    }

    /// Returns the frames that it acknowledged. The authors are one to the reader: each log has one.
    pub(super) fn acknowledged(&self) -> Vec<Acknowledged> {
        let lines = self.lines();
        lines.iter().filter_map(|line| Acknowledged::parse(line)).collect()
    }

    /// Stops it where it is.
    pub(super) fn stand_still(&self) {
        let status = Command::new("kill")
            .args(["-STOP", &self.pid.to_string()])
            .status()
            .expect("kill");
        assert!(status.success(), "the node is there");
    }

    /// Kills it.
    pub(super) fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        drop(self.input.take());
        let _ = self.shell.wait();
    }
}

impl Drop for NodeProcess {
    fn drop(&mut self) {
        self.end();
    }
}
