//! Ways back to current where members work with different nodes, and do things at one moment.
//!
//! Nodes have a replica each, over real NATS servers. Frames are held back at the nodes, and let go together: so that each
//! of two was made without knowledge of the other, however fast or slow anything is.

mod bootstrapped;
mod rebooted;
mod rejoined;
mod removed;
mod room;
