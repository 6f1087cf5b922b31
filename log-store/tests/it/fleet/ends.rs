//! A node that ends tells everybody who waits for it.

use super::script::*;
use skytale_log_store::fleet::{FleetConfig, RegionConfig, Shards};
use skytale_log_store::{AppendError, StoreError};
use skytale_proto::{ChannelId, Frame, Region};
use std::path::Path;
use std::time::Instant;
use tempfile::TempDir;

const SHARDS: u16 = 8;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_on_its_way_when_a_node_ends_is_answered_with_the_reason() {
    let (account, _streams) = shared_account().await;
    let many = |dir: &Path| FleetConfig {
        regions: vec![RegionConfig {
            region: Region(0),
            shards: SHARDS,
            cluster: None,
            tags: Vec::new(),
        }],
        ..settings(&account, dir)
    };
    let shards = Shards::new([(Region(0), SHARDS)]).expect("shards");
    let channels = shards.all().iter().map(|shard| {
        let mut any = std::iter::repeat_with(ChannelId::generate);
        any.find(|channel| shards.of(&channel.log()) == Some(*shard))
            .expect("a channel of the shard")
    });
    let channels: Vec<ChannelId> = channels.collect();
    let closed = AppendError::Store(StoreError::Stopped {
        reason: "the store is closed".into(),
    });
    for round in 0..rounds(12) {
        let dir = TempDir::new().expect("a folder");
        let store = open(many(dir.path())).await;
        let begun = Instant::now();
        let made: Vec<Frame> = channels.iter().map(|channel| create(*channel)).collect();
        told(queue(&store, &made).await).await;
        let took = begun.elapsed();
        // One batch of each shard is under way, and may be acknowledged in the very moment in which the node ends.
        let frames = channels.iter().map(|channel| message(*channel, 1, b"on its way"));
        let frames: Vec<Frame> = frames.collect();
        let pending = queue(&store, &frames).await;
        tokio::time::sleep(took * (round % 12) / 12).await;
        drop(store);
        for outcome in told(pending).await {
            if let Err(error) = outcome {
                assert_eq!(error, closed, "round {round}");
            }
        }
    }
}
