//! The header MAC: HMAC-SHA256 (RFC 2104) over the routed fields, under the link's key.

use crate::wire::proto::{Message, message::MessageType};
use crate::wire::{Header, Inbound, Name};
use bytes::{BufMut, Bytes};
use prost::Message as _;
use ring::hmac;
use std::fmt;

/// Length of a MAC, in bytes.
pub const MAC_BYTES: usize = 32;
const DOMAIN: &[u8] = b"SLIM-DP-HDR-v1\0";

/// The key of a link, with the link's id.
#[derive(Clone)]
pub struct LinkMac {
    key: hmac::Key,
    link_id: String,
}

impl fmt::Debug for LinkMac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LinkMac")
            .field("key", &"[redacted]")
            .field("link_id", &self.link_id)
            .finish()
    }
}

impl LinkMac {
    /// Makes it from 32 secret bytes.
    pub fn new(secret: &[u8; 32], link_id: impl Into<String>) -> Self {
        Self {
            key: hmac::Key::new(hmac::HMAC_SHA256, secret),
            link_id: link_id.into(),
        }
    }

    /// The link's id.
    pub fn link_id(&self) -> &str {
        &self.link_id
    }

    /// The MAC of a header as it is, whatever MAC it carries.
    pub fn sign(&self, header: &Header) -> [u8; MAC_BYTES] {
        let tag = hmac::sign(&self.key, &self.preimage(header));
        let mut mac = [0; MAC_BYTES];
        mac.copy_from_slice(tag.as_ref());
        mac
    }

    /// A message with its header's MAC, as it goes over the link; `None` for one without a header.
    pub fn seal(&self, mut message: Message) -> Option<Bytes> {
        let mac = match Inbound::decode(&message.encode_to_vec().into()).ok()? {
            Inbound::Publish(publish) => self.sign(&publish.header),
            Inbound::Subscribe(body) | Inbound::Unsubscribe(body) => self.sign(&body.header),
            Inbound::Link(_) | Inbound::Ack { .. } => return None,
        };
        let header = match &mut message.message_type {
            Some(MessageType::Publish(publish)) => publish.header.as_mut(),
            Some(MessageType::Subscribe(subscribe)) => subscribe.header.as_mut(),
            Some(MessageType::Unsubscribe(unsubscribe)) => unsubscribe.header.as_mut(),
            _ => None,
        };
        header?.header_mac = Some(Bytes::copy_from_slice(&mac));
        Some(message.encode_to_vec().into())
    }

    /// Whether the header carries its MAC. Takes as long for a wrong one as for a right one.
    pub fn verify(&self, header: &Header) -> bool {
        header
            .mac
            .as_ref()
            .is_some_and(|mac| hmac::verify(&self.key, &self.preimage(header), mac).is_ok())
    }

    /// All numbers little-endian; what may be absent is preceded by 0 or 1.
    fn preimage(&self, header: &Header) -> Vec<u8> {
        let mut out = Vec::with_capacity(384);
        out.put_slice(DOMAIN);
        put_text(self.link_id.as_bytes(), &mut out);
        put_name(header.has_source().then_some(&header.source), &mut out);
        put_name(header.has_destination().then_some(&header.destination), &mut out);
        put_text(&header.identity, &mut out);
        out.put_u32_le(header.fanout);
        for number in [header.recv_from, header.forward_to] {
            match number {
                Some(number) => {
                    out.put_u8(1);
                    out.put_u64_le(number);
                }
                None => out.put_u8(0),
            }
        }
        match header.error {
            Some(error) => out.put_slice(&[1, u8::from(error)]),
            None => out.put_u8(0),
        }
        out.put_u32_le(header.ttl);
        out
    }
}

#[allow(clippy::cast_possible_truncation)] // A message is bounded far below 4 GiB.
fn put_text(text: &[u8], out: &mut Vec<u8>) {
    out.put_u32_le(text.len() as u32);
    out.put_slice(text);
}

fn put_name(name: Option<&Name>, out: &mut Vec<u8>) {
    let Some(name) = name else {
        out.put_u8(0);
        return;
    };
    out.put_u8(1);
    match name.encoded {
        Some(encoded) => {
            out.put_u8(1);
            for component in encoded.prefix {
                out.put_u64_le(component);
            }
            match encoded.id {
                Some((high, low)) => {
                    out.put_u8(1);
                    out.put_u64_le(high);
                    out.put_u64_le(low);
                }
                None => out.put_u8(0),
            }
        }
        None => out.put_u8(0),
    }
    match &name.strings {
        Some(strings) => {
            out.put_u8(1);
            for text in strings {
                put_text(text, out);
            }
        }
        None => out.put_u8(0),
    }
}
