//! Sessions with a scripted peer: the answers of a healthy relay, and those of a hostile one.

mod api;
mod peer;
mod session;
mod streams;
