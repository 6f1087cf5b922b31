//! Waits until this node is as far as its shard's stream: before it says that a cursor or a log is not there.
//!
//! Two questions lead to how far that is. The cheap one asks for the stream's state, and takes the answer of a leader
//! that has heard from a majority of the stream's servers just now. That leader may still have been replaced within the
//! last second. So before a cursor is called wrong, which is final for its holder, the dear one is asked: a mark is
//! written, which only a leader with a majority behind it can have acknowledged. All that any node had acknowledged
//! before is earlier in the stream.
//!
//! Callers share answers: one question of a kind is under way at a time, and its answer is good for every caller that
//! came before it was asked. Marks are asked for less and less often by those who retry over and over.

use super::guard::is_in_contact;
use super::mark::Mark;
use super::metrics;
use super::node::{Node, Shard};
use super::streams::{self, Found};
use crate::StoreError;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::Instant;

/// The pause from one mark to the next, to begin with.
const MARK_FIRST: Duration = Duration::from_millis(50);
/// The longest such pause. A caller that does not ask for twice as long starts over.
const MARK_LONGEST: Duration = Duration::from_secs(10);

/// A question that callers share.
pub(super) struct Round<T> {
    last: Mutex<Option<Told<T>>>,
}

/// The last answer.
struct Told<T> {
    /// Time at which the question was asked.
    begun: Instant,
    /// Pause for which that answer was awaited.
    pause: Duration,
    answer: T,
}

impl<T: Clone> Round<T> {
    pub(super) const fn new() -> Self {
        Self {
            last: Mutex::const_new(None),
        }
    }

    /// The answer to a question that was asked after this was called.
    async fn ask<F: Future<Output = T>>(&self, first: Duration, longest: Duration, question: impl FnOnce() -> F) -> T {
        let came = Instant::now();
        let mut last = self.last.lock().await;
        let mut pause = Duration::ZERO;
        if let Some(told) = &*last {
            if told.begun > came {
                return told.answer.clone();
            }
            if told.begun.elapsed() < 2 * longest {
                pause = (told.pause * 2).clamp(first, longest);
                tokio::time::sleep_until(told.begun + pause).await;
            }
        }
        let begun = Instant::now();
        let answer = question().await;
        *last = Some(Told {
            begun,
            pause,
            answer: answer.clone(),
        });
        answer
    }
}

impl Node {
    /// Waits until this node has folded all that the shard's stream held when this was called, as far as its leader knows.
    pub(super) async fn barrier(&self, shard: &Shard) -> Result<(), StoreError> {
        let end = shard.ends.ask(Duration::ZERO, Duration::ZERO, || self.end_of(shard));
        self.folded_up_to(shard, end).await
    }

    /// Waits until this node has folded all that any node had acknowledged when this was called.
    pub(super) async fn confirm(&self, shard: &Shard) -> Result<(), StoreError> {
        let mark = shard.marks.ask(MARK_FIRST, MARK_LONGEST, || self.mark(shard));
        self.folded_up_to(shard, mark).await
    }

    async fn folded_up_to(
        &self,
        shard: &Shard,
        end: impl Future<Output = Result<u64, StoreError>>,
    ) -> Result<(), StoreError> {
        let all = async {
            let last = end.await?;
            let mut followed = shard.followed.subscribe();
            let there = followed.wait_for(|followed| *followed >= last).await;
            there.map(drop).map_err(|_| self.why_ended())
        };
        tokio::select! {
            done = tokio::time::timeout(self.config.append_timeout, all) => {
                done.unwrap_or_else(|_| Err(shard.catching_up()))
            }
            () = self.ended.cancelled() => Err(self.why_ended()),
        }
    }

    async fn end_of(&self, shard: &Shard) -> Result<u64, StoreError> {
        self.connected().map_err(|reason| shard.unreachable(reason))?;
        match streams::find(&self.context, &shard.id.stream()).await {
            Ok(Found::There(info)) if is_in_contact(&info) => Ok(info.state.last_sequence),
            Ok(Found::There(_)) => Err(shard.catching_up()),
            Ok(Found::Missing) => Err(shard.unreachable("its stream is missing")),
            Err(error) => Err(shard.unreachable(error.to_string())),
        }
    }

    async fn mark(&self, shard: &Shard) -> Result<u64, StoreError> {
        let marked = async {
            self.connected()?;
            metrics::marked(&shard.label);
            Mark::Place.put(&self.client, shard.id, None).await
        };
        let marked = tokio::time::timeout(self.config.request_timeout, marked).await;
        marked
            .unwrap_or_else(|_| Err("no answer in time".into()))
            .map_err(|reason| {
                tracing::debug!(shard = %shard.label, %reason, "how far the stream goes is not known");
                shard.catching_up()
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    #[tokio::test(start_paused = true)]
    async fn callers_share_an_answer_that_was_asked_for_after_they_came() {
        let (round, asked) = (Arc::new(Round::new()), Arc::new(AtomicU64::new(0)));
        let mut callers = Vec::new();
        for _ in 0..100 {
            let (round, asked) = (round.clone(), asked.clone());
            callers.push(tokio::spawn(async move {
                let question = || async {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                    asked.fetch_add(1, Ordering::Relaxed)
                };
                round.ask(Duration::ZERO, Duration::ZERO, question).await
            }));
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        for (number, caller) in callers.into_iter().enumerate() {
            let answer = caller.await.expect("an answer");
            // The question that was under way when a caller came is not theirs.
            assert!(answer * 5 + 5 >= number as u64, "caller {number} has answer {answer}");
        }
        assert!(asked.load(Ordering::Relaxed) <= 25, "a question for several callers");
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_again_and_again_waits_longer_and_longer() {
        let round = Round::new();
        let begun = Instant::now();
        for _ in 0..20 {
            round.ask(MARK_FIRST, MARK_LONGEST, || async {}).await;
        }
        let paced = begun.elapsed();
        assert!(paced > 8 * MARK_LONGEST, "{paced:?}");
        tokio::time::sleep(3 * MARK_LONGEST).await;
        let begun = Instant::now();
        round.ask(MARK_FIRST, MARK_LONGEST, || async {}).await;
        assert_eq!(begun.elapsed(), Duration::ZERO, "and is forgotten when it stops");
    }
}
