//! Connections to a relay node: QUIC over UDP; or, if the network blocks UDP, the same QUIC in datagrams over HTTPS, by
//! iroh's relay protocol. The session is the same over both: keys and encryption are those of the two endpoints.
//!
//! A connection over HTTPS has its own iroh endpoint, with the same secret key, so that it presents the current token.
//! If UDP becomes possible later, iroh moves the connection there.

use super::address::{Endpoint, Relay};
use super::error::RelayError;
use crate::net::token::Token;
use iroh::endpoint::{Connection, NetReportConfig};
use iroh::tls::CaTlsConfig;
use iroh::{RelayConfig, RelayMap, RelayMode, RelayUrl, TransportAddr};
use skytale_proto::session;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::timeout;

/// Longest time to establish a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Time without an answer over UDP after which HTTPS is tried in parallel.
const HTTPS_AFTER: Duration = Duration::from_millis(700);

/// Transport of an agent's QUIC connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Transport {
    /// UDP; HTTPS if UDP gets no answer and the relay node serves HTTPS.
    #[default]
    Auto,
    /// UDP only.
    Udp,
    /// HTTPS only.
    Https,
}

/// Error for a text that names no [`Transport`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a transport is `auto`, `udp` or `https`")]
#[non_exhaustive]
pub struct TransportError;

impl Transport {
    /// Returns its name, in the form that is parsed.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Udp => "udp",
            Self::Https => "https",
        }
    }
}

impl std::str::FromStr for Transport {
    type Err = TransportError;

    fn from_str(text: &str) -> Result<Self, TransportError> {
        [Self::Auto, Self::Udp, Self::Https]
            .into_iter()
            .find(|transport| transport.name() == text)
            .ok_or(TransportError)
    }
}

/// A connection, with its own endpoint if it has one.
pub(super) struct Connected {
    pub(super) connection: Connection,
    pub(super) own: Option<OwnEndpoint>,
}

/// An endpoint of one connection. Closed when it is dropped, if not before.
#[derive(Debug)]
pub(super) struct OwnEndpoint(Option<iroh::Endpoint>);

impl OwnEndpoint {
    pub(super) async fn close(&self) {
        if let Some(endpoint) = &self.0 {
            endpoint.close().await;
        }
    }
}

impl Drop for OwnEndpoint {
    fn drop(&mut self) {
        if let Some(endpoint) = self.0.take()
            && !endpoint.is_closed()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(async move { endpoint.close().await });
        }
    }
}

impl Endpoint {
    /// Connects to a relay node. Over HTTPS, it presents the token.
    pub(super) async fn connect(&self, relay: &Relay, token: &Token) -> Result<Connected, RelayError> {
        let url = match (self.network.transport, &relay.https_url) {
            (Transport::Udp, _) | (Transport::Auto, None) => return self.over_udp(relay).await,
            (Transport::Https, None) => {
                return Err(RelayError::Unreachable {
                    reason: format!("relay {} serves no HTTPS, and the transport is `https`", relay.endpoint),
                });
            }
            (_, Some(url)) => url,
        };
        // Its size is that of what binds an endpoint.
        let over_https = Box::pin(self.over_https(relay, url, token));
        if self.network.transport == Transport::Https {
            return over_https.await;
        }
        // If HTTPS worked last time it is tried at once, in parallel to UDP, which answers first if it can.
        let after = match self.is_udp_blocked.load(Ordering::Relaxed) {
            true => Duration::ZERO,
            false => HTTPS_AFTER,
        };
        let connected = first(self.over_udp(relay), after, over_https).await;
        if let Ok(connected) = &connected {
            self.is_udp_blocked.store(connected.own.is_some(), Ordering::Relaxed);
        }
        connected.map_err(|(udp, https)| RelayError::Unreachable {
            reason: format!("over UDP: {}; over HTTPS, {url}: {}", reason(udp), reason(https)),
        })
    }

    async fn over_udp(&self, relay: &Relay) -> Result<Connected, RelayError> {
        let connection = within(self.inner.connect(relay.to_iroh()?, session::ALPN)).await?;
        Ok(Connected { connection, own: None })
    }

    async fn over_https(&self, relay: &Relay, url: &str, token: &Token) -> Result<Connected, RelayError> {
        let unusable = |reason: String| RelayError::Unreachable { reason };
        let url: RelayUrl = url.parse().map_err(|error| unusable(format!("`{url}`: {error}")))?;
        let server = RelayConfig::new(url.clone(), None).with_auth_token(token.expose());
        let roots = self.network.roots.iter().map(|root| root.clone().into());
        let builder = self
            .builder()
            .relay_mode(RelayMode::Custom(RelayMap::from_iter([server])))
            .net_report_config(NetReportConfig::minimal())
            .ca_tls_config(CaTlsConfig::embedded().with_extra_roots(roots));
        let builder = match (self.network.transport, self.network.bind) {
            (Transport::Https, _) => builder.clear_ip_transports(),
            (_, None) => builder,
            (_, Some(bind)) => builder
                .clear_ip_transports()
                .bind_addr(SocketAddr::new(bind.ip(), 0))
                .map_err(|error| unusable(error.to_string()))?,
        };
        let endpoint = builder.bind().await.map_err(|error| unusable(format!("{error:#}")))?;
        let own = OwnEndpoint(Some(endpoint.clone()));
        let mut address = relay.to_iroh()?;
        if self.network.transport == Transport::Https {
            address.addrs.clear();
        }
        address.addrs.insert(TransportAddr::Relay(url));
        let connection = within(endpoint.connect(address, session::ALPN)).await?;
        Ok(Connected {
            connection,
            own: Some(own),
        })
    }
}

async fn within<E: std::fmt::Display>(
    connecting: impl Future<Output = Result<Connection, E>>,
) -> Result<Connection, RelayError> {
    let reason = match timeout(CONNECT_TIMEOUT, connecting).await {
        Ok(Ok(connection)) => return Ok(connection),
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("no answer within {} s", CONNECT_TIMEOUT.as_secs()),
    };
    Err(RelayError::Unreachable { reason })
}

fn reason(error: RelayError) -> String {
    match error {
        RelayError::Unreachable { reason } => reason,
        error => error.to_string(),
    }
}

/// Returns the first of two that succeeds. The second starts when the first has failed, or after a delay.
async fn first<T, E>(
    one: impl Future<Output = Result<T, E>>,
    after: Duration,
    other: impl Future<Output = Result<T, E>>,
) -> Result<T, (E, E)> {
    tokio::pin!(one, other);
    let failed = match timeout(after, &mut one).await {
        Ok(Ok(done)) => return Ok(done),
        Ok(Err(error)) => Some(error),
        Err(_) => None,
    };
    if let Some(failed) = failed {
        return other.await.map_err(|error| (failed, error));
    }
    tokio::select! {
        biased;
        done = &mut one => match done {
            Ok(done) => Ok(done),
            Err(failed) => other.await.map_err(|error| (failed, error)),
        },
        done = &mut other => match done {
            Ok(done) => Ok(done),
            Err(error) => one.await.map_err(|failed| (failed, error)),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::{Instant, sleep};

    #[test]
    fn a_transport_is_read_by_its_name() {
        for transport in [Transport::Auto, Transport::Udp, Transport::Https] {
            assert_eq!(transport.name().parse(), Ok(transport));
        }
        assert_eq!("quic".parse::<Transport>(), Err(TransportError));
    }

    /// Behaviour of a connection attempt: delay in milliseconds, and whether it succeeds.
    type Way = (u64, bool);

    async fn race(one: Way, after: u64, other: Way) -> (Result<u8, (u8, u8)>, u64) {
        let begun = Instant::now();
        let way = |(ms, stands): Way, number: u8| async move {
            sleep(Duration::from_millis(ms)).await;
            if stands { Ok(number) } else { Err(number) }
        };
        let done = first(way(one, 1), Duration::from_millis(after), way(other, 2)).await;
        (done, u64::try_from(begun.elapsed().as_millis()).expect("short"))
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_that_stands_is_taken() {
        assert_eq!(race((20, true), 700, (1, true)).await, (Ok(1), 20));
        assert_eq!(race((5_000, false), 700, (300, true)).await, (Ok(2), 1_000));
        assert_eq!(race((800, true), 700, (300, true)).await, (Ok(1), 800));
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_fails_is_not_waited_for() {
        assert_eq!(race((5, false), 700, (300, true)).await, (Ok(2), 305));
        assert_eq!(race((900, true), 700, (10, false)).await, (Ok(1), 900));
        assert_eq!(race((800, false), 700, (300, true)).await, (Ok(2), 1_000));
    }

    #[tokio::test(start_paused = true)]
    async fn where_none_stands_both_reasons_are_kept() {
        assert_eq!(race((800, false), 700, (300, false)).await, (Err((1, 2)), 1_000));
        assert_eq!(race((900, false), 0, (10, false)).await, (Err((1, 2)), 900));
    }
}
