//! The store of a fleet, on real NATS servers.

mod cluster;
mod conformance;
mod faults;
mod nodes;
mod refusals;
mod script;
