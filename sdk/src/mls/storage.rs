//! OpenMLS' storage over the vault: writes are collected in memory and flushed once a transaction.
//!
//! OpenMLS writes the whole group's secrets for each message and needs only the last value. So writes go to a map; a
//! read looks there first, then in the database; [`Storage::flush`] writes the last value of each key in the current
//! transaction. Dropping the storage instead discards them: that is the rollback.
//!
//! The message secrets are the largest and most frequent of these values, and the group in memory has them anyway. While
//! [`Storage::defer_secrets`] is in force their writes are only noted; before the flush each group noted must be settled,
//! which writes its secrets once ([`settle_secrets`](super::settle_secrets)). A flush with an unsettled group is refused.
//!
//! Values are CBOR: self-describing, as OpenMLS needs it to read what an earlier version of it wrote.

use openmls_traits::storage::{CURRENT_VERSION, Entity, Key};
use rusqlite::{Connection, ErrorCode, OptionalExtension};
use std::cell::{Cell, RefCell};
use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use zeroize::Zeroizing;

/// Kind of a value. Persisted as the first byte of its key: keep stable.
#[derive(Clone, Copy)]
#[repr(u8)]
enum Label {
    KeyPackage = 1,
    Psk = 2,
    EncryptionKeyPair = 3,
    SignatureKeyPair = 4,
    EpochKeyPairs = 5,
    Tree = 6,
    Context = 7,
    InterimTranscriptHash = 8,
    ConfirmationTag = 9,
    JoinConfig = 10,
    OwnLeafNodes = 11,
    GroupState = 12,
    QueuedProposal = 13,
    ProposalRefs = 14,
    OwnLeafIndex = 15,
    EpochSecrets = 16,
    ResumptionPsks = 17,
    MessageSecrets = 18,
    Seal = 19,
}

/// Error from storing or reading a value.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StorageError {
    #[error("the vault's database: {0}")]
    Database(#[from] rusqlite::Error),
    #[error("a value cannot be encoded: {0}")]
    Encode(String),
    #[error("a stored value cannot be decoded: {0}")]
    Decode(String),
    #[error("a queued proposal is missing")]
    ProposalMissing,
    #[error("a group's message secrets are in memory alone")]
    Unsettled,
    #[error("values of different moments")]
    Torn,
}

impl StorageError {
    /// Whether the stored value is damaged.
    pub(crate) fn is_damage(&self) -> bool {
        match self {
            Self::Decode(_) | Self::ProposalMissing | Self::Torn => true,
            Self::Database(error) => matches!(
                error.sqlite_error_code(),
                Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
            ),
            Self::Encode(_) | Self::Unsettled => false,
        }
    }
}

/// A read that failed.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) is_damage: bool,
    pub(crate) reason: String,
}

/// Handling of writes of message secrets.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Secrets {
    Written,
    Deferred,
    /// Written, but without the configuration that OpenMLS writes with them.
    Settling,
}

type Value = Zeroizing<Vec<u8>>;

/// The first byte of the keys of a group that will replace another one later. No [`Label`] has it.
const SET_ASIDE: u8 = 0xff;

/// OpenMLS' storage, for the time of one transaction.
pub(crate) struct Storage<'a> {
    connection: &'a Connection,
    /// Prefix of each key: empty, except for a group that is set aside.
    prefix: Vec<u8>,
    /// The last value written for each key; `None` means deleted.
    written: RefCell<HashMap<Vec<u8>, Option<Value>>>,
    secrets: Cell<Secrets>,
    /// Keys of message secrets whose newest value is only in memory.
    unsettled: RefCell<BTreeSet<Vec<u8>>>,
    /// The first read that failed.
    failure: RefCell<Option<Failure>>,
    /// Seals of groups that were read or written, as stored in the database.
    seals: RefCell<HashMap<Vec<u8>, Option<Seal>>>,
    /// Positions of channels, to be sealed with their groups' values.
    positions: RefCell<HashMap<Vec<u8>, Vec<u8>>>,
}

impl<'a> Storage<'a> {
    pub(crate) fn new(connection: &'a Connection) -> Self {
        Self {
            connection,
            prefix: Vec::new(),
            written: RefCell::default(),
            secrets: Cell::new(Secrets::Written),
            unsettled: RefCell::default(),
            failure: RefCell::default(),
            seals: RefCell::default(),
            positions: RefCell::default(),
        }
    }

    /// Creates a scratch storage for an operation that may fail, or for a group that is set aside under a name. Its
    /// writes have no effect before [`Storage::absorb`]. It reads from the database, without the pending writes of this
    /// storage; with a name, only values set aside under it.
    pub(crate) fn scratch(&self, set_aside: Option<&[u8]>) -> Self {
        let prefix = set_aside.map(prefix).unwrap_or_default();
        Self {
            prefix,
            ..Self::new(self.connection)
        }
    }

    /// Takes over all writes of a scratch storage.
    pub(crate) fn absorb(&self, scratch: &Self) {
        self.written.borrow_mut().extend(scratch.written.borrow_mut().drain());
    }

    /// Removes the values set aside under a name; with `take`, they replace the values with the same keys.
    pub(crate) fn end_set_aside(&self, name: &[u8], take: bool) -> Result<(), StorageError> {
        let prefix = prefix(name);
        let mut aside: HashMap<Vec<u8>, Option<Value>> = self
            .connection
            .prepare_cached("SELECT key, value FROM mls WHERE substr(key, 1, ?2) = ?1 AND key >= ?1")?
            .query_map((&prefix, prefix.len()), |row| {
                Ok((
                    row.get::<_, Vec<u8>>(0)?,
                    Some(Zeroizing::new(row.get::<_, Vec<u8>>(1)?)),
                ))
            })?
            .collect::<Result<_, _>>()?;
        let mut written = self.written.borrow_mut();
        // Values written there by this transaction are newer.
        let newer = written.iter().filter(|(key, _)| key.starts_with(&prefix));
        aside.extend(newer.map(|(key, value)| (key.clone(), value.clone())));
        for (key, value) in aside {
            if take && let Some(key) = key.strip_prefix(prefix.as_slice()) {
                written.insert(key.to_vec(), value);
            }
            written.insert(key, None);
        }
        Ok(())
    }

    /// Returns the first failed read, if there is one. OpenMLS does not always pass it on, but may report wrong input.
    /// Callers check here whether the vault is the cause.
    pub(crate) fn failure(&self) -> Option<Failure> {
        self.failure.borrow().clone()
    }

    fn noted<T>(&self, read: Result<T, StorageError>) -> Result<T, StorageError> {
        if let Err(error) = &read {
            self.failure.borrow_mut().get_or_insert_with(|| Failure {
                is_damage: error.is_damage(),
                reason: error.to_string(),
            });
        }
        read
    }

    /// Defers writes of message secrets: from now on they are only noted.
    pub(crate) fn defer_secrets(&self) {
        self.secrets.set(Secrets::Deferred);
    }

    /// Runs `write`, which makes OpenMLS write a group's message secrets.
    pub(super) fn settle<T>(&self, write: impl FnOnce() -> T) -> T {
        let before = self.secrets.replace(Secrets::Settling);
        let result = write();
        self.secrets.set(before);
        result
    }

    /// Whether a group's newest message secrets are only in memory.
    pub(super) fn is_unsettled<K: Key<CURRENT_VERSION>>(&self, group_id: &K) -> Result<bool, StorageError> {
        Ok(self.unsettled.borrow().contains(&key(Label::MessageSecrets, group_id)?))
    }

    /// Discards all pending writes.
    #[cfg(test)]
    pub(crate) fn discard(&self) {
        self.written.borrow_mut().clear();
        self.unsettled.borrow_mut().clear();
        self.positions.borrow_mut().clear();
    }

    /// Seals a channel's position with its group's values.
    pub(crate) fn seal_position<K: Key<CURRENT_VERSION>>(&self, id: &K, position: Vec<u8>) -> Result<(), StorageError> {
        let key = key(Label::GroupState, id)?;
        if let Some(group) = seal::group_of(&key) {
            self.positions.borrow_mut().insert(group, position);
        }
        Ok(())
    }

    /// Refuses a position other than the one sealed with the group's values.
    pub(crate) fn check_position<K: Key<CURRENT_VERSION>>(&self, id: &K, position: &[u8]) -> Result<(), StorageError> {
        let key = key(Label::GroupState, id)?;
        let fits = |seal: &Seal| seal.fits_position(position);
        let checked = self.sealed(&key).map(|seal| seal.as_ref().is_none_or(fits));
        self.noted(checked.and_then(|fits| fits.then_some(()).ok_or(StorageError::Torn)))
    }

    /// Returns the seal of the group that a key belongs to.
    fn sealed(&self, key: &[u8]) -> Result<Option<Seal>, StorageError> {
        let Some(group) = seal::group_of(key) else {
            return Ok(None);
        };
        if let Some(seal) = self.seals.borrow().get(&group) {
            return Ok(seal.clone());
        }
        let seal = Seal::load(self.connection, &group)?;
        self.seals.borrow_mut().insert(group, seal.clone());
        Ok(seal)
    }

    /// Writes all pending values in the current transaction.
    pub(crate) fn flush(&self) -> Result<(), StorageError> {
        if !self.unsettled.borrow().is_empty() {
            return Err(StorageError::Unsettled);
        }
        let mut seals = HashMap::<Vec<u8>, Seal>::new();
        let positions = self.positions.borrow_mut().drain().collect::<Vec<_>>();
        let written = self.written.borrow();
        let of_values = written.keys().filter_map(|key| seal::group_of(key));
        for group in of_values.chain(positions.iter().map(|(group, _)| group.clone())) {
            if let Entry::Vacant(entry) = seals.entry(group) {
                let seal = match Seal::load(self.connection, entry.key())? {
                    Some(seal) => seal,
                    None => Seal::over(self.connection, entry.key())?,
                };
                entry.insert(seal);
            }
        }
        drop(written);
        for (group, position) in positions {
            if let Some(seal) = seals.get_mut(&group) {
                seal.put_position(&position);
            }
        }
        let mut put = self
            .connection
            .prepare_cached("INSERT INTO mls (key, value) VALUES (?1, ?2) ON CONFLICT DO UPDATE SET value = ?2")?;
        let mut delete = self.connection.prepare_cached("DELETE FROM mls WHERE key = ?1")?;
        for (key, value) in self.written.borrow_mut().drain() {
            if let Some(seal) = seal::group_of(&key).and_then(|group| seals.get_mut(&group)) {
                seal.put(&key, value.as_ref());
            }
            match value {
                Some(value) => put.execute((&key, value.as_slice()))?,
                None => delete.execute([&key])?,
            };
        }
        for (group, seal) in &seals {
            seal.save(self.connection, group)?;
        }
        self.seals.borrow_mut().clear();
        Ok(())
    }

    fn put(&self, key: Vec<u8>, value: Value) {
        self.written.borrow_mut().insert(self.place(key), Some(value));
    }

    fn remove(&self, key: Vec<u8>) {
        self.written.borrow_mut().insert(self.place(key), None);
    }

    /// Returns a key as stored in the database.
    fn place(&self, mut key: Vec<u8>) -> Vec<u8> {
        if !self.prefix.is_empty() {
            key.splice(..0, self.prefix.iter().copied());
        }
        key
    }

    fn get(&self, key: &[u8]) -> Result<Option<Value>, StorageError> {
        let placed = (!self.prefix.is_empty()).then(|| self.place(key.to_vec()));
        let key = placed.as_deref().unwrap_or(key);
        if let Some(value) = self.written.borrow().get(key) {
            return Ok(value.clone());
        }
        let value = self
            .connection
            .prepare_cached("SELECT value FROM mls WHERE key = ?1")
            .and_then(|mut statement| statement.query_row([key], |row| row.get::<_, Vec<u8>>(0).map(Zeroizing::new)))
            .optional();
        let value = self.noted(value.map_err(StorageError::from))?;
        let fits = |seal: Seal| seal.fits(key, value.as_ref());
        let checked = self.sealed(key).map(|seal| seal.is_none_or(fits));
        self.noted(checked.and_then(|fits| fits.then_some(()).ok_or(StorageError::Torn)))?;
        Ok(value)
    }

    fn decode<T: serde::de::DeserializeOwned>(&self, bytes: &[u8]) -> Result<T, StorageError> {
        self.noted(ciborium::from_reader(bytes).map_err(|error| StorageError::Decode(error.to_string())))
    }

    fn write<K: Key<CURRENT_VERSION>, V: Entity<CURRENT_VERSION>>(
        &self,
        label: Label,
        id: &K,
        value: &V,
    ) -> Result<(), StorageError> {
        self.put(key(label, id)?, encode(value)?);
        Ok(())
    }

    fn read<K: Key<CURRENT_VERSION>, V: Entity<CURRENT_VERSION>>(
        &self,
        label: Label,
        id: &K,
    ) -> Result<Option<V>, StorageError> {
        self.get(&key(label, id)?)?.map(|value| self.decode(&value)).transpose()
    }

    fn delete<K: Key<CURRENT_VERSION>>(&self, label: Label, id: &K) -> Result<(), StorageError> {
        self.remove(key(label, id)?);
        Ok(())
    }

    /// Reads all items of a list.
    fn items<T: serde::de::DeserializeOwned>(&self, key: &[u8]) -> Result<Vec<T>, StorageError> {
        self.list(key)?.iter().map(|item| self.decode(item)).collect()
    }

    /// Reads a list, stored as its items, each after its length (u32, little-endian).
    fn list(&self, key: &[u8]) -> Result<Vec<Value>, StorageError> {
        let cut = || self.noted(Err(StorageError::Decode("a list ends inside an item".into())));
        let stored = self.get(key)?.unwrap_or_default();
        let (mut rest, mut items) = (stored.as_slice(), Vec::new());
        while let Some((length, after)) = rest.split_first_chunk::<4>() {
            let length = u32::from_le_bytes(*length) as usize;
            let Some((item, after)) = after.split_at_checked(length) else {
                return cut();
            };
            items.push(Zeroizing::new(item.to_vec()));
            rest = after;
        }
        if rest.is_empty() { Ok(items) } else { cut() }
    }

    fn put_list(&self, key: Vec<u8>, items: &[Value]) -> Result<(), StorageError> {
        let mut value = Value::default();
        for item in items {
            let length = u32::try_from(item.len()).map_err(|error| StorageError::Encode(error.to_string()))?;
            value.extend_from_slice(&length.to_le_bytes());
            value.extend_from_slice(item);
        }
        self.put(key, value);
        Ok(())
    }

    fn append(&self, key: Vec<u8>, item: Value) -> Result<(), StorageError> {
        let mut items = self.list(&key)?;
        items.push(item);
        self.put_list(key, &items)
    }
}

/// Returns the key prefix of values set aside under a name. All names have one length, so none is a prefix of another.
fn prefix(name: &[u8]) -> Vec<u8> {
    [&[SET_ASIDE], name].concat()
}

fn encode<T: serde::Serialize + ?Sized>(value: &T) -> Result<Value, StorageError> {
    let mut bytes = Value::default();
    ciborium::into_writer(value, &mut *bytes).map_err(|error| StorageError::Encode(error.to_string()))?;
    Ok(bytes)
}

fn key<K: serde::Serialize + ?Sized>(label: Label, id: &K) -> Result<Vec<u8>, StorageError> {
    let mut bytes = vec![label as u8];
    ciborium::into_writer(id, &mut bytes).map_err(|error| StorageError::Encode(error.to_string()))?;
    Ok(bytes)
}

/// Encodes a group as in the keys of its values.
#[cfg(test)]
pub(crate) fn in_keys<K: serde::Serialize + ?Sized>(group: &K) -> Vec<u8> {
    key(Label::Tree, group).expect("encoded").split_off(1)
}

fn epoch_key<G: serde::Serialize, E: serde::Serialize>(
    group_id: &G,
    epoch: &E,
    leaf_index: u32,
) -> Result<Vec<u8>, StorageError> {
    key(Label::EpochKeyPairs, &(group_id, epoch, leaf_index))
}

mod seal;
mod values;

use seal::Seal;

#[cfg(test)]
mod tests;
