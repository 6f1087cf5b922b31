//! Copies a log out, as records.

use super::InspectError;
use super::source::Source;
use crate::local::segment::Step;
use bytes::BytesMut;
use skytale_proto::{LogId, Offset};
use std::io::Write;
use std::path::Path;

/// Result of an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Exported {
    /// Entries.
    pub entries: u64,
    /// Bytes.
    pub bytes: u64,
    /// The first entry's offset; [`Offset::ZERO`] where there is none.
    pub first: Offset,
    /// The last entry's offset.
    pub last: Offset,
}

/// Writes the records ([`skytale_proto::record`]) of one log to `out`, in their order, as they are on disk. Ends with
/// an error at the first entry that is damaged or missing: the output up to there is whole.
pub fn export(dir: &Path, log: LogId, out: &mut impl Write) -> Result<Exported, InspectError> {
    let source = Source::open(dir)?;
    let mut exported = Exported::default();
    let mut buffer = BytesMut::new();
    source.walk(|file, step| {
        let damaged = |at: u32, what: &str| {
            Err(InspectError::Damaged {
                place: format!("{} at {at}: {what}", file.path.display()),
            })
        };
        match step {
            Step::Entry { at, log: of, record } if of == log => {
                if exported.entries > 0 && record.offset != exported.last.next() {
                    return damaged(at, &format!("entry {} is missing before it", exported.last.next()));
                }
                if exported.entries == 0 {
                    exported.first = record.offset;
                }
                exported.last = record.offset;
                exported.entries += 1;
                exported.bytes += record.encoded_len() as u64;
                buffer.clear();
                record.encode_into(&mut buffer);
                out.write_all(&buffer).map_err(|source| InspectError::Write { source })
            }
            Step::Damaged {
                at,
                log: of,
                offset,
                why,
            } if of == log => damaged(at, &format!("entry {offset}: {why}")),
            Step::Lost { at, why, .. } => damaged(at, &why),
            _ => Ok(()),
        }
    })?;
    out.flush().map_err(|source| InspectError::Write { source })?;
    Ok(exported)
}
