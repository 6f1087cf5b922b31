//! Sharing a vault: one process has it open, others attach to that one.
//!
//! A vault has one owner: the process that holds `<vault>.lock`. It opens a Unix socket beside the vault,
//! `<vault>.sock`, and executes the calls of [`Agent`](crate::agent::Agent) and [`Channel`](crate::channel::Channel)
//! for other processes of the same user. So a command works beside a running agent, with the same results.
//!
//! ```text
//!   guest process                                owner process
//!   Agent, Channel (attached)                    Agent ---> engine, session
//!        |                                          ^
//!      Owner  ---- requests, cancels ----> <vault>.sock ---> Share ---> one task a connection
//!             <--- answers, settled sends, events, the relay, "closing" ----
//! ```
//!
//! # Rules
//! - **Access.** The peer's user id must be the owner's (`SO_PEERCRED`), and the guest must prove that it has the vault's
//!   key: BLAKE3, keyed with a key derived from the vault's, over both sides' nonces. The owner proves the same. So a wrong
//!   passphrase fails with SKY-5002 whether or not the vault is open elsewhere. No key crosses the socket.
//! - **A guest never ends the owner's work.** It can make the owner connect; `disconnect` and `close` only detach.
//! - **Order.** Requests of one guest start in the order in which they were sent. An answer that names sent frames goes
//!   out before their outcomes.
//! - **No guest blocks another.** A request takes memory in its guest, not a place in a queue, until the owner reads it.
//!   Long waits do not count against the requests that may run at once. A guest that reads or writes too slowly is
//!   disconnected.
//! - **Waits.** An owner reports why waits that need a session cannot succeed, and when they can again. A guest gets
//!   this before the answer to a request that changed it.
//! - **The end.** A closing owner notifies its guests, refuses new requests, ends waits, and finishes the calls in
//!   flight, all within a deadline; each guest says that it sends no more. The owner then removes the socket, and only
//!   then releases the lock. A guest's call fails with [`AgentError::OwnerGone`](crate::agent::AgentError::OwnerGone),
//!   which says whether it may have taken effect.
//!
//! # Wire format, version 1
//! A frame is `length u32 | kind u8 | id u64` (big endian), then `length` bytes of CBOR. `Hello` carries the version and is
//! the same in every version; an owner refuses one that it does not know. Then:
//! ```text
//!   guest: Hello { version, nonce }            owner: Challenge { nonce } | Refused { code, reason }
//!   guest: Proof { proof }                     owner: Welcome { proof, agent, endpoint, relay } | Refused
//!   guest: Request(id), Cancel(id), Closing    owner: Answer(id) | Fault(id), Settled, Event, Relay,
//!                                                      Outlook, Closing
//! ```
//! Before the proof a frame has at most 1 KiB, after it 128 MiB; an owner accepts 256 MiB at once from all guests. An
//! unknown operation only fails itself; an unknown event is skipped.

mod client;
mod connection;
mod door;
mod frame;
mod hello;
mod message;
pub(crate) mod octets;
mod operation;
mod place;
mod serve;
#[cfg(test)]
mod tests;

pub(crate) use client::Owner;
pub(crate) use door::{Knock, knock};
pub(crate) use octets::Octets;
pub(crate) use serve::Share;

use std::sync::OnceLock;
use std::time::Duration;
use tokio::runtime::{Builder, Handle, Runtime};

/// Returns the runtime that serves sockets, in its own thread: guests get answers even if the application's runtime is
/// busy, has no I/O, or has ended. Created on first use; every agent ends its own tasks.
fn runtime() -> Option<&'static Handle> {
    static RUNTIME: OnceLock<Option<Runtime>> = OnceLock::new();
    let runtime = RUNTIME.get_or_init(|| {
        let built = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("skytale-share")
            .enable_all()
            .build();
        built
            .inspect_err(
                |error| tracing::warn!(%error, "cannot start a thread for vaults' sockets; vaults are not shared"),
            )
            .ok()
    });
    runtime.as_ref().map(Runtime::handle)
}

/// Sleeps, even if the caller has no runtime with a timer.
pub(crate) async fn pause(time: Duration) {
    if let Some(runtime) = runtime() {
        let _ = runtime.spawn(tokio::time::sleep(time)).await;
    }
}
