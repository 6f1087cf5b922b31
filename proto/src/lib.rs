//! Definitions that the parts of Skytale share: ids, frames, session messages, error codes, limits, tokens.
//!
//! This crate does no I/O and knows no runtime. Everything that arrives from outside is parsed here
//! into types that cannot be wrong ([`Frame`], [`LogId`], [`token::Claims`]); every decoder takes
//! any bytes and gives a value or an error, and allocates no more than the bytes it was given.
//!
//! ```
//! use skytale_proto::{AgentId, ChannelId, ChannelMode, Detail, Frame, FrameId, Header, Offset};
//!
//! let frame = Frame::new(
//!     Header {
//!         log: ChannelId::generate().log(),
//!         id: FrameId::generate(),
//!         author: AgentId::from_bytes([7; 32]),
//!         parent: Offset::ZERO,
//!         detail: Detail::Create { mode: ChannelMode::Mls, account: None, policy: None },
//!     },
//!     b"opaque".as_slice(),
//! )?;
//! assert_eq!(Frame::decode(frame.encoded().clone())?, frame);
//! # Ok::<(), skytale_proto::FrameError>(())
//! ```
//!
//! # Modules
//! - [`id`]: newtypes for everything that is named or counted.
//! - [`frame`]: what an author appends. [`record`]: how an entry looks on disk and on the wire.
//! - [`session`]: the relay protocol. [`token`]: claims and their verification. [`rest`]: the API's JSON.
//! - [`consent`]: who may claim an agent's KeyPackages. [`policy`]: who may do what in a channel.
//! - [`code`]: every error code. [`limits`]: every limit. [`digest`]: the channel digest.

pub mod code;
pub mod consent;
pub mod digest;
pub mod frame;
pub mod id;
pub mod limits;
pub mod policy;
pub mod record;
pub mod rest;
pub mod session;
mod shown;
pub mod token;

pub use code::Code;
pub use consent::{Allowed, ClaimRule};
pub use digest::Digest;
pub use frame::{ChannelMode, Detail, Frame, FrameError, Header, Kind};
pub use id::{
    AccountId, AgentId, ChannelId, EndpointId, EnrolmentId, FrameId, InstanceId, KeyId, LogId, Offset, Region,
};
pub use policy::{Holders, Policy, Right};
pub use record::{Record, RecordError};
pub use shown::{is_plain, shown};

/// Protobuf messages as generated from `proto/skytale/v1`.
#[allow(missing_docs, unreachable_pub, unused_qualifications, clippy::all, clippy::pedantic)]
pub mod wire {
    include!(concat!(env!("OUT_DIR"), "/skytale.v1.rs"));
}
