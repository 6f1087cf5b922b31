//! The engine against the real fold: agents that talk, go away, race, crash and lie.

mod conversation;
mod failures;
mod hostile;
mod membership;
mod recovery;
mod relay;
mod schedules;
