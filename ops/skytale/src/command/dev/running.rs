//! Another node that runs already: named, with the flag that starts a second one beside it.

use crate::listener;
use crate::output::{Context as _, Failure, Outcome};
use serde::{Deserialize, Serialize};
use skytale_proto::Code;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// The file in the data folder that the running node has locked.
const FILE: &str = "dev.lock";
/// Way to start a second node.
const SECOND: &str = "For another node beside it: `skytale dev --any-port --dir OTHER`.";

/// The data folder, for this process alone.
#[derive(Debug)]
pub(super) struct Held(File);

/// Contents of the file about the node.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Node {
    process: u32,
    api_url: Option<String>,
}

impl Held {
    /// Takes a folder, unless a node runs in it.
    pub(super) fn take(dir: &Path) -> Outcome<Self> {
        let path = dir.join(FILE);
        let locking = || format!("cannot lock {}", path.display());
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let mut file = file.open(&path).failing(Code::Environment, locking)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                // It may be starting, and have said nothing yet.
                let _ = file.read_to_string(&mut text);
                return Err(runs(dir, &serde_json::from_str(&text).unwrap_or_default()));
            }
            Err(TryLockError::Error(error)) => return Err(error).failing(Code::Environment, locking),
        }
        let mut held = Self(file);
        held.say(None).failing(Code::Environment, locking)?;
        Ok(held)
    }

    /// Says where the node is.
    pub(super) fn say(&mut self, api_url: Option<&str>) -> std::io::Result<()> {
        let node = Node {
            process: std::process::id(),
            api_url: api_url.map(str::to_owned),
        };
        self.0.set_len(0)?;
        self.0.rewind()?;
        self.0.write_all(serde_json::to_string(&node)?.as_bytes())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // Closing the file is not enough: a process that is just being started has it, too.
        let _ = self.0.unlock();
    }
}

fn runs(dir: &Path, node: &Node) -> Failure {
    let process = match node.process {
        0 => String::new(),
        process => format!(" (process {process})"),
    };
    let what = format!("a node runs in {} already{process}", dir.display());
    let failure = Failure::new(Code::Environment, what);
    match &node.api_url {
        Some(url) => {
            // As it is to be pasted into any terminal.
            let key = std::path::absolute(dir.join("api-key")).unwrap_or_else(|_| dir.join("api-key"));
            failure.help(format!(
                "Use it: export SKYTALE_API_URL={url} SKYTALE_API_KEY=file:{}\n{SECOND}",
                key.display()
            ))
        }
        None => failure.help(SECOND),
    }
}

/// An address that a node is to listen on.
pub(super) struct Wanted {
    /// Owner of the address, in words.
    pub(super) of: &'static str,
    /// The option that names another one.
    pub(super) option: &'static str,
    pub(super) listen: SocketAddr,
    pub(super) is_udp: bool,
}

/// Refuses addresses that are taken, all at once, with the processes that listen there.
pub(super) fn refuse_taken(wanted: &[Wanted]) -> Outcome {
    let is_taken = |wanted: &&Wanted| listener::is_taken(wanted.listen, wanted.is_udp);
    let taken: Vec<&Wanted> = wanted.iter().filter(is_taken).collect();
    let Some(first) = taken.first() else { return Ok(()) };
    let mut failure = match &taken[..] {
        [one] => Failure::new(Code::Environment, format!("{} ({}) is taken", one.listen, one.of)),
        several => Failure::new(Code::Environment, format!("{} addresses are taken", several.len())),
    };
    let mut holders = Vec::new();
    for wanted in &taken {
        let holder = listener::on(wanted.listen);
        if taken.len() > 1 {
            failure = failure.since(format!("{} ({})", wanted.listen, wanted.of));
        }
        holders.extend(holder.filter(|holder| !holders.contains(holder)));
    }
    for holder in &holders {
        failure = failure.since(format!("{holder} listens there"));
    }
    Err(failure.help(format!(
        "If a node runs already, use it: it printed two lines to copy. For another node beside it: `skytale dev --any-port --dir \
         OTHER`, or name other addresses ({}).",
        match taken.len() {
            1 => first.option.to_owned(),
            _ => taken.iter().map(|wanted| wanted.option).collect::<Vec<_>>().join(", "),
        }
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_was_let_go_is_free_although_a_process_that_is_being_started_has_its_file_open() {
        let dir = tempfile::tempdir().expect("a folder");
        let held = Held::take(dir.path()).expect("free");
        let _of_the_other = held.0.try_clone().expect("cloned");
        assert!(Held::take(dir.path()).is_err());
        drop(held);
        Held::take(dir.path()).expect("free again");
    }
}
