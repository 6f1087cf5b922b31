//! Follows without a consumer while none can be had: the stream's leader is asked for message after message.
//!
//! A consumer is made by the leader of the cluster's meta group. Where the server that dies led that group, and had the consumer,
//! there is none for as long as an election takes, although the stream has a leader and takes messages.

use super::intake::Arrived;
use async_nats::jetstream;
use futures_util::StreamExt as _;
use std::time::Duration;

/// Maximum time to make a consumer before messages are requested one by one.
pub(super) const BEGINS_AFTER: Duration = Duration::from_millis(300);
/// Messages asked for at once, at most.
const AT_ONCE: usize = 64;
/// Messages taken in at once, at most.
const TAKEN_MAX: u64 = 256;
/// The pause where there is none.
const PAUSE: Duration = Duration::from_millis(50);

/// The messages of a stream from a sequence on, as many as there are up to `to`, and at least that one if it is there.
pub(super) async fn fetch(
    context: jetstream::Context,
    stream: String,
    from: u64,
    to: u64,
    after: Duration,
) -> Vec<Result<Arrived, String>> {
    tokio::time::sleep(after).await;
    let to = to.clamp(from, from + TAKEN_MAX - 1);
    let Ok(stream) = context.get_stream_no_info(&stream).await else {
        tokio::time::sleep(PAUSE).await;
        return Vec::new();
    };
    let stream = &stream;
    let asked =
        futures_util::stream::iter(from..=to).map(|sequence| async move { stream.get_raw_message(sequence).await });
    let mut answers = asked.buffered(AT_ONCE);
    let mut fetched = Vec::new();
    while let Some(answer) = answers.next().await {
        match answer {
            Ok(message) => fetched.push(Ok(Arrived::fetched(message))),
            // Not there yet, or nobody answers: the messages so far are all there are. The task that makes the consumer
            // reports the problem.
            Err(error) => {
                tracing::trace!(%error, "no message");
                break;
            }
        }
    }
    drop(answers);
    if fetched.is_empty() {
        tokio::time::sleep(PAUSE).await;
    }
    fetched
}
