//! Agents over a real relay node with a real log.

mod backup;
mod commits;
pub(crate) mod crash;
mod https;
mod inbox;
mod invitations;
mod many;
mod members;
mod offline;
mod order;
mod recovery;
mod replies;
mod requests;
mod restarts;
mod rollback;
mod share;
mod stock;
mod streams;
mod talk;
pub(crate) mod traces;
mod unpolled;
mod waits;
pub(crate) mod world;
