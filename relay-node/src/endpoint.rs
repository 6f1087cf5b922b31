//! The iroh endpoint: bound where the configuration says, without discovery and without iroh's own relays.

use crate::config::{LimitsConfig, RelayConfig};
use iroh::endpoint::{Connection, QuicTransportConfig, VarInt, presets};
use iroh::{Endpoint, RelayMode, SecretKey};
use skytale_proto::session;

/// Streams that a connection may open before its session has started: each of them but the first is given back.
const STREAMS_BEFORE_HELLO_MAX: u32 = 8;
/// What one stream may have on its way to this node, in bytes.
const STREAM_WINDOW_BYTES: u32 = 1024 * 1024;
/// What a connection may have on its way to this node before its session has started, in bytes: a few Hellos.
const WINDOW_BEFORE_HELLO_BYTES: u32 = 64 * 1024;
/// Streams over the limit that get a code each; those behind them wait until the transport lets them through.
const STREAMS_OVER: u32 = 16;

/// An endpoint that cannot be bound.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {listen}: {problem}")]
pub struct BindError {
    listen: String,
    problem: String,
}

/// Binds the endpoint.
pub(crate) async fn bind(config: &RelayConfig, key: SecretKey) -> Result<Endpoint, BindError> {
    let error = |problem: String| BindError {
        listen: config
            .listen
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(", "),
        problem,
    };
    let mut builder = Endpoint::builder(presets::Minimal)
        .relay_mode(RelayMode::Disabled)
        .clear_address_lookup()
        .clear_ip_transports()
        .secret_key(key)
        .alpns(vec![session::ALPN.to_vec()])
        .transport_config(transport(&config.limits));
    for address in &config.listen {
        builder = builder
            .bind_addr(*address)
            .map_err(|cause| error(format!("{cause:#}")))?;
    }
    builder.bind().await.map_err(|cause| error(format!("{cause:#}")))
}

/// Gives a connection what a session may have: until then it gets little.
pub(crate) fn widen(connection: &Connection, limits: &LimitsConfig) {
    let in_flight = u32::try_from(limits.append_in_flight_bytes_max).unwrap_or(u32::MAX);
    connection.set_receive_window(VarInt::from_u32(in_flight));
    // The control stream is one more.
    let streams = limits.streams_max.saturating_add(1 + STREAMS_OVER);
    connection.set_max_concurrent_bi_streams(VarInt::from_u32(streams));
}

fn transport(limits: &LimitsConfig) -> QuicTransportConfig {
    QuicTransportConfig::builder()
        .max_concurrent_bidi_streams(VarInt::from_u32(STREAMS_BEFORE_HELLO_MAX))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None)
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW_BYTES))
        .receive_window(VarInt::from_u32(WINDOW_BEFORE_HELLO_BYTES))
        .send_window(limits.send_window_bytes.into())
        .build()
}
