//! Parts of demonstrations: agents with their applications, the messages they sent, relay nodes as processes of their
//! own.

mod agreement;
mod cast;
mod clock;
mod ledger;
mod relay;
mod timeline;

pub(crate) use agreement::Agreement;
pub(crate) use cast::{Actor, AgentReport, PATIENCE};
pub(crate) use clock::WrongClock;
pub(crate) use ledger::{Comparison, Ledger};
pub(crate) use relay::{RelayProcess, Standing, settings};
pub(crate) use timeline::Timeline;
