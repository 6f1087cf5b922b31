//! A reader of a log.

use super::room::Room;
use super::shared::{Gauge, Shared};
use crate::frames::planned;
use crate::recorder::Tick;
use crate::results::Measure;
use crate::target::{Read, Reading as _, Session, Target};
use skytale_history::{ChannelMonitor, Delivered, EntryKind, Reader as Watch};
use skytale_proto::{AgentId, Code, Frame, Kind, LogId, Offset};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Pause of a reader that was refused for the moment.
const AGAIN_AFTER: Duration = Duration::from_millis(100);

/// A reader, over all its sessions.
pub(super) struct Reader {
    pub(super) agent: u32,
    pub(super) id: AgentId,
    pub(super) log: LogId,
    /// The first entry of its membership.
    pub(super) from: Offset,
    cursor: Offset,
    /// Monitor of a channel's log.
    pub(super) watched: Option<Arc<ChannelMonitor>>,
    pub(super) watch: Option<Watch>,
    pub(super) gauge: Option<Arc<Gauge>>,
    /// Planned time of the subscription, until it has come to the head.
    since: Option<Duration>,
    missed: u64,
    follows: bool,
    /// It has read all that it was to read without following.
    is_done: bool,
    /// It reads no further: it was removed, or the log is not for it.
    pub(super) is_over: bool,
}

/// Reason why a subscription ended.
enum Ended {
    /// Its session did, or the agent left.
    Later,
    /// The target asked to try again after this time.
    Again(Duration),
    /// It was to read up to the head, and has.
    Done,
    /// There is nothing more for this reader.
    Over,
}

impl Reader {
    pub(super) fn new(agent: u32, id: AgentId, log: LogId, from: Offset) -> Self {
        Self {
            agent,
            id,
            log,
            from,
            cursor: Offset::new(from.get().saturating_sub(1)),
            watched: None,
            watch: None,
            gauge: None,
            since: None,
            missed: 0,
            follows: true,
            is_done: false,
            is_over: false,
        }
    }

    /// A subscription begins, which was planned then.
    pub(super) fn begins(&mut self, planned: Duration, follow: bool) {
        (self.since, self.missed) = (Some(planned), 0);
        (self.follows, self.is_done) = (follow, false);
        if let Some(gauge) = &self.gauge {
            gauge.reads.store(true, Ordering::Relaxed);
        }
    }

    /// Whether it goes on in the agent's next session.
    pub(super) const fn is_to_read(&self) -> bool {
        !self.is_over && !self.is_done
    }

    /// Reads as long as the session lasts.
    pub(super) async fn run<T: Target>(
        mut self,
        shared: Arc<Shared<T>>,
        session: T::Session,
        leave: CancellationToken,
    ) -> Self {
        let ended = tokio::select! {
            biased;
            () = leave.cancelled() => Ended::Later,
            ended = self.read_on(&shared, &session) => ended,
        };
        match ended {
            Ended::Over => {
                self.is_over = true;
                self.finish();
                self.goes_away();
            }
            Ended::Done => {
                self.is_done = true;
                self.goes_away();
            }
            // If its session was lost it is still to read all.
            Ended::Later | Ended::Again(_) => {}
        }
        self
    }

    /// It need not read on for now.
    pub(super) fn goes_away(&self) {
        if let Some(gauge) = &self.gauge {
            gauge.reads.store(false, Ordering::Relaxed);
        }
    }

    /// It has read up to its cursor, and reads no further.
    pub(super) fn finish(&mut self) {
        if let Some(watch) = self.watch.take() {
            watch.finished(self.cursor);
        }
    }

    async fn read_on<T: Target>(&mut self, shared: &Shared<T>, session: &T::Session) -> Ended {
        loop {
            match self.read(shared, session).await {
                Ended::Again(after) => tokio::time::sleep(after).await,
                Ended::Later => {
                    // A stream that failed alone is opened again.
                    if tokio::time::timeout(AGAIN_AFTER, session.ended()).await.is_ok() {
                        return Ended::Later;
                    }
                }
                ended => return ended,
            }
        }
    }

    async fn read<T: Target>(&mut self, shared: &Shared<T>, session: &T::Session) -> Ended {
        let mut reading = match session.read(self.log, self.cursor, self.follows).await {
            Ok(reading) => reading,
            Err(failed) => return self.refused(shared, &failed),
        };
        loop {
            match reading.next().await {
                Ok(Some(Read::Entries(entries))) => self.take(shared, &entries),
                Ok(Some(Read::CaughtUp)) => {
                    if let Some(planned) = self.since.take()
                        && self.watch.is_some()
                    {
                        shared.caught_up(self.agent, planned, self.missed);
                    }
                }
                Ok(None) if !self.follows => return Ended::Done,
                Ok(None) => return self.not_a_member(shared),
                Err(failed) => return self.refused(shared, &failed),
            }
        }
    }

    /// The target says that the agent may not read on. That may be because of a removal, which may not be known here yet.
    fn not_a_member<T: Target>(&self, shared: &Shared<T>) -> Ended {
        let room = self.gauge.as_ref().and_then(|gauge| shared.room(gauge.channel));
        match room {
            Some(room) if room.has(self.agent) => Ended::Again(AGAIN_AFTER),
            _ => Ended::Over,
        }
    }

    fn refused<T: Target>(&mut self, shared: &Shared<T>, failed: &crate::target::Failed) -> Ended {
        if !failed.is_refusal {
            return Ended::Later;
        }
        match failed.code {
            // A member that is removed learns it at the end of its stretch.
            Code::NotMember => self.not_a_member(shared),
            Code::Trimmed => {
                // Entries that are gone stay gone: a reader goes on after them.
                shared.refused(self.agent, failed.code);
                if let Some(watched) = &self.watched {
                    self.watch = Some(watched.reader(self.id, failed.offset));
                }
                self.cursor = Offset::new(failed.offset.get().saturating_sub(1));
                Ended::Again(Duration::ZERO)
            }
            // A member that is refused for good is short of the end, and that is seen.
            code => {
                shared.refused(self.agent, code);
                tracing::debug!(agent = self.agent, log = %self.log, %failed, "subscription refused");
                Ended::Again(failed.retry_after.unwrap_or(AGAIN_AFTER))
            }
        }
    }

    fn take<T: Target>(&mut self, shared: &Shared<T>, entries: &[(Offset, Frame)]) {
        let is_at_head = self.since.is_none();
        if !is_at_head {
            self.missed += entries.len() as u64;
        }
        if let Some((last, _)) = entries.last() {
            self.cursor = *last;
        }
        let Some(watch) = &mut self.watch else { return };
        let delivered: Vec<Delivered> = entries.iter().map(|(offset, frame)| shown(*offset, frame)).collect();
        watch.delivered(&delivered);
        let mut bytes = 0;
        {
            let mut records = shared.recorder.of(self.agent);
            for (_, frame) in entries {
                bytes += frame.body().len() as u64;
                let header = frame.header();
                if is_at_head && header.author != self.id && header.kind() != Kind::Trim {
                    records.latency(Measure::Delivered, shared.late(planned(&header.id)));
                }
            }
            records.count(Tick::Delivered, entries.len() as u64);
        }
        shared.delivered(entries.len() as u64, bytes);
        if let Some(gauge) = &self.gauge {
            gauge.cursor.store(self.cursor.get(), Ordering::Relaxed);
        }
    }
}

impl Gauge {
    /// Whether the reader has all that was acknowledged, or reads no more.
    pub(super) fn is_there(&self, room: &Room) -> bool {
        !self.reads.load(Ordering::Relaxed) || self.cursor.load(Ordering::Relaxed) >= room.last().get()
    }
}

/// Tells frames apart. Nobody chooses frames so that two have the same one: a run's bodies are its own.
fn hash(frame: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash[..16].copy_from_slice(&xxhash_rust::xxh3::xxh3_128(frame).to_le_bytes());
    hash
}

fn shown(offset: Offset, frame: &Frame) -> Delivered {
    let header = frame.header();
    Delivered {
        offset,
        frame: header.id,
        author: header.author,
        parent: header.parent,
        kind: match header.kind() {
            Kind::Create => EntryKind::Create,
            Kind::Commit => EntryKind::Commit,
            Kind::Proposal => EntryKind::Proposal,
            Kind::Message => EntryKind::Message,
            _ => EntryKind::Other,
        },
        hash: hash(frame.encoded()),
    }
}
