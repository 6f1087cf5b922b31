//! Messages on a link.
//!
//! ```text
//!   Message ─ publish ─ header ─ source, destination, identity, ...   kept as they came
//!           │         │        └ ttl, recv_from, forward_to,          the hop's: read here, written for each link
//!           │         │          incoming_conn, header_mac
//!           │         └ session, msg                                  kept as they came
//!           └ metadata                                                kept as it came
//! ```

use super::name::Name;
use super::proto;
use super::scan::{Field, Once, fields};
use bytes::{BufMut, Bytes, BytesMut};
use prost::Message as _;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};

/// Bytes that are not a message that the bridge takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The bytes end inside a field.
    #[error("message cut short")]
    CutShort,
    /// Not a message of the data plane.
    #[error("message malformed: {0}")]
    Malformed(&'static str),
}

/// A message of the other side.
#[derive(Clone, Debug)]
pub enum Inbound {
    /// A subscription.
    Subscribe(Body),
    /// The end of one.
    Unsubscribe(Body),
    /// A frame to be forwarded.
    Publish(Publish),
    /// Link negotiation.
    Link(Bytes),
    /// The answer to a subscription of the bridge's.
    Ack {
        /// The id in the subscription.
        id: u64,
    },
}

/// A Subscribe or Unsubscribe.
#[derive(Clone, Debug)]
pub struct Body {
    /// The header.
    pub header: Header,
    /// Not 0 where the sender waits for an answer.
    pub subscription_id: u64,
}

/// Fields of a SLIMHeader that the bridge reads.
#[derive(Clone, Debug, Default)]
pub struct Header {
    /// Sender.
    pub source: Name,
    /// Receiver.
    pub destination: Name,
    /// 1 is one of those who match; more is all.
    pub fanout: u32,
    /// Hops left.
    pub ttl: u32,
    pub(crate) identity: Bytes,
    pub(crate) recv_from: Option<u64>,
    pub(crate) forward_to: Option<u64>,
    pub(crate) error: Option<bool>,
    pub(crate) mac: Option<Bytes>,
    has_source: bool,
    has_destination: bool,
    /// The fields that are not a hop's, as they came.
    kept: Bytes,
}

/// A frame. Cheap to clone: its parts are shared.
#[derive(Clone, Debug)]
pub struct Publish {
    /// The header.
    pub header: Header,
    /// SessionType, as its number.
    pub session_type: i32,
    /// SessionMessageType, as its number.
    pub message_type: i32,
    /// The session's id.
    pub session_id: u32,
    /// The message's id within its session.
    pub message_id: u32,
    /// The fields of Publish except the header, as they came.
    content: Bytes,
    /// The fields of Message except the publish: metadata.
    outer: Bytes,
}

impl Inbound {
    /// Reads a message. Copies only the fields that it keeps apart; allocates no more than the message has.
    pub fn decode(message: &Bytes) -> Result<Self, WireError> {
        let (mut kind, mut once, mut outer) = (None, Once::default(), Gather::default());
        for field in fields(message) {
            let field = field?;
            match field.number {
                1 | 2 | 3 | 5 | 6 => {
                    once.note(field.number)?;
                    if kind.replace(field).is_some() {
                        return Err(WireError::Malformed("two messages in one"));
                    }
                }
                _ => outer.keep(&field),
            }
        }
        let kind = kind.ok_or(WireError::Malformed("no message in it"))?;
        let body = kind.bytes()?;
        Ok(match kind.number {
            1 => Self::Subscribe(Body::decode(&body)?),
            2 => Self::Unsubscribe(Body::decode(&body)?),
            3 => Self::Publish(Publish::decode(&body, outer.done(message))?),
            5 => Self::Link(body),
            _ => Self::Ack {
                id: fields(&body)
                    .find_map(|field| match field {
                        Ok(field) if field.number == 1 => Some(field.varint()),
                        Ok(_) => None,
                        Err(error) => Some(Err(error)),
                    })
                    .transpose()?
                    .unwrap_or(0),
            },
        })
    }
}

impl Body {
    fn decode(bytes: &Bytes) -> Result<Self, WireError> {
        let (mut header, mut subscription_id, mut once) = (None, 0, Once::default());
        for field in fields(bytes) {
            let field = field?;
            once.note(field.number)?;
            match field.number {
                1 => header = Some(Header::decode(&field.bytes()?)?),
                2 => subscription_id = field.varint()?,
                _ => {}
            }
        }
        Ok(Self {
            header: header.ok_or(WireError::Malformed("no header"))?,
            subscription_id,
        })
    }
}

impl Header {
    fn decode(bytes: &Bytes) -> Result<Self, WireError> {
        let (mut header, mut once, mut kept) = (Self::default(), Once::default(), Gather::default());
        for field in fields(bytes) {
            let field = field?;
            once.note(field.number)?;
            match field.number {
                1 => {
                    header.source = Name::decode(&field.bytes()?)?;
                    header.has_source = true;
                }
                2 => {
                    header.destination = Name::decode(&field.bytes()?)?;
                    header.has_destination = true;
                }
                3 => header.identity = field.text()?,
                4 => header.fanout = field.u32()?,
                5 => drop(field.text()?),
                6 => header.ttl = field.u32()?,
                7 => header.recv_from = Some(field.varint()?),
                8 => header.forward_to = Some(field.varint()?),
                9 => drop(field.varint()?),
                10 => header.error = Some(field.varint()? != 0),
                11 => header.mac = Some(field.bytes()?),
                12 => drop(field.bytes()?),
                _ => {}
            }
            if !matches!(field.number, 6..=9 | 11) {
                kept.keep(&field);
            }
        }
        header.kept = kept.done(bytes);
        Ok(header)
    }

    /// Returns the frame as it leaves the bridge: without an earlier hop's facts.
    #[must_use]
    pub fn for_next_hop(mut self, ttl: u32) -> Self {
        self.ttl = ttl;
        self.recv_from = None;
        self.forward_to = None;
        self.mac = None;
        self
    }

    /// Whether there is a source at all: the MAC tells an absent name from an empty one.
    pub(crate) const fn has_source(&self) -> bool {
        self.has_source
    }

    pub(crate) const fn has_destination(&self) -> bool {
        self.has_destination
    }

    fn encode(&self, mac: Option<&[u8]>) -> BytesMut {
        let mut out = BytesMut::with_capacity(self.kept.len() + 48);
        out.put_slice(&self.kept);
        if self.ttl != 0 {
            prost::encoding::uint32::encode(6, &self.ttl, &mut out);
        }
        if let Some(mac) = mac {
            put_bytes(11, mac, &mut out);
        }
        out
    }
}

impl Publish {
    fn decode(bytes: &Bytes, outer: Bytes) -> Result<Self, WireError> {
        let (mut header, mut once, mut content) = (None, Once::default(), Gather::default());
        let mut session = [0; 4];
        for field in fields(bytes) {
            let field = field?;
            once.note(field.number)?;
            match field.number {
                1 => header = Some(Header::decode(&field.bytes()?)?),
                2 => {
                    session = numbers(&field.bytes()?)?;
                    content.keep(&field);
                }
                3 => {
                    field.bytes()?;
                    content.keep(&field);
                }
                _ => content.keep(&field),
            }
        }
        let [session_type, message_type, session_id, message_id] = session;
        Ok(Self {
            header: header.ok_or(WireError::Malformed("no header"))?,
            session_type: session_type.cast_signed(),
            message_type: message_type.cast_signed(),
            session_id,
            message_id,
            content: content.done(bytes),
            outer,
        })
    }

    /// The whole message, with a header MAC for the link that it goes to, or without for the log.
    pub fn encode(&self, mac: Option<&[u8]>) -> Bytes {
        let header = self.header.encode(mac);
        let inner = 1 + encoded_len_varint(header.len() as u64) + header.len() + self.content.len();
        let mut out = BytesMut::with_capacity(inner + self.outer.len() + 12);
        encode_key(3, WireType::LengthDelimited, &mut out);
        encode_varint(inner as u64, &mut out);
        put_bytes(1, &header, &mut out);
        out.put_slice(&self.content);
        out.put_slice(&self.outer);
        out.freeze()
    }

    /// Bytes that the message takes, about.
    pub fn len(&self) -> usize {
        self.header.kept.len() + self.content.len() + self.outer.len() + 64
    }

    /// Never: a frame has a header.
    pub const fn is_empty(&self) -> bool {
        false
    }

    /// Whether the metadata has a key.
    pub fn has_metadata(&self, key: &str) -> bool {
        fields(&self.outer).flatten().any(|field| {
            field.number == 4
                && field.bytes().is_ok_and(|entry| {
                    fields(&entry)
                        .flatten()
                        .any(|part| part.number == 1 && part.bytes().is_ok_and(|name| name == key.as_bytes()))
                })
        })
    }

    /// Whether it says that a member is online.
    pub fn is_online_announcement(&self) -> bool {
        if self.message_type != super::MessageType::UpdateParticipantState as i32 {
            return false;
        }
        let content = fields(&self.content).flatten().find(|field| field.number == 3);
        let Some(Ok(bytes)) = content.map(|field| field.bytes()) else {
            return false;
        };
        let state = proto::Content::decode(bytes)
            .ok()
            .and_then(|content| content.content_type);
        match state {
            Some(proto::content::ContentType::CommandPayload(command)) => command
                .update_participant_state
                .is_some_and(|update| update.new_state() == proto::ParticipantState::Online),
            _ => false,
        }
    }
}

/// The first four fields of a message of numbers.
fn numbers(bytes: &Bytes) -> Result<[u32; 4], WireError> {
    let (mut numbers, mut once) = ([0; 4], Once::default());
    for field in fields(bytes) {
        let field = field?;
        once.note(field.number)?;
        if let Some(place) = (field.number as usize)
            .checked_sub(1)
            .and_then(|at| numbers.get_mut(at))
        {
            *place = field.u32()?;
        }
    }
    Ok(numbers)
}

fn put_bytes(number: u32, bytes: &[u8], out: &mut BytesMut) {
    encode_key(number, WireType::LengthDelimited, out);
    encode_varint(bytes.len() as u64, out);
    out.put_slice(bytes);
}

/// Fields that are kept as they came.
#[derive(Default)]
struct Gather {
    parts: Vec<Bytes>,
}

impl Gather {
    fn keep(&mut self, field: &Field) {
        self.parts.push(field.raw.clone());
    }

    fn done(self, whole: &Bytes) -> Bytes {
        let length: usize = self.parts.iter().map(Bytes::len).sum();
        match self.parts.as_slice() {
            [] => Bytes::new(),
            [one] => one.clone(),
            _ if length == whole.len() => whole.clone(),
            _ => {
                let mut out = BytesMut::with_capacity(length);
                for part in &self.parts {
                    out.put_slice(part);
                }
                out.freeze()
            }
        }
    }
}

/// The answer to a subscription.
pub fn subscription_ack(id: u64, refused: Option<String>) -> Bytes {
    let ack = proto::SubscriptionAck {
        subscription_id: id,
        success: refused.is_none(),
        error: refused.unwrap_or_default(),
    };
    let message = proto::Message {
        message_type: Some(proto::message::MessageType::SubscriptionAck(ack)),
        ..proto::Message::default()
    };
    message.encode_to_vec().into()
}

/// The header of a barrier: an Unsubscribe of a name that nobody has.
pub fn barrier(nonce: u64) -> proto::SlimHeader {
    const COMPONENTS: [&str; 3] = ["skytale", "bridge", "barrier"];
    let name = |id: u64| proto::Name {
        name: Some(proto::EncodedName {
            component_0: component(0),
            component_1: component(1),
            component_2: component(2),
            name_id: Some(proto::NameId { id_0: nonce, id_1: id }),
        }),
        str_name: Some(proto::StringName {
            str_component_0: COMPONENTS[0].into(),
            str_component_1: COMPONENTS[1].into(),
            str_component_2: COMPONENTS[2].into(),
        }),
    };
    fn component(at: usize) -> u64 {
        super::component_hash(COMPONENTS[at])
    }
    proto::SlimHeader {
        source: Some(name(1)),
        destination: Some(name(2)),
        fanout: 1,
        ttl: 2,
        ..proto::SlimHeader::default()
    }
}
