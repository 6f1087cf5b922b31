//! Accepts connections, and takes those that ask for it over from HTTP.

use super::admission::{OfNode, OfToken, Table};
use super::socket::Socket;
use crate::metrics;
use crate::node::Shared;
use axum::http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_TYPE, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, UPGRADE,
};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use data_encoding::BASE64;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use iroh::EndpointId;
use iroh_relay::KeyCache;
use iroh_relay::http::{CLIENT_AUTH_HEADER, ProtocolVersion, RELAY_PATH, RELAY_PROBE_PATH};
use iroh_relay::protos::handshake;
use iroh_relay::server::client::Config;
use iroh_relay::server::clients::Clients;
use iroh_relay::server::streams::RelayedStream;
use iroh_relay::server::{ClientRequest, DynAccessControl, Metrics};
use parking_lot::Mutex;
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use skytale_http::addresses::{Begun, Entry};
use skytale_proto::rest::Problem;
use skytale_proto::session::Refusal;
use skytale_proto::{Code, limits};
use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::debug;

/// Connections of the node's own endpoint: one, and those that it gave up a moment ago.
pub(super) const OWN_CONNECTIONS_MAX: usize = 16;
/// Maximum time until a connection carries frames, for each of: TLS and the HTTP request; the proof of its key.
const BEGIN_WITHIN: Duration = Duration::from_secs(10);
/// Pause after an accept that failed: out of file descriptors, perhaps.
const PAUSE: Duration = Duration::from_millis(50);
/// An HTTP request's head: lines, and bytes. A token is 1 KiB at most.
const HEADERS_MAX: usize = 64;
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// RFC 6455, section 1.3.
const WEBSOCKET_GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Users of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whom {
    Agents,
    /// The node's own endpoint.
    Own,
}

/// State shared by the connections of one port.
pub(super) struct Server {
    pub(super) node: Arc<Shared>,
    pub(super) whom: Whom,
    pub(super) own: EndpointId,
    pub(super) clients: Clients,
    pub(super) table: Arc<Table>,
    pub(super) keys: KeyCache,
    pub(super) metrics: Arc<Metrics>,
    pub(super) stop: CancellationToken,
    pub(super) tasks: TaskTracker,
}

/// The place of a connection at this port, and at its address until it has proven its endpoint.
type Place = (OwnedSemaphorePermit, Begun);

impl Server {
    /// Accepts until the node stops. A connection that comes when all places are taken, or all of its address, is closed at once.
    pub(super) async fn accept(
        self: Arc<Self>,
        listener: TcpListener,
        tls: Option<TlsAcceptor>,
        connections_max: usize,
    ) {
        let places = Arc::new(Semaphore::new(connections_max));
        loop {
            let accepted = tokio::select! {
                () = self.stop.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    debug!(%error, "HTTPS: not accepted");
                    sleep(PAUSE).await;
                    continue;
                }
            };
            let Some(waits) = self.at_address(peer.ip()) else {
                metrics::refused(Some(Code::AddressConnections));
                self.node.limited.note(Some(Code::AddressConnections));
                continue;
            };
            let Ok(place) = places.clone().try_acquire_owned() else {
                metrics::refused(Some(Code::TooManyConnections));
                continue;
            };
            let (server, tls) = (self.clone(), tls.clone());
            self.tasks.spawn(async move {
                tokio::select! {
                    () = server.stop.cancelled() => {}
                    begun = timeout(BEGIN_WITHIN, server.clone().connection(stream, tls, place, waits)) => {
                        if begun.is_err() {
                            debug!("HTTPS: a connection asked for nothing in time");
                        }
                    }
                }
            });
        }
    }

    /// Whether a connection may begin, by where it comes from. Its peer receives there: TCP has shown it.
    fn at_address(&self, address: IpAddr) -> Option<Begun> {
        if self.whom == Whom::Own {
            return Some(Begun::elsewhere());
        }
        match self.node.addresses.enter(address, true) {
            Entry::Begun(waits) => Some(waits),
            Entry::Unproven | Entry::Full => None,
        }
    }

    /// Until a request has shown a token, taken the connection over and proven its endpoint, it waits at its address.
    async fn connection(
        self: Arc<Self>,
        stream: TcpStream,
        tls: Option<TlsAcceptor>,
        place: OwnedSemaphorePermit,
        waits: Begun,
    ) {
        let _ = stream.set_nodelay(true);
        match tls {
            None => self.http(stream, (place, waits)).await,
            Some(tls) => match tls.accept(stream).await {
                Ok(stream) => self.http(stream, (place, waits)).await,
                Err(error) => debug!(%error, "HTTPS: no TLS connection"),
            },
        }
    }

    /// Ends when the connection is taken over, or is closed.
    async fn http(self: Arc<Self>, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, place: Place) {
        // Goes to the first request that takes the connection over: there is no second one.
        let place = Arc::new(Mutex::new(Some(place)));
        let service = service_fn(move |request| {
            let (server, place) = (self.clone(), place.clone());
            async move { Ok::<_, Infallible>(server.answer(request, &place).await) }
        });
        let served = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(BEGIN_WITHIN)
            .max_headers(HEADERS_MAX)
            .max_buf_size(HEAD_BYTES_MAX)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades()
            .await;
        if let Err(error) = served {
            debug!(%error, "HTTPS: a connection failed");
        }
    }

    async fn answer(self: Arc<Self>, mut request: Request<Incoming>, place: &Mutex<Option<Place>>) -> Response<String> {
        if let Err(error) = skytale_http::check_head(request.version(), request.headers(), 0) {
            return told(error.code, error.status, &error.detail);
        }
        match (request.method(), request.uri().path()) {
            (&Method::GET, RELAY_PATH) => {}
            (&Method::GET, RELAY_PROBE_PATH) => return Response::new(String::new()),
            _ => {
                return told(
                    Code::NotFound,
                    StatusCode::NOT_FOUND,
                    "nothing is here but /relay, for skytale agents",
                );
            }
        }
        let (accept, version) = match wanted(request.headers()) {
            Ok(wanted) => wanted,
            Err(problem) => {
                let mut response = told(Code::BadRequest, StatusCode::UPGRADE_REQUIRED, problem);
                response
                    .headers_mut()
                    .insert(UPGRADE, HeaderValue::from_static("websocket"));
                return response;
            }
        };
        let access: Arc<dyn DynAccessControl> = match self.access(request.headers()).await {
            Ok(access) => access,
            Err(refusal) => {
                metrics::refused(refusal.known_code());
                return refused(&refusal);
            }
        };
        let Some(place) = place.lock().take() else {
            return told(
                Code::BadRequest,
                StatusCode::BAD_REQUEST,
                "the connection was taken over already",
            );
        };
        let upgrade = hyper::upgrade::on(&mut request);
        let (parts, _) = request.into_parts();
        let server = self.clone();
        self.tasks
            .spawn(async move { server.take_over(upgrade, parts, version, access, place).await });
        let mut response = Response::new(String::new());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
        headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(version.to_str()));
        response
    }

    /// Decides who may go on, from the request alone.
    async fn access(&self, headers: &HeaderMap) -> Result<Arc<dyn DynAccessControl>, Refusal> {
        if self.whom == Whom::Own {
            return Ok(Arc::new(OfNode(self.own)));
        }
        if self.node.is_draining() {
            return Err(Refusal::because(Code::Draining, "this relay node is about to stop"));
        }
        let token = bearer(headers).ok_or_else(|| Refusal::because(Code::TokenMalformed, "a token is needed"))?;
        if token.len() > limits::HELLO_BYTES_MAX {
            return Err(Refusal::because(Code::TokenMalformed, "the token is too long"));
        }
        let claims = self.node.trust.verify(token).await?;
        Ok(Arc::new(OfToken {
            claims,
            account_max: self.node.config.limits.account_connections_max(),
            table: self.table.clone(),
        }))
    }

    async fn take_over(
        self: Arc<Self>,
        upgrade: OnUpgrade,
        parts: Parts,
        version: ProtocolVersion,
        access: Arc<dyn DynAccessControl>,
        (place, waits): Place,
    ) {
        let begin = async {
            let upgraded: Upgraded = upgrade.await.map_err(|error| error.to_string())?;
            let reaches = (self.whom == Whom::Agents).then(|| *self.own.as_bytes());
            let mut socket = Socket::new(upgraded, reaches, place);
            let proof = parts.headers.get(CLIENT_AUTH_HEADER).cloned();
            let proven = handshake::serverside(&mut socket, proof).await;
            let proven = proven.map_err(|error| error.to_string())?;
            let request = ClientRequest::new(proven.client_key, version, parts);
            let guard = proven.authorize_with(&request, &access, &mut socket).await;
            let guard = guard.map_err(|error| error.to_string())?;
            let stream = RelayedStream::new(socket, self.keys.clone());
            Ok::<_, String>(Config::new(guard, stream, version))
        };
        let begun = tokio::select! {
            () = self.stop.cancelled() => return,
            begun = timeout(BEGIN_WITHIN, begin) => begun,
        };
        drop(waits);
        match begun {
            Ok(Ok(client)) => {
                self.clients.register(client, self.metrics.clone());
            }
            Ok(Err(error)) => debug!(error, "HTTPS: not let in"),
            Err(_) => debug!("HTTPS: no proof of a key in time"),
        }
    }
}

/// Returns the answer to an upgrade's key, and its version.
fn wanted(headers: &HeaderMap) -> Result<(HeaderValue, ProtocolVersion), &'static str> {
    let get = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    if !get(UPGRADE).is_some_and(|upgrade| upgrade.eq_ignore_ascii_case("websocket")) {
        return Err("this is for skytale agents: a WebSocket with iroh's relay protocol");
    }
    let key = get(SEC_WEBSOCKET_KEY).ok_or("a WebSocket needs Sec-WebSocket-Key")?;
    let offered = get(SEC_WEBSOCKET_PROTOCOL).unwrap_or_default();
    let version = offered
        .split(',')
        .filter_map(|name| ProtocolVersion::match_from_str(name.trim()))
        .max()
        .ok_or("no version of iroh's relay protocol that is known here")?;
    let hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, &[key.as_bytes(), WEBSOCKET_GUID].concat());
    let accept = HeaderValue::from_str(&BASE64.encode(hash.as_ref())).map_err(|_| "no answer to this key")?;
    Ok((accept, version))
}

/// The token of `Authorization: Bearer ...` (RFC 6750, section 2.1).
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

fn told(code: Code, status: StatusCode, text: &str) -> Response<String> {
    let problem = Problem::new(code, status.as_u16(), text);
    // A struct of strings and numbers is JSON.
    let mut response = Response::new(serde_json::to_string(&problem).unwrap_or_default());
    *response.status_mut() = status;
    let kind = HeaderValue::from_static(skytale_http::PROBLEM_JSON);
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

fn refused(refusal: &Refusal) -> Response<String> {
    let status = match refusal.known_code() {
        Some(Code::Draining | Code::TrustStale) => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::UNAUTHORIZED,
    };
    told(
        refusal.known_code().unwrap_or(Code::RelayInternal),
        status,
        &refusal.message,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(HeaderName, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (name.clone(), HeaderValue::from_static(value)))
            .collect()
    }

    #[test]
    fn an_upgrade_is_answered_as_rfc_6455_says() {
        let asked = headers(&[
            (UPGRADE, "WebSocket"),
            (SEC_WEBSOCKET_KEY, "dGhlIHNhbXBsZSBub25jZQ=="),
            (SEC_WEBSOCKET_PROTOCOL, "iroh-relay-v9, iroh-relay-v1,iroh-relay-v2"),
        ]);
        let (accept, version) = wanted(&asked).expect("one");
        // The example of section 1.3.
        assert_eq!(accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(version, ProtocolVersion::V2);
    }

    #[test]
    fn what_is_no_upgrade_is_refused() {
        assert!(wanted(&HeaderMap::new()).is_err());
        let (key, protocol) = (
            (SEC_WEBSOCKET_KEY, "dGhlIHNhbXBsZSBub25jZQ=="),
            (SEC_WEBSOCKET_PROTOCOL, "iroh-relay-v2"),
        );
        assert!(wanted(&headers(&[key.clone(), protocol.clone()])).is_err());
        assert!(wanted(&headers(&[(UPGRADE, "websocket"), protocol])).is_err());
        assert!(wanted(&headers(&[(UPGRADE, "websocket"), key.clone()])).is_err());
        assert!(
            wanted(&headers(&[
                (UPGRADE, "websocket"),
                key,
                (SEC_WEBSOCKET_PROTOCOL, "chat")
            ]))
            .is_err()
        );
    }
}
