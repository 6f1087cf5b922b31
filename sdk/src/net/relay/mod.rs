//! A session with a relay node over QUIC (ALPN `skytale/relay/1`).
//!
//! ```text
//!   Session ── control    Hello, pings both ways, token refresh, notices
//!           ├─ Appender   frames out, verdicts in order
//!           ├─ Subscription (one a log)   records in, dense
//!           ├─ watch      many channels at their heads: which of them has something to read
//!           ├─ KeyPackages   claim, count
//!           └─ log_status    what became of entries given up
//! ```
//!
//! A relay node is not trusted: its messages are bounded before they are stored, and checked (density, checksums,
//! answers that match a request) before they are believed. A session ends as a whole, once, with one reason. Every
//! stream of it fails with that reason, and frames in flight are ambiguous: they may be in the log.

mod activity;
mod address;
mod append;
mod control;
mod error;
mod key_packages;
mod message;
mod nobody;
mod pace;
mod patience;
mod session;
mod status;
mod subscribe;
mod watch;
mod way;

pub use address::{Endpoint, NetworkConfig, Relay};
pub use append::{Appender, PendingAppend, Receipt};
pub use error::{Refused, RelayError};
pub use key_packages::{Claimed, KeyPackages, Stock};
pub(crate) use patience::PATIENCE;
pub use session::{Session, SessionInfo};
pub use status::{LogStatus, log_status};
pub use subscribe::{Subscription, SubscriptionItem};
pub(crate) use watch::{WatchItem, WatchItems, WatchRequests, watch};
pub use way::{Transport, TransportError};
