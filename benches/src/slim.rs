//! A SLIM client that does no more than it must, and a stock SLIM node in a process of its own.

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use http::uri::PathAndQuery;
use prost::Message as _;
use skytale_bridge::BytesCodec;
use skytale_bridge::link::{LinkMac, Offer};
use skytale_bridge::wire::proto::{
    self, Content, EncodedName, LinkConnectionType, Message, Name, NameId, Publish, SessionHeader, SessionMessageType,
    SessionType, SlimHeader, StringName, Subscribe, SubscriptionAck, message::MessageType,
};
use skytale_bridge::wire::{Inbound, component_hash};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Endpoint;
use tonic::{Request, Streaming};

const OPEN_CHANNEL: &str = "/dataplane.proto.v1.DataPlaneService/OpenChannel";
const VERSION: &str = "3.4.6";

/// A name `bench/slim/<service>`.
pub fn name(service: &str, id: u64) -> Name {
    let parts = ["bench", "slim", service];
    let [a, b, c] = parts.map(component_hash);
    Name {
        name: Some(EncodedName {
            component_0: a,
            component_1: b,
            component_2: c,
            name_id: Some(NameId { id_0: 0, id_1: id }),
        }),
        str_name: Some(StringName {
            str_component_0: parts[0].into(),
            str_component_1: parts[1].into(),
            str_component_2: parts[2].into(),
        }),
    }
}

fn header(source: &Name, destination: &Name, fanout: u32) -> SlimHeader {
    SlimHeader {
        source: Some(source.clone()),
        destination: Some(destination.clone()),
        identity: "identity".into(),
        fanout,
        version: "v1".into(),
        ttl: 8,
        ..SlimHeader::default()
    }
}

/// A message of a group session to all of the group, with a payload of so many bytes.
pub fn to_group(source: &Name, group: &Name, kind: SessionMessageType, bytes: usize) -> Message {
    let payload = proto::ApplicationPayload {
        payload_type: "bytes".into(),
        blob: vec![7; bytes].into(),
    };
    Message {
        message_type: Some(MessageType::Publish(Publish {
            header: Some(header(source, group, 256)),
            session: Some(SessionHeader {
                session_type: SessionType::Multicast.into(),
                session_message_type: kind.into(),
                session_id: 7,
                message_id: 1,
            }),
            msg: Some(Content {
                content_type: Some(proto::content::ContentType::AppPayload(payload)),
            }),
        })),
        ..Message::default()
    }
}

/// A link.
#[derive(Debug)]
pub struct SlimClient {
    out: mpsc::Sender<Bytes>,
    input: Streaming<Bytes>,
    mac: LinkMac,
    next_id: u64,
}

impl SlimClient {
    /// A link with a node or a bridge.
    pub async fn connect(endpoint: &str) -> anyhow::Result<Self> {
        let channel = Endpoint::from_shared(endpoint.to_owned())?.connect().await?;
        let (out, messages) = mpsc::channel(64);
        let mut grpc = tonic::client::Grpc::new(channel).max_decoding_message_size(4 * 1024 * 1024);
        grpc.ready().await?;
        let request = Request::new(ReceiverStream::new(messages));
        let path = PathAndQuery::from_static(OPEN_CHANNEL);
        let mut input = grpc.streaming(request, path, BytesCodec).await?.into_inner();
        let (offer, first) = Offer::new("bench-link", VERSION, LinkConnectionType::Edge)?;
        out.send(first).await?;
        let (mac, _) = offer.answered(input.next().await.context("no reply")??)?;
        Ok(Self {
            out,
            input,
            mac,
            next_id: 1,
        })
    }

    /// A message as it goes out on this link, with its MAC.
    pub fn seal(&self, message: Message) -> anyhow::Result<Bytes> {
        self.mac.seal(message).context("a message without a header")
    }

    /// Sends what [`SlimClient::seal`] gave.
    pub async fn send(&self, sealed: Bytes) -> anyhow::Result<()> {
        Ok(self.out.send(sealed).await?)
    }

    /// Returns the sender, for another task than the reader's.
    pub fn sender(&self) -> mpsc::Sender<Bytes> {
        self.out.clone()
    }

    /// Subscribes, and waits for the answer.
    pub async fn subscribe(&mut self, own: &Name, to: &Name) -> anyhow::Result<()> {
        let id = self.next_id;
        self.next_id += 1;
        let subscribe = Message {
            message_type: Some(MessageType::Subscribe(Subscribe {
                header: Some(header(own, to, 1)),
                subscription_id: id,
            })),
            ..Message::default()
        };
        let sealed = self.seal(subscribe)?;
        self.send(sealed).await?;
        loop {
            let bytes = self.input.next().await.context("the link has ended")??;
            if let Some(MessageType::SubscriptionAck(ack)) = Message::decode(bytes)?.message_type
                && ack.subscription_id == id
            {
                ensure!(ack.success, "not subscribed: {}", ack.error);
                return Ok(());
            }
        }
    }

    /// The next frame's source. Answers what a node answers.
    pub async fn frame(&mut self) -> anyhow::Result<Name> {
        loop {
            let bytes = self.input.next().await.context("the link has ended")??;
            match Inbound::decode(&bytes)? {
                Inbound::Publish(publish) => {
                    ensure!(self.mac.verify(&publish.header), "a frame without its MAC");
                    return Ok(publish.header.source.to_proto());
                }
                Inbound::Unsubscribe(body) => {
                    let ack = SubscriptionAck {
                        subscription_id: body.subscription_id,
                        success: false,
                        error: "no such subscription".into(),
                    };
                    let ack = Message {
                        message_type: Some(MessageType::SubscriptionAck(ack)),
                        ..Message::default()
                    };
                    self.out.send(ack.encode_to_vec().into()).await?;
                }
                _ => {}
            }
        }
    }
}

/// A stock SLIM node, of PyPI's `slim-bindings`, in a process of its own that ends with this.
#[derive(Debug)]
pub struct StockNode {
    child: Child,
    endpoint: String,
}

impl StockNode {
    /// Starts one on a free loopback port. `SKYTALE_SLIM_PYTHON` is the Python that has the package.
    pub fn start() -> anyhow::Result<Self> {
        let python = std::env::var_os("SKYTALE_SLIM_PYTHON").map_or_else(
            || {
                let home = std::env::var_os("HOME").unwrap_or_default();
                PathBuf::from(home).join(".cache/skytale-test/slim-3.3.8/bin/python")
            },
            PathBuf::from,
        );
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../bridge/tests/slim/agent.py");
        let address = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?;
        let mut child = Command::new(&python)
            .args(["-B", script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| {
                let python = python.display();
                format!("{python} does not start: `ops/test/run test` installs it, or set SKYTALE_SLIM_PYTHON")
            })?;
        let command = format!("{{\"do\": \"node\", \"endpoint\": \"{address}\"}}\n");
        child.stdin.as_mut().context("a pipe")?.write_all(command.as_bytes())?;
        let lines = BufReader::new(child.stdout.take().context("a pipe")?).lines();
        let mut node = Self {
            child,
            endpoint: format!("http://{address}"),
        };
        for line in lines {
            if line?.contains("\"serving\"") {
                return Ok(node);
            }
        }
        let status = node.child.wait()?;
        bail!("the stock node does not serve: {status}")
    }

    /// Returns its endpoint.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }
}

impl Drop for StockNode {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
