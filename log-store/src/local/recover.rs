//! What happens when a store opens: the end of the last segment is checked, and what the segments hold beyond the index
//! is folded and put into it.

use super::config::LocalConfig;
use super::error::OpenError;
use super::folder::{Folder, Role};
use super::index::{Index, Standing};
use super::position::Positions;
use super::replay::Replay;
use super::segment::{End, Extent, OpenSegment, Position, Scan, SegmentFile, SegmentHeader, Segments, Step, Unsealed};
use super::shared::Shared;
use super::writer::Beginning;
use bytes::Bytes;
use skytale_proto::record::{self, HEADER_BYTES, KIND_ENTRY};
use skytale_proto::{Header, Record};
use std::fs;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

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

pub(super) fn read_record(file: &SegmentFile, at: u32) -> Option<Record> {
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
