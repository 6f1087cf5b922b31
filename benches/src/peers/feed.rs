//! Parts that sessions and subscriptions of all peers share.

use parking_lot::Mutex;
use skytale_load::target::{Failed, Read, Reading};
use skytale_proto::{Frame, Offset};
use std::future::Future;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Batches that a subscription reads ahead of its reader.
const BATCHES_AHEAD: usize = 2;

/// A subscription that a task reads. Dropping it ends the task.
#[derive(Debug)]
pub struct Feed {
    batches: mpsc::Receiver<Read>,
    failure: Failure,
    task: JoinHandle<()>,
}

/// Sink for the reads of a subscription's task.
#[derive(Debug)]
pub(super) struct Sink {
    batches: mpsc::Sender<Read>,
    follow: bool,
    /// Entries up to the head of the time of subscription that were not put yet; `None` when the reader is past it.
    missed: Option<usize>,
}

/// Nobody reads any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Over;

impl Sink {
    /// Says how many entries there are up to the head: before the first entry.
    pub(super) async fn missed(&mut self, count: u64) -> Result<(), Over> {
        self.missed = Some(usize::try_from(count).unwrap_or(usize::MAX));
        self.caught_up().await
    }

    async fn caught_up(&mut self) -> Result<(), Over> {
        if self.missed.take_if(|missed| *missed == 0).is_some() {
            self.send(Read::CaughtUp).await?;
            if !self.follow {
                return Err(Over);
            }
        }
        Ok(())
    }

    /// Puts the next entries.
    pub(super) async fn put(&mut self, mut entries: Vec<(Offset, Frame)>) -> Result<(), Over> {
        if let Some(missed) = self.missed {
            let newer = entries.split_off(missed.min(entries.len()));
            self.missed = Some(missed - entries.len());
            self.entries(entries).await?;
            self.caught_up().await?;
            entries = newer;
        }
        self.entries(entries).await
    }

    async fn entries(&self, entries: Vec<(Offset, Frame)>) -> Result<(), Over> {
        match entries.is_empty() {
            true => Ok(()),
            false => self.send(Read::Entries(entries)).await,
        }
    }

    async fn send(&self, read: Read) -> Result<(), Over> {
        self.batches.send(read).await.map_err(|_| Over)
    }
}

impl Feed {
    /// A task that reads until nobody takes it any more, or it fails; then the session does.
    pub(super) fn start<Task>(failure: &Failure, follow: bool, read: impl FnOnce(Sink) -> Task) -> Self
    where
        Task: Future<Output = Result<Over, Failed>> + Send + 'static,
    {
        let (sender, batches) = mpsc::channel(BATCHES_AHEAD);
        let last = sender.clone();
        let reading = read(Sink {
            batches: sender,
            follow,
            missed: None,
        });
        let failed = failure.clone();
        let task = tokio::spawn(async move {
            if let Err(error) = reading.await {
                failed.set(error);
            }
            // The reader notices the end when the reason is there.
            drop(last);
        });
        Self {
            batches,
            failure: failure.clone(),
            task,
        }
    }
}

impl Reading for Feed {
    async fn next(&mut self) -> Result<Option<Read>, Failed> {
        match self.batches.recv().await {
            Some(read) => Ok(Some(read)),
            None => self.failure.get().map_or(Ok(None), Err),
        }
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Reason why a session is over, as soon as it is. Clones are the same session's.
#[derive(Clone, Debug, Default)]
pub(super) struct Failure {
    is_over: CancellationToken,
    reason: Arc<Mutex<Option<Failed>>>,
}

impl Failure {
    pub(super) fn set(&self, failed: Failed) {
        self.reason.lock().get_or_insert(failed);
        self.is_over.cancel();
    }

    pub(super) fn get(&self) -> Option<Failed> {
        self.reason.lock().clone()
    }

    /// Resolves when the session is over.
    pub(super) async fn wait(&self) -> Failed {
        self.is_over.cancelled().await;
        self.get().unwrap_or_else(|| Failed::lost("the session is over"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use skytale_proto::{AgentId, ChannelId, Detail, FrameId, Header};

    fn entries(from: u64, to: u64) -> Vec<(Offset, Frame)> {
        let header = || Header {
            log: ChannelId::from_bytes([7; 16]).log(),
            id: FrameId::generate(),
            author: AgentId::from_bytes([1; 32]),
            parent: Offset::FIRST,
            detail: Detail::Message,
        };
        let frame = || Frame::new(header(), b"body".as_slice()).unwrap();
        (from..=to).map(|offset| (Offset::new(offset), frame())).collect()
    }

    /// Returns the reads of a reader, as the last offset of each batch, 0 where it has caught up.
    async fn read(follow: bool, missed: u64, batches: Vec<Vec<(Offset, Frame)>>) -> Vec<u64> {
        let mut feed = Feed::start(&Failure::default(), follow, |mut sink| async move {
            if sink.missed(missed).await.is_err() {
                return Ok(Over);
            }
            for batch in batches {
                if sink.put(batch).await.is_err() {
                    break;
                }
            }
            Ok(Over)
        });
        let mut all = Vec::new();
        while let Some(read) = feed.next().await.unwrap() {
            all.push(match read {
                Read::Entries(entries) => entries.last().unwrap().0.get(),
                Read::CaughtUp => 0,
            });
        }
        all
    }

    #[tokio::test]
    async fn a_reader_has_caught_up_once_at_the_head_of_its_subscription() {
        assert_eq!(read(true, 0, vec![entries(1, 2)]).await, [0, 2]);
        assert_eq!(read(true, 2, vec![entries(1, 2), entries(3, 4)]).await, [2, 0, 4]);
        assert_eq!(read(true, 2, vec![entries(1, 3), entries(4, 4)]).await, [2, 0, 3, 4]);
        assert_eq!(read(false, 2, vec![entries(1, 3), entries(4, 4)]).await, [2, 0]);
        assert_eq!(read(true, 3, vec![entries(1, 2)]).await, [2]);
    }

    #[tokio::test]
    async fn what_a_subscription_fails_of_ends_its_session() {
        let failure = Failure::default();
        let mut feed = Feed::start(&failure, true, |_sink| async { Err(Failed::lost("gone")) });
        assert_eq!(feed.next().await.unwrap_err().problem, "gone");
        assert_eq!(failure.wait().await.problem, "gone");
    }
}
