//! Receiver of events.

use super::Event;
use futures_core::Stream;
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio_util::sync::ReusableBoxFuture;

/// Receives events. Its buffer is bounded: a receiver that lags loses the oldest events and gets their number
/// ([`Event::Lagged`]).
pub struct Events {
    /// `None` while a receive is in progress.
    receiver: Option<Receiver<Event>>,
    waiting: Option<ReusableBoxFuture<'static, Come>>,
}

/// The receiver, returned with its result.
type Come = (Receiver<Event>, Result<Event, RecvError>);

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").finish_non_exhaustive()
    }
}

impl Events {
    pub(crate) const fn new(receiver: Receiver<Event>) -> Self {
        Self {
            receiver: Some(receiver),
            waiting: None,
        }
    }

    /// Waits for the next event; returns `None` once the agent is closed. Cancel-safe.
    pub async fn next(&mut self) -> Option<Event> {
        poll_fn(|cx| self.poll_event(cx)).await
    }

    pub(crate) fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        if let Some(mut receiver) = self.receiver.take() {
            let come = receiver.try_recv();
            if !matches!(come, Err(TryRecvError::Empty)) {
                self.receiver = Some(receiver);
                return Poll::Ready(match come {
                    Ok(event) => Some(event),
                    Err(TryRecvError::Lagged(missed)) => Some(Event::Lagged { missed }),
                    Err(TryRecvError::Empty | TryRecvError::Closed) => None,
                });
            }
            match &mut self.waiting {
                Some(waiting) => waiting.set(receive(receiver)),
                None => self.waiting = Some(ReusableBoxFuture::new(receive(receiver))),
            }
        }
        let Some(waiting) = &mut self.waiting else {
            return Poll::Ready(None);
        };
        let (receiver, come) = ready!(waiting.poll(cx));
        self.receiver = Some(receiver);
        Poll::Ready(match come {
            Ok(event) => Some(event),
            Err(RecvError::Lagged(missed)) => Some(Event::Lagged { missed }),
            Err(RecvError::Closed) => None,
        })
    }
}

async fn receive(mut receiver: Receiver<Event>) -> Come {
    let come = receiver.recv().await;
    (receiver, come)
}

/// Ends when the agent is closed.
impl Stream for Events {
    type Item = Event;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        self.poll_event(cx)
    }
}
