//! The store of a fleet, on real NATS servers.

mod checkpoints;
mod conformance;
mod crash;
mod faults;
mod killed;
mod nodes;
mod refusals;
mod regions;
mod script;

pub(crate) use skytale_log_store::cluster;
