//! The relay directory: an enrolled node is in it for as long as it sends heartbeats.
//!
//! ```text
//!  start ── heartbeat ── next_ms ──> heartbeat ── ... ── drain ──> heartbeat { draining } ── ... ── shutdown ──> gone
//!                 └── failed ── short pause ──> heartbeat
//! ```
//!
//! Each heartbeat carries everything. [`pause`] says when the next one is due, [`presence`] how the last one went.

mod pause;
mod presence;

pub(crate) use presence::Presence;

use crate::load::{Meter, Rates};
use crate::node::Shared;
use crate::trust::{About, Api, heard};
use iroh::SecretKey;
use pause::Pause;
use skytale_proto::rest::{HEARTBEAT_SHARDS_MAX, Heartbeat, RelayLoad, ShardLag, Twin, registration_message};
use skytale_proto::{EndpointId, EnrolmentId, InstanceId};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

/// Maximum time for which a heartbeat on its way, and the farewell after it, may each keep the node from stopping.
const LEAVE_WITHIN: Duration = Duration::from_secs(2);

/// A node's place in the directory.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    api: Arc<Api>,
    endpoint: EndpointId,
    addresses: Vec<String>,
    https_url: Option<String>,
    region: u8,
    proof: String,
    /// This process.
    instance: InstanceId,
}

impl Place {
    /// The place that an enrolment gives to the endpoint of this key.
    pub(crate) fn new(
        api: Arc<Api>,
        enrolment: &EnrolmentId,
        key: &SecretKey,
        addresses: Vec<String>,
        https_url: Option<String>,
        region: u8,
    ) -> Self {
        let endpoint = EndpointId::from_bytes(*key.public().as_bytes());
        let signature = key.sign(&registration_message(enrolment, &endpoint)).to_bytes();
        Self {
            api,
            endpoint,
            addresses,
            https_url,
            region,
            instance: InstanceId::generate(),
            proof: signature.iter().map(|byte| format!("{byte:02x}")).collect(),
        }
    }

    fn heartbeat(&self, node: &Shared, rates: Rates) -> Heartbeat {
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        let store = node.store.readiness();
        Heartbeat {
            proof: self.proof.clone(),
            addresses: self.addresses.clone(),
            https_url: self.https_url.clone(),
            region: self.region,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            // A node whose store has stopped, or is not ready yet, or whose clock is wrong, is one that agents should not be
            // sent to either.
            draining: node.is_draining() || !store.problems.is_empty() || node.clock.is_wrong(),
            load: RelayLoad {
                agents: count(node.sessions.len()),
                agents_max: node.config.limits.connections_max,
                appends_per_second: rates.appends_per_second,
                reads_per_second: rates.reads_per_second,
                lag: farthest(store.lag),
            },
            instance: Some(self.instance),
        }
    }

    /// Sends heartbeats until the node stops: one at once, then as often as the API says; and one at once when the node
    /// begins to drain, its store stops, or its clock turns out to be wrong or right.
    pub(crate) async fn keep(self, node: Arc<Shared>, stop: CancellationToken) {
        let mut drain = node.drain.subscribe();
        let mut stopped = node.store.stopped();
        let mut clock = node.clock.subscribe();
        let mut pause = Pause::default();
        let mut meter = Meter::new(node.load.counts(), Instant::now());
        loop {
            drain.mark_unchanged();
            stopped.mark_unchanged();
            clock.mark_unchanged();
            let rates = meter.rates(node.load.counts(), Instant::now());
            let heartbeat = self.heartbeat(&node, rates);
            let asked = Instant::now();
            let sent = tokio::select! {
                sent = self.api.heartbeat(&self.endpoint, &heartbeat) => sent,
                // One that is on its way must not arrive after the farewell.
                () = within(&stop, LEAVE_WITHIN) => return,
            };
            heard(&node, About::Heartbeat, asked, sent.as_ref().map(|_| ()));
            match &sent {
                Ok(taken) => {
                    pause.taken(Duration::from_millis(taken.next_ms));
                    self.note_twin(&node, taken.twin.as_ref());
                    if node.presence.taken() {
                        info!(region = self.region, addresses = ?self.addresses, "in the relay directory");
                    }
                }
                Err(error) => {
                    pause.failed(error.is_retryable(), error.retry_after());
                    if node.presence.failed(error.to_string()) {
                        warn!(%error, "the relay directory takes no heartbeat");
                    }
                }
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep(pause.next(rand::random())) => {}
                Ok(()) = drain.changed() => {}
                Ok(()) = stopped.changed() => {}
                Ok(()) = clock.changed() => {}
            }
        }
    }

    /// Says once that another process shows this node's key, and once that it is gone.
    fn note_twin(&self, node: &Shared, twin: Option<&Twin>) {
        let twin = twin.map(|twin| twin.addresses.join(", "));
        if !node.presence.twin_is(twin) {
            return;
        }
        match node.presence.twin() {
            Some(detail) => warn!("{detail}"),
            None => info!("no other process shows this relay node's key any more"),
        }
    }

    /// Takes the node out of the directory. After [`Place::keep`] has ended.
    pub(crate) async fn leave(&self) {
        match timeout(LEAVE_WITHIN, self.api.remove(&self.endpoint, &self.instance)).await {
            Ok(Ok(())) => debug!("out of the relay directory"),
            // Its enrolment was revoked, say: it is out already.
            Ok(Err(error)) if !error.is_retryable() => debug!(%error, "the relay directory takes no farewell"),
            Ok(Err(error)) => {
                warn!(%error, "the relay directory still names this node, until its heartbeats are missed")
            }
            Err(_) => warn!("the relay directory still names this node, until its heartbeats are missed: no answer"),
        }
    }
}

/// Some time after the node was asked to stop.
async fn within(stop: &CancellationToken, time: Duration) {
    stop.cancelled().await;
    sleep(time).await;
}

/// Returns as many shards as a heartbeat takes: those in which the node is behind the most, in order.
fn farthest(mut lag: Vec<ShardLag>) -> Vec<ShardLag> {
    if lag.len() > HEARTBEAT_SHARDS_MAX {
        lag.sort_unstable_by_key(|lag| std::cmp::Reverse(lag.messages));
        lag.truncate(HEARTBEAT_SHARDS_MAX);
        lag.sort_unstable_by_key(|lag| (lag.region, lag.shard));
    }
    lag
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_shards_those_behind_the_most_are_told() {
        let lag = |shard| ShardLag {
            region: 1,
            shard,
            messages: u64::from(shard),
        };
        assert_eq!(farthest(vec![lag(1), lag(0)]), [lag(1), lag(0)]);
        let told = farthest((0..200).map(lag).collect());
        assert_eq!(told, (72..200).map(lag).collect::<Vec<_>>());
    }
}
