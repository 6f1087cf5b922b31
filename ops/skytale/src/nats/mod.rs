//! Configuration of the NATS servers that a fleet's relay nodes share: from an inventory, through the files in `ops/nats`.
//! And such servers on this machine.

mod disk;
mod gateways;
mod inventory;
mod process;
mod program;
mod render;
mod servers;
mod users;

pub(crate) use disk::SmallDisk;
pub(crate) use inventory::Inventory;
pub(crate) use program::program;
pub(crate) use render::render;
pub(crate) use servers::{NatsServers, free_port};
pub(crate) use users::{KEEPER, NodeUsers, Users, retire, rotate};
