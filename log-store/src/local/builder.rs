//! A batch in the making: frames are folded and their records laid out; nothing is durable yet.

use super::batch::{Batch, BatchEntry, BatchLog};
use super::folder::StoreId;
use super::metrics::Verdicts;
use super::segment::{KIND_STATE, Mark, MarkRecord};
use super::shared::Shared;
use super::working::{Working, WorkingSet};
use crate::{Accepted, AppendError, StoreError, Verdict};
use bytes::{Bytes, BytesMut};
use skytale_proto::record::{self, HEADER_BYTES, KIND_ENTRY};
use skytale_proto::{AgentId, Detail, Frame, FrameId, Header, Kind, LogId, Offset};
use std::sync::Arc;

/// The author of the frames that a store makes of its own accord: no agent has this key.
const STORE_AUTHOR: AgentId = AgentId::from_bytes([0; 32]);

/// A batch in the making.
pub(crate) struct BatchBuilder {
    number: u64,
    time_ms: u64,
    records: BytesMut,
    logs: Vec<BatchLog>,
    entries: Vec<BatchEntry>,
    states: Vec<(u32, u32)>,
    marks: Vec<MarkRecord>,
    pub(crate) verdicts: Verdicts,
}

impl BatchBuilder {
    pub(crate) fn new(number: u64) -> Self {
        Self {
            number,
            time_ms: 0,
            records: BytesMut::new(),
            logs: Vec::new(),
            entries: Vec::new(),
            states: Vec::new(),
            marks: Vec::new(),
            verdicts: Verdicts::default(),
        }
    }

    /// The time of all that follows in this batch, unix milliseconds.
    pub(crate) const fn set_time(&mut self, time_ms: u64) {
        self.time_ms = time_ms;
    }

    /// Whether there is nothing to write.
    pub(crate) const fn is_empty(&self) -> bool {
        self.marks.is_empty()
    }

    /// Bytes of records so far.
    pub(crate) fn bytes(&self) -> usize {
        self.records.len()
    }

    /// Folds a frame, and lays its record out if it is an entry, with the Welcomes that it causes.
    pub(crate) fn append(
        &mut self,
        shared: &Shared,
        working: &mut WorkingSet,
        frame: &Frame,
    ) -> Result<Accepted, AppendError> {
        let outcome = self.fold(shared, working, frame);
        match &outcome {
            Ok(accepted) if accepted.duplicate => self.verdicts.duplicate += 1,
            Ok(_) => self.verdicts.appended += 1,
            Err(AppendError::Refused(_)) => self.verdicts.refused += 1,
            Err(AppendError::Store(_)) => self.verdicts.failed += 1,
        }
        outcome
    }

    fn fold(&mut self, shared: &Shared, working: &mut WorkingSet, frame: &Frame) -> Result<Accepted, AppendError> {
        let header = frame.header();
        if let Some(damage) = shared.damage(&header.log)? {
            return Err(StoreError::Corrupt { place: damage.place }.into());
        }
        self.fold_undamaged(shared, working, frame)
    }

    fn fold_undamaged(
        &mut self,
        shared: &Shared,
        set: &mut WorkingSet,
        frame: &Frame,
    ) -> Result<Accepted, AppendError> {
        let header = frame.header();
        let newest = set.get(shared, header.log)?.known.newest;
        let seen = if header.id > newest {
            None
        } else {
            set.seen(shared, &header.log, &header.id)?
        };
        let working = set.get(shared, header.log)?;
        match working.known.state.apply(header, seen.map(|(offset, _)| offset)) {
            Verdict::Appended { offset, effects } => {
                self.lay_out(working, frame, offset);
                set.accepted(header.log, header.id, offset, self.time_ms);
                for welcome in effects.welcomes {
                    self.welcome(shared, set, welcome);
                }
                Ok(Accepted {
                    offset,
                    time_ms: self.time_ms,
                    duplicate: false,
                    claimed: effects.claimed,
                })
            }
            Verdict::Duplicate { offset } => Ok(Accepted {
                offset,
                time_ms: seen.map_or(self.time_ms, |(_, time_ms)| time_ms),
                duplicate: true,
                claimed: working.known.state.claimed_by(offset),
            }),
            Verdict::Refused(refused) => Err(refused.into()),
        }
    }

    /// Lays an entry's record out.
    fn lay_out(&mut self, working: &mut Working, frame: &Frame, offset: Offset) {
        let header = frame.header();
        let slot = self.slot(working, offset);
        let (at, payload) = (self.records.len(), frame.encoded());
        record::encode_parts(KIND_ENTRY, offset, self.time_ms, payload, &mut self.records);
        self.entries.push(BatchEntry {
            log: slot,
            at: at as u32,
            length: (HEADER_BYTES + payload.len()) as u32,
            offset,
            id: header.id,
        });
        self.marks.push(MarkRecord {
            log: slot,
            length: payload.len() as u32,
            state: false,
        });
        working.known.saw(header.id);
        working.unsaved += 1;
        working.changed |= !matches!(header.kind(), Kind::Message | Kind::Raw | Kind::Proposal);
        // Entries before a Trim may go at any time: the kept state must not need them.
        working.save |= header.kind() == Kind::Trim;
        let log = &mut self.logs[slot as usize];
        log.head = offset;
        log.first_available = working.known.state.first_available();
    }

    /// The log's place in this batch.
    fn slot(&mut self, working: &mut Working, first: Offset) -> u32 {
        if working.slot.0 != self.number {
            let state = &working.known.state;
            working.slot = (self.number, self.logs.len() as u32);
            self.logs.push(BatchLog {
                log: state.log(),
                first,
                head: state.head(),
                first_available: state.first_available(),
                changed: None,
            });
        }
        working.slot.1
    }

    /// Puts a Welcome on its recipient's log. One that is there already stays as it is.
    fn welcome(&mut self, shared: &Shared, set: &mut WorkingSet, welcome: Header) {
        let (log, id) = (welcome.log, welcome.id);
        let outcome = Frame::new(welcome, Bytes::new())
            .map_err(|error| error.to_string())
            .and_then(|frame| self.fold(shared, set, &frame).map_err(|error| error.to_string()));
        if let Err(error) = outcome {
            tracing::error!(%log, %id, %error, "a Welcome cannot be put on its recipient's log");
        }
    }

    /// Gives up a log's entries up to an offset, and lays its state out where `with_state` says so: before the segment
    /// that holds them is dropped.
    pub(crate) fn retire(
        &mut self,
        shared: &Shared,
        set: &mut WorkingSet,
        log: LogId,
        up_to: Option<Offset>,
        with_state: bool,
    ) -> Result<(), AppendError> {
        let first_available = set.get(shared, log)?.known.state.first_available();
        if let Some(up_to) = up_to.filter(|up_to| *up_to >= first_available) {
            let header = Header {
                log,
                id: FrameId::generate(),
                author: STORE_AUTHOR,
                parent: Offset::ZERO,
                detail: Detail::Trim { up_to },
            };
            let frame = Frame::new(header, Bytes::new()).map_err(|error| StoreError::Io {
                doing: format!("trim {log}"),
                error: error.to_string(),
            })?;
            self.fold_undamaged(shared, set, &frame)?;
        }
        if with_state {
            let working = set.get(shared, log)?;
            let head = working.known.state.head();
            let slot = self.slot(working, head.next());
            let mut payload = log.to_bytes();
            payload.extend_from_slice(&working.known.encode());
            let at = self.records.len() as u32;
            record::encode_parts(KIND_STATE, head, self.time_ms, &payload, &mut self.records);
            self.states.push((slot, at));
            self.marks.push(MarkRecord {
                log: slot,
                length: payload.len() as u32,
                state: true,
            });
        }
        Ok(())
    }

    /// Ends the batch, and begins the next one. A batch with nothing in it leaves its number to the next.
    pub(crate) fn lay(&mut self, set: &mut WorkingSet) -> Laid {
        for log in &mut self.logs {
            let working = set.peek_mut(&log.log).filter(|working| working.changed);
            log.changed = working.map(|working| Arc::new(working.known.clone()));
        }
        let saved = set.take_due(self.logs.iter().map(|log| log.log));
        let next = Self {
            // As large as this one turned out: no growing, and nothing to spare.
            records: BytesMut::with_capacity(self.records.len()),
            entries: Vec::with_capacity(self.entries.len()),
            marks: Vec::with_capacity(self.marks.len()),
            time_ms: self.time_ms,
            ..Self::new(if self.marks.is_empty() {
                self.number
            } else {
                self.number + 1
            })
        };
        let laid = std::mem::replace(self, next);
        Laid {
            number: laid.number,
            time_ms: laid.time_ms,
            records: laid.records.freeze(),
            logs: laid.logs,
            entries: laid.entries,
            states: laid.states,
            marks: laid.marks,
            saved,
            verdicts: laid.verdicts,
        }
    }
}

/// A batch, folded and laid out, and not durable yet.
pub(crate) struct Laid {
    pub(crate) number: u64,
    pub(crate) time_ms: u64,
    /// The records, to be written after the mark.
    pub(crate) records: Bytes,
    logs: Vec<BatchLog>,
    entries: Vec<BatchEntry>,
    states: Vec<(u32, u32)>,
    marks: Vec<MarkRecord>,
    /// States for the index to keep.
    pub(crate) saved: Vec<(LogId, Bytes)>,
    pub(crate) verdicts: Verdicts,
}

impl Laid {
    /// Whether there is nothing to write.
    pub(crate) const fn is_empty(&self) -> bool {
        self.marks.is_empty()
    }

    /// The mark that goes before the records.
    pub(crate) fn mark(&self, store: &StoreId) -> BytesMut {
        let logs: Vec<_> = self.logs.iter().map(|log| (log.log, log.first)).collect();
        let mut out = BytesMut::new();
        Mark::encode_parts(self.number, self.time_ms, &logs, &self.marks, store, &mut out);
        out
    }

    /// The batch, once it is durable. `mark_at` and `start` are where its mark and its first record stand.
    pub(crate) fn durable(self, segment: u32, mark_at: u32, start: u32) -> Batch {
        Batch {
            number: self.number,
            time_ms: self.time_ms,
            segment,
            mark_at,
            start,
            records: self.records,
            logs: self.logs,
            entries: self.entries,
            states: self.states.iter().map(|(log, at)| (*log, start + at)).collect(),
            saved: self.saved,
        }
    }
}
