//! Configuration of the NATS servers that a fleet's relay nodes share: from an inventory, through the files in `ops/nats`.

mod inventory;
mod render;
mod users;

pub(crate) use inventory::Inventory;
pub(crate) use render::render;
pub(crate) use users::Users;
