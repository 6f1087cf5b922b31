//! One process has a vault open; others work through it.
//!
//! A vault has one owner: the process that holds `<vault>.lock`. It opens a Unix socket beside the vault, `<vault>.sock`,
//! and does for other processes of the same user what their [`Agent`](crate::agent::Agent) and
//! [`Channel`](crate::channel::Channel) are asked to do. So a command works beside a running agent, with the same answers.
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
//! - **Order.** Requests of one guest begin in the order in which they were sent. An answer that names sent frames goes out
//!   before what becomes of them.
//! - **No guest blocks another.** A request takes memory in its guest, not a place in a queue, until the owner reads it.
//!   Long waits do not count against the requests that may run at once. A guest that reads or writes too slowly is
//!   disconnected.
//! - **Waits.** An owner says why waits that need a session cannot end well, and that they can again. A guest knows it before
//!   it has the answer to a request that changed it.
//! - **The end.** An owner that closes tells its guests, refuses new requests, ends waits, and finishes the calls in flight;
//!   each guest says that it sends no more. Within a deadline; then the owner removes the socket, and only then releases the
//!   lock. A guest's call ends with
//!   [`AgentError::OwnerGone`](crate::agent::AgentError::OwnerGone), which says whether it may have been done.
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
//! Before the proof a frame has at most 1 KiB; after it 128 MiB, of which an owner takes 256 MiB at once from all guests.
//! An unknown operation fails by itself; an unknown event is skipped.

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

/// Where sockets are served, in a thread of the process's own: a guest is answered whatever the application's runtime is
/// busy with, whether it has I/O, and after it has ended. Made when it is first needed; every agent ends its own tasks.
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

/// Waits, whether or not the caller has a runtime with a timer.
pub(crate) async fn pause(time: Duration) {
    if let Some(runtime) = runtime() {
        let _ = runtime.spawn(tokio::time::sleep(time)).await;
    }
}
