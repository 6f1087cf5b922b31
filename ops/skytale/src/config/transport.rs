//! Transports by which agents reach relay nodes.

use super::Loaded;
use crate::output::Outcome;
use serde::{Deserialize, Serialize};
use skytale_sdk::NetworkConfig;

/// Transport of an agent's connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Transport {
    /// QUIC over UDP, or over HTTPS where UDP gets no answer.
    #[default]
    Auto,
    /// QUIC over UDP alone.
    Udp,
    /// QUIC over HTTPS alone.
    Https,
}

impl Transport {
    pub(crate) fn name(self) -> &'static str {
        skytale_sdk::Transport::from(self).name()
    }
}

impl From<Transport> for skytale_sdk::Transport {
    fn from(transport: Transport) -> Self {
        match transport {
            Transport::Auto => Self::Auto,
            Transport::Udp => Self::Udp,
            Transport::Https => Self::Https,
        }
    }
}

impl Loaded {
    /// Returns the network settings of an agent: a file of certificates that cannot be used is refused.
    pub(crate) fn network(&self) -> Outcome<NetworkConfig> {
        let roots = match &self.config.ca_file {
            None => Vec::new(),
            Some(file) => self.certificates("ca_file", file)?,
        };
        let network = NetworkConfig::default().with_transport(self.config.transport.into());
        Ok(network.with_roots(roots))
    }
}

#[cfg(test)]
mod tests {
    use crate::config::{Layer, Sources, load};
    use skytale_proto::Code;

    #[test]
    fn a_file_of_certificates_that_cannot_be_used_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let (missing, empty) = (folder.path().join("missing.pem"), folder.path().join("empty.pem"));
        std::fs::write(&empty, "no certificate").expect("written");
        for file in [missing, empty] {
            let flags = vec![Layer::flag("--set", "ca_file", file.display())];
            let loaded = load(Sources {
                flags,
                ..Sources::default()
            });
            let refused = loaded.expect("loads").network().expect_err("refused");
            assert_eq!(refused.code(), Code::Config);
        }
    }
}
