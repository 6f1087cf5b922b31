//! Tools that the benchmarks share: to measure a thing in turn with its limit, and the limits themselves.
//!
//! A benchmark here never gives a figure alone. Each measurement has its limit beside it: the least that any
//! implementation would have to do for the same bytes. Both run in the same process, in turn, and the result is the
//! ratio of the two; a machine that is slow for a while is slow for both.
//!
//! - [`versus`] measures pairs with criterion and prints the closing table; [`stopwatch`] tells work from waiting.
//! - [`bare`] is the limit on the network: an iroh endpoint that echoes, or sends bytes.
//! - [`relay`] is a relay node over any store, [`served`] one in a process of its own, [`client`] a client of its protocol that
//!   does no more than it must.
//! - [`frames`] makes the frames to append, [`figures`] reads the metrics of a store, [`process`] those of the kernel.
//! - [`nats`] is the limit of a fleet: a JetStream client that publishes batches, or reads, and does nothing besides.
//! - [`peers`] are other systems that keep messages durably, as targets of the same workloads as our own.
//! - [`slim`] is a SLIM client, and a stock SLIM node.
//! - [`model`] computes what a fleet carries from what its parts cost.

pub mod bare;
pub mod client;
pub mod figures;
pub mod frames;
pub mod model;
pub mod nats;
pub mod peers;
pub mod process;
pub mod relay;
pub mod served;
pub mod slim;
pub mod stopwatch;
pub mod versus;
