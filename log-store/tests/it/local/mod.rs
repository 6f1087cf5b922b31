//! The local store.

mod clock;
mod conformance;
mod crash;
mod damage;
mod fixture;
mod folder;
mod full;
mod full_disk;
mod ids;
mod index;
mod inspect;
mod large;
mod poison;
mod quiet;
mod regroup;
mod reopen;
mod replay;
mod replica;
mod retention;
pub(crate) mod script;
mod start;
mod torn;
