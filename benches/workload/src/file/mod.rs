//! Workload files (`.skw`): gzip (RFC 1952) of lines of JSON.
//!
//! ```text
//!   {"skytale_workload":1, "source":"log", ...}     the header
//!   [0,"n",0,0,512,0]                               an event a line, see below
//!   [1834,"m",0,0,980]
//!   {"totals":{"events":2, ...}}                    the last line: without it the file was cut
//! ```
//!
//! Each flush ends a gzip member, so a file that was cut is good up to its last whole line. `zcat` and whatever reads
//! JSON lines can read it.
//!
#![doc = include_str!("lines.md")]

mod head;
mod line;
mod reader;
mod writer;

pub use head::{Header, Ids, Part, Source, Totals, Unit, VERSION};
pub(crate) use reader::DURATION_MAX;
pub use reader::{End, ReadError, Reader};
pub use writer::{WriteError, Writer, write_whole};

#[cfg(test)]
mod tests;
