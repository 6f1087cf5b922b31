//! Last beliefs, in a file: so that a node that restarts while the API is away knows keys and revocations.
//!
//! The file is a line with a MAC, then JSON. The MAC's key is made of the relay secret, which is not in the data folder, and
//! covers this node's endpoint, the API's URL, issuer and audience: an attacker who can write the folder alone can put no key
//! of his own in, and another node's file does not pass. He can put an older file of this node back. It says when the API
//! gave its contents, and is worth no more than if the node had run without the API since then.

use ring::hmac;
use serde::{Deserialize, Serialize};
use skytale_proto::rest::Jwks;
use skytale_proto::{AgentId, EndpointId, KeyId};
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

const FILE: &str = "trust";
const CONTEXT: &[u8] = b"skytale relay trust file 1";
/// Maximum bytes of the file: some 700,000 revocations.
const BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Kept beliefs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Kept {
    pub(super) keys: Jwks,
    /// Time at which the API gave the keys, unix milliseconds by this node's clock.
    pub(super) keys_heard_ms: u64,
    /// Time at which it gave revocations.
    pub(super) revocations_heard_ms: u64,
    /// API keys revoked, with when (unix seconds).
    pub(super) revoked: Vec<(KeyId, u64)>,
    /// Agents ended, with when.
    pub(super) ended: Vec<(AgentId, u64)>,
}

/// Path of the file, and the key that proves it.
pub(crate) struct Keeper {
    path: PathBuf,
    key: hmac::Key,
    bound_to: Vec<u8>,
}

/// Owner of a file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KeptFor<'a> {
    pub(crate) endpoint: &'a EndpointId,
    pub(crate) api_url: &'a str,
    pub(crate) issuer: &'a str,
    pub(crate) audience: &'a str,
}

impl Keeper {
    pub(super) fn new(folder: &Path, secret: &str, kept_for: KeptFor<'_>) -> Self {
        let root = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
        let mut bound_to = kept_for.endpoint.as_bytes().to_vec();
        for text in [kept_for.api_url, kept_for.issuer, kept_for.audience] {
            bound_to.extend_from_slice(&(text.len() as u64).to_be_bytes());
            bound_to.extend_from_slice(text.as_bytes());
        }
        Self {
            path: folder.join(FILE),
            key: hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&root, CONTEXT).as_ref()),
            bound_to,
        }
    }

    /// Reads the last beliefs; `None` if nothing was kept. An error is a file that is not this node's, or not as it was
    /// written.
    pub(super) fn read(&self) -> io::Result<Option<Kept>> {
        let mut bytes = Vec::new();
        match File::open(&self.path) {
            Ok(file) => file.take(BYTES_MAX + 1).read_to_end(&mut bytes)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let invalid = |problem: &str| io::Error::new(io::ErrorKind::InvalidData, problem.to_owned());
        if bytes.len() as u64 > BYTES_MAX {
            return Err(invalid("it is over 64 MiB: longer than this node writes it"));
        }
        let end = bytes.iter().position(|byte| *byte == b'\n');
        let (mac, json) = end
            .and_then(|end| bytes.split_at_checked(end))
            .ok_or_else(|| invalid("no MAC"))?;
        let json = json.strip_prefix(b"\n").unwrap_or(json);
        let mac = data_encoding::HEXLOWER.decode(mac).map_err(|_| invalid("no MAC"))?;
        hmac::verify(&self.key, &self.covered(json), &mac)
            .map_err(|_| invalid("it was not written by this node with this relay secret and this API"))?;
        Ok(Some(serde_json::from_slice(json)?))
    }

    /// Puts it in the place of the last one, durably: it is there whole or not at all. What would be longer than what is read
    /// takes the last one away: revocations that are in none of the two would be forgotten by a restart.
    pub(super) fn write(&self, kept: &Kept) -> io::Result<()> {
        self.write_up_to(BYTES_MAX, kept)
    }

    fn write_up_to(&self, bytes_max: u64, kept: &Kept) -> io::Result<()> {
        let json = serde_json::to_vec(kept)?;
        let mac = hmac::sign(&self.key, &self.covered(&json));
        let bytes = 2 * mac.as_ref().len() as u64 + 1 + json.len() as u64;
        if bytes > bytes_max {
            self.remove()?;
            let revocations = kept.revoked.len() + kept.ended.len();
            let why = format!(
                "{revocations} revocations are {bytes} bytes, over {bytes_max}: without the API a restart serves nobody"
            );
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, why));
        }
        let fresh = self.path.with_extension("new");
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&fresh)?;
        file.write_all(data_encoding::HEXLOWER.encode(mac.as_ref()).as_bytes())?;
        file.write_all(b"\n")?;
        file.write_all(&json)?;
        file.sync_all()?;
        std::fs::rename(&fresh, &self.path)?;
        self.sync_folder()
    }

    /// After this no older file comes back.
    fn sync_folder(&self) -> io::Result<()> {
        match self.path.parent() {
            Some(folder) => File::open(folder)?.sync_all(),
            None => Ok(()),
        }
    }

    /// Takes it away: the API lets this node serve nobody.
    pub(super) fn remove(&self) -> io::Result<()> {
        match std::fs::remove_file(&self.path) {
            Ok(()) => self.sync_folder(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn covered(&self, json: &[u8]) -> Vec<u8> {
        [&self.bound_to, json].concat()
    }
}

impl std::fmt::Debug for Keeper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keeper")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: EndpointId = EndpointId::from_bytes([1; 32]);
    const FOR: KeptFor<'_> = KeptFor {
        endpoint: &HERE,
        api_url: "https://api.test",
        issuer: "https://api.test",
        audience: "relays",
    };

    fn kept() -> Kept {
        Kept {
            keys: Jwks { keys: Vec::new() },
            keys_heard_ms: 1,
            revocations_heard_ms: 2,
            revoked: vec![(KeyId::from_bytes([3; 16]), 4)],
            ended: vec![(AgentId::from_bytes([5; 32]), 6)],
        }
    }

    #[test]
    fn what_is_kept_is_read_as_it_was_and_gone_when_it_is_taken_away() {
        let folder = tempfile::tempdir().expect("a folder");
        let keeper = Keeper::new(folder.path(), "secret", FOR);
        assert_eq!(keeper.read().expect("no file"), None);
        keeper.write(&kept()).expect("written");
        keeper.write(&kept()).expect("written over it");
        assert_eq!(keeper.read().expect("read"), Some(kept()));
        keeper.remove().expect("removed");
        keeper.remove().expect("nothing to remove");
        assert_eq!(keeper.read().expect("no file"), None);
    }

    #[test]
    fn what_would_be_too_long_to_read_is_not_kept_and_neither_is_what_was_before() {
        let folder = tempfile::tempdir().expect("a folder");
        let keeper = Keeper::new(folder.path(), "secret", FOR);
        keeper.write(&kept()).expect("written");
        let bytes = std::fs::metadata(folder.path().join(FILE)).expect("the file").len();
        keeper.write_up_to(bytes, &kept()).expect("it fits");
        let refused = keeper.write_up_to(bytes - 1, &kept()).expect_err("too long");
        assert_eq!(refused.kind(), io::ErrorKind::FileTooLarge);
        assert_eq!(keeper.read().expect("no file"), None);
        // And one that is too long is not read to its end.
        let file = File::create(folder.path().join(FILE)).expect("made");
        file.set_len(4 * BYTES_MAX).expect("sparse");
        let refused = keeper.read().expect_err("too long");
        assert!(refused.to_string().contains("64 MiB"), "{refused}");
    }

    #[test]
    fn no_other_byte_no_other_node_and_no_other_api_is_believed() {
        let folder = tempfile::tempdir().expect("a folder");
        let keeper = Keeper::new(folder.path(), "secret", FOR);
        keeper.write(&kept()).expect("written");
        let bytes = std::fs::read(folder.path().join(FILE)).expect("the file");
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            std::fs::write(folder.path().join(FILE), &changed).expect("written");
            assert!(keeper.read().is_err(), "byte {at}");
        }
        for end in 0..bytes.len() {
            std::fs::write(folder.path().join(FILE), &bytes[..end]).expect("written");
            assert!(keeper.read().is_err(), "cut at {end}");
        }
        std::fs::write(folder.path().join(FILE), &bytes).expect("written");
        assert!(keeper.read().is_ok());
        let there = EndpointId::from_bytes([2; 32]);
        for (secret, other) in [
            ("other", FOR),
            (
                "secret",
                KeptFor {
                    endpoint: &there,
                    ..FOR
                },
            ),
            (
                "secret",
                KeptFor {
                    api_url: "https://other.test",
                    ..FOR
                },
            ),
            (
                "secret",
                KeptFor {
                    issuer: "https://api.testr",
                    audience: "elays",
                    ..FOR
                },
            ),
        ] {
            assert!(Keeper::new(folder.path(), secret, other).read().is_err(), "{other:?}");
        }
    }
}
