//! A tap: what a node saw, written down as it ran.
//!
//! ```text
//!   facts ── numbers ──> events ── sorted by time ──> tap-<unix ms>-<number>.skw, the oldest removed
//! ```
//!
//! A node tells facts as they come out: an append when its log has accepted it, with the time when it arrived. So facts come a little
//! out of order. They are held for a moment, put in order, and written as one gzip member about once a second: a process that is killed
//! loses about a second.
//!
//! Files hold numbers, as every workload does: see [`Pseudonyms`](crate::Pseudonyms). Numbers of all files of one life
//! ([`Part`]) are the same agents and channels.

mod fact;
mod folder;
mod numbers;

pub use fact::{Fact, Observed, Shape};
pub use folder::TapLimits;

use crate::event::{Event, What};
use crate::file::{Header, Part, Source, WriteError};
use crate::ids::NoRandomness;
use folder::Folder;
use numbers::Numbers;
use skytale_proto::AgentId;
use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// Interval at which events go to the disk.
const FLUSH_EVERY: Duration = Duration::from_millis(700);
/// Time for which an event waits for others that were before it.
const HOLD: Duration = Duration::from_millis(250);
/// Events that wait at once. With more they are written as they are.
const PENDING_MAX: usize = 65_536;
/// Events for which there is memory when there is little to do.
const PENDING_KEPT: usize = 1_024;
/// Pause of a tap that failed before it tries again.
const RETRY_EVERY: Duration = Duration::from_secs(5);
/// Ids of one life. With more another life begins, with other numbers.
const IDS_MAX: usize = 1_000_000;

/// A tap that cannot write.
#[derive(Debug, thiserror::Error)]
#[error("cannot write the tap in {dir}: {source}", dir = .dir.display())]
pub struct TapError {
    /// The folder.
    pub dir: PathBuf,
    /// The reason.
    pub source: WriteError,
}

/// Result of a turn for the events.
#[derive(Debug, Default)]
pub struct Turn {
    /// Events that came to the disk.
    pub written: u64,
    /// Events that are lost.
    pub dropped: u64,
    /// The reason, if the disk failed now. The tap tries again by itself.
    pub error: Option<TapError>,
}

/// Writes a tap. It has no clock: times are from its start, and the caller gives them.
pub struct TapWriter {
    made_by: String,
    /// Unix milliseconds of the start.
    start_ms: u64,
    folder: Folder,
    life: Life,
    numbers: Numbers,
    /// The session of each agent that is connected.
    sessions: HashMap<AgentId, u64>,
    /// Events that wait; `None` once they are written.
    pending: Vec<(Duration, Option<What>)>,
    /// Their times in microseconds and places, to be sorted: events are large.
    order: Vec<(u64, u32)>,
    /// The time of the last event that was written.
    last: Duration,
    flushed: Duration,
    retry_at: Option<Duration>,
    /// Events that are neither on the disk nor lost.
    waiting: u64,
    dropped: u64,
}

#[derive(Debug)]
struct Life {
    begins: Duration,
    parts: u32,
}

impl fmt::Debug for TapWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TapWriter")
            .field("folder", &self.folder)
            .field("life", &self.life)
            .field("numbers", &self.numbers)
            .finish_non_exhaustive()
    }
}

impl TapWriter {
    /// A tap into a folder. Nothing is touched before the first event. `made_by` is what headers say, and `start_ms` is the start in
    /// unix milliseconds.
    pub fn new(
        dir: PathBuf,
        limits: TapLimits,
        made_by: impl Into<String>,
        start_ms: u64,
    ) -> Result<Self, NoRandomness> {
        Ok(Self {
            made_by: made_by.into(),
            start_ms,
            folder: Folder::new(dir, limits),
            life: Life {
                begins: Duration::ZERO,
                parts: 0,
            },
            numbers: Numbers::new()?,
            sessions: HashMap::new(),
            pending: Vec::new(),
            order: Vec::new(),
            last: Duration::ZERO,
            flushed: Duration::ZERO,
            retry_at: None,
            waiting: 0,
            dropped: 0,
        })
    }

    /// Takes a fact.
    pub fn observe(&mut self, observed: Observed) {
        let Observed { at, fact } = observed;
        match &fact {
            Fact::Connect { agent, session } => match self.sessions.get(agent) {
                // A later session's fact came before.
                Some(other) if other > session => return,
                other => {
                    if let Some(session) = other.copied() {
                        let agent = *agent;
                        self.add(at, &Fact::Disconnect { agent, session });
                    }
                    self.sessions.insert(*agent, *session);
                }
            },
            Fact::Disconnect { agent, session } => {
                if self.sessions.get(agent) != Some(session) {
                    return;
                }
                self.sessions.remove(agent);
            }
            _ => {}
        }
        self.add(at, &fact);
    }

    fn add(&mut self, at: Duration, fact: &Fact) {
        if self.retry_at.is_some() {
            self.dropped += 1;
        } else if let Some(what) = self.numbers.event(fact) {
            self.pending.push((at, Some(what)));
            self.waiting += 1;
        }
    }

    /// Writes events that are due. To be called often: some twenty times a second.
    pub fn turn(&mut self, now: Duration) -> Turn {
        if self.retry_at.is_some_and(|at| now >= at) {
            self.retry_at = None;
        }
        let is_full = self.pending.len() >= PENDING_MAX;
        let written = if is_full || now.saturating_sub(self.flushed) >= FLUSH_EVERY {
            self.flushed = now;
            self.write(if is_full { now } else { now.saturating_sub(HOLD) })
        } else {
            Ok(())
        };
        let written = written.and_then(|()| self.renew(now, IDS_MAX));
        self.told(written, now)
    }

    /// Writes everything, and ends the last file with its totals.
    pub fn finish(mut self, now: Duration) -> Turn {
        let written = self.write(Duration::MAX).and_then(|()| self.folder.close());
        self.told(written, now)
    }

    fn told(&mut self, written: Result<(), WriteError>, now: Duration) -> Turn {
        let on_disk = self.folder.take_written();
        self.waiting -= on_disk;
        let error = written.err().map(|source| {
            self.folder.abandon();
            self.pending.clear();
            self.dropped += std::mem::replace(&mut self.waiting, 0);
            self.retry_at = Some(now + RETRY_EVERY);
            TapError {
                dir: self.folder.dir().to_owned(),
                source,
            }
        });
        Turn {
            written: on_disk,
            dropped: std::mem::replace(&mut self.dropped, 0),
            error,
        }
    }

    /// Writes the events up to a time.
    fn write(&mut self, until: Duration) -> Result<(), WriteError> {
        let is_little = self.pending.len() < self.pending.capacity() / 8;
        let mut order = std::mem::take(&mut self.order);
        order.clear();
        let times = self.pending.iter().map(|(at, _)| *at).zip(0..);
        order.extend(
            times
                .filter(|(at, _)| *at <= until)
                .map(|(at, place)| (micros(at), place)),
        );
        order.sort_unstable();
        for (at, place) in &order {
            let what = self.pending.get_mut(*place as usize).and_then(|(_, what)| what.take());
            let Some(what) = what else { continue };
            self.last = self.last.max(Duration::from_micros(*at));
            self.write_one(self.last, what)?;
        }
        self.order = order;
        self.pending.retain(|(_, what)| what.is_some());
        if is_little {
            self.pending.shrink_to(PENDING_KEPT);
            self.order.shrink_to(PENDING_KEPT);
        }
        self.folder.flush()
    }

    fn write_one(&mut self, at: Duration, what: What) -> Result<(), WriteError> {
        if !self.folder.is_open() {
            // Whole milliseconds, as the header says: times of one life fit together to the microsecond.
            let begins = Duration::from_millis(millis(at));
            let header = Header {
                start_ms: Some(self.start_ms.saturating_add(millis(begins))),
                part: Some(Part {
                    life_ms: self.start_ms.saturating_add(millis(self.life.begins)),
                    number: self.life.parts,
                }),
                ..Header::new(Source::Tap, self.made_by.clone())
            };
            self.life.parts = self.life.parts.saturating_add(1);
            self.folder.open(&header, begins)?;
        }
        self.folder.write(Event { at, what })
    }

    /// Begins another life if this one has too many ids.
    fn renew(&mut self, now: Duration, ids_max: usize) -> Result<(), WriteError> {
        if self.numbers.len() < ids_max {
            return Ok(());
        }
        // Without random bytes the life goes on.
        let Ok(numbers) = Numbers::new() else { return Ok(()) };
        self.write(Duration::MAX)?;
        self.folder.close()?;
        self.numbers = numbers;
        self.life = Life { begins: now, parts: 0 };
        if self.sessions.len() > ids_max {
            self.sessions.clear();
        }
        Ok(())
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
