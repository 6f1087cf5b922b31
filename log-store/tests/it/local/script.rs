//! The tests' vocabulary: folders, frames, and appends that are expected to end in one way.

use skytale_log_store::{Accepted, AppendError, LocalConfig, LocalStore, LogStore as _, StoreError};
use skytale_proto::{
    AccountId, AgentId, ChannelId, ChannelMode, Detail, Frame, FrameId, Header, LogId, Offset, Record,
};
use std::fs;
use std::path::{Path, PathBuf};

pub(crate) const ALICE: AgentId = AgentId::from_bytes([1; 32]);
pub(crate) const BOB: AgentId = AgentId::from_bytes([2; 32]);
pub(crate) const ACCOUNT: AccountId = AccountId::from_bytes([7; 16]);

/// Settings that make a small store do what a large one does: segments roll, the cache evicts, states are dropped.
pub(crate) fn small(dir: &Path) -> LocalConfig {
    LocalConfig {
        segment_bytes: 32 * 1024,
        cache_bytes: 16 * 1024,
        states_max: 4,
        index_cache_bytes: 4 * 1024 * 1024,
        ..LocalConfig::new(dir)
    }
}

/// Opens a store that must open.
pub(crate) async fn open(config: LocalConfig) -> LocalStore {
    LocalStore::open(config).await.expect("the store opens")
}

/// Closes a store that must close.
pub(crate) async fn close(store: LocalStore) {
    store.close().await.expect("the store closes");
}

pub(crate) fn at(offset: u64) -> Offset {
    Offset::new(offset)
}

pub(crate) fn frame(log: LogId, author: AgentId, parent: u64, detail: Detail, body: &[u8]) -> Frame {
    let header = Header {
        log,
        id: FrameId::generate(),
        author,
        parent: at(parent),
        detail,
    };
    Frame::new(header, body.to_vec()).expect("a frame")
}

pub(crate) fn create(channel: ChannelId) -> Frame {
    let detail = Detail::Create {
        mode: ChannelMode::Mls,
        account: None,
        policy: None,
    };
    frame(channel.log(), ALICE, 0, detail, b"create")
}

pub(crate) fn message(channel: ChannelId, parent: u64, body: &[u8]) -> Frame {
    frame(channel.log(), ALICE, parent, Detail::Message, body)
}

/// A commit that adds agents and puts a Welcome in for each.
pub(crate) fn bundle(channel: ChannelId, parent: u64, adds: &[AgentId]) -> Frame {
    let detail = Detail::Commit {
        adds: adds.to_vec(),
        removes: Vec::new(),
        recipients: adds.to_vec(),
        roster: None,
        policy: None,
    };
    frame(channel.log(), ALICE, parent, detail, b"bundle")
}

pub(crate) fn key_package(agent: AgentId, last_resort: bool) -> Frame {
    frame(
        agent.log(),
        agent,
        0,
        Detail::KeyPackage {
            last_resort,
            account: None,
        },
        b"key package",
    )
}

pub(crate) fn claim(of: AgentId) -> Frame {
    claim_by(of, ALICE)
}

pub(crate) fn claim_by(of: AgentId, by: AgentId) -> Frame {
    frame(of.log(), by, 0, Detail::KeyPackageClaim { account: None }, b"")
}

/// Has Alice claim a package of each agent, so that she may add it: two entries on its log.
pub(crate) async fn claimed(store: &LocalStore, agents: &[AgentId]) {
    for agent in agents {
        accept(store, &key_package(*agent, false)).await;
        accept(store, &claim(*agent)).await;
    }
}

pub(crate) async fn append(store: &LocalStore, frame: &Frame) -> Result<Accepted, AppendError> {
    store.append(frame.clone()).await?.verdict().await
}

/// Appends a frame that becomes an entry now.
pub(crate) async fn accept(store: &LocalStore, frame: &Frame) -> Accepted {
    let accepted = append(store, frame).await.expect("accepted");
    assert!(!accepted.duplicate, "the frame is new");
    accepted
}

/// A new channel with messages in it; gives the frames, Create first.
pub(crate) async fn channel_with(store: &LocalStore, messages: usize, body: &[u8]) -> (ChannelId, Vec<Frame>) {
    let channel = ChannelId::generate();
    let mut frames = vec![create(channel)];
    frames.extend((0..messages).map(|_| message(channel, 1, body)));
    for frame in &frames {
        accept(store, frame).await;
    }
    (channel, frames)
}

/// All entries after a cursor, in small reads; checks that they are dense.
pub(crate) async fn entries(store: &LocalStore, log: LogId, after: Offset) -> Result<Vec<Record>, StoreError> {
    let mut found: Vec<Record> = Vec::new();
    let mut cursor = after;
    loop {
        let batch = store.read(log, cursor, 8 * 1024, 50).await?;
        for record in batch.records.into_iter().flat_map(Record::decode_batch) {
            let record = record.expect("a whole record");
            assert_eq!(record.offset, cursor.next(), "dense");
            cursor = record.offset;
            found.push(record);
        }
        assert_eq!(batch.last, cursor);
        if cursor == batch.head {
            return Ok(found);
        }
    }
}

/// The frames of a log are these, from its first entry on.
pub(crate) async fn holds(store: &LocalStore, log: LogId, frames: &[Frame]) {
    let found = entries(store, log, Offset::ZERO).await.expect("the log can be read");
    let found: Vec<_> = found.into_iter().map(|record| record.payload).collect();
    let expected: Vec<_> = frames.iter().map(|frame| frame.encoded().clone()).collect();
    assert!(
        found == expected,
        "{} entries, expected {}",
        found.len(),
        expected.len()
    );
}

/// Segment files, in order.
pub(crate) fn segments(dir: &Path) -> Vec<PathBuf> {
    let listed = fs::read_dir(dir.join("segments")).expect("a store's folder");
    let mut paths: Vec<PathBuf> = listed.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    paths
}

/// Copies a folder with all that is in it.
pub(crate) fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("a type").is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("copied");
        }
    }
}

/// A copy of a store's files, as a crash would leave them: the lock is nobody's, the index is gone.
pub(crate) fn copy_of_segments(from: &Path, to: &Path) {
    copy_folder(&from.join("segments"), &to.join("segments"));
    fs::copy(from.join("FORMAT"), to.join("FORMAT")).expect("copied");
}

/// Returns the first position of bytes in a file.
pub(crate) fn find(bytes: &[u8], needle: &[u8]) -> usize {
    let mut places = bytes.windows(needle.len()).enumerate();
    let found = places.find(|(_, window)| *window == needle);
    found.expect("the bytes are there").0
}

/// Flips a bit of a file's byte.
pub(crate) fn flip(path: &Path, place: usize) {
    let mut bytes = fs::read(path).expect("read");
    bytes[place] ^= 1;
    fs::write(path, bytes).expect("written");
}
