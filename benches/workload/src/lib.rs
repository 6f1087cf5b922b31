//! Workloads: real traffic as it was captured, or profiles of it, to be replayed as load.
//!
//! ```text
//!   a node's log ── LogCapture ─────┐
//!   a node as it runs ── tap ───────┤
//!   a profile and a seed ── synth ──┴──> events ──> a file (.skw) ──> Summary
//! ```
//!
//! A workload holds who did what and when: kinds, sizes, roster changes. It holds no ids, names, addresses or bodies, and no absolute
//! time unless that was asked for.
//!
//! ```
//! use skytale_workload::synth::{Profile, Size, synthesize};
//! use skytale_workload::{Header, Reader, Source, Writer};
//! use std::time::Duration;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let size = Size { duration: Duration::from_secs(10), agents: 4, messages_per_second: 20 };
//! let mut writer = Writer::new(Vec::new(), &Header::new(Source::Synth, "chatty-pair, seed 7"))?;
//! for event in synthesize(Profile::ChattyPair, size, 7)? {
//!     writer.write(&event)?;
//! }
//! let (file, totals) = writer.finish()?;
//!
//! let mut reader = Reader::new(file.as_slice())?;
//! while let Some(event) = reader.next_event()? {
//!     println!("{:?} {}", event.at, event.what.kind());
//! }
//! assert_eq!(reader.totals(), &totals);
//! # Ok(())
//! # }
//! ```
//!
//! This crate is not a client. It opens no socket and no store.
//!
//! # Invariants
//! - Events are in the order of their times.
//! - A workload is possible by itself: nobody writes to a channel that does not exist, or before they were added to it. Only a part of a
//!   tap begins in the middle.
//! - Nothing in a file leads back to an id: see [`Pseudonyms`].

mod capture;
mod complete;
mod event;
mod file;
mod ids;
pub mod plan;
pub mod report;
mod summary;
pub mod synth;
pub mod tap;

pub use capture::{Entry, LogCapture, NotOfATap, TapCapture, Window};
pub use complete::Completer;
pub use event::{Agent, Channel, Event, Frame, Log, What};
pub use file::{
    End, Header, Ids, Part, ReadError, Reader, Source, Totals, Unit, VERSION, WriteError, Writer, write_whole,
};
pub use ids::{NoRandomness, Pseudonyms, Sample, SampleError};
pub use summary::{Series, Spread, Summarizer, Summary};
