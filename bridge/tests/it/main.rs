//! The bridge from outside: over real connections, with a real relay node and its log.
#![allow(missing_docs)]

mod stock;
mod world;
