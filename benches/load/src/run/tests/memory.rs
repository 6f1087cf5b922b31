//! A target in memory that does one thing wrong, if it is asked to.

use crate::target::{Appended, Failed, Read, Reading, Session, Target};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use skytale_proto::{AccountId, AgentId, Code, Frame, Kind, LogId, Offset, Region};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{oneshot, watch};

/// Duration of [`Plant::Stall`].
pub(super) const STALL: Duration = Duration::from_secs(2);
/// Time from its fault to the end of a session with [`Plant::Sever`].
const ENDS_AFTER: Duration = Duration::from_millis(200);
/// The message that a fault befalls, counted from 1 over all channels.
const VICTIM: u64 = 40;

/// Fault that happens once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Plant {
    /// A message is acknowledged and not stored.
    Lose,
    /// A reader is given a message twice.
    Twice,
    /// A message is stored after the next one of its author.
    Swap,
    /// A reader is given a message with other bytes.
    Alter,
    /// Nothing happens for [`STALL`].
    Stall,
    /// From a message on, subscriptions fail and sessions end.
    Deaf,
    /// A message and all after it on its session are not taken, and [`ENDS_AFTER`] the session ends.
    Sever,
    /// The session on which the first claim comes ends, and says why to each request on it.
    RefuseClaims,
}

/// Dense logs in memory, for everybody. Clones are the same target.
#[derive(Clone, Debug, Default)]
pub(super) struct Memory(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    plant: Option<Plant>,
    state: Mutex<State>,
    in_flight: AtomicUsize,
    in_flight_max: AtomicUsize,
    claims: AtomicUsize,
    is_deaf: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct State {
    logs: HashMap<LogId, Log>,
    messages: u64,
    /// An entry that one reader is given in another way.
    marked: Option<(LogId, Offset)>,
    /// A message that waits for the next one of its author.
    held: Option<(Frame, oneshot::Sender<Offset>)>,
    stalled_until: Option<Instant>,
}

#[derive(Debug, Default)]
struct Log {
    entries: Vec<Frame>,
    head: watch::Sender<u64>,
}

impl Log {
    fn push(&mut self, frame: Frame) -> Offset {
        self.entries.push(frame);
        let offset = self.entries.len() as u64;
        self.head.send_replace(offset);
        Offset::new(offset)
    }

    fn next(&self) -> Offset {
        Offset::new(self.entries.len() as u64 + 1)
    }
}

impl Memory {
    pub(super) fn with(plant: Option<Plant>) -> Self {
        Self(Arc::new(Inner {
            plant,
            ..Inner::default()
        }))
    }

    /// The most appends that the target let wait at once.
    pub(super) fn in_flight_max(&self) -> usize {
        self.0.in_flight_max.load(Ordering::Relaxed)
    }

    /// Waits for the end of a stall.
    async fn gate(&self) {
        let until = self.0.state.lock().stalled_until;
        if let Some(until) = until {
            tokio::time::sleep_until(until.into()).await;
        }
    }

    /// Stores a frame, and says where it is as soon as it does. `None`: not taken, and no other of its session will be.
    fn store(&self, frame: &Frame) -> Option<oneshot::Receiver<Offset>> {
        let (done, told) = oneshot::channel();
        let header = frame.header();
        let mut state = self.0.state.lock();
        let State {
            logs,
            messages,
            marked,
            held,
            stalled_until,
        } = &mut *state;
        *messages += u64::from(header.kind() == Kind::Message);
        let is_victim = header.kind() == Kind::Message && *messages == VICTIM;
        let log = logs.entry(header.log).or_default();
        let offset = match self.0.plant.filter(|_| is_victim) {
            Some(Plant::Lose) => log.next(),
            Some(Plant::Swap) => {
                *held = Some((frame.clone(), done));
                return Some(told);
            }
            Some(Plant::Sever) => return None,
            Some(Plant::Twice | Plant::Alter) => {
                *marked = Some((header.log, log.next()));
                log.push(frame.clone())
            }
            Some(Plant::Stall) => {
                *stalled_until = Some(Instant::now() + STALL);
                log.push(frame.clone())
            }
            Some(Plant::Deaf) => {
                self.0.is_deaf.send_replace(true);
                log.push(frame.clone())
            }
            Some(Plant::RefuseClaims) | None => log.push(frame.clone()),
        };
        // A caller that no longer waits needs no answer.
        let _ = done.send(offset);
        let is_next =
            |(held, _): &mut (Frame, _)| held.header().author == header.author && held.header().log == header.log;
        if let Some((held, done)) = held.take_if(is_next) {
            let _ = done.send(log.push(held));
        }
        Some(told)
    }

    /// Entries after a cursor.
    fn entries(&self, log: LogId, after: u64) -> Vec<(Offset, Frame)> {
        let mut state = self.0.state.lock();
        let entries = state.logs.entry(log).or_default().entries.iter();
        let mut entries: Vec<_> = (1..)
            .map(Offset::new)
            .zip(entries.cloned())
            .skip(usize::try_from(after).unwrap_or(usize::MAX))
            .collect();
        let marked = state
            .marked
            .take_if(|(of, offset)| *of == log && offset.get() > after && !entries.is_empty());
        if let Some((_, offset)) = marked
            && let Some(place) = entries.iter().position(|(at, _)| *at == offset)
        {
            let (_, frame) = &mut entries[place];
            if self.0.plant == Some(Plant::Twice) {
                let again = (offset, frame.clone());
                entries.insert(place, again);
            } else {
                let body = frame.body().iter().map(|byte| !byte).collect::<Vec<u8>>();
                *frame = Frame::new(frame.header().clone(), body).expect("as long as before");
            }
        }
        entries
    }
}

impl Target for Memory {
    type Session = MemorySession;

    fn name(&self) -> &'static str {
        "memory"
    }

    fn agent_id(&self, agent: u32) -> AgentId {
        let mut id = [0xa6; 32];
        id[..4].copy_from_slice(&agent.to_be_bytes());
        AgentId::from_bytes(id)
    }

    fn account(&self) -> Option<AccountId> {
        Some(AccountId::from_bytes([7; 16]))
    }

    fn home(&self, _agent: u32) -> Region {
        Region(0)
    }

    async fn token(&self, _agent: u32) -> Result<(), Failed> {
        Ok(())
    }

    async fn connect(&self, _agent: u32) -> Result<MemorySession, Failed> {
        self.gate().await;
        Ok(MemorySession {
            memory: self.clone(),
            life: Arc::new(watch::Sender::new(Life::Whole)),
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    Whole,
    /// Takes nothing any more.
    Severed,
    Over,
}

#[derive(Clone, Debug)]
pub(super) struct MemorySession {
    memory: Memory,
    life: Arc<watch::Sender<Life>>,
}

impl MemorySession {
    /// Resolves when the session is over, which it is only after [`Plant::Sever`] and [`Plant::RefuseClaims`].
    async fn over(self) -> Failed {
        // The sender lives as long as the session.
        let _ = self.life.subscribe().wait_for(|life| *life == Life::Over).await;
        Failed::lost("the session is over")
    }

    fn sever(&self) {
        self.life.send_replace(Life::Severed);
        let life = Arc::clone(&self.life);
        tokio::spawn(async move {
            tokio::time::sleep(ENDS_AFTER).await;
            life.send_replace(Life::Over);
        });
    }
}

impl Session for MemorySession {
    type Pending = BoxFuture<'static, Result<Appended, Failed>>;
    type Reading = MemoryReading;

    /// During a stall it waits: so at most one append of each agent does.
    async fn append(&self, frame: &Frame) -> Result<Self::Pending, Failed> {
        let memory = self.memory.clone();
        let now = memory.0.in_flight.fetch_add(1, Ordering::Relaxed) + 1;
        memory.0.in_flight_max.fetch_max(now, Ordering::Relaxed);
        memory.gate().await;
        let is_whole = *self.life.borrow() == Life::Whole;
        let told = if is_whole { memory.store(frame) } else { None };
        if is_whole && told.is_none() {
            self.sever();
        }
        let session = self.clone();
        memory.gate().await;
        memory.0.in_flight.fetch_sub(1, Ordering::Relaxed);
        let pending = async move {
            let Some(told) = told else {
                return Err(session.over().await);
            };
            let offset = told.await.map_err(|_| Failed::lost("the target is gone"))?;
            Ok(Appended { offset })
        };
        Ok(pending.boxed())
    }

    async fn claim(&self, _claim: &Frame) -> Result<(), Failed> {
        self.memory.gate().await;
        let is_first = self.memory.0.claims.fetch_add(1, Ordering::Relaxed) == 0;
        if is_first && self.memory.0.plant == Some(Plant::RefuseClaims) {
            self.life.send_replace(Life::Over);
        }
        if *self.life.borrow() == Life::Whole {
            return Ok(());
        }
        let silent = Failed::lost("the other side has been silent");
        Err(Failed {
            code: Code::KeepaliveLost,
            is_refusal: true,
            ..silent
        })
    }

    async fn read(&self, log: LogId, after: Offset, _follow: bool) -> Result<MemoryReading, Failed> {
        let head = self.memory.0.state.lock().logs.entry(log).or_default().head.subscribe();
        let to = *head.borrow();
        Ok(MemoryReading {
            memory: self.memory.clone(),
            log,
            cursor: after.get(),
            catches_up_to: Some(to),
            head,
        })
    }

    async fn ended(&self) -> Failed {
        let mut is_deaf = self.memory.0.is_deaf.subscribe();
        tokio::select! {
            failed = self.clone().over() => failed,
            // The sender lives as long as the target.
            _ = is_deaf.wait_for(|is_deaf| *is_deaf) => Failed::lost("the target hears nobody"),
        }
    }

    async fn close(&self) {}
}

#[derive(Debug)]
pub(super) struct MemoryReading {
    memory: Memory,
    log: LogId,
    cursor: u64,
    /// Taken when it is there.
    catches_up_to: Option<u64>,
    head: watch::Receiver<u64>,
}

impl Reading for MemoryReading {
    async fn next(&mut self) -> Result<Option<Read>, Failed> {
        if *self.memory.0.is_deaf.borrow() {
            return Err(Failed::lost("the target hears nobody"));
        }
        if self.catches_up_to.take_if(|to| self.cursor >= *to).is_some() {
            return Ok(Some(Read::CaughtUp));
        }
        let cursor = self.cursor;
        let grown = self.head.wait_for(|head| *head > cursor).await;
        grown.map_err(|_| Failed::lost("the target is gone"))?;
        self.memory.gate().await;
        let entries = self.memory.entries(self.log, self.cursor);
        self.cursor = entries.last().map_or(self.cursor, |(offset, _)| offset.get());
        Ok(Some(Read::Entries(entries)))
    }
}
