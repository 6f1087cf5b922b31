//! One connection through a link.

use crate::link::{Counts, Flow, State, reset};
use crate::way::{Ended, Way, pass};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Maximum time to reach a target, once nobody needs it any more.
const DIALS_FOR: Duration = Duration::from_secs(1);

/// Target of connections, and the owner of them.
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    /// Bytes that the first ones of the dialling side must contain.
    pub(crate) greeting: Option<Arc<[u8]>>,
}

/// Carries a connection until both sides have ended it, one has reset it, or the link ends, or resets the connections
/// from when it had done so `born` times.
pub(crate) async fn carry(
    mut near: TcpStream,
    to: &Target,
    born: u64,
    state: watch::Receiver<State>,
    counts: &Counts,
    ended: &CancellationToken,
) {
    let over = over(state.clone(), born, ended);
    tokio::pin!(over);
    tokio::select! {
        biased;
        () = &mut over => return reset(near),
        () = passable(state.clone()) => {}
    }
    let dial = TcpStream::connect(to.address);
    tokio::pin!(dial);
    let dialled = tokio::select! {
        biased;
        dialled = &mut dial => dialled,
        () = &mut over => {
            // The target may have accepted already, and gets a reset as well.
            if let Ok(Ok(far)) = timeout(DIALS_FOR, dial).await {
                reset(far);
            }
            return reset(near);
        }
    };
    let Ok(mut far) = dialled else { return reset(near) };
    // Small pieces are carried as small pieces.
    let _ = (near.set_nodelay(true), far.set_nodelay(true));
    let orderly = tokio::select! {
        biased;
        () = &mut over => false,
        ended = both_ways(&mut near, &mut far, to, &state, counts) => ended.is_ok(),
    };
    if !orderly {
        reset(near);
        reset(far);
    }
}

async fn both_ways(
    near: &mut TcpStream,
    far: &mut TcpStream,
    to: &Target,
    state: &watch::Receiver<State>,
    counts: &Counts,
) -> Result<(), Ended> {
    let (mut near_in, mut near_out) = near.split();
    let (mut far_in, mut far_out) = far.split();
    let requests = Way {
        flow: |state| state.requests,
        delay: |state| state.requests_delay,
        bytes: &counts.request_bytes,
        greeting: to.greeting.as_deref(),
    };
    let answers = Way {
        flow: |state| state.answers,
        delay: |state| state.answers_delay,
        bytes: &counts.answer_bytes,
        greeting: None,
    };
    tokio::try_join!(
        pass(&requests, &mut near_in, &mut far_out, state.clone()),
        pass(&answers, &mut far_in, &mut near_out, state.clone()),
    )?;
    Ok(())
}

/// Waits until a new connection may be carried. Meanwhile its dialler waits, as for packets that nobody answers.
async fn passable(mut state: watch::Receiver<State>) {
    if state.wait_for(|state| !state.is_closed()).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Waits until the link resets the connections that there were when it had reset them so often, or ends.
async fn over(mut state: watch::Receiver<State>, born: u64, ended: &CancellationToken) {
    tokio::select! {
        () = ended.cancelled() => {}
        // The link is gone: so it ends.
        _ = state.wait_for(|state| state.breaks != born) => {}
    }
}

/// Waits until a way is in another state than this one.
pub(crate) async fn changed(state: &mut watch::Receiver<State>, flow: fn(&State) -> Flow, from: Flow) {
    if state.wait_for(|state| flow(state) != from).await.is_err() {
        std::future::pending::<()>().await;
    }
}
