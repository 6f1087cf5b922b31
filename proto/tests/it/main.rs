//! Promises of the decoders to whoever reads hostile bytes.

mod memory;
