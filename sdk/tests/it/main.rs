//! The SDK from outside, over real connections.
#![allow(missing_docs)]

mod agent;
mod engine;
mod fleet;
mod net;
mod os_crash;
mod ratchets;
mod raw;
mod vault;

/// Not a promise: the body of the process that the crash tests kill. Does nothing unless one of them started it.
#[test]
fn crash_child() {
    agent::crash::child();
}

/// Not a promise: the body of the process whose log is looked at. Does nothing unless a test started it.
#[test]
fn traces_child() {
    agent::traces::child();
}

/// Not a promise: the body of the other process that has a vault open.
#[test]
fn lock_child() {
    vault::child();
}

/// Not a promise: what `ops/test/os-crash.sh` asks for. Does nothing unless it does.
#[test]
fn os_crash_scenarios() {
    os_crash::scenarios();
}

/// Not a promise: the body of the process whose machine crashes.
#[test]
fn os_crash_child() {
    os_crash::child();
}
