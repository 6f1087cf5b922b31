//! A disk whose power can be cut.

use super::IN_FLIGHT;
use super::agent_process::AgentProcess;
use std::path::{Path, PathBuf};
use std::process::Command;

/// See `ops/test/crash-disk`, which does all of it.
pub(super) struct Disk {
    program: String,
    folder: PathBuf,
    outside: PathBuf,
}

impl Disk {
    pub(super) fn from_environment() -> Self {
        let word = |name: &str| {
            let name = format!("SKYTALE_TEST_CRASH_{name}");
            std::env::var(&name).unwrap_or_else(|_| panic!("{name} is not set"))
        };
        Self {
            program: word("DISK"),
            folder: word("FOLDER").into(),
            outside: word("OUTSIDE").into(),
        }
    }

    /// Returns its mount point.
    pub(super) fn live(&self) -> PathBuf {
        self.folder.join("live")
    }

    /// Returns a folder on another disk.
    pub(super) fn outside(&self) -> &Path {
        &self.outside
    }

    /// Crashes the machine with the agent's process: the disk keeps only durable data. Returns the agent's output.
    pub(super) fn crash(&self, agent: AgentProcess) -> Vec<String> {
        agent.stand_still();
        std::thread::sleep(IN_FLIGHT);
        self.act("copy");
        let said = agent.kill();
        self.act("cut");
        said
    }

    fn act(&self, action: &str) {
        let done = Command::new(&self.program).arg(action).arg(&self.folder).status();
        assert!(done.expect("the program").success(), "the disk does not {action}");
    }
}
