//! Split of frames into those that are kept and those that only pass.

use super::frame::Publish;
use super::proto;

pub use proto::SessionMessageType as MessageType;
pub use proto::SessionType;

/// Metadata keys of frames that matter now or never: SLIMRPC requests and answers, whose senders wait for a deadline, and
/// messages to one member of a group, whose fanout is that of messages to all.
const LIVE: [&str; 3] = ["slimrpc-dir", "rpc-id", "PUBLISH_TO"];

/// Durability of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Goes into its channel's log, and from there to everyone.
    /// If its destination is a channel: a group's retransmissions look the same and go to one application.
    Durable,
    /// Goes to those who are there now.
    Transient,
}

impl Publish {
    /// A frame is durable if a group sends it to all of its members: its messages, and the changes to the group. Frames
    /// from one application to another, frames that only matter now (heartbeats, acknowledgements, discovery,
    /// retransmission) and frames with a deadline are not.
    pub fn durability(&self) -> Durability {
        let to_channel = self.session_type == SessionType::Multicast as i32
            && self.header.fanout > 1
            && self.header.destination.full().is_some();
        let transient = match MessageType::try_from(self.message_type) {
            Ok(message_type) => is_transient(message_type),
            // Of a later version: nobody knows whether it may be shown again.
            Err(_) => true,
        };
        let live = LIVE.iter().any(|key| self.has_metadata(key));
        if to_channel && !transient && !live {
            Durability::Durable
        } else {
            Durability::Transient
        }
    }
}

const fn is_transient(message_type: MessageType) -> bool {
    use MessageType as T;
    match message_type {
        T::Msg
        | T::GroupUpdate
        | T::GroupWelcome
        | T::GroupClose
        | T::GroupProposal
        | T::UpdateParticipantState
        | T::LeaveRequest
        | T::LeaveReply
        | T::RejoinRequest
        | T::RejoinReply => false,
        T::Unspecified
        | T::MsgAck
        | T::RtxRequest
        | T::RtxReply
        | T::DiscoveryRequest
        | T::DiscoveryReply
        | T::JoinRequest
        | T::JoinReply
        | T::GroupAck
        | T::GroupNack
        | T::Heartbeat => true,
    }
}
