//! State of a fleet's nodes, from their metrics.

use super::machine::Node;
use crate::http;
use serde::Serialize;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Instant;

/// Work of a node since the last look.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct NodeSample {
    pub node: String,
    pub region: String,
    /// `ready`, `behind` or `down`.
    pub state: &'static str,
    /// Address of its `/metrics` and `/readyz`, while it runs.
    pub admin: Option<SocketAddr>,
    /// Agents in session.
    pub agents: u64,
    pub appends_per_s: f64,
    pub replay_bytes_per_s: f64,
    /// Shards that it follows by their own streams.
    pub streams: u64,
    /// Shards of other regions that it follows by mirrors in its own.
    pub mirrors: u64,
    /// Messages that the node has not followed yet, by shard; those of which there are any.
    pub lag: Vec<ShardLag>,
}

/// Lag of a node in one shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct ShardLag {
    pub shard: String,
    pub messages: u64,
}

/// Looks at nodes again and again.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    last: HashMap<String, (Instant, Counts)>,
}

/// Values that only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Counts {
    appends: f64,
    replay_bytes: f64,
}

impl NodeSample {
    /// Returns the sample of a node that does not answer.
    fn down(node: &str, region: &str) -> Self {
        Self {
            node: node.to_owned(),
            region: region.to_owned(),
            state: "down",
            admin: None,
            agents: 0,
            appends_per_s: 0.0,
            replay_bytes_per_s: 0.0,
            streams: 0,
            mirrors: 0,
            lag: Vec::new(),
        }
    }
}

impl Watch {
    /// Looks at all of them.
    pub(crate) async fn look(&mut self, nodes: &[Node]) -> Vec<NodeSample> {
        let mut samples = Vec::new();
        for node in nodes {
            samples.push(self.look_at(&node.name, &node.region_name, node.relay.admin()).await);
        }
        samples
    }

    async fn look_at(&mut self, node: &str, region: &str, admin: Option<SocketAddr>) -> NodeSample {
        let mut sample = NodeSample::down(node, region);
        let Some(admin) = admin else { return sample };
        sample.admin = Some(admin);
        let Ok((200, page)) = http::get(admin, "/metrics").await else {
            self.last.remove(node);
            return sample;
        };
        let now = Instant::now();
        sample.state = match http::get(admin, "/readyz").await {
            Ok((200, _)) => "ready",
            _ => "behind",
        };
        let counts = read(&page, &mut sample);
        if let Some((then, before)) = self.last.insert(node.to_owned(), (now, counts)) {
            let seconds = now.duration_since(then).as_secs_f64().max(1e-3);
            // A node that was restarted counts from nothing.
            sample.appends_per_s = (counts.appends - before.appends).max(0.0) / seconds;
            sample.replay_bytes_per_s = (counts.replay_bytes - before.replay_bytes).max(0.0) / seconds;
        }
        sample
    }
}

/// Reads the wanted values of a page in Prometheus' text format.
fn read(page: &str, sample: &mut NodeSample) -> Counts {
    let mut counts = Counts::default();
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        let Some((series, value)) = line.rsplit_once(' ') else {
            continue;
        };
        let Ok(value) = value.parse::<f64>() else { continue };
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        match name {
            "skytale_relay_sessions" => sample.agents = value as u64,
            "skytale_relay_verdicts_total" if labels.contains("\"appended\"") => counts.appends += value,
            "skytale_relay_replay_bytes_total" => counts.replay_bytes += value,
            "skytale_fleet_follows_mirror" if value > 0.0 => sample.mirrors += 1,
            "skytale_fleet_follows_mirror" => sample.streams += 1,
            "skytale_fleet_follower_lag_messages" if value > 0.0 => {
                let shard = labels.split('"').nth(1).unwrap_or_default().to_owned();
                sample.lag.push(ShardLag {
                    shard,
                    messages: value as u64,
                });
            }
            _ => {}
        }
    }
    sample.lag.sort_by(|a, b| a.shard.cmp(&b.shard));
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_of_metrics_is_read() {
        let page = "# TYPE skytale_relay_sessions gauge\nskytale_relay_sessions 3\n\
                    skytale_relay_verdicts_total{kind=\"message\",verdict=\"appended\"} 10\n\
                    skytale_relay_verdicts_total{kind=\"commit\",verdict=\"appended\"} 2\n\
                    skytale_relay_verdicts_total{kind=\"message\",verdict=\"duplicate\"} 5\n\
                    skytale_relay_replay_bytes_total 4096\n\
                    skytale_fleet_follower_lag_messages{shard=\"0/1\"} 7\n\
                    skytale_fleet_follower_lag_messages{shard=\"0/0\"} 0\nnonsense\n\
                    skytale_fleet_follows_mirror{shard=\"0/0\"} 0\n\
                    skytale_fleet_follows_mirror{shard=\"0/1\"} 1\n\
                    skytale_fleet_follows_mirror{shard=\"1/1\"} 1\n";
        let mut sample = NodeSample::down("relay-1", "eu");
        let counts = read(page, &mut sample);
        assert_eq!((sample.agents, sample.streams, sample.mirrors), (3, 1, 2));
        assert_eq!((counts.appends, counts.replay_bytes), (12.0, 4_096.0));
        let behind = ShardLag {
            shard: "0/1".into(),
            messages: 7,
        };
        assert_eq!(sample.lag, [behind]);
    }
}
