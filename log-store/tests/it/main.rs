//! What the stores promise.

mod memory;
