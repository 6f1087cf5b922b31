//! The record that begins a batch: its number, and which records follow.
//!
//! ```text
//!  record header: kind 2, offset = batch number, time_ms = the batch's time
//!  payload: store id (16) | logs u32 | records u32 | logs x (log id, first offset u64) | records x (log u32, length u32)
//!           | positions, in a replica alone (position.rs)
//! ```
//!
//! `length` is the payload's; its highest bit is set for a log's state. With this, a damaged record is known by its log
//! and offset, and the next one by its place. Numbers are little-endian. Persisted: keep stable.

use super::super::folder::StoreId;
use super::super::position::MarkPositions;
use super::{KIND_MARK, take, take_log, take_u32, take_u64};
use bytes::{BufMut as _, BytesMut};
use skytale_proto::{LogId, Offset, Record, record};

const STATE_BIT: u32 = 1 << 31;

/// Mark of a batch.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(crate) struct Mark {
    /// The batch's number, from 1, dense over all segments.
    pub(crate) number: u64,
    /// Time of the batch, unix milliseconds.
    pub(crate) time_ms: u64,
    /// The logs it has records of, each with the offset of its first entry here.
    pub(crate) logs: Vec<(LogId, Offset)>,
    /// The records that follow, in their order.
    pub(crate) records: Vec<MarkRecord>,
    /// Positions of a replica after the batch.
    pub(crate) positions: MarkPositions,
}

/// A record of a batch, as its mark has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MarkRecord {
    /// Index of its log among the mark's.
    pub(crate) log: u32,
    /// The payload's length, in bytes.
    pub(crate) length: u32,
    /// It is a log's state, not an entry.
    pub(crate) state: bool,
}

impl Mark {
    /// Writes the record of a mark made of its parts to `out`.
    pub(crate) fn encode_parts(
        number: u64,
        time_ms: u64,
        logs: &[(LogId, Offset)],
        records: &[MarkRecord],
        positions: &MarkPositions,
        store: &StoreId,
        out: &mut BytesMut,
    ) {
        let mut payload = BytesMut::with_capacity(24 + logs.len() * 41 + records.len() * 8);
        payload.put_slice(&store.0);
        payload.put_u32_le(count(logs.len()));
        payload.put_u32_le(count(records.len()));
        for (log, first) in logs {
            payload.put_slice(&log.to_bytes());
            payload.put_u64_le(first.get());
        }
        for record in records {
            let state = if record.state { STATE_BIT } else { 0 };
            payload.put_u32_le(record.log);
            payload.put_u32_le(record.length | state);
        }
        positions.encode(&mut payload);
        record::encode_parts(KIND_MARK, Offset::new(number), time_ms, &payload, out);
    }

    #[cfg(test)]
    pub(crate) fn encode_into(&self, store: &StoreId, out: &mut BytesMut) {
        Self::encode_parts(
            self.number,
            self.time_ms,
            &self.logs,
            &self.records,
            &self.positions,
            store,
            out,
        );
    }

    /// Reads a mark of this store from its record.
    pub(crate) fn decode(record: &Record, store: &StoreId) -> Option<Self> {
        let mut rest: &[u8] = &record.payload;
        if record.kind != KIND_MARK || take(&mut rest, 16)? != store.0 {
            return None;
        }
        let (logs, records) = (take_u32(&mut rest)?, take_u32(&mut rest)?);
        // Each log takes at least 25 bytes and each record 8: nothing is allocated that the bytes do not hold.
        if rest.len() < logs as usize * 25 + records as usize * 8 {
            return None;
        }
        let logs = (0..logs)
            .map(|_| Some((take_log(&mut rest)?, Offset::new(take_u64(&mut rest)?))))
            .collect::<Option<Vec<_>>>()?;
        let records = (0..records)
            .map(|_| {
                let (log, length) = (take_u32(&mut rest)?, take_u32(&mut rest)?);
                (log < count(logs.len())).then_some(MarkRecord {
                    log,
                    length: length & !STATE_BIT,
                    state: length & STATE_BIT != 0,
                })
            })
            .collect::<Option<Vec<_>>>()?;
        let positions = MarkPositions::decode(&mut rest)?;
        rest.is_empty().then_some(Self {
            number: record.offset.get(),
            time_ms: record.time_ms,
            logs,
            records,
            positions,
        })
    }
}

/// A count that a batch's limits keep far below 2^32.
fn count(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use skytale_proto::{AgentId, ChannelId};

    fn log() -> impl Strategy<Value = LogId> {
        prop_oneof![
            any::<[u8; 16]>().prop_map(|id| ChannelId::from_bytes(id).log()),
            any::<[u8; 32]>().prop_map(|id| AgentId::from_bytes(id).log()),
        ]
    }

    proptest! {
        #[test]
        fn a_mark_comes_back_as_it_was(
            number in 1..u64::MAX,
            logs in proptest::collection::vec((log(), any::<u64>().prop_map(Offset::new)), 1..20),
            records in proptest::collection::vec((any::<prop::sample::Index>(), 0..1u32 << 20, any::<bool>()), 0..50),
        ) {
            let records = records
                .into_iter()
                .map(|(log, length, state)| MarkRecord { log: log.index(logs.len()) as u32, length, state })
                .collect();
            let mark = Mark { number, time_ms: 7, logs, records, positions: MarkPositions::default() };
            let store = StoreId([3; 16]);
            let mut out = BytesMut::new();
            mark.encode_into(&store, &mut out);
            let (record, length) = Record::decode(&out.clone().freeze(), 1 << 20)?;
            prop_assert_eq!(length, out.len());
            prop_assert_eq!(Mark::decode(&record, &store), Some(mark));
            prop_assert_eq!(Mark::decode(&record, &StoreId([4; 16])), None);
        }

        #[test]
        fn any_payload_is_a_mark_or_none(mut payload in proptest::collection::vec(any::<u8>(), 16..120)) {
            payload[..16].fill(3);
            let record = Record { kind: KIND_MARK, offset: Offset::FIRST, time_ms: 0, payload: payload.into() };
            let _ = Mark::decode(&record, &StoreId([3; 16]));
        }
    }
}
