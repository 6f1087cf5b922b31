//! Folds what segments hold into the index, when a store opens.

use super::error::{OpenError, store_io};
use super::folder::Role;
use super::index::{Damage, Index, Located, Round, Standing};
use super::known::Known;
use super::segment::{End, Extent, FooterBuilder, Position, Scan, SegmentFile, Step, take_log};
use super::shared::Shared;
use crate::{StoreError, Verdict};
use skytale_proto::{Detail, Frame, FrameId, Header, LogId, Offset, Record};
use std::collections::HashMap;
use std::sync::Arc;

/// Entries put into the index at once.
const ROUND_ENTRIES_MAX: usize = 8_192;

/// Holds a replica's batch back until it is whole: half of one must not be folded, since the stream's messages are
/// folded again from the position before it.
struct Held {
    role: Role,
    at: u32,
    steps: Vec<Step>,
}

enum Hold {
    Now(Step),
    Later,
    Whole(Vec<Step>),
}

impl Held {
    const fn new(role: Role) -> Self {
        Self {
            role,
            at: 0,
            steps: Vec::new(),
        }
    }

    /// Returns the start of the batch that is held back.
    fn begun(&self) -> Option<u32> {
        (!self.steps.is_empty()).then_some(self.at)
    }

    fn take(&mut self, step: Step) -> Hold {
        match step {
            step if self.role == Role::Alone => Hold::Now(step),
            Step::Batch { at, .. } => {
                self.at = at;
                self.steps.push(step);
                Hold::Later
            }
            Step::Entry { .. } | Step::State { .. } => {
                self.steps.push(step);
                Hold::Later
            }
            Step::BatchEnd { .. } => {
                self.steps.push(step);
                Hold::Whole(std::mem::take(&mut self.steps))
            }
            Step::End(_) if !self.steps.is_empty() => {
                self.steps.clear();
                Hold::Now(Step::End(End::Torn { at: self.at }))
            }
            step => Hold::Now(step),
        }
    }
}

/// Folds what segments hold into the index.
pub(super) struct Replay {
    pub(super) shared: Arc<Shared>,
    index: Arc<Index>,
    /// Position up to which the index has everything.
    standing: Option<Standing>,
    /// States folded so far; emptied when a round is written.
    logs: HashMap<LogId, Replayed>,
    round: Round,
    pub(super) footer: FooterBuilder,
    pub(super) batch: u64,
    pub(super) time_ms: u64,
    current: Option<Standing>,
    pub(super) owed: Vec<Header>,
    entries: u64,
    /// The last batch that is folded: later ones are being written.
    until: u64,
}

/// A log in a replay.
enum Replayed {
    /// Its state, and whether it changed since it was kept.
    Known { known: Box<Known>, unsaved: bool },
    /// Its first entries were dropped, and no state has been found yet.
    Orphan,
    /// An entry of it is damaged: later batches are not folded.
    Damaged,
}

impl Replay {
    pub(super) fn new(shared: Shared, standing: Option<Standing>) -> Result<Self, OpenError> {
        let shared = Arc::new(shared);
        Ok(Self {
            index: shared.index()?,
            shared,
            standing,
            logs: HashMap::new(),
            round: Round::default(),
            footer: FooterBuilder::default(),
            batch: standing.map_or(0, |standing| standing.batch),
            time_ms: standing.map_or(0, |standing| standing.time_ms),
            current: None,
            owed: Vec::new(),
            entries: 0,
            until: u64::MAX,
        })
    }

    /// Folds no batch after this one.
    pub(super) const fn until(mut self, batch: u64) -> Self {
        self.until = batch;
        self
    }

    /// A sealed segment that needs no look.
    pub(super) fn passed(&mut self, last_batch: u64, newest_ms: u64) {
        self.batch = self.batch.max(last_batch);
        self.time_ms = self.time_ms.max(newest_ms);
    }

    /// Reads one segment to its end.
    pub(super) fn segment(
        &mut self,
        sequence: u32,
        extent: Extent,
        first_batch: Option<u64>,
    ) -> Result<End, OpenError> {
        let path = self.shared.segments.path(sequence);
        let file = self
            .shared
            .segments
            .file(sequence)
            .map_err(OpenError::io("open", &path))?;
        // A sealed segment is read from where the index is; the last one from its beginning, since its footer is yet
        // to be written.
        let (from, before) = match (self.standing, extent) {
            (Some(standing), Extent::Sealed { .. } | Extent::SealedUnknown)
                if standing.position.segment == sequence =>
            {
                (standing.position.at, standing.batch)
            }
            (_, Extent::Last)
                if self
                    .standing
                    .is_some_and(|standing| standing.position.segment == sequence) =>
            {
                (0, 0)
            }
            _ => (0, first_batch.map_or(self.batch, |first| first.saturating_sub(1))),
        };
        self.footer = FooterBuilder::default();
        let store = *self.shared.segments.store();
        let mut scan = Scan::new(file.clone(), store, extent, from, before).map_err(OpenError::io("read", &path))?;
        let mut end = End::Clean { at: 0 };
        let mut held = Held::new(self.shared.role);
        while let Some(step) = scan.next().map_err(OpenError::io("read", &path))? {
            if let Step::Batch { at, number, .. } = &step
                && *number > self.until
            {
                return Ok(End::Clean { at: *at });
            }
            let step = match held.take(step) {
                Hold::Now(step) => step,
                Hold::Later => continue,
                Hold::Whole(steps) => {
                    for step in steps {
                        self.footer.take(&step);
                        self.step(&file, step)?;
                    }
                    continue;
                }
            };
            self.footer.take(&step);
            match step {
                Step::End(found) => end = found,
                Step::Damaged { at, .. } | Step::DamagedState { at, .. } | Step::Lost { at, .. }
                    if self.shared.role == Role::Replica && extent == Extent::Last =>
                {
                    // A replica's last segment is not synced batch by batch: messages after the damage are followed
                    // again.
                    end = End::Torn {
                        at: held.begun().unwrap_or(at),
                    };
                    break;
                }
                Step::Damaged { at, .. } | Step::DamagedState { at, .. } | Step::Lost { at, .. }
                    if self.shared.role == Role::Replica =>
                {
                    return Err(OpenError::Foreign {
                        path,
                        problem: format!(
                            "damaged at {at}; it is a replica: delete the folder, and it is made again from the fleet"
                        ),
                    });
                }
                Step::Lost { at, to, why } => self.lost(&file, extent, at, to, &why)?,
                step => self.step(&file, step)?,
            }
        }
        self.batch = self.batch.max(scan.batch());
        Ok(end)
    }

    fn step(&mut self, file: &SegmentFile, step: Step) -> Result<(), StoreError> {
        let segment = file.sequence;
        let indexed = |at: u32| {
            self.standing
                .is_some_and(|standing| Position { segment, at } < standing.position)
        };
        match step {
            Step::Batch {
                at, number, time_ms, ..
            } => {
                self.owed.clear();
                self.time_ms = self.time_ms.max(time_ms);
                self.current = (!indexed(at)).then_some(Standing {
                    position: Position { segment, at },
                    batch: number,
                    mark_at: at,
                    time_ms,
                });
            }
            Step::BatchEnd { at, .. } => {
                if let Some(mut standing) = self.current.take() {
                    standing.position.at = at;
                    self.round.stand(standing);
                    if self.round.len() >= ROUND_ENTRIES_MAX || self.logs.len() >= ROUND_ENTRIES_MAX {
                        self.write_round()?;
                    }
                }
            }
            Step::Entry { at, log, record } if !indexed(at) => self.entry(file, at, log, &record)?,
            Step::State { at, log, record } if !indexed(at) => self.state(file, at, log, &record)?,
            Step::Damaged { at, log, offset, why } => self.damaged(file, at, log, offset, &why)?,
            Step::DamagedState { at, log, why } => {
                tracing::error!(%log, file = %file.path.display(), at, why, "a log's state record is damaged");
            }
            Step::Entry { .. } | Step::State { .. } | Step::Lost { .. } | Step::End(_) => {}
        }
        Ok(())
    }

    fn entry(&mut self, file: &SegmentFile, at: u32, log: LogId, record: &Record) -> Result<(), StoreError> {
        let frame = match Frame::decode(record.payload.clone()) {
            Ok(frame) if frame.header().log == log => frame,
            Ok(_) => return self.damaged(file, at, log, record.offset, "the frame is another log's"),
            Err(error) => return self.damaged(file, at, log, record.offset, &error.to_string()),
        };
        let position = Position {
            segment: file.sequence,
            at,
        };
        let located = Located {
            offset: record.offset,
            position,
            length: record.encoded_len() as u32,
        };
        self.forget_owed(&frame);
        let problem = match self.replayed(log)? {
            Replayed::Damaged => return Ok(()),
            Replayed::Orphan => None,
            Replayed::Known { known, unsaved } => {
                known.saw(frame.header().id);
                let head = known.state.head();
                if record.offset <= head {
                    None
                } else if head == Offset::ZERO && record.offset > Offset::FIRST {
                    // Entries before it were dropped: a state follows in the sequence.
                    self.index.add_orphan(&log, position)?;
                    self.logs.insert(log, Replayed::Orphan);
                    None
                } else if head.next() != record.offset {
                    Some(format!("entry {} is missing before it", head.next()))
                } else {
                    *unsaved = true;
                    match known.state.replay(frame.header()) {
                        Verdict::Appended { offset, effects } if offset == record.offset => {
                            self.owed.extend(effects.welcomes);
                            None
                        }
                        verdict => Some(format!("the rule of the log says {verdict:?}")),
                    }
                }
            }
        };
        match problem {
            Some(why) => self.damaged(file, at, log, record.offset, &why),
            None => {
                self.entries += 1;
                self.round.entry(log, located, frame.header().id, record.time_ms);
                Ok(())
            }
        }
    }

    /// A Welcome that a bundle of this batch causes is here.
    fn forget_owed(&mut self, frame: &Frame) {
        if matches!(frame.header().detail, Detail::Welcome { .. }) {
            let id: FrameId = frame.header().id;
            self.owed.retain(|owed| owed.id != id);
        }
    }

    fn state(&mut self, file: &SegmentFile, at: u32, log: LogId, record: &Record) -> Result<(), StoreError> {
        let mut rest: &[u8] = &record.payload;
        let named = take_log(&mut rest);
        let state = record.payload.slice(record.payload.len() - rest.len()..);
        let known = match Known::decode(log, state) {
            Ok(known) if named == Some(log) && known.state.head() == record.offset => known,
            Ok(_) => {
                tracing::error!(%log, file = %file.path.display(), at, "a log's state record is another's");
                return Ok(());
            }
            Err(error) => {
                tracing::error!(%log, file = %file.path.display(), at, %error, "a log's state record cannot be read");
                return Ok(());
            }
        };
        self.round.snapshot(log, file.sequence);
        let orphan = match self.replayed(log)? {
            Replayed::Damaged => return Ok(()),
            Replayed::Orphan => true,
            Replayed::Known { known, .. } => known.state.head() == Offset::ZERO,
        };
        if orphan {
            self.index.remove_orphan(&log)?;
            let known = Box::new(known);
            self.logs.insert(log, Replayed::Known { known, unsaved: true });
        }
        Ok(())
    }

    fn damaged(
        &mut self,
        file: &SegmentFile,
        at: u32,
        log: LogId,
        offset: Offset,
        why: &str,
    ) -> Result<(), StoreError> {
        let damage = Damage {
            offset,
            position: Position {
                segment: file.sequence,
                at,
            },
            place: format!("{} at {at}: {why}", file.path.display()),
        };
        self.shared.note_damage(&log, &damage)?;
        // The state folded before the damage is kept.
        if let Some(Replayed::Known { known, unsaved: true }) = self.logs.insert(log, Replayed::Damaged) {
            self.round.state(log, known.encode());
        }
        Ok(())
    }

    /// Bytes without a readable mark. A sealed segment's footer says which entries they held; else nobody can, and the
    /// store must not give those offsets out again.
    fn lost(&mut self, file: &SegmentFile, extent: Extent, at: u32, to: u32, why: &str) -> Result<(), StoreError> {
        let footer = match extent {
            Extent::Sealed { .. } => {
                let found = file.footer().map_err(store_io("read", &file.path))?;
                found.map(|(footer, _)| footer)
            }
            Extent::SealedUnknown | Extent::Last => None,
        };
        let Some(footer) = footer else {
            self.shared.stop(format!(
                "{} is damaged from {at} to {to} ({why}), and entries in there cannot be read; run `skytale log verify`",
                file.path.display()
            ));
            return Ok(());
        };
        let mut held: Vec<(u32, LogId, Offset)> = Vec::new();
        for log in &footer.logs {
            for (index, entry_at) in log.entries.iter().enumerate() {
                if (at..to).contains(entry_at) {
                    held.push((*entry_at, log.log, Offset::new(log.first.get() + index as u64)));
                }
            }
        }
        held.sort_unstable();
        for (at, log, offset) in held {
            match file.entry(&log, offset, at).map_err(store_io("read", &file.path))? {
                Some(record) => self.entry(file, at, log, &record)?,
                None => self.damaged(file, at, log, offset, why)?,
            }
        }
        Ok(())
    }

    fn replayed(&mut self, log: LogId) -> Result<&mut Replayed, StoreError> {
        if !self.logs.contains_key(&log) {
            let replayed = if self.shared.damage(&log)?.is_some() {
                Replayed::Damaged
            } else if self.index.is_orphan(&log)? {
                Replayed::Orphan
            } else {
                let known = Box::new(self.shared.load(log)?);
                Replayed::Known { known, unsaved: false }
            };
            self.logs.insert(log, replayed);
        }
        // Put in above where it was missing.
        self.logs.get_mut(&log).ok_or_else(|| StoreError::Io {
            doing: format!("replay {log}"),
            error: "state missing".into(),
        })
    }

    fn write_round(&mut self) -> Result<(), StoreError> {
        for (log, replayed) in self.logs.drain() {
            if let Replayed::Known { known, unsaved: true } = replayed {
                self.round.state(log, known.encode());
            }
        }
        let mut round = std::mem::take(&mut self.round);
        self.index.write(self.shared.segments.store(), &mut round, true)
    }

    pub(super) fn finish(&mut self) -> Result<(), StoreError> {
        // The index does not end at the end of a torn batch: the rest of it is put in again the next time.
        self.current = None;
        self.write_round()?;
        let orphans: Vec<(LogId, Position)> = self.index.orphans().collect();
        for (log, position) in orphans {
            let damage = Damage {
                offset: Offset::FIRST,
                position,
                place: format!(
                    "{}: no state of the log is left",
                    self.shared.segments.path(position.segment).display()
                ),
            };
            self.shared.note_damage(&log, &damage)?;
            self.index.remove_orphan(&log)?;
        }
        if self.entries > 0 {
            tracing::info!(
                entries = self.entries,
                "put entries into the index that it did not have"
            );
        }
        Ok(())
    }
}
