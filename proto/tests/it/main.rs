//! Promises of the decoders to readers of hostile bytes.

mod error_codes;
mod memory;
mod protocol;
