//! The keeper purges what it may, and nodes alone purge nothing.

use super::checkpoints::{EVERY, extent, one_shard};
use super::script::*;
use skytale_log_store::LogStore as _;
use skytale_log_store::fleet::{FleetConfig, Keeper, OpenError};
use skytale_proto::{ChannelId, Code};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const RETENTION: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_keeper_readers_lose_what_is_old_streams_grow_and_nodes_say_so() {
    let (account, _streams) = shared_account().await;
    let dir = TempDir::new().expect("a folder");
    let config = one_shard(&account, &dir, Some(RETENTION));
    let store = open(config.clone()).await;
    let channel = ChannelId::generate();
    accept(&store, &create(channel)).await;
    let told = || {
        store
            .readiness()
            .remarks
            .iter()
            .any(|remark| remark.contains("skytale fleet keeper"))
    };
    let begun = Instant::now();
    loop {
        let first = store.status(channel.log()).await.expect("a status").first;
        if told() && first > at(1) {
            break;
        }
        assert!(begun.elapsed() < HANGING, "{:?}, from {first}", store.readiness());
        accept(&store, &message(channel, 1, b"kept by nobody")).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(extent(&account).await.0, 1, "and nobody purges");
    assert_eq!(store.readiness().problems, [""; 0]);

    let _keeper = Keeping::start(config);
    let begun = Instant::now();
    while extent(&account).await.0 == 1 || told() {
        assert!(begun.elapsed() < HANGING, "{:?}", store.readiness());
        accept(&store, &message(channel, 1, b"kept by the keeper")).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // Checkpoints before that are gone too, and the one that a node begins with is not.
    let begun = Instant::now();
    loop {
        let begins = extent(&account).await.0 - 1;
        let words = checkpoints(&account, 0, "word").await;
        let sequence = |subject: &str| subject.rsplit('.').nth(1).and_then(|text| text.parse::<u64>().ok());
        let oldest = words.iter().filter_map(|(subject, _)| sequence(subject)).min();
        if oldest == Some(begins) && begins == extent(&account).await.0 - 1 {
            break;
        }
        assert!(begun.elapsed() < HANGING, "{begins}: {words:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    store.close().await.expect("closed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_purged_while_no_node_is_heard() {
    let (account, _streams) = shared_account().await;
    let dir = TempDir::new().expect("a folder");
    let config = one_shard(&account, &dir, Some(RETENTION));
    let keeper = Keeper::new(config.clone()).hearing_for(HEARS_FOR);
    let store = open(config.clone()).await;
    let channel = ChannelId::generate();
    accept(&store, &create(channel)).await;
    // Until all that the first checkpoint had is trimmed, and a later one says so.
    let begun = Instant::now();
    while store.status(channel.log()).await.expect("a status").first < at(EVERY - 1)
        || checkpoints(&account, 0, "part").await.len() < 6
    {
        assert!(begun.elapsed() < HANGING, "nothing is trimmed");
        accept(&store, &message(channel, 1, b"to be given up")).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    store.close().await.expect("closed");
    tokio::time::sleep(2 * RETENTION).await;
    let round = keeper.round().await.expect("a round");
    assert_eq!((round.nodes, round.shards.len()), (0, 1));
    let problem = round.shards[0].problem.as_deref().unwrap_or_default();
    assert!(problem.contains("no relay node was heard"), "{round:?}");
    assert_eq!(extent(&account).await.0, 1);

    let store = open(config).await;
    let begun = Instant::now();
    loop {
        let round = keeper.round().await.expect("a round");
        if round.shards[0].purged.is_some() {
            assert_eq!(round.nodes, 1);
            break;
        }
        assert!(begun.elapsed() < HANGING, "{round:?}");
        accept(&store, &message(channel, 1, b"somebody is there")).await;
    }
    assert!(extent(&account).await.0 > EVERY);
    store.close().await.expect("closed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_keeper_whose_clock_is_ahead_purges_nothing_early() {
    fn ahead() -> std::time::SystemTime {
        std::time::SystemTime::now() + Duration::from_secs(40 * 86_400)
    }
    let (account, _streams) = shared_account().await;
    let dirs = [(); 2].map(|()| TempDir::new().expect("a folder"));
    let month = Some(Duration::from_secs(30 * 86_400));
    let stores = [
        open(one_shard(&account, &dirs[0], month)).await,
        open(one_shard(&account, &dirs[1], month)).await,
    ];
    let channel = ChannelId::generate();
    accept(&stores[0], &create(channel)).await;
    while extent(&account).await.1 < 3 * EVERY {
        accept(&stores[0], &message(channel, 1, b"thirty days are not over")).await;
    }
    let keeper = Keeper::new(FleetConfig {
        wall_clock: ahead,
        ..one_shard(&account, &dirs[0], month)
    })
    .hearing_for(HEARS_FOR);
    // A node that is too slow to be heard tells no clock: then the next round hears it.
    let begun = Instant::now();
    let round = loop {
        match keeper.round().await {
            Ok(round) => {
                assert!(round.shards.iter().all(|kept| kept.purged.is_none()), "{round:?}");
                if round.nodes == stores.len() {
                    break round;
                }
                assert!(begun.elapsed() < HANGING, "{round:?}");
            }
            Err(error) => assert!(begun.elapsed() < HANGING, "{error}"),
        }
    };
    let problem = round.shards[0].problem.as_deref().unwrap_or_default();
    assert!(problem.contains("clock"), "{round:?}");
    assert_eq!(extent(&account).await.0, 1);
    for store in stores {
        store.close().await.expect("closed");
    }
}

#[tokio::test]
async fn a_keeper_that_keeps_for_ever_or_knows_nobody_says_so() {
    let (account, _streams) = shared_account().await;
    let dir = TempDir::new().expect("a folder");
    let for_ever = Keeper::new(one_shard(&account, &dir, None)).round().await;
    let Err(error @ OpenError::Config { .. }) = for_ever else {
        panic!("{for_ever:?}")
    };
    assert_eq!(error.code(), Code::Config);
    let nobody = FleetConfig {
        known_nodes: skytale_log_store::fleet::KnownNodes::File(dir.path().join("nowhere")),
        ..one_shard(&account, &dir, Some(RETENTION))
    };
    assert!(matches!(
        Keeper::new(nobody).round().await,
        Err(OpenError::Config { .. })
    ));
}
