//! Recovery of members that work with different nodes, and act at the same moment.
//!
//! Nodes have a replica each, over real NATS servers. Frames are held back at the nodes, and released together: so each
//! of two was made without knowledge of the other, at any speed.

mod bootstrapped;
mod rebooted;
mod rejoined;
mod removed;
mod room;
