//! The consumer by which a stream is followed: made by this follower, read by nobody else, and forgotten with it.

use super::bridge;
use super::intake::outcome_of;
use super::{End, Follower, PARTS_MAX};
use crate::fleet::asking::{self, AGAIN_AFTER};
use async_nats::jetstream;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, pull};
use std::pin::pin;
use std::time::Duration;

/// Messages asked for at once.
const PULL_MESSAGES: usize = 2_048;
/// Bytes asked for at once.
const PULL_BYTES: usize = 8 * 1024 * 1024;
/// Heartbeat of the server; after twice that in silence, the follower starts over.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// Time that the server waits for messages before it says that there are none.
const PULL_EXPIRES: Duration = Duration::from_secs(10);
/// Time without its follower after which the server forgets a consumer.
const CONSUMER_IDLE: Duration = Duration::from_secs(30);

impl Follower<'_> {
    /// Makes a consumer of a stream. While it cannot be had, and this is the stream itself, follows without.
    pub(super) async fn consumer(&mut self, source: &str, from: u64, bridged: bool) -> Result<pull::Stream, End> {
        let context = self.node.context.clone();
        let within = 2 * self.node.config.request_timeout;
        let mut making = pin!(asking::again(AGAIN_AFTER, within, Result::is_ok, || {
            consume(context.clone(), source.to_owned(), from)
        }));
        // Messages that are read again when a node starts are the consumer's.
        let bridged = bridged && from == self.position.sequence + 1;
        let mut after = bridge::BEGINS_AFTER;
        let mut fetching = None;
        loop {
            let fetch = async {
                let (context, next) = (self.node.context.clone(), self.position.sequence + 1);
                let to = *self.shard.acked.borrow();
                fetching
                    .get_or_insert_with(|| Box::pin(bridge::fetch(context, source.to_owned(), next, to, after)))
                    .await
            };
            tokio::select! {
                biased;
                made = &mut making => return made.map_err(End::Again),
                outcome = outcome_of(&mut self.parts) => self.folded(outcome)?,
                fetched = fetch, if bridged && self.parts.len() < PARTS_MAX => {
                    (fetching, after) = (None, Duration::ZERO);
                    self.chunk(fetched).await?;
                }
            }
        }
    }
}

/// Makes a consumer that only this follower reads.
async fn consume(context: jetstream::Context, source: String, from: u64) -> Result<pull::Stream, String> {
    let stream = context.get_stream_no_info(&source).await;
    let stream = stream.map_err(|error| error.to_string())?;
    let config = pull::Config {
        deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: from },
        ack_policy: AckPolicy::None,
        num_replicas: 1,
        memory_storage: true,
        inactive_threshold: CONSUMER_IDLE,
        ..pull::Config::default()
    };
    let consumer = stream
        .create_consumer(config)
        .await
        .map_err(|error| error.to_string())?;
    let messages = consumer
        .stream()
        .max_messages_per_batch(PULL_MESSAGES)
        .max_bytes_per_batch(PULL_BYTES)
        .heartbeat(HEARTBEAT)
        .expires(PULL_EXPIRES);
    messages.messages().await.map_err(|error| error.to_string())
}
