//! What the stores promise.

mod disk;
mod fleet;
mod local;
mod memory;
