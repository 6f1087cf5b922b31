//! Every metric of the fleet store, with its unit. Shards are distinguished by the label `shard`, as `region/index`.

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use std::time::Duration;

const LAG: &str = "skytale_fleet_follower_lag_messages";
const BATCH_FRAMES: &str = "skytale_fleet_publish_batch_frames";
const BATCH_BYTES: &str = "skytale_fleet_publish_batch_bytes";
const PUBLISH_SECONDS: &str = "skytale_fleet_publish_seconds";
const APPEND_SECONDS: &str = "skytale_fleet_append_seconds";
const REPUBLISHED: &str = "skytale_fleet_republished_batches_total";
const FOLLOWED: &str = "skytale_fleet_followed_messages_total";
const RESUMED: &str = "skytale_fleet_follower_resumed_total";
const DISCONNECTED: &str = "skytale_fleet_disconnected_total";
const WELCOMES_OWED: &str = "skytale_fleet_bundles_with_owed_welcomes";
const CHECKPOINTS: &str = "skytale_fleet_checkpoints_written_total";
const BY_MIRROR: &str = "skytale_fleet_follows_mirror";
const COPIES_BEHIND: &str = "skytale_fleet_copies_behind";
const HALTED: &str = "skytale_fleet_shard_halted";
const CLOCK_AHEAD: &str = "skytale_fleet_clock_ahead_seconds";
const UNREAD: &str = "skytale_fleet_servers_unread";
const KEY_SWITCHED: &str = "skytale_fleet_key_switched_total";
const KEY_PROBLEMS: &str = "skytale_fleet_key_problems";
const RIGHTS: &str = "skytale_fleet_rights_problems";
const MARKS: &str = "skytale_fleet_marks_written_total";
const GARBAGE: &str = "skytale_fleet_messages_without_a_frame_total";

/// Tells the recorder what the metrics mean. Once a process is enough.
pub(super) fn describe() {
    describe_gauge!(
        LAG,
        Unit::Count,
        "Messages of the stream that this node has not folded yet"
    );
    describe_histogram!(BATCH_FRAMES, Unit::Count, "Frames in one published batch");
    describe_histogram!(BATCH_BYTES, Unit::Bytes, "Bytes of frames in one published batch");
    describe_histogram!(
        PUBLISH_SECONDS,
        Unit::Seconds,
        "Time until a batch was acknowledged by the stream"
    );
    describe_histogram!(APPEND_SECONDS, Unit::Seconds, "Time from an append to its verdict");
    describe_counter!(
        REPUBLISHED,
        Unit::Count,
        "Batches published again because what became of them was unknown"
    );
    describe_counter!(FOLLOWED, Unit::Count, "Messages folded");
    describe_counter!(RESUMED, Unit::Count, "Times that a follower had to start over");
    describe_counter!(DISCONNECTED, Unit::Count, "Connections to NATS lost");
    describe_gauge!(
        WELCOMES_OWED,
        Unit::Count,
        "Accepted bundles whose Welcomes are not all on their logs"
    );
    describe_counter!(CHECKPOINTS, Unit::Count, "Checkpoints written by this node");
    describe_gauge!(
        BY_MIRROR,
        Unit::Count,
        "1 where the shard is followed by its mirror in this node's region, 0 where the stream itself is"
    );
    describe_gauge!(
        HALTED,
        Unit::Count,
        "1 where the shard takes no appends, since its stream contradicts what was followed of it"
    );
    describe_gauge!(
        CLOCK_AHEAD,
        Unit::Seconds,
        "How far this node's clock is ahead of the fleet's time, which a majority of the clocks of nodes and NATS servers has reached"
    );
    describe_gauge!(
        UNREAD,
        Unit::Count,
        "NATS servers of which it is not known whether they sync before they acknowledge"
    );
    describe_gauge!(
        COPIES_BEHIND,
        Unit::Count,
        "Copies of the stream that its leader misses, or that are far behind it"
    );
    describe_counter!(
        KEY_SWITCHED,
        Unit::Count,
        "Times that a connection to NATS went on with another key from its file"
    );
    describe_gauge!(
        RIGHTS,
        Unit::Count,
        "Rights of this node's NATS key that are not what they must be: it may purge, or may not do what a node needs"
    );
    describe_gauge!(
        KEY_PROBLEMS,
        Unit::Count,
        "Files with NATS keys that are not used: refused by servers, or no key"
    );
    describe_counter!(
        MARKS,
        Unit::Count,
        "Marks written to find out how far a stream goes: a cursor was past all that this node had"
    );
    describe_counter!(
        GARBAGE,
        Unit::Count,
        "Messages skipped because they hold no frame of their shard"
    );
}

/// Shows the values of a node that has met nothing yet. Where a metric is missing, nobody knows whether all is well.
pub(super) fn begin<'a>(shards: impl IntoIterator<Item = &'a str>) {
    for shard in shards {
        lag(shard, 0);
        halted(shard, false);
        copies_behind(shard, 0);
        for count in [FOLLOWED, RESUMED, REPUBLISHED, CHECKPOINTS, MARKS, GARBAGE] {
            counter!(count, "shard" => shard.to_owned()).increment(0);
        }
    }
    for count in [DISCONNECTED, KEY_SWITCHED] {
        counter!(count).increment(0);
    }
    welcomes_owed(0);
    rights(0);
    key_problems(0);
    clock_ahead(0);
}

pub(super) fn lag(shard: &str, messages: u64) {
    gauge!(LAG, "shard" => shard.to_owned()).set(messages as f64);
}

pub(super) fn follows_mirror(shard: &str, by_mirror: bool) {
    gauge!(BY_MIRROR, "shard" => shard.to_owned()).set(f64::from(u8::from(by_mirror)));
}

pub(super) fn copies_behind(shard: &str, copies: usize) {
    gauge!(COPIES_BEHIND, "shard" => shard.to_owned()).set(copies as f64);
}

pub(super) fn halted(shard: &str, is_halted: bool) {
    gauge!(HALTED, "shard" => shard.to_owned()).set(f64::from(u8::from(is_halted)));
}

pub(super) fn clock_ahead(milliseconds: i64) {
    gauge!(CLOCK_AHEAD).set(milliseconds as f64 / 1e3);
}

pub(super) fn servers_unread(servers: usize) {
    gauge!(UNREAD).set(servers as f64);
}

pub(super) fn published(shard: &str, frames: usize, bytes: usize, took: Duration) {
    histogram!(BATCH_FRAMES, "shard" => shard.to_owned()).record(frames as f64);
    histogram!(BATCH_BYTES, "shard" => shard.to_owned()).record(bytes as f64);
    histogram!(PUBLISH_SECONDS, "shard" => shard.to_owned()).record(took.as_secs_f64());
}

pub(super) fn appended(took: Duration) {
    histogram!(APPEND_SECONDS).record(took.as_secs_f64());
}

pub(super) fn republished(shard: &str) {
    counter!(REPUBLISHED, "shard" => shard.to_owned()).increment(1);
}

pub(super) fn followed(shard: &str, messages: usize) {
    counter!(FOLLOWED, "shard" => shard.to_owned()).increment(messages as u64);
}

pub(super) fn resumed(shard: &str) {
    counter!(RESUMED, "shard" => shard.to_owned()).increment(1);
}

pub(super) fn disconnected() {
    counter!(DISCONNECTED).increment(1);
}

pub(super) fn key_switched() {
    counter!(KEY_SWITCHED).increment(1);
}

pub(super) fn key_problems(files: usize) {
    gauge!(KEY_PROBLEMS).set(files as f64);
}

pub(super) fn rights(problems: usize) {
    gauge!(RIGHTS).set(problems as f64);
}

pub(super) fn welcomes_owed(bundles: usize) {
    gauge!(WELCOMES_OWED).set(bundles as f64);
}

pub(super) fn checkpoint_written(shard: &str) {
    counter!(CHECKPOINTS, "shard" => shard.to_owned()).increment(1);
}

pub(super) fn marked(shard: &str) {
    counter!(MARKS, "shard" => shard.to_owned()).increment(1);
}

pub(super) fn garbage(shard: &str) {
    counter!(GARBAGE, "shard" => shard.to_owned()).increment(1);
}
