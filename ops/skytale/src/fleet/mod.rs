//! A fleet on one machine: NATS servers and relay nodes as processes, the API within this one.

mod database;
mod machine;
mod watch;

pub(crate) use database::set_read_only;
pub(crate) use machine::{Layout, Machine, Upkeep};
pub(crate) use watch::{NodeSample, Watch};
