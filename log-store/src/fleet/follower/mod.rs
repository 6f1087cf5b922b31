//! Follows a shard's stream: every message is folded into the replica, in its order, from where the replica is.

mod admit;
mod boundary;
mod bridge;
mod consumer;
mod intake;
mod judge;

use super::guard::{Contradiction, Look};
use super::health::Phase;
use super::metrics;
use super::mirror;
use super::node::{Node, Shard};
use super::peers::Place;
use super::shards::ShardId;
use crate::local::ShardPosition;
use async_nats::jetstream::stream::Info;
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use intake::{Arrived, Part, outcome_of};
use judge::{Judged, Seen, look_done};
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Messages folded at once, at most.
const FOLD_MESSAGES_MAX: usize = 512;
/// Parts on their way into the replica, at most: while one is synced, the next are folded.
const PARTS_MAX: usize = 4;
/// Maximum time for a mirror to report its position, before the follower does without it.
const MIRROR_ANSWERS_WITHIN: Duration = Duration::from_secs(2);
/// The pause before a follower starts over, to begin with.
const RESUME_FIRST: Duration = Duration::from_millis(50);
/// The longest such pause.
const RESUME_MAX: Duration = Duration::from_secs(1);

/// Start of a follower.
pub(super) struct Beginning {
    pub(super) position: ShardPosition,
    /// Messages that are known to repeat entries which this replica does not have.
    pub(super) repeats: BTreeSet<u64>,
    /// Bundles up to this message owe nothing: other nodes saw to them.
    pub(super) owes_after: u64,
    /// The stream matches this node's configuration.
    pub(super) checked: bool,
}

/// Reason why a stretch of following ended.
enum End {
    /// The node ends.
    Ended,
    /// To be tried again.
    Again(String),
    /// Never.
    Stop(Contradiction),
}

/// Follows a shard until the node ends.
pub(super) async fn follow_all(node: Arc<Node>, shard: ShardId, mut beginning: Beginning) {
    let Some(shard) = node.handles.get(&shard) else { return };
    let mut follower = Follower {
        node: &node,
        shard,
        recheck_to: beginning.position.sequence,
        repeated: std::mem::take(&mut beginning.position.repeated),
        position: beginning.position,
        repeats: beginning.repeats,
        owes_after: beginning.owes_after,
        target: None,
        suspected: None,
        home_ended: 0,
        avoid_mirror: false,
        stood_still: None,
        answers: true,
        copies_behind: 0,
        checked: beginning.checked,
        looks_on: 0,
        parts: VecDeque::new(),
    };
    let mut pause = RESUME_FIRST;
    loop {
        let before = follower.position.sequence;
        let end = tokio::select! {
            end = follower.stretch() => end,
            () = node.ended.cancelled() => End::Ended,
        };
        match end {
            End::Ended => break,
            End::Stop(contradiction) if contradiction.is_of_stream() => {
                shard.halt(&contradiction);
                tokio::select! {
                    () = tokio::time::sleep(RESUME_MAX) => {}
                    () = node.ended.cancelled() => break,
                }
            }
            End::Stop(contradiction) => {
                node.stop(shard, &contradiction);
                break;
            }
            End::Again(reason) => {
                tracing::debug!(shard = %shard.label, %reason, "the follower starts over");
                metrics::resumed(&shard.label);
                // Messages on their way into the replica get there: the position is that of the last one submitted.
                pause = if follower.position.sequence > before {
                    RESUME_FIRST
                } else {
                    pause
                };
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = node.ended.cancelled() => break,
                }
                pause = (pause * 2).min(RESUME_MAX);
            }
        }
    }
}

struct Follower<'a> {
    node: &'a Arc<Node>,
    shard: &'a Shard,
    /// The last message submitted.
    position: ShardPosition,
    /// Position up to which messages were folded before this process began: only Welcomes that they may owe are looked
    /// for.
    recheck_to: u64,
    repeats: BTreeSet<u64>,
    /// Messages since the last checkpoint that were duplicates of entries.
    repeated: Vec<u64>,
    /// End of the stream when it was last looked at, while a mirror of it was followed.
    home_ended: u64,
    /// The mirror does not keep up: the stream itself is followed.
    avoid_mirror: bool,
    /// Position of this node when something acknowledged did not come by the mirror.
    stood_still: Option<u64>,
    /// The stream itself answered when it was last asked.
    answers: bool,
    /// Copies of the stream that were missing or far behind when it was last looked at.
    copies_behind: usize,
    /// The stream matches this node's configuration.
    checked: bool,
    /// Connection to NATS on which the last look was begun.
    looks_on: u64,
    owes_after: u64,
    /// End of the stream when the node started.
    target: Option<u64>,
    /// A contradiction, and since when.
    suspected: Option<(Contradiction, Instant)>,
    /// Messages on their way into the replica, from either consumer.
    parts: VecDeque<Part>,
}

impl Follower<'_> {
    /// The message to go on with, of a stream that begins at `first`.
    fn next_of(&self, first: u64) -> u64 {
        let next = self.position.sequence + 1;
        if self.recheck_to == self.position.sequence {
            self.position.owed_from.clamp(first.clamp(1, next), next)
        } else {
            next
        }
    }

    /// Whether a mirror can be followed from here, and has all that was followed of the stream itself.
    fn keeps_up(&self, mirror: &Info, home: &Info) -> bool {
        let from = self.next_of(home.state.first_sequence);
        mirror.state.first_sequence.max(1) <= from && mirror.state.last_sequence >= *self.shard.followed.borrow()
    }

    /// The mirror in this node's region, where there is one that goes on from here and answers.
    async fn mirror(&self) -> Option<Info> {
        let here = mirror::region(self.shard.id, &self.node.config)?;
        let asked = mirror::goes_on(&self.node.context, self.shard.id, here, &self.position);
        tokio::time::timeout(MIRROR_ANSWERS_WITHIN, asked).await.ok()?.ok()
    }

    /// Follows for as long as the stream answers.
    async fn stretch(&mut self) -> End {
        if let Err(reason) = self.node.connected() {
            self.silent();
            return End::Again(reason);
        }
        if !self.checked {
            match self.admit().await {
                Ok(()) => self.checked = true,
                Err(End::Again(reason)) => {
                    self.silent();
                    self.shard.check(Some(reason.clone()));
                    return match self.mirror().await {
                        Some(copy) if self.may_follow_unchecked().await => self.follow(&copy, None).await,
                        _ => End::Again(reason),
                    };
                }
                Err(end) => return end,
            }
        }
        let look = self.look();
        let (look, copy) = tokio::join!(look, self.mirror());
        let info = match self.judge(look) {
            Judged::Well(info) => *info,
            Judged::Again(reason) => return End::Again(reason),
            Judged::Silent(reason) => match &copy {
                // The home region is cut off: its mirror has the messages that came out of it.
                Some(copy) => return self.follow(copy, None).await,
                None => return End::Again(reason),
            },
            Judged::Stop(contradiction) => return End::Stop(contradiction),
        };
        match copy {
            Some(copy) if !self.avoid_mirror => self.follow(&copy, Some(&info)).await,
            _ => self.follow(&info, Some(&info)).await,
        }
    }

    /// Follows a copy of the stream, or the stream itself where that is it or the copy cannot be followed from here. `home` is
    /// the stream itself, if it answers.
    async fn follow(&mut self, copy: &Info, home: Option<&Info>) -> End {
        let info = home.unwrap_or(copy);
        self.target.get_or_insert(info.state.last_sequence);
        let from = self.next_of(info.state.first_sequence);
        // The nearest copy, if it can be followed from here.
        let source = match home {
            _ if copy.state.first_sequence.max(1) <= from => copy.config.name.clone(),
            Some(_) => self.shard.id.stream(),
            None => return End::Again("the mirror does not hold what must be looked at again".into()),
        };
        self.home_ended = 0;
        let by_mirror = source != self.shard.id.stream();
        let made = self.consumer(&source, from, !by_mirror).await;
        let mut messages = match made {
            Ok(messages) => messages.ready_chunks(FOLD_MESSAGES_MAX),
            Err(End::Again(reason)) => {
                self.silent();
                return End::Again(reason);
            }
            Err(end) => return end,
        };
        // The mirror is given another chance the next time.
        self.avoid_mirror = false;
        metrics::follows_mirror(&self.shard.label, by_mirror);
        self.moved(*self.shard.followed.borrow(), Some(info.state.last_sequence));
        let mut looking: Option<BoxFuture<'static, Seen>> = None;
        let mut look_at = Instant::now() + self.node.config.verify_every;
        loop {
            tokio::select! {
                biased;
                outcome = outcome_of(&mut self.parts) => {
                    if let Err(end) = self.folded(outcome) {
                        return end;
                    }
                }
                Seen { look, mirror } = look_done(&mut looking) => {
                    let usual = self.node.config.verify_every;
                    let pause = if matches!(look, Look::Well(_)) { usual } else { usual.min(RESUME_MAX) };
                    look_at = Instant::now() + pause;
                    match self.judge(look) {
                        Judged::Well(info) => {
                            if !self.checked {
                                return End::Again("the stream answers, and is checked first".into());
                            }
                            let followed = *self.shard.followed.borrow();
                            self.moved(followed, Some(info.state.last_sequence));
                            if by_mirror && self.home_ended > followed {
                                self.avoid_mirror = true;
                                return End::Again("the mirror does not keep up".into());
                            }
                            self.home_ended = info.state.last_sequence;
                            if mirror.is_some_and(|mirror| self.keeps_up(&mirror, &info)) {
                                return End::Again("the mirror keeps up again".into());
                            }
                        }
                        Judged::Silent(_) => {}
                        // The next messages may be of another history.
                        Judged::Again(reason) => return End::Again(reason),
                        Judged::Stop(contradiction) => return End::Stop(contradiction),
                    }
                }
                () = self.shard.look.notified() => look_at = Instant::now(),
                () = self.shard.stalled.notified() => {
                    let at = self.position.sequence;
                    if *self.shard.acked.borrow() > at {
                        // A mirror that moves at all only is behind. One that does not has lost its way to the stream, and
                        // servers look for another after ten seconds.
                        if !by_mirror || self.stood_still == Some(at) {
                            self.avoid_mirror = by_mirror;
                            return End::Again("what the stream acknowledged does not come".into());
                        }
                        self.stood_still = Some(at);
                    }
                }
                () = tokio::time::sleep_until(look_at), if looking.is_none() => {
                    looking = Some(self.look_around(by_mirror));
                }
                chunk = messages.next(), if self.parts.len() < PARTS_MAX => {
                    let Some(chunk) = chunk else { return End::Again("the consumer ended".into()) };
                    if let Err(end) = self.chunk(chunk.into_iter().map(Arrived::delivered)).await {
                        return end;
                    }
                }
            }
        }
    }

    /// Notes where the shard is, and where the stream ends.
    fn moved(&self, followed: u64, last: Option<u64>) {
        *self.shard.place.lock() = Place {
            stream: self.position.stream,
            sequence: followed,
        };
        let mut health = self.shard.health.lock();
        health.position = followed;
        health.last = last.unwrap_or(health.last).max(health.last).max(followed);
        if self.target.is_some_and(|target| followed >= target) {
            health.ready = true;
        }
        health.phase = if health.phase == Phase::Halted {
            Phase::Halted
        } else if !self.answers {
            Phase::Unreachable
        } else if health.ready {
            Phase::Following
        } else {
            Phase::CatchingUp
        };
        metrics::lag(&self.shard.label, health.lag());
    }

    /// The stream did not answer: the followed entries are served, as all that there are.
    fn silent(&mut self) {
        self.answers = false;
        let mut health = self.shard.health.lock();
        if health.phase != Phase::Halted {
            health.phase = Phase::Unreachable;
        }
    }
}
