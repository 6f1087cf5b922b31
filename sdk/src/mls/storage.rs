//! OpenMLS' storage over the vault: writes are collected in memory and flushed once a transaction.
//!
//! OpenMLS writes the whole group's secrets for each message and asks for the last value only. So writes go to a map; a
//! read looks there first, then in the database; [`Storage::flush`] puts the last value of each key into the transaction
//! under way. Dropping the storage instead forgets them: that is the rollback.
//!
//! The message secrets are the largest and most frequent of these values, and the group in memory has them anyway. While
//! [`Storage::defer_secrets`] is in force their writes are only noted; before the flush each group noted must be settled,
//! which writes its secrets once ([`settle_secrets`](super::settle_secrets)). A flush with an unsettled group is refused.
//!
//! Values are CBOR: self-describing, as OpenMLS needs it to read what an earlier version of it wrote.

use openmls_traits::storage::{CURRENT_VERSION, Entity, Key, StorageProvider, traits};
use rusqlite::{Connection, OptionalExtension};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, HashMap};
use zeroize::Zeroizing;

/// What a value is. Persisted as the first byte of its key: keep stable.
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
}

/// Why a value cannot be stored or read.
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
}

/// How writes of message secrets are treated.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Secrets {
    Written,
    Deferred,
    /// Written, but not the configuration that OpenMLS writes with them when it is asked to.
    Settling,
}

type Value = Zeroizing<Vec<u8>>;

/// OpenMLS' storage, for the time of one transaction.
pub(crate) struct Storage<'a> {
    connection: &'a Connection,
    /// The last value of each key that was written; `None` is deleted.
    written: RefCell<HashMap<Vec<u8>, Option<Value>>>,
    secrets: Cell<Secrets>,
    /// Keys of message secrets whose newest value is in memory alone.
    unsettled: RefCell<BTreeSet<Vec<u8>>>,
}

impl<'a> Storage<'a> {
    pub(crate) fn new(connection: &'a Connection) -> Self {
        Self {
            connection,
            written: RefCell::default(),
            secrets: Cell::new(Secrets::Written),
            unsettled: RefCell::default(),
        }
    }

    /// From now on, writes of message secrets are only noted.
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

    /// Whether a group's message secrets are in memory alone.
    pub(super) fn is_unsettled<K: Key<CURRENT_VERSION>>(&self, group_id: &K) -> Result<bool, StorageError> {
        Ok(self
            .unsettled
            .borrow()
            .contains(&key(Label::MessageSecrets, group_id)?))
    }

    /// Forgets all that was written.
    pub(crate) fn discard(&self) {
        self.written.borrow_mut().clear();
        self.unsettled.borrow_mut().clear();
    }

    /// Puts all that was written into the transaction under way.
    pub(crate) fn flush(&self) -> Result<(), StorageError> {
        if !self.unsettled.borrow().is_empty() {
            return Err(StorageError::Unsettled);
        }
        let mut put = self
            .connection
            .prepare_cached("INSERT INTO mls (key, value) VALUES (?1, ?2) ON CONFLICT DO UPDATE SET value = ?2")?;
        let mut delete = self.connection.prepare_cached("DELETE FROM mls WHERE key = ?1")?;
        for (key, value) in self.written.borrow_mut().drain() {
            match value {
                Some(value) => put.execute((&key, value.as_slice()))?,
                None => delete.execute([&key])?,
            };
        }
        Ok(())
    }

    fn put(&self, key: Vec<u8>, value: Value) {
        self.written.borrow_mut().insert(key, Some(value));
    }

    fn remove(&self, key: Vec<u8>) {
        self.written.borrow_mut().insert(key, None);
    }

    fn get(&self, key: &[u8]) -> Result<Option<Value>, StorageError> {
        if let Some(value) = self.written.borrow().get(key) {
            return Ok(value.clone());
        }
        let value = self
            .connection
            .prepare_cached("SELECT value FROM mls WHERE key = ?1")?
            .query_row([key], |row| row.get::<_, Vec<u8>>(0).map(Zeroizing::new))
            .optional()?;
        Ok(value)
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
        self.get(&key(label, id)?)?.map(|value| decode(&value)).transpose()
    }

    fn delete<K: Key<CURRENT_VERSION>>(&self, label: Label, id: &K) -> Result<(), StorageError> {
        self.remove(key(label, id)?);
        Ok(())
    }

    /// A list is stored as its items, each after its length (u32, little-endian).
    fn list(&self, key: &[u8]) -> Result<Vec<Value>, StorageError> {
        let cut = || StorageError::Decode("a list ends inside an item".into());
        let stored = self.get(key)?.unwrap_or_default();
        let (mut rest, mut items) = (stored.as_slice(), Vec::new());
        while let Some((length, after)) = rest.split_first_chunk::<4>() {
            let length = u32::from_le_bytes(*length) as usize;
            let (item, after) = after.split_at_checked(length).ok_or_else(cut)?;
            items.push(Zeroizing::new(item.to_vec()));
            rest = after;
        }
        if rest.is_empty() { Ok(items) } else { Err(cut()) }
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

fn encode<T: serde::Serialize + ?Sized>(value: &T) -> Result<Value, StorageError> {
    let mut bytes = Value::default();
    ciborium::into_writer(value, &mut *bytes).map_err(|error| StorageError::Encode(error.to_string()))?;
    Ok(bytes)
}

fn decode<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, StorageError> {
    ciborium::from_reader(bytes).map_err(|error| StorageError::Decode(error.to_string()))
}

fn key<K: serde::Serialize + ?Sized>(label: Label, id: &K) -> Result<Vec<u8>, StorageError> {
    let mut bytes = vec![label as u8];
    ciborium::into_writer(id, &mut bytes).map_err(|error| StorageError::Encode(error.to_string()))?;
    Ok(bytes)
}

fn epoch_key<G: serde::Serialize, E: serde::Serialize>(
    group_id: &G,
    epoch: &E,
    leaf_index: u32,
) -> Result<Vec<u8>, StorageError> {
    key(Label::EpochKeyPairs, &(group_id, epoch, leaf_index))
}

impl StorageProvider<CURRENT_VERSION> for Storage<'_> {
    type Error = StorageError;

    fn write_tree<G: traits::GroupId<CURRENT_VERSION>, V: traits::TreeSync<CURRENT_VERSION>>(&self, group_id: &G, value: &V) -> Result<(), StorageError> {
        self.write(Label::Tree, group_id, value)
    }

    fn tree<G: traits::GroupId<CURRENT_VERSION>, V: traits::TreeSync<CURRENT_VERSION>>(&self, group_id: &G) -> Result<Option<V>, StorageError> {
        self.read(Label::Tree, group_id)
    }

    fn delete_tree<G: traits::GroupId<CURRENT_VERSION>>(&self, group_id: &G) -> Result<(), StorageError> {
        self.delete(Label::Tree, group_id)
    }

    fn write_interim_transcript_hash<G: traits::GroupId<CURRENT_VERSION>, V: traits::InterimTranscriptHash<CURRENT_VERSION>>(&self, group_id: &G, value: &V) -> Result<(), StorageError> {
        self.write(Label::InterimTranscriptHash, group_id, value)
    }

    fn interim_transcript_hash<G: traits::GroupId<CURRENT_VERSION>, V: traits::InterimTranscriptHash<CURRENT_VERSION>>(&self, group_id: &G) -> Result<Option<V>, StorageError> {
        self.read(Label::InterimTranscriptHash, group_id)
    }

    fn delete_interim_transcript_hash<G: traits::GroupId<CURRENT_VERSION>>(&self, group_id: &G) -> Result<(), StorageError> {
        self.delete(Label::InterimTranscriptHash, group_id)
    }

    fn write_context<G: traits::GroupId<CURRENT_VERSION>, V: traits::GroupContext<CURRENT_VERSION>>(&self, group_id: &G, value: &V) -> Result<(), StorageError> {
        self.write(Label::Context, group_id, value)
    }

    fn group_context<G: traits::GroupId<CURRENT_VERSION>, V: traits::GroupContext<CURRENT_VERSION>>(&self, group_id: &G) -> Result<Option<V>, StorageError> {
        self.read(Label::Context, group_id)
    }

    fn delete_context<G: traits::GroupId<CURRENT_VERSION>>(&self, group_id: &G) -> Result<(), StorageError> {
        self.delete(Label::Context, group_id)
    }

    fn write_confirmation_tag<G: traits::GroupId<CURRENT_VERSION>, V: traits::ConfirmationTag<CURRENT_VERSION>>(&self, group_id: &G, value: &V) -> Result<(), StorageError> {
        self.write(Label::ConfirmationTag, group_id, value)
    }

    fn confirmation_tag<G: traits::GroupId<CURRENT_VERSION>, V: traits::ConfirmationTag<CURRENT_VERSION>>(&self, group_id: &G) -> Result<Option<V>, StorageError> {
        self.read(Label::ConfirmationTag, group_id)
    }

    fn delete_confirmation_tag<G: traits::GroupId<CURRENT_VERSION>>(&self, group_id: &G) -> Result<(), StorageError> {
        self.delete(Label::ConfirmationTag, group_id)
    }

    fn write_resumption_psk_store<G: traits::GroupId<CURRENT_VERSION>, V: traits::ResumptionPskStore<CURRENT_VERSION>>(&self, group_id: &G, value: &V) -> Result<(), StorageError> {
        self.write(Label::ResumptionPsks, group_id, value)
    }

    fn resumption_psk_store<G: traits::GroupId<CURRENT_VERSION>, V: traits::ResumptionPskStore<CURRENT_VERSION>>(&self, group_id: &G) -> Result<Option<V>, StorageError> {
        self.read(Label::ResumptionPsks, group_id)
    }

    fn delete_all_resumption_psk_secrets<G: traits::GroupId<CURRENT_VERSION>>(&self, group_id: &G) -> Result<(), StorageError> {
        self.delete(Label::ResumptionPsks, group_id)
    }

    fn write_own_leaf_index<G: traits::GroupId<CURRENT_VERSION>, V: traits::LeafNodeIndex<CURRENT_VERSION>>(&self, group_id: &G, value: &V) -> Result<(), StorageError> {
        self.write(Label::OwnLeafIndex, group_id, value)
    }

    fn own_leaf_index<G: traits::GroupId<CURRENT_VERSION>, V: traits::LeafNodeIndex<CURRENT_VERSION>>(&self, group_id: &G) -> Result<Option<V>, StorageError> {
        self.read(Label::OwnLeafIndex, group_id)
    }

    fn delete_own_leaf_index<G: traits::GroupId<CURRENT_VERSION>>(&self, group_id: &G) -> Result<(), StorageError> {
        self.delete(Label::OwnLeafIndex, group_id)
    }

    fn write_group_epoch_secrets<G: traits::GroupId<CURRENT_VERSION>, V: traits::GroupEpochSecrets<CURRENT_VERSION>>(&self, group_id: &G, value: &V) -> Result<(), StorageError> {
        self.write(Label::EpochSecrets, group_id, value)
    }

    fn group_epoch_secrets<G: traits::GroupId<CURRENT_VERSION>, V: traits::GroupEpochSecrets<CURRENT_VERSION>>(&self, group_id: &G) -> Result<Option<V>, StorageError> {
        self.read(Label::EpochSecrets, group_id)
    }

    fn delete_group_epoch_secrets<G: traits::GroupId<CURRENT_VERSION>>(&self, group_id: &G) -> Result<(), StorageError> {
        self.delete(Label::EpochSecrets, group_id)
    }

    fn write_group_state<V: traits::GroupState<CURRENT_VERSION>, G: traits::GroupId<CURRENT_VERSION>>(&self, group_id: &G, value: &V) -> Result<(), StorageError> {
        self.write(Label::GroupState, group_id, value)
    }

    fn group_state<V: traits::GroupState<CURRENT_VERSION>, G: traits::GroupId<CURRENT_VERSION>>(&self, group_id: &G) -> Result<Option<V>, StorageError> {
        self.read(Label::GroupState, group_id)
    }

    fn delete_group_state<G: traits::GroupId<CURRENT_VERSION>>(&self, group_id: &G) -> Result<(), StorageError> {
        self.delete(Label::GroupState, group_id)
    }

    fn write_mls_join_config<G: traits::GroupId<CURRENT_VERSION>, V: traits::MlsGroupJoinConfig<CURRENT_VERSION>>(&self, group_id: &G, value: &V) -> Result<(), StorageError> {
        if self.secrets.get() == Secrets::Settling {
            return Ok(());
        }
        self.write(Label::JoinConfig, group_id, value)
    }

    fn mls_group_join_config<G: traits::GroupId<CURRENT_VERSION>, V: traits::MlsGroupJoinConfig<CURRENT_VERSION>>(&self, group_id: &G) -> Result<Option<V>, StorageError> {
        self.read(Label::JoinConfig, group_id)
    }

    fn delete_group_config<G: traits::GroupId<CURRENT_VERSION>>(&self, group_id: &G) -> Result<(), StorageError> {
        self.delete(Label::JoinConfig, group_id)
    }

    fn write_message_secrets<G: traits::GroupId<CURRENT_VERSION>, V: traits::MessageSecrets<CURRENT_VERSION>>(&self, group_id: &G, value: &V) -> Result<(), StorageError> {
        let key = key(Label::MessageSecrets, group_id)?;
        if self.secrets.get() == Secrets::Deferred {
            self.unsettled.borrow_mut().insert(key);
            return Ok(());
        }
        self.unsettled.borrow_mut().remove(&key);
        self.put(key, encode(value)?);
        Ok(())
    }

    fn message_secrets<G: traits::GroupId<CURRENT_VERSION>, V: traits::MessageSecrets<CURRENT_VERSION>>(&self, group_id: &G) -> Result<Option<V>, StorageError> {
        if self.is_unsettled(group_id)? {
            return Err(StorageError::Unsettled);
        }
        self.read(Label::MessageSecrets, group_id)
    }

    fn delete_message_secrets<G: traits::GroupId<CURRENT_VERSION>>(&self, group_id: &G) -> Result<(), StorageError> {
        let key = key(Label::MessageSecrets, group_id)?;
        self.unsettled.borrow_mut().remove(&key);
        self.remove(key);
        Ok(())
    }

    // ---- own leaf nodes: a list a group

    fn append_own_leaf_node<G: traits::GroupId<CURRENT_VERSION>, V: traits::LeafNode<CURRENT_VERSION>>(&self, group_id: &G, leaf_node: &V) -> Result<(), StorageError> {
        self.append(key(Label::OwnLeafNodes, group_id)?, encode(leaf_node)?)
    }

    fn own_leaf_nodes<G: traits::GroupId<CURRENT_VERSION>, V: traits::LeafNode<CURRENT_VERSION>>(&self, group_id: &G) -> Result<Vec<V>, StorageError> {
        let items = self.list(&key(Label::OwnLeafNodes, group_id)?)?;
        items.iter().map(|item| decode(item)).collect()
    }

    fn delete_own_leaf_nodes<G: traits::GroupId<CURRENT_VERSION>>(&self, group_id: &G) -> Result<(), StorageError> {
        self.delete(Label::OwnLeafNodes, group_id)
    }

    // ---- proposals: a list of references a group, and each proposal under its reference

    fn queue_proposal<G: traits::GroupId<CURRENT_VERSION>, R: traits::ProposalRef<CURRENT_VERSION>, V: traits::QueuedProposal<CURRENT_VERSION>>(&self, group_id: &G, proposal_ref: &R, proposal: &V) -> Result<(), StorageError> {
        self.put(key(Label::QueuedProposal, &(group_id, proposal_ref))?, encode(proposal)?);
        self.append(key(Label::ProposalRefs, group_id)?, encode(proposal_ref)?)
    }

    fn queued_proposal_refs<G: traits::GroupId<CURRENT_VERSION>, R: traits::ProposalRef<CURRENT_VERSION>>(&self, group_id: &G) -> Result<Vec<R>, StorageError> {
        let items = self.list(&key(Label::ProposalRefs, group_id)?)?;
        items.iter().map(|item| decode(item)).collect()
    }

    fn queued_proposals<G: traits::GroupId<CURRENT_VERSION>, R: traits::ProposalRef<CURRENT_VERSION>, V: traits::QueuedProposal<CURRENT_VERSION>>(&self, group_id: &G) -> Result<Vec<(R, V)>, StorageError> {
        let refs: Vec<R> = self.queued_proposal_refs(group_id)?;
        refs.into_iter()
            .map(|proposal_ref| {
                let stored = self.get(&key(Label::QueuedProposal, &(group_id, &proposal_ref))?)?;
                let proposal = decode(&stored.ok_or(StorageError::ProposalMissing)?)?;
                Ok((proposal_ref, proposal))
            })
            .collect()
    }

    fn remove_proposal<G: traits::GroupId<CURRENT_VERSION>, R: traits::ProposalRef<CURRENT_VERSION>>(&self, group_id: &G, proposal_ref: &R) -> Result<(), StorageError> {
        let refs = key(Label::ProposalRefs, group_id)?;
        let (mut items, removed) = (self.list(&refs)?, encode(proposal_ref)?);
        if let Some(at) = items.iter().position(|item| *item == removed) {
            items.remove(at);
            self.put_list(refs, &items)?;
        }
        self.remove(key(Label::QueuedProposal, &(group_id, proposal_ref))?);
        Ok(())
    }

    fn clear_proposal_queue<G: traits::GroupId<CURRENT_VERSION>, R: traits::ProposalRef<CURRENT_VERSION>>(&self, group_id: &G) -> Result<(), StorageError> {
        for proposal_ref in self.queued_proposal_refs::<G, R>(group_id)? {
            self.remove(key(Label::QueuedProposal, &(group_id, &proposal_ref))?);
        }
        self.delete(Label::ProposalRefs, group_id)
    }

    // ---- key pairs of an epoch

    fn write_encryption_epoch_key_pairs<G: traits::GroupId<CURRENT_VERSION>, E: traits::EpochKey<CURRENT_VERSION>, V: traits::HpkeKeyPair<CURRENT_VERSION>>(&self, group_id: &G, epoch: &E, leaf_index: u32, key_pairs: &[V]) -> Result<(), StorageError> {
        self.put(epoch_key(group_id, epoch, leaf_index)?, encode(key_pairs)?);
        Ok(())
    }

    fn encryption_epoch_key_pairs<G: traits::GroupId<CURRENT_VERSION>, E: traits::EpochKey<CURRENT_VERSION>, V: traits::HpkeKeyPair<CURRENT_VERSION>>(&self, group_id: &G, epoch: &E, leaf_index: u32) -> Result<Vec<V>, StorageError> {
        let stored = self.get(&epoch_key(group_id, epoch, leaf_index)?)?;
        stored.map_or_else(|| Ok(Vec::new()), |value| decode(&value))
    }

    fn delete_encryption_epoch_key_pairs<G: traits::GroupId<CURRENT_VERSION>, E: traits::EpochKey<CURRENT_VERSION>>(&self, group_id: &G, epoch: &E, leaf_index: u32) -> Result<(), StorageError> {
        self.remove(epoch_key(group_id, epoch, leaf_index)?);
        Ok(())
    }

    fn write_signature_key_pair<K: traits::SignaturePublicKey<CURRENT_VERSION>, V: traits::SignatureKeyPair<CURRENT_VERSION>>(&self, id: &K, value: &V) -> Result<(), StorageError> {
        self.write(Label::SignatureKeyPair, id, value)
    }

    fn signature_key_pair<K: traits::SignaturePublicKey<CURRENT_VERSION>, V: traits::SignatureKeyPair<CURRENT_VERSION>>(&self, id: &K) -> Result<Option<V>, StorageError> {
        self.read(Label::SignatureKeyPair, id)
    }

    fn delete_signature_key_pair<K: traits::SignaturePublicKey<CURRENT_VERSION>>(&self, id: &K) -> Result<(), StorageError> {
        self.delete(Label::SignatureKeyPair, id)
    }

    fn write_encryption_key_pair<K: traits::EncryptionKey<CURRENT_VERSION>, V: traits::HpkeKeyPair<CURRENT_VERSION>>(&self, id: &K, value: &V) -> Result<(), StorageError> {
        self.write(Label::EncryptionKeyPair, id, value)
    }

    fn encryption_key_pair<V: traits::HpkeKeyPair<CURRENT_VERSION>, K: traits::EncryptionKey<CURRENT_VERSION>>(&self, id: &K) -> Result<Option<V>, StorageError> {
        self.read(Label::EncryptionKeyPair, id)
    }

    fn delete_encryption_key_pair<K: traits::EncryptionKey<CURRENT_VERSION>>(&self, id: &K) -> Result<(), StorageError> {
        self.delete(Label::EncryptionKeyPair, id)
    }

    fn write_key_package<K: traits::HashReference<CURRENT_VERSION>, V: traits::KeyPackage<CURRENT_VERSION>>(&self, id: &K, value: &V) -> Result<(), StorageError> {
        self.write(Label::KeyPackage, id, value)
    }

    fn key_package<K: traits::HashReference<CURRENT_VERSION>, V: traits::KeyPackage<CURRENT_VERSION>>(&self, id: &K) -> Result<Option<V>, StorageError> {
        self.read(Label::KeyPackage, id)
    }

    fn delete_key_package<K: traits::HashReference<CURRENT_VERSION>>(&self, id: &K) -> Result<(), StorageError> {
        self.delete(Label::KeyPackage, id)
    }

    fn write_psk<K: traits::PskId<CURRENT_VERSION>, V: traits::PskBundle<CURRENT_VERSION>>(&self, id: &K, value: &V) -> Result<(), StorageError> {
        self.write(Label::Psk, id, value)
    }

    fn psk<V: traits::PskBundle<CURRENT_VERSION>, K: traits::PskId<CURRENT_VERSION>>(&self, id: &K) -> Result<Option<V>, StorageError> {
        self.read(Label::Psk, id)
    }

    fn delete_psk<K: traits::PskId<CURRENT_VERSION>>(&self, id: &K) -> Result<(), StorageError> {
        self.delete(Label::Psk, id)
    }
}

#[cfg(test)]
mod tests;
