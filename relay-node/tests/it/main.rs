//! The relay node, driven by a bare client of its protocol over a memory store.

mod admin;
mod api;
mod behind;
mod client;
mod clock;
mod directory;
mod fixture;
mod fleet;
mod forge;
mod hostile_claims;
mod hostile_hello;
mod hostile_identity;
mod hostile_memory;
mod hostile_status;
mod hostile_streams;
mod https;
mod key_packages;
mod lifecycle;
mod limits;
mod log;
mod moving;
mod order;
mod tap;
mod trust;
mod without_api;
mod witness;
