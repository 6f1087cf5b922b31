use super::*;
use openmls_memory_storage::MemoryStorage;
use openmls_traits::storage::{StorageProvider, traits};
use proptest::prelude::*;
use serde::{Deserialize, Serialize};

/// Stands for every kind of key and value: OpenMLS' own cannot be made outside of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Thing(Vec<u8>);

impl Key<CURRENT_VERSION> for Thing {}
impl Entity<CURRENT_VERSION> for Thing {}

macro_rules! things {
    ($($kind:ident)*) => { $(impl traits::$kind<CURRENT_VERSION> for Thing {})* };
}

things!(
    GroupId SignaturePublicKey HashReference PskId EncryptionKey EpochKey QueuedProposal TreeSync GroupContext
    InterimTranscriptHash ConfirmationTag SignatureKeyPair PskBundle HpkeKeyPair GroupState GroupEpochSecrets
    LeafNodeIndex MessageSecrets ResumptionPskStore KeyPackage MlsGroupJoinConfig LeafNode ProposalRef
);

#[derive(Clone, Debug)]
enum Step {
    Write(u8, u8, u8),
    Delete(u8, u8),
    Append(u8, u8),
    Queue(u8, u8, u8),
    RemoveProposal(u8, u8),
    ClearQueue(u8),
    Commit,
    Rollback,
}

fn step() -> impl Strategy<Value = Step> {
    let (kind, key, value) = (0..15u8, 0..3u8, any::<u8>());
    prop_oneof![
        8 => (kind.clone(), key.clone(), value).prop_map(|(kind, key, value)| Step::Write(kind, key, value)),
        3 => (kind, key.clone()).prop_map(|(kind, key)| Step::Delete(kind, key)),
        2 => (key.clone(), value).prop_map(|(key, value)| Step::Append(key, value)),
        3 => (key.clone(), 0..4u8, value).prop_map(|(key, id, value)| Step::Queue(key, id, value)),
        2 => (key.clone(), 0..4u8).prop_map(|(key, id)| Step::RemoveProposal(key, id)),
        1 => key.prop_map(Step::ClearQueue),
        2 => Just(Step::Commit),
        1 => Just(Step::Rollback),
    ]
}

fn thing(byte: u8) -> Thing {
    Thing(vec![byte; usize::from(byte % 4) + 1])
}

fn leaf(key: u8) -> u32 {
    u32::from(key) + 7
}

fn apply<S: StorageProvider<CURRENT_VERSION>>(storage: &S, step: &Step) -> Result<(), S::Error> {
    match *step {
        Step::Write(kind, key, value) => {
            let (key, value) = (&thing(key), &thing(value));
            match kind {
                0 => storage.write_tree(key, value),
                1 => storage.write_interim_transcript_hash(key, value),
                2 => storage.write_context(key, value),
                3 => storage.write_confirmation_tag(key, value),
                4 => storage.write_resumption_psk_store(key, value),
                5 => storage.write_own_leaf_index(key, value),
                6 => storage.write_group_epoch_secrets(key, value),
                7 => storage.write_group_state(key, value),
                8 => storage.write_mls_join_config(key, value),
                9 => storage.write_message_secrets(key, value),
                10 => storage.write_signature_key_pair(key, value),
                11 => storage.write_encryption_key_pair(key, value),
                12 => storage.write_key_package(key, value),
                13 => storage.write_psk(key, value),
                _ => storage.write_encryption_epoch_key_pairs(key, key, 7, &[value.clone(), thing(9)]),
            }
        }
        Step::Delete(kind, key) => {
            let key = &thing(key);
            match kind {
                0 => storage.delete_tree(key),
                1 => storage.delete_interim_transcript_hash(key),
                2 => storage.delete_context(key),
                3 => storage.delete_confirmation_tag(key),
                4 => storage.delete_all_resumption_psk_secrets(key),
                5 => storage.delete_own_leaf_index(key),
                6 => storage.delete_group_epoch_secrets(key),
                7 => storage.delete_group_state(key),
                8 => storage.delete_group_config(key),
                9 => storage.delete_message_secrets(key),
                10 => storage.delete_signature_key_pair(key),
                11 => storage.delete_encryption_key_pair(key),
                12 => storage.delete_key_package(key),
                13 => storage.delete_psk(key),
                _ => {
                    storage.delete_own_leaf_nodes(key)?;
                    storage.delete_encryption_epoch_key_pairs(key, key, 7)
                }
            }
        }
        Step::Append(key, value) => storage.append_own_leaf_node(&thing(key), &thing(value)),
        Step::Queue(key, id, value) => storage.queue_proposal(&thing(key), &thing(id), &thing(value)),
        Step::RemoveProposal(key, id) => storage.remove_proposal(&thing(key), &thing(id)),
        Step::ClearQueue(key) => storage.clear_proposal_queue::<Thing, Thing>(&thing(key)),
        Step::Commit | Step::Rollback => Ok(()),
    }
}

type Seen = (Vec<Option<Thing>>, Vec<Vec<Thing>>, Vec<(Thing, Thing)>);

fn see<S: StorageProvider<CURRENT_VERSION>>(storage: &S, key: u8) -> Result<Seen, S::Error> {
    let key = &thing(key);
    let values = vec![
        storage.tree(key)?,
        storage.interim_transcript_hash(key)?,
        storage.group_context(key)?,
        storage.confirmation_tag(key)?,
        storage.resumption_psk_store(key)?,
        storage.own_leaf_index(key)?,
        storage.group_epoch_secrets(key)?,
        storage.group_state(key)?,
        storage.mls_group_join_config(key)?,
        storage.message_secrets(key)?,
        storage.signature_key_pair(key)?,
        storage.encryption_key_pair(key)?,
        storage.key_package(key)?,
        storage.psk(key)?,
    ];
    let lists = vec![
        storage.own_leaf_nodes(key)?,
        storage.queued_proposal_refs(key)?,
        storage.encryption_epoch_key_pairs(key, key, 7)?,
        storage.encryption_epoch_key_pairs(key, key, leaf(1))?,
    ];
    Ok((values, lists, storage.queued_proposals(key)?))
}

fn database() -> Connection {
    let connection = Connection::open_in_memory().expect("opens");
    connection
        .execute_batch("CREATE TABLE mls (key BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID")
        .expect("made");
    connection
}

fn copy(memory: &MemoryStorage) -> MemoryStorage {
    let values = memory.values.read().expect("not poisoned").clone();
    MemoryStorage { values: values.into() }
}

/// The memory storage queues a reference as often as it is asked to, and panics when it reads one whose proposal is gone.
/// OpenMLS queues each proposal once.
fn is_queued(memory: &MemoryStorage, key: u8, id: u8) -> bool {
    let refs: Vec<Thing> = memory.queued_proposal_refs(&thing(key)).expect("listed");
    refs.contains(&thing(id))
}

proptest! {
    #[test]
    fn it_keeps_what_the_memory_storage_keeps(steps in proptest::collection::vec(step(), 0..60)) {
        let connection = database();
        let mut committed = MemoryStorage::default();
        let mut memory = MemoryStorage::default();
        let mut storage = Storage::new(&connection);
        for step in &steps {
            match step {
                Step::Queue(key, id, _) if is_queued(&memory, *key, *id) => continue,
                Step::Commit => {
                    storage.flush().expect("flushed");
                    committed = copy(&memory);
                    // As the next transaction: nothing is collected, all is read from the database.
                    storage = Storage::new(&connection);
                }
                Step::Rollback => {
                    storage.discard();
                    memory = copy(&committed);
                }
                step => {
                    apply(&memory, step).expect("stored");
                    apply(&storage, step).expect("stored");
                }
            }
            for key in 0..3 {
                prop_assert_eq!(see(&storage, key).expect("read"), see(&memory, key).expect("read"));
            }
        }
    }
}

#[test]
fn only_the_last_value_of_a_key_reaches_the_database() {
    let connection = database();
    let storage = Storage::new(&connection);
    for byte in 0..100 {
        storage.write_tree(&thing(1), &thing(byte)).expect("stored");
    }
    assert_eq!(
        connection.query_row("SELECT count(*) FROM mls", [], |row| row.get(0)),
        Ok(0)
    );
    let before: u64 = connection.total_changes();
    storage.flush().expect("flushed");
    // And the group's seal.
    assert_eq!(connection.total_changes() - before, 2);
}

#[test]
fn deferred_secrets_are_not_flushed_before_they_are_settled() {
    let connection = database();
    let storage = Storage::new(&connection);
    storage.write_message_secrets(&thing(1), &thing(1)).expect("stored");
    storage.flush().expect("flushed");
    storage.defer_secrets();
    storage.write_message_secrets(&thing(1), &thing(2)).expect("noted");
    assert!(storage.is_unsettled(&thing(1)).expect("asked"));
    assert!(matches!(storage.flush(), Err(StorageError::Unsettled)));
    let read: Result<Option<Thing>, _> = storage.message_secrets(&thing(1));
    assert!(matches!(read, Err(StorageError::Unsettled)));
    storage
        .settle(|| storage.write_message_secrets(&thing(1), &thing(3)))
        .expect("stored");
    storage.flush().expect("flushed");
    let read: Option<Thing> = Storage::new(&connection).message_secrets(&thing(1)).expect("read");
    assert_eq!(read, Some(thing(3)));
    // A group that is deleted has no secrets to settle.
    storage.write_message_secrets(&thing(1), &thing(4)).expect("noted");
    storage.delete_message_secrets(&thing(1)).expect("deleted");
    storage.flush().expect("flushed");
    let read: Option<Thing> = Storage::new(&connection).message_secrets(&thing(1)).expect("read");
    assert_eq!(read, None);
}

#[test]
fn a_list_that_is_cut_is_refused() {
    let connection = database();
    let storage = Storage::new(&connection);
    storage.append_own_leaf_node(&thing(1), &thing(3)).expect("stored");
    storage.flush().expect("flushed");
    // As a version without seals left it.
    connection
        .execute("DELETE FROM mls WHERE key >= x'13'", [])
        .expect("deleted");
    connection
        .execute("UPDATE mls SET value = substr(value, 1, length(value) - 1)", [])
        .expect("cut");
    let read: Result<Vec<Thing>, _> = Storage::new(&connection).own_leaf_nodes(&thing(1));
    assert!(matches!(read, Err(StorageError::Decode(_))));
}

/// A value, as the database has it.
fn raw(connection: &Connection, label: Label) -> Vec<u8> {
    let key = key(label, &thing(1)).expect("encoded");
    connection
        .query_row("SELECT value FROM mls WHERE key = ?1", [key], |row| row.get(0))
        .expect("there")
}

fn overwrite(connection: &Connection, label: Label, value: &[u8]) {
    let key = key(label, &thing(1)).expect("encoded");
    connection
        .execute("INSERT OR REPLACE INTO mls VALUES (?1, ?2)", (key, value))
        .expect("written");
}

#[test]
fn a_value_of_another_moment_than_the_rest_of_its_group_is_refused() {
    let connection = database();
    let write = |byte: u8| {
        let storage = Storage::new(&connection);
        storage.write_tree(&thing(1), &thing(byte)).expect("stored");
        storage.write_context(&thing(1), &thing(byte)).expect("stored");
        storage.seal_position(&thing(1), vec![byte]).expect("stored");
        storage.flush().expect("flushed");
    };
    let tree = || -> Result<Option<Thing>, StorageError> { Storage::new(&connection).tree(&thing(1)) };
    write(1);
    let early = raw(&connection, Label::Tree);
    let early_seal = raw(&connection, Label::Seal);
    write(2);
    let late = raw(&connection, Label::Tree);
    assert_eq!(tree().expect("sound"), Some(thing(2)));
    let position = |byte: u8| Storage::new(&connection).check_position(&thing(1), &[byte]);
    assert!(position(2).is_ok());
    assert!(matches!(position(1), Err(StorageError::Torn)));

    overwrite(&connection, Label::Tree, &early);
    let storage = Storage::new(&connection);
    let read: Result<Option<Thing>, _> = storage.tree(&thing(1));
    assert!(matches!(read, Err(StorageError::Torn)));
    assert!(
        storage.failure().is_some_and(|failure| failure.is_damage),
        "noted, whatever OpenMLS makes of it"
    );
    let context: Result<Option<Thing>, _> = storage.group_context(&thing(1));
    assert_eq!(context.expect("sound"), Some(thing(2)));

    overwrite(&connection, Label::Tree, &late);
    overwrite(&connection, Label::Seal, &early_seal);
    assert!(matches!(tree(), Err(StorageError::Torn)), "an old seal");
    write(3);
    let deleted = key(Label::Tree, &thing(1)).expect("encoded");
    connection
        .execute("DELETE FROM mls WHERE key = ?1", [deleted])
        .expect("deleted");
    assert!(matches!(tree(), Err(StorageError::Torn)), "one that is missing");
    overwrite(&connection, Label::JoinConfig, &early);
    let config: Result<Option<Thing>, _> = Storage::new(&connection).mls_group_join_config(&thing(1));
    assert!(matches!(config, Err(StorageError::Torn)), "one that is too many");
    overwrite(&connection, Label::Seal, &[1; 33]);
    assert!(matches!(tree(), Err(StorageError::Torn)), "a seal that is none");
    // Other groups are alone.
    let other: Result<Option<Thing>, _> = Storage::new(&connection).tree(&thing(2));
    assert_eq!(other.expect("sound"), None);
}

#[test]
fn a_group_that_was_never_sealed_is_read_and_sealed_whole_when_it_is_written() {
    let connection = database();
    let storage = Storage::new(&connection);
    storage.write_tree(&thing(1), &thing(1)).expect("stored");
    storage.write_context(&thing(1), &thing(1)).expect("stored");
    storage.queue_proposal(&thing(1), &thing(4), &thing(5)).expect("stored");
    storage
        .write_encryption_epoch_key_pairs(&thing(1), &thing(6), 3, &[thing(7)])
        .expect("stored");
    storage.write_tree(&thing(2), &thing(1)).expect("stored");
    storage.flush().expect("flushed");
    let sealed = raw(&connection, Label::Seal);
    connection
        .execute("DELETE FROM mls WHERE key >= x'13'", [])
        .expect("deleted");

    let storage = Storage::new(&connection);
    let read: Result<Option<Thing>, _> = storage.tree(&thing(1));
    assert_eq!(read.expect("read"), Some(thing(1)));
    storage.write_context(&thing(1), &thing(2)).expect("stored");
    storage.flush().expect("flushed");
    assert_eq!(
        raw(&connection, Label::Seal).len(),
        sealed.len(),
        "all that there is of it"
    );
    let proposals: Result<Vec<(Thing, Thing)>, _> = storage.queued_proposals(&thing(1));
    assert_eq!(proposals.expect("sound"), [(thing(4), thing(5))]);
    let pairs: Result<Vec<Thing>, _> = storage.encryption_epoch_key_pairs(&thing(1), &thing(6), 3);
    assert_eq!(pairs.expect("sound"), [thing(7)]);
}
