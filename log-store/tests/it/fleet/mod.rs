//! The store of a fleet, on real NATS servers.

mod conformance;
mod faults;
mod nodes;
mod refusals;
mod script;

pub(crate) use skytale_log_store::cluster;
