//! The bridge from outside: over real connections, with a real relay node and its log.
#![allow(missing_docs)]

mod durable;
mod edge;
mod hostile;
mod idle;
mod limits;
mod nodes;
mod stock;
mod tls;
mod wire;
mod world;

/// Not a promise: the bridge's process in a test of its memory. Does nothing unless that test started it.
#[test]
fn bridge_child() {
    idle::child();
}
