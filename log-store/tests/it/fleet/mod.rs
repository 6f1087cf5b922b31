//! The store of a fleet, on real NATS servers.

mod away;
mod checkpoints;
mod clocks;
mod conformance;
mod crash;
mod cuts;
mod ends;
mod faults;
mod hostile_checkpoints;
mod idle;
mod keeper;
mod killed;
mod nodes;
mod order;
mod refusals;
mod regions;
mod restored;
mod script;
mod weaker;

pub(crate) use skytale_log_store::cluster;
