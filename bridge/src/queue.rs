//! What waits for a link to read, bounded in messages and bytes.

use bytes::Bytes;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_stream::Stream;
use tonic::Status;

/// The link is gone.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gone;

/// The bridge's end.
#[derive(Clone, Debug)]
pub(crate) struct Queue {
    items: mpsc::Sender<Item>,
    room: Arc<Semaphore>,
    room_bytes: usize,
}

#[derive(Debug)]
enum Item {
    Message(Bytes, OwnedSemaphorePermit),
    End(Status),
}

/// The link's end: the response stream of the call.
#[derive(Debug)]
pub(crate) struct Outbound {
    items: mpsc::Receiver<Item>,
    ended: bool,
    /// Says that nobody reads any more.
    _gone: tokio_util::sync::DropGuard,
}

pub(crate) fn queue(messages: usize, bytes: usize, gone: tokio_util::sync::DropGuard) -> (Queue, Outbound) {
    let (sender, items) = mpsc::channel(messages);
    let queue = Queue {
        items: sender,
        room: Arc::new(Semaphore::new(bytes)),
        room_bytes: bytes,
    };
    (
        queue,
        Outbound {
            items,
            ended: false,
            _gone: gone,
        },
    )
}

impl Queue {
    fn permits(&self, message: &Bytes) -> u32 {
        u32::try_from(message.len().min(self.room_bytes)).unwrap_or(u32::MAX)
    }

    /// Waits for room.
    pub(crate) async fn send(&self, message: Bytes) -> Result<(), Gone> {
        let permits = self.permits(&message);
        let room = Arc::clone(&self.room)
            .acquire_many_owned(permits)
            .await
            .map_err(|_| Gone)?;
        self.items.send(Item::Message(message, room)).await.map_err(|_| Gone)
    }

    /// Gives `false` where there is no room.
    pub(crate) fn try_send(&self, message: Bytes) -> Result<bool, Gone> {
        let permits = self.permits(&message);
        let Ok(room) = Arc::clone(&self.room).try_acquire_many_owned(permits) else {
            return if self.items.is_closed() { Err(Gone) } else { Ok(false) };
        };
        match self.items.try_send(Item::Message(message, room)) {
            Ok(()) => Ok(true),
            Err(TrySendError::Full(_)) => Ok(false),
            Err(TrySendError::Closed(_)) => Err(Gone),
        }
    }

    /// Ends the link with a status, behind what waits; at once where the queue is full.
    pub(crate) fn end(&self, status: Status) {
        let _ = self.items.try_send(Item::End(status));
    }
}

impl Stream for Outbound {
    type Item = Result<Bytes, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ended {
            return Poll::Ready(None);
        }
        self.items.poll_recv(context).map(|item| match item {
            Some(Item::Message(message, _room)) => Some(Ok(message)),
            Some(Item::End(status)) => {
                self.ended = true;
                Some(Err(status))
            }
            // Whoever had the other end is gone without a word. A stream that ends well tells a client that all is said, and a
            // SLIM client then never comes back.
            None => {
                self.ended = true;
                Some(Err(Status::unavailable("the bridge has ended the link")))
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio_stream::StreamExt as _;
    use tokio_util::sync::CancellationToken;

    fn pair() -> (Queue, Outbound) {
        queue(2, 1_024, CancellationToken::new().drop_guard())
    }

    #[tokio::test]
    async fn a_link_that_ends_says_so_however_it_ends() {
        let (queue, mut outbound) = pair();
        queue.send(Bytes::from_static(b"one")).await.expect("sent");
        drop(queue);
        assert!(outbound.next().await.expect("a message").is_ok());
        let end = outbound.next().await.expect("an end").expect_err("a status");
        assert_eq!(end.code(), tonic::Code::Unavailable);
        assert!(outbound.next().await.is_none());

        // A full queue has no place for the status.
        let (queue, mut outbound) = pair();
        for _ in 0..2 {
            queue.send(Bytes::from_static(b"one")).await.expect("sent");
        }
        queue.end(Status::resource_exhausted("too slow"));
        drop(queue);
        let ends: Vec<_> = (&mut outbound).collect().await;
        assert!(ends.len() == 3 && ends[2].is_err(), "{ends:?}");

        let (queue, mut outbound) = pair();
        queue.end(Status::resource_exhausted("too many"));
        drop(queue);
        let end = outbound.next().await.expect("an end").expect_err("a status");
        assert_eq!(end.code(), tonic::Code::ResourceExhausted);
        assert!(outbound.next().await.is_none());
    }
}
