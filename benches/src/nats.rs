//! The limit of a fleet: a JetStream client that publishes batches or reads messages, and does nothing with them.

use anyhow::{Context as _, ensure};
use async_nats::HeaderMap;
use async_nats::client::Request;
use async_nats::jetstream::consumer::pull;
use async_nats::jetstream::stream::{Config, DiscardPolicy, StorageType};
use async_nats::jetstream::{self, Context};
use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _};
use std::sync::atomic::{AtomicU64, Ordering};

/// A message to be published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Its subject.
    pub subject: String,
    /// Its payload.
    pub payload: Bytes,
}

/// Messages that were read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadMessages {
    /// Messages.
    pub messages: u64,
    /// Bytes of their payloads.
    pub bytes: u64,
}

/// Makes a stream as the fleet's store makes those of its shards: three copies, in files, with atomic batches.
pub async fn make_stream(context: &Context, name: &str, subjects: &str) -> anyhow::Result<()> {
    let config = Config {
        name: name.to_owned(),
        subjects: vec![subjects.to_owned()],
        storage: StorageType::File,
        discard: DiscardPolicy::New,
        num_replicas: 3,
        allow_atomic_publish: true,
        ..Config::default()
    };
    context.create_stream(config).await?;
    Ok(())
}

/// Publishes messages in atomic batches of `batch`, with `in_flight` batches unanswered.
pub async fn publish(context: &Context, messages: &[Message], batch: usize, in_flight: usize) -> anyhow::Result<()> {
    publish_as(context, messages, batch, in_flight, None).await
}

/// The same, each message with an id: the first one's number, and so on.
pub async fn publish_with_ids(
    context: &Context,
    messages: &[Message],
    batch: usize,
    in_flight: usize,
    first_id: u64,
) -> anyhow::Result<()> {
    publish_as(context, messages, batch, in_flight, Some(first_id)).await
}

async fn publish_as(
    context: &Context,
    messages: &[Message],
    batch: usize,
    in_flight: usize,
    first_id: Option<u64>,
) -> anyhow::Result<()> {
    let batches = messages.chunks(batch).enumerate();
    let batches = batches.map(|(number, messages)| (first_id.map(|first| first + (number * batch) as u64), messages));
    futures_util::stream::iter(batches.map(Ok))
        .try_for_each_concurrent(in_flight, |(first_id, messages)| {
            publish_batch(context, messages, first_id)
        })
        .await
}

/// Publishes one atomic batch and waits for its acknowledgement.
async fn publish_batch(context: &Context, batch: &[Message], first_id: Option<u64>) -> anyhow::Result<()> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let id = format!("b{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
    let (last, others) = batch.split_last().context("a batch of at least one message")?;
    let headers = |index: usize| {
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Batch-Id", id.as_str());
        headers.insert("Nats-Batch-Sequence", (index + 1).to_string());
        if let Some(first) = first_id {
            headers.insert("Nats-Msg-Id", (first + index as u64).to_string());
        }
        headers
    };
    let client = context.client();
    for (index, message) in others.iter().enumerate() {
        let (subject, payload) = (message.subject.clone(), message.payload.clone());
        client.publish_with_headers(subject, headers(index), payload).await?;
    }
    let mut commit = headers(others.len());
    commit.insert("Nats-Batch-Commit", "1");
    let request = Request::new().headers(commit).payload(last.payload.clone());
    let answer = client.send_request(last.subject.clone(), request).await?;
    let answer: serde_json::Value = serde_json::from_slice(&answer.payload)?;
    ensure!(
        answer["count"] == batch.len() && answer["error"].is_null(),
        "a batch of {} is acknowledged: {answer}",
        batch.len()
    );
    Ok(())
}

/// Reads `messages` messages of a stream with JetStream's own ordered consumer: of one subject, or of all.
pub async fn read(context: &Context, stream: &str, subject: &str, messages: u64) -> anyhow::Result<ReadMessages> {
    let stream = context.get_stream(stream).await?;
    let config = pull::OrderedConfig {
        filter_subject: subject.to_owned(),
        deliver_policy: jetstream::consumer::DeliverPolicy::All,
        ..pull::OrderedConfig::default()
    };
    let mut delivered = stream.create_consumer(config).await?.messages().await?;
    let mut read = ReadMessages::default();
    while read.messages < messages {
        let message = delivered.next().await.context("the consumer goes on")??;
        read.messages += 1;
        read.bytes += message.payload.len() as u64;
    }
    Ok(read)
}
