//! Promises of the decoders to whoever reads hostile bytes.

mod error_codes;
mod memory;
mod protocol;
