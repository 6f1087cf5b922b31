//! Agents over a real relay node with a real log.

mod commits;
pub(crate) mod crash;
mod inbox;
mod offline;
mod order;
mod restarts;
mod share;
mod talk;
pub(crate) mod world;
