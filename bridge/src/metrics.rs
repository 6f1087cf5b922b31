//! Metrics for the operator: each with its name, unit and meaning.

use ::metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use skytale_proto::Code;
use std::time::Duration;

const LINKS: &str = "skytale_bridge_links";
const LINKS_STARTED: &str = "skytale_bridge_links_started_total";
const LINKS_ENDED: &str = "skytale_bridge_links_ended_total";
const SUBSCRIPTIONS: &str = "skytale_bridge_subscriptions";
const STORED: &str = "skytale_bridge_frames_stored_total";
const STORED_BYTES: &str = "skytale_bridge_stored_bytes_total";
const STORE_SECONDS: &str = "skytale_bridge_store_seconds";
const DELIVERED: &str = "skytale_bridge_frames_delivered_total";
const ROUTED: &str = "skytale_bridge_frames_routed_total";
const DROPPED: &str = "skytale_bridge_frames_dropped_total";
const REFUSALS: &str = "skytale_bridge_refusals_total";
const TRIMMED: &str = "skytale_bridge_members_trimmed_total";
const CHANNELS: &str = "skytale_bridge_channels";

/// Describes every metric to the recorder that is installed. The binary calls it once, after it has installed one.
pub fn describe() {
    let count = Unit::Count;
    describe_gauge!(LINKS, count, "Links that are up.");
    describe_counter!(LINKS_STARTED, count, "Links negotiated, by key agreement.");
    describe_counter!(LINKS_ENDED, count, "Links ended, by code; `closed` if the client left.");
    describe_gauge!(SUBSCRIPTIONS, count, "Subscriptions of all links.");
    describe_gauge!(CHANNELS, count, "Channels whose log is open.");
    describe_counter!(STORED, count, "Frames that the log has acknowledged.");
    describe_counter!(STORED_BYTES, Unit::Bytes, "Their bytes.");
    describe_histogram!(
        STORE_SECONDS,
        Unit::Seconds,
        "From a durable frame read to its acknowledgement by the log."
    );
    describe_counter!(
        DELIVERED,
        count,
        "Frames from the log given to links: `replay` up to the head at the time of the subscription, then `live`."
    );
    describe_counter!(ROUTED, count, "Transient frames given to links.");
    describe_counter!(DROPPED, count, "Frames dropped, by reason.");
    describe_counter!(REFUSALS, count, "Refusals, by code.");
    describe_counter!(
        TRIMMED,
        count,
        "Members that came back after the log had given up what they missed."
    );
}

/// Sets the counters of events that have not happened yet to 0, so that none is missing.
pub(crate) fn begin() {
    for gauge in [LINKS, SUBSCRIPTIONS, CHANNELS] {
        gauge!(gauge).set(0.0);
    }
    for counter in [STORED, STORED_BYTES, ROUTED, TRIMMED] {
        counter!(counter).increment(0);
    }
    for how in ["replay", "live"] {
        counter!(DELIVERED, "how" => how).increment(0);
    }
}

pub(crate) fn links(change: f64) {
    gauge!(LINKS).increment(change);
}

pub(crate) fn link_started(hybrid: bool) {
    counter!(LINKS_STARTED, "keys" => if hybrid { "x25519+ml-kem-768" } else { "x25519" }).increment(1);
}

pub(crate) fn link_ended(code: Option<Code>) {
    let code = code.map_or_else(|| "closed".to_owned(), |code| code.to_string());
    counter!(LINKS_ENDED, "code" => code).increment(1);
}

#[allow(clippy::cast_precision_loss)]
pub(crate) fn subscriptions(change: i64) {
    gauge!(SUBSCRIPTIONS).increment(change as f64);
}

#[allow(clippy::cast_precision_loss)]
pub(crate) fn channels(count: usize) {
    gauge!(CHANNELS).set(count as f64);
}

pub(crate) fn stored(bytes: usize, took: Duration) {
    counter!(STORED).increment(1);
    counter!(STORED_BYTES).increment(bytes as u64);
    histogram!(STORE_SECONDS).record(took.as_secs_f64());
}

pub(crate) fn delivered(replay: bool) {
    counter!(DELIVERED, "how" => if replay { "replay" } else { "live" }).increment(1);
}

pub(crate) fn routed() {
    counter!(ROUTED).increment(1);
}

/// Reason why a frame went nowhere.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Dropped {
    NoMatch,
    Ttl,
    SlowLink,
    Refused,
    Exchange,
}

pub(crate) fn dropped(why: Dropped) {
    let why = match why {
        Dropped::NoMatch => "no_match",
        Dropped::Ttl => "ttl",
        Dropped::SlowLink => "slow_link",
        Dropped::Refused => "refused",
        Dropped::Exchange => "exchange",
    };
    counter!(DROPPED, "reason" => why).increment(1);
}

pub(crate) fn refused(code: Code) {
    counter!(REFUSALS, "code" => code.to_string()).increment(1);
}

pub(crate) fn trimmed() {
    counter!(TRIMMED).increment(1);
}
