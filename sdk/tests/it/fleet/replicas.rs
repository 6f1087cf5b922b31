//! Relay nodes with a replica each, over real NATS servers; and agents that each know only one of them.

use super::nodes::Fleet;
use crate::agent::world::soon;
use bytes::Bytes;
use skytale_log_store::cluster::{Account, Cluster};
use skytale_log_store::fleet::{FleetConfig, RegionConfig};
use skytale_log_store::{FleetStore, LogStore};
use skytale_proto::{AgentId, ChannelId, Detail, Frame, FrameId, Header, LogId, Offset, Record, Region};
use skytale_sdk::{Agent, Channel};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

/// Messages of a shard from one checkpoint to the next.
const CHECKPOINT_EVERY: u64 = 20;
/// Time that agents and nodes wait for an answer: longer than a test holds one back.
const PATIENCE: Duration = Duration::from_secs(90);

/// Nodes of one fleet.
pub(crate) struct Replicas {
    pub(crate) fleet: Fleet,
    stores: Vec<Arc<FleetStore>>,
    _dirs: Vec<TempDir>,
}

/// A store with one shard, in a folder.
pub(crate) async fn store(account: &Account, dir: &Path, retention: Option<Duration>) -> Arc<FleetStore> {
    let store = FleetStore::open(settings(account, dir, retention))
        .await
        .expect("the node opens");
    soon("a node that has caught up", store.ready()).await.expect("ready");
    Arc::new(store)
}

/// The settings of such a node, and of the fleet's keeper.
pub(crate) fn settings(account: &Account, dir: &Path, retention: Option<Duration>) -> FleetConfig {
    FleetConfig {
        regions: vec![RegionConfig {
            region: Region(0),
            shards: 1,
            cluster: None,
            tags: Vec::new(),
        }],
        checkpoint_every: CHECKPOINT_EVERY,
        retention,
        retention_every: Duration::from_millis(200),
        append_timeout: PATIENCE,
        ..account.settings(dir)
    }
}

/// An account of the cluster that these tests share.
pub(crate) async fn account() -> Account {
    Cluster::shared().await.account()
}

impl Replicas {
    /// Some nodes with nothing on their disks.
    pub(crate) async fn start(account: &Account, count: usize) -> Self {
        let (mut dirs, mut stores) = (Vec::new(), Vec::new());
        for _ in 0..count {
            let dir = tempfile::tempdir().expect("a folder");
            stores.push(store(account, dir.path(), None).await);
            dirs.push(dir);
        }
        let shown = stores.iter().map(|store| Arc::clone(store) as Arc<dyn LogStore>);
        let mut fleet = Fleet::over(shown.collect(), 15_000).await;
        fleet.answer_timeout = PATIENCE;
        for node in &fleet.nodes {
            node.store.keep_seen();
        }
        Self {
            fleet,
            stores,
            _dirs: dirs,
        }
    }

    /// An agent that works with one node alone, and is current.
    pub(crate) async fn agent(&self, name: &str, node: usize) -> Agent {
        let agent = self.open(name, node).await;
        agent.connect().await.expect("a socket");
        soon("an agent current", agent.caught_up()).await.expect("current");
        agent
    }

    /// The same, not connected.
    pub(crate) async fn open(&self, name: &str, node: usize) -> Agent {
        let config = self.fleet.config_at(name, node);
        soon("a vault opened", Agent::open(config)).await.expect("opened")
    }

    pub(crate) fn vault(&self, name: &str) -> PathBuf {
        self.fleet.config(name, 0).vault
    }

    /// Trims everything in a log, like retention.
    pub(crate) async fn trim(&self, log: LogId) -> Offset {
        let store = &self.stores[0];
        let up_to = *store.watch_head(log).await.expect("known").borrow();
        let header = Header {
            log,
            id: FrameId::generate(),
            author: AgentId::from_bytes([0; 32]),
            parent: Offset::ZERO,
            detail: Detail::Trim { up_to },
        };
        let frame = Frame::new(header, Bytes::new()).expect("a frame");
        let pending = store.append(frame).await.expect("taken");
        let trimmed = soon("trimmed", pending.verdict()).await.expect("trimmed");
        // At all nodes, before anybody is shown the log there.
        for store in &self.stores {
            let mut head = store.watch_head(log).await.expect("known");
            let there = head.wait_for(|head| *head >= trimmed.offset);
            soon("a Trim followed", there).await.expect("a store");
        }
        up_to
    }

    /// All entries of a channel after an offset, as the first node shows them.
    pub(crate) async fn entries(&self, channel: ChannelId, after: Offset) -> BTreeMap<Offset, Frame> {
        let (mut entries, mut after) = (BTreeMap::new(), after);
        loop {
            let read = self.stores[0].read(channel.log(), after, 1 << 20, u64::MAX).await;
            let batch = read.expect("read");
            if batch.last == after {
                return entries;
            }
            after = batch.last;
            for record in batch.records.into_iter().flat_map(Record::decode_batch) {
                let record = record.expect("a record");
                entries.insert(record.offset, Frame::decode(record.payload).expect("a frame"));
            }
        }
    }

    /// Returns every frame that any agent has offered to any node, whatever its outcome.
    pub(crate) fn offered(&self) -> Vec<Frame> {
        let nodes = self.fleet.nodes.iter();
        nodes.flat_map(|node| node.store.seen()).collect()
    }

    pub(crate) async fn end(self) {
        self.fleet.end().await;
        for store in self.stores {
            soon("closed", store.close()).await.expect("closed");
        }
    }
}

/// Closes an agent cleanly, so that its vault can be examined.
pub(crate) async fn close(agent: Agent) {
    soon("closed", agent.close(Duration::from_secs(20))).await;
}

/// Returns an agent's handle of a channel.
pub(crate) async fn channel_at(agent: &Agent, id: ChannelId) -> Channel {
    agent.channel(id).await.expect("in the vault")
}
