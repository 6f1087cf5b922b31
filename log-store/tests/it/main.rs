//! What the stores promise.

mod fleet;
mod local;
mod memory;
