//! Authors: outboxes that append each frame until its verdict is known, in order, wherever they are answered.

use super::super::script::*;
use super::chance::Chance;
use super::wires::HANGING;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use skytale_history::Event;
use skytale_log_store::{Accepted, AppendError, FleetStore, LogStore as _, Refused};
use skytale_proto::{AgentId, ChannelId, Detail, Frame, FrameId, Header, LogId, Offset};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::time::timeout;

/// The pause before a frame is appended again.
const AGAIN: Duration = Duration::from_millis(30);

/// State shared by all authors.
pub(crate) struct Shared {
    pub(crate) nodes: Vec<Arc<FleetStore>>,
    /// Acknowledged frames at each node.
    pub(crate) acknowledged: Vec<AtomicU64>,
    pub(crate) over: AtomicBool,
}

/// An agent that writes to a channel.
pub(crate) struct Author {
    pub(crate) agent: AgentId,
    pub(crate) channel: ChannelId,
    shared: Arc<Shared>,
    node: usize,
    /// It goes to another node where this one does not answer.
    moves: bool,
    head: Offset,
    chance: Chance,
    /// The answers that it got.
    pub(crate) events: Vec<Event>,
    /// Agents that it added with a Welcome, and the commits.
    pub(crate) welcomed: Vec<(AgentId, Offset)>,
}

/// A frame on its way.
enum Told {
    Waiting(BoxFuture<'static, Result<Accepted, AppendError>>),
    Verdict(Result<Accepted, AppendError>),
}

impl Author {
    pub(crate) fn new(
        agent: AgentId,
        channel: ChannelId,
        node: usize,
        shared: Arc<Shared>,
        mut chance: Chance,
    ) -> Self {
        Self {
            agent,
            channel,
            shared,
            node,
            moves: chance.below(2) == 0,
            head: at(2),
            chance,
            events: Vec::new(),
            welcomed: Vec::new(),
        }
    }

    /// Writes until it is asked to stop, and until all that it sent is acknowledged.
    pub(crate) async fn write(mut self) -> Self {
        while !self.shared.over.load(Ordering::Relaxed) {
            if self.chance.below(12) == 0 {
                self.commit().await;
            } else {
                self.messages().await;
            }
            let pause = self.chance.between(Duration::ZERO, Duration::from_millis(40));
            tokio::time::sleep(pause).await;
        }
        self
    }

    fn frame(&self, id: FrameId, detail: Detail) -> Frame {
        let header = Header {
            log: self.channel.log(),
            id,
            author: self.agent,
            parent: self.head,
            detail,
        };
        Frame::new(header, id.as_bytes().repeat(16)).expect("a frame")
    }

    fn sent(&mut self, frame: FrameId) {
        let (agent, channel) = (self.agent, self.channel);
        self.events.push(Event::Sent { agent, channel, frame });
    }

    fn acknowledged(&mut self, frame: FrameId, offset: Offset) {
        let (agent, channel) = (self.agent, self.channel);
        self.events.push(Event::Acknowledged {
            agent,
            channel,
            frame,
            offset,
        });
        self.shared.acknowledged[self.node].fetch_add(1, Ordering::Relaxed);
    }

    /// After an answer that is none.
    async fn again(&mut self, error: &AppendError, since: Instant) {
        assert!(error.code().is_retryable(), "an author is refused for good: {error}");
        assert!(
            since.elapsed() < HANGING,
            "{} at node {} does not get on: {error}",
            self.agent,
            self.node
        );
        if self.moves && self.chance.below(3) == 0 {
            self.node = self.chance.below(self.shared.nodes.len());
        }
        tokio::time::sleep(AGAIN).await;
    }

    /// Sends some messages at once, and each until it is acknowledged.
    async fn messages(&mut self) {
        let mut left: Vec<FrameId> = (0..=self.chance.below(8)).map(|_| FrameId::generate()).collect();
        left.iter().for_each(|id| self.sent(*id));
        let since = Instant::now();
        while !left.is_empty() {
            let frames: Vec<Frame> = left.iter().map(|id| self.frame(*id, Detail::Message)).collect();
            let verdicts = queue(&self.shared.nodes[self.node], frames).await;
            let mut failed = None;
            let mut taken = 0;
            for (id, verdict) in left.iter().zip(verdicts) {
                match (verdict, &failed) {
                    (Ok(accepted), None) => {
                        self.acknowledged(*id, accepted.offset);
                        taken += 1;
                    }
                    (Ok(accepted), Some(failed)) => {
                        panic!("{id} is at {} although one before it failed: {failed}", accepted.offset)
                    }
                    (Err(error), None) => failed = Some(error),
                    (Err(_), Some(_)) => {}
                }
            }
            left.drain(..taken);
            match failed {
                Some(AppendError::Refused(Refused::StaleEpoch { head })) => self.head = head,
                Some(error) => self.again(&error, since).await,
                None => {}
            }
        }
    }

    /// An agent at home where the channel is: a bundle for one of a region that is cut off would wait for that region.
    fn joiner(&self) -> AgentId {
        let node = &self.shared.nodes[0];
        let home = |log: LogId| node.shard_of(&log).map(|shard| shard.region);
        loop {
            let agent = someone();
            if home(agent.log()) == home(self.channel.log()) {
                return agent;
            }
        }
    }

    /// Sends one commit until its verdict is known. Another's may win; then it is not made again.
    async fn commit(&mut self) {
        let joiner = self.joiner();
        let recipients = if self.chance.below(2) == 0 {
            vec![joiner]
        } else {
            Vec::new()
        };
        for claimed in [key_package(joiner, false), claim_by(joiner, self.agent)] {
            taken_at_last(&self.shared.nodes[self.node], &claimed).await;
        }
        let id = FrameId::generate();
        let frame = self.frame(
            id,
            Detail::Commit {
                adds: vec![joiner],
                removes: Vec::new(),
                recipients: recipients.clone(),
                roster: None,
                policy: None,
            },
        );
        self.sent(id);
        let since = Instant::now();
        loop {
            let verdicts = queue(&self.shared.nodes[self.node], vec![frame.clone()]).await;
            match verdicts.into_iter().next().expect("one frame, one verdict") {
                Ok(accepted) => {
                    self.acknowledged(id, accepted.offset);
                    self.head = self.head.max(accepted.offset);
                    self.welcomed
                        .extend(recipients.iter().map(|agent| (*agent, accepted.offset)));
                    return;
                }
                Err(AppendError::Refused(Refused::StaleHandshake { head })) => {
                    let (agent, channel) = (self.agent, self.channel);
                    self.events.push(Event::Refused {
                        agent,
                        channel,
                        frame: id,
                    });
                    self.head = head;
                    return;
                }
                Err(error) => self.again(&error, since).await,
            }
        }
    }
}

/// Queues frames, as far as none before fails, and waits for the verdicts of those that were queued.
async fn queue(node: &FleetStore, frames: Vec<Frame>) -> Vec<Result<Accepted, AppendError>> {
    let mut told: Vec<Told> = Vec::new();
    for frame in frames {
        // First the call, then a look at what was reported, then the wait: so no frame overtakes one that failed.
        let append = node.append(frame);
        if told.iter_mut().any(failed) {
            break;
        }
        match timeout(HANGING, append).await.expect("room") {
            Ok(pending) => told.push(Told::Waiting(pending.verdict().boxed())),
            Err(error) => {
                told.push(Told::Verdict(Err(error.into())));
                break;
            }
        }
    }
    let mut verdicts = Vec::new();
    for told in told {
        verdicts.push(match told {
            Told::Waiting(verdict) => timeout(HANGING, verdict).await.expect("an answer, whichever"),
            Told::Verdict(verdict) => verdict,
        });
    }
    verdicts
}

/// Whether a frame's verdict is given, and is none to go on after.
fn failed(told: &mut Told) -> bool {
    if let Told::Waiting(verdict) = told
        && let Some(verdict) = verdict.now_or_never()
    {
        *told = Told::Verdict(verdict);
    }
    matches!(told, Told::Verdict(Err(_)))
}
