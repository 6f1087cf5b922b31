//! An agent in its own process: this binary again. It reports its actions and results, and is stopped and killed with
//! its simulated machine.

use super::write_back::WriteBack;
use super::{random_ms, say};
use crate::agent::world::{Mint, SEED, agent_config};
use skytale_proto::{ChannelId, EndpointId};
use skytale_sdk::{Agent, Relay, VaultKey, restore};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The vault's file.
const AGENT: &str = "SKYTALE_TEST_CRASH_AGENT";
/// Its [`Role`].
const ROLE: &str = "SKYTALE_TEST_CRASH_ROLE";
const CHANNEL: &str = "SKYTALE_TEST_CRASH_CHANNEL";
/// `ENDPOINT@ADDRESS`.
const RELAY: &str = "SKYTALE_TEST_CRASH_RELAY";
/// Prefix of its messages.
const PREFIX: &str = "SKYTALE_TEST_CRASH_PREFIX";
/// The backup that it makes, or restores.
const FILE: &str = "SKYTALE_TEST_CRASH_FILE";
/// Time after which a wait counts as hanging.
const HANGING: Duration = Duration::from_secs(60);

/// Task of the child until it is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Works with a relay node, sends without end, and acknowledges what it receives.
    Talk,
    /// Queues messages without a session.
    Queue,
    /// Queues messages without a session, and makes backups without end.
    BackUp,
    /// Restores a backup.
    Restore,
}

/// Parameters of the child.
#[derive(Clone)]
pub(super) struct Told {
    pub(super) vault: PathBuf,
    pub(super) channel: ChannelId,
    pub(super) relay: Relay,
    pub(super) file: PathBuf,
}

pub(super) fn vault_key() -> VaultKey {
    VaultKey::raw([9; 32])
}

// ---- in the child

pub(super) fn child() {
    let Some(vault) = std::env::var_os(AGENT) else { return };
    let word = |name: &str| std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set"));
    let relay = word(RELAY);
    let (endpoint, address) = relay.split_once('@').expect("id@address");
    let told = Told {
        vault: vault.into(),
        channel: word(CHANNEL).parse().expect("a channel id"),
        relay: Relay::new(
            endpoint.parse::<EndpointId>().expect("an endpoint id"),
            vec![address.parse().expect("an address")],
        ),
        file: word(FILE).into(),
    };
    // The machine writes back arbitrary pages from the start.
    let _writes_back = WriteBack::start(told.vault.parent().expect("a folder"));
    let roles = [Role::Talk, Role::Queue, Role::BackUp, Role::Restore];
    let role = roles.into_iter().find(|role| format!("{role:?}") == word(ROLE));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        match role.expect("a role") {
            Role::Talk => talk(told, word(PREFIX)).await,
            Role::Queue => queue(told, word(PREFIX), false).await,
            Role::BackUp => queue(told, word(PREFIX), true).await,
            Role::Restore => {
                say("begin .");
                let done = restore(&told.file, &told.vault, &vault_key(), true).expect("restored");
                say(format_args!(
                    "done {} .",
                    done.replaced.expect("there was one").display()
                ));
                std::future::pending::<()>().await;
            }
        }
    });
}

async fn talk(told: Told, prefix: String) {
    let config = agent_config(told.vault, Mint::new(SEED).provider(), told.relay);
    let agent = Agent::open(config).await.expect("opened");
    say("open .");
    agent.connect().await.expect("a socket");
    let channel = agent.channel(told.channel).await.expect("in the vault");
    let mut messages = channel.messages();
    tokio::spawn(async move {
        loop {
            let message = messages.next().await.expect("a message");
            message.ack().await.expect("acknowledged");
            say(format_args!("acked {} .", message.offset));
        }
    });
    for number in 0.. {
        let sent = channel.send(format!("{prefix} {number}")).await.expect("queued");
        let id = sent.frame_id();
        say(format_args!("queued {id} ."));
        tokio::spawn(async move {
            let delivered = sent.delivered().await.expect("delivered");
            say(format_args!(
                "delivered {id} {} .",
                delivered.offset().expect("a place")
            ));
        });
        tokio::time::sleep(random_ms(2, 40)).await;
    }
}

async fn queue(told: Told, prefix: String, back_up: bool) {
    let config = agent_config(told.vault, Mint::new(SEED).provider(), told.relay);
    let agent = Agent::open(config).await.expect("opened");
    say("open .");
    let channel = agent.channel(told.channel).await.expect("in the vault");
    for number in 0.. {
        // Some fill pages of their own.
        let text = format!("{prefix} {number} {}", ".".repeat(number % 5 * 2_000));
        let sent = channel.send(text).await.expect("queued");
        say(format_args!("queued {} .", sent.frame_id()));
        if back_up {
            agent.backup(&told.file, true).await.expect("made");
            say("made .");
        } else {
            tokio::time::sleep(random_ms(0, 10)).await;
        }
    }
}

// ---- in the parent

/// The child's process, as its parent has it.
pub(super) struct AgentProcess {
    child: Child,
    started: Instant,
    said: PathBuf,
    complained: PathBuf,
}

impl AgentProcess {
    /// Starts it; its output goes to files in a folder that does not crash.
    pub(super) fn start(role: Role, told: &Told, prefix: &str, outside: &Path) -> Self {
        let (said, complained) = (outside.join("said"), outside.join("complained"));
        let relay = format!("{}@{}", told.relay.endpoint, told.relay.addresses[0]);
        let child = Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", "os_crash_child", "--nocapture"])
            .env(AGENT, &told.vault)
            .env(ROLE, format!("{role:?}"))
            .env(CHANNEL, told.channel.to_string())
            .env(RELAY, relay)
            .env(PREFIX, prefix)
            .env(FILE, &told.file)
            .env_remove(super::SCENARIOS)
            .stdin(Stdio::null())
            .stdout(File::create(&said).expect("created"))
            .stderr(File::create(&complained).expect("created"))
            .spawn()
            .expect("a process");
        Self {
            child,
            started: Instant::now(),
            said,
            complained,
        }
    }

    /// Returns its output, line by line. A truncated line has no dot at its end, and promises nothing.
    fn lines(&self) -> Vec<String> {
        let said = std::fs::read_to_string(&self.said).expect("read");
        let whole = said.lines().filter_map(|line| line.strip_suffix(" ."));
        whole.map(str::to_owned).collect()
    }

    /// Waits until it has printed this many lines with a prefix.
    pub(super) async fn says(&self, begins: &str, times: usize) {
        let begun = Instant::now();
        while self.lines().iter().filter(|line| line.starts_with(begins)).count() < times {
            assert!(
                begun.elapsed() < HANGING,
                "it does not say `{begins}`: {}",
                self.complaint()
            );
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Measures the time from its start until it has printed this many lines with a prefix.
    pub(super) async fn takes_ms(&self, begins: &str, times: usize) -> u64 {
        self.says(begins, times).await;
        u64::try_from(self.started.elapsed().as_millis()).expect("short")
    }

    /// Stops it where it is.
    pub(super) fn stand_still(&self) {
        let stopped = Command::new("kill")
            .args(["-STOP", &self.child.id().to_string()])
            .status();
        assert!(stopped.expect("kill").success(), "it is there");
    }

    /// Kills it, and returns its output. It must have reported no errors.
    pub(super) fn kill(mut self) -> Vec<String> {
        self.child.kill().expect("killed");
        let status = self.child.wait().expect("ended");
        let signal = std::os::unix::process::ExitStatusExt::signal(&status);
        assert_eq!(signal, Some(9), "it ended by itself: {}", self.complaint());
        assert!(!self.complaint().contains("panicked"), "{}", self.complaint());
        self.lines()
    }

    fn complaint(&self) -> String {
        std::fs::read_to_string(&self.complained).unwrap_or_default()
    }
}

impl Drop for AgentProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
