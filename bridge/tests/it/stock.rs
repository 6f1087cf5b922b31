//! Stock SLIM clients (PyPI slim-bindings 3.3.8), as processes of their own.

mod a2a;
mod agent;
mod fleet;
mod group;
mod node;
mod rpc;
mod sessions;
