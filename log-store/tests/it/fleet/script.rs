//! The vocabulary of the fleet's tests.

use super::cluster::{Account, Cluster};
use async_nats::jetstream::stream::Config;
use skytale_log_store::fleet::{FleetConfig, Keeper};
use skytale_log_store::{Accepted, AppendError, FleetStore, LogStore as _, PendingAppend, StoreError};
use skytale_proto::{AgentId, ChannelId, Frame, Offset};
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub(crate) use crate::local::script::{ACCOUNT, BOB, at, bundle, claim, claim_by, create, key_package, message};

/// Waiting for longer is hanging.
pub(crate) const HANGING: Duration = Duration::from_secs(120);

/// Settings of a node in a test: few shards, short times.
pub(crate) fn settings(account: &Account, dir: &Path) -> FleetConfig {
    account.settings(dir)
}

/// Number of rounds of something random: `count`, or `SKYTALE_ROUNDS` times that.
pub(crate) fn rounds(count: u32) -> u32 {
    let times = std::env::var("SKYTALE_ROUNDS").map(|times| times.parse().expect("SKYTALE_ROUNDS is a number"));
    count * times.unwrap_or(1)
}

/// Opens a node that must open, and waits until it has caught up.
pub(crate) async fn open(config: FleetConfig) -> FleetStore {
    let store = FleetStore::open(config).await.expect("the node opens");
    store.ready().await.expect("it catches up");
    store
}

/// Time for which the keeper of a test listens to nodes, which answer at once.
pub(crate) const HEARS_FOR: Duration = Duration::from_millis(500);

/// The fleet's keeper, as long as this is there.
pub(crate) struct Keeping {
    ended: CancellationToken,
    _task: JoinHandle<()>,
}

impl Keeping {
    /// Begins to keep a fleet with such nodes.
    pub(crate) fn start(config: FleetConfig) -> Self {
        let (keeper, ended) = (Keeper::new(config).hearing_for(HEARS_FOR), CancellationToken::new());
        let token = ended.clone();
        let task = tokio::spawn(async move { keeper.run(&token, |_| {}).await });
        Self { ended, _task: task }
    }
}

impl Drop for Keeping {
    fn drop(&mut self) {
        self.ended.cancel();
    }
}

/// Returns the messages written for checkpoints of a region, by subject: how many.
pub(crate) async fn checkpoints(account: &Account, region: u8, last: &str) -> Vec<(String, usize)> {
    let context = account.context().await.expect("JetStream");
    let Ok(stream) = context.get_stream(format!("SKYTALE_CHECKPOINTS_{region}")).await else {
        return Vec::new();
    };
    let Ok(mut subjects) = stream
        .info_with_subjects(format!("skytale.checkpoint.{region}.*.*.*.{last}"))
        .await
    else {
        return Vec::new();
    };
    let mut found = Vec::new();
    while let Some(Ok(subject)) = futures_util::StreamExt::next(&mut subjects).await {
        found.push(subject);
    }
    found.sort();
    found
}

/// Changes the settings of a stream. Retries until its leader takes them.
pub(crate) async fn update_stream(account: &Account, config: &Config) {
    let context = account.context().await.expect("JetStream");
    let begun = Instant::now();
    while let Err(error) = context.update_stream(config).await {
        assert!(begun.elapsed() < HANGING, "{}: {error}", config.name);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Deletes an account's streams, so that the shared cluster stays light.
pub(crate) struct Streams(pub(crate) Account);

impl Drop for Streams {
    fn drop(&mut self) {
        let account = self.0.clone();
        let deleted = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.map(|runtime| runtime.block_on(delete_streams(&account)))
        });
        drop(deleted.join());
    }
}

async fn delete_streams(account: &Account) {
    use futures_util::StreamExt as _;
    let Ok(context) = account.context().await else { return };
    let names: Vec<String> = context
        .stream_names()
        .filter_map(|name| async { name.ok() })
        .collect()
        .await;
    for name in names {
        drop(context.delete_stream(name).await);
    }
}

/// An account of the shared cluster, whose streams go with what is given.
pub(crate) async fn shared_account() -> (Account, Streams) {
    let account = Cluster::shared().await.account();
    (account.clone(), Streams(account))
}

pub(crate) async fn append(store: &FleetStore, frame: &Frame) -> Result<Accepted, AppendError> {
    store.append(frame.clone()).await?.verdict().await
}

/// Queues frames one behind the other.
pub(crate) async fn queue(store: &FleetStore, frames: &[Frame]) -> Vec<PendingAppend> {
    let mut pending = Vec::new();
    for frame in frames {
        pending.push(store.append(frame.clone()).await.expect("queued"));
    }
    pending
}

/// Waits for the answers to frames that an author sent one behind the other.
pub(crate) async fn told(pending: Vec<PendingAppend>) -> Vec<Result<Accepted, AppendError>> {
    let mut told = Vec::new();
    for append in pending {
        told.push(append.verdict().await);
    }
    told
}

/// The reason for which a store stops.
pub(crate) async fn why_stopped(store: &FleetStore) -> String {
    let mut stopped = store.stopped();
    let reason = tokio::time::timeout(HANGING, stopped.wait_for(Option::is_some)).await;
    let reason = reason.expect("it stops").expect("the store is there").clone();
    reason.unwrap_or_default()
}

/// Has Alice claim a package of each agent, so that she may add it: two entries on its log.
pub(crate) async fn claimed(store: &FleetStore, agents: &[AgentId]) {
    for agent in agents {
        for frame in [key_package(*agent, false), claim(*agent)] {
            accept(store, &frame).await;
        }
    }
}

/// Appends until it is taken, as an outbox does.
pub(crate) async fn taken_at_last(store: &FleetStore, frame: &Frame) -> Offset {
    accept(store, frame).await.offset
}

/// Appends a frame until it is an entry, as an outbox does. A new frame may be a duplicate too: if an attempt got no
/// answer in time, the entry is its copy, and the acknowledged one repeats it.
pub(crate) async fn accept(store: &FleetStore, frame: &Frame) -> Accepted {
    let accepted = Box::pin(async {
        loop {
            match append(store, frame).await {
                Ok(accepted) => return accepted,
                Err(AppendError::Store(StoreError::Stopped { reason })) => panic!("the store has stopped: {reason}"),
                // What the log refuses is refused the next time as well.
                Err(error) => assert!(error.code().holds_log(), "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let accepted = tokio::time::timeout(HANGING, accepted).await;
    accepted.expect("accepted at last")
}

/// An agent that no other test has.
pub(crate) fn someone() -> AgentId {
    let (one, two) = (ChannelId::generate(), ChannelId::generate());
    let mut bytes = [0; 32];
    bytes[..16].copy_from_slice(one.as_bytes());
    bytes[16..].copy_from_slice(two.as_bytes());
    AgentId::from_bytes(bytes)
}
