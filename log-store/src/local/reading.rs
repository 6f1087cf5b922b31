//! Reads entries from segments, as few reads as their places allow.

use super::error::store_io;
use super::index::{Damage, Located};
use super::shared::Shared;
use crate::StoreError;
use bytes::{Bytes, BytesMut};
use skytale_proto::LogId;
use skytale_proto::record::{self, KIND_ENTRY};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

/// Entries that are at most this far apart are read at once.
const READ_GAP_BYTES: u32 = 16 * 1024;
/// Bytes read at once, about.
const READ_SPAN_BYTES: u32 = 1024 * 1024;

impl Shared {
    /// Reads records from segments, and checks them. Gives as many as are whole, and how many those are.
    pub(super) fn read_located(&self, log: &LogId, located: &[Located]) -> Result<(Vec<Bytes>, u64), StoreError> {
        let mut whole = 0;
        let mut out = BytesMut::with_capacity(located.iter().map(|entry| entry.length as usize).sum());
        let mut rest = located;
        while !rest.is_empty() {
            let (span, later) = rest.split_at(span(rest));
            let begin = out.len();
            let path = self.read_span(span, &mut out)?;
            let mut end = begin;
            for entry in span {
                let from = end;
                end += entry.length as usize;
                if let Err(why) = check(&out[from..end], entry) {
                    let damage = Damage {
                        offset: entry.offset,
                        position: entry.position,
                        place: format!("{} at {}: {why}", path.display(), entry.position.at),
                    };
                    self.note_damage(log, &damage)?;
                    if from == 0 {
                        return Err(StoreError::Corrupt { place: damage.place });
                    }
                    // The records before it are whole; the next read reports the damage.
                    out.truncate(from);
                    return Ok((vec![out.freeze()], whole));
                }
                whole += 1;
            }
            rest = later;
        }
        let records = if out.is_empty() { Vec::new() } else { vec![out.freeze()] };
        Ok((records, whole))
    }

    /// Reads entries that are near each other, in one read, and puts their records one after another. Gives the file's path.
    fn read_span(&self, span: &[Located], out: &mut BytesMut) -> Result<PathBuf, StoreError> {
        let (Some(first), Some(last)) = (span.first(), span.last()) else {
            return Ok(PathBuf::new());
        };
        let file = self
            .segments
            .file(first.position.segment)
            .map_err(store_io("open", &self.segments.path(first.position.segment)))?;
        let read = |buffer: &mut [u8]| match file.file.read_exact_at(buffer, u64::from(first.position.at)) {
            // The file is shorter than it was: missing bytes are found by the checksum.
            Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => Err(store_io("read", &file.path)(error)),
            _ => Ok(()),
        };
        let bytes = (last.position.at + last.length - first.position.at) as usize;
        let wanted: usize = span.iter().map(|entry| entry.length as usize).sum();
        let begin = out.len();
        if wanted == bytes {
            out.resize(begin + bytes, 0);
            read(&mut out[begin..])?;
        } else {
            let mut buffer = vec![0; bytes];
            read(&mut buffer)?;
            for entry in span {
                let from = (entry.position.at - first.position.at) as usize;
                out.extend_from_slice(&buffer[from..from + entry.length as usize]);
            }
        }
        Ok(file.path.clone())
    }
}

/// Returns the number of these entries, from the first one on, that are read at once.
fn span(located: &[Located]) -> usize {
    let Some(first) = located.first() else { return 0 };
    let mut end = first.position.at + first.length;
    let near = located.iter().skip(1).take_while(|next| {
        let near = next.position.segment == first.position.segment
            && next.position.at >= end
            && next.position.at - end <= READ_GAP_BYTES
            && next.position.at + next.length - first.position.at <= READ_SPAN_BYTES;
        end = if near { next.position.at + next.length } else { end };
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
