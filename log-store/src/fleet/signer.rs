//! Signers of checkpoints: this node's signing key, and the public keys of the fleet's nodes.
//!
//! ```text
//!   # fleet-nodes: one line a node, written by `skytale fleet nats`
//!   relay-eu-1 UAKL...
//!   relay-eu-2 UBQW...
//! ```
//!
//! A signing key is no key of a NATS connection: NATS keys change, and signatures must stay good. The servers' rights
//! prove no author either: anyone who may ask JetStream anything may have the answer sent to any subject.

use super::config::Secret;
use nkeys::KeyPair;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Bytes of the file of known nodes, at most.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Nodes that are known, at most.
const NODES_MAX: usize = 4_096;

/// Signs checkpoints for one node. Its seed is an NKey's, of a user.
#[derive(Clone, Debug)]
pub struct Signer {
    seed: Secret,
    public: String,
}

impl Signer {
    /// Makes it from the seed of an NKey; `None` if it is none.
    pub fn new(seed: &str) -> Option<Self> {
        let pair = KeyPair::from_seed(seed.trim()).ok()?;
        Some(Self {
            seed: Secret::new(seed.trim()),
            public: pair.public_key(),
        })
    }

    /// Its public key, as it is written in the file of known nodes.
    pub fn public(&self) -> &str {
        &self.public
    }

    /// Signs.
    pub(super) fn sign(&self, bytes: &[u8]) -> Result<[u8; 64], String> {
        let seed = zeroize::Zeroizing::new(self.seed.reveal());
        let pair = KeyPair::from_seed(&seed).map_err(|error| error.to_string())?;
        let signature = pair.sign(bytes).map_err(|error| error.to_string())?;
        signature
            .try_into()
            .map_err(|_| "a signature of another length".to_owned())
    }
}

/// Whether a signature is one by a public key.
pub(super) fn is_signed(public: &str, bytes: &[u8], signature: &[u8]) -> bool {
    KeyPair::from_public_key(public).is_ok_and(|pair| pair.verify(bytes, signature).is_ok())
}

/// The nodes of a fleet whose signatures count.
#[derive(Clone, Debug, Default)]
pub enum KnownNodes {
    /// None: no checkpoint can be believed.
    #[default]
    Nobody,
    /// Those in a file, which is read at each use: a node that is added is known without a restart.
    File(PathBuf),
}

/// Names of nodes by public key.
pub(super) type Names = BTreeMap<String, String>;

impl KnownNodes {
    /// Names of nodes by public key; an error names the problem of the file.
    pub(super) fn read(&self) -> Result<Names, String> {
        match self {
            Self::Nobody => Ok(Names::new()),
            Self::File(path) => read(path).map_err(|problem| format!("{}: {problem}", path.display())),
        }
    }

    /// Returns the problem in the file, if there is one.
    pub fn problem(&self) -> Option<String> {
        match self {
            Self::Nobody => None,
            Self::File(_) => match self.read() {
                Ok(names) if names.is_empty() => Some("the file of known nodes names none".into()),
                Ok(_) => None,
                Err(problem) => Some(problem),
            },
        }
    }

    /// Returns the number of named nodes.
    pub fn count(&self) -> usize {
        let names = self.read().unwrap_or_default();
        names.values().collect::<std::collections::BTreeSet<_>>().len()
    }
}

fn read(path: &Path) -> Result<Names, String> {
    let size = std::fs::metadata(path).map_err(|error| error.to_string())?.len();
    if size > FILE_BYTES_MAX {
        return Err(format!("it has {size} bytes, and {FILE_BYTES_MAX} are read at most"));
    }
    parse(&std::fs::read_to_string(path).map_err(|error| error.to_string())?)
}

/// Reads `NAME KEY` from each line. A node may have several keys; a key is one node's.
fn parse(text: &str) -> Result<Names, String> {
    let mut names = Names::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        let odd = || format!("line {number} is not as in `relay-eu-1 UAKL...`");
        let (name, key) = line.split_once(char::is_whitespace).ok_or_else(odd)?;
        let key = key.trim();
        if KeyPair::from_public_key(key).is_err() {
            return Err(odd());
        }
        match names.insert(key.to_owned(), name.to_owned()) {
            Some(other) if other != name => return Err(format!("line {number} names a key that is {other}'s")),
            _ => {}
        }
        if names.len() > NODES_MAX {
            return Err(format!("it names more than {NODES_MAX} nodes"));
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_known_by_their_keys_and_a_file_that_cannot_be_read_is_refused_whole() {
        let (one, two) = (KeyPair::new_user().public_key(), KeyPair::new_user().public_key());
        let names = parse(&format!("# the fleet\nrelay-1 {one}\n\n  relay-2\t{two} # new\n")).expect("nodes");
        assert_eq!(names.get(&one).map(String::as_str), Some("relay-1"));
        assert_eq!(names.get(&two).map(String::as_str), Some("relay-2"));
        assert!(
            parse(&format!("relay-1 {one}\nrelay-2 {one}")).is_err(),
            "one key, two nodes"
        );
        for odd in [
            "relay-1",
            "relay-1 UNOKEY",
            "relay-1 SUAIBDPBAUTWCWBKIO6XHQNINK5FWJW4OHLXC3HQ2KFE4PEJUA44CNHTC4",
        ] {
            assert!(parse(&format!("relay-2 {two}\n{odd}")).is_err(), "{odd}");
        }
        assert_eq!(KnownNodes::Nobody.read(), Ok(Names::new()));
        assert!(KnownNodes::File("/nowhere/fleet-nodes".into()).problem().is_some());
    }

    #[test]
    fn a_signature_is_of_one_key_and_one_text() {
        let pair = KeyPair::new_user();
        let signer = Signer::new(&pair.seed().expect("a seed")).expect("a signer");
        let signature = signer.sign(b"state").expect("signed");
        assert!(is_signed(signer.public(), b"state", &signature));
        assert!(!is_signed(signer.public(), b"other", &signature));
        assert!(!is_signed(&KeyPair::new_user().public_key(), b"state", &signature));
        assert!(Signer::new("SUNOSEED").is_none());
    }
}
