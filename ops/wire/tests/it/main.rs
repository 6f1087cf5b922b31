//! What a link promises.

mod cut;
mod links;
