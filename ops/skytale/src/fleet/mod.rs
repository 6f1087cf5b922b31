//! A fleet on one machine: NATS servers and relay nodes as processes, the API within this one.

mod machine;
mod watch;

pub(crate) use machine::{Layout, Machine};
pub(crate) use watch::{NodeSample, Watch};
