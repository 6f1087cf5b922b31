//! Promises of a link.

mod cut;
mod links;
