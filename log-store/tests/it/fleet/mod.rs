//! The store of a fleet, on real NATS servers.

mod checkpoints;
mod cluster;
mod conformance;
mod faults;
mod killed;
mod nodes;
mod refusals;
mod regions;
mod script;
