//! SLIM's wire format: names, frames, and the bytes of both.
//!
//! A frame is **not** decoded and encoded again. The parts that are signed end to end stay as the bytes that came,
//! unknown fields included; only the fields of a hop are written for each link (see [`Publish`]).

mod classify;
mod frame;
mod name;
mod scan;

pub use classify::{Durability, MessageType, SessionType};
pub use frame::{Body, Header, Inbound, Publish, WireError, barrier, subscription_ack};
#[cfg(test)]
pub(crate) use name::Encoded;
pub use name::{EncodedName, FullName, Name, Prefix, component_hash};

/// Messages as generated from `proto/dataplane/v1`.
#[allow(missing_docs, unreachable_pub, unused_qualifications, clippy::all, clippy::pedantic)]
pub mod proto {
    include!(concat!(env!("OUT_DIR"), "/dataplane.proto.v1.rs"));
}

/// The descriptors of SLIM's data plane, for gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/data_plane.bin"));

#[cfg(test)]
mod tests;
