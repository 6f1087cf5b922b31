//! One way of one connection: bytes that are read wait until they are due, and are then delivered, held or lost.

use crate::carry::changed;
use crate::link::{Flow, State};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

/// Bytes read at once, at most.
pub const CHUNK_BYTES_MAX: usize = 16 * 1024;
/// Chunks on their way, at most; beyond them nothing is read, and the sender waits.
pub const CHUNKS_MAX: usize = 256;

/// Direction of a connection's bytes.
pub(crate) struct Way<'a> {
    pub(crate) flow: fn(&State) -> Flow,
    pub(crate) delay: fn(&State) -> Duration,
    pub(crate) bytes: &'a AtomicU64,
    /// Bytes that the first ones must contain.
    pub(crate) greeting: Option<&'a [u8]>,
}

/// Reason why a connection is over before both its sides have ended it.
#[derive(Debug)]
pub(crate) enum Ended {
    /// A side has reset it, and the other must see that.
    Reset,
}

/// Bytes on their way, and the time at which they arrive.
struct Due {
    at: Instant,
    what: What,
}

enum What {
    Bytes(Box<[u8]>),
    End,
    Reset,
}

/// Carries one way, until its end is delivered. Where its end is lost it does not return.
pub(crate) async fn pass(
    way: &Way<'_>,
    from: &mut ReadHalf<'_>,
    to: &mut WriteHalf<'_>,
    state: watch::Receiver<State>,
) -> Result<(), Ended> {
    let (sender, receiver) = mpsc::channel(CHUNKS_MAX);
    let read = read_all(way, from, state.clone(), sender);
    let ((), delivered) = tokio::join!(read, deliver_all(way, receiver, to, state));
    delivered
}

async fn read_all(way: &Way<'_>, from: &mut ReadHalf<'_>, state: watch::Receiver<State>, sender: mpsc::Sender<Due>) {
    let mut buffer = vec![0; CHUNK_BYTES_MAX];
    let mut greeting = way.greeting;
    loop {
        let what = match from.read(&mut buffer).await {
            Ok(0) => What::End,
            Ok(count)
                if !greeting
                    .take()
                    .is_none_or(|greeting| contains(&buffer[..count], greeting)) =>
            {
                What::Reset
            }
            Ok(count) => What::Bytes(buffer[..count].into()),
            Err(_) => What::Reset,
        };
        let over = !matches!(what, What::Bytes(_));
        let at = Instant::now() + (way.delay)(&state.borrow());
        if sender.send(Due { at, what }).await.is_err() || over {
            return;
        }
    }
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    part.is_empty() || bytes.windows(part.len()).any(|window| window == part)
}

async fn deliver_all(
    way: &Way<'_>,
    mut receiver: mpsc::Receiver<Due>,
    to: &mut WriteHalf<'_>,
    mut state: watch::Receiver<State>,
) -> Result<(), Ended> {
    // Whether the receiving side takes no more: then only the other way can still end in order.
    let mut deaf = false;
    while let Some(Due { at, what }) = receiver.recv().await {
        tokio::time::sleep_until(at).await;
        match what {
            What::Bytes(bytes) if !deaf => deaf = deliver(way, &bytes, to, &mut state).await.is_err(),
            What::Bytes(_) => {}
            What::End if arrives(way, &mut state).await => {
                let _ = to.shutdown().await;
                return Ok(());
            }
            What::Reset if arrives(way, &mut state).await => return Err(Ended::Reset),
            // Nobody learns; the connection ends with the cut.
            What::End | What::Reset => return std::future::pending().await,
        }
    }
    Ok(())
}

/// Waits while the way is held; whether bytes that are due arrive then.
async fn arrives(way: &Way<'_>, state: &mut watch::Receiver<State>) -> bool {
    loop {
        let flow = (way.flow)(&state.borrow());
        match flow {
            Flow::Open => return true,
            Flow::Lost => return false,
            Flow::Held => changed(state, way.flow, Flow::Held).await,
        }
    }
}

/// Writes bytes, or what of them is written before the way is cut.
async fn deliver(
    way: &Way<'_>,
    mut bytes: &[u8],
    to: &mut WriteHalf<'_>,
    state: &mut watch::Receiver<State>,
) -> io::Result<()> {
    while !bytes.is_empty() && arrives(way, state).await {
        tokio::select! {
            written = to.write(bytes) => {
                let written = written?;
                if written == 0 {
                    return Err(io::ErrorKind::WriteZero.into());
                }
                way.bytes.fetch_add(written as u64, Ordering::Relaxed);
                bytes = bytes.get(written..).unwrap_or_default();
            }
            () = changed(state, way.flow, Flow::Open) => {}
        }
    }
    Ok(())
}
