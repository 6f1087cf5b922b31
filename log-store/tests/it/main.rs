//! What the stores promise.

mod local;
mod memory;
