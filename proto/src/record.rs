//! Encoding of an entry in a segment file and, unchanged, on the wire.
//!
//! All numbers are little-endian:
//!
//! ```text
//!  0        4        8    9        16       24       32
//!  | length | crc32c | kind | zero | offset | time_ms | payload ... length bytes |
//! ```
//!
//! `crc32c` (RFC 3720 appendix B.4) covers everything after itself. `length` is checked before
//! anything is read by it; a record of zeroes is no record. Persisted: keep stable.

use crate::{Offset, limits};
use bytes::{BufMut, Bytes, BytesMut};

/// Bytes before the payload.
pub const HEADER_BYTES: usize = 32;
/// The longest payload of an entry, in bytes: one frame.
pub const PAYLOAD_BYTES_MAX: usize = limits::FRAME_BYTES_MAX;

/// The kind of a record that holds an entry. Other kinds belong to a store and never leave it.
pub const KIND_ENTRY: u8 = 1;

/// An entry: a frame that the log accepted, with its offset and the time it was accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Kind of the record: [`KIND_ENTRY`], or a kind of the store's own.
    pub kind: u8,
    /// The entry's offset.
    pub offset: Offset,
    /// Time at which the log accepted it, unix milliseconds by the relay node's clock.
    pub time_ms: u64,
    /// The author's encoded frame.
    pub payload: Bytes,
}

/// Bytes that are not a record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The bytes end inside a record: `needed` bytes from its beginning.
    #[error("record cut short: {have} bytes of {needed}")]
    Short {
        /// Bytes that the record takes, as far as is known.
        needed: usize,
        /// Bytes that there are.
        have: usize,
    },
    /// The length field is larger than any record, or the fields that must be zero are not.
    #[error("record header malformed")]
    Malformed,
    /// The checksum does not fit the bytes.
    #[error("record checksum wrong: stored {stored:08x}, computed {computed:08x}")]
    Checksum {
        /// The stored checksum.
        stored: u32,
        /// The checksum of the bytes.
        computed: u32,
    },
}

impl Record {
    /// Bytes that the record takes.
    pub fn encoded_len(&self) -> usize {
        HEADER_BYTES + self.payload.len()
    }

    /// Appends the record to `out`. The payload must be no longer than `u32::MAX`, which every
    /// limit keeps it well below.
    pub fn encode_into(&self, out: &mut BytesMut) {
        encode_parts(self.kind, self.offset, self.time_ms, &self.payload, out);
    }

    /// Reads the record at the beginning of `bytes`, without copying its payload, and gives it with the length it took.
    /// `payload_bytes_max` bounds the length that is believed.
    pub fn decode(bytes: &Bytes, payload_bytes_max: usize) -> Result<(Self, usize), RecordError> {
        let head = check(bytes, payload_bytes_max)?;
        let record = Self {
            kind: head.kind,
            offset: head.offset,
            time_ms: head.time_ms,
            payload: bytes.slice(HEADER_BYTES..head.length),
        };
        Ok((record, head.length))
    }

    /// Reads all records in `bytes`, which must be entries and end with the last of them.
    pub fn decode_batch(mut bytes: Bytes) -> impl Iterator<Item = Result<Self, RecordError>> {
        std::iter::from_fn(move || {
            if bytes.is_empty() {
                return None;
            }
            let read = Self::decode(&bytes, PAYLOAD_BYTES_MAX).and_then(|(record, length)| {
                if record.kind == KIND_ENTRY {
                    Ok((record, length))
                } else {
                    Err(RecordError::Malformed)
                }
            });
            Some(match read {
                Ok((record, length)) => {
                    bytes = bytes.slice(length..);
                    Ok(record)
                }
                Err(error) => {
                    bytes.clear();
                    Err(error)
                }
            })
        })
    }
}

/// Appends a record made of its parts to `out`.
pub fn encode_parts(kind: u8, offset: Offset, time_ms: u64, payload: &[u8], out: &mut BytesMut) {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    assert!(length < u32::MAX, "a payload is bounded by its limit");
    out.reserve(HEADER_BYTES + payload.len());
    let start = out.len();
    out.put_u32_le(length);
    out.put_u32_le(0);
    out.put_u8(kind);
    out.put_bytes(0, 7);
    out.put_u64_le(offset.get());
    out.put_u64_le(time_ms);
    out.put_slice(payload);
    let checksum = crc32c::crc32c(&out[start + 8..]);
    out[start + 4..start + 8].copy_from_slice(&checksum.to_le_bytes());
}

/// Fields before a record's payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordHead {
    /// Kind of the record: [`KIND_ENTRY`], or a kind of the store's own.
    pub kind: u8,
    /// The entry's offset.
    pub offset: Offset,
    /// Time at which the log accepted it, unix milliseconds by the relay node's clock.
    pub time_ms: u64,
    /// Bytes that the record takes, with its payload.
    pub length: usize,
}

/// Checks the record at the beginning of `bytes`, all of it, and returns the fields before its payload.
pub fn check(bytes: &[u8], payload_bytes_max: usize) -> Result<RecordHead, RecordError> {
    let (length, stored) = peek(bytes, payload_bytes_max)?;
    let end = HEADER_BYTES + length;
    if bytes.len() < end {
        return Err(RecordError::Short {
            needed: end,
            have: bytes.len(),
        });
    }
    let computed = crc32c::crc32c(&bytes[8..end]);
    if stored != computed {
        return Err(RecordError::Checksum { stored, computed });
    }
    if bytes[9..16] != [0; 7] {
        return Err(RecordError::Malformed);
    }
    Ok(RecordHead {
        kind: bytes[8],
        offset: Offset::new(u64_at(bytes, 16)),
        time_ms: u64_at(bytes, 24),
        length: end,
    })
}

/// The payload's length and the stored checksum of the record at the beginning of `bytes`.
pub fn peek(bytes: &[u8], payload_bytes_max: usize) -> Result<(usize, u32), RecordError> {
    if bytes.len() < HEADER_BYTES {
        return Err(RecordError::Short {
            needed: HEADER_BYTES,
            have: bytes.len(),
        });
    }
    let length = u32_at(bytes, 0) as usize;
    if length > payload_bytes_max || bytes[8] == 0 {
        return Err(RecordError::Malformed);
    }
    Ok((length, u32_at(bytes, 4)))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut field = [0; 4];
    field.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(field)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut field = [0; 8];
    field.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(field)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn record() -> impl Strategy<Value = Record> {
        (
            1..4u8,
            any::<u64>(),
            any::<u64>(),
            proptest::collection::vec(any::<u8>(), 0..300),
        )
            .prop_map(|(kind, offset, time_ms, payload)| Record {
                kind,
                offset: Offset::new(offset),
                time_ms,
                payload: payload.into(),
            })
    }

    fn encoded(record: &Record) -> Bytes {
        let mut out = BytesMut::new();
        record.encode_into(&mut out);
        out.freeze()
    }

    proptest! {
        #[test]
        fn a_record_comes_back_as_it_was(record in record()) {
            let bytes = encoded(&record);
            prop_assert_eq!(bytes.len(), record.encoded_len());
            prop_assert_eq!(Record::decode(&bytes, 300), Ok((record, bytes.len())));
        }

        #[test]
        fn a_flipped_bit_never_passes(record in record(), bit in any::<prop::sample::Index>()) {
            let mut bytes = encoded(&record).to_vec();
            let bit = bit.index(bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(Record::decode(&bytes.into(), 300).is_err());
        }

        #[test]
        fn a_cut_record_is_short(record in record(), at in any::<prop::sample::Index>()) {
            let bytes = encoded(&record);
            let cut = bytes.slice(..at.index(bytes.len()));
            let short = matches!(Record::decode(&cut, 300), Err(RecordError::Short { .. }));
            prop_assert!(short);
        }

        #[test]
        fn any_bytes_are_records_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            for record in Record::decode_batch(bytes.into()) {
                let _ = record;
            }
        }
    }

    #[test]
    fn zeroes_are_no_record() {
        assert_eq!(
            Record::decode(&Bytes::from(vec![0; 64]), 300),
            Err(RecordError::Malformed)
        );
    }
}
