//! Networks that are cut while agents write and read: on real servers, at random times, and checked by what all learned.

mod author;
mod chance;
mod leader;
mod load;
mod nodes;
mod reader;
mod regions;
mod servers;
mod wires;
