//! Appends to a raw log, in order, each body once.

use super::client::RawClient;
use super::error::RawError;
use super::link::Live;
use crate::net::RelayError;
use crate::net::relay::{Appender, Receipt};
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesOrdered;
use skytale_proto::{AccountId, AgentId, ChannelId, ChannelMode, Code, Detail, Frame, FrameId, Header, Offset};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::{mpsc, oneshot};

/// Maximum number of queued bodies per log.
const QUEUE_MAX: usize = 256;
/// Maximum number of frames without a verdict per log.
const IN_FLIGHT_MAX: usize = 256;

type Outcome = Result<Receipt, RawError>;

/// Appends to one raw log. Clones share the same writer, with one order.
///
/// The writer's task ends when the last clone is dropped and all queued bodies have their verdict.
#[derive(Clone, Debug)]
pub struct RawWriter {
    queue: mpsc::Sender<Item>,
    unsettled: Arc<AtomicUsize>,
}

/// Counts one body until it has its verdict.
#[derive(Debug)]
struct Unsettled(Arc<AtomicUsize>);

impl Unsettled {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(count))
    }
}

impl Drop for Unsettled {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// An append in flight. Dropping it does not withdraw the append.
#[derive(Debug)]
pub struct RawPending {
    outcome: oneshot::Receiver<Outcome>,
}

impl RawPending {
    /// Waits for the verdict: the entry is durable, or a relay node has refused it permanently.
    pub async fn outcome(self) -> Result<Receipt, RawError> {
        self.outcome.await.unwrap_or(Err(RawError::Closed))
    }
}

#[derive(Debug)]
struct Item {
    id: FrameId,
    body: Bytes,
    outcome: oneshot::Sender<Outcome>,
    _unsettled: Unsettled,
}

impl RawWriter {
    pub(super) fn start(client: &RawClient, channel: ChannelId) -> Self {
        let (queue, items) = mpsc::channel(QUEUE_MAX);
        let cancel = client.inner.cancel.clone();
        let worker = Worker {
            agent: client.agent(),
            // Not a clone of the client: a writer must not keep it open.
            live: client.inner.live.clone(),
            channel,
            items,
            in_flight: VecDeque::new(),
            created: false,
        };
        client.inner.tasks.spawn(async move {
            tokio::select! {
                () = cancel.cancelled() => {}
                () = worker.run() => {}
            }
        });
        Self {
            queue,
            unsettled: Arc::default(),
        }
    }

    /// Returns the number of bodies without a verdict. Two writers of one log have no common order: before another one
    /// is created, this must be 0.
    pub fn unsettled(&self) -> usize {
        self.unsettled.load(Ordering::SeqCst)
    }

    /// Queues a body. Waits for room in the queue; entries follow the order of the calls.
    pub async fn append(&self, body: Bytes) -> Result<RawPending, RawError> {
        let (sender, outcome) = oneshot::channel();
        let item = Item {
            id: FrameId::generate(),
            body,
            outcome: sender,
            _unsettled: Unsettled::new(&self.unsettled),
        };
        self.queue.send(item).await.map_err(|_| RawError::Closed)?;
        Ok(RawPending { outcome })
    }
}

struct Worker {
    agent: AgentId,
    live: tokio::sync::watch::Receiver<Option<Live>>,
    channel: ChannelId,
    items: mpsc::Receiver<Item>,
    /// Sent in this session or an earlier one, without a verdict.
    in_flight: VecDeque<Item>,
    created: bool,
}

/// Result of the work within one session.
enum Turn {
    /// Nobody appends any more.
    Done,
    /// To be retried.
    Again(RelayError),
}

impl Worker {
    async fn run(mut self) {
        loop {
            if self.in_flight.is_empty() {
                // A session is needed only when there is something to append.
                match self.items.recv().await {
                    Some(item) => self.in_flight.push_back(item),
                    None => return,
                }
            }
            let found = self.live.wait_for(Option::is_some).await;
            let Some(live) = found.ok().and_then(|found| found.clone()) else {
                return;
            };
            match self.within(&live).await {
                Turn::Done => return,
                Turn::Again(error) => {
                    tracing::debug!(channel = %self.channel, code = %error.code(), %error, "raw append: again");
                    tokio::time::sleep(error.retry_after().unwrap_or(super::link::PAUSE)).await;
                }
            }
        }
    }

    /// Sends bodies without a verdict, then new ones.
    async fn within(&mut self, live: &Live) -> Turn {
        let mut appender = live.appender.clone();
        // A log held on an earlier stream is not held on another one.
        if let Err(error) = appender.renew(&live.session).await {
            return Turn::Again(error);
        }
        if !self.created
            && let Err(error) = create(&appender, self.agent, live.account, self.channel).await
        {
            if is_final(&error) {
                self.refuse_all(&error);
            }
            return Turn::Again(error);
        }
        self.created = true;
        let mut outcomes = FuturesOrdered::new();
        let mut sent = 0;
        let mut open = true;
        loop {
            // Each frame that was not sent in this session yet, in order.
            while let Some(item) = self.in_flight.get(sent) {
                let frame = match frame(self.channel, self.agent, live.account, item) {
                    Ok(frame) => frame,
                    Err(error) => {
                        if let Some(item) = self.in_flight.remove(sent) {
                            let _ = item.outcome.send(Err(error));
                        }
                        continue;
                    }
                };
                match appender.append(frame).await {
                    Ok(pending) => outcomes.push_back(pending.outcome()),
                    Err(error) if is_final(&error) => {
                        if let Some(item) = self.in_flight.remove(sent) {
                            let _ = item.outcome.send(Err(error.into()));
                        }
                        continue;
                    }
                    Err(error) => return Turn::Again(error),
                }
                sent += 1;
            }
            if !open && self.in_flight.is_empty() {
                return Turn::Done;
            }
            tokio::select! {
                biased;
                Some(outcome) = outcomes.next() => {
                    match outcome {
                        Err(error) if !is_final(&error) => return Turn::Again(error),
                        outcome => {
                            sent = sent.saturating_sub(1);
                            if let Some(item) = self.in_flight.pop_front() {
                                let _ = item.outcome.send(outcome.map_err(RawError::from));
                            }
                        }
                    }
                }
                item = self.items.recv(), if open && self.in_flight.len() < IN_FLIGHT_MAX => match item {
                    Some(item) => self.in_flight.push_back(item),
                    None => open = false,
                },
                reason = live.session.ended() => return Turn::Again(reason),
            }
        }
    }

    fn refuse_all(&mut self, error: &RelayError) {
        for item in self.in_flight.drain(..) {
            let _ = item.outcome.send(Err(error.clone().into()));
        }
    }
}

/// Creates a raw log, or finds that it exists.
pub(super) async fn create(
    appender: &Appender,
    agent: AgentId,
    account: AccountId,
    channel: ChannelId,
) -> Result<(), RelayError> {
    let detail = Detail::Create {
        mode: ChannelMode::Raw,
        account: Some(account),
        policy: None,
    };
    let frame =
        encode(channel, agent, FrameId::generate(), detail, Bytes::new()).map_err(|error| RelayError::Local {
            code: error.code(),
            reason: error.to_string(),
        })?;
    match appender.append(frame).await?.outcome().await {
        Ok(_) => Ok(()),
        Err(error) if error.code() == Code::LogExists => Ok(()),
        Err(error) => Err(error),
    }
}

/// Whether a retry would fail the same way.
fn is_final(error: &RelayError) -> bool {
    match error {
        RelayError::Refused(refused) => !refused.retryable,
        RelayError::Local { code, .. } => !code.is_retryable(),
        _ => false,
    }
}

fn frame(channel: ChannelId, author: AgentId, account: AccountId, item: &Item) -> Result<Bytes, RawError> {
    encode(channel, author, item.id, Detail::Raw { account }, item.body.clone()).map_err(RawError::from)
}

fn encode(
    channel: ChannelId,
    author: AgentId,
    id: FrameId,
    detail: Detail,
    body: Bytes,
) -> Result<Bytes, skytale_proto::FrameError> {
    let header = Header {
        log: channel.log(),
        id,
        author,
        parent: Offset::ZERO,
        detail,
    };
    Frame::new(header, body).map(|frame| frame.encoded().clone())
}
