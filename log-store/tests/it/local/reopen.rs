//! A store has the same state after it was closed and opened again.

use super::script::*;
use skytale_log_store::{Access, KeyPackageStock, LocalConfig, LogStore as _, Refused};
use skytale_proto::{AgentId, ChannelId, Offset};
use std::path::Path;
use tempfile::TempDir;

async fn all_is_kept(dir: &Path, config: LocalConfig, between: impl Fn(&Path)) {
    let store = open(config.clone()).await;
    let (one, mut one_frames) = channel_with(&store, 40, &[7; 900]).await;
    let (two, two_frames) = channel_with(&store, 3, b"short").await;
    let packages = [key_package(BOB, false), key_package(BOB, false), key_package(BOB, true)];
    for package in &packages {
        accept(&store, package).await;
    }
    // Another agent's claim: no Welcome spends it.
    let claimed = claim_by(BOB, AgentId::from_bytes([3; 32]));
    let first_claim = accept(&store, &claimed).await;
    accept(&store, &claim(BOB)).await;
    let add = bundle(one, 1, &[BOB]);
    let added = accept(&store, &add).await;
    one_frames.push(add.clone());
    let mut head = at(42);
    close(store).await;
    for _ in 0..3 {
        between(dir);
        let store = open(config.clone()).await;
        holds(&store, one.log(), &one_frames).await;
        holds(&store, two.log(), &two_frames).await;
        assert_eq!(*store.watch_head(one.log()).await.expect("a watch").borrow(), head);
        for (index, frame) in one_frames.iter().enumerate() {
            let again = append(&store, frame).await.expect("a duplicate");
            assert_eq!((again.offset, again.duplicate), (at(index as u64 + 1), true));
        }
        let again = append(&store, &claimed).await.expect("a duplicate");
        assert_eq!((again.duplicate, again.claimed), (true, first_claim.claimed));
        assert_eq!(again.time_ms, first_claim.time_ms);
        let stock = store.key_packages(BOB).await.expect("the stock");
        assert_eq!(
            stock,
            KeyPackageStock {
                live: 0,
                last_resort: true
            }
        );
        let access = |agent, after| store.access(one.log(), agent, ACCOUNT, after);
        let before = access(BOB, Offset::ZERO).await.expect("access");
        assert_eq!(
            before,
            Access::NotMember {
                next: Some(added.offset)
            }
        );
        let after = access(BOB, added.offset.previous()).await.expect("access");
        assert_eq!(after, Access::Readable { until: None });
        let unknown = store
            .access(ChannelId::generate().log(), BOB, ACCOUNT, Offset::ZERO)
            .await;
        assert_eq!(unknown, Ok(Access::UnknownLog));
        // Packages, claims, Welcome; and nothing more.
        assert_eq!(entries(&store, BOB.log(), Offset::ZERO).await.expect("read").len(), 6);
        let stale = append(&store, &message(one, 1, b"stale")).await.expect_err("stale");
        assert_eq!(stale, Refused::StaleEpoch { head: added.offset }.into());
        let next = message(one, added.offset.get(), b"next");
        head = head.next();
        assert_eq!(accept(&store, &next).await.offset, head);
        one_frames.push(next);
        close(store).await;
    }
    let store = open(config).await;
    holds(&store, one.log(), &one_frames).await;
    close(store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reopened_store_knows_all_it_knew() {
    let dir = TempDir::new().expect("a folder");
    all_is_kept(dir.path(), small(dir.path()), |_| {}).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_without_its_index_knows_all_it_knew() {
    let dir = TempDir::new().expect("a folder");
    all_is_kept(dir.path(), small(dir.path()), |dir| {
        std::fs::remove_dir_all(dir.join("index")).expect("removed");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_was_dropped_finishes_and_frees_its_folder() {
    let dir = TempDir::new().expect("a folder");
    let store = open(small(dir.path())).await;
    let (channel, frames) = channel_with(&store, 5, b"kept").await;
    drop(store);
    let store = loop {
        match skytale_log_store::LocalStore::open(small(dir.path())).await {
            Ok(store) => break store,
            Err(skytale_log_store::local::OpenError::Locked { .. }) => tokio::task::yield_now().await,
            Err(error) => panic!("{error}"),
        }
    };
    holds(&store, channel.log(), &frames).await;
    close(store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_logs_outlive_a_memory_of_four_states() {
    let dir = TempDir::new().expect("a folder");
    let store = std::sync::Arc::new(open(small(dir.path())).await);
    let channels: Vec<ChannelId> = (0..1_000).map(|_| ChannelId::generate()).collect();
    for round in 0..3u64 {
        let pending = channels.iter().map(|channel| {
            let frame = match round {
                0 => create(*channel),
                _ => message(*channel, 1, &round.to_le_bytes()),
            };
            let store = store.clone();
            async move { append(&store, &frame).await.expect("accepted").offset }
        });
        let offsets = futures_util::future::join_all(pending).await;
        assert!(offsets.iter().all(|offset| *offset == at(round + 1)));
    }
    store.close().await.expect("the store closes");
    let store = open(small(dir.path())).await;
    for channel in channels.iter().step_by(10) {
        assert_eq!(
            entries(&store, channel.log(), Offset::ZERO).await.expect("read").len(),
            3
        );
        assert_eq!(accept(&store, &message(*channel, 1, b"more")).await.offset, at(4));
    }
    let nobody = AgentId::from_bytes([9; 32]);
    assert_eq!(
        *store.watch_head(nobody.log()).await.expect("a watch").borrow(),
        Offset::ZERO
    );
    close(store).await;
}
