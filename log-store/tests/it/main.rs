//! Promises of the stores.

mod disk;
mod fleet;
mod local;
mod memory;
