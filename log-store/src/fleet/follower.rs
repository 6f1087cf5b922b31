//! Follows a shard's stream: every message is folded into the replica, in its order, from where the replica stands.

use super::bucket::{Bucket, shown};
use super::chain::{self, Link};
use super::checkpoint::Checkpoint;
use super::guard::{self, Contradiction, Look};
use super::health::Phase;
use super::metrics;
use super::mirror;
use super::node::{Node, Shard};
use super::shards::ShardId;
use super::sweeper::random_fraction;
use crate::local::ShardPosition;
use crate::local::replica::{Follow, Followed, Following, Message};
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, pull};
use async_nats::jetstream::stream::Info;
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use skytale_proto::{Detail, Frame, FrameId, Header, LogId};
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Messages folded at once, at most.
const FOLD_MESSAGES_MAX: usize = 512;
/// Bytes of messages folded at once, about.
const FOLD_BYTES_MAX: usize = 1024 * 1024;
/// Parts on their way into the replica, at most: while one is synced, the next are folded.
const PARTS_MAX: usize = 4;
/// Messages asked for at once.
const PULL_MESSAGES: usize = 2_048;
/// Bytes asked for at once.
const PULL_BYTES: usize = 8 * 1024 * 1024;
/// How long the server may be silent; twice that, and the follower begins anew.
const HEARTBEAT: Duration = Duration::from_secs(2);
/// How long the server waits for messages before it says that there are none.
const PULL_EXPIRES: Duration = Duration::from_secs(10);
/// After this long without its follower the server forgets a consumer.
const CONSUMER_IDLE: Duration = Duration::from_secs(30);
/// How long a shard stands still for a checkpoint, at most.
const CHECKPOINT_WITHIN: Duration = Duration::from_secs(20);
/// How long nodes wait for each other to write one.
const CHECKPOINT_JITTER: Duration = Duration::from_millis(300);
/// The pause before a follower begins anew, to begin with.
const RESUME_FIRST: Duration = Duration::from_millis(50);
/// The longest such pause.
const RESUME_MAX: Duration = Duration::from_secs(1);

/// What a follower begins with.
pub(super) struct Beginning {
    pub(super) position: ShardPosition,
    /// Messages that are known to repeat entries which this replica does not have.
    pub(super) repeats: BTreeSet<u64>,
    /// Bundles up to this message owe nothing: other nodes saw to them.
    pub(super) owes_after: u64,
}

/// Why a stretch of following ended.
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
            End::Stop(contradiction) => {
                node.stop(shard, &contradiction);
                break;
            }
            End::Again(reason) => {
                tracing::debug!(shard = %shard.label, %reason, "the follower begins anew");
                metrics::resumed(&shard.label);
                // What was on its way into the replica gets there: the position is what was submitted.
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
    for waiter in shard.pending.take_waiting(|_| true) {
        waiter.fail(node.why_ended());
    }
}

struct Follower<'a> {
    node: &'a Arc<Node>,
    shard: &'a Shard,
    /// The last message submitted.
    position: ShardPosition,
    /// Up to here messages were folded before this process began: only what they may owe is looked for.
    recheck_to: u64,
    repeats: BTreeSet<u64>,
    /// Messages since the last checkpoint that were duplicates of entries.
    repeated: Vec<u64>,
    /// Where the stream ended when it was last looked at, while a mirror of it was followed.
    home_ended: u64,
    /// The mirror does not keep up: the stream itself is followed.
    avoid_mirror: bool,
    owes_after: u64,
    /// Where the stream ended when the node started.
    target: Option<u64>,
    /// A contradiction, and since when.
    suspected: Option<(Contradiction, Instant)>,
    /// What is on its way into the replica, whichever consumer it came from.
    parts: VecDeque<Part>,
}

/// Messages on their way into the replica.
struct Part {
    following: Following,
    to: u64,
    notes: Vec<Note>,
}

/// What is to be done with a message once it is folded.
enum Note {
    Bundle(u64, LogId),
    Welcome(FrameId),
}

impl Follower<'_> {
    /// Follows for as long as the stream answers.
    async fn stretch(&mut self) -> End {
        let here = mirror::region(self.shard.id, &self.node.config);
        let copy = match here {
            Some(here) => mirror::goes_on(&self.node.context, self.shard.id, here, &self.position)
                .await
                .ok(),
            None => None,
        };
        let info = match guard::look(&self.node.context, self.shard.id, &self.position).await {
            Look::Unknown(reason) => match &copy {
                // The home region is cut off: its mirror has what came out of it.
                Some(copy) => copy.clone(),
                None => {
                    self.phase(Phase::Unreachable);
                    return End::Again(reason);
                }
            },
            look => match self.judge(look) {
                Ok(Some(info)) => info,
                Ok(None) => return End::Again("the stream contradicts what was folded; looking again".into()),
                Err(contradiction) => return End::Stop(contradiction),
            },
        };
        self.target.get_or_insert(info.state.last_sequence);
        let from = if self.recheck_to == self.position.sequence {
            self.position
                .owed_from
                .clamp(info.state.first_sequence.max(1), self.position.sequence + 1)
        } else {
            self.position.sequence + 1
        };
        // The nearest copy, if it can be followed from here.
        let source = match (here, &copy) {
            (Some(here), Some(copy)) if copy.state.first_sequence.max(1) <= from && !self.avoid_mirror => {
                mirror::name(self.shard.id, here)
            }
            _ => self.shard.id.stream(),
        };
        // It is given another chance the next time.
        self.avoid_mirror = false;
        self.home_ended = 0;
        let by_mirror = source != self.shard.id.stream();
        let mut messages = match self.consume(&source, from).await {
            Ok(messages) => messages.ready_chunks(FOLD_MESSAGES_MAX),
            Err(reason) => {
                self.phase(Phase::Unreachable);
                return End::Again(reason);
            }
        };
        metrics::follows_mirror(&self.shard.label, by_mirror);
        self.moved(*self.shard.followed.borrow(), Some(info.state.last_sequence));
        let mut looking: Option<BoxFuture<'static, Look>> = None;
        let mut look_at = Instant::now() + self.node.config.verify_every;
        loop {
            tokio::select! {
                biased;
                outcome = outcome_of(&mut self.parts) => {
                    if let Err(end) = self.folded(outcome) {
                        return end;
                    }
                }
                look = look_done(&mut looking) => {
                    let pause = if matches!(look, Look::Contradicts(_)) {
                        RESUME_MAX
                    } else {
                        self.node.config.verify_every
                    };
                    look_at = Instant::now() + pause;
                    match self.judge(look) {
                        Ok(Some(info)) => {
                            let followed = *self.shard.followed.borrow();
                            self.moved(followed, Some(info.state.last_sequence));
                            if by_mirror && self.home_ended > followed {
                                self.avoid_mirror = true;
                                return End::Again("the mirror does not keep up".into());
                            }
                            self.home_ended = info.state.last_sequence;
                        }
                        Ok(None) => {}
                        Err(contradiction) => return End::Stop(contradiction),
                    }
                }
                () = self.shard.look.notified() => look_at = Instant::now(),
                () = tokio::time::sleep_until(look_at), if looking.is_none() => {
                    let (context, id, position) = (self.node.context.clone(), self.shard.id, self.position.clone());
                    looking = Some(Box::pin(async move { guard::look(&context, id, &position).await }));
                }
                chunk = messages.next(), if self.parts.len() < PARTS_MAX => {
                    let Some(chunk) = chunk else { return End::Again("the consumer ended".into()) };
                    if let Err(end) = self.chunk(chunk).await {
                        return end;
                    }
                }
            }
        }
    }

    /// What a look at the stream means. A contradiction is believed when it has stood for a while: a server that was cut
    /// off from the others answers from what it has until it notices.
    fn judge(&mut self, look: Look) -> Result<Option<Info>, Contradiction> {
        match look {
            Look::Well(info) => {
                self.suspected = None;
                Ok(Some(*info))
            }
            Look::Unknown(_) => Ok(None),
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
                if since.elapsed() >= self.node.config.alarm_after {
                    return Err(contradiction);
                }
                self.suspected = Some((contradiction, since));
                Ok(None)
            }
        }
    }

    async fn consume(&self, source: &str, from: u64) -> Result<pull::Stream, String> {
        let context = &self.node.context;
        let stream = context.get_stream_no_info(source).await;
        let stream = stream.map_err(|error| error.to_string())?;
        let config = pull::Config {
            deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: from },
            ack_policy: AckPolicy::None,
            num_replicas: 1,
            memory_storage: true,
            inactive_threshold: CONSUMER_IDLE,
            ..pull::Config::default()
        };
        let consumer = stream
            .create_consumer(config)
            .await
            .map_err(|error| error.to_string())?;
        let messages = consumer
            .stream()
            .max_messages_per_batch(PULL_MESSAGES)
            .max_bytes_per_batch(PULL_BYTES)
            .heartbeat(HEARTBEAT)
            .expires(PULL_EXPIRES);
        messages.messages().await.map_err(|error| error.to_string())
    }

    /// Takes what the consumer gave, and hands it to the replica in parts.
    async fn chunk(
        &mut self,
        chunk: Vec<Result<async_nats::jetstream::Message, pull::MessagesError>>,
    ) -> Result<(), End> {
        let (mut messages, mut notes, mut bytes) = (Vec::with_capacity(chunk.len()), Vec::new(), 0);
        let mut end = None;
        let mut last = None;
        for message in chunk {
            let message = match message {
                Ok(message) => message,
                Err(error) => {
                    end = Some(End::Again(error.to_string()));
                    break;
                }
            };
            let info = match message.info() {
                Ok(info) => info,
                Err(error) => {
                    end = Some(End::Again(error.to_string()));
                    break;
                }
            };
            let sequence = info.stream_sequence;
            last = Some(sequence + info.pending);
            if sequence <= self.position.sequence {
                if sequence <= self.recheck_to {
                    self.recheck(sequence, &message).await?;
                }
                continue;
            }
            if sequence != self.position.sequence + 1 {
                end = Some(End::Again(format!(
                    "message {sequence} came after {}",
                    self.position.sequence
                )));
                break;
            }
            let published_ms = u64::try_from(info.published.unix_timestamp_nanos() / 1_000_000).unwrap_or_default();
            let link = Link {
                sequence,
                published_ms,
                subject: &message.subject,
                payload: &message.payload,
            };
            chain::advance(&mut self.position, link);
            bytes += message.payload.len();
            messages.push(self.message(sequence, &message, &mut notes));
            if bytes >= FOLD_BYTES_MAX {
                let part = (std::mem::take(&mut messages), std::mem::take(&mut notes));
                self.submit(part.0, part.1).await?;
                bytes = 0;
            }
            if sequence.is_multiple_of(self.node.config.checkpoint_every) {
                let part = (std::mem::take(&mut messages), std::mem::take(&mut notes));
                self.submit(part.0, part.1).await?;
                bytes = 0;
                self.boundary().await?;
            }
        }
        self.submit(messages, notes).await?;
        self.moved(*self.shard.followed.borrow(), last);
        end.map_or(Ok(()), Err)
    }

    /// A message for the replica. What holds no frame of this very log and shard is skipped, by every node alike.
    fn message(&mut self, sequence: u64, message: &async_nats::Message, notes: &mut Vec<Note>) -> Message {
        let frame = Frame::decode(message.payload.clone()).ok().filter(|frame| {
            let log = &frame.header().log;
            self.node.shards.of(log) == Some(self.shard.id) && self.shard.id.subject(log) == *message.subject
        });
        if frame.is_none() {
            tracing::warn!(shard = %self.shard.label, sequence, "a message without a frame of this shard is skipped");
            metrics::garbage(&self.shard.label);
        }
        let repeated = self.repeats.remove(&sequence);
        if repeated {
            self.repeated.push(sequence);
        }
        let frame = frame.filter(|_| !repeated);
        match frame.as_ref().map(Frame::header) {
            Some(header) if is_bundle(header) && sequence > self.owes_after => {
                self.node.owed.expect(self.shard.id, sequence);
                notes.push(Note::Bundle(sequence, header.log));
            }
            Some(header) if matches!(header.detail, Detail::Welcome { .. }) => notes.push(Note::Welcome(header.id)),
            _ => {}
        }
        Message {
            sequence,
            time_ms: self.position.time_ms,
            frame,
            repeated,
        }
    }

    async fn submit(&mut self, messages: Vec<Message>, notes: Vec<Note>) -> Result<(), End> {
        if messages.is_empty() {
            return Ok(());
        }
        metrics::followed(&self.shard.label, messages.len());
        let to = self.position.sequence;
        self.position.owed_from = self.node.owed.first(self.shard.id).unwrap_or(to + 1);
        let follow = Follow {
            position: self.position.clone(),
            messages,
        };
        match self.node.replica.submit(follow).await {
            Ok(following) => {
                self.parts.push_back(Part { following, to, notes });
                Ok(())
            }
            // The replica has stopped, and says why.
            Err(error) => {
                tracing::debug!(%error, "the replica takes nothing more");
                self.node.ended.cancel();
                Err(End::Ended)
            }
        }
    }

    /// A part is durable in the replica.
    fn folded(&mut self, (part, outcome): (Part, Result<Vec<Followed>, crate::StoreError>)) -> Result<(), End> {
        let outcomes = match outcome {
            Ok(outcomes) => outcomes,
            Err(error) => {
                tracing::debug!(%error, "the replica takes nothing more");
                self.node.ended.cancel();
                return Err(End::Ended);
            }
        };
        let owed = &self.node.owed;
        let mut bundles = Vec::new();
        for note in part.notes {
            match note {
                Note::Welcome(id) => owed.settle(&id),
                Note::Bundle(sequence, log) => bundles.push((sequence, log)),
            }
        }
        let mut bundles = bundles.into_iter().peekable();
        self.shard.followed.send_replace(part.to);
        for mut followed in outcomes {
            if matches!(&followed.verdict, Some(Ok(accepted)) if accepted.duplicate) {
                self.repeated.push(followed.sequence);
            }
            if let Some((sequence, log)) = bundles.next_if(|(sequence, _)| *sequence == followed.sequence) {
                let entry = match &followed.verdict {
                    Some(Ok(accepted)) if !accepted.duplicate => Some((log, accepted.offset)),
                    _ => None,
                };
                owed.decide(self.shard.id, sequence, entry, std::mem::take(&mut followed.welcomes));
            }
            if let Some((waiter, followed)) = self.shard.pending.followed(followed) {
                self.node.answer(waiter, followed);
            }
        }
        self.moved(part.to, None);
        Ok(())
    }

    /// Notes where the shard stands, and where the stream ends.
    fn moved(&self, followed: u64, last: Option<u64>) {
        let mut health = self.shard.health.lock();
        health.position = followed;
        health.last = last.unwrap_or(health.last).max(health.last).max(followed);
        if self.target.is_some_and(|target| followed >= target) {
            health.ready = true;
        }
        health.phase = if health.ready {
            Phase::Following
        } else {
            Phase::CatchingUp
        };
        metrics::lag(&self.shard.label, health.lag());
    }

    fn phase(&self, phase: Phase) {
        self.shard.health.lock().phase = phase;
    }

    /// A message that was folded before this process began: if it is a bundle that is an entry, its Welcomes that are on
    /// no log yet are owed.
    async fn recheck(&mut self, sequence: u64, message: &async_nats::Message) -> Result<(), End> {
        let Ok(frame) = Frame::decode(message.payload.clone()) else {
            return Ok(());
        };
        let header = frame.header();
        let (Detail::Commit { recipients, .. }, Some(channel)) = (&header.detail, header.log.channel()) else {
            return Ok(());
        };
        let stopped = |error: crate::StoreError| End::Again(error.to_string());
        let replica = &self.node.replica;
        let Some(offset) = replica.seen(header.log, header.id).await.map_err(stopped)? else {
            return Ok(());
        };
        self.node.owed.expect(self.shard.id, sequence);
        let mut left = Vec::new();
        for recipient in recipients {
            let welcome = Header::welcome(header.author, channel, offset, *recipient);
            if replica.seen(welcome.log, welcome.id).await.map_err(stopped)?.is_none() {
                left.push(welcome);
            }
        }
        self.node
            .owed
            .decide(self.shard.id, sequence, Some((header.log, offset)), left);
        Ok(())
    }

    /// The stream has come to a multiple of the checkpoints' distance.
    async fn boundary(&mut self) -> Result<(), End> {
        while !self.parts.is_empty() {
            let outcome = outcome_of(&mut self.parts).await;
            self.folded(outcome)?;
        }
        let checkpoint = tokio::time::timeout(CHECKPOINT_WITHIN, self.checkpoint()).await;
        match checkpoint.unwrap_or_else(|_| Err("it took too long".into())) {
            Ok(Some(contradiction)) => return Err(End::Stop(contradiction)),
            Ok(None) => {
                self.repeated.clear();
                self.position.repeated_after = self.position.sequence;
            }
            // The next one says what this one would have said.
            Err(problem) => {
                tracing::warn!(shard = %self.shard.label, sequence = self.position.sequence, %problem, "no checkpoint here");
            }
        }
        Ok(())
    }

    /// Compares with the checkpoint that is there, or writes it. All that was submitted is durable.
    async fn checkpoint(&self) -> Result<Option<Contradiction>, String> {
        let bucket = Bucket::open(&self.node.context, self.node.config.replicas).await?;
        let mine = shown(&self.position.chain);
        let mut found = bucket.chain_at(self.shard.id, &self.position).await;
        if found.is_none() {
            // One node writes it, whichever is first.
            tokio::time::sleep(CHECKPOINT_JITTER.mul_f64(random_fraction())).await;
            found = bucket.chain_at(self.shard.id, &self.position).await;
        }
        if let Some(found) = found {
            return Ok((found != mine).then(|| Contradiction::Diverged {
                stream: self.shard.id.stream(),
                sequence: self.position.sequence,
            }));
        }
        let (shards, id) = (self.node.shards.clone(), self.shard.id);
        let logs = self.node.replica.snapshots(move |log| shards.of(log) == Some(id)).await;
        let mut repeated = self.repeated.clone();
        repeated.sort_unstable();
        let checkpoint = Checkpoint {
            position: ShardPosition {
                repeated,
                ..self.position.clone()
            },
            logs: logs.map_err(|error| error.to_string())?,
        };
        bucket.put(self.shard.id, &checkpoint).await?;
        metrics::checkpoint_written(&self.shard.label);
        Ok(None)
    }
}

fn is_bundle(header: &Header) -> bool {
    matches!(&header.detail, Detail::Commit { recipients, .. } if !recipients.is_empty())
}

/// The oldest part, once it is durable; never, where there is none.
async fn outcome_of(parts: &mut VecDeque<Part>) -> (Part, Result<Vec<Followed>, crate::StoreError>) {
    let outcome = match parts.front_mut() {
        Some(part) => part.following.outcome().await,
        None => std::future::pending().await,
    };
    match parts.pop_front() {
        Some(part) => (part, outcome),
        None => std::future::pending().await,
    }
}

/// What a look under way gives; never, where there is none.
async fn look_done(looking: &mut Option<BoxFuture<'static, Look>>) -> Look {
    let look = match looking {
        Some(look) => look.await,
        None => std::future::pending().await,
    };
    *looking = None;
    look
}
