//! The promises' vocabulary: agents, frames, and appends that are expected to end in one way.

use super::Store;
use crate::store::{Accepted, AppendError, PendingAppend, ReadBatch};
use crate::{Access, KeyPackageStock, Refused};
use bytes::Bytes;
use skytale_proto::{
    AccountId, AgentId, ChannelId, ChannelMode, ClaimRule, Detail, Frame, FrameId, Header, LogId, Offset, Record,
};

pub(super) const ALICE: AgentId = AgentId::from_bytes([1; 32]);
pub(super) const BOB: AgentId = AgentId::from_bytes([2; 32]);
pub(super) const CAROL: AgentId = AgentId::from_bytes([3; 32]);
pub(super) const DAVE: AgentId = AgentId::from_bytes([4; 32]);

pub(super) const ACCOUNT: AccountId = AccountId::from_bytes([7; 16]);
pub(super) const OTHER_ACCOUNT: AccountId = AccountId::from_bytes([8; 16]);

/// A bound that no read here reaches.
pub(super) const ALL_BYTES: usize = usize::MAX;
/// A bound that no read here reaches.
pub(super) const ALL_ENTRIES: u64 = u64::MAX;

pub(super) fn at(offset: u64) -> Offset {
    Offset::new(offset)
}

pub(super) fn agent(number: u32) -> AgentId {
    let mut bytes = [0xa6; 32];
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    AgentId::from_bytes(bytes)
}

pub(super) fn frame(log: LogId, author: AgentId, parent: u64, detail: Detail, body: impl Into<Bytes>) -> Frame {
    let header = Header {
        log,
        id: FrameId::generate(),
        author,
        parent: at(parent),
        detail,
    };
    Frame::new(header, body).expect("a frame")
}

pub(super) fn create(channel: ChannelId, author: AgentId) -> Frame {
    let detail = Detail::Create {
        mode: ChannelMode::Mls,
        account: None,
        policy: None,
    };
    frame(channel.log(), author, 0, detail, "create")
}

pub(super) fn create_raw(channel: ChannelId, author: AgentId) -> Frame {
    let detail = Detail::Create {
        mode: ChannelMode::Raw,
        account: Some(ACCOUNT),
        policy: None,
    };
    frame(channel.log(), author, 0, detail, "create")
}

pub(super) fn raw(channel: ChannelId, author: AgentId, account: AccountId) -> Frame {
    frame(channel.log(), author, 0, Detail::Raw { account }, "raw")
}

pub(super) fn message(channel: ChannelId, author: AgentId, parent: u64) -> Frame {
    frame(channel.log(), author, parent, Detail::Message, "message")
}

pub(super) fn proposal(channel: ChannelId, author: AgentId, parent: u64) -> Frame {
    frame(channel.log(), author, parent, Detail::Proposal, "proposal")
}

/// A commit that puts a Welcome in for each agent it adds.
pub(super) fn commit(channel: ChannelId, author: AgentId, parent: u64, adds: &[AgentId], removes: &[AgentId]) -> Frame {
    let detail = Detail::Commit {
        adds: adds.to_vec(),
        removes: removes.to_vec(),
        recipients: adds.to_vec(),
        roster: None,
        policy: None,
    };
    frame(channel.log(), author, parent, detail, "bundle")
}

pub(super) fn key_package(agent: AgentId, last_resort: bool) -> Frame {
    let account = None;
    frame(
        agent.log(),
        agent,
        0,
        Detail::KeyPackage { last_resort, account },
        "key package",
    )
}

/// A package as a relay node takes it: with its owner's account.
pub(super) fn key_package_of(agent: AgentId, account: AccountId, last_resort: bool) -> Frame {
    let account = Some(account);
    frame(
        agent.log(),
        agent,
        0,
        Detail::KeyPackage { last_resort, account },
        "key package",
    )
}

pub(super) fn claim(of: AgentId, by: AgentId) -> Frame {
    frame(of.log(), by, 0, Detail::KeyPackageClaim { account: None }, "")
}

/// A claim as a relay node takes it: with its author's account.
pub(super) fn claim_as(of: AgentId, by: AgentId, account: AccountId) -> Frame {
    let account = Some(account);
    frame(of.log(), by, 0, Detail::KeyPackageClaim { account }, "")
}

pub(super) fn policy(agent: AgentId, account: AccountId, rule: ClaimRule) -> Frame {
    frame(agent.log(), agent, 0, Detail::KeyPackagePolicy { account, rule }, "")
}

/// Has an agent claim a package of another, so that it may add it.
pub(super) async fn claimed(store: &Store, of: AgentId, by: AgentId) {
    accept(store, &key_package(of, false)).await;
    accept(store, &claim(of, by)).await;
}

pub(super) fn trim(log: LogId, up_to: u64) -> Frame {
    frame(log, ALICE, 0, Detail::Trim { up_to: at(up_to) }, "")
}

/// Queues a frame.
pub(super) async fn queue(store: &Store, frame: &Frame) -> PendingAppend {
    store.append(frame.clone()).await.expect("the store takes appends")
}

/// Appends a frame and waits for the verdict.
pub(super) async fn append(store: &Store, frame: &Frame) -> Result<Accepted, AppendError> {
    queue(store, frame).await.verdict().await
}

/// Appends a frame that becomes an entry now.
pub(super) async fn accept(store: &Store, frame: &Frame) -> Accepted {
    let accepted = append(store, frame).await.expect("accepted");
    assert!(duplicate_fits(store, &accepted, false), "the frame is new");
    accepted
}

/// Whether a verdict says of a frame that it is a duplicate exactly if it is one. A store that keeps what its logs refuse may write
/// a frame twice, where the answer to the first write is late, and then give the verdict of the second one.
pub(super) fn duplicate_fits(store: &Store, accepted: &Accepted, expected: bool) -> bool {
    accepted.duplicate == expected || accepted.duplicate && store.keeps_refused()
}

/// Appends a frame that was an entry before.
pub(super) async fn again(store: &Store, frame: &Frame) -> Accepted {
    let accepted = append(store, frame).await.expect("a duplicate");
    assert!(accepted.duplicate, "the frame was accepted before");
    accepted
}

/// Appends a frame that the fold refuses.
pub(super) async fn refuse(store: &Store, frame: &Frame) -> Refused {
    match append(store, frame).await {
        Err(AppendError::Refused(refused)) => refused,
        other => panic!("expected a refusal, got {other:?}"),
    }
}

/// A new channel whose creator is Alice. Its head and its handshake head are 1.
pub(super) async fn new_channel(store: &Store) -> ChannelId {
    let channel = ChannelId::generate();
    assert_eq!(accept(store, &create(channel, ALICE)).await.offset, at(1));
    channel
}

/// The records of a batch; checks that they follow the cursor without a gap and end where the batch says.
pub(super) fn records(batch: &ReadBatch, after: u64) -> Vec<Record> {
    let bytes: Vec<u8> = batch.records.iter().flatten().copied().collect();
    let records: Vec<Record> = Record::decode_batch(bytes.into())
        .map(|record| record.expect("a record"))
        .collect();
    for (record, expected) in records.iter().zip(after + 1..) {
        assert_eq!(record.offset, at(expected), "entries are contiguous");
    }
    assert_eq!(batch.last, at(after + records.len() as u64));
    assert!(batch.last <= batch.head, "a read never goes past the head");
    records
}

/// All entries after a cursor.
pub(super) async fn read_all(store: &Store, log: LogId, after: u64) -> Vec<Record> {
    let batch = store
        .read(log, at(after), ALL_BYTES, ALL_ENTRIES)
        .await
        .expect("a read");
    assert_eq!(batch.last, batch.head, "an unbounded read goes to the head");
    records(&batch, after)
}

/// All frames of a log.
pub(super) async fn frames(store: &Store, log: LogId) -> Vec<Frame> {
    let decode = |record: Record| Frame::decode(record.payload).expect("a frame");
    read_all(store, log, 0).await.into_iter().map(decode).collect()
}

pub(super) async fn head(store: &Store, log: LogId) -> Offset {
    *store.watch_head(log).await.expect("a watch").borrow()
}

pub(super) async fn access(store: &Store, log: LogId, agent: AgentId, after: u64) -> Access {
    store.access(log, agent, ACCOUNT, at(after)).await.expect("an answer")
}

pub(super) async fn stock(store: &Store, agent: AgentId) -> KeyPackageStock {
    store.key_packages(agent).await.expect("an answer")
}
