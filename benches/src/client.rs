//! A client of the relay protocol that does no more than it must.

use anyhow::{Context as _, bail, ensure};
use bytes::{Buf as _, Bytes, BytesMut};
use iroh::endpoint::{Builder, Connection, NetReportConfig, RecvStream, SendStream, VarInt, presets};
use iroh::{Endpoint, EndpointAddr, RelayMap, RelayMode, SecretKey};
use prost::Message;
use skytale_proto::session::{
    self, AppendOpen, AppendRequest, AppendResponse, ControlEvent, ControlRequest, Hello, LENGTH_BYTES, Open, Pong,
    Refusal, Subscribe, SubscribeEvent, append_response, control_event, control_request, open, subscribe_event,
};
use skytale_proto::{AgentId, EndpointId, Frame, LogId, Offset, Record};
use std::net::{Ipv4Addr, SocketAddr};
use tokio::task::JoinHandle;

/// An agent: an id, and an endpoint of its own on a free loopback port.
#[derive(Clone, Debug)]
pub struct Agent {
    /// Its id: the public half of its identity key.
    pub id: AgentId,
    identity: SecretKey,
    /// Its endpoint.
    pub endpoint: Endpoint,
}

impl Agent {
    /// A new agent.
    pub async fn new() -> anyhow::Result<Self> {
        let endpoint = on_loopback()?.bind().await?;
        Ok(Self::over(endpoint))
    }

    /// A new agent without UDP.
    pub async fn without_udp() -> anyhow::Result<Self> {
        let endpoint = Endpoint::builder(presets::Minimal)
            .relay_mode(RelayMode::Custom(RelayMap::empty()))
            .net_report_config(NetReportConfig::minimal())
            .clear_ip_transports()
            .bind()
            .await?;
        Ok(Self::over(endpoint))
    }

    fn over(endpoint: Endpoint) -> Self {
        let identity = SecretKey::generate();
        Self {
            id: AgentId::from_bytes(*identity.public().as_bytes()),
            identity,
            endpoint,
        }
    }

    /// The proof that this connection is this agent's.
    fn proof(&self, connection: &Connection) -> anyhow::Result<[u8; 64]> {
        let mut exported = [0; session::HELLO_EXPORTED_BYTES];
        connection
            .export_keying_material(&mut exported, session::HELLO_EXPORTER_LABEL, b"")
            .map_err(|_| anyhow::anyhow!("the connection has no keying material"))?;
        let relay = EndpointId::from_bytes(*connection.remote_id().as_bytes());
        let message = session::hello_proof_message(&relay, &self.endpoint_id(), &self.id, &exported);
        Ok(self.identity.sign(&message).to_bytes())
    }

    /// The endpoint's id, as tokens name it.
    pub fn endpoint_id(&self) -> EndpointId {
        EndpointId::from_bytes(*self.endpoint.id().as_bytes())
    }
}

/// An endpoint on a free loopback port that takes these protocols, with iroh's own settings.
pub async fn endpoint(alpns: Vec<Vec<u8>>) -> anyhow::Result<Endpoint> {
    Ok(on_loopback()?.alpns(alpns).bind().await?)
}

fn on_loopback() -> anyhow::Result<Builder> {
    Ok(Endpoint::builder(presets::Minimal)
        .clear_ip_transports()
        .bind_addr(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?)
}

/// A session that has started.
#[derive(Debug)]
pub struct Client {
    connection: Connection,
    control: JoinHandle<()>,
    // The session lasts as long as its endpoint.
    _endpoint: Endpoint,
}

impl Drop for Client {
    fn drop(&mut self) {
        self.control.abort();
    }
}

impl Client {
    /// Connects, and says Hello.
    pub async fn start(agent: &Agent, relay: &EndpointAddr, token: String) -> anyhow::Result<Self> {
        let connection = agent.endpoint.connect(relay.clone(), session::ALPN).await?;
        let hello = Hello {
            token,
            sdk_version: "bench".into(),
            last_resort: false,
            proof: agent.proof(&connection)?.to_vec().into(),
        };
        let mut control = Wire::open(&connection, open::Stream::Hello(hello)).await?;
        match control.hear::<ControlEvent>().await?.and_then(|event| event.event) {
            Some(control_event::Event::Started(_)) => Ok(Self {
                connection,
                control: tokio::spawn(async move { stay(control).await.unwrap_or_default() }),
                _endpoint: agent.endpoint.clone(),
            }),
            other => bail!("no session: {other:?}"),
        }
    }

    /// An append stream.
    pub async fn appends(&self) -> anyhow::Result<Appends> {
        let open = open::Stream::Append(AppendOpen {});
        Ok(Appends(Wire::open(&self.connection, open).await?))
    }

    /// A request of so many bytes on an append stream, without its last byte.
    pub async fn unfinished(&self, bytes: usize) -> anyhow::Result<Unfinished> {
        let open = open::Stream::Append(AppendOpen {});
        let mut wire = Wire::open(&self.connection, open).await?;
        wire.send.write_all(&u32::try_from(bytes)?.to_be_bytes()).await?;
        Ok(Unfinished { wire, left: bytes - 1 })
    }

    /// Entries of a log after a cursor: to its head, or on from there with `follow`.
    pub async fn subscribe(&self, log: LogId, after: Offset, follow: bool) -> anyhow::Result<Subscription> {
        let subscribe = open::Stream::Subscribe(Subscribe {
            log: log.to_bytes().into(),
            after: after.get(),
            follow,
            limit: 0,
        });
        Ok(Subscription {
            wire: Wire::open(&self.connection, subscribe).await?,
            last: after,
        })
    }

    /// Leaves.
    pub fn leave(self) {
        self.connection.close(VarInt::from_u32(0), b"");
    }
}

/// Answers pings, for as long as the session lasts: without answers it would be taken for dead.
async fn stay(mut control: Wire) -> anyhow::Result<()> {
    while let Some(event) = control.hear::<ControlEvent>().await? {
        if let Some(control_event::Event::Ping(ping)) = event.event {
            let pong = control_request::Request::Pong(Pong { nonce: ping.nonce });
            control.say(&ControlRequest { request: Some(pong) }).await?;
        }
    }
    Ok(())
}

/// One stream, and what of a message has arrived on it.
#[derive(Debug)]
struct Wire {
    send: SendStream,
    receive: RecvStream,
    buffer: BytesMut,
}

/// Taken from a stream at once, in bytes, at most.
const READ_BYTES_MAX: usize = 256 * 1024;

impl Wire {
    async fn open(connection: &Connection, stream: open::Stream) -> anyhow::Result<Self> {
        let (mut send, receive) = connection.open_bi().await?;
        let open = Open { stream: Some(stream) };
        send.write_chunk(session::frame_message(&open)).await?;
        Ok(Self {
            send,
            receive,
            buffer: BytesMut::new(),
        })
    }

    async fn say(&mut self, message: &impl Message) -> anyhow::Result<()> {
        Ok(self.send.write_chunk(session::frame_message(message)).await?)
    }

    /// The next message; `None` where the stream was finished.
    async fn hear<M: Message + Default>(&mut self) -> anyhow::Result<Option<M>> {
        loop {
            if let Some(prefix) = self.buffer.first_chunk::<LENGTH_BYTES>() {
                let length = u32::from_be_bytes(*prefix) as usize;
                if self.buffer.len() >= LENGTH_BYTES + length {
                    self.buffer.advance(LENGTH_BYTES);
                    return Ok(Some(M::decode(self.buffer.split_to(length).freeze())?));
                }
                self.buffer.reserve(LENGTH_BYTES + length);
            }
            match self.receive.read_chunk(READ_BYTES_MAX).await? {
                Some(bytes) => self.buffer.extend_from_slice(&bytes),
                None => {
                    ensure!(self.buffer.is_empty(), "the stream ends inside a message");
                    return Ok(None);
                }
            }
        }
    }
}

/// An append stream.
#[derive(Debug)]
pub struct Appends(Wire);

impl Appends {
    /// Sends a frame.
    pub async fn send(&mut self, frame: &Frame) -> anyhow::Result<()> {
        let frame = frame.encoded().clone();
        self.0.say(&AppendRequest { frame }).await
    }

    /// The next answer, which must be that the frame is an entry now.
    pub async fn accepted(&mut self) -> anyhow::Result<Offset> {
        let response: AppendResponse = self.0.hear().await?.context("an answer")?;
        match response.outcome {
            Some(append_response::Outcome::Appended(appended)) => Ok(Offset::new(appended.offset)),
            other => bail!("not appended: {other:?}"),
        }
    }

    /// The next answer: whether the frame is an entry now, or else why not.
    pub async fn answer(&mut self) -> anyhow::Result<Result<Offset, Refusal>> {
        let response: AppendResponse = self.0.hear().await?.context("an answer")?;
        match response.outcome.context("an outcome")? {
            append_response::Outcome::Appended(appended) => Ok(Ok(Offset::new(appended.offset))),
            append_response::Outcome::Refusal(refusal) => Ok(Err(refusal)),
        }
    }
}

/// A request that is never whole.
#[derive(Debug)]
pub struct Unfinished {
    wire: Wire,
    left: usize,
}

impl Unfinished {
    /// Sends all of it but the last byte, as the node takes it; returns when the node has given it up.
    pub async fn ended(mut self) {
        let sent = self.wire.send.write_all(&vec![0; self.left]).await;
        if sent.is_ok() {
            let _ = self.wire.hear::<AppendResponse>().await;
        }
    }
}

/// A subscription.
#[derive(Debug)]
pub struct Subscription {
    wire: Wire,
    last: Offset,
}

/// Entries of a subscription until it ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Replayed {
    /// Entries.
    pub entries: u64,
    /// Bytes of records.
    pub record_bytes: u64,
}

impl Subscription {
    /// Waits until the reader is at the head.
    pub async fn caught_up(&mut self) -> anyhow::Result<()> {
        while let Some(records) = self.next().await? {
            self.check(records, &mut Replayed::default())?;
        }
        Ok(())
    }

    /// Waits for the next entries, checks them, and gives the last one's offset.
    pub async fn entries(&mut self) -> anyhow::Result<Offset> {
        let records = self.next().await?.context("entries, not the head")?;
        self.check(records, &mut Replayed::default())?;
        Ok(self.last)
    }

    /// Reads all entries to the stream's end. Each one's checksum is computed, and offsets must be dense.
    pub async fn to_end(mut self) -> anyhow::Result<Replayed> {
        let mut replayed = Replayed::default();
        while let Some(records) = self.next().await? {
            self.check(records, &mut replayed)?;
        }
        ensure!(
            self.wire.hear::<SubscribeEvent>().await?.is_none(),
            "nothing comes after the head"
        );
        Ok(replayed)
    }

    /// Reads to the stream's end, and gives the number of bytes, whatever they are.
    pub async fn drain(mut self) -> anyhow::Result<u64> {
        drain(&mut self.wire.receive).await
    }

    /// The next batch's records; `None` where the reader is at the head.
    async fn next(&mut self) -> anyhow::Result<Option<Bytes>> {
        let event: SubscribeEvent = self.wire.hear().await?.context("the stream goes on")?;
        match event.event {
            Some(subscribe_event::Event::Batch(batch)) => Ok(Some(batch.records)),
            Some(subscribe_event::Event::CaughtUp(_)) => Ok(None),
            other => bail!("the subscription was refused: {other:?}"),
        }
    }

    fn check(&mut self, records: Bytes, replayed: &mut Replayed) -> anyhow::Result<()> {
        replayed.record_bytes += records.len() as u64;
        for record in Record::decode_batch(records) {
            let record = record?;
            ensure!(record.offset == self.last.next(), "a gap after {}", self.last);
            self.last = record.offset;
            replayed.entries += 1;
        }
        Ok(())
    }
}

/// Reads a stream to its end, and gives the number of bytes.
pub async fn drain(stream: &mut RecvStream) -> anyhow::Result<u64> {
    let mut bytes = 0;
    while let Some(chunk) = stream.read_chunk(READ_BYTES_MAX).await? {
        bytes += chunk.len() as u64;
    }
    Ok(bytes)
}
