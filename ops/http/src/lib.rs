//! Behaviour shared by all our HTTP servers: they refuse with a problem document (RFC 9457).
//!
//! ```text
//!   socket ── Connection ── hyper ── check_head ── routes ── with_problems
//!                 └ hyper's own empty 400, 414 and 431 get a body     └ so do answers that a framework made
//! ```
//!
//! It has no routes and no limits of its own, and it knows nothing of TLS. All our servers that listen count connections
//! by network as [`addresses`] does.
//!
//! # Invariants
//! - An answer with a status of 400 or more is `application/problem+json` with a code.
//! - A request that is refused for its size is refused before its body is read.

pub mod addresses;
mod connection;
mod head;
mod listener;
mod metrics;
mod problem;

pub use connection::Connection;
pub use head::{HeadError, check_head};
pub use listener::Listener;
pub use metrics::{RenderMetrics, metrics_page};
pub use problem::{PROBLEM_JSON, code_of, no_method, no_route, private, problem, with_problems};
