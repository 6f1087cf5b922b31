//! Writes a workload file.

use super::head::{Header, Last, Totals};
use super::line;
use crate::event::{Agent, Channel, Event, Frame, Log, What};
use flate2::Compression;
use flate2::write::GzEncoder;
use std::io::{self, Seek, SeekFrom, Write};
use std::time::Duration;

/// Events in one gzip member, unless a flush ends it earlier.
const MEMBER_EVENTS: usize = 65_536;

/// Reason why a workload cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The file cannot be written.
    #[error("cannot write the workload: {0}")]
    Io(#[from] io::Error),
    /// Events must come in the order of their times.
    #[error("an event at {at:?} after one at {before:?}")]
    Order {
        /// The event's time.
        at: Duration,
        /// The time of the event before it.
        before: Duration,
    },
}

/// A workload file that is being written.
#[derive(Debug)]
pub struct Writer<W: Write> {
    out: W,
    member: Vec<u8>,
    events_in_member: usize,
    before: Duration,
    totals: Totals,
    compression: Compression,
}

impl<W: Write> Writer<W> {
    /// Begins a file with its header.
    pub fn new(out: W, header: &Header) -> Result<Self, WriteError> {
        Self::compressed(out, header, Compression::best())
    }

    /// The same for callers with less time than space.
    pub(crate) fn fast(out: W, header: &Header) -> Result<Self, WriteError> {
        Self::compressed(out, header, Compression::fast())
    }

    fn compressed(mut out: W, header: &Header, compression: Compression) -> Result<Self, WriteError> {
        write_member(&mut out, &json(header)?, compression)?;
        Ok(Self {
            out,
            member: Vec::new(),
            events_in_member: 0,
            before: Duration::ZERO,
            totals: Totals::default(),
            compression,
        })
    }

    /// Returns its output.
    pub(crate) const fn out(&mut self) -> &mut W {
        &mut self.out
    }

    /// Bytes of events that no flush has written yet.
    pub(crate) const fn waiting_bytes(&self) -> usize {
        self.member.len()
    }

    /// Adds an event.
    pub fn write(&mut self, event: &Event) -> Result<(), WriteError> {
        if event.at < self.before {
            return Err(WriteError::Order {
                at: event.at,
                before: self.before,
            });
        }
        // Times are written in whole microseconds: rounding must not add up.
        let at = Duration::from_micros(u64::try_from(event.at.as_micros()).unwrap_or(u64::MAX));
        line::encode(at.saturating_sub(self.before), &event.what, &mut self.member);
        self.before = at;
        self.totals.add(at, &event.what);
        self.events_in_member += 1;
        if self.events_in_member >= MEMBER_EVENTS {
            self.flush()?;
        }
        Ok(())
    }

    /// Ends the gzip member: the file up to here can be read, no matter what follows.
    pub fn flush(&mut self) -> Result<(), WriteError> {
        if !self.member.is_empty() {
            write_member(&mut self.out, &self.member, self.compression)?;
            self.member.clear();
            self.events_in_member = 0;
        }
        Ok(self.out.flush()?)
    }

    /// Returns the totals so far.
    pub const fn totals(&self) -> &Totals {
        &self.totals
    }

    /// Writes the last line.
    pub fn finish(mut self) -> Result<(W, Totals), WriteError> {
        self.end()?;
        Ok((self.out, self.totals))
    }

    /// Writes the last line. Nothing may be written after it.
    pub(crate) fn end(&mut self) -> Result<(), WriteError> {
        self.flush()?;
        let last = Last {
            totals: self.totals.clone(),
        };
        write_member(&mut self.out, &json(&last)?, self.compression)?;
        Ok(self.out.flush()?)
    }
}

/// Writes a whole file whose header tells the totals too: `events` go to `scratch` first, and then the header is made.
pub fn write_whole<E: From<WriteError>>(
    mut out: impl Write,
    mut scratch: impl Write + io::Read + Seek,
    header: impl FnOnce() -> Header,
    events: impl FnOnce(&mut Writer<&mut dyn Write>) -> Result<(), E>,
) -> Result<Totals, E> {
    let to_scratch: &mut dyn Write = &mut scratch;
    let mut writer = Writer {
        out: to_scratch,
        member: Vec::new(),
        events_in_member: 0,
        before: Duration::ZERO,
        totals: Totals::default(),
        compression: Compression::best(),
    };
    events(&mut writer)?;
    let (_, totals) = writer.finish()?;
    let mut header = header();
    header.totals = Some(totals.clone());
    let io = |error: io::Error| E::from(error.into());
    write_member(&mut out, &json(&header)?, Compression::best()).map_err(io)?;
    scratch.seek(SeekFrom::Start(0)).map_err(io)?;
    io::copy(&mut scratch, &mut out).map_err(io)?;
    out.flush().map_err(io)?;
    Ok(totals)
}

fn json(value: &impl serde::Serialize) -> Result<Vec<u8>, WriteError> {
    let mut text = serde_json::to_vec(value).map_err(io::Error::from)?;
    text.push(b'\n');
    Ok(text)
}

fn write_member(out: &mut impl Write, text: &[u8], compression: Compression) -> io::Result<()> {
    let mut encoder = GzEncoder::new(out, compression);
    encoder.write_all(text)?;
    encoder.finish().map(|_| ())
}

impl Totals {
    /// Counts an event.
    pub(super) fn add(&mut self, at: Duration, what: &What) {
        self.events += 1;
        self.duration_us = u64::try_from(at.as_micros()).unwrap_or(u64::MAX);
        match self.kinds.get_mut(what.kind()) {
            Some(count) => *count += 1,
            None => {
                self.kinds.insert(what.kind().to_owned(), 1);
            }
        }
        if let What::Append { body_bytes, .. } = what {
            self.body_bytes += u64::from(*body_bytes);
        }
        let (mut agent, mut channel) = (None, None);
        what.names(
            |Agent(index)| agent = agent.max(Some(index)),
            |Channel(index)| channel = channel.max(Some(index)),
        );
        let count = |highest: Option<u32>| highest.map_or(0, |index| index.saturating_add(1));
        self.agents = self.agents.max(count(agent));
        self.channels = self.channels.max(count(channel));
    }
}

impl What {
    /// Gives each agent and channel that the event names.
    pub fn names(&self, mut agent: impl FnMut(Agent), mut channel: impl FnMut(Channel)) {
        match self {
            Self::Append { author, frame, .. } => {
                agent(*author);
                if let Some(of) = frame.channel() {
                    channel(of);
                }
                match frame {
                    Frame::Commit {
                        adds,
                        removes,
                        recipients,
                        ..
                    } => [adds, removes, recipients]
                        .into_iter()
                        .flatten()
                        .copied()
                        .for_each(agent),
                    Frame::Claim(of) => agent(*of),
                    _ => {}
                }
            }
            Self::Connect(of) | Self::Disconnect(of) | Self::Token(of) | Self::Refused { agent: of, .. } => agent(*of),
            Self::Subscribe { agent: of, log, .. } => {
                agent(*of);
                match log {
                    Log::Channel(of) => channel(*of),
                    Log::Agent(of) => agent(*of),
                }
            }
        }
    }
}
