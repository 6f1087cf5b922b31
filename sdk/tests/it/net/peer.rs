//! A protocol peer: an iroh endpoint that plays a relay node by a script.

use bytes::Bytes;
use futures_util::future::BoxFuture;
use iroh::endpoint::{Connection, RecvStream, SendStream, presets};
use prost::Message;
use skytale_proto::session::{
    self, ControlEvent, ControlRequest, Hello, LENGTH_BYTES, Limits, Open, Started, control_event, open,
};
use skytale_proto::{AgentId, EndpointId, limits};
use skytale_sdk::internals::net::ProofSigner;
use skytale_sdk::internals::net::relay::{Endpoint, Session};
use skytale_sdk::{NetworkConfig, Relay, RelayError, Token, TokenError, TokenFn, TokenSource, TokenSubject};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use zeroize::Zeroizing;

/// Fails a test that hangs.
pub(crate) async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(90), future)
        .await
        .expect("an end within 90 s")
}

pub(crate) fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_secs()
}

/// One end of a stream, for messages.
pub(crate) struct Line {
    pub(crate) send: SendStream,
    pub(crate) receive: RecvStream,
}

impl Line {
    pub(crate) async fn read<M: Message + Default>(&mut self) -> M {
        let mut prefix = [0; LENGTH_BYTES];
        self.receive.read_exact(&mut prefix).await.expect("a length");
        let length = session::message_length(prefix, limits::MESSAGE_BYTES_MAX).expect("a length within the limit");
        let mut body = vec![0; length];
        self.receive.read_exact(&mut body).await.expect("a message");
        session::decode_message(body.into()).expect("a message of this kind")
    }

    pub(crate) async fn write(&mut self, message: &impl Message) {
        self.write_raw(session::frame_message(message)).await;
    }

    pub(crate) async fn write_raw(&mut self, bytes: Bytes) {
        self.send.write_chunk(bytes).await.expect("bytes written");
    }

    pub(crate) async fn event(&mut self, event: control_event::Event) {
        self.write(&ControlEvent { event: Some(event) }).await;
    }

    pub(crate) async fn request(&mut self) -> session::control_request::Request {
        self.read::<ControlRequest>().await.request.expect("a request")
    }
}

/// A connection after its Hello was read.
pub(crate) struct Peer {
    pub(crate) connection: Connection,
    pub(crate) control: Line,
    pub(crate) hello: Hello,
}

impl Peer {
    /// Answers the Hello like a healthy relay.
    pub(crate) async fn start(&mut self, keepalive: Duration, token_expires_s: u64) {
        let started = Started {
            limits: Some(Limits::default()),
            keepalive_ms: u64::try_from(keepalive.as_millis()).expect("a keepalive"),
            durability: session::Durability::Volatile.into(),
            relay_version: "peer".into(),
            time_ms: now_s() * 1_000,
            token_expires_s,
            rollback_ms: 0,
        };
        self.control.event(control_event::Event::Started(started)).await;
    }

    pub(crate) async fn stream(&self) -> (open::Stream, Line) {
        let (send, receive) = self.connection.accept_bi().await.expect("a stream");
        let mut line = Line { send, receive };
        let opened: Open = line.read().await;
        (opened.stream.expect("a kind of stream"), line)
    }
}

/// Plays a relay node for one connection.
pub(crate) struct Script {
    pub(crate) relay: Relay,
    endpoint: iroh::Endpoint,
    task: tokio::task::JoinHandle<()>,
}

impl Script {
    pub(crate) async fn run(script: impl FnOnce(Peer) -> BoxFuture<'static, ()> + Send + 'static) -> Self {
        let endpoint = iroh::Endpoint::builder(presets::Minimal)
            .alpns(vec![session::ALPN.to_vec()])
            .clear_ip_transports()
            .bind_addr("127.0.0.1:0")
            .expect("an address")
            .bind()
            .await
            .expect("an endpoint");
        let relay = Relay::new(
            EndpointId::from_bytes(*endpoint.id().as_bytes()),
            endpoint.bound_sockets(),
        );
        let accepting = endpoint.clone();
        let task = tokio::spawn(async move {
            let connection = accepting
                .accept()
                .await
                .expect("a connection")
                .await
                .expect("a handshake");
            let (send, receive) = connection.accept_bi().await.expect("the control stream");
            let mut control = Line { send, receive };
            let opened: Open = control.read().await;
            let Some(open::Stream::Hello(hello)) = opened.stream else {
                panic!("a Hello first");
            };
            script(Peer {
                connection,
                control,
                hello,
            })
            .await;
        });
        Self { relay, endpoint, task }
    }

    /// Waits for the script's end, which shows its own assertions.
    pub(crate) async fn end(self) {
        within(self.task).await.expect("the script went as it should");
        self.endpoint.close().await;
    }
}

struct NoSigner;

impl ProofSigner for NoSigner {
    fn sign<'a>(&'a self, _message: &'a [u8]) -> BoxFuture<'a, Result<[u8; 64], TokenError>> {
        Box::pin(async { Ok([0; 64]) })
    }
}

pub(crate) async fn endpoint() -> Endpoint {
    let mut secret = Zeroizing::new([0; 32]);
    getrandom::fill(secret.as_mut()).expect("random bytes");
    let any: SocketAddr = "127.0.0.1:0".parse().expect("an address");
    Endpoint::bind(&secret, NetworkConfig::bound_to(any))
        .await
        .expect("an endpoint")
}

/// Connects with the token `first`, and with `second` every later time.
pub(crate) async fn connect(relay: &Relay) -> Result<(Session, Endpoint), RelayError> {
    connect_until(relay, now_s() + 600).await
}

pub(crate) async fn connect_until(relay: &Relay, expires_s: u64) -> Result<(Session, Endpoint), RelayError> {
    let endpoint = endpoint().await;
    let subject = TokenSubject::new(AgentId::from_bytes([7; 32]), endpoint.id(), Arc::new(NoSigner));
    let provider = TokenSource::new(TokenFn::new(|_| async { Ok(Token::new("second", now_s() + 600)) }));
    let token = Token::new("first", expires_s);
    match within(Session::connect(&endpoint, relay, subject, token, provider)).await {
        Ok(session) => Ok((session, endpoint)),
        Err(error) => {
            endpoint.close().await;
            Err(error)
        }
    }
}
