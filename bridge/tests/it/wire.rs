//! A client that speaks SLIM's wire format, and can break it.

use crate::world::soon;
use bytes::Bytes;
use http::uri::PathAndQuery;
use prost::Message as _;
use skytale_bridge::BytesCodec;
use skytale_bridge::link::{LinkMac, Offer};
use skytale_bridge::wire::proto::{
    self, Content, EncodedName, Message, Name, NameId, Publish, SessionHeader, SessionMessageType, SessionType,
    SlimHeader, StringName, Subscribe, Unsubscribe, message::MessageType,
};
use skytale_bridge::wire::{Inbound, component_hash};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::{mpsc, watch};
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status, Streaming};

/// A name under `org/ns`.
pub(crate) fn name(service: &str, id: Option<u64>) -> Name {
    let parts = ["org", "ns", service];
    let [a, b, c] = parts.map(component_hash);
    Name {
        name: Some(EncodedName {
            component_0: a,
            component_1: b,
            component_2: c,
            name_id: id.map(|id| NameId { id_0: 0, id_1: id }),
        }),
        str_name: Some(StringName {
            str_component_0: parts[0].into(),
            str_component_1: parts[1].into(),
            str_component_2: parts[2].into(),
        }),
    }
}

pub(crate) fn header(source: Name, destination: Name, fanout: u32) -> SlimHeader {
    SlimHeader {
        source: Some(source),
        destination: Some(destination),
        identity: "identity".into(),
        fanout,
        version: "v1".into(),
        ttl: 8,
        ..SlimHeader::default()
    }
}

/// A message of a group session to all.
pub(crate) fn to_group(source: &Name, destination: &Name, kind: SessionMessageType, text: &str) -> Message {
    let payload = proto::ApplicationPayload {
        payload_type: "text".into(),
        blob: text.to_owned().into(),
    };
    Message {
        message_type: Some(MessageType::Publish(Publish {
            header: Some(header(source.clone(), destination.clone(), 256)),
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

/// The announcement of a member that it is online.
pub(crate) fn online(source: &Name, destination: &Name) -> Message {
    let mut message = to_group(source, destination, SessionMessageType::UpdateParticipantState, "");
    if let Some(MessageType::Publish(publish)) = &mut message.message_type {
        publish.msg = Some(Content {
            content_type: Some(proto::content::ContentType::CommandPayload(proto::CommandPayload {
                update_participant_state: Some(proto::UpdateParticipantStatePayload {
                    participant: Some(source.clone()),
                    ..Default::default()
                }),
            })),
        });
    }
    message
}

/// The text of a message, where it has one.
pub(crate) fn text(message: &Message) -> Option<String> {
    match &message.message_type {
        Some(MessageType::Publish(Publish {
            msg:
                Some(Content {
                    content_type: Some(proto::content::ContentType::AppPayload(payload)),
                }),
            ..
        })) => Some(String::from_utf8_lossy(&payload.blob).into_owned()),
        _ => None,
    }
}

pub(crate) struct Client {
    out: mpsc::Sender<Bytes>,
    /// Messages read by a task of its own.
    input: mpsc::UnboundedReceiver<Result<Message, Status>>,
    mac: LinkMac,
    /// Messages that came while something else was waited for.
    came: VecDeque<Message>,
    /// Whether it answers the bridge's barriers, as a SLIM node does.
    pub(crate) answers: Arc<AtomicBool>,
    /// Whether it reads.
    pub(crate) reads: watch::Sender<bool>,
    next_id: u64,
    reader: tokio::task::JoinHandle<()>,
}

impl Drop for Client {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// Reads as long as it may; answers barriers; checks what a SLIM client checks.
async fn pump(
    mut input: Streaming<Bytes>,
    mac: LinkMac,
    out: mpsc::Sender<Bytes>,
    is_node: bool,
    answers: Arc<AtomicBool>,
    mut reads: watch::Receiver<bool>,
    to: mpsc::UnboundedSender<Result<Message, Status>>,
) {
    loop {
        if reads.wait_for(|reads| *reads).await.is_err() {
            return;
        }
        let next = tokio::select! {
            _ = reads.wait_for(|reads| !*reads) => continue,
            next = input.next() => next,
        };
        let bytes = match next {
            Some(Ok(bytes)) => bytes,
            Some(Err(status)) => {
                let _ = to.send(Err(status));
                return;
            }
            None => {
                let _ = to.send(Err(Status::ok("closed")));
                return;
            }
        };
        match Inbound::decode(&bytes).expect("a message") {
            Inbound::Publish(publish) => {
                assert!(mac.verify(&publish.header), "a frame without its MAC");
                assert!(publish.header.ttl > 1, "a frame that the client must drop");
            }
            Inbound::Subscribe(body) | Inbound::Unsubscribe(body) => assert!(is_node || mac.verify(&body.header)),
            Inbound::Ack { .. } | Inbound::Link(_) => {}
        }
        let message = Message::decode(bytes).expect("a message");
        let barrier = match &message.message_type {
            Some(MessageType::Unsubscribe(barrier)) if !is_node => barrier,
            _ => {
                let _ = to.send(Ok(message));
                continue;
            }
        };
        if answers.load(Ordering::SeqCst) {
            let ack = proto::SubscriptionAck {
                subscription_id: barrier.subscription_id,
                success: false,
                error: "no such subscription".into(),
            };
            let ack = Message {
                message_type: Some(MessageType::SubscriptionAck(ack)),
                ..Message::default()
            };
            let _ = out.send(ack.encode_to_vec().into()).await;
        }
    }
}

pub(crate) async fn channel(endpoint: &str) -> Channel {
    Endpoint::from_shared(endpoint.to_owned())
        .expect("a URL")
        .connect()
        .await
        .expect("a connection")
}

/// A call that is open and has sent nothing.
pub(crate) async fn open(
    channel: Channel,
    token: Option<&str>,
) -> Result<(mpsc::Sender<Bytes>, Streaming<Bytes>), Status> {
    let (out, messages) = mpsc::channel(1_024);
    let mut request = Request::new(ReceiverStream::new(messages));
    if let Some(token) = token {
        let value = format!("Bearer {token}").parse().expect("a header");
        request.metadata_mut().insert("authorization", value);
    }
    let mut grpc = tonic::client::Grpc::new(channel).max_decoding_message_size(4 * 1024 * 1024);
    grpc.ready().await.expect("ready");
    let path = PathAndQuery::from_static("/dataplane.proto.v1.DataPlaneService/OpenChannel");
    let response = soon("response headers", grpc.streaming(request, path, BytesCodec)).await?;
    Ok((out, response.into_inner()))
}

impl Client {
    pub(crate) async fn connect(endpoint: &str) -> Self {
        Self::over(channel(endpoint).await, None).await.expect("a link")
    }

    pub(crate) async fn over(channel: Channel, token: Option<&str>) -> Result<Self, Status> {
        Self::link(channel, token, false).await
    }

    /// A node that wants a peer link.
    pub(crate) async fn node(channel: Channel, token: Option<&str>) -> Result<Self, Status> {
        Self::link(channel, token, true).await
    }

    async fn link(channel: Channel, token: Option<&str>, is_node: bool) -> Result<Self, Status> {
        use proto::LinkConnectionType as Type;
        let (out, mut input) = open(channel, token).await?;
        let kind = if is_node { Type::Peer } else { Type::Edge };
        let (offer, first) = Offer::new("test-link", "3.4.6", kind).expect("a key");
        out.send(first).await.expect("open");
        let reply = soon("a reply", input.next()).await.expect("a reply")?;
        let (mac, reply) = offer.answered(reply).expect("a negotiation");
        // A stock node takes peers of its own deployment only.
        assert_eq!(reply.deployment_name, if is_node { "a deployment" } else { "" });
        let (answers, reads) = (Arc::new(AtomicBool::new(true)), watch::Sender::new(true));
        let (to, came) = mpsc::unbounded_channel();
        let reader = pump(
            input,
            mac.clone(),
            out.clone(),
            is_node,
            Arc::clone(&answers),
            reads.subscribe(),
            to,
        );
        Ok(Self {
            out,
            input: came,
            mac,
            came: VecDeque::new(),
            answers,
            reads,
            next_id: 1,
            reader: tokio::spawn(reader),
        })
    }

    /// A message with its MAC.
    pub(crate) fn seal(&self, message: Message) -> Bytes {
        self.mac.seal(message).expect("a message with a header")
    }

    pub(crate) async fn send(&self, message: Message) {
        self.send_bytes(self.seal(message)).await;
    }

    pub(crate) async fn send_bytes(&self, bytes: Bytes) {
        let _ = self.out.send(bytes).await;
    }

    /// Subscribes, and waits for the answer.
    pub(crate) async fn subscribe(&mut self, own: &Name, to: &Name) -> Result<(), String> {
        let id = self.next_id;
        self.next_id += 1;
        self.send(Message {
            message_type: Some(MessageType::Subscribe(Subscribe {
                header: Some(header(own.clone(), to.clone(), 1)),
                subscription_id: id,
            })),
            ..Message::default()
        })
        .await;
        self.ack(id).await
    }

    /// Ends a subscription.
    pub(crate) async fn unsubscribe(&mut self, own: &Name, from: &Name, id: u64) -> Result<(), String> {
        self.send(Message {
            message_type: Some(MessageType::Unsubscribe(Unsubscribe {
                header: Some(header(own.clone(), from.clone(), 1)),
                subscription_id: id,
            })),
            ..Message::default()
        })
        .await;
        self.ack(id).await
    }

    async fn ack(&mut self, id: u64) -> Result<(), String> {
        loop {
            let message = soon("an ack", self.read()).await.expect("the link stands");
            match message.message_type {
                Some(MessageType::SubscriptionAck(ack)) if ack.subscription_id == id => {
                    return if ack.success { Ok(()) } else { Err(ack.error) };
                }
                _ => self.came.push_back(message),
            }
        }
    }

    async fn read(&mut self) -> Result<Message, Status> {
        self.input.recv().await.unwrap_or_else(|| Err(Status::ok("closed")))
    }

    /// The next frame.
    pub(crate) async fn next(&mut self) -> Result<Message, Status> {
        match self.came.pop_front() {
            Some(message) => Ok(message),
            None => soon("a frame", self.read()).await,
        }
    }

    /// The next announcement of a name: its service, and whether it came or went.
    pub(crate) async fn announced(&mut self) -> (String, bool) {
        loop {
            let message = self.next().await.expect("the link stands");
            let (header, came) = match message.message_type {
                Some(MessageType::Subscribe(subscribe)) => (subscribe.header, true),
                Some(MessageType::Unsubscribe(unsubscribe)) => (unsubscribe.header, false),
                _ => continue,
            };
            let name = header.and_then(|header| header.destination).expect("a name");
            return (name.str_name.expect("text").str_component_2, came);
        }
    }

    /// The texts of the next frames.
    pub(crate) async fn texts(&mut self, count: usize) -> Vec<String> {
        let mut texts = Vec::new();
        while texts.len() < count {
            let message = self.next().await.expect("the link stands");
            texts.extend(text(&message));
        }
        texts
    }

    /// Waits for the link's end; gives its status.
    pub(crate) async fn ended(&mut self) -> Status {
        loop {
            if let Err(status) = self.next().await {
                return status;
            }
        }
    }
}
