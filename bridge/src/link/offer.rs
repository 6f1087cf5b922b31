//! Link negotiation, as the side that connects. The bridge connects to no node; clients of tests and benchmarks do to it.

use super::mac::LinkMac;
use super::negotiate::{Ephemeral, NegotiationError, derive};
use crate::wire::proto::{
    Link, LinkConnectionType, LinkNegotiationPayload, Message, link::LinkType, message::MessageType,
};
use bytes::Bytes;
use prost::Message as _;
use std::fmt;

/// A negotiation that has begun.
pub struct Offer {
    ephemeral: Ephemeral,
    link_id: String,
}

impl fmt::Debug for Offer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Offer")
            .field("link_id", &self.link_id)
            .finish_non_exhaustive()
    }
}

impl Offer {
    /// An offer with a fresh key of X25519, and the message that makes it.
    pub fn new(
        link_id: impl Into<String>,
        slim_version: impl Into<String>,
        kind: LinkConnectionType,
    ) -> Result<(Self, Bytes), NegotiationError> {
        let (ephemeral, link_id) = (Ephemeral::generate()?, link_id.into());
        let request = LinkNegotiationPayload {
            link_id: link_id.clone(),
            slim_version: slim_version.into(),
            link_ecdh_public_key: ephemeral.public.clone(),
            connection_type: kind.into(),
            node_id: "client".into(),
            deployment_name: "a deployment".into(),
            ..LinkNegotiationPayload::default()
        };
        let message = Message {
            message_type: Some(MessageType::Link(Link {
                link_type: Some(LinkType::LinkNegotiation(request)),
            })),
            ..Message::default()
        };
        Ok((Self { ephemeral, link_id }, message.encode_to_vec().into()))
    }

    /// The link's key, from the answer, and the answer.
    pub fn answered(self, reply: Bytes) -> Result<(LinkMac, LinkNegotiationPayload), NegotiationError> {
        let Some(MessageType::Link(Link {
            link_type: Some(LinkType::LinkNegotiation(reply)),
        })) = Message::decode(reply)
            .map_err(|_| NegotiationError::Expected)?
            .message_type
        else {
            return Err(NegotiationError::Expected);
        };
        if !reply.is_reply || reply.link_id != self.link_id {
            return Err(NegotiationError::Expected);
        }
        let secret = self.ephemeral.agree(&reply.link_ecdh_public_key)?;
        let key = derive(&self.link_id, &secret, None)?;
        Ok((LinkMac::new(&key, self.link_id), reply))
    }
}
