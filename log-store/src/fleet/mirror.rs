//! The nearest copy of another region's stream: a mirror, in this node's own region.
//!
//! A mirror keeps the sequences of its origin, and lags behind it. So it can be followed as the origin can, and the two
//! may be taken in turn: the fold is the same. Only the origin can contradict the fold; a mirror that is not as far
//! yet, or has just been made, is merely behind.

use super::chain::message_hash;
use super::config::FleetConfig;
use super::shards::ShardId;
use super::streams::{self, Found};
use crate::local::ShardPosition;
use async_nats::jetstream;
use async_nats::jetstream::stream::{Config, Info, Source, StorageType};
use skytale_proto::Region;

/// The mirror of a shard's stream in a region.
pub(super) fn name(shard: ShardId, here: Region) -> String {
    format!("{}_IN_{}", shard.stream(), here.0)
}

/// The region whose mirror of a shard this node follows; `None` where it follows the stream itself.
pub(super) fn region(shard: ShardId, config: &FleetConfig) -> Option<Region> {
    config.here.filter(|here| *here != shard.region)
}

/// Makes the mirror where it is missing. Where it cannot be made now, the stream itself is followed.
pub(super) async fn ensure(context: &jetstream::Context, shard: ShardId, config: &FleetConfig) -> Result<(), String> {
    let Some(here) = region(shard, config) else {
        return Ok(());
    };
    let name = name(shard, here);
    match streams::find(context, &name).await {
        Ok(Found::There(_)) => return Ok(()),
        Ok(Found::Missing) => {}
        Err(error) => return Err(format!("the mirror {name} cannot be looked for: {error}")),
    }
    let wanted = Config {
        name: name.clone(),
        description: Some("Logs of Skytale, mirrored from their home region".into()),
        storage: StorageType::File,
        num_replicas: config.replicas,
        max_bytes: -1,
        max_messages: -1,
        mirror: Some(Source {
            name: shard.stream(),
            ..Source::default()
        }),
        placement: config.placement(here),
        ..Config::default()
    };
    // Another node may make it at the same moment.
    match context.create_stream(&wanted).await {
        Ok(_) => Ok(()),
        Err(error) => Err(format!("the mirror {name} is not made now: {error}")),
    }
}

/// Whether a mirror can be followed from after a position: it has got there, and holds the message that was folded.
pub(super) async fn goes_on(
    context: &jetstream::Context,
    shard: ShardId,
    here: Region,
    position: &ShardPosition,
) -> Result<Info, String> {
    let name = name(shard, here);
    let info = match streams::find(context, &name).await {
        Ok(Found::There(info)) => *info,
        Ok(Found::Missing) => return Err("there is no mirror".into()),
        Err(error) => return Err(error.to_string()),
    };
    let (first, last) = (info.state.first_sequence, info.state.last_sequence);
    let at = position.sequence;
    if at + 1 < first || last < at {
        return Err(format!("the mirror holds {first} to {last}, and {at} was folded"));
    }
    if at == 0 || at < first {
        return Ok(info);
    }
    let stream = context
        .get_stream_no_info(&name)
        .await
        .map_err(|error| error.to_string())?;
    let message = stream.get_raw_message(at).await.map_err(|error| error.to_string())?;
    if message_hash(&message.subject, &message.payload) == position.message {
        Ok(info)
    } else {
        Err(format!("the mirror has other bytes at {at}"))
    }
}

/// Gives up what the stream itself has given up; says how many messages.
pub(super) async fn purge(
    context: &jetstream::Context,
    shard: ShardId,
    here: Region,
    first: u64,
) -> Result<u64, String> {
    let name = name(shard, here);
    let Ok(Found::There(info)) = streams::find(context, &name).await else {
        return Ok(0);
    };
    if info.state.messages == 0 || info.state.first_sequence >= first {
        return Ok(0);
    }
    let stream = context
        .get_stream_no_info(&name)
        .await
        .map_err(|error| error.to_string())?;
    let purged = stream
        .purge()
        .sequence(first)
        .await
        .map_err(|error| error.to_string())?;
    tracing::info!(stream = %name, up_to = first - 1, messages = purged.purged, "purged the mirror");
    Ok(purged.purged)
}
