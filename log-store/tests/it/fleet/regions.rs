//! Three regions: what is read is near, what is appended goes home, and a region that is cut off takes nobody else with it.

use super::cluster::{Account, Cluster};
use super::nodes::{agree, reaches, records};
use super::script::*;
use futures_util::TryStreamExt as _;
use skytale_log_store::fleet::{FleetConfig, RegionConfig};
use skytale_log_store::{AppendError, FleetStore, LogStore as _, StoreError};
use skytale_proto::{AgentId, ChannelId, Code, Region};
use std::collections::HashSet;
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;

/// A node in a region, connected to its region's server first.
pub(crate) fn in_region(account: &Account, here: u8, dir: &Path) -> FleetConfig {
    let one = |region: u8| RegionConfig {
        region: Region(region),
        shards: 1,
        cluster: Some(format!("r{region}")),
        tags: Vec::new(),
    };
    let mut config = FleetConfig {
        regions: vec![one(0), one(1), one(2)],
        here: Some(Region(here)),
        replicas: 1,
        allow_weaker: true,
        request_timeout: Duration::from_secs(1),
        append_timeout: Duration::from_secs(3),
        ..settings(account, dir)
    };
    config.nats.servers = vec![account.servers[usize::from(here)].clone()];
    config
}

/// An agent whose log is at home in a region.
pub(crate) fn agent_of(store: &FleetStore, region: u8) -> AgentId {
    loop {
        let agent = someone();
        if store
            .shard_of(&agent.log())
            .is_some_and(|shard| shard.region == Region(region))
        {
            return agent;
        }
    }
}

/// Returns the followers of a stream; nobody, if it does not exist.
pub(crate) async fn followers(account: &Account, stream: &str) -> HashSet<String> {
    let context = account.context().await.expect("JetStream");
    match context.get_stream(stream).await {
        Ok(stream) => stream.consumer_names().try_collect().await.expect("consumers"),
        Err(_) => HashSet::new(),
    }
}

/// Waits until a stream is followed by others than those.
pub(crate) async fn is_followed_anew(account: &Account, stream: &str, before: &HashSet<String>) {
    let followed = async {
        while followers(account, stream).await.is_subset(before) {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let told = tokio::time::timeout(HANGING, followed).await;
    assert!(told.is_ok(), "nobody follows {stream}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_region_that_is_cut_off_and_comes_back_loses_nothing() {
    let cluster = Cluster::start_regions().await;
    let account = cluster.account();
    let dirs = [TempDir::new().expect("a folder"), TempDir::new().expect("a folder")];
    let home = open(in_region(&account, 0, dirs[0].path())).await;
    let away = open(in_region(&account, 1, dirs[1].path())).await;
    let (theirs, ours) = (ChannelId::generate_in(Region(0)), ChannelId::generate_in(Region(1)));
    // Everything is taken everywhere, with Welcomes from region to region.
    let (bob, carol) = (agent_of(&home, 1), agent_of(&home, 0));
    accept(&home, &create(theirs)).await;
    accept(&away, &create(ours)).await;
    reaches(&away, theirs.log(), at(1)).await;
    claimed(&away, &[bob, carol]).await;
    accept(&away, &bundle(theirs, 1, &[bob, carol])).await;
    accept(&home, &message(theirs, 2, b"before")).await;
    for log in [theirs.log(), ours.log(), bob.log(), carol.log()] {
        assert!(!agree(&home, &away, log).await.is_empty());
    }
    // Each follows the other's stream by a mirror in its own region: what is left at the stream itself is the mirror's source.
    for mirror in ["SKYTALE_LOG_0_0_IN_1", "SKYTALE_LOG_1_0_IN_0"] {
        is_followed_anew(&account, mirror, &HashSet::new()).await;
    }

    // The home of `theirs` is gone, with its servers.
    home.close().await.expect("closed");
    cluster.kill(0);
    assert_eq!(
        records(&away, theirs.log()).await.len(),
        3,
        "what was followed is served"
    );
    let kept = message(theirs, 2, b"kept by its author");
    let refused = append(&away, &kept).await;
    assert!(
        matches!(refused, Err(AppendError::Store(StoreError::HomeUnreachable { .. }))),
        "{refused:?}"
    );
    assert_eq!(refused.map_err(|error| error.code()), Err(Code::HomeUnreachable));
    taken_at_last(&away, &message(ours, 1, b"of a region that is there")).await;
    assert_eq!(away.health().stopped, None);

    // A node that restarts meanwhile serves what it has, too.
    away.close().await.expect("closed");
    let config = FleetConfig {
        open_timeout: HANGING,
        ..in_region(&account, 1, dirs[1].path())
    };
    let away = FleetStore::open(config).await.expect("it opens");
    assert_eq!(records(&away, theirs.log()).await.len(), 3);
    taken_at_last(&away, &message(ours, 1, b"and more")).await;

    // It comes back, and everything goes out.
    cluster.run(0);
    cluster.settled().await;
    assert_eq!(
        taken_at_last(&away, &kept).await,
        at(4),
        "once, however often it got there"
    );
    let home = open(in_region(&account, 0, dirs[0].path())).await;
    for log in [theirs.log(), ours.log(), bob.log(), carol.log()] {
        agree(&home, &away, log).await;
    }
    assert_eq!((home.health().stopped, away.health().stopped), (None, None));
    for store in [home, away] {
        store.close().await.expect("closed");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_its_mirror_a_node_follows_the_stream_itself() {
    let cluster = Cluster::start_regions().await;
    let account = cluster.account();
    let dirs = [TempDir::new().expect("a folder"), TempDir::new().expect("a folder")];
    let home = open(in_region(&account, 0, dirs[0].path())).await;
    let away = open(in_region(&account, 1, dirs[1].path())).await;
    let channel = ChannelId::generate_in(Region(0));
    accept(&home, &create(channel)).await;
    reaches(&away, channel.log(), at(1)).await;
    let context = account.context().await.expect("JetStream");
    context.delete_stream("SKYTALE_LOG_0_0_IN_1").await.expect("deleted");
    for _ in 0..10 {
        accept(&home, &message(channel, 1, b"without a mirror")).await;
    }
    reaches(&away, channel.log(), at(11)).await;
    agree(&home, &away, channel.log()).await;
    // It makes it again, and follows it.
    is_followed_anew(&account, "SKYTALE_LOG_0_0_IN_1", &HashSet::new()).await;
    accept(&home, &message(channel, 1, b"with one again")).await;
    reaches(&away, channel.log(), at(12)).await;
    for store in [home, away] {
        store.close().await.expect("closed");
    }
}

/// Returns the number of checkpoints that a region's bucket holds of its one shard.
async fn checkpoints_of(account: &Account, region: u8) -> usize {
    let prefix = format!("skytale.checkpoint.{region}.0.");
    let words = checkpoints(account, region, "word").await;
    words.iter().filter(|(subject, _)| subject.starts_with(&prefix)).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_region_that_is_cut_off_takes_no_other_regions_checkpoints_with_it() {
    let cluster = Cluster::start_regions().await;
    let account = cluster.account();
    let dirs = [TempDir::new().expect("a folder"), TempDir::new().expect("a folder")];
    let close_by = |here: u8, every: u64| FleetConfig {
        checkpoint_every: every,
        ..in_region(&account, here, dirs[usize::from(here)].path())
    };
    let every = 4;
    let home = open(close_by(0, every)).await;
    let away = open(close_by(1, every)).await;
    let (theirs, ours) = (ChannelId::generate_in(Region(0)), ChannelId::generate_in(Region(1)));
    accept(&home, &create(theirs)).await;
    accept(&home, &create(ours)).await;
    reaches(&away, theirs.log(), at(1)).await;
    away.close().await.expect("closed");
    // Much for the mirror in region 1, that the node there has not followed.
    for _ in 0..50 * every {
        accept(&home, &message(theirs, 1, b"in the mirror")).await;
    }
    let head = at(1 + 50 * every);
    let context = account.context().await.expect("JetStream");
    for region in [0, 1] {
        let bucket = format!("SKYTALE_CHECKPOINTS_{region}");
        let placed = async {
            loop {
                if let Ok(stream) = context.get_stream(&bucket).await {
                    break stream.cached_info().cluster.clone();
                }
                // It is made with the first checkpoint.
                accept(&home, &message(ours, 1, b"up to a checkpoint")).await;
            }
        };
        let placed = tokio::time::timeout(HANGING, placed).await.expect("it is made");
        let name = placed.and_then(|cluster| cluster.name);
        assert_eq!(name, Some(format!("r{region}")), "where the region's streams are");
    }
    let mirrored = async {
        let last = async || {
            let mirror = account.stream("SKYTALE_LOG_0_0_IN_1").await;
            mirror.cached_info().state.last_sequence
        };
        while last().await <= 50 * every {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(HANGING, mirrored)
        .await
        .expect("the mirror gets there");
    home.close().await.expect("closed");
    cluster.kill(0);

    // The mirror's messages are followed without a stop at each of its fifty checkpoints.
    let away = FleetStore::open(close_by(1, every)).await.expect("it opens");
    let followed = tokio::time::timeout(HANGING, reaches(&away, theirs.log(), head)).await;
    followed.expect("it follows the mirror");
    // And region 1 has all of its own.
    let before = checkpoints_of(&account, 1).await;
    let going_on = async {
        while checkpoints_of(&account, 1).await < before + 3 {
            taken_at_last(&away, &message(ours, 1, b"of a region that is there")).await;
        }
    };
    tokio::time::timeout(HANGING, going_on)
        .await
        .expect("checkpoints go on");
    assert_eq!(away.health().stopped, None);
    cluster.run(0);
    cluster.settled().await;
    taken_at_last(&away, &message(theirs, 1, b"and it is back")).await;
    away.close().await.expect("closed");
}
