//! Regular looks at the stream, and the conclusions from them.

use super::Follower;
use crate::fleet::asking::{self, AGAIN_AFTER};
use crate::fleet::guard::{self, Contradiction, Look};
use crate::fleet::{metrics, mirror};
use async_nats::jetstream::stream::Info;
use futures_util::future::BoxFuture;
use std::sync::atomic::Ordering;
use tokio::time::Instant;

/// Judgement on a look.
pub(super) enum Judged {
    /// All is as it was folded.
    Well(Box<Info>),
    /// Not as it should be, and not yet believed.
    Again(String),
    /// Nobody answered.
    Silent(String),
    /// Not to be followed any more.
    Stop(Contradiction),
}

/// Observations made while something is followed.
pub(super) struct Seen {
    /// Look at the stream itself.
    pub(super) look: Look,
    /// The mirror in this node's region, where it is not followed and could be.
    pub(super) mirror: Option<Info>,
}

impl Follower<'_> {
    /// Looks at the stream, and, unless it is by its mirror that the stream is followed, whether there is one that could be: one
    /// that is missing is made.
    pub(super) fn look_around(&mut self, by_mirror: bool) -> BoxFuture<'static, Seen> {
        let look = self.look();
        let (node, id, position) = (self.node.clone(), self.shard.id, self.position.clone());
        let here = mirror::region(id, &node.config).filter(|_| !by_mirror);
        Box::pin(async move {
            let look = look.await;
            let (Some(here), Look::Well(_)) = (here, &look) else {
                return Seen { look, mirror: None };
            };
            let mirror = async {
                mirror::ensure(&node.context, id, &node.config).await?;
                mirror::goes_on(&node.context, id, here, &position).await
            };
            let mirror = tokio::time::timeout(2 * node.config.request_timeout, mirror).await;
            let mirror = mirror.unwrap_or_else(|_| Err("no answer in time".into()));
            if let Err(reason) = &mirror {
                tracing::debug!(stream = %id.stream(), %reason, "the stream itself is followed");
            }
            let mirror = mirror.ok();
            Seen { look, mirror }
        })
    }

    /// Compares the stream with its fold. Ends within a bound, even if nobody answers.
    pub(super) fn look(&mut self) -> BoxFuture<'static, Look> {
        self.looks_on = self.node.connection();
        let (node, id, position) = (self.node.clone(), self.shard.id, self.position.clone());
        Box::pin(async move {
            if let Err(reason) = node.connected() {
                return Look::Unknown(reason);
            }
            node.hear_others().await;
            // Two questions.
            let within = 2 * node.config.request_timeout;
            let answered = |look: &Look| !matches!(look, Look::Unknown(_));
            asking::again(AGAIN_AFTER, within, answered, || {
                guard::look(&node.context, id, &position, |stream| node.peers.furthest(id, stream))
            })
            .await
        })
    }

    /// Judges a look at the stream. A contradiction is believed when it has stood for a while: a server that was cut
    /// off from the others answers from its own copy until it notices.
    pub(super) fn judge(&mut self, look: Look) -> Judged {
        match look {
            Look::Well(info) => {
                self.suspected = None;
                self.answers = true;
                self.count_copies(guard::copies_behind(&info));
                self.shard.looked_on.store(self.looks_on, Ordering::Release);
                self.resume();
                Judged::Well(info)
            }
            Look::Unknown(reason) => {
                if self.answers {
                    tracing::warn!(shard = %self.shard.label, %reason, "the stream does not answer");
                }
                self.silent();
                Judged::Silent(reason)
            }
            Look::Contradicts(contradiction) => {
                let same = |suspected: &&(Contradiction, Instant)| {
                    std::mem::discriminant(&suspected.0) == std::mem::discriminant(&contradiction)
                };
                let since = match self.suspected.as_ref().filter(same) {
                    Some((_, since)) => *since,
                    None => {
                        tracing::warn!(shard = %self.shard.label, %contradiction, "looking again before this is believed");
                        Instant::now()
                    }
                };
                if contradiction.is_of_stream() {
                    // Nothing is added to what may not be the stream.
                    self.shard
                        .check(Some(format!("{contradiction}; it is looked at again")));
                }
                if since.elapsed() >= self.node.config.alarm_after {
                    return Judged::Stop(contradiction);
                }
                self.suspected = Some((contradiction, since));
                Judged::Again("the stream contradicts what was folded; looking again".into())
            }
        }
    }

    /// The stream matches the replica: appends are taken, if they were not.
    fn resume(&self) {
        if self.checked && self.shard.checked().is_err() {
            tracing::info!(shard = %self.shard.label, "the stream is what it must be: appends are taken");
            self.shard.resume();
            self.node.ask_sync.notify_one();
        }
    }

    /// Tells how many copies were behind in this look and in the one before: one look alone may have come while a server
    /// began.
    fn count_copies(&mut self, behind: usize) {
        let told = behind.min(self.copies_behind);
        self.copies_behind = behind;
        metrics::copies_behind(&self.shard.label, told);
        let before = std::mem::replace(&mut self.shard.health.lock().copies_behind, told);
        if told > before {
            tracing::warn!(
                shard = %self.shard.label,
                copies = told,
                "copies of the stream are missing or far behind: appends rest on the others"
            );
        }
    }
}

/// Waits for the result of a look under way; for ever, if there is none.
pub(super) async fn look_done(looking: &mut Option<BoxFuture<'static, Seen>>) -> Seen {
    let seen = match looking {
        Some(look) => look.await,
        None => std::future::pending().await,
    };
    *looking = None;
    seen
}
