//! The store of a fleet, on real NATS servers.

mod cluster;
mod conformance;
mod script;
