//! One hop: how two ends of a link agree on a key, and the MAC that each header carries on it.

mod mac;
mod negotiate;
mod offer;

pub use mac::{LinkMac, MAC_BYTES};
pub use negotiate::{Accepted, Identity, NegotiationError, accept};
pub use offer::Offer;

#[cfg(test)]
mod tests;
