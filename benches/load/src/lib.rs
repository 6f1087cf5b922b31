//! Load: a workload is replayed against a system, measured and verified.
//!
//! ```text
//!   a workload ──Plan──> a schedule ──run──> Target      what agents saw ──> skytale-history
//!                                      └──────────────> Results: report.json, *.hlog, report.html
//! ```
//!
//! This crate is not a benchmark of one thing alone. Those are in `skytale-benches`.

mod frames;
mod recorder;
pub mod relay;
pub mod results;
pub mod run;
pub mod target;
