//! Whether servers have found each other, and whom they see.

use super::account::{Account, addresses, connect};
use super::{ACCOUNTS, Cluster, STARTS_WITHIN};
use async_nats::jetstream;
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

impl Cluster {
    /// Waits until all servers have found each other and JetStream answers.
    pub async fn settled(&self) {
        if let Err(error) = self.settle(STARTS_WITHIN).await {
            panic!("{error}");
        }
    }

    pub(super) async fn settle(&self, within: Duration) -> Result<(), String> {
        let begun = Instant::now();
        let account = Account {
            user: format!("relay{}", ACCOUNTS - 1),
            servers: addresses(&self.ports),
            nodes_file: self.dir.path().join("nodes"),
        };
        loop {
            match self.try_settled(&account).await {
                Ok(()) => return Ok(()),
                Err(error) if begun.elapsed() > within => {
                    return Err(format!("the servers do not become a cluster: {error}\n{}", self.logs()));
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }

    async fn try_settled(&self, account: &Account) -> Result<(), String> {
        let context = account.try_context().await?;
        let config = jetstream::stream::Config {
            name: "SETTLED".into(),
            subjects: vec!["settled".into()],
            num_replicas: if self.gateways.is_empty() { self.ports.len() } else { 1 },
            ..Default::default()
        };
        let mut stream = context
            .get_or_create_stream(config)
            .await
            .map_err(|error| error.to_string())?;
        let info = stream.info().await.map_err(|error| error.to_string())?;
        let whole = self.ports.len() == 1
            || info.cluster.as_ref().is_some_and(|cluster| {
                cluster.leader.is_some() && cluster.replicas.iter().all(|peer| peer.current && !peer.offline)
            });
        let acked = context
            .publish("settled", "".into())
            .await
            .map_err(|error| error.to_string())?;
        acked.await.map_err(|error| error.to_string())?;
        if whole {
            Ok(())
        } else {
            Err("not all are current".into())
        }
    }

    /// The last lines of each server's log.
    pub fn logs(&self) -> String {
        let tail = |path: &Path| {
            let text = fs::read_to_string(path).unwrap_or_default();
            let lines: Vec<&str> = text.lines().rev().take(40).collect();
            lines.into_iter().rev().collect::<Vec<_>>().join("\n")
        };
        (0..self.ports.len())
            .map(|server| format!("-- n{server}\n{}\n", tail(&self.folder(server).join("log"))))
            .collect()
    }

    /// Returns the servers that a server is connected to, by its own account: each once, in order. In regions, the
    /// regions that it has a gateway to.
    pub async fn sees(&self, server: usize) -> Result<Vec<String>, String> {
        let client = connect("sys", &addresses(&self.ports[server..=server])).await?;
        let id = client.server_info().server_id;
        let (what, key) = if self.gateways.is_empty() {
            ("ROUTEZ", "routes")
        } else {
            ("GATEWAYZ", "outbound_gateways")
        };
        let answer = client.request(format!("$SYS.REQ.SERVER.{id}.{what}"), "".into()).await;
        let answer = answer.map_err(|error| error.to_string())?;
        let answer: Value = serde_json::from_slice(&answer.payload).map_err(|error| error.to_string())?;
        let mut seen: Vec<String> = match &answer["data"][key] {
            Value::Array(routes) => routes
                .iter()
                .filter_map(|route| route["remote_name"].as_str().map(str::to_owned))
                .collect(),
            Value::Object(gateways) => gateways.keys().cloned().collect(),
            _ => Vec::new(),
        };
        seen.sort();
        seen.dedup();
        Ok(seen)
    }
}
