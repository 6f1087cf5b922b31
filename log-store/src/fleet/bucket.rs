//! Stream of checkpoints: one for each home region, placed there as its logs' streams are.
//!
//! ```text
//!  skytale.checkpoint.<region>.<shard>.<stream>.<sequence>.word   a node's signed word for a checkpoint (`vouch.rs`)
//!  skytale.checkpoint.<region>.<shard>.<stream>.<sequence>.part   a part of its bytes; which one, its hash says
//! ```
//!
//! Anyone who has a node's NATS key may add to it. No message is believed for its place: statements are checked by
//! their signatures, parts by their hashes, so that foreign messages hide nothing. And nothing in it can be replaced:
//! there are no limits that give messages up, no message can be deleted, and none rolls up others. Only the fleet's
//! keeper purges it.

use super::checkpoint::Checkpoint;
use super::config::FleetConfig;
use super::shards::ShardId;
use super::signer::{Names, Signer};
use super::streams::{self, Found};
use super::vouch::{self, Attested, Hearing, Judged, Vouch};
use async_nats::HeaderMap;
use async_nats::jetstream;
use async_nats::jetstream::consumer::{AckPolicy, pull};
use async_nats::jetstream::stream::{Config, DiscardPolicy, RetentionPolicy, StorageType};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use skytale_proto::Region;
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

/// A checkpoint, in bytes, at most.
const CHECKPOINT_BYTES_MAX: u64 = 4 << 30;
/// Time without its reader after which the server forgets a consumer.
const CONSUMER_IDLE: Duration = Duration::from_secs(30);
/// Maximum silence of the server during a read.
const SILENT_MAX: Duration = Duration::from_secs(5);
/// Number of times that a read is tried.
const TRIES: u32 = 6;
/// The pause before a reading is tried again, to begin with; it doubles.
const AGAIN_FIRST: Duration = Duration::from_millis(50);
/// Messages asked for at once.
const PULL_MESSAGES: usize = 512;
/// Bytes asked for at once.
const PULL_BYTES: usize = 8 * 1024 * 1024;

/// The checkpoints of a home region.
pub(super) struct Bucket {
    context: jetstream::Context,
    stream: String,
    names: Names,
    witnesses: usize,
}

/// The stream of a home region's checkpoints.
pub(super) fn stream(home: Region) -> String {
    format!("SKYTALE_CHECKPOINTS_{}", home.0)
}

/// The subjects of a home region's checkpoints.
pub(super) fn subjects(home: Region) -> String {
    format!("skytale.checkpoint.{}.>", home.0)
}

fn prefix(shard: ShardId, stream: u64) -> String {
    format!("skytale.checkpoint.{}.{}.{stream:016x}", shard.region.0, shard.index)
}

/// The stream as a node makes it.
pub(super) fn wanted(home: Region, config: &FleetConfig) -> Config {
    Config {
        name: stream(home),
        description: Some("Checkpoints of Skytale's logs: written by relay nodes, purged by the keeper".into()),
        subjects: vec![subjects(home)],
        storage: StorageType::File,
        retention: RetentionPolicy::Limits,
        discard: DiscardPolicy::New,
        max_bytes: -1,
        max_messages: -1,
        max_messages_per_subject: -1,
        num_replicas: config.replicas,
        allow_rollup: false,
        deny_delete: true,
        deny_purge: false,
        allow_direct: false,
        placement: config.placement(home),
        ..Config::default()
    }
}

/// Returns the setting by which somebody who may only write to a stream could take away its messages.
pub(super) fn loses(found: &Config) -> Option<&'static str> {
    if !found.max_age.is_zero()
        || found.max_bytes > 0
        || found.max_messages > 0
        || found.max_messages_per_subject > 0
        || found.retention != RetentionPolicy::Limits
    {
        return Some("the server gives messages up by limits of its own");
    }
    if found.allow_rollup {
        return Some("a message may roll up those before it (allow_rollup_hdrs)");
    }
    (!found.deny_delete).then_some("single messages can be deleted")
}

impl Bucket {
    /// Opens the checkpoints of a home region, or makes their stream.
    pub(super) async fn open(context: &jetstream::Context, config: &FleetConfig, home: Region) -> Result<Self, String> {
        let opened = Self::there(context, config, home)?;
        let info = match streams::find(context, &opened.stream).await {
            Ok(Found::There(info)) => *info,
            Ok(Found::Missing) => {
                let made = context.create_stream(wanted(home, config)).await;
                match made {
                    Ok(stream) => stream.cached_info().clone(),
                    // Another node may have made it at the same moment.
                    Err(error) => match streams::find(context, &opened.stream).await {
                        Ok(Found::There(info)) => *info,
                        _ => return Err(error.to_string()),
                    },
                }
            }
            Err(error) => return Err(error.to_string()),
        };
        match loses(&info.config) {
            Some(problem) => Err(format!("stream {}: {problem}", opened.stream)),
            None => Ok(opened),
        }
    }

    /// The checkpoints of a home region whose stream is there, as far as is known.
    pub(super) fn there(context: &jetstream::Context, config: &FleetConfig, home: Region) -> Result<Self, String> {
        Ok(Self {
            context: context.clone(),
            stream: stream(home),
            names: config.known_nodes.read()?,
            witnesses: config.witnesses,
        })
    }

    /// Returns the statements on a shard's stream, and the checkpoints that have enough of them.
    pub(super) async fn judged(&self, shard: ShardId, stream: u64) -> Result<Judged, String> {
        let prefix = prefix(shard, stream);
        self.words(shard, stream, format!("{prefix}.*.word")).await
    }

    /// Returns the statements on one sequence.
    pub(super) async fn judged_at(&self, shard: ShardId, stream: u64, sequence: u64) -> Result<Judged, String> {
        let prefix = prefix(shard, stream);
        self.words(shard, stream, format!("{prefix}.{sequence:020}.word")).await
    }

    async fn words(&self, shard: ShardId, stream: u64, filter: String) -> Result<Judged, String> {
        let mut hearing = Hearing::new(&self.names);
        self.each(filter, |subject, payload| {
            let place = subject.rsplit('.').nth(1).and_then(|sequence| sequence.parse().ok());
            if let Some(sequence) = place {
                let word = Vouch::decode(&payload).ok();
                let word = word.filter(|(vouch, _)| {
                    (vouch.shard, vouch.stream, vouch.sequence) == (shard.number(), stream, sequence)
                });
                hearing.hear((sequence, word));
            }
            true
        })
        .await?;
        Ok(hearing.judge(self.witnesses))
    }

    /// The checkpoint that enough nodes vouch for at a sequence, if there is one.
    pub(super) async fn attested_at(
        &self,
        shard: ShardId,
        stream: u64,
        sequence: u64,
    ) -> Result<Option<Attested>, String> {
        let judged = self.judged_at(shard, stream, sequence).await?;
        Ok(judged.attested.into_iter().next())
    }

    /// Reads a checkpoint: its bytes are those that its nodes vouch for, no matter who wrote them. `None` where they
    /// are not all there: then those who vouched wrote none, and nothing was purged by it.
    pub(super) async fn get(
        &self,
        shard: ShardId,
        stream: u64,
        attested: &Attested,
    ) -> Result<Option<Checkpoint>, String> {
        let (sequence, object) = (attested.sequence, &attested.object);
        let named = |problem: String| format!("the checkpoint of shard {shard} at {sequence}: {problem}");
        if object.length > CHECKPOINT_BYTES_MAX {
            return Err(named(format!("it has {} bytes", object.length)));
        }
        let mut missing: HashMap<[u8; 32], Vec<usize>> = HashMap::new();
        for (place, part) in object.parts.iter().enumerate() {
            missing.entry(*part).or_default().push(place);
        }
        let mut parts: BTreeMap<usize, Bytes> = BTreeMap::new();
        self.each(part_subject(shard, stream, sequence), |_, payload| {
            if let Some(places) = missing.remove(blake3::hash(&payload).as_bytes()) {
                parts.extend(places.into_iter().map(|place| (place, payload.clone())));
            }
            !missing.is_empty()
        })
        .await
        .map_err(named)?;
        if parts.len() < object.parts.len() {
            tracing::warn!(%shard, sequence, parts = object.parts.len(), there = parts.len(), "parts of a checkpoint are not there");
            return Ok(None);
        }
        let mut bytes = BytesMut::with_capacity(usize::try_from(object.length).unwrap_or_default());
        parts.into_values().for_each(|part| bytes.extend_from_slice(&part));
        let bytes = bytes.freeze();
        if blake3::hash(&bytes).as_bytes() != &object.hash {
            return Err(named("it is not what its nodes vouch for".into()));
        }
        let checkpoint = Checkpoint::decode(&bytes).map_err(|problem| named(problem.into()))?;
        let position = &checkpoint.position;
        let is_here = (position.shard, position.stream, position.sequence) == (shard.number(), stream, sequence);
        if !is_here || position.chain != object.chain || position.repeated_after != object.repeated_after {
            return Err(named("it is of another place than its nodes say".into()));
        }
        Ok(Some(checkpoint))
    }

    /// Adds a node's word.
    pub(super) async fn say(&self, shard: ShardId, vouch: &Vouch, signer: &Signer) -> Result<(), String> {
        let subject = format!("{}.{:020}.word", prefix(shard, vouch.stream), vouch.sequence);
        self.add(subject, vouch.encode(signer)?).await
    }

    /// Adds those parts of a checkpoint's bytes that are not there.
    pub(super) async fn put(&self, shard: ShardId, vouch: &Vouch, bytes: &Bytes) -> Result<(), String> {
        let subject = part_subject(shard, vouch.stream, vouch.sequence);
        let mut missing: HashMap<[u8; 32], Bytes> = HashMap::new();
        for (place, part) in vouch.object.parts.iter().enumerate() {
            let begin = place * vouch::PART_BYTES;
            let end = (begin + vouch::PART_BYTES).min(bytes.len());
            missing.insert(*part, bytes.slice(begin..end));
        }
        self.each(subject.clone(), |_, payload| {
            missing.remove(blake3::hash(&payload).as_bytes());
            !missing.is_empty()
        })
        .await?;
        for part in missing.into_values() {
            self.add(subject.clone(), part).await?;
        }
        Ok(())
    }

    /// Gives up all that was written for a sequence.
    pub(super) async fn purge(&self, shard: ShardId, stream: u64, sequence: u64) -> Result<u64, String> {
        let handle = self.context.get_stream_no_info(&self.stream).await;
        let handle = handle.map_err(|error| error.to_string())?;
        let filter = format!("{}.{sequence:020}.>", prefix(shard, stream));
        let purged = handle.purge().filter(filter).await;
        purged.map(|purged| purged.purged).map_err(|error| error.to_string())
    }

    async fn add(&self, subject: String, payload: Bytes) -> Result<(), String> {
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Expected-Stream", self.stream.as_str());
        let sent = self.context.publish_with_headers(subject, headers, payload).await;
        let acked = sent.map_err(|error| error.to_string())?.await;
        acked.map(drop).map_err(|error| error.to_string())
    }

    /// Shows all messages that there are now under a subject, oldest first, until `take` has enough. Where a reading is cut off, as
    /// by a server that goes or a consumer that is not known everywhere yet, it begins again: `take` may see a message twice.
    async fn each(&self, filter: String, mut take: impl FnMut(&str, Bytes) -> bool) -> Result<(), String> {
        let mut pause = AGAIN_FIRST;
        for _ in 1..TRIES {
            match self.each_once(&filter, &mut take).await {
                Ok(()) => return Ok(()),
                Err(problem) => tracing::debug!(%filter, %problem, "checkpoints are read again"),
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
        self.each_once(&filter, &mut take).await
    }

    async fn each_once(&self, filter: &str, take: &mut impl FnMut(&str, Bytes) -> bool) -> Result<(), String> {
        let told = |error: &dyn std::fmt::Display| error.to_string();
        let stream = self.context.get_stream_no_info(&self.stream).await;
        let stream = stream.map_err(|error| told(&error))?;
        let config = pull::Config {
            filter_subject: filter.to_owned(),
            ack_policy: AckPolicy::None,
            num_replicas: 1,
            memory_storage: true,
            inactive_threshold: CONSUMER_IDLE,
            ..pull::Config::default()
        };
        let consumer = stream.create_consumer(config).await.map_err(|error| told(&error))?;
        if consumer.cached_info().num_pending == 0 {
            return Ok(());
        }
        let messages = consumer
            .stream()
            .max_messages_per_batch(PULL_MESSAGES)
            .max_bytes_per_batch(PULL_BYTES)
            .messages();
        let mut messages = messages.await.map_err(|error| told(&error))?;
        loop {
            let next = tokio::time::timeout(SILENT_MAX, messages.next()).await;
            let Ok(Some(message)) = next else {
                return Err("the stream of checkpoints fell silent while it was read".into());
            };
            let message = message.map_err(|error| told(&error))?;
            let is_last = message.info().map_err(|error| told(&error))?.pending == 0;
            let more = take(message.message.subject.as_str(), message.message.payload.clone());
            if is_last || !more {
                return Ok(());
            }
        }
    }
}

fn part_subject(shard: ShardId, stream: u64, sequence: u64) -> String {
    format!("{}.{sequence:020}.part", prefix(shard, stream))
}
