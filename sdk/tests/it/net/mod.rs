//! Sessions against a peer that answers as a test wants it to: the answers of a sound relay, and those of a hostile one.

mod api;
mod peer;
mod session;
mod streams;
