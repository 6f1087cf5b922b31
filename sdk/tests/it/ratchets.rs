//! Searches what agents have encrypted for a ratchet key that was used twice.
//!
//! A message's encrypted sender data (RFC 9420 section 6.3.2) has its leaf and the generation of its ratchet. It is
//! read here with the sender data secret of the epoch, from a copy of a member's vault. So this finds a key that was
//! used twice even if nobody read the messages, and even if the log refused one of them.

use ciborium::Value;
use openmls::prelude::{Ciphersuite, OpenMlsProvider as _};
use openmls_rust_crypto::OpenMlsRustCrypto;
use openmls_traits::crypto::OpenMlsCrypto as _;
use prost::Message as _;
use rusqlite::{Connection, OpenFlags};
use skytale_proto::wire::Bundle;
use skytale_proto::{AgentId, Frame, Kind};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

const SUITE: Ciphersuite = Ciphersuite::MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519;
/// First bytes of the keys of a group's values in the vault.
const TREE: u8 = 6;
const MESSAGE_SECRETS: u8 = 18;
/// `wire_format` of a PrivateMessage.
const PRIVATE_MESSAGE: u16 = 2;
/// `content_type` of an application message. The others take keys of the handshake ratchet.
const APPLICATION: u8 = 1;

/// A group's id and its epoch.
type Group = (Vec<u8>, u64);

/// One key of a ratchet.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct RatchetKey {
    group: Group,
    leaf: u32,
    is_application: bool,
    generation: u32,
}

/// Secrets of epochs, read from vaults.
#[derive(Default)]
pub(crate) struct Ratchets {
    secrets: BTreeMap<Group, Vec<u8>>,
}

impl Ratchets {
    /// Reads the secrets of a vault's present epochs. Nobody may have it open.
    pub(crate) fn learn(&mut self, vault: &Path, key: &[u8; 32]) {
        let values = values(vault, key, MESSAGE_SECRETS);
        assert!(!values.is_empty(), "a vault without a group");
        for value in values {
            let secret = bytes(find(&value, "sender_data_secret").expect("a secret"));
            let context = bytes(find(&value, "serialized_context").expect("a context"));
            assert_eq!(secret.len(), SUITE.hash_length());
            let mut context = Reader(&context[4..]);
            self.secrets
                .insert((context.vector().to_vec(), context.number(8)), secret);
        }
    }

    /// Examines all frames with an encrypted message, and returns the number of keys used. Fails if two of them used
    /// one key, or if someone has encrypted more than once in an epoch without a known secret.
    pub(crate) fn search<'a>(&self, frames: impl IntoIterator<Item = &'a Frame>) -> Result<usize, String> {
        let (mut used, mut unknown) = (
            BTreeMap::<RatchetKey, (Vec<u8>, &Frame)>::new(),
            BTreeMap::<(Group, AgentId), Vec<u8>>::new(),
        );
        for frame in frames {
            let Some(message) = private_message(frame) else {
                continue;
            };
            let header = frame.header();
            let key = match self.key_of(&message) {
                Ok(key) => key,
                Err(group) => {
                    let before = unknown.entry((group, header.author)).or_insert_with(|| message.clone());
                    if *before != message {
                        return Err(format!("an epoch that nobody has told of: {header:?}"));
                    }
                    continue;
                }
            };
            if let Some((before, of)) = used.get(&key)
                && *before != message
            {
                let of = of.header();
                return Err(format!(
                    "one key of a ratchet was used twice: {key:?} in {of:?} and {header:?}"
                ));
            }
            used.insert(key, (message, frame));
        }
        Ok(used.len())
    }

    fn key_of(&self, message: &[u8]) -> Result<RatchetKey, Group> {
        let mut reader = Reader(&message[4..]);
        let id = reader.vector();
        let epoch = reader.number(8);
        let content_type = u8::try_from(reader.number(1)).expect("a byte");
        let _authenticated = reader.vector();
        let (encrypted, ciphertext) = (reader.vector(), reader.vector());
        let group = (id.to_vec(), epoch);
        let Some(secret) = self.secrets.get(&group) else {
            return Err(group);
        };

        let provider = OpenMlsRustCrypto::default();
        let sample = &ciphertext[..ciphertext.len().min(SUITE.hash_length())];
        let expand = |label: &str, length: usize| {
            let info = [
                &u16::try_from(length).expect("short").to_be_bytes()[..],
                &vector(format!("MLS 1.0 {label}").as_bytes()),
                &vector(sample),
            ]
            .concat();
            let crypto = provider.crypto();
            let expanded = crypto.hkdf_expand(SUITE.hash_algorithm(), secret, &info, length);
            expanded.expect("expanded").as_slice().to_vec()
        };
        let (key, nonce) = (
            expand("key", SUITE.aead_key_length()),
            expand("nonce", SUITE.aead_nonce_length()),
        );
        let mut about = vector(id);
        about.extend(epoch.to_be_bytes());
        about.push(content_type);
        let data = provider
            .crypto()
            .aead_decrypt(SUITE.aead_algorithm(), &key, encrypted, &nonce, &about)
            .expect("the epoch's secret opens it");
        let mut data = Reader(&data);
        Ok(RatchetKey {
            group,
            leaf: u32::try_from(data.number(4)).expect("four bytes"),
            is_application: content_type == APPLICATION,
            generation: u32::try_from(data.number(4)).expect("four bytes"),
        })
    }
}

/// Returns the number of used leaves of each group of a vault. Nobody may have it open.
pub(crate) fn leaves(vault: &Path, key: &[u8; 32]) -> Vec<usize> {
    let count = |tree: &Value| {
        let nodes = find(tree, "leaf_nodes").and_then(Value::as_array).expect("leaves");
        let is_used = |leaf: &&Value| find(leaf, "node").is_some_and(|node| !node.is_null());
        nodes.iter().filter(is_used).count()
    };
    values(vault, key, TREE).iter().map(count).collect()
}

/// The encrypted message in a frame, if there is one.
fn private_message(frame: &Frame) -> Option<Vec<u8>> {
    let body = match frame.header().kind() {
        Kind::Message | Kind::Proposal => frame.body().to_vec(),
        Kind::Commit => Bundle::decode(frame.body().clone()).ok()?.commit.to_vec(),
        _ => return None,
    };
    let is_private = body.get(2..4) == Some(&PRIVATE_MESSAGE.to_be_bytes());
    is_private.then_some(body)
}

/// Values of a kind in a vault, read from a copy of its file.
fn values(vault: &Path, key: &[u8; 32], label: u8) -> Vec<Value> {
    let folder = tempfile::tempdir().expect("a folder");
    let copy = folder.path().join("copy");
    std::fs::copy(vault, &copy).expect("copied");
    let sql = Connection::open_with_flags(&copy, OpenFlags::SQLITE_OPEN_READ_WRITE).expect("opened");
    let mut hex = String::new();
    for byte in key {
        let _ = write!(hex, "{byte:02x}");
    }
    sql.execute_batch(&format!("PRAGMA key = \"x'{hex}'\";"))
        .expect("the key");
    let mut statement = sql
        .prepare("SELECT value FROM mls WHERE substr(key, 1, 1) = ?1")
        .expect("prepared");
    let values = statement
        .query_map([[label].as_slice()], |row| row.get::<_, Vec<u8>>(0))
        .and_then(Iterator::collect::<rusqlite::Result<Vec<_>>>)
        .expect("read");
    let decode = |value: Vec<u8>| ciborium::from_reader(value.as_slice()).expect("a value");
    values.into_iter().map(decode).collect()
}

/// The field of a name, however deep.
fn find<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
    match value {
        Value::Map(fields) => {
            let named = fields.iter().find(|(key, _)| key.as_text() == Some(name));
            let inside = || fields.iter().find_map(|(_, value)| find(value, name));
            named.map(|(_, value)| value).or_else(inside)
        }
        Value::Array(values) => values.iter().find_map(|value| find(value, name)),
        _ => None,
    }
}

/// Bytes, as a string of bytes or as numbers, in however many structures of one field.
fn bytes(value: &Value) -> Vec<u8> {
    match value {
        Value::Bytes(bytes) => bytes.clone(),
        Value::Map(fields) if fields.len() == 1 => bytes(&fields[0].1),
        Value::Array(numbers) => {
            let byte = |number: &Value| number.as_integer().and_then(|number| u8::try_from(number).ok());
            numbers.iter().map(|number| byte(number).expect("a byte")).collect()
        }
        other => panic!("no bytes: {other:?}"),
    }
}

/// A vector as TLS encodes it, with the length of RFC 9420 section 2.1.2.
fn vector(content: &[u8]) -> Vec<u8> {
    let length = match content.len() {
        short @ 0..64 => vec![u8::try_from(short).expect("short")],
        longer => (u16::try_from(longer).expect("not long") | 0x4000)
            .to_be_bytes()
            .to_vec(),
    };
    [length.as_slice(), content].concat()
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(length);
        self.0 = rest;
        taken
    }

    fn number(&mut self, length: usize) -> u64 {
        let bytes = self.take(length).iter();
        bytes.fold(0, |number, byte| number << 8 | u64::from(*byte))
    }

    fn vector(&mut self) -> &'a [u8] {
        let kind = self.0[0] >> 6;
        let length = self.number(1 << kind) & ((1 << ((8 << kind) - 2)) - 1);
        self.take(usize::try_from(length).expect("short"))
    }
}
