//! The shards' streams: made where they are missing, and compared with this node's configuration.

use super::config::{FleetConfig, MESSAGE_OVERHEAD_BYTES};
use super::error::OpenError;
use super::guard::is_in_contact;
use super::shards::{ShardId, Shards};
use async_nats::jetstream::context::GetStreamErrorKind;
use async_nats::jetstream::stream::{Config, DiscardPolicy, Info, RetentionPolicy, StorageType};
use async_nats::jetstream::{self, ErrorCode};
use serde::Deserialize;
use skytale_proto::limits;
use std::collections::HashMap;
use std::time::Duration;

/// The window in which the server remembers message ids. None are sent: a batch with one id seen before is refused
/// whole, and the fold knows repeated frames for as long as their entries are kept. The smallest there is.
const DUPLICATE_WINDOW: Duration = Duration::from_millis(100);
/// All shards of the fleet.
const KEY_SHARDS: &str = "skytale-shards";
/// Messages from one checkpoint to the next.
const KEY_CHECKPOINT: &str = "skytale-checkpoint-every";
/// The format of the stream's messages.
const KEY_FORMAT: &str = "skytale-format";
const FORMAT: &str = "1";

/// The stream of a shard as this node makes it.
pub(super) fn wanted(shard: ShardId, shards: &Shards, config: &FleetConfig) -> Config {
    Config {
        name: shard.stream(),
        description: Some("Logs of Skytale: written by relay nodes alone".into()),
        subjects: vec![shard.subjects()],
        storage: StorageType::File,
        retention: RetentionPolicy::Limits,
        discard: DiscardPolicy::New,
        max_age: Duration::ZERO,
        max_bytes: -1,
        max_messages: -1,
        max_messages_per_subject: -1,
        max_message_size: i32::try_from(limits::FRAME_BYTES_MAX + MESSAGE_OVERHEAD_BYTES).unwrap_or(i32::MAX),
        num_replicas: config.replicas,
        duplicate_window: DUPLICATE_WINDOW,
        allow_atomic_publish: true,
        deny_delete: true,
        // The keeper purges; no key of a relay node may.
        deny_purge: false,
        allow_rollup: false,
        allow_direct: false,
        placement: config.placement(shard.region),
        metadata: HashMap::from([
            (KEY_SHARDS.to_owned(), shards.describe()),
            (KEY_CHECKPOINT.to_owned(), config.checkpoint_every.to_string()),
            (KEY_FORMAT.to_owned(), FORMAT.to_owned()),
        ]),
        ..Config::default()
    }
}

/// Returns the problem of an existing stream.
pub(super) fn problem(found: &Config, wanted: &Config, allow_weaker: bool) -> Option<String> {
    for key in [KEY_FORMAT, KEY_SHARDS, KEY_CHECKPOINT] {
        let (found, wanted) = (found.metadata.get(key), wanted.metadata.get(key));
        if found != wanted {
            let shown =
                |value: Option<&String>| value.map_or_else(|| "nothing".to_owned(), |value| format!("`{value}`"));
            return Some(format!(
                "its metadata says {key} is {}, and this node's setting is {}; it cannot change once streams exist",
                shown(found),
                shown(wanted)
            ));
        }
    }
    let kept_whole = found.max_age.is_zero()
        && found.max_bytes <= 0
        && found.max_messages <= 0
        && found.max_messages_per_subject <= 0
        && found.retention == RetentionPolicy::Limits;
    let facts = [
        (found.subjects == wanted.subjects, "its subjects are another shard's"),
        (found.storage == StorageType::File, "it is not kept in files"),
        (
            kept_whole,
            "the server gives messages up by limits of its own; only Trims may",
        ),
        (found.allow_atomic_publish, "atomic batches are not allowed"),
        (found.deny_delete, "single messages can be deleted"),
        (
            !found.allow_rollup,
            "a message may roll up those before it (allow_rollup_hdrs), which is a purge by whoever may append",
        ),
        (found.mirror.is_none(), "it is a mirror"),
        (
            found.num_replicas >= wanted.num_replicas || allow_weaker,
            "it has fewer replicas than this node's configuration asks for",
        ),
    ];
    let wrong = facts.iter().find(|(holds, _)| !holds);
    wrong.map(|(_, problem)| (*problem).to_owned())
}

/// Returns the stream's time of creation, unix nanoseconds: tells it from one made later under the same name.
pub(super) fn stream_id(info: &Info) -> u64 {
    u64::try_from(info.created.unix_timestamp_nanos()).unwrap_or_default()
}

/// Result of a search for a stream.
pub(super) enum Found {
    /// It is there.
    There(Box<Info>),
    /// It is not.
    Missing,
}

/// Looks for a stream.
pub(super) async fn find(context: &jetstream::Context, name: &str) -> Result<Found, OpenError> {
    match context.get_stream(name).await {
        Ok(stream) => Ok(Found::There(Box::new(stream.cached_info().clone()))),
        Err(error) => match error.kind() {
            GetStreamErrorKind::JetStream(error) if error.error_code() == ErrorCode::STREAM_NOT_FOUND => {
                Ok(Found::Missing)
            }
            _ => Err(OpenError::jetstream(format!("look for stream {name}"))(error)),
        },
    }
}

/// Returns the server that leads a stream, and the time there, unix milliseconds; `None` if nobody says.
pub(super) async fn server_time(context: &jetstream::Context, stream: &str) -> Option<(String, u64)> {
    let answer: Told = context.request(format!("STREAM.INFO.{stream}"), &()).await.ok()?;
    let time = async_nats::datetime::parse_rfc3339(&answer.ts?).ok()?;
    let leader = answer.cluster.and_then(|cluster| cluster.leader);
    let time_ms = u64::try_from(time.unix_timestamp_nanos() / 1_000_000).ok()?;
    Some((leader.unwrap_or_else(|| "the only one".to_owned()), time_ms))
}

/// Facts about a stream that the library does not report.
#[derive(Deserialize)]
struct Told {
    ts: Option<String>,
    cluster: Option<Led>,
}

#[derive(Deserialize)]
struct Led {
    leader: Option<String>,
}

/// Gives the stream, made where it is missing and was never there.
pub(super) async fn ensure(
    context: &jetstream::Context,
    wanted: &Config,
    existed: bool,
    allow_weaker: bool,
) -> Result<Option<Info>, OpenError> {
    let info = match find(context, &wanted.name).await? {
        Found::There(info) => *info,
        Found::Missing if existed => return Ok(None),
        Found::Missing => {
            let made = context.create_stream(wanted).await;
            match made {
                Ok(stream) => stream.cached_info().clone(),
                // Another node may have made it at the same moment.
                Err(error) => match find(context, &wanted.name).await? {
                    Found::There(info) => *info,
                    Found::Missing => {
                        return Err(OpenError::jetstream(format!("make stream {}", wanted.name))(error));
                    }
                },
            }
        }
    };
    if let Some(problem) = problem(&info.config, wanted, allow_weaker) {
        return Err(OpenError::Stream {
            stream: wanted.name.clone(),
            problem,
        });
    }
    if !is_in_contact(&info) {
        let looking = OpenError::jetstream(format!("look for stream {}", wanted.name));
        return Err(looking(
            "its leader, if there is one, has not heard from a majority of its servers",
        ));
    }
    Ok(Some(info))
}
