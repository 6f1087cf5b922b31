//! Metrics for the operator: each with its name, unit and meaning.

use crate::store::Counts;
use ::metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use skytale_proto::Code;
use std::time::Duration;

const REQUESTS: &str = "skytale_api_requests_total";
const REQUEST_SECONDS: &str = "skytale_api_request_seconds";
const REFUSALS: &str = "skytale_api_refusals_total";
const READY: &str = "skytale_api_ready";
const ACCOUNTS: &str = "skytale_api_accounts";
const KEYS: &str = "skytale_api_keys";
const AGENTS: &str = "skytale_api_agents";
const CHANNELS: &str = "skytale_api_channels";
const RELAYS: &str = "skytale_api_relays";

/// Describes every metric to the recorder that is installed. The binary calls it once, after it has installed one.
pub fn describe() {
    let count = Unit::Count;
    describe_counter!(REQUESTS, count, "Requests answered, by method, path and status.");
    describe_histogram!(
        REQUEST_SECONDS,
        Unit::Seconds,
        "From a request's head to its answer, by method and path."
    );
    describe_counter!(REFUSALS, count, "Refusals, by code.");
    describe_gauge!(READY, count, "1 where the database takes writes, else 0.");
    describe_gauge!(ACCOUNTS, count, "Accounts.");
    describe_gauge!(KEYS, count, "API keys that are in force.");
    describe_gauge!(AGENTS, count, "Agents that are bound to an account and have not ended.");
    describe_gauge!(CHANNELS, count, "Names of channels.");
    describe_gauge!(
        RELAYS,
        count,
        "Relay nodes in the directory that send heartbeats, by whether three of them are missing."
    );
}

pub(crate) fn answered(method: &'static str, path: String, status: u16, took: Duration) {
    let labels = [
        ("method", method.to_owned()),
        ("path", path),
        ("status", status.to_string()),
    ];
    counter!(REQUESTS, &labels).increment(1);
    histogram!(REQUEST_SECONDS, &labels[..2]).record(took.as_secs_f64());
}

pub(crate) fn refused(code: Code) {
    counter!(REFUSALS, "code" => code.to_string()).increment(1);
}

pub(crate) fn ready(ready: bool) {
    gauge!(READY).set(f64::from(u8::from(ready)));
}

#[allow(clippy::cast_precision_loss)]
pub(crate) fn counted(counts: &Counts) {
    gauge!(ACCOUNTS).set(counts.accounts as f64);
    gauge!(KEYS).set(counts.keys as f64);
    gauge!(AGENTS).set(counts.agents as f64);
    gauge!(CHANNELS).set(counts.channels as f64);
    gauge!(RELAYS, "state" => "live").set(counts.relays_live as f64);
    gauge!(RELAYS, "state" => "missing").set(counts.relays_missing as f64);
}
