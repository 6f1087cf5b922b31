//! The store of a fleet, on real NATS servers.

mod away;
mod checkpoints;
mod conformance;
mod faults;
mod killed;
mod nodes;
mod order;
mod refusals;
mod regions;
mod script;

pub(crate) use skytale_log_store::cluster;
