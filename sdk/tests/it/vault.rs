//! One process at a time has a vault open, tested with processes.

use skytale_proto::Code;
use skytale_sdk::internals::engine::Engine;
use skytale_sdk::{EngineConfig, EngineError, VaultKey};
use std::io::{BufRead as _, BufReader, Lines, Read as _, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

const VAULT: &str = "SKYTALE_LOCK_VAULT";
/// Prefix of the child's output, among the lines of the test harness.
const SAYS: &str = "vault child: ";

fn open(path: &Path) -> Result<Engine, EngineError> {
    Engine::open(path, VaultKey::raw([3; 32]), EngineConfig::default())
}

/// Runs the other process: it tries to open the vault, prints the result, and keeps it open until its standard input
/// ends.
pub(crate) fn child() {
    let Some(path) = std::env::var_os(VAULT) else { return };
    let opened = open(Path::new(&path));
    let said = match &opened {
        Ok(engine) => engine.agent_id().to_string(),
        Err(error) => error.code().to_string(),
    };
    let mut stdout = std::io::stdout();
    write!(stdout, "\n{SAYS}{said}\n")
        .and_then(|()| stdout.flush())
        .expect("said");
    if opened.is_ok() {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
    }
}

/// A process of its own. Killed when dropped.
struct Other {
    child: Child,
    said: String,
    /// Open as long as it runs: it says more.
    lines: Lines<BufReader<ChildStdout>>,
}

impl Other {
    fn start(vault: &Path) -> Self {
        let mut child = Command::new(std::env::current_exe().expect("this binary"))
            .args(["lock_child", "--exact", "--test-threads=1", "--nocapture"])
            .env(VAULT, vault)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("a process");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let said = lines
            .by_ref()
            .map(|line| line.expect("text"))
            .find_map(|line| line.strip_prefix(SAYS).map(str::to_owned))
            .expect("it says what came of it");
        Self { child, said, lines }
    }

    fn kill(mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("ended");
    }

    /// As a process that ends in order.
    fn end(mut self) {
        drop(self.child.stdin.take());
        while self.lines.next().is_some() {}
        assert!(self.child.wait().expect("ended").success());
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_vault_that_another_process_has_open_is_refused_until_that_one_ends_however_it_does() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("vault.db");
    for killed in [false, true] {
        let other = Other::start(&path);
        for _ in 0..2 {
            let error = open(&path).expect_err("in use");
            assert_eq!(error.code(), Code::VaultInUse);
            assert!(error.is_retryable());
            assert!(error.to_string().contains("another process"), "{error}");
        }
        let id = other.said.clone();
        if killed {
            other.kill();
        } else {
            other.end();
        }
        // What it left of its lock is no obstacle, and the vault is as it was.
        let mut engine = open(&path).expect("free");
        assert_eq!(engine.agent_id().to_string(), id);
        engine.create_channel("mine").expect("made");

        // And the other way round.
        let other = Other::start(&path);
        assert_eq!(other.said, Code::VaultInUse.to_string());
        other.end();
        engine.create_channel("still mine").expect("made");
    }
    assert_eq!(open(&path).expect("free").channels().expect("listed").len(), 4);
}

#[test]
fn a_process_that_an_application_starts_does_not_keep_its_vault() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("vault.db");
    let engine = open(&path).expect("opens");
    let mut started = Command::new("sleep").arg("600").spawn().expect("a process");
    drop(engine);
    let again = open(&path).map(drop);
    started.kill().expect("killed");
    started.wait().expect("ended");
    again.expect("its lock is not inherited");
}
