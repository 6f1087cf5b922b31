//! The seal of a group: proof that its values and its channel's row were written at the same moment.
//!
//! A file copy of a vault in use may mix pages of two moments. Each page is authentic and the structure may fit, but a
//! value of several pages may then be half old and half new, or the ratchets older than the tree. Such a group would
//! use keys twice, or make a commit that no member can process. So each group has one more value: a hash of each of its
//! values, and of its channel's position. It is written with them, and compared when one is read.
//!
//! A vault of a version without seals is accepted as it is; a group is sealed at its next write.

use super::{Label, StorageError, Value};
use rusqlite::{Connection, OptionalExtension};
use std::collections::BTreeMap;

/// Length of a hash, in bytes. Persisted: keep stable.
const HASH_BYTES: usize = 16;

type Hash = [u8; HASH_BYTES];

/// The place of the channel's position among the hashes: no key has this hash.
const POSITION: Hash = [0; HASH_BYTES];

/// Hashes of a group's values by the hashes of their keys. Persisted as the two in turn.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Seal(BTreeMap<Hash, Hash>);

impl Seal {
    /// The seal of a group, if it has one.
    pub(super) fn load(sql: &Connection, group: &[u8]) -> Result<Option<Self>, StorageError> {
        let stored: Option<Vec<u8>> = sql
            .prepare_cached("SELECT value FROM mls WHERE key = ?1")?
            .query_row([key_of(group)], |row| row.get(0))
            .optional()?;
        let Some(stored) = stored else { return Ok(None) };
        let (hashes, rest) = stored.as_chunks::<HASH_BYTES>();
        let (pairs, odd) = hashes.as_chunks::<2>();
        if !rest.is_empty() || !odd.is_empty() {
            return Err(StorageError::Torn);
        }
        Ok(Some(Self(pairs.iter().map(|[key, value]| (*key, *value)).collect())))
    }

    /// Creates a seal over the database's values of a group.
    pub(super) fn over(sql: &Connection, group: &[u8]) -> Result<Self, StorageError> {
        let mut seal = Self::default();
        let mut statement = sql.prepare_cached("SELECT key, value FROM mls WHERE key >= ?1 AND key < ?2")?;
        for prefix in prefixes(group) {
            let mut rows = statement.query((&prefix, after(&prefix)))?;
            while let Some(row) = rows.next()? {
                let (key, value): (Vec<u8>, Vec<u8>) = (row.get(0)?, row.get(1)?);
                seal.put(&key, Some(&Value::new(value)));
            }
        }
        Ok(seal)
    }

    /// Writes the seal, or removes it with the group's last value.
    pub(super) fn save(&self, sql: &Connection, group: &[u8]) -> Result<(), StorageError> {
        let key = key_of(group);
        if self.0.keys().all(|key| *key == POSITION) {
            sql.prepare_cached("DELETE FROM mls WHERE key = ?1")?.execute([key])?;
            return Ok(());
        }
        let bytes: Vec<u8> = self.0.iter().flat_map(|(key, value)| [*key, *value].concat()).collect();
        sql.prepare_cached("INSERT INTO mls (key, value) VALUES (?1, ?2) ON CONFLICT DO UPDATE SET value = ?2")?
            .execute((key, bytes))?;
        Ok(())
    }

    pub(super) fn put(&mut self, key: &[u8], value: Option<&Value>) {
        match value {
            Some(value) => self.0.insert(hash(key), hash(value)),
            None => self.0.remove(&hash(key)),
        };
    }

    pub(super) fn put_position(&mut self, position: &[u8]) {
        self.0.insert(POSITION, hash(position));
    }

    /// Whether this is the value that was written under the key.
    pub(super) fn fits(&self, key: &[u8], value: Option<&Value>) -> bool {
        self.0.get(&hash(key)).copied() == value.map(|value| hash(value))
    }

    /// Whether this is the position that was written with the values.
    pub(super) fn fits_position(&self, position: &[u8]) -> bool {
        self.0.get(&POSITION).is_none_or(|sealed| *sealed == hash(position))
    }
}

/// Returns the group that a value belongs to, as encoded in its key; `None` for values of the agent.
pub(super) fn group_of(key: &[u8]) -> Option<Vec<u8>> {
    let (label, id) = key.split_first()?;
    if *label == Label::EpochKeyPairs as u8 || *label == Label::QueuedProposal as u8 {
        // The group is the first of several.
        let parts: ciborium::Value = ciborium::from_reader(id).ok()?;
        let mut group = Vec::new();
        ciborium::into_writer(parts.as_array()?.first()?, &mut group).ok()?;
        return Some(group);
    }
    of_groups().any(|of| of as u8 == *label).then(|| id.to_vec())
}

/// Kinds of values whose key is only the group.
fn of_groups() -> impl Iterator<Item = Label> {
    [
        Label::Tree,
        Label::Context,
        Label::InterimTranscriptHash,
        Label::ConfirmationTag,
        Label::JoinConfig,
        Label::OwnLeafNodes,
        Label::GroupState,
        Label::ProposalRefs,
        Label::OwnLeafIndex,
        Label::EpochSecrets,
        Label::ResumptionPsks,
        Label::MessageSecrets,
    ]
    .into_iter()
}

/// Returns the prefixes of the keys of a group's values. Keys of several parts are CBOR arrays of two and three.
fn prefixes(group: &[u8]) -> Vec<Vec<u8>> {
    let alone = of_groups().map(|label| [&[label as u8], group].concat());
    let several = [(Label::QueuedProposal, 0x82), (Label::EpochKeyPairs, 0x83)];
    alone
        .chain(several.map(|(label, parts)| [&[label as u8, parts], group].concat()))
        .collect()
}

/// Returns the first key after those with a prefix.
fn after(prefix: &[u8]) -> Vec<u8> {
    let mut after = prefix.to_vec();
    while let Some(last) = after.pop() {
        if last < u8::MAX {
            after.push(last + 1);
            break;
        }
    }
    after
}

fn key_of(group: &[u8]) -> Vec<u8> {
    [&[Label::Seal as u8], group].concat()
}

fn hash(bytes: &[u8]) -> Hash {
    let mut hash = Hash::default();
    hash.copy_from_slice(&blake3::hash(bytes).as_bytes()[..HASH_BYTES]);
    hash
}
