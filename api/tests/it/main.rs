//! The API over HTTP, on SQLite and on a PostgreSQL of its own: the same promises on both.

// A test's helper that fails is the test's failure.
#![allow(clippy::unwrap_used)]

mod agent;
mod boundaries;
mod child;
mod concurrency;
mod crash;
mod database;
mod disk;
mod enrolment;
mod errors;
mod feed;
mod fleet;
mod flood;
mod flow;
mod front;
mod harness;
mod hostile;
mod isolation;
mod limits;
mod markers;
mod openapi;
mod relay;
mod revocation;
mod rewrap;
mod rotation;
mod schema;
mod schemathesis;
mod start;
mod trouble;
mod twin;
