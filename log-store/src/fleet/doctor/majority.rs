//! Clusters that have no majority to spare.

use super::gather::Server;
use super::report::{Finding, Severity};
use std::collections::BTreeMap;

/// Clusters of two servers, which bear the loss of none.
pub(super) fn judge(servers: &[Server], silent: usize, findings: &mut Vec<Finding>) {
    // Of which cluster a server is that does not answer, nobody says.
    if silent > 0 {
        return;
    }
    let mut clusters: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    // One without JetStream is another finding.
    for server in servers {
        let cluster = server.cluster.as_deref().unwrap_or_default();
        clusters.entry(cluster).or_default().push(&server.name);
    }
    for (cluster, names) in clusters {
        let [one, other] = names[..] else { continue };
        findings.push(Finding {
            severity: Severity::Warning,
            check: "no-majority",
            subject: cluster.to_owned(),
            found: format!("the cluster has two servers, {one} and {other}"),
            means: "With one of them away there is no majority, and no append is taken. Streams of three copies find no place."
                .to_owned(),
            mend: vec![
                "add a third server to the region in the inventory, and write the files: skytale fleet nats --inventory \
                 inventory.toml --out conf"
                    .to_owned(),
                "start it, and reload the others".to_owned(),
            ],
        });
    }
}

#[cfg(test)]
mod tests {
    use super::super::gather::JetStream;
    use super::*;

    fn server(name: &str, cluster: &str) -> Server {
        Server {
            name: name.to_owned(),
            cluster: Some(cluster.to_owned()),
            version: "2.15.1".to_owned(),
            max_payload: None,
            jetstream: Some(JetStream::default()),
            clock: None,
        }
    }

    #[test]
    fn two_servers_of_a_cluster_are_one_too_few() {
        let found = |servers: &[Server], silent| {
            let mut findings = Vec::new();
            judge(servers, silent, &mut findings);
            findings.into_iter().map(|finding| finding.subject).collect::<Vec<_>>()
        };
        let eu = || ["eu-1", "eu-2"].map(|name| server(name, "eu"));
        let us = || ["us-1", "us-2", "us-3"].map(|name| server(name, "us"));
        assert_eq!(found(&eu(), 0), ["eu"]);
        assert_eq!(found(&us(), 0), [] as [&str; 0]);
        assert_eq!(found(&eu().into_iter().chain(us()).collect::<Vec<_>>(), 0), ["eu"]);
        // A third one does not answer, which is another finding.
        assert_eq!(found(&eu(), 1), [] as [&str; 0]);
    }
}
