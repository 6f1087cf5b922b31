//! Checks whether the agents' view of a run can have happened on one log.
//!
//! Agents write down their sends, the answers to them, and the entries that they are shown ([`Event`]). When all is
//! over, [`check`] puts those accounts together and names every contradiction ([`Fault`]). It knows nothing of relay
//! nodes, stores or networks: whatever was killed or cut off in between, the accounts must fit.
//!
//! ```
//! use skytale_history::{Event, Fault, check};
//! use skytale_proto::{AgentId, ChannelId, FrameId, Offset};
//!
//! let (alice, channel) = (AgentId::from_bytes([1; 32]), ChannelId::from_bytes([7; 16]));
//! let frame = FrameId::generate();
//! let history = [
//!     Event::Sent { agent: alice, channel, frame },
//!     Event::Acknowledged { agent: alice, channel, frame, offset: Offset::new(2) },
//!     Event::Reads { agent: alice, channel, from: Offset::new(2) },
//!     Event::Finished { agent: alice, channel, at: Offset::new(2) },
//! ];
//! // Alice read up to offset 2, and was not shown what was acknowledged there.
//! let faults = check(&history);
//! assert!(faults.iter().any(|fault| matches!(fault, Fault::Missing { .. })));
//! ```
//!
//! [`check`] holds the whole history in memory. For runs with millions of deliveries, [`Monitor`] takes the same facts
//! while the run goes on, keeps each entry once, and names the same faults as soon as they can be seen.

mod check;
mod event;
mod fault;
mod monitor;
#[cfg(test)]
mod tests;

pub use check::check;
pub use event::{Entry, EntryKind, Event, HistoryError, read_lines, write_line};
pub use fault::Fault;
pub use monitor::{ChannelMonitor, ChannelReport, Delivered, FAULTS_KEPT_MAX, Monitor, Progress, Reader, Report};
