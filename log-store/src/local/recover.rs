//! What happens when a store opens: the end of the last segment is checked, and what the segments hold beyond the index
//! is folded and put into it.

use super::config::LocalConfig;
use super::error::{OpenError, store_io};
use super::folder::{Folder, Role};
use super::index::{Damage, Index, Located, Round, Standing};
use super::known::Known;
use super::position::Positions;
use super::segment::{
    End, Extent, Footer, FooterBuilder, OpenSegment, Position, Scan, SegmentFile, SegmentHeader, Segments, Step,
    Unsealed, take_log,
};
use super::shared::Shared;
use super::writer::Beginning;
use crate::{StoreError, Verdict};
use bytes::Bytes;
use skytale_proto::record::{self, HEADER_BYTES, KIND_ENTRY};
use skytale_proto::{Detail, Frame, FrameId, Header, LogId, Offset, Record};
use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// Entries put into the index at once.
const ROUND_ENTRIES_MAX: usize = 8_192;

/// A store, opened; the writer begins at `beginning`.
pub(crate) struct Recovered {
    pub(crate) shared: Arc<Shared>,
    pub(crate) beginning: Beginning,
    /// Welcomes that a torn batch owes.
    pub(crate) owed: Vec<Header>,
}

/// Opens a store's folder.
pub(crate) fn recover(config: LocalConfig, role: Role, sync: bool) -> Result<Recovered, OpenError> {
    if let Some(recovered) = attempt(config.clone(), role, sync)? {
        return Ok(recovered);
    }
    let index = super::folder::index_dir(&config.dir);
    tracing::warn!(dir = %index.display(), "the index is ahead of what is left of the segments; it is built again");
    fs::remove_dir_all(&index).map_err(OpenError::io("remove", &index))?;
    attempt(config, role, sync)?.ok_or_else(|| OpenError::Foreign {
        path: index,
        problem: "a new index is ahead of the segments it was made from".into(),
    })
}

/// `None` where the index has more than is left of the segments.
fn attempt(config: LocalConfig, role: Role, sync: bool) -> Result<Option<Recovered>, OpenError> {
    let folder = Folder::open(&config.dir, role)?;
    let (segments, unsealed) = Segments::find(&folder.segments(), folder.id)?;
    let tail = match unsealed {
        Some(Unsealed {
            sequence,
            headless: true,
        }) => {
            let path = segments.path(sequence);
            fs::remove_file(&path).map_err(OpenError::io("remove", &path))?;
            None
        }
        Some(Unsealed { sequence, .. }) => Some(sequence),
        None => None,
    };
    let open_index = || {
        let fits = |index: &Index, standing: &Standing| fits(&segments, tail, index, standing);
        Index::open(&folder.index(), &folder.id, config.index_cache_bytes, fits)
    };
    let (index, standing) = open_index()?;
    let segment_bytes = config.segment_bytes;
    let mut replay = Replay::new(Shared::new(config, role, folder, segments, index), standing)?;
    let shared = replay.shared.clone();
    let from = standing.map_or(0, |standing| standing.position.segment);
    for (sequence, info) in shared.segments.sealed() {
        if sequence >= from {
            replay.segment(sequence, info.extent(), info.trailer.map(|trailer| trailer.first_batch))?;
        } else if let Some(trailer) = info.trailer {
            replay.passed(trailer.last_batch, trailer.newest_ms);
        }
    }
    let end = match tail {
        Some(sequence) => Some((sequence, replay.segment(sequence, Extent::Last, None)?)),
        None => None,
    };
    let left = end.and_then(|(segment, end)| match end {
        End::Torn { at } => Some(Position { segment, at }),
        _ => None,
    });
    if role == Role::Replica && left.is_some_and(|left| standing.is_some_and(|standing| left < standing.position)) {
        return Ok(None);
    }
    replay.finish()?;
    let positions = positions(&shared.segments, tail, end)?;
    let segment = match end {
        Some((sequence, end)) => {
            let (at, cut) = match end {
                End::Clean { at } => (at, false),
                End::Torn { at } | End::Footer { at } => (at, true),
            };
            if cut {
                tracing::warn!(
                    segment = sequence,
                    at,
                    "cut off the end of a batch that was never acknowledged"
                );
            }
            let footer = std::mem::take(&mut replay.footer);
            OpenSegment::resume(shared.segments.path(sequence), sequence, at, footer, cut, segment_bytes)?
        }
        None => {
            let last = shared.segments.sealed().last().map_or(0, |(sequence, _)| *sequence);
            let header = SegmentHeader {
                sequence: last + 1,
                store: *shared.segments.store(),
                created_ms: now_ms(),
            };
            OpenSegment::create(shared.segments.dir(), &header, segment_bytes)?
        }
    };
    Ok(Some(Recovered {
        beginning: Beginning {
            segment,
            next_batch: replay.batch + 1,
            time_ms: replay.time_ms,
            positions,
            sync,
        },
        owed: std::mem::take(&mut replay.owed),
        shared,
    }))
}

/// Where a replica stands: the last segment with a batch says it, from its first batch on.
fn positions(segments: &Segments, tail: Option<u32>, end: Option<(u32, End)>) -> Result<Positions, OpenError> {
    let mut found = Positions::default();
    let sealed = segments.sealed();
    let sealed = sealed.iter().rev().map(|(sequence, info)| (*sequence, info.extent()));
    for (sequence, extent) in tail.map(|sequence| (sequence, Extent::Last)).into_iter().chain(sealed) {
        let path = segments.path(sequence);
        let file = segments.file(sequence).map_err(OpenError::io("open", &path))?;
        // What is to be cut off says nothing.
        let cut = end.and_then(|(last, end)| match end {
            End::Torn { at } if last == sequence => Some(at),
            _ => None,
        });
        let mut scan = Scan::new(file, *segments.store(), extent, 0, 0).map_err(OpenError::io("read", &path))?;
        let mut any = false;
        while let Some(step) = scan.next().map_err(OpenError::io("read", &path))? {
            if let Step::Batch { at, positions, .. } = step {
                if cut.is_some_and(|cut| at >= cut) {
                    break;
                }
                any |= positions.complete;
                found.take(positions);
            }
        }
        if any {
            return Ok(found);
        }
        found = Positions::default();
    }
    Ok(found)
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Whether the segments hold the batch that the index says it is current with, and no damage was mended since.
fn fits(segments: &Segments, tail: Option<u32>, index: &Index, standing: &Standing) -> bool {
    let Position { segment, .. } = standing.position;
    if segments.info(segment).is_none() && tail != Some(segment) {
        return false;
    }
    let Ok(file) = segments.file(segment) else { return false };
    let whole = last_batch_is_whole(segments, &file, standing).unwrap_or(false);
    let mended = index.damages().any(|(_, damage)| {
        let record = segments.file(damage.position.segment);
        let record = record.ok().and_then(|file| read_record(&file, damage.position.at));
        record.is_some_and(|record| record.kind == KIND_ENTRY && record.offset == damage.offset)
    });
    whole && !mended
}

/// Whether the batch that the index says it is current with stands where it says, every record of it.
fn last_batch_is_whole(segments: &Segments, file: &Arc<SegmentFile>, standing: &Standing) -> std::io::Result<bool> {
    let extent = segments.info(file.sequence).map_or(Extent::Last, |info| info.extent());
    let before = standing.batch.saturating_sub(1);
    let mut scan = Scan::new(file.clone(), *segments.store(), extent, standing.mark_at, before)?;
    let begins = matches!(
        scan.next()?,
        Some(Step::Batch { number, time_ms, .. }) if number == standing.batch && time_ms == standing.time_ms
    );
    if !begins {
        return Ok(false);
    }
    loop {
        match scan.next()? {
            Some(Step::Entry { .. } | Step::State { .. }) => {}
            Some(Step::BatchEnd { at }) => return Ok(at == standing.position.at),
            _ => return Ok(false),
        }
    }
}

fn read_record(file: &SegmentFile, at: u32) -> Option<Record> {
    let mut header = [0; HEADER_BYTES];
    file.file.read_exact_at(&mut header, u64::from(at)).ok()?;
    let left = file.file.metadata().ok()?.len().saturating_sub(u64::from(at));
    let (length, _) = record::peek(&header, usize::try_from(left).ok()?).ok()?;
    let mut bytes = vec![0; HEADER_BYTES + length];
    file.file.read_exact_at(&mut bytes, u64::from(at)).ok()?;
    Record::decode(&Bytes::from(bytes), length)
        .ok()
        .map(|(record, _)| record)
}

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

    /// Where the batch begins that is held back.
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
struct Replay {
    shared: Arc<Shared>,
    index: Arc<Index>,
    /// Up to where the index has everything.
    standing: Option<Standing>,
    /// States folded so far; emptied when a round is written.
    logs: HashMap<LogId, Replayed>,
    round: Round,
    footer: FooterBuilder,
    batch: u64,
    time_ms: u64,
    current: Option<Standing>,
    owed: Vec<Header>,
    entries: u64,
}

/// A log in a replay.
enum Replayed {
    /// Its state, and whether it changed since it was kept.
    Known { known: Box<Known>, unsaved: bool },
    /// Its first entries were dropped, and no state has been found yet.
    Orphan,
    /// An entry of it is damaged: what follows is not folded.
    Damaged,
}

impl Replay {
    fn new(shared: Shared, standing: Option<Standing>) -> Result<Self, OpenError> {
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
        })
    }

    /// A sealed segment that needs no look.
    fn passed(&mut self, last_batch: u64, newest_ms: u64) {
        self.batch = self.batch.max(last_batch);
        self.time_ms = self.time_ms.max(newest_ms);
    }

    /// Reads one segment to its end.
    fn segment(&mut self, sequence: u32, extent: Extent, first_batch: Option<u64>) -> Result<End, OpenError> {
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
                    // A replica's last segment is not synced batch by batch: what stands after the damage is followed again.
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
            Step::BatchEnd { at } => {
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
                    match known.state.apply(frame.header(), None) {
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
        // What was folded before the damage is kept.
        if let Some(Replayed::Known { known, unsaved: true }) = self.logs.insert(log, Replayed::Damaged) {
            self.round.state(log, known.encode());
        }
        Ok(())
    }

    /// Bytes without a readable mark. A sealed segment's footer says what they held; else nobody can, and the store
    /// must not give those offsets out again.
    fn lost(&mut self, file: &SegmentFile, extent: Extent, at: u32, to: u32, why: &str) -> Result<(), StoreError> {
        let footer = match extent {
            Extent::Sealed { .. } => match self.shared.segments.info(file.sequence) {
                Some(info) => match &info.trailer {
                    Some(trailer) => {
                        Footer::read(&file.file, info.bytes, trailer).map_err(store_io("read", &file.path))?
                    }
                    None => None,
                },
                None => None,
            },
            Extent::SealedUnknown | Extent::Last => None,
        };
        let Some(footer) = footer else {
            self.shared.stop(format!(
                "{} is damaged from {at} to {to} ({why}), and entries in there cannot be told; run `skytale log verify`",
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
            match read_record(file, at).filter(|record| record.kind == KIND_ENTRY && record.offset == offset) {
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

    fn finish(&mut self) -> Result<(), StoreError> {
        // The index does not stand at the end of a torn batch: what is left of it is put in again the next time.
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
