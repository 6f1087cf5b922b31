//! The buckets that hold the checkpoints: one for each home region, placed there as its streams are. Objects are named
//! `<region>/<shard>/<stream>/<sequence>`.

use super::checkpoint::Checkpoint;
use super::config::FleetConfig;
use super::shards::ShardId;
use super::streams::{self, Found};
use crate::local::ShardPosition;
use async_nats::jetstream::object_store::{Config, InfoErrorKind, ObjectMetadata, ObjectStore};
use async_nats::jetstream::stream::StorageType;
use async_nats::jetstream::{self};
use bytes::Bytes;
use futures_util::StreamExt as _;
use skytale_proto::Region;
use std::collections::HashMap;
use tokio::io::AsyncReadExt as _;

/// A checkpoint, in bytes, at most.
const CHECKPOINT_BYTES_MAX: u64 = 4 << 30;

/// A checkpoint that is there, without its logs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) sequence: u64,
    /// The time of its last message, unix milliseconds; when it was written, where that was later by the fleet's time.
    pub(super) time_ms: u64,
    pub(super) chain: String,
    /// After which message its repeated messages begin.
    pub(super) repeated_after: u64,
}

/// Checkpoints in JetStream's object store.
pub(super) struct Bucket {
    store: ObjectStore,
}

/// The bucket of a home region.
fn bucket(home: Region) -> String {
    format!("SKYTALE_CHECKPOINTS_{}", home.0)
}

/// The stream under the bucket of a home region.
pub(super) fn stream(home: Region) -> String {
    format!("OBJ_{}", bucket(home))
}

fn prefix(shard: ShardId, stream: u64) -> String {
    format!("{}/{}/{stream:016x}/", shard.region.0, shard.index)
}

fn name(shard: ShardId, stream: u64, sequence: u64) -> String {
    format!("{}{sequence:020}", prefix(shard, stream))
}

fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}

impl Bucket {
    /// Opens the bucket of a home region, or makes it.
    pub(super) async fn open(context: &jetstream::Context, config: &FleetConfig, home: Region) -> Result<Self, String> {
        let bucket = bucket(home);
        match streams::find(context, &stream(home)).await {
            Ok(Found::There(_)) => {
                let store = context.get_object_store(&bucket).await;
                let store = store.map_err(|error| error.to_string())?;
                return Ok(Self { store });
            }
            Ok(Found::Missing) => {}
            Err(error) => return Err(error.to_string()),
        }
        let config = Config {
            bucket: bucket.clone(),
            description: Some("Checkpoints of Skytale's logs: written by relay nodes alone".into()),
            storage: StorageType::File,
            num_replicas: config.replicas,
            placement: config.placement(home),
            max_bytes: -1,
            ..Config::default()
        };
        let made = context.create_object_store(config).await;
        let store = match made {
            Ok(store) => store,
            // Another node may have made it at the same moment.
            Err(error) => context.get_object_store(&bucket).await.map_err(|_| error.to_string())?,
        };
        Ok(Self { store })
    }

    /// The chain's hash in the checkpoint at a position's sequence, if there is one.
    pub(super) async fn chain_at(&self, shard: ShardId, position: &ShardPosition) -> Result<Option<String>, String> {
        let info = self.store.info(name(shard, position.stream, position.sequence));
        match info.await {
            Ok(info) if info.deleted => Ok(None),
            Ok(info) => Ok(info.metadata.get("chain").cloned()),
            Err(error) if error.kind() == InfoErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Writes a checkpoint. Two nodes that write the same one write the same bytes, except for how far back `repeated` goes. How old
    /// it is counts from `now_ms` at the earliest: a server whose clock was behind may have given its messages their times.
    pub(super) async fn put(&self, shard: ShardId, checkpoint: &Checkpoint, now_ms: u64) -> Result<(), String> {
        let position = &checkpoint.position;
        let metadata = ObjectMetadata {
            name: name(shard, position.stream, position.sequence),
            metadata: HashMap::from([
                ("chain".to_owned(), hex(&position.chain)),
                ("time_ms".to_owned(), position.time_ms.max(now_ms).to_string()),
                ("repeated_after".to_owned(), position.repeated_after.to_string()),
            ]),
            ..ObjectMetadata::default()
        };
        let bytes = checkpoint.encode();
        let put = self.store.put(metadata, &mut bytes.as_ref()).await;
        put.map(drop).map_err(|error| error.to_string())
    }

    /// Reads a checkpoint. `None` where there is none at this sequence.
    pub(super) async fn get(&self, shard: ShardId, stream: u64, sequence: u64) -> Result<Option<Checkpoint>, String> {
        use async_nats::jetstream::object_store::GetErrorKind;
        let name = name(shard, stream, sequence);
        let object = match self.store.get(&name).await {
            Ok(object) => object,
            Err(error) if error.kind() == GetErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.to_string()),
        };
        let mut bytes = Vec::with_capacity(object.info().size);
        let read = object.take(CHECKPOINT_BYTES_MAX).read_to_end(&mut bytes).await;
        read.map_err(|error| error.to_string())?;
        let checkpoint = Checkpoint::decode(&Bytes::from(bytes)).map_err(|problem| format!("{name}: {problem}"))?;
        let position = &checkpoint.position;
        if (position.shard, position.stream, position.sequence) != (shard.number(), stream, sequence) {
            return Err(format!("{name}: of another place than its name says"));
        }
        Ok(Some(checkpoint))
    }

    /// The checkpoints of a shard, oldest first.
    pub(super) async fn list(&self, shard: ShardId, stream: u64) -> Result<Vec<Listed>, String> {
        let prefix = prefix(shard, stream);
        let mut objects = self.store.list().await.map_err(|error| error.to_string())?;
        let mut found = Vec::new();
        while let Some(object) = objects.next().await {
            let object = object.map_err(|error| error.to_string())?;
            let number = |key: &str| object.metadata.get(key).and_then(|value| value.parse().ok());
            let sequence = object
                .name
                .strip_prefix(&prefix)
                .and_then(|sequence| sequence.parse().ok());
            if let (Some(sequence), false) = (sequence, object.deleted) {
                found.push(Listed {
                    sequence,
                    time_ms: number("time_ms").unwrap_or(u64::MAX),
                    chain: object.metadata.get("chain").cloned().unwrap_or_default(),
                    repeated_after: number("repeated_after").unwrap_or(u64::MAX),
                });
            }
        }
        found.sort_unstable_by_key(|listed| listed.sequence);
        Ok(found)
    }

    /// Deletes a checkpoint.
    pub(super) async fn delete(&self, shard: ShardId, stream: u64, sequence: u64) -> Result<(), String> {
        let deleted = self.store.delete(name(shard, stream, sequence)).await;
        deleted.map_err(|error| error.to_string())
    }
}

/// Up to which sequence the checkpoints after one say which messages were repeated, without a gap.
pub(super) fn covered(listed: &[Listed], from: u64) -> u64 {
    let later = listed.iter().filter(|listed| listed.sequence > from);
    later.fold(from, |covered, listed| {
        if listed.repeated_after <= covered {
            listed.sequence
        } else {
            covered
        }
    })
}

/// The chain's hash as it is in a checkpoint's description.
pub(super) fn shown(chain: &[u8; 32]) -> String {
    hex(chain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_ends_what_is_known_of_repeated_messages() {
        let listed = |sequence, repeated_after| Listed {
            sequence,
            time_ms: 0,
            chain: String::new(),
            repeated_after,
        };
        let all = [listed(20, 0), listed(40, 20), listed(80, 40), listed(120, 100)];
        assert_eq!(covered(&all, 20), 80);
        assert_eq!(covered(&all, 120), 120);
        assert_eq!(covered(&all[..1], 20), 20);
    }
}
