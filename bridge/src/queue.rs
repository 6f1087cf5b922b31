//! Queue of the messages that wait for a link to read, bounded in messages and bytes.

use crate::rate::Place;
use bytes::Bytes;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_stream::Stream;
use tokio_util::sync::{CancellationToken, DropGuard};
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
    stalled: Duration,
    /// Ends the link.
    cancel: CancellationToken,
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
    _gone: DropGuard,
    /// A link takes its place as long as something of it waits here.
    _place: Option<Arc<Place>>,
}

/// Bounds of a queue.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) messages: usize,
    pub(crate) bytes: usize,
    /// Maximum time for which it may be full before the link ends.
    pub(crate) stalled: Duration,
}

/// A queue of a link that `cancel` ends, and that has a place among its account's.
pub(crate) fn queue(bounds: Bounds, cancel: &CancellationToken, place: Option<Arc<Place>>) -> (Queue, Outbound) {
    let (sender, items) = mpsc::channel(bounds.messages);
    let queue = Queue {
        items: sender,
        room: Arc::new(Semaphore::new(bounds.bytes)),
        room_bytes: bounds.bytes,
        stalled: bounds.stalled,
        cancel: cancel.clone(),
    };
    let outbound = Outbound {
        items,
        ended: false,
        _gone: cancel.clone().drop_guard(),
        _place: place,
    };
    (queue, outbound)
}

impl Queue {
    fn permits(&self, bytes: usize) -> u32 {
        u32::try_from(bytes.min(self.room_bytes)).unwrap_or(u32::MAX)
    }

    /// Waits for room. A link that reads nothing meanwhile ends: its messages are others' too.
    pub(crate) async fn send(&self, message: Bytes) -> Result<(), Gone> {
        let permits = self.permits(message.len());
        let sent = timeout(self.stalled, async {
            let room = Arc::clone(&self.room)
                .acquire_many_owned(permits)
                .await
                .map_err(|_| Gone)?;
            self.items.send(Item::Message(message, room)).await.map_err(|_| Gone)
        });
        sent.await.unwrap_or_else(|_| {
            tracing::info!("a link has read nothing for too long");
            self.cancel.cancel();
            Err(Gone)
        })
    }

    /// Gives `false` where there is no room; the message, of so many bytes, is made only where there is.
    pub(crate) fn try_send(&self, bytes: usize, message: impl FnOnce() -> Bytes) -> Result<bool, Gone> {
        let (Ok(room), Ok(place)) = (
            Arc::clone(&self.room).try_acquire_many_owned(self.permits(bytes)),
            self.items.try_reserve(),
        ) else {
            return if self.items.is_closed() { Err(Gone) } else { Ok(false) };
        };
        place.send(Item::Message(message(), room));
        Ok(true)
    }

    /// Ends the link with a status, behind the waiting messages; at once where the queue is full.
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
            // The other end is gone without a word. A stream that ends well tells a client that all is said, and a SLIM
            // client then never comes back.
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

    fn pair() -> (Queue, Outbound) {
        let bounds = Bounds {
            messages: 2,
            bytes: 1_024,
            stalled: Duration::from_secs(60),
        };
        queue(bounds, &CancellationToken::new(), None)
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

    #[tokio::test(start_paused = true)]
    async fn a_link_that_reads_nothing_for_long_ends() {
        let (queue, outbound) = pair();
        for _ in 0..2 {
            assert!(queue.try_send(3, || Bytes::from_static(b"one")).expect("open"));
        }
        assert!(!queue.try_send(3, || panic!("not made")).expect("open"));
        assert!(queue.send(Bytes::from_static(b"one")).await.is_err());
        assert!(queue.cancel.is_cancelled());
        drop(outbound);
    }
}
