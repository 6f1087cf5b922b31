//! Agents over several relay nodes that share one log: a cursor taken at one is valid at every other.

mod account;
mod clock;
mod crowd;
mod directory;
mod moves;
mod nodes;
mod outage;
mod recovery;
mod refused;
mod replicas;
mod rolling;
mod silent;
