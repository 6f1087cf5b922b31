//! Agents over a real relay node with a real log.

mod commits;
pub(crate) mod crash;
mod inbox;
mod offline;
mod restarts;
mod talk;
mod world;
