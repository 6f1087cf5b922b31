//! The footer of a sealed segment: which logs it holds, where their entries are, and how far a replica was.
//!
//! ```text
//!  footer record: kind 4, offset = last batch number, time_ms = the newest entry's time
//!    payload: logs u32 | logs x (log id, first offset u64, state at u32, entries u32, entries x at u32)
//!           | positions after the last batch, from version 2 on, in a replica alone (position.rs)
//! ```
//!
//! An `at` of 0 is "not here". Opening a store reads trailers, and a replica the last footer; retention reads the
//! footers of segments that it drops. Persisted: keep stable.

use super::super::batch::Batch;
use super::super::position::{MarkPositions, Positions};
use super::trailer::{Mix, Trailer};
use super::{KIND_FOOTER, OWN_PAYLOAD_BYTES_MAX, SegmentHeader, Step, take, take_log, take_u32, take_u64};
use bytes::{BufMut as _, Bytes, BytesMut};
use skytale_proto::{LogId, Offset, Record, record};
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

/// The logs of a sealed segment.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(crate) struct Footer {
    pub(crate) logs: Vec<FooterLog>,
    /// Positions of a replica after the last batch. `None` where the footer cannot tell: it is of version 1.
    pub(crate) positions: Option<MarkPositions>,
}

/// A log in a sealed segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FooterLog {
    pub(crate) log: LogId,
    /// The first entry's offset here.
    pub(crate) first: Offset,
    /// Position of its last state; 0 if there is none.
    pub(crate) state_at: u32,
    /// Positions of the entries, one after another; 0 for one that was damaged when the segment was sealed.
    pub(crate) entries: Vec<u32>,
}

impl FooterLog {
    /// The last entry's offset here, if there are entries.
    pub(crate) fn last(&self) -> Option<Offset> {
        let count = u64::try_from(self.entries.len()).unwrap_or(u64::MAX);
        (count > 0).then(|| Offset::new(self.first.get().saturating_add(count - 1)))
    }
}

impl Footer {
    /// Reads and checks the footer at a place of a file of `length` bytes with this trailer.
    pub(super) fn read(file: &File, at: u32, length: u64, trailer: &Trailer) -> io::Result<Option<Self>> {
        let end = length.saturating_sub(u64::from(trailer.encoded_len()));
        let bytes = end.saturating_sub(u64::from(at));
        let Some(bytes) = usize::try_from(bytes)
            .ok()
            .filter(|bytes| *bytes <= OWN_PAYLOAD_BYTES_MAX)
        else {
            return Ok(None);
        };
        let mut buffer = vec![0; bytes];
        file.read_exact_at(&mut buffer, u64::from(at))?;
        let record = Record::decode(&Bytes::from(buffer), OWN_PAYLOAD_BYTES_MAX);
        Ok(record
            .ok()
            .and_then(|(record, _)| Self::decode(&record, trailer.version)))
    }

    fn decode(record: &Record, version: u32) -> Option<Self> {
        let mut rest: &[u8] = &record.payload;
        if record.kind != KIND_FOOTER {
            return None;
        }
        let count = take_u32(&mut rest)?;
        if rest.len() < count as usize * 33 {
            return None;
        }
        let logs = (0..count)
            .map(|_| {
                let (log, first) = (take_log(&mut rest)?, Offset::new(take_u64(&mut rest)?));
                let (state_at, entries) = (take_u32(&mut rest)?, take_u32(&mut rest)?);
                let (ats, _) = take(&mut rest, entries as usize * 4)?.as_chunks::<4>();
                Some(FooterLog {
                    log,
                    first,
                    state_at,
                    entries: ats.iter().map(|at| u32::from_le_bytes(*at)).collect(),
                })
            })
            .collect::<Option<Vec<_>>>()?;
        let positions = match version {
            1 => None,
            _ => Some(MarkPositions::decode(&mut rest)?),
        };
        rest.is_empty().then_some(Self { logs, positions })
    }
}

/// Gathers a footer while a segment is written.
#[derive(Debug, Default)]
pub(crate) struct FooterBuilder {
    /// The place of each log in `logs`.
    places: HashMap<LogId, usize>,
    logs: Vec<FooterLog>,
    first_batch: u64,
    last_batch: u64,
    newest_ms: u64,
    /// The time of the last batch, and of the first one with an entry.
    batch_ms: u64,
    entries_since_ms: Option<u64>,
    /// The place of the last entry's log, and how often that changed.
    last_log: Option<usize>,
    runs: u32,
    /// Positions of a replica, from the first mark on that gives all of them.
    positions: Option<Positions>,
}

impl FooterBuilder {
    /// Takes a batch that was written.
    pub(crate) fn add(&mut self, batch: &Batch) {
        self.batch(batch.number, batch.time_ms);
        // A log is looked for once, not with each entry.
        let places: Vec<usize> = batch.logs.iter().map(|log| self.place(log.log, log.first)).collect();
        for entry in &batch.entries {
            self.entry_at(places[entry.log as usize], entry.offset, batch.start + entry.at);
        }
        for (log, at) in &batch.states {
            let log = &batch.logs[*log as usize];
            self.state(log.log, log.head, *at);
        }
    }

    pub(crate) fn batch(&mut self, number: u64, time_ms: u64) {
        if self.first_batch == 0 {
            self.first_batch = number;
        }
        self.last_batch = number;
        self.newest_ms = self.newest_ms.max(time_ms);
        self.batch_ms = time_ms;
    }

    pub(crate) fn entry(&mut self, log: LogId, offset: Offset, at: u32) {
        let place = self.place(log, offset);
        self.entry_at(place, offset, at);
    }

    fn entry_at(&mut self, place: usize, offset: Offset, at: u32) {
        self.entries_since_ms.get_or_insert(self.batch_ms);
        if self.last_log.replace(place) != Some(place) {
            self.runs += 1;
        }
        let seen = &mut self.logs[place];
        if seen.entries.is_empty() {
            seen.first = offset;
        }
        // A hole is a stretch that was damaged when the segment was read; it is at most as long as the segment.
        let index = offset.get().saturating_sub(seen.first.get());
        let hole = usize::try_from(index)
            .unwrap_or(usize::MAX)
            .saturating_sub(seen.entries.len());
        if hole < super::super::config::SEGMENT_BYTES_MAX as usize / record::HEADER_BYTES {
            seen.entries.extend(std::iter::repeat_n(0, hole));
            seen.entries.push(at);
        }
    }

    pub(crate) fn state(&mut self, log: LogId, head: Offset, at: u32) {
        let place = self.place(log, head.next());
        self.logs[place].state_at = at;
    }

    /// Takes what a scan found.
    pub(crate) fn take(&mut self, step: &Step) {
        match step {
            Step::Batch {
                number,
                time_ms,
                positions,
                ..
            } => {
                self.batch(*number, *time_ms);
                if positions.complete {
                    self.positions.get_or_insert_default();
                }
                if let Some(known) = &mut self.positions {
                    known.take(positions.clone());
                }
            }
            Step::Entry { at, log, record } => self.entry(*log, record.offset, *at),
            Step::State { at, log, record } => self.state(*log, record.offset, *at),
            _ => {}
        }
    }

    /// The footer as far as it was gathered.
    pub(crate) fn footer(&self) -> Footer {
        let mut logs = self.logs.clone();
        logs.sort_unstable_by_key(|log| log.log);
        Footer {
            logs,
            positions: Some(self.mark_positions()),
        }
    }

    /// Positions of a replica after the last batch; `None` where no batch gave all of them.
    pub(crate) const fn positions(&self) -> Option<&Positions> {
        self.positions.as_ref()
    }

    /// Sets the positions of a replica after the last batch.
    pub(crate) fn set_positions(&mut self, positions: &Positions) {
        self.positions = Some(positions.clone());
    }

    fn mark_positions(&self) -> MarkPositions {
        self.positions
            .as_ref()
            .map_or_else(MarkPositions::default, Positions::complete)
    }

    /// Returns the time of the first entry, if there is one.
    pub(crate) const fn entries_since_ms(&self) -> Option<u64> {
        self.entries_since_ms
    }

    /// The number of the last batch.
    pub(super) const fn last_batch(&self) -> u64 {
        self.last_batch
    }

    pub(crate) const fn newest_ms(&self) -> u64 {
        self.newest_ms
    }

    pub(super) fn mix(&self) -> Mix {
        let count = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
        let with_entries = || self.logs.iter().filter(|log| !log.entries.is_empty());
        Mix {
            entries: count(with_entries().map(|log| log.entries.len()).sum()),
            logs: count(with_entries().count()),
            runs: self.runs,
        }
    }

    /// The place of a log, whose first entry here would have this offset.
    fn place(&mut self, log: LogId, first: Offset) -> usize {
        *self.places.entry(log).or_insert_with(|| {
            self.logs.push(FooterLog {
                log,
                first,
                state_at: 0,
                entries: Vec::new(),
            });
            self.logs.len() - 1
        })
    }

    /// The footer's record and the trailer, for a segment of this header whose records end at `footer_at` as they were
    /// written. `groups_at` is where the directory of a regrouped one is, else 0.
    pub(crate) fn finish(&self, footer_at: u32, groups_at: u32, header: &SegmentHeader) -> (Bytes, Trailer) {
        let mut logs: Vec<&FooterLog> = self.logs.iter().collect();
        logs.sort_unstable_by_key(|log| log.log);
        let mut payload = BytesMut::new();
        payload.put_u32_le(u32::try_from(logs.len()).unwrap_or(u32::MAX));
        for log in logs {
            payload.put_slice(&log.log.to_bytes());
            payload.put_u64_le(log.first.get());
            payload.put_u32_le(log.state_at);
            payload.put_u32_le(u32::try_from(log.entries.len()).unwrap_or(u32::MAX));
            for at in &log.entries {
                payload.put_u32_le(*at);
            }
        }
        if header.version > 1 {
            self.mark_positions().encode(&mut payload);
        }
        let trailer = Trailer {
            version: header.version,
            footer_at,
            groups_at,
            first_batch: self.first_batch,
            last_batch: self.last_batch,
            newest_ms: self.newest_ms,
            mix: (header.version > 1).then(|| self.mix()),
        };
        let mut out = BytesMut::new();
        let number = Offset::new(self.last_batch);
        record::encode_parts(KIND_FOOTER, number, self.newest_ms, &payload, &mut out);
        trailer.encode_into(&header.store, &mut out);
        (out.freeze(), trailer)
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::folder::StoreId;
    use super::super::super::position::ShardPosition;
    use super::*;
    use skytale_proto::ChannelId;

    fn gathered() -> FooterBuilder {
        let (a, b) = (
            ChannelId::from_bytes([1; 16]).log(),
            ChannelId::from_bytes([2; 16]).log(),
        );
        let mut builder = FooterBuilder::default();
        builder.batch(4, 100);
        builder.entry(a, Offset::new(5), 48);
        builder.entry(a, Offset::new(8), 200);
        builder.batch(5, 90);
        builder.state(b, Offset::new(3), 300);
        builder
    }

    #[test]
    fn a_footer_comes_back_as_it_was_gathered() -> io::Result<()> {
        let mut builder = gathered();
        let mut positions = Positions::default();
        positions.take(MarkPositions {
            complete: true,
            shards: vec![ShardPosition {
                shard: 3,
                sequence: 17,
                repeated: vec![4],
                ..ShardPosition::default()
            }],
        });
        builder.set_positions(&positions);
        for version in [1, 2] {
            let header = SegmentHeader {
                version,
                ..SegmentHeader::new(1, StoreId([7; 16]), 0)
            };
            let (bytes, trailer) = builder.finish(48, 0, &header);
            let file = tempfile::tempfile()?;
            file.write_all_at(&bytes, 48)?;
            let length = 48 + bytes.len() as u64;
            assert_eq!(Trailer::read(&file, length, &header)?, Some(trailer));
            assert_eq!(
                (trailer.first_batch, trailer.last_batch, trailer.newest_ms),
                (4, 5, 100)
            );
            let footer = Footer::read(&file, 48, length, &trailer)?.expect("a footer");
            assert_eq!(footer.logs[0].entries, [48, 0, 0, 200]);
            assert_eq!(footer.logs[0].last(), Some(Offset::new(8)));
            assert_eq!((footer.logs[1].state_at, footer.logs[1].last()), (300, None));
            assert_eq!(footer.positions, (version == 2).then(|| positions.complete()));
        }
        Ok(())
    }

    #[test]
    fn a_trailer_of_another_store_or_version_is_none() -> io::Result<()> {
        let header = SegmentHeader::new(1, StoreId([7; 16]), 0);
        let (bytes, _) = gathered().finish(48, 0, &header);
        let file = tempfile::tempfile()?;
        file.write_all_at(&bytes, 48)?;
        for other in [
            SegmentHeader { version: 1, ..header },
            SegmentHeader::new(1, StoreId([8; 16]), 0),
        ] {
            assert_eq!(Trailer::read(&file, 48 + bytes.len() as u64, &other)?, None);
        }
        Ok(())
    }
}
