//! The SDK from outside, over real connections.
#![allow(missing_docs)]

mod net;
