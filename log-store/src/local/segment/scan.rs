//! Reads a segment from a place to its end, record by record, in bounded memory.
//!
//! Records that a mark announces are known by log, offset and place, so that a damaged record is named and stepped
//! over. After a damaged mark the scan goes on at the next mark of this store; marks carry the store's id, which no
//! author knows, so that nothing inside a frame's body can pass for one. A regrouped segment gives the same steps as
//! before: in the order and with the positions in which its records were written.

use super::super::folder::StoreId;
use super::super::position::MarkPositions;
use super::source::{Source, Wanted};
use super::{HEADER_BYTES, KIND_FOOTER, KIND_MARK, KIND_STATE, Mark, OWN_PAYLOAD_BYTES_MAX, SegmentFile};
use skytale_proto::record::{self, KIND_ENTRY};
use skytale_proto::{LogId, Offset, Record};
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

/// Next finding of a scan.
pub(crate) enum Step {
    /// A batch begins.
    Batch {
        at: u32,
        number: u64,
        time_ms: u64,
        positions: MarkPositions,
    },
    /// All records of the batch have been given. Not whole is one that a crash cut off, with others after it.
    BatchEnd { at: u32, whole: bool },
    /// An entry, whole. Its frame is not decoded yet.
    Entry { at: u32, log: LogId, record: Record },
    /// A log's state, whole.
    State { at: u32, log: LogId, record: Record },
    /// An entry whose bytes are damaged.
    Damaged {
        at: u32,
        log: LogId,
        offset: Offset,
        why: String,
    },
    /// A log's state whose bytes are damaged.
    DamagedState { at: u32, log: LogId, why: String },
    /// Bytes that may have held entries, of which logs nobody can say.
    Lost { at: u32, to: u32, why: String },
    /// Nothing follows.
    End(End),
}

/// End of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// A footer at this place.
    Footer { at: u32 },
    /// Records end here; nothing but reserved space follows.
    Clean { at: u32 },
    /// Records end here; a batch follows that a crash cut off.
    Torn { at: u32 },
}

/// Conclusion about a segment's end from its place in the sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    /// Sealed: records end at the footer, and everything before it was synced.
    Sealed { footer_at: u32 },
    /// Sealed, but its trailer is damaged.
    SealedUnknown,
    /// The last one: its last batch may be cut off.
    Last,
}

/// A record that the current mark announces.
struct Announced {
    log: LogId,
    length: u32,
    offset: Offset,
    state: bool,
}

impl Announced {
    const fn wanted(&self) -> Wanted {
        if self.state {
            return Wanted::State;
        }
        Wanted::Entry {
            log: self.log,
            offset: self.offset,
        }
    }
}

/// A scan of one segment.
pub(crate) struct Scan {
    source: Source,
    store: StoreId,
    extent: Extent,
    at: u32,
    batch: u64,
    in_batch: bool,
    announced: VecDeque<Announced>,
    /// The next mark after a damaged place, once looked for.
    next_mark: Option<Option<u32>>,
    ended: bool,
}

impl Scan {
    /// A scan from `from`, which is the beginning of a batch (or 0 for the first), after batch number `batch`.
    pub(crate) fn new(
        segment: Arc<SegmentFile>,
        store: StoreId,
        extent: Extent,
        from: u32,
        batch: u64,
    ) -> io::Result<Self> {
        let end = match extent {
            Extent::Sealed { footer_at } => Some(footer_at),
            Extent::SealedUnknown | Extent::Last => None,
        };
        Ok(Self {
            source: Source::new(segment, &store, end)?,
            store,
            extent,
            at: from.max(HEADER_BYTES),
            batch,
            in_batch: false,
            announced: VecDeque::new(),
            next_mark: None,
            ended: false,
        })
    }

    /// The last batch begun.
    pub(crate) const fn batch(&self) -> u64 {
        self.batch
    }

    /// Returns the next step; `None` after the end.
    pub(crate) fn next(&mut self) -> io::Result<Option<Step>> {
        if self.ended {
            return Ok(None);
        }
        let step = match self.announced.pop_front() {
            Some(announced) => self.announced_record(announced)?,
            None if self.in_batch => {
                self.in_batch = false;
                Step::BatchEnd {
                    at: self.at,
                    whole: true,
                }
            }
            None => self.mark_or_end()?,
        };
        self.ended = matches!(step, Step::End(_));
        Ok(Some(step))
    }

    fn announced_record(&mut self, announced: Announced) -> io::Result<Step> {
        let at = self.at;
        let length = record::HEADER_BYTES as u32 + announced.length;
        let wanted = announced.wanted();
        let mut record = self.record_at(at, wanted)?;
        if !record.as_ref().is_ok_and(|record| fits(record, &announced)) && self.source.relocate(wanted)? {
            record = self.record_at(at, wanted)?;
        }
        let why = match record {
            Ok(record) if fits(&record, &announced) => {
                self.source.passed(wanted, length);
                self.at += length;
                return Ok(if announced.state {
                    Step::State {
                        at,
                        log: announced.log,
                        record,
                    }
                } else {
                    Step::Entry {
                        at,
                        log: announced.log,
                        record,
                    }
                });
            }
            // A batch that recovery cut short: the next one begins where its rest would be.
            Ok(record) if self.is_next_mark(&record) => {
                self.announced.clear();
                self.in_batch = false;
                return Ok(Step::BatchEnd { at, whole: false });
            }
            Ok(record) if record.kind == KIND_FOOTER => {
                self.announced.clear();
                self.in_batch = false;
                return Ok(Step::BatchEnd { at, whole: false });
            }
            Ok(_) => "another record than its mark announces".to_owned(),
            Err(why) => why,
        };
        if at >= self.source.end && self.extent != Extent::Last {
            // Cut short by recovery, then sealed.
            self.announced.clear();
            self.in_batch = false;
            return Ok(Step::BatchEnd { at, whole: false });
        }
        if self.extent == Extent::Last && self.find_next_mark(at)?.is_none() {
            self.announced.clear();
            return self.cut_off(at);
        }
        self.source.passed(wanted, length);
        self.at = at.saturating_add(length);
        if self.next_mark.flatten().is_some_and(|mark| self.at > mark) {
            self.at = self.next_mark.flatten().unwrap_or(self.at);
            self.announced.clear();
        }
        Ok(if announced.state {
            Step::DamagedState {
                at,
                log: announced.log,
                why,
            }
        } else {
            Step::Damaged {
                at,
                log: announced.log,
                offset: announced.offset,
                why,
            }
        })
    }

    fn mark_or_end(&mut self) -> io::Result<Step> {
        let at = self.at;
        if at >= self.source.end {
            return Ok(Step::End(match self.extent {
                Extent::Sealed { footer_at } => End::Footer { at: footer_at },
                Extent::SealedUnknown | Extent::Last => End::Clean {
                    at: at.min(self.source.end),
                },
            }));
        }
        let why = match self.record_at(at, Wanted::Mark)? {
            Ok(record) if self.is_next_mark(&record) => match Mark::decode(&record, &self.store) {
                Some(mark) => return Ok(self.begin(at, mark, &record)),
                None => "not a mark of this store".to_owned(),
            },
            Ok(record) if record.kind == KIND_FOOTER => return Ok(Step::End(End::Footer { at })),
            Ok(_) => "no mark where a batch should begin".to_owned(),
            Err(why) => why,
        };
        // The reserved space of the last segment, most times: no mark is looked for in there.
        if self.extent == Extent::Last && self.source.zeroes_from(at)? {
            return Ok(Step::End(End::Clean { at }));
        }
        match self.find_next_mark(at)? {
            Some(mark) => {
                self.at = mark;
                Ok(Step::Lost { at, to: mark, why })
            }
            None if self.extent == Extent::Last => self.cut_off(at),
            None if self.source.zeroes_from(at)? => Ok(Step::End(End::Clean { at })),
            None => {
                self.at = self.source.end;
                Ok(Step::Lost {
                    at,
                    to: self.source.end,
                    why,
                })
            }
        }
    }

    /// The end of the last segment: reserved space, or a torn batch.
    fn cut_off(&mut self, at: u32) -> io::Result<Step> {
        Ok(Step::End(
            if self.source.zeroes_from(at)? && self.announced.is_empty() && !self.in_batch {
                End::Clean { at }
            } else {
                End::Torn { at }
            },
        ))
    }

    fn begin(&mut self, at: u32, mark: Mark, record: &Record) -> Step {
        let mut next: Vec<Offset> = mark.logs.iter().map(|(_, first)| *first).collect();
        self.announced = mark
            .records
            .iter()
            .filter_map(|announced| {
                let index = announced.log as usize;
                let (log, _) = mark.logs.get(index)?;
                let next = next.get_mut(index)?;
                let offset = *next;
                if !announced.state {
                    *next = next.next();
                }
                Some(Announced {
                    log: *log,
                    length: announced.length,
                    offset,
                    state: announced.state,
                })
            })
            .collect();
        self.batch = mark.number;
        self.in_batch = true;
        self.next_mark = None;
        self.at = at + record.encoded_len() as u32;
        Step::Batch {
            at,
            number: mark.number,
            time_ms: mark.time_ms,
            positions: mark.positions,
        }
    }

    fn is_next_mark(&self, record: &Record) -> bool {
        record.kind == KIND_MARK && record.offset.get() > self.batch && record.payload.starts_with(&self.store.0)
    }

    /// The record that was written at a place, or why there is none.
    fn record_at(&mut self, at: u32, wanted: Wanted) -> io::Result<Result<Record, String>> {
        let Some(header) = self.source.record(at, wanted, record::HEADER_BYTES)? else {
            return Ok(Err("no record begins here".into()));
        };
        let (length, _) = match record::peek(&header, OWN_PAYLOAD_BYTES_MAX) {
            Ok(peeked) => peeked,
            Err(error) => return Ok(Err(error.to_string())),
        };
        let left = self.source.end.saturating_sub(at) as usize;
        if record::HEADER_BYTES + length > left || (header[8] == KIND_ENTRY && length > record::PAYLOAD_BYTES_MAX) {
            return Ok(Err("record header malformed".into()));
        }
        let Some(bytes) = self.source.record(at, wanted, record::HEADER_BYTES + length)? else {
            return Ok(Err("no record begins here".into()));
        };
        Ok(Record::decode(&bytes, OWN_PAYLOAD_BYTES_MAX)
            .map(|(record, _)| record)
            .map_err(|error| error.to_string()))
    }

    /// Returns the position of the next mark of a later batch, at or after a damaged place.
    fn find_next_mark(&mut self, from: u32) -> io::Result<Option<u32>> {
        if let Some(known) = self.next_mark
            && known.is_none_or(|mark| mark >= from)
        {
            return Ok(known);
        }
        let mut found = None;
        let mut next = from;
        while let Some(candidate) = self.source.next_candidate(next, &self.store.0)? {
            if let Ok(record) = self.record_at(candidate, Wanted::Mark)?
                && self.is_next_mark(&record)
                && Mark::decode(&record, &self.store).is_some()
            {
                found = Some(candidate);
                break;
            }
            next = candidate.saturating_add(1);
        }
        self.next_mark = Some(found);
        Ok(found)
    }
}

fn fits(record: &Record, announced: &Announced) -> bool {
    let kind = if announced.state { KIND_STATE } else { KIND_ENTRY };
    record.kind == kind
        && record.payload.len() == announced.length as usize
        && (announced.state || record.offset == announced.offset)
}
