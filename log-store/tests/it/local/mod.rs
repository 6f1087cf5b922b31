//! The local store.

mod conformance;
mod crash;
mod damage;
mod fixture;
mod folder;
mod index;
mod inspect;
mod poison;
mod reopen;
mod replay;
mod replica;
mod retention;
pub(crate) mod script;
mod torn;
