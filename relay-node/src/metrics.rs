//! Metrics for the operator: each with its name, unit and meaning.

use crate::https::Traffic;
use crate::trust::Barred;
use ::metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use skytale_proto::{Code, Kind};
use std::borrow::Cow;
use std::time::Duration;

const APPENDS: &str = "skytale_relay_append_requests_total";
const APPEND_BYTES: &str = "skytale_relay_append_bytes_total";
const VERDICTS: &str = "skytale_relay_verdicts_total";
const APPEND_SECONDS: &str = "skytale_relay_append_seconds";
const REPLAY_BYTES: &str = "skytale_relay_replay_bytes_total";
const BATCHES: &str = "skytale_relay_batches_total";
const SUBSCRIPTIONS: &str = "skytale_relay_subscriptions";
const SESSIONS: &str = "skytale_relay_sessions";
const SESSIONS_STARTED: &str = "skytale_relay_sessions_started_total";
const SESSIONS_ENDED: &str = "skytale_relay_sessions_ended_total";
const CONNECTIONS: &str = "skytale_relay_connections";
const RECEIVE_FREE: &str = "skytale_relay_receive_free_bytes";
const BEFORE_HELLO: &str = "skytale_relay_connections_before_hello";
const APPENDS_WAITING: &str = "skytale_relay_appends_waiting";
const LAG_MAX: &str = "skytale_relay_reader_lag_entries_max";
const REFUSALS: &str = "skytale_relay_refusals_total";
const CLAIMS: &str = "skytale_relay_key_package_claims_total";
const API_REQUESTS: &str = "skytale_relay_api_requests_total";
const REVOCATIONS_AGE: &str = "skytale_relay_revocations_age_seconds";
const KEYS_AGE: &str = "skytale_relay_keys_age_seconds";
const HEARTBEAT_AGE: &str = "skytale_relay_heartbeat_age_seconds";
const HTTPS_CONNECTIONS: &str = "skytale_relay_https_connections";
const HTTPS_BYTES: &str = "skytale_relay_https_bytes_total";
const TAP_EVENTS: &str = "skytale_relay_tap_events_total";
const TAP_DROPPED: &str = "skytale_relay_tap_dropped_total";
const READY: &str = "skytale_relay_ready";
const DRAINING: &str = "skytale_relay_draining";
const TWIN: &str = "skytale_relay_twin";
const BARRED: &str = "skytale_relay_barred";
const CLOCK_SKEW: &str = "skytale_relay_clock_skew_seconds";
const CLOCK_WRONG: &str = "skytale_relay_clock_wrong";

/// Describes every metric to the recorder that is installed. The binary calls it once, after it has installed one.
pub fn describe() {
    let count = Unit::Count;
    describe_counter!(APPENDS, count, "Append requests received, before any check.");
    describe_counter!(APPEND_BYTES, Unit::Bytes, "Bytes of append requests received.");
    describe_counter!(
        VERDICTS,
        count,
        "Frames answered, by kind and verdict: appended, duplicate, or a code."
    );
    describe_histogram!(
        APPEND_SECONDS,
        Unit::Seconds,
        "From a frame read to its verdict known, which is after it is durable."
    );
    describe_counter!(REPLAY_BYTES, Unit::Bytes, "Bytes of records sent to subscriptions.");
    describe_counter!(BATCHES, count, "Batches sent to subscriptions.");
    describe_gauge!(SUBSCRIPTIONS, count, "Subscriptions that run.");
    describe_gauge!(SESSIONS, count, "Sessions that run.");
    describe_counter!(SESSIONS_STARTED, count, "Sessions started.");
    describe_counter!(
        SESSIONS_ENDED,
        count,
        "Sessions ended, by code; `closed` where the agent left."
    );
    describe_gauge!(CONNECTIONS, count, "Connections, with those that have not said Hello.");
    describe_gauge!(
        BEFORE_HELLO,
        count,
        "Connections that count for their addresses: they have not said Hello, or shown a token over HTTPS."
    );
    describe_gauge!(
        APPENDS_WAITING,
        count,
        "Frames that wait for their account's turn to append; above 0 the store has as many as it is given at a time."
    );
    describe_gauge!(
        RECEIVE_FREE,
        Unit::Bytes,
        "Room for requests that is free; at 0 those whose bytes do not come give way."
    );
    describe_gauge!(
        LAG_MAX,
        count,
        "Entries that the slowest subscription is behind its log's head."
    );
    describe_counter!(REFUSALS, count, "Refusals sent, by code.");
    describe_counter!(
        CLAIMS,
        count,
        "KeyPackages claimed, by whether the last resort was given."
    );
    describe_counter!(
        API_REQUESTS,
        count,
        "Requests to the API, by what for and whether it answered well."
    );
    describe_gauge!(
        REVOCATIONS_AGE,
        Unit::Seconds,
        "Time since the API last told revocations."
    );
    describe_gauge!(KEYS_AGE, Unit::Seconds, "Time since the API last told its keys.");
    describe_gauge!(
        HEARTBEAT_AGE,
        Unit::Seconds,
        "Time since the relay directory last took a heartbeat, on an enrolled node."
    );
    describe_gauge!(HTTPS_CONNECTIONS, count, "Agents' connections over HTTPS.");
    describe_counter!(
        HTTPS_BYTES,
        Unit::Bytes,
        "Bytes of frames over HTTPS, by way: in and out of the server, of agents and of the node's own endpoint together."
    );
    describe_counter!(TAP_EVENTS, count, "Events that the tap has written.");
    describe_counter!(
        TAP_DROPPED,
        count,
        "Events that the tap has lost, by reason: its queue was full, or the disk could not be written."
    );
    describe_gauge!(READY, count, "1 where /readyz says yes, else 0.");
    describe_gauge!(DRAINING, count, "1 where the node drains, else 0.");
    describe_gauge!(
        TWIN,
        count,
        "1 where another process shows the node's key, and is refused, else 0."
    );
    describe_gauge!(
        BARRED,
        count,
        "1 where the API lets the node serve no agents, by reason, else 0."
    );
    describe_gauge!(
        CLOCK_SKEW,
        Unit::Seconds,
        "How far the node's clock is certainly ahead of another, by whose that is; below zero where it is behind."
    );
    describe_gauge!(
        CLOCK_WRONG,
        count,
        "1 while the node sends agents elsewhere because of its clock, else 0."
    );
}

pub(crate) fn append_requested(bytes: usize) {
    counter!(APPENDS).increment(1);
    counter!(APPEND_BYTES).increment(bytes as u64);
}

/// A frame has its answer. `kind` is `None` where it was refused before it was known.
pub(crate) fn append_answered(kind: Option<Kind>, verdict: Verdict) {
    let kind = kind.map_or("unknown", Kind::name);
    counter!(VERDICTS, "kind" => kind, "verdict" => verdict.name()).increment(1);
}

pub(crate) fn append_took(time: Duration) {
    histogram!(APPEND_SECONDS).record(time);
}

/// Outcome of a frame.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Verdict {
    Appended,
    Duplicate,
    Refused(Option<Code>),
}

impl Verdict {
    fn name(self) -> Cow<'static, str> {
        match self {
            Self::Appended => "appended".into(),
            Self::Duplicate => "duplicate".into(),
            Self::Refused(code) => code_name(code),
        }
    }
}

pub(crate) fn batch_sent(bytes: usize) {
    counter!(BATCHES).increment(1);
    counter!(REPLAY_BYTES).increment(bytes as u64);
}

pub(crate) fn session_started() {
    counter!(SESSIONS_STARTED).increment(1);
}

pub(crate) fn session_ended(code: Option<Code>) {
    counter!(SESSIONS_ENDED, "code" => code.map_or_else(|| "closed".to_owned(), |code| code.to_string())).increment(1);
}

pub(crate) fn refused(code: Option<Code>) {
    counter!(REFUSALS, "code" => code_name(code)).increment(1);
}

pub(crate) fn claimed(last_resort: bool) {
    counter!(CLAIMS, "last_resort" => if last_resort { "true" } else { "false" }).increment(1);
}

pub(crate) fn api_asked(what: &'static str, well: bool) {
    counter!(API_REQUESTS, "what" => what, "outcome" => if well { "ok" } else { "failed" }).increment(1);
}

pub(crate) fn tap_written(events: u64) {
    counter!(TAP_EVENTS).increment(events);
}

pub(crate) fn tap_dropped(reason: &'static str, events: u64) {
    counter!(TAP_DROPPED, "reason" => reason).increment(events);
}

#[allow(clippy::cast_precision_loss)]
pub(crate) fn clock_skew(source: &'static str, ahead_ms: i64) {
    gauge!(CLOCK_SKEW, "source" => source).set(ahead_ms as f64 / 1_000.0);
}

pub(crate) fn clock_wrong(wrong: bool) {
    gauge!(CLOCK_WRONG).set(f64::from(u8::from(wrong)));
}

/// The state at the moment of a scrape.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Standing {
    pub(crate) connections: usize,
    pub(crate) before_hello: usize,
    pub(crate) appends_waiting: usize,
    pub(crate) receive_free_bytes: usize,
    pub(crate) sessions: usize,
    pub(crate) subscriptions: usize,
    pub(crate) lag_entries_max: u64,
    pub(crate) revocations_age: Option<Duration>,
    pub(crate) keys_age: Option<Duration>,
    pub(crate) heartbeat_age: Option<Duration>,
    pub(crate) https: Option<Traffic>,
    pub(crate) ready: bool,
    pub(crate) draining: bool,
    pub(crate) barred: Option<Barred>,
    pub(crate) twin: bool,
}

#[allow(clippy::cast_precision_loss)]
pub(crate) fn standing(standing: Standing) {
    gauge!(CONNECTIONS).set(standing.connections as f64);
    gauge!(BEFORE_HELLO).set(standing.before_hello as f64);
    gauge!(APPENDS_WAITING).set(standing.appends_waiting as f64);
    gauge!(RECEIVE_FREE).set(standing.receive_free_bytes as f64);
    gauge!(SESSIONS).set(standing.sessions as f64);
    gauge!(SUBSCRIPTIONS).set(standing.subscriptions as f64);
    gauge!(LAG_MAX).set(standing.lag_entries_max as f64);
    gauge!(READY).set(f64::from(u8::from(standing.ready)));
    gauge!(DRAINING).set(f64::from(u8::from(standing.draining)));
    gauge!(TWIN).set(f64::from(u8::from(standing.twin)));
    for reason in Barred::ALL {
        let is_so = standing.barred == Some(reason);
        gauge!(BARRED, "reason" => reason.name()).set(f64::from(u8::from(is_so)));
    }
    if let Some(https) = standing.https {
        gauge!(HTTPS_CONNECTIONS).set(https.connections as f64);
        counter!(HTTPS_BYTES, "way" => "in").absolute(https.bytes_received);
        counter!(HTTPS_BYTES, "way" => "out").absolute(https.bytes_sent);
    }
    if let Some(age) = standing.heartbeat_age {
        gauge!(HEARTBEAT_AGE).set(age);
    }
    if let Some(age) = standing.revocations_age {
        gauge!(REVOCATIONS_AGE).set(age);
    }
    if let Some(age) = standing.keys_age {
        gauge!(KEYS_AGE).set(age);
    }
}

/// Returns the code's usual text: `SKY-1006`.
fn code_name(code: Option<Code>) -> Cow<'static, str> {
    code.map_or(Cow::Borrowed("unknown"), |code| code.to_string().into())
}
