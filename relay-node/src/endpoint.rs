//! The iroh endpoint: bound where the configuration says, without discovery and without iroh's own relays.

use crate::config::{LimitsConfig, RelayConfig};
use iroh::endpoint::{
    Accepting, Connection, ConnectionError, Incoming, NetReportConfig, QuicTransportConfig, ServerConfig, VarInt,
    presets,
};
use iroh::{Endpoint, RelayMap, RelayMode, RelayUrl, SecretKey};
use skytale_proto::session;
use std::sync::Arc;
use tokio::runtime::{self, Handle, Runtime};

/// Streams that a connection may open before its session has started: each of them but the first is given back.
const STREAMS_BEFORE_HELLO_MAX: u32 = 8;
/// Maximum bytes that one stream may have on their way to this node.
const STREAM_WINDOW_BYTES: u32 = 1024 * 1024;
/// Maximum bytes that a connection may have on their way to this node before its session has started: a few Hellos.
const WINDOW_BEFORE_HELLO_BYTES: u32 = 64 * 1024;
/// The least that a connection has as its share of what all may have on its way to or from this node, in bytes:
/// 2.5 MB/s at a round trip of 100 ms.
const WINDOW_SHARE_BYTES_MIN: u32 = 256 * 1024;
/// The least that it has on its way to this node, where its account has very many sessions.
const RECEIVE_BYTES_MIN: u64 = 64 * 1024;
/// Parts of an account's room that its sessions' windows are shares of. Windows are set when sessions begin, and the
/// first ones are the widest: with 5,000 sessions all windows together are one and a quarter of the account's room, and
/// the least for each.
const ACCOUNT_PARTS: u64 = 8;
/// Streams over the limit that get a code each; those behind them wait until the transport lets them through.
const STREAMS_OVER: u32 = 16;

/// An endpoint that cannot be bound.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {listen}: {problem}")]
pub struct BindError {
    listen: String,
    problem: String,
}

/// The thread that receives for an endpoint. A thousand connections that are being sent to keep all other threads busy
/// for tens of milliseconds a turn; a task that had to wait for its turn among theirs would come to the socket too
/// seldom, and the socket would drop datagrams for lack of room: the connections' acknowledgements.
#[derive(Debug)]
pub(crate) struct Receiving(Option<Runtime>);

impl Receiving {
    fn start() -> std::io::Result<(Self, Handle)> {
        let thread = runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("skytale-receives")
            .enable_all()
            .build()?;
        let handle = thread.handle().clone();
        Ok((Self(Some(thread)), handle))
    }
}

impl Drop for Receiving {
    fn drop(&mut self) {
        // Waiting for it is not allowed where this may be dropped.
        if let Some(thread) = self.0.take() {
            thread.shutdown_background();
        }
    }
}

/// Binds the endpoint. It receives for as long as its thread is kept.
/// With `https`, it is also where iroh's relay server at that URL brings datagrams from.
pub(crate) async fn bind(
    config: &RelayConfig,
    key: SecretKey,
    https: Option<&RelayUrl>,
) -> Result<(Endpoint, Receiving), BindError> {
    let error = |problem: String| BindError {
        listen: config
            .listen
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(", "),
        problem,
    };
    let relays = https.map_or(RelayMode::Disabled, |url| {
        RelayMode::Custom(RelayMap::from_iter([iroh::RelayConfig::new(url.clone(), None)]))
    });
    let mut probes = NetReportConfig::minimal();
    // By which iroh finds its relay server.
    probes.https_probes = https.is_some();
    let mut builder = Endpoint::builder(presets::Minimal)
        .relay_mode(relays)
        .net_report_config(probes)
        .clear_address_lookup()
        .clear_ip_transports()
        .secret_key(key)
        .alpns(vec![session::ALPN.to_vec()])
        .transport_config(transport(config.limits.send_window_bytes));
    for address in &config.listen {
        builder = builder
            .bind_addr(*address)
            .map_err(|cause| error(format!("{cause:#}")))?;
    }
    let (receiving, thread) = Receiving::start().map_err(|cause| error(format!("no thread: {cause}")))?;
    // The receiving task belongs to the runtime in which this is called.
    let bound = thread.spawn(builder.bind()).await;
    let bound = bound.map_err(|cause| error(cause.to_string()))?;
    let endpoint = bound.map_err(|cause| error(format!("{cause:#}")))?;
    Ok((endpoint, receiving))
}

/// Gives a connection the limits of a session, as one of so many of the node and of its account: until then they are
/// low.
pub(crate) fn widen(connection: &Connection, limits: &LimitsConfig, sessions: usize, of_account: usize) {
    let window = receive_window(limits, sessions, of_account);
    connection.set_receive_window(VarInt::from_u32(u32::try_from(window).unwrap_or(u32::MAX)));
    // The control stream is one more.
    let streams = limits.streams_max.saturating_add(1 + STREAMS_OVER);
    connection.set_max_concurrent_bi_streams(VarInt::from_u32(streams));
}

/// The bytes that a session may have on their way to this node: its share of the node's room for requests, at least
/// 256 KiB, and of its account's, at least 64 KiB.
fn receive_window(limits: &LimitsConfig, sessions: usize, of_account: usize) -> u64 {
    // Sessions of others make no agent slow.
    let of_node = share(limits.receive_bytes_max as u64, sessions).max(WINDOW_SHARE_BYTES_MIN.into());
    let of_account = share(limits.account_receive_bytes_max() as u64 / ACCOUNT_PARTS, of_account);
    let most = limits.append_in_flight_bytes_max as u64;
    of_node.min(of_account).max(RECEIVE_BYTES_MIN).min(most)
}

/// Accepts connections with what each may have on its way from this node: less, the more there are. It is set once, when a
/// connection begins.
pub(crate) struct SendWindows {
    /// Bytes for all connections together.
    total: u64,
    /// Windows from the widest to the narrowest, in bytes.
    windows: Vec<(u32, Arc<ServerConfig>)>,
}

impl SendWindows {
    pub(crate) fn new(endpoint: &Endpoint, limits: &LimitsConfig) -> Self {
        let config = |window| {
            let builder = endpoint.create_server_config_builder(vec![session::ALPN.to_vec()]);
            Arc::new(builder.set_transport_config(transport(window)).build())
        };
        Self {
            total: limits.send_bytes_max,
            windows: windows(limits.send_window_bytes)
                .map(|window| (window, config(window)))
                .collect(),
        }
    }

    /// Accepts a connection as one of so many.
    pub(crate) fn accept(&self, incoming: Incoming, connections: usize) -> Result<Accepting, ConnectionError> {
        let share = share(self.total, connections);
        let fits = self.windows.iter().find(|(window, _)| u64::from(*window) <= share);
        match fits.or(self.windows.last()) {
            Some((_, config)) => incoming.accept_with(config.clone()),
            None => incoming.accept(),
        }
    }
}

/// Returns the share that one of so many has of a total.
pub(crate) fn share(total: u64, many: usize) -> u64 {
    total / u64::try_from(many).unwrap_or(u64::MAX).max(1)
}

/// Windows from the widest on, each half of the one before.
fn windows(widest: u32) -> impl Iterator<Item = u32> {
    std::iter::successors(Some(widest), |window| Some(window / 2))
        .take_while(move |window| *window >= WINDOW_SHARE_BYTES_MIN.min(widest))
}

fn transport(send_window_bytes: u32) -> QuicTransportConfig {
    QuicTransportConfig::builder()
        .max_concurrent_bidi_streams(VarInt::from_u32(STREAMS_BEFORE_HELLO_MAX))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None)
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW_BYTES))
        .receive_window(VarInt::from_u32(WINDOW_BEFORE_HELLO_BYTES))
        .send_window(send_window_bytes.into())
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_halved_down_to_the_least() {
        let widest = LimitsConfig::default().send_window_bytes;
        let all: Vec<u32> = windows(widest).collect();
        assert_eq!((all[0], all.len()), (widest, 5));
        assert_eq!(all.last(), Some(&WINDOW_SHARE_BYTES_MIN));
        assert_eq!(windows(70_000).collect::<Vec<_>>(), [70_000]);
    }

    #[test]
    fn an_accounts_windows_together_are_bounded_by_its_room() {
        let limits = LimitsConfig::default();
        let room = limits.account_receive_bytes_max() as u64;
        let sessions = limits.account_connections_max();
        let all: u64 = (1..=sessions).map(|n| receive_window(&limits, n, n)).sum();
        assert!(all < room * 5 / 4 + sessions as u64 * RECEIVE_BYTES_MIN, "{all}");
        assert_eq!(receive_window(&limits, 1, 1), limits.append_in_flight_bytes_max as u64);
        assert_eq!(receive_window(&limits, 10_000, 1), u64::from(WINDOW_SHARE_BYTES_MIN));
        assert_eq!(receive_window(&limits, 10_000, 5_000), RECEIVE_BYTES_MIN);
    }

    #[test]
    fn nobody_shares_with_nobody() {
        assert_eq!(
            (share(100, 0), share(100, 1), share(100, 3), share(100, 101)),
            (100, 100, 33, 0)
        );
    }
}
