//! Configuration of the NATS servers that a fleet's relay nodes share: from an inventory, through the files in `ops/nats`.

mod inventory;
mod process;
mod render;
mod users;

pub(crate) use inventory::Inventory;
pub(crate) use process::{NatsServers, program};
pub(crate) use render::render;
pub(crate) use users::Users;
