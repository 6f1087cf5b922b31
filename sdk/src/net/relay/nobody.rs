//! Detects that nothing listens at the addresses of relay nodes: their machines refuse the connection. QUIC over UDP
//! does not see such a refusal, and waits.

use super::address::{Endpoint, Relay};
use super::way::Transport;
use futures_util::future::{join, join_all, pending};
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use tokio::net::{TcpStream, UdpSocket, lookup_host};

/// A datagram that no QUIC endpoint answers: it lacks the bit that every packet has (RFC 9000 section 17).
const PROBE: [u8; 1] = [0];

impl Endpoint {
    /// Resolves once it is known that nothing listens at any address of these relay nodes, over any transport that this
    /// endpoint may use; otherwise never. The machine's answer can be forged or missing. It is only a hint, and no
    /// reason to give up an attempt that may still succeed.
    pub(crate) async fn nobody_listens(&self, relays: &[Relay]) {
        if relays.is_empty() {
            return pending().await;
        }
        let local = self.network.bind.map(|address| address.ip());
        join_all(relays.iter().map(|relay| self.is_gone(relay, local))).await;
    }

    async fn is_gone(&self, relay: &Relay, local: Option<IpAddr>) {
        let (by_udp, by_https) = match self.network.transport {
            Transport::Auto => (&relay.addresses[..], relay.https_url.as_deref()),
            Transport::Udp => (&relay.addresses[..], None),
            Transport::Https => (&[][..], relay.https_url.as_deref()),
        };
        if by_udp.is_empty() && by_https.is_none() {
            return pending().await;
        }
        let udp = join_all(by_udp.iter().map(|address| refuses_udp(*address, local)));
        let https = async {
            if let Some(url) = by_https {
                refuses_tcp(url).await;
            }
        };
        join(udp, https).await;
    }
}

/// Resolves when the connection is refused; otherwise never.
async fn unless_refused<T>(attempt: impl Future<Output = io::Result<T>>) {
    match attempt.await {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {}
        _ => pending().await,
    }
}

async fn refuses_udp(address: SocketAddr, local: Option<IpAddr>) {
    let any = match address {
        SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let local = local.filter(|ip| ip.is_ipv4() == address.is_ipv4()).unwrap_or(any);
    unless_refused(async {
        let socket = UdpSocket::bind(SocketAddr::new(local, 0)).await?;
        socket.connect(address).await?;
        socket.send(&PROBE).await?;
        // The kernel reports an ICMP answer to the datagram as an error of the socket.
        socket.recv(&mut [0; 1]).await
    })
    .await;
}

async fn refuses_tcp(url: &str) {
    unless_refused(async {
        let url = reqwest::Url::parse(url).map_err(io::Error::other)?;
        let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let port = url.port_or_known_default().unwrap_or(443);
        let mut refused = None;
        for address in lookup_host((host, port)).await? {
            match TcpStream::connect(address).await {
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => refused = Some(error),
                other => return other.map(drop),
            }
        }
        refused.map_or(Ok(()), Err)
    })
    .await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::relay::NetworkConfig;
    use futures_util::FutureExt as _;
    use skytale_proto::EndpointId;
    use zeroize::Zeroizing;

    async fn endpoint() -> Endpoint {
        let network = NetworkConfig::bound_to(SocketAddr::from(([127, 0, 0, 1], 0)));
        Endpoint::bind(&Zeroizing::new([3; 32]), network).await.expect("bound")
    }

    fn relay(address: SocketAddr, https: SocketAddr) -> Relay {
        Relay {
            endpoint: EndpointId::from_bytes([9; 32]),
            addresses: vec![address],
            https_url: Some(format!("http://{https}")),
        }
    }

    #[tokio::test]
    async fn a_relay_node_that_is_gone_is_known_by_all_of_its_addresses() {
        let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
        let udp = UdpSocket::bind(loopback).await.expect("bound");
        let tcp = tokio::net::TcpListener::bind(loopback).await.expect("bound");
        let (udp_address, tcp_address) = (udp.local_addr().expect("known"), tcp.local_addr().expect("known"));
        let endpoint = endpoint().await;
        let there = relay(udp_address, tcp_address);
        drop(tcp);
        // Something listens at one of two addresses: it never answers the probe, so this does not resolve.
        let half = [there.clone()];
        let mut half = Box::pin(endpoint.nobody_listens(&half));
        let tcp_gone = refuses_tcp(there.https_url.as_deref().expect("a URL"));
        tokio::select! {
            () = &mut half => panic!("something listens"),
            () = tcp_gone => {}
        }
        assert!(half.as_mut().now_or_never().is_none());
        drop(half);
        drop(udp);
        endpoint.nobody_listens(&[there]).await;
        assert!(endpoint.nobody_listens(&[]).now_or_never().is_none());
    }
}
