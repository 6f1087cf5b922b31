//! Reads entries from segments, as few reads as their places allow.

use super::error::store_io;
use super::index::{Damage, Located};
use super::segment::SegmentFile;
use super::shared::Shared;
use crate::StoreError;
use bytes::{Bytes, BytesMut};
use skytale_proto::LogId;
use skytale_proto::record::{self, KIND_ENTRY};
use std::io;
use std::os::unix::fs::FileExt as _;

/// Entries that are at most this far apart are read at once.
const READ_GAP_BYTES: u32 = 16 * 1024;
/// Bytes read at once, about.
const READ_SPAN_BYTES: u32 = 1024 * 1024;

/// An entry, and where its record is in the segment's file.
#[derive(Clone, Copy)]
struct Placed {
    entry: Located,
    at: u32,
}

impl Shared {
    /// Reads records from segments, and checks them. Gives as many as are whole, and how many those are.
    pub(super) fn read_located(&self, log: &LogId, located: &[Located]) -> Result<(Vec<Bytes>, u64), StoreError> {
        let mut whole = 0;
        let mut out = BytesMut::with_capacity(located.iter().map(|entry| entry.length as usize).sum());
        for in_segment in located.chunk_by(|one, next| one.position.segment == next.position.segment) {
            let Some(first) = in_segment.first() else { continue };
            let sequence = first.position.segment;
            let file = self.segments.file(sequence);
            let file = file.map_err(store_io("open", &self.segments.path(sequence)))?;
            let written = in_segment.iter().map(|entry| entry.position.at).collect();
            let places = file
                .places(log, first.offset, written)
                .map_err(store_io("read", &file.path))?;
            let placed = in_segment.iter().zip(places);
            let placed: Vec<Placed> = placed.map(|(entry, at)| Placed { entry: *entry, at }).collect();
            let mut rest = placed.as_slice();
            while !rest.is_empty() {
                let (span, later) = rest.split_at(span(rest));
                let begin = out.len();
                read_span(&file, span, &mut out)?;
                let mut end = begin;
                for Placed { entry, at } in span {
                    let from = end;
                    end += entry.length as usize;
                    let Err(why) = check(&out[from..end], entry) else {
                        whole += 1;
                        continue;
                    };
                    if let Some(found) = find(&file, log, entry)? {
                        out[from..end].copy_from_slice(&found);
                        whole += 1;
                        continue;
                    }
                    let damage = Damage {
                        offset: entry.offset,
                        position: entry.position,
                        place: format!("{} at {at}: {why}", file.path.display()),
                    };
                    self.note_damage(log, &damage)?;
                    if from == 0 {
                        return Err(StoreError::Corrupt { place: damage.place });
                    }
                    // The records before it are whole; the next read reports the damage.
                    out.truncate(from);
                    return Ok((vec![out.freeze()], whole));
                }
                rest = later;
            }
        }
        let records = if out.is_empty() { Vec::new() } else { vec![out.freeze()] };
        Ok((records, whole))
    }
}

/// Reads entries that are near each other, in one read, and puts their records one after another.
fn read_span(file: &SegmentFile, span: &[Placed], out: &mut BytesMut) -> Result<(), StoreError> {
    let (Some(first), Some(last)) = (span.first(), span.last()) else {
        return Ok(());
    };
    let read = |buffer: &mut [u8]| match file.file.read_exact_at(buffer, u64::from(first.at)) {
        // The file is shorter than it was: missing bytes are found by the checksum.
        Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => Err(store_io("read", &file.path)(error)),
        _ => Ok(()),
    };
    let bytes = (last.at + last.entry.length - first.at) as usize;
    let wanted: usize = span.iter().map(|placed| placed.entry.length as usize).sum();
    let begin = out.len();
    if wanted == bytes {
        out.resize(begin + bytes, 0);
        read(&mut out[begin..])?;
    } else {
        let mut buffer = vec![0; bytes];
        read(&mut buffer)?;
        for placed in span {
            let from = (placed.at - first.at) as usize;
            out.extend_from_slice(&buffer[from..from + placed.entry.length as usize]);
        }
    }
    Ok(())
}

/// An entry that is not where a regrouped segment's table says: its record, found by going along its log's.
fn find(file: &SegmentFile, log: &LogId, entry: &Located) -> Result<Option<Vec<u8>>, StoreError> {
    let Some(at) = file.find(log, entry.offset).map_err(store_io("read", &file.path))? else {
        return Ok(None);
    };
    let mut record = vec![0; entry.length as usize];
    let read = file.file.read_exact_at(&mut record, u64::from(at));
    Ok((read.is_ok() && check(&record, entry).is_ok()).then_some(record))
}

/// Returns the number of these entries, from the first one on, that are read at once.
fn span(placed: &[Placed]) -> usize {
    let Some(first) = placed.first() else { return 0 };
    let mut end = first.at + first.entry.length;
    let near = placed.iter().skip(1).take_while(|next| {
        let near = next.at >= end
            && next.at - end <= READ_GAP_BYTES
            && next.at + next.entry.length - first.at <= READ_SPAN_BYTES;
        end = if near { next.at + next.entry.length } else { end };
        near
    });
    1 + near.count()
}

/// A record that was read must be the one that was asked for.
fn check(bytes: &[u8], entry: &Located) -> Result<(), String> {
    let head = record::check(bytes, record::PAYLOAD_BYTES_MAX).map_err(|error| error.to_string())?;
    if head.kind != KIND_ENTRY || head.offset != entry.offset || head.length != bytes.len() {
        return Err("another record than the index says".into());
    }
    Ok(())
}
