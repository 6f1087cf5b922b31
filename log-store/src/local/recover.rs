//! Recovery when a store opens: the end of the last segment is checked, and the records that the index lacks are folded
//! and put into it.

use super::config::LocalConfig;
use super::error::OpenError;
use super::folder::{Folder, Role};
use super::index::{Index, Standing};
use super::position::Positions;
use super::replay::Replay;
use super::segment::{
    End, Extent, FooterBuilder, OpenSegment, Position, Scan, SegmentFile, SegmentHeader, Segments, Step, Unsealed,
};
use super::shared::Shared;
use super::space::Space;
use super::writer::Beginning;
use crate::StoreError;
use skytale_proto::Header;
use std::fs;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// Reason why no appends are taken while the index is in memory.
pub(in crate::local) const IN_MEMORY: &str = "there is no room for the index: it is in memory, for readers alone";

/// A store, opened; the writer begins at `beginning`.
pub(crate) struct Recovered {
    pub(crate) shared: Arc<Shared>,
    pub(crate) beginning: Beginning,
    /// Welcomes that a torn batch owes.
    pub(crate) owed: Vec<Header>,
}

/// Place of the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::local) enum Place {
    Disk,
    Memory,
}

/// Opens a store's folder. Where the disk has no room for the index, it is in memory.
pub(crate) fn recover(config: LocalConfig, role: Role, sync: bool) -> Result<Recovered, OpenError> {
    match attempt(config.clone(), role, sync, Place::Disk) {
        Ok(Some(recovered)) => return Ok(recovered),
        Ok(None) => {}
        Err(error) if error.is_full() => {
            tracing::error!(%error, "no room on the disk for the index: it is built in memory, and serves readers alone");
            let recovered = attempt(config, role, sync, Place::Memory)?;
            return recovered.ok_or_else(|| {
                OpenError::Store(StoreError::Full {
                    reason: "the index".into(),
                })
            });
        }
        Err(error) => return Err(error),
    }
    let index = super::folder::index_dir(&config.dir);
    tracing::warn!(dir = %index.display(), "the index is ahead of what is left of the segments; it is built again");
    fs::remove_dir_all(&index).map_err(OpenError::io("remove", &index))?;
    attempt(config, role, sync, Place::Disk)?.ok_or_else(|| OpenError::Foreign {
        path: index,
        problem: "a new index is ahead of the segments it was made from".into(),
    })
}

/// `None` where the index has more than is left of the segments.
fn attempt(config: LocalConfig, role: Role, sync: bool, place: Place) -> Result<Option<Recovered>, OpenError> {
    let folder = Folder::open(&config.dir, role)?;
    let space = Arc::new(Space::new(&config));
    let (segments, unsealed) = Segments::find(&folder.segments(), folder.id)?;
    segments.remove_unfinished()?;
    let tail = match unsealed {
        Some(Unsealed { sequence, header: None }) => {
            let path = segments.path(sequence);
            fs::remove_file(&path).map_err(OpenError::io("remove", &path))?;
            None
        }
        Some(Unsealed { header, .. }) => header,
        None => None,
    };
    let (header, tail) = (tail, tail.map(|header| header.sequence));
    let (index, standing) = open_index(&config, &space, &segments, tail, place)?;
    let segment_bytes = config.segment_bytes;
    let shared = Shared::new(config, role, Some(folder), segments, index, space.clone());
    let mut replay = Replay::new(shared, standing)?;
    let shared = replay.shared.clone();
    let end = read_segments(&mut replay, standing, tail)?;
    let left = end.and_then(|(segment, end)| match end {
        End::Torn { at } => Some(Position { segment, at }),
        _ => None,
    });
    if role == Role::Replica && left.is_some_and(|left| standing.is_some_and(|standing| left < standing.position)) {
        return Ok(None);
    }
    replay.finish()?;
    if place == Place::Memory {
        space.index_in_memory(Some(IN_MEMORY.into()));
    }
    let positions = match (role, tail, replay.footer.positions()) {
        // Nobody's streams are followed.
        (Role::Alone, ..) => Positions::default(),
        (Role::Replica, Some(_), Some(positions)) => positions.clone(),
        (Role::Replica, ..) => sealed_positions(&shared.segments)?,
    };
    let segment = match header.zip(end) {
        Some((header, (sequence, end))) => {
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
            let path = shared.segments.path(sequence);
            Ok(OpenSegment::resume(
                path,
                header,
                at,
                footer,
                cut,
                segment_bytes,
                &space,
            )?)
        }
        None => {
            let sequence = shared.segments.sealed().last().map_or(0, |(sequence, _)| *sequence) + 1;
            let header = SegmentHeader::new(sequence, *shared.segments.store(), now_ms());
            match OpenSegment::create(shared.segments.dir(), &header, segment_bytes, &space) {
                Ok(segment) => Ok(segment),
                Err(error) if error.is_full() => {
                    // The writer begins it when there is room.
                    space.failed(error.to_string());
                    Err(sequence)
                }
                Err(error) => return Err(error),
            }
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

/// The index of a store, in its place; and how far it is current.
fn open_index(
    config: &LocalConfig,
    space: &Space,
    segments: &Segments,
    tail: Option<u32>,
    place: Place,
) -> Result<(Index, Option<Standing>), OpenError> {
    let dir = super::folder::index_dir(&config.dir);
    if place == Place::Memory {
        return Ok((Index::in_memory(&dir, config), None));
    }
    if !space.has_room_for_index() {
        return Err(OpenError::Store(StoreError::Full {
            reason: format!("open the index in {}", dir.display()),
        }));
    }
    let fits = |index: &Index, standing: &Standing| fits(segments, tail, index, standing);
    Index::open(&dir, segments.store(), config, fits)
}

/// Reads what the index does not have. Gives how the last segment ends, where it is not sealed.
fn read_segments(
    replay: &mut Replay,
    standing: Option<Standing>,
    tail: Option<u32>,
) -> Result<Option<(u32, End)>, OpenError> {
    let from = standing.map_or(0, |standing| standing.position.segment);
    for (sequence, info) in replay.shared.segments.sealed() {
        if sequence >= from {
            replay.segment(sequence, info.extent(), info.trailer.map(|trailer| trailer.first_batch))?;
        } else if let Some(trailer) = info.trailer {
            replay.passed(trailer.last_batch, trailer.newest_ms);
        }
    }
    match tail {
        Some(sequence) => Ok(Some((sequence, replay.segment(sequence, Extent::Last, None)?))),
        None => Ok(None),
    }
}

/// Builds the index again while the store runs, with all batches up to and with one; and nothing else changes.
pub(in crate::local) fn rebuild(shared: &Shared, place: Place, until: u64) -> Result<Arc<Index>, OpenError> {
    let (segments, unsealed) = Segments::find(shared.segments.dir(), *shared.segments.store())?;
    let tail = unsealed.and_then(|unsealed| unsealed.header);
    let tail = tail.map(|header| header.sequence);
    let config = shared.config.clone();
    let (index, standing) = open_index(&config, &shared.space, &segments, tail, place)?;
    let beside = Shared::new(config, shared.role, None, segments, index, shared.space.clone());
    let mut replay = Replay::new(beside, standing)?.until(until);
    read_segments(&mut replay, standing, tail)?;
    replay.finish()?;
    replay.shared.running()?;
    Ok(replay.shared.index()?)
}

/// Returns the positions of a replica whose open segment does not tell them: the footer of the last segment with a batch
/// does. Where a footer is damaged, or of version 1, that segment alone is read.
fn sealed_positions(segments: &Segments) -> Result<Positions, OpenError> {
    for (sequence, info) in segments.sealed().into_iter().rev() {
        if info.trailer.is_some_and(|trailer| trailer.first_batch == 0) {
            continue;
        }
        let path = segments.path(sequence);
        let file = segments.file(sequence).map_err(OpenError::io("open", &path))?;
        let footer = file.footer().map_err(OpenError::io("read", &path))?;
        let mut found = Positions::default();
        if let Some(positions) = footer.and_then(|(footer, _)| footer.positions) {
            found.take(positions);
            return Ok(found);
        }
        let mut builder = FooterBuilder::default();
        let mut scan = Scan::new(file, *segments.store(), info.extent(), 0, 0).map_err(OpenError::io("read", &path))?;
        while let Some(step) = scan.next().map_err(OpenError::io("read", &path))? {
            builder.take(&step);
        }
        if let Some(positions) = builder.positions() {
            return Ok(positions.clone());
        }
    }
    Ok(Positions::default())
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
    let mended = index.damages().any(|(log, damage)| {
        let file = segments.file(damage.position.segment);
        let entry = file.and_then(|file| file.entry(&log, damage.offset, damage.position.at));
        entry.is_ok_and(|entry| entry.is_some())
    });
    whole && !mended
}

/// Whether the batch that the index says it is current with is where it says, every record of it.
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
            Some(Step::BatchEnd { at, .. }) => return Ok(at == standing.position.at),
            _ => return Ok(false),
        }
    }
}
