//! A reader of a log.

use super::room::Room;
use super::shared::{Gauge, Shared, add};
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

/// How long a reader waits that was refused for the moment.
const AGAIN_AFTER: Duration = Duration::from_millis(100);

/// A reader, over all its sessions.
pub(super) struct Reader {
    pub(super) agent: u32,
    pub(super) id: AgentId,
    pub(super) log: LogId,
    pub(super) cursor: Offset,
    /// Of a channel's log.
    pub(super) watched: Option<Arc<ChannelMonitor>>,
    pub(super) watch: Option<Watch>,
    pub(super) gauge: Option<Arc<Gauge>>,
    /// It reads no further: it was removed, or the log is not for it.
    pub(super) is_over: bool,
}

/// Why a subscription ended.
enum Ended {
    /// Its session did, or the agent left.
    Later,
    /// The target asked to try again after this time.
    Again(Duration),
    /// There is nothing more for this reader.
    Over,
}

impl Reader {
    /// Reads as long as the session lasts. `since` is when the subscription was planned; without one it goes on from an earlier session,
    /// and what comes counts as delivered from its planned time, however late it is.
    pub(super) async fn run<T: Target>(
        mut self,
        shared: Arc<Shared<T>>,
        session: T::Session,
        since: Option<Duration>,
        leave: CancellationToken,
    ) -> Self {
        if let Some(gauge) = &self.gauge {
            gauge.reads.store(true, Ordering::Relaxed);
        }
        let ended = tokio::select! {
            biased;
            () = leave.cancelled() => Ended::Later,
            ended = self.read_on(&shared, &session, since) => ended,
        };
        if matches!(ended, Ended::Over) {
            self.is_over = true;
            self.finish();
            self.goes_away();
        }
        // Where its session was lost it is still to read all.
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

    async fn read_on<T: Target>(
        &mut self,
        shared: &Shared<T>,
        session: &T::Session,
        mut since: Option<Duration>,
    ) -> Ended {
        loop {
            match self.read(shared, session, &mut since).await {
                Ended::Again(after) => tokio::time::sleep(after).await,
                ended => return ended,
            }
        }
    }

    /// Takes `since` when the reader has come to the head.
    async fn read<T: Target>(
        &mut self,
        shared: &Shared<T>,
        session: &T::Session,
        since: &mut Option<Duration>,
    ) -> Ended {
        let (mut is_at_head, mut missed) = (since.is_none(), 0);
        let mut reading = match session.read(self.log, self.cursor, true).await {
            Ok(reading) => reading,
            Err(failed) => return self.refused(shared, &failed),
        };
        loop {
            match reading.next().await {
                Ok(Some(Read::Entries(entries))) => {
                    if !is_at_head {
                        missed += entries.len() as u64;
                    }
                    self.take(shared, &entries, is_at_head);
                }
                Ok(Some(Read::CaughtUp)) => {
                    is_at_head = true;
                    if let Some(planned) = since.take()
                        && self.watch.is_some()
                    {
                        shared.caught_up(self.agent, planned, missed);
                    }
                }
                // Without a reason: the reader is not to follow any more.
                Ok(None) => return Ended::Over,
                Err(failed) => return self.refused(shared, &failed),
            }
        }
    }

    fn refused<T: Target>(&mut self, shared: &Shared<T>, failed: &crate::target::Failed) -> Ended {
        if !failed.is_refusal {
            return Ended::Later;
        }
        match failed.code {
            // A member that is removed is told so at the end of what it may read.
            Code::NotMember => Ended::Over,
            Code::Trimmed => {
                // What is gone is gone: a reader goes on after it.
                shared.refused(self.agent, failed.code);
                if let Some(watched) = &self.watched {
                    self.watch = Some(watched.reader(self.id, failed.offset));
                }
                self.cursor = Offset::new(failed.offset.get().saturating_sub(1));
                Ended::Again(Duration::ZERO)
            }
            code => {
                shared.refused(self.agent, code);
                tracing::debug!(agent = self.agent, log = %self.log, %failed, "subscription refused");
                if code.is_retryable() {
                    Ended::Again(failed.retry_after.unwrap_or(AGAIN_AFTER))
                } else {
                    Ended::Over
                }
            }
        }
    }

    fn take<T: Target>(&mut self, shared: &Shared<T>, entries: &[(Offset, Frame)], is_at_head: bool) {
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
        add(&shared.tallies.delivered, entries.len() as u64);
        add(&shared.tallies.delivered_bytes, bytes);
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
