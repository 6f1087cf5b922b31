//! Configuration of the bridge.

use crate::auth::AuthConfig;
use crate::error::BridgeError;
use crate::tls::TlsConfig;
use serde::{Deserialize, Serialize};
use skytale_proto::limits;
use std::net::SocketAddr;
use std::time::Duration;

/// Maximum bytes of a frame that the bridge's own envelope and the relay's frame header take.
const OVERHEAD_BYTES: usize = 4 * 1024;

/// Settings of the bridge.
#[derive(Clone, Debug)]
pub struct BridgeConfig {
    /// Address for gRPC (TCP).
    pub listen: SocketAddr,
    /// Address for admin HTTP. `None`: nowhere.
    pub admin_listen: Option<SocketAddr>,
    /// Lets it listen beyond loopback without TLS and without accounts: `skytale dev` in a container.
    pub open_beyond_loopback: bool,
    /// Name of the bridge in link negotiation.
    pub node_id: String,
    /// The bridges of one domain serve the same channels. `None` is the account.
    pub domain: Option<String>,
    /// Home region of the logs that it creates.
    pub region: u8,
    /// Whether transient frames go to other bridges of the domain, by a raw log.
    pub exchange: bool,
    /// Limits.
    pub limits: BridgeLimits,
    /// Times.
    pub times: BridgeTimes,
}

impl BridgeConfig {
    /// Makes a configuration with defaults for the rest.
    pub fn new(listen: SocketAddr) -> Self {
        Self {
            listen,
            admin_listen: None,
            open_beyond_loopback: false,
            node_id: "skytale/bridge".into(),
            domain: None,
            region: 0,
            exchange: false,
            limits: BridgeLimits::default(),
            times: BridgeTimes::default(),
        }
    }

    /// Refuses what cannot work, with the first key that is wrong.
    pub fn check(&self) -> Result<(), BridgeError> {
        self.problems().into_iter().next().map_or(Ok(()), Err)
    }

    /// Returns all problems of the settings.
    pub fn problems(&self) -> Vec<BridgeError> {
        let mut found = Vec::new();
        let mut refuse = |wrong: bool, key, problem: &str| {
            if wrong {
                let problem = problem.into();
                found.push(BridgeError::Config { key, problem });
            }
        };
        let limits = &self.limits;
        let most = limits::FRAME_BYTES_MAX - OVERHEAD_BYTES;
        refuse(
            limits.message_bytes_max == 0 || limits.message_bytes_max > most,
            "limits.message_bytes_max",
            &format!("must be 1 to {most}"),
        );
        refuse(
            limits.queue_bytes_max < limits.message_bytes_max,
            "limits.queue_bytes_max",
            "must hold one message at least",
        );
        refuse(
            limits.in_flight_bytes_max < limits.message_bytes_max,
            "limits.in_flight_bytes_max",
            "must hold one message at least",
        );
        refuse(
            limits.waiting_bytes_per_account_max < limits.in_flight_bytes_max,
            "limits.waiting_bytes_per_account_max",
            "must be as much as one link may have in flight, at least",
        );
        refuse(
            self.times.key_ms < 100,
            "times.key_ms",
            "must be 100 at least: the API is asked so often",
        );
        for (key, value) in [
            ("limits.links_max", limits.links_max),
            ("limits.links_per_account_max", limits.links_per_account_max),
            ("limits.subscriptions_max", limits.subscriptions_max),
            ("limits.channels_max", limits.channels_max),
            ("limits.queue_messages_max", limits.queue_messages_max),
            ("limits.in_flight_messages_max", limits.in_flight_messages_max),
        ] {
            refuse(value == 0, key, "must not be 0");
        }
        found
    }

    /// Returns all problems with which a bridge of these settings, accounts and certificates does not start.
    pub fn problems_with(&self, auth: &AuthConfig, tls: Option<&TlsConfig>) -> Vec<BridgeError> {
        let mut found = self.problems();
        let mut refuse = |wrong: bool, key, problem: &str| {
            if wrong {
                let problem = problem.into();
                found.push(BridgeError::Config { key, problem });
            }
        };
        let is_local = self.listen.ip().is_loopback() || self.open_beyond_loopback;
        refuse(
            !is_local && tls.is_none(),
            "tls.certificate_file",
            "is missing: without TLS the bridge listens on loopback alone",
        );
        refuse(
            !is_local && auth.everyone,
            "accounts_file",
            "is missing: without accounts the bridge lets everyone in, which is for loopback alone",
        );
        let mutual = tls.is_some_and(|tls| tls.client_roots.is_some());
        let ways = !auth.bearers.is_empty() || auth.api_url.is_some() || (mutual && !auth.certificates.is_empty());
        refuse(
            !auth.everyone && !ways,
            "accounts_file",
            "names no way in: no account has a bearer, none has a certificate of `bridge.tls.client_roots_file`, and \
             `bridge.api_keys` is false",
        );
        found
    }
}

/// Connections of one network without a link, where nothing else is set: enough for many agents behind one address.
pub const ADDRESS_CONNECTIONS_MAX: u32 = 256;

/// Limits of the bridge; each has a code and a metric.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct BridgeLimits {
    /// A message, in bytes.
    pub message_bytes_max: usize,
    /// Links at once.
    pub links_max: usize,
    /// Links of one account at once.
    pub links_per_account_max: usize,
    /// TCP connections at once, with those that have no link.
    pub connections_max: usize,
    /// TCP connections of one network (an IPv4 address, an IPv6 /64) at once that have no link yet. Without it
    /// [`ADDRESS_CONNECTIONS_MAX`], and loopback is without bound.
    pub address_connections_max: Option<u32>,
    /// Subscriptions of one link.
    pub subscriptions_max: usize,
    /// Channels that one link uses.
    pub channels_max: usize,
    /// Messages that wait for one link to read.
    pub queue_messages_max: usize,
    /// Their bytes.
    pub queue_bytes_max: usize,
    /// Frames of one link that wait for the log.
    pub in_flight_messages_max: usize,
    /// Their bytes.
    pub in_flight_bytes_max: usize,
    /// Bytes of frames of one account that wait for the log, over all of its links.
    pub waiting_bytes_per_account_max: usize,
    /// Messages a second that one account may send, sustained.
    pub messages_per_second: u32,
    /// Bytes of frames that one account may store a day.
    pub stored_bytes_per_day: u64,
    /// HTTP/2: streams of one connection at once.
    pub streams_max: u32,
    /// HTTP/2: a header list, in bytes.
    pub header_list_bytes_max: u32,
    /// HTTP/2: streams reset by the client before the bridge has taken them up.
    pub resets_max: usize,
    /// Entries kept in memory for each channel for members near the head.
    pub recent_entries_max: usize,
    /// Their bytes.
    pub recent_bytes_max: usize,
}

impl Default for BridgeLimits {
    fn default() -> Self {
        Self {
            message_bytes_max: 512 * 1024,
            links_max: 8_192,
            links_per_account_max: 4_096,
            connections_max: 10_000,
            address_connections_max: None,
            subscriptions_max: 1_024,
            channels_max: 128,
            queue_messages_max: 256,
            queue_bytes_max: 1024 * 1024,
            in_flight_messages_max: 256,
            in_flight_bytes_max: 4 * 1024 * 1024,
            waiting_bytes_per_account_max: 64 * 1024 * 1024,
            messages_per_second: 10_000,
            stored_bytes_per_day: 64 * 1024 * 1024 * 1024,
            streams_max: 16,
            header_list_bytes_max: 16 * 1024,
            resets_max: 20,
            recent_entries_max: 1_024,
            recent_bytes_max: 4 * 1024 * 1024,
        }
    }
}

/// Times of the bridge, in milliseconds.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct BridgeTimes {
    /// Maximum time to negotiate a link, and to finish a TLS handshake.
    pub negotiation_ms: u64,
    /// Maximum time until a channel's log is there for a subscription.
    pub attach_ms: u64,
    /// Maximum silence of a returning member after its last subscription before its replay begins all the same.
    pub settle_ms: u64,
    /// Time after a client's process has read a frame at which it counts as received, if the link is still up then: the
    /// time that its application may take to get it.
    pub confirm_ms: u64,
    /// Minimum interval between writes of a channel's cursors.
    pub cursor_ms: u64,
    /// Silence after which a link is pinged (HTTP/2).
    pub keepalive_ms: u64,
    /// Maximum time until the ping is answered.
    pub keepalive_timeout_ms: u64,
    /// Maximum time for which messages that wait for a link may find no room before the link ends. Its client comes
    /// back to the messages that it missed.
    pub stalled_ms: u64,
    /// Time for which the API's answer on an API key is believed, and interval at which it is requested while the key's
    /// links are up: a revoked key loses its links after that.
    pub key_ms: u64,
}

impl Default for BridgeTimes {
    fn default() -> Self {
        Self {
            negotiation_ms: 5_000,
            attach_ms: 8_000,
            settle_ms: 2_000,
            confirm_ms: 1_000,
            cursor_ms: 500,
            keepalive_ms: 30_000,
            keepalive_timeout_ms: 20_000,
            stalled_ms: 60_000,
            key_ms: 20_000,
        }
    }
}

impl BridgeTimes {
    pub(crate) const fn negotiation(&self) -> Duration {
        Duration::from_millis(self.negotiation_ms)
    }

    pub(crate) const fn attach(&self) -> Duration {
        Duration::from_millis(self.attach_ms)
    }

    pub(crate) const fn settle(&self) -> Duration {
        Duration::from_millis(self.settle_ms)
    }

    pub(crate) const fn confirm(&self) -> Duration {
        Duration::from_millis(self.confirm_ms)
    }

    pub(crate) const fn stalled(&self) -> Duration {
        Duration::from_millis(self.stalled_ms)
    }

    pub(crate) const fn key(&self) -> Duration {
        Duration::from_millis(self.key_ms)
    }

    pub(crate) const fn cursor(&self) -> Duration {
        Duration::from_millis(self.cursor_ms)
    }
}
