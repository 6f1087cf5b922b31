//! A bare client of the relay protocol: an iroh endpoint and messages, nothing that would keep it from being rude.

use bytes::{Bytes, BytesMut};
use iroh::endpoint::{
    Connection, ConnectionError, NetReportConfig, QuicTransportConfig, ReadError, RecvStream, SendStream, VarInt,
    WriteError, presets,
};
use iroh::{Endpoint, EndpointAddr, RelayConfig, RelayMap, RelayMode, RelayUrl, SecretKey};
use prost::Message;
use skytale_proto::session::{
    self, AppendOpen, AppendRequest, AppendResponse, Appended, CaughtUp, ControlEvent, ControlRequest, Hello,
    KeyPackagesOpen, Open, Ping, Refusal, Started, Subscribe, SubscribeEvent, TokenRefresh, append_response,
    control_event, control_request, open, subscribe_event,
};
use skytale_proto::{AgentId, Code, EndpointId, Frame, LogId, Offset, Record};
use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

/// No test waits longer for anything: a guard against hanging, not a measure.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Waits, but not for ever.
pub(crate) async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what)
        .await
        .expect("it happens in the end")
}

/// An agent: its id, the key behind it, and an endpoint of its own.
#[derive(Clone, Debug)]
pub(crate) struct Agent {
    pub(crate) id: AgentId,
    pub(crate) identity: SecretKey,
    pub(crate) endpoint: Endpoint,
}

/// The id of the agent with this identity key.
pub(crate) fn id_of(identity: &SecretKey) -> AgentId {
    AgentId::from_bytes(*identity.public().as_bytes())
}

impl Agent {
    /// A new agent on a free loopback port.
    pub(crate) async fn new() -> Self {
        Self::over(QuicTransportConfig::default()).await
    }

    /// The same, with this identity key.
    pub(crate) async fn with_identity(identity: SecretKey) -> Self {
        Self {
            id: id_of(&identity),
            identity,
            ..Self::new().await
        }
    }

    /// An agent that lets the relay node send no more than so many bytes ahead on each stream.
    pub(crate) async fn with_stream_window(bytes: u32) -> Self {
        let window = VarInt::from_u32(bytes);
        Self::over(QuicTransportConfig::builder().stream_receive_window(window).build()).await
    }

    async fn over(transport: QuicTransportConfig) -> Self {
        let endpoint = Endpoint::builder(presets::Minimal)
            .transport_config(transport)
            .clear_ip_transports()
            .bind_addr(SocketAddr::from(([127, 0, 0, 1], 0)))
            .expect("an address")
            .bind()
            .await
            .expect("bound");
        let identity = SecretKey::generate();
        Self {
            id: id_of(&identity),
            identity,
            endpoint,
        }
    }

    /// An agent that has nothing but HTTPS, and shows this token there.
    pub(crate) async fn over_https(identity: SecretKey, secret: SecretKey, url: &RelayUrl, token: &str) -> Self {
        let server = RelayConfig::new(url.clone(), None).with_auth_token(token);
        let endpoint = Endpoint::builder(presets::Minimal)
            .secret_key(secret)
            .relay_mode(RelayMode::Custom(RelayMap::from_iter([server])))
            .net_report_config(NetReportConfig::minimal())
            .clear_ip_transports()
            .bind()
            .await
            .expect("bound");
        Self {
            id: id_of(&identity),
            identity,
            endpoint,
        }
    }

    pub(crate) fn endpoint_id(&self) -> EndpointId {
        EndpointId::from_bytes(*self.endpoint.id().as_bytes())
    }

    /// Connects, and says nothing.
    pub(crate) async fn connect(&self, relay: &EndpointAddr) -> Result<Connection, iroh::endpoint::ConnectError> {
        soon(self.endpoint.connect(relay.clone(), session::ALPN)).await
    }

    /// A Hello for this connection, with a proof that holds.
    pub(crate) fn hello(&self, connection: &Connection, token: &str) -> Hello {
        Hello {
            token: token.into(),
            sdk_version: "test".into(),
            last_resort: false,
            proof: self.proof(connection).to_vec().into(),
        }
    }

    /// The proof that this connection is this agent's.
    pub(crate) fn proof(&self, connection: &Connection) -> [u8; 64] {
        let relay = EndpointId::from_bytes(*connection.remote_id().as_bytes());
        let exported = exported(connection);
        let message = session::hello_proof_message(&relay, &self.endpoint_id(), &self.id, &exported);
        self.identity.sign(&message).to_bytes()
    }
}

/// The keying material that both ends of this connection derive for a Hello.
pub(crate) fn exported(connection: &Connection) -> [u8; session::HELLO_EXPORTED_BYTES] {
    let mut exported = [0; session::HELLO_EXPORTED_BYTES];
    connection
        .export_keying_material(&mut exported, session::HELLO_EXPORTER_LABEL, b"")
        .expect("keying material");
    exported
}

/// Reason why nothing more is heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Gone {
    /// The stream was finished.
    Finished,
    /// The stream was reset or stopped with this code.
    Stream(Option<Code>),
    /// The connection was closed with this code.
    Connection(Option<Code>),
    /// Anything else.
    Lost(String),
}

impl Gone {
    pub(crate) fn code(&self) -> Option<Code> {
        match self {
            Self::Stream(code) | Self::Connection(code) => *code,
            Self::Finished | Self::Lost(_) => None,
        }
    }
}

impl From<ConnectionError> for Gone {
    fn from(error: ConnectionError) -> Self {
        match error {
            ConnectionError::ApplicationClosed(close) => Self::Connection(code(close.error_code)),
            other => Self::Lost(other.to_string()),
        }
    }
}

impl From<ReadError> for Gone {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Reset(number) => Self::Stream(code(number)),
            ReadError::ConnectionLost(error) => error.into(),
            other => Self::Lost(other.to_string()),
        }
    }
}

impl From<WriteError> for Gone {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Stopped(number) => Self::Stream(code(number)),
            WriteError::ConnectionLost(error) => error.into(),
            other => Self::Lost(other.to_string()),
        }
    }
}

fn code(number: VarInt) -> Option<Code> {
    Code::from_number(u32::try_from(number.into_inner()).ok()?)
}

/// One bidirectional stream.
pub(crate) struct Wire {
    pub(crate) send: SendStream,
    pub(crate) receive: RecvStream,
    buffer: BytesMut,
}

impl Wire {
    pub(crate) async fn open(connection: &Connection) -> Result<Self, Gone> {
        let (send, receive) = soon(connection.open_bi()).await?;
        Ok(Self {
            send,
            receive,
            buffer: BytesMut::new(),
        })
    }

    pub(crate) async fn say(&mut self, message: &impl Message) -> Result<(), Gone> {
        self.say_bytes(&session::frame_message(message)).await
    }

    pub(crate) async fn say_bytes(&mut self, bytes: &[u8]) -> Result<(), Gone> {
        Ok(soon(self.send.write_all(bytes)).await?)
    }

    /// The next message, whatever its size.
    pub(crate) async fn hear<M: Message + Default>(&mut self) -> Result<M, Gone> {
        soon(self.hear_patiently()).await
    }

    async fn hear_patiently<M: Message + Default>(&mut self) -> Result<M, Gone> {
        loop {
            if let Some(prefix) = self.buffer.first_chunk::<4>() {
                let length = u32::from_be_bytes(*prefix) as usize;
                if self.buffer.len() >= 4 + length {
                    let message = self.buffer.split_to(4 + length).freeze().slice(4..);
                    return Ok(M::decode(message).expect("the relay node speaks protobuf"));
                }
            }
            match self.receive.read_chunk(64 * 1024).await? {
                Some(bytes) => self.buffer.extend_from_slice(&bytes),
                None => return Err(Gone::Finished),
            }
        }
    }

    /// The code with which the relay node gives the stream up, without a message.
    pub(crate) async fn abandoned(&mut self) -> Option<Code> {
        match soon(self.receive.read_chunk(1)).await {
            Ok(bytes) => panic!("the relay node said something: {bytes:?}"),
            Err(error) => Gone::from(error).code(),
        }
    }
}

/// A session that has started.
pub(crate) struct Client {
    /// A connection lives no longer than its endpoint.
    endpoint: Endpoint,
    pub(crate) connection: Connection,
    pub(crate) control: Wire,
    pub(crate) started: Started,
}

/// Reason why there is no session.
#[derive(Debug)]
pub(crate) struct NotStarted {
    /// Refusal on the control stream.
    pub(crate) refusal: Option<Refusal>,
    /// Code with which the connection was closed.
    pub(crate) closed: Option<Code>,
}

impl Client {
    /// Connects and says Hello with this token.
    pub(crate) async fn start(agent: &Agent, relay: &EndpointAddr, token: &str) -> Result<Self, NotStarted> {
        Self::start_as(agent, relay, token, false).await
    }

    /// The same; as a last resort, if no other relay node takes the agent.
    pub(crate) async fn start_as(
        agent: &Agent,
        relay: &EndpointAddr,
        token: &str,
        last_resort: bool,
    ) -> Result<Self, NotStarted> {
        let connection = agent.connect(relay).await.expect("the relay node is there");
        let hello = Hello {
            last_resort,
            ..agent.hello(&connection, token)
        };
        Self::start_on(agent, connection, hello).await
    }

    /// Says this Hello on this connection.
    pub(crate) async fn start_on(agent: &Agent, connection: Connection, hello: Hello) -> Result<Self, NotStarted> {
        let Ok(mut control) = Wire::open(&connection).await else {
            return Err(NotStarted {
                refusal: None,
                closed: closed(&connection).await,
            });
        };
        let opened = control
            .say(&Open {
                stream: Some(open::Stream::Hello(hello)),
            })
            .await;
        let event = match opened {
            Ok(()) => control.hear::<ControlEvent>().await.ok().and_then(|event| event.event),
            Err(_) => None,
        };
        match event {
            Some(control_event::Event::Started(started)) => Ok(Self {
                endpoint: agent.endpoint.clone(),
                connection,
                control,
                started,
            }),
            Some(control_event::Event::Refusal(refusal)) => Err(NotStarted {
                refusal: Some(refusal),
                closed: closed(&connection).await,
            }),
            _ => Err(NotStarted {
                refusal: None,
                closed: closed(&connection).await,
            }),
        }
    }

    pub(crate) async fn event(&mut self) -> Result<control_event::Event, Gone> {
        let event: ControlEvent = self.control.hear().await?;
        Ok(event.event.expect("a kind of event"))
    }

    pub(crate) async fn request(&mut self, request: control_request::Request) -> Result<(), Gone> {
        self.control.say(&ControlRequest { request: Some(request) }).await
    }

    pub(crate) async fn ping(&mut self, nonce: u64) -> Result<(), Gone> {
        self.request(control_request::Request::Ping(Ping { nonce })).await
    }

    pub(crate) async fn refresh(&mut self, token: String) -> Result<(), Gone> {
        self.request(control_request::Request::TokenRefresh(TokenRefresh { token }))
            .await
    }

    /// The next event that is a refusal, past notices and pings.
    pub(crate) async fn refused(&mut self) -> Option<Code> {
        loop {
            match self.event().await {
                Ok(control_event::Event::Refusal(refusal)) => return refusal.known_code(),
                Ok(_) => {}
                Err(gone) => return gone.code(),
            }
        }
    }

    pub(crate) async fn open(&self, stream: open::Stream) -> Wire {
        let mut wire = Wire::open(&self.connection).await.expect("a stream");
        // A relay node that refuses at once may have stopped the stream already; the answer says so.
        let _ = wire.say(&Open { stream: Some(stream) }).await;
        wire
    }

    /// Opens a stream in a session that may end meanwhile.
    pub(crate) async fn try_open(&self, stream: open::Stream) -> Result<Wire, Gone> {
        let mut wire = Wire::open(&self.connection).await?;
        wire.say(&Open { stream: Some(stream) }).await?;
        Ok(wire)
    }

    pub(crate) async fn appends(&self) -> Appends {
        Appends(self.open(open::Stream::Append(AppendOpen {})).await)
    }

    pub(crate) async fn key_packages(&self) -> Wire {
        self.open(open::Stream::KeyPackages(KeyPackagesOpen {})).await
    }

    /// Appends one frame on a stream of its own.
    pub(crate) async fn append(&self, frame: &Frame) -> Result<Appended, Refusal> {
        let mut appends = self.appends().await;
        appends.send(frame).await.expect("sent");
        appends.answer().await.expect("answered")
    }

    /// The same, in a session that may end meanwhile.
    pub(crate) async fn try_append(&self, frame: &Frame) -> Result<Result<Appended, Refusal>, Gone> {
        let mut appends = Appends(self.try_open(open::Stream::Append(AppendOpen {})).await?);
        appends.send(frame).await?;
        appends.answer().await
    }

    pub(crate) async fn subscribe(&self, log: LogId, after: Offset, follow: bool) -> Subscription {
        self.subscribe_limited(log, after, follow, 0).await
    }

    pub(crate) async fn subscribe_limited(&self, log: LogId, after: Offset, follow: bool, limit: u64) -> Subscription {
        let subscribe = Subscribe {
            log: log.to_bytes().into(),
            after: after.get(),
            follow,
            limit,
        };
        Subscription::new(self.open(open::Stream::Subscribe(subscribe)).await)
    }

    /// Reads everything readable after a cursor, to the stream's end.
    pub(crate) async fn replay(&self, log: LogId, after: Offset) -> Replayed {
        self.subscribe(log, after, false).await.until_end().await
    }

    /// Leaves, and says so: the endpoint stays until its last packet is out.
    pub(crate) fn leave(self) {
        self.connection.close(VarInt::from_u32(0), b"");
        let endpoint = self.endpoint;
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            drop(endpoint);
        });
    }
}

/// Waits for the code with which the relay node closes a connection.
pub(crate) async fn closed(connection: &Connection) -> Option<Code> {
    Gone::from(soon(connection.closed()).await).code()
}

/// An append stream.
pub(crate) struct Appends(pub(crate) Wire);

impl Appends {
    pub(crate) async fn send(&mut self, frame: &Frame) -> Result<(), Gone> {
        let frame = frame.encoded().clone();
        self.0.say(&AppendRequest { frame }).await
    }

    pub(crate) async fn answer(&mut self) -> Result<Result<Appended, Refusal>, Gone> {
        let response: AppendResponse = self.0.hear().await?;
        Ok(match response.outcome.expect("an outcome") {
            append_response::Outcome::Appended(appended) => Ok(appended),
            append_response::Outcome::Refusal(refusal) => Err(refusal),
        })
    }

    /// The next answer's code; `None` where it was accepted.
    pub(crate) async fn verdict(&mut self) -> Option<Code> {
        self.answer()
            .await
            .expect("answered")
            .err()
            .and_then(|refusal| refusal.known_code())
    }
}

/// A subscribe stream.
pub(crate) struct Subscription {
    pub(crate) wire: Wire,
    entries: Vec<Record>,
}

/// Entries of a subscription until it ended.
#[derive(Debug)]
pub(crate) struct Replayed {
    pub(crate) entries: Vec<Record>,
    pub(crate) caught_up: Option<Offset>,
    /// All that any node had acknowledged is there.
    pub(crate) is_confirmed: bool,
    pub(crate) refusal: Option<Refusal>,
    pub(crate) gone: Gone,
}

impl Replayed {
    pub(crate) fn offsets(&self) -> Vec<u64> {
        self.entries.iter().map(|entry| entry.offset.get()).collect()
    }

    pub(crate) fn code(&self) -> Option<Code> {
        self.refusal.as_ref().and_then(Refusal::known_code)
    }
}

impl Subscription {
    pub(crate) fn new(wire: Wire) -> Self {
        Self {
            wire,
            entries: Vec::new(),
        }
    }

    pub(crate) async fn event(&mut self) -> Result<subscribe_event::Event, Gone> {
        let event: SubscribeEvent = self.wire.hear().await?;
        Ok(event.event.expect("a kind of event"))
    }

    /// The next entry, past `CaughtUp`.
    pub(crate) async fn entry(&mut self) -> Result<Record, Gone> {
        loop {
            if !self.entries.is_empty() {
                return Ok(self.entries.remove(0));
            }
            match self.event().await? {
                subscribe_event::Event::Batch(batch) => self.entries = records(batch.records),
                subscribe_event::Event::CaughtUp(_) => {}
                subscribe_event::Event::Refusal(refusal) => return Err(Gone::Stream(refusal.known_code())),
            }
        }
    }

    /// Waits for `CaughtUp`, and gives the head; entries before it are kept for [`Subscription::entry`].
    pub(crate) async fn caught_up(&mut self) -> Offset {
        loop {
            match self.event().await.expect("goes on") {
                subscribe_event::Event::Batch(batch) => self.entries.extend(records(batch.records)),
                subscribe_event::Event::CaughtUp(CaughtUp { head, .. }) => return Offset::new(head),
                subscribe_event::Event::Refusal(refusal) => panic!("refused: {refusal:?}"),
            }
        }
    }

    /// Reads everything until the stream ends.
    pub(crate) async fn until_end(mut self) -> Replayed {
        let mut replayed = Replayed {
            entries: std::mem::take(&mut self.entries),
            caught_up: None,
            is_confirmed: false,
            refusal: None,
            gone: Gone::Finished,
        };
        loop {
            match self.event().await {
                Ok(subscribe_event::Event::Batch(batch)) => replayed.entries.extend(records(batch.records)),
                Ok(subscribe_event::Event::CaughtUp(caught_up)) => {
                    assert_eq!(replayed.caught_up, None, "CaughtUp comes once");
                    replayed.caught_up = Some(Offset::new(caught_up.head));
                    replayed.is_confirmed = !caught_up.unconfirmed;
                }
                Ok(subscribe_event::Event::Refusal(refusal)) => replayed.refusal = Some(refusal),
                Err(gone) => {
                    replayed.gone = gone;
                    return replayed;
                }
            }
        }
    }
}

fn records(bytes: Bytes) -> Vec<Record> {
    let records: Result<_, _> = Record::decode_batch(bytes).collect();
    records.expect("whole records")
}
