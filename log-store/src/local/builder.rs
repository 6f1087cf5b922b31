//! A batch in the making: frames are folded and their records laid out; nothing is durable yet.

use super::batch::{Batch, BatchEntry, BatchLog};
use super::folder::StoreId;
use super::index::Seen;
use super::known::Known;
use super::metrics::Verdicts;
use super::position::{MarkPositions, ShardPosition};
use super::replica::{Follow, Followed};
use super::segment::{KIND_STATE, Mark, MarkRecord};
use super::shared::Shared;
use super::working::{Working, WorkingSet};
use crate::{Accepted, AppendError, StoreError, Verdict};
use bytes::{Bytes, BytesMut};
use skytale_proto::record::{self, HEADER_BYTES, KIND_ENTRY};
use skytale_proto::{AgentId, Detail, Frame, FrameId, Header, Kind, LogId, Offset};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The author of the frames that a store makes of its own accord: no agent has this key.
pub(crate) const STORE_AUTHOR: AgentId = AgentId::from_bytes([0; 32]);
/// Messages that a replica may follow without an entry before it notes its position all the same: those that it folds
/// again after a crash.
const POSITION_LAG_MAX: usize = 4_096;

/// A batch in the making.
pub(crate) struct BatchBuilder {
    number: u64,
    time_ms: u64,
    records: BytesMut,
    /// Bytes of the largest batch of late; it shrinks with each.
    room: usize,
    logs: Vec<BatchLog>,
    entries: Vec<BatchEntry>,
    states: Vec<(u32, u32)>,
    marks: Vec<MarkRecord>,
    /// Positions that changed.
    positions: BTreeMap<u32, ShardPosition>,
    /// Messages followed since positions were last written.
    unwritten: usize,
    pub(crate) verdicts: Verdicts,
    /// Reason why the batch cannot be written: there was no room for it.
    pub(crate) doomed: Option<StoreError>,
}

impl BatchBuilder {
    pub(crate) fn new(number: u64) -> Self {
        Self {
            number,
            time_ms: 0,
            records: BytesMut::new(),
            room: 0,
            logs: Vec::new(),
            entries: Vec::new(),
            states: Vec::new(),
            marks: Vec::new(),
            positions: BTreeMap::new(),
            unwritten: 0,
            verdicts: Verdicts::default(),
            doomed: None,
        }
    }

    /// The time of all that follows in this batch, unix milliseconds.
    pub(crate) const fn set_time(&mut self, time_ms: u64) {
        self.time_ms = time_ms;
    }

    /// Whether there is nothing that must be written now.
    pub(crate) const fn is_empty(&self) -> bool {
        self.marks.is_empty() && self.unwritten < POSITION_LAG_MAX && self.doomed.is_none()
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
        let outcome = self.fold_or_stop(shared, working, frame);
        self.verdicts.count(&outcome);
        let (accepted, welcomes) = outcome?;
        for welcome in welcomes {
            self.welcome(shared, working, welcome);
        }
        Ok(accepted)
    }

    /// Folds messages of a stream. The Welcomes that they cause are given back, except for those that their logs have
    /// already. After an error nothing of this batch may be written.
    pub(crate) fn follow(
        &mut self,
        shared: &Shared,
        set: &mut WorkingSet,
        follow: &Follow,
    ) -> Result<Vec<Followed>, StoreError> {
        let Follow { position, messages } = follow;
        let mut position = position.clone();
        let mut outcomes = Vec::with_capacity(messages.len());
        self.unwritten += messages.len();
        for message in messages {
            self.set_time(message.time_ms);
            let mut welcomes = Vec::new();
            let verdict = match &message.frame {
                None => None,
                Some(frame) => {
                    let outcome = self.fold(shared, set, frame);
                    self.verdicts.count(&outcome);
                    match outcome {
                        Ok((accepted, caused)) => {
                            for welcome in caused {
                                if set.seen(shared, &welcome.log, &welcome.id)?.is_none() {
                                    welcomes.push(welcome);
                                }
                            }
                            Some(Ok(accepted))
                        }
                        Err(AppendError::Refused(refused)) => Some(Err(refused)),
                        Err(AppendError::Store(error)) => return Err(error),
                    }
                }
            };
            if message.repeated || matches!(verdict, Some(Ok(Accepted { duplicate: true, .. }))) {
                position.repeated.push(message.sequence);
            }
            outcomes.push(Followed {
                sequence: message.sequence,
                frame: message.frame.as_ref().map(|frame| frame.header().id),
                verdict,
                welcomes,
            });
        }
        self.stand(position);
        Ok(outcomes)
    }

    /// Takes states in of logs that have none here, and where the shard is with them.
    pub(crate) fn install(
        &mut self,
        shared: &Shared,
        set: &mut WorkingSet,
        states: Vec<Known>,
        position: ShardPosition,
    ) -> Result<(), StoreError> {
        self.set_time(position.time_ms);
        for known in states {
            let log = known.state.log();
            let working = set.get(shared, log)?;
            if working.known.state.head() != Offset::ZERO {
                return Err(StoreError::Io {
                    doing: format!("install the state of {log}"),
                    error: "the replica is not empty".into(),
                });
            }
            working.known = known;
            working.changed = true;
            working.save = true;
            self.lay_state(working);
        }
        self.stand(position);
        // The position must be on disk when the caller gets it.
        self.unwritten = POSITION_LAG_MAX;
        Ok(())
    }

    fn stand(&mut self, position: ShardPosition) {
        match self.positions.get_mut(&position.shard) {
            Some(known) => known.advance(position),
            None => {
                self.positions.insert(position.shard, position);
            }
        }
    }

    /// Folds a frame, or stops the store where a state or the index cannot be read: no later frame of the log may pass
    /// this one, and no bundle is there without its Welcomes. Damage need not stop it: it is noted, and refuses whatever
    /// follows.
    fn fold_or_stop(&mut self, shared: &Shared, set: &mut WorkingSet, frame: &Frame) -> Result<Folded, AppendError> {
        let outcome = self.fold(shared, set, frame);
        match &outcome {
            Err(AppendError::Store(error @ StoreError::Io { .. })) => {
                shared.stop(format!("a frame could not be folded: {error}"));
            }
            Err(AppendError::Store(StoreError::Full { reason })) => {
                self.doomed = Some(shared.space.failed(format!("a frame could not be folded: {reason}")));
            }
            _ => {}
        }
        outcome
    }

    fn fold(&mut self, shared: &Shared, working: &mut WorkingSet, frame: &Frame) -> Result<Folded, AppendError> {
        let header = frame.header();
        if let Some(damage) = shared.damage(&header.log)? {
            return Err(StoreError::Corrupt { place: damage.place }.into());
        }
        self.fold_undamaged(shared, working, frame)
    }

    fn fold_undamaged(&mut self, shared: &Shared, set: &mut WorkingSet, frame: &Frame) -> Result<Folded, AppendError> {
        let header = frame.header();
        let mut working = set.get(shared, header.log)?;
        let mut seen = None;
        if header.id <= working.known.newest {
            seen = set.seen(shared, &header.log, &header.id)?;
            working = set.get(shared, header.log)?;
        }
        match working.known.state.apply(header, seen.map(|(offset, _)| offset)) {
            Verdict::Appended { offset, effects } => {
                self.lay_out(working, frame, offset);
                let seen = Seen {
                    id: header.id,
                    offset,
                    time_ms: self.time_ms,
                };
                if !working.took(seen) {
                    set.late(header.log, seen);
                }
                let accepted = Accepted {
                    offset,
                    time_ms: self.time_ms,
                    duplicate: false,
                    claimed: effects.claimed,
                };
                Ok((accepted, effects.welcomes))
            }
            Verdict::Duplicate { offset } => {
                let accepted = Accepted {
                    offset,
                    time_ms: seen.map_or(self.time_ms, |(_, time_ms)| time_ms),
                    duplicate: true,
                    claimed: working.known.state.claimed_by(offset),
                };
                Ok((accepted, Vec::new()))
            }
            Verdict::Refused(refused) => {
                set.forget_absent(&header.log);
                Err(refused.into())
            }
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
            time_ms: self.time_ms,
        });
        self.marks.push(MarkRecord {
            log: slot,
            length: payload.len() as u32,
            state: false,
        });
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

    /// Puts a Welcome on its recipient's log. One that is there already stays as it is, and one whose author has claimed no
    /// package of the recipient, which need not exist, is none.
    fn welcome(&mut self, shared: &Shared, set: &mut WorkingSet, welcome: Header) {
        let (log, id) = (welcome.log, welcome.id);
        let failed = |error: &dyn std::fmt::Display| {
            tracing::error!(%log, %id, %error, "a Welcome cannot be put on its recipient's log");
        };
        let frame = match Frame::new(welcome, Bytes::new()) {
            Ok(frame) => frame,
            Err(error) => return failed(&error),
        };
        match self.fold_or_stop(shared, set, &frame) {
            Ok(_) => {}
            Err(AppendError::Refused(refused)) => tracing::debug!(%log, %id, %refused, "a Welcome is not an entry"),
            Err(AppendError::Store(error)) => failed(&error),
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
            self.lay_state(working);
        }
        Ok(())
    }

    /// Lays a log's state out.
    fn lay_state(&mut self, working: &mut Working) {
        let state = &working.known.state;
        let (log, head) = (state.log(), state.head());
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

    /// Gives up the folded frames, and begins with the batch after the last one that is durable.
    pub(crate) fn roll_back(&mut self, next: u64) {
        *self = Self {
            time_ms: self.time_ms,
            ..Self::new(next)
        };
    }

    /// Ends the batch, and begins the next one. A batch with nothing in it leaves its number to the next.
    pub(crate) fn lay(&mut self, set: &mut WorkingSet, last: bool) -> Laid {
        // Positions alone are not worth a write, most times.
        let written = !self.is_empty() || last;
        let positions = if written {
            std::mem::take(&mut self.positions)
        } else {
            BTreeMap::new()
        };
        for log in &mut self.logs {
            let working = set.peek_mut(&log.log).filter(|working| working.changed);
            log.changed = working.map(|working| Arc::new(working.known.clone()));
        }
        let saved = set.take_due(self.logs.iter().map(|log| log.log));
        // Batches differ: room for the largest of late, since growing would copy it.
        let room = self.records.len().max(self.room - self.room / 8);
        // A batch is in memory for long: one that is much smaller than its room leaves that to the next.
        let is_roomy = |bytes: usize| self.records.capacity() > 2 * bytes;
        let (records, buffer) = match (is_roomy(self.records.len()), is_roomy(room)) {
            (false, _) => (
                std::mem::take(&mut self.records).freeze(),
                BytesMut::with_capacity(room),
            ),
            (true, true) => (Bytes::copy_from_slice(&self.records), BytesMut::with_capacity(room)),
            (true, false) => {
                let records = Bytes::copy_from_slice(&self.records);
                self.records.clear();
                (records, std::mem::take(&mut self.records))
            }
        };
        let next = Self {
            records: buffer,
            room,
            logs: Vec::with_capacity(self.logs.len()),
            entries: Vec::with_capacity(self.entries.len()),
            marks: Vec::with_capacity(self.marks.len()),
            time_ms: self.time_ms,
            positions: std::mem::take(&mut self.positions),
            unwritten: if written { 0 } else { self.unwritten },
            ..Self::new(if self.marks.is_empty() && positions.is_empty() {
                self.number
            } else {
                self.number + 1
            })
        };
        let laid = std::mem::replace(self, next);
        Laid {
            number: laid.number,
            time_ms: laid.time_ms,
            records,
            logs: laid.logs,
            entries: laid.entries,
            states: laid.states,
            marks: laid.marks,
            positions: positions.into_values().collect(),
            saved,
            verdicts: laid.verdicts,
            doomed: laid.doomed,
        }
    }
}

/// An entry, and the Welcomes that it causes.
type Folded = (Accepted, Vec<Header>);

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
    /// Positions that changed.
    pub(crate) positions: Vec<ShardPosition>,
    /// States for the index to keep.
    pub(crate) saved: Vec<(LogId, Bytes)>,
    pub(crate) verdicts: Verdicts,
    /// Reason why it cannot be written.
    pub(crate) doomed: Option<StoreError>,
}

impl Laid {
    /// Whether there is nothing to write.
    pub(crate) const fn is_empty(&self) -> bool {
        self.marks.is_empty() && self.positions.is_empty()
    }

    /// The mark that goes before the records.
    pub(crate) fn mark(&self, positions: &MarkPositions, store: &StoreId) -> BytesMut {
        let logs: Vec<_> = self.logs.iter().map(|log| (log.log, log.first)).collect();
        let mut out = BytesMut::new();
        Mark::encode_parts(
            self.number,
            self.time_ms,
            &logs,
            &self.marks,
            positions,
            store,
            &mut out,
        );
        out
    }

    /// The batch, once it is durable. `mark_at` and `start` are where its mark and its first record are.
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
