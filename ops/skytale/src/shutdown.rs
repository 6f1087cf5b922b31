//! Ctrl-C and SIGTERM: stop, in order, with a deadline.

use crate::output::{Context, Exit, Failure, Outcome};
use skytale_proto::Code;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Maximum time for a server to drain, sync and close.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// A signal so soon after the first is the same one: a wrapper may send it to the process and to its group.
const SAME_SIGNAL: Duration = Duration::from_millis(500);

const NONE: u8 = 0;
const INTERRUPT: u8 = 1;
const TERMINATE: u8 = 2;

/// Says when to stop. Clones say it together.
#[derive(Clone, Debug)]
pub(crate) struct Shutdown {
    token: CancellationToken,
    signal: Arc<AtomicU8>,
}

impl Shutdown {
    /// Listens to SIGINT and SIGTERM, from now on. A second signal, later, ends the process at once.
    pub(crate) fn listen() -> Outcome<Self> {
        let listening = |kind| signal(kind).failing(Code::Environment, || "cannot listen to signals".into());
        let (mut interrupt, mut terminate) = (listening(SignalKind::interrupt())?, listening(SignalKind::terminate())?);
        let shutdown = Self {
            token: CancellationToken::new(),
            signal: Arc::new(AtomicU8::new(NONE)),
        };
        let told = shutdown.clone();
        // Lives as long as the runtime, which aborts it when the command ends: it holds nothing.
        tokio::spawn(async move {
            let mut first = None;
            loop {
                let which = tokio::select! {
                    _ = interrupt.recv() => INTERRUPT,
                    _ = terminate.recv() => TERMINATE,
                };
                let since = first.get_or_insert_with(Instant::now).elapsed();
                if told.token.is_cancelled() {
                    if since >= SAME_SIGNAL {
                        std::process::exit(i32::from(exit(which).code()));
                    }
                    continue;
                }
                told.signal.store(which, Ordering::Relaxed);
                told.token.cancel();
            }
        });
        Ok(shutdown)
    }

    /// Resolves when it is time to stop.
    pub(crate) async fn requested(&self) {
        self.token.cancelled().await;
    }

    /// Does something that is given up when a signal comes.
    pub(crate) async fn unless<T>(&self, work: impl Future<Output = Outcome<T>>) -> Outcome<T> {
        tokio::select! {
            done = work => done,
            () = self.token.cancelled() => Err(Failure::interrupted(exit(self.signal.load(Ordering::Relaxed)))),
        }
    }
}

const fn exit(signal: u8) -> Exit {
    if signal == TERMINATE {
        Exit::Terminated
    } else {
        Exit::Interrupted
    }
}

/// Waits for `closing`, but not longer than [`DEADLINE`].
pub(crate) async fn within_deadline<T>(what: &str, closing: impl Future<Output = T>) -> Outcome<T> {
    tokio::time::timeout(DEADLINE, closing).await.map_err(|_| {
        Failure::new(
            Code::Environment,
            format!("{what} did not stop within {} s", DEADLINE.as_secs()),
        )
        .help("Acknowledged messages are durable; the process ends now.")
    })
}
