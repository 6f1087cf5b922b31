//! The engine against the real fold: agents that talk, go offline, race, crash and lie.

mod answers;
mod barrier;
mod conversation;
mod deferred;
mod failed;
mod failures;
mod forks;
mod hostile;
mod leaving;
mod membership;
mod once;
mod problems;
mod ratchet_keys;
mod recovery;
mod refresh;
mod relay;
mod requests;
mod returns;
mod roles;
mod schedules;
mod settling;
mod stock;
