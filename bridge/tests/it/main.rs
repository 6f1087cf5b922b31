//! The bridge from outside: over real connections, with a real relay node and its log.
#![allow(missing_docs)]

mod durable;
mod edge;
mod hostile;
mod stock;
mod tls;
mod wire;
mod world;
