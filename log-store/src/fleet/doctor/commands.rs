//! The commands that fix the findings, as they are typed. `nats` is NATS' command line
//! (<https://github.com/nats-io/natscli>); its keys are those that `skytale fleet nats` made for operators.

use super::gather::Facts;
use crate::fleet::config::FleetConfig;

/// Writes commands for this fleet.
#[derive(Debug)]
pub(super) struct Commands {
    server: String,
    tls: String,
}

impl Commands {
    pub(super) fn new(config: &FleetConfig, facts: &Facts) -> Self {
        let answering = facts.addresses.iter().find(|address| address.greeting.is_ok());
        let named = answering.map(|address| &address.url).or(config.nats.servers.first());
        let tls = config.nats.tls.roots.as_ref();
        Self {
            server: named.cloned().unwrap_or_default(),
            tls: tls
                .map(|roots| format!(" --tlsca {}", roots.display()))
                .unwrap_or_default(),
        }
    }

    #[cfg(test)]
    pub(super) fn for_tests() -> Self {
        Self {
            server: "nats://eu-1:4222".into(),
            tls: " --tlsca ca.pem".into(),
        }
    }

    /// About streams: as the operator.
    pub(super) fn stream(&self, rest: &str) -> String {
        self.nats("operator.nk", &format!("stream {rest}"))
    }

    /// About servers: as the operator of the system account.
    pub(super) fn server(&self, rest: &str) -> String {
        self.nats("operator-system.nk", &format!("server {rest}"))
    }

    fn nats(&self, key: &str, rest: &str) -> String {
        format!("nats -s {}{} --nkey {key} {rest}", self.server, self.tls)
    }

    /// The name by which a peer is removed: its id, where the servers have forgotten its name.
    pub(super) fn peer(name: &str) -> &str {
        let id = name.split_once("peerID: ").map(|(_, rest)| rest.trim_end_matches(')'));
        id.unwrap_or(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_name_a_server_that_answers_the_key_and_the_roots() {
        assert_eq!(
            Commands::for_tests().stream("info S"),
            "nats -s nats://eu-1:4222 --tlsca ca.pem --nkey operator.nk stream info S"
        );
    }

    #[test]
    fn a_peer_without_a_name_is_removed_by_its_id() {
        assert_eq!(Commands::peer("eu-3"), "eu-3");
        assert_eq!(
            Commands::peer("Server name unknown at this time (peerID: 44jzkV9D)"),
            "44jzkV9D"
        );
    }
}
