//! The directory of a regrouped segment: where the entries of each log are, and the store's own records.
//!
//! ```text
//!  header | entries of log A | entries of log B | ... | spine | tables | directory | footer | trailer
//! ```
//!
//! The spine holds marks and states, one after another. A position outside of the file names a record by where it was
//! *written*: so do the index, footers and marks, and none of them changes when a segment is regrouped. The directory says
//! where a record *is*.
//!
//! ```text
//!  directory record: kind 5, offset = last batch number, time_ms = 0
//!    payload: written end u32 | spine at u32 | spine end u32 | batches u32 | batches at u32 | crc32c u32
//!           | logs u32 | logs x (log id, first offset u64, entries u32, at u32, end u32, table at u32)
//!  table of batches: batches x (written at u32, at u32), ascending; `crc32c` covers it
//!  table of a log:   entries x at u32, from its first offset on
//! ```
//!
//! A log's table needs no checksum: each record that it leads to has one. Where the directory is damaged, the records
//! themselves tell the same ([`Groups::walk`]). Numbers are little-endian. Persisted: keep stable.

use super::super::folder::StoreId;
use super::{
    HEADER_BYTES, KIND_GROUPS, KIND_MARK, KIND_STATE, Mark, OWN_PAYLOAD_BYTES_MAX, take_log, take_u32, take_u64,
};
use bytes::{BufMut as _, Bytes, BytesMut};
use skytale_proto::record::{self, KIND_ENTRY};
use skytale_proto::{Frame, LogId, Offset, Record};
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

/// Bytes of a log in the directory, at least: that of a channel.
const GROUP_BYTES_MIN: usize = 17 + 8 + 4 * 4;

/// Directory of a regrouped segment.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(crate) struct Groups {
    /// End of the records as they were written.
    pub(crate) written_end: u32,
    pub(crate) spine_at: u32,
    pub(crate) spine_end: u32,
    /// Where each batch was written and where its mark is, ascending: while it is built, and where it was walked.
    pub(super) batches: Vec<(u32, u32)>,
    batches_count: u32,
    batches_at: u32,
    batches_crc: u32,
    /// The logs, in the order of their ids.
    pub(crate) logs: Vec<Group>,
    /// Where entries are, by the place of their log in `logs`: in a directory that was found by walking.
    walked: Option<Vec<Vec<u32>>>,
}

/// A log in a regrouped segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Group {
    pub(crate) log: LogId,
    /// The first entry's offset here.
    pub(crate) first: Offset,
    pub(crate) entries: u32,
    pub(crate) at: u32,
    pub(crate) end: u32,
    table_at: u32,
}

impl Group {
    /// The place of an entry among those here.
    fn index(&self, offset: Offset) -> Option<u32> {
        let index = offset.get().checked_sub(self.first.get())?;
        u32::try_from(index).ok().filter(|index| *index < self.entries)
    }
}

/// Builds a directory while a regrouped segment is written.
#[derive(Default)]
pub(super) struct GroupsBuilder {
    pub(super) groups: Groups,
    tables: Vec<Vec<u32>>,
}

impl GroupsBuilder {
    /// The next log's entries, in the order of log ids: where each is, and where the last one ends.
    pub(super) fn group(&mut self, log: LogId, first: Offset, table: Vec<u32>, end: u32) {
        self.groups.logs.push(Group {
            log,
            first,
            entries: count(table.len()),
            at: table.first().copied().unwrap_or(end),
            end,
            table_at: 0,
        });
        self.tables.push(table);
    }

    /// The tables and the directory, for a file that has both from `at` on. Gives them with the directory's position.
    pub(super) fn finish(mut self, at: u32, last_batch: u64) -> io::Result<(Bytes, u32)> {
        let too_long = || io::Error::other("a segment cannot grow past 4 GiB");
        let position = |out: &BytesMut| {
            let length = u32::try_from(out.len()).ok();
            length.and_then(|length| at.checked_add(length)).ok_or_else(too_long)
        };
        let mut out = BytesMut::new();
        self.groups.batches_at = at;
        self.groups.batches_count = count(self.groups.batches.len());
        for (written, at) in &self.groups.batches {
            out.put_u32_le(*written);
            out.put_u32_le(*at);
        }
        self.groups.batches_crc = crc32c::crc32c(&out);
        for (group, table) in self.groups.logs.iter_mut().zip(&self.tables) {
            group.table_at = position(&out)?;
            for at in table {
                out.put_u32_le(*at);
            }
        }
        let directory_at = position(&out)?;
        let payload = self.groups.encode();
        record::encode_parts(KIND_GROUPS, Offset::new(last_batch), 0, &payload, &mut out);
        position(&out)?;
        Ok((out.freeze(), directory_at))
    }
}

impl Groups {
    fn encode(&self) -> BytesMut {
        let mut out = BytesMut::new();
        let numbers = [
            self.written_end,
            self.spine_at,
            self.spine_end,
            self.batches_count,
            self.batches_at,
            self.batches_crc,
            count(self.logs.len()),
        ];
        for number in numbers {
            out.put_u32_le(number);
        }
        for group in &self.logs {
            out.put_slice(&group.log.to_bytes());
            out.put_u64_le(group.first.get());
            for number in [group.entries, group.at, group.end, group.table_at] {
                out.put_u32_le(number);
            }
        }
        out
    }

    fn decode(record: &Record) -> Option<Self> {
        let mut rest: &[u8] = &record.payload;
        if record.kind != KIND_GROUPS {
            return None;
        }
        let mut next = || take_u32(&mut rest);
        let (written_end, spine_at, spine_end) = (next()?, next()?, next()?);
        let (batches_count, batches_at, batches_crc, logs) = (next()?, next()?, next()?, next()?);
        if rest.len() < logs as usize * GROUP_BYTES_MIN {
            return None;
        }
        let logs = (0..logs)
            .map(|_| {
                Some(Group {
                    log: take_log(&mut rest)?,
                    first: Offset::new(take_u64(&mut rest)?),
                    entries: take_u32(&mut rest)?,
                    at: take_u32(&mut rest)?,
                    end: take_u32(&mut rest)?,
                    table_at: take_u32(&mut rest)?,
                })
            })
            .collect::<Option<Vec<_>>>()?;
        rest.is_empty().then_some(Self {
            written_end,
            spine_at,
            spine_end,
            batches: Vec::new(),
            batches_count,
            batches_at,
            batches_crc,
            logs,
            walked: None,
        })
    }

    /// Reads the directory at a place, and gives it with where it ends. `None` where it is damaged.
    pub(super) fn read(file: &File, at: u32, end: u64) -> io::Result<Option<(Self, u32)>> {
        let Some(record) = read_record(file, at, end)? else {
            return Ok(None);
        };
        let ends = at.saturating_add(u32::try_from(record.encoded_len()).unwrap_or(u32::MAX));
        Ok(Self::decode(&record).map(|groups| (groups, ends)))
    }

    /// Where each batch was written and where its mark is, ascending. Where the table is damaged, the marks tell it.
    pub(super) fn batches(&self, file: &File, store: &StoreId) -> io::Result<Vec<(u32, u32)>> {
        if self.walked.is_some() {
            return Ok(self.batches.clone());
        }
        match self.table_of_batches(file)? {
            Some(batches) => Ok(batches),
            None => Ok(Self::walk(file, store)?.batches),
        }
    }

    /// The table of batches; `None` where it is damaged.
    fn table_of_batches(&self, file: &File) -> io::Result<Option<Vec<(u32, u32)>>> {
        let bytes = u64::from(self.batches_count) * 8;
        if u64::from(self.batches_at) + bytes > file.metadata()?.len() {
            return Ok(None);
        }
        let mut table = vec![0; usize::try_from(bytes).unwrap_or(usize::MAX)];
        file.read_exact_at(&mut table, u64::from(self.batches_at))?;
        if crc32c::crc32c(&table) != self.batches_crc {
            return Ok(None);
        }
        let pairs = table.as_chunks::<8>().0.iter().map(|pair| u64::from_le_bytes(*pair));
        Ok(Some(pairs.map(|pair| (pair as u32, (pair >> 32) as u32)).collect()))
    }

    pub(super) fn group(&self, log: &LogId) -> Option<&Group> {
        let index = self.logs.binary_search_by_key(log, |group| group.log).ok()?;
        self.logs.get(index)
    }

    /// Returns where consecutive entries of a log are, from `first` on; 0 for one that is not here.
    pub(super) fn places(&self, file: &File, log: &LogId, first: Offset, entries: usize) -> io::Result<Vec<u32>> {
        let mut places = vec![0; entries];
        let Ok(index) = self.logs.binary_search_by_key(log, |group| group.log) else {
            return Ok(places);
        };
        let Some((group, from)) = self
            .logs
            .get(index)
            .and_then(|group| Some((group, group.index(first)?)))
        else {
            return Ok(places);
        };
        let found = entries.min((group.entries - from) as usize);
        if let Some(walked) = &self.walked {
            let table = walked.get(index).and_then(|table| table.get(from as usize..));
            let table = table.unwrap_or_default();
            places.iter_mut().zip(table).for_each(|(place, at)| *place = *at);
            return Ok(places);
        }
        let mut table = vec![0; found * 4];
        match file.read_exact_at(&mut table, u64::from(group.table_at) + u64::from(from) * 4) {
            // The file is shorter than it was: the records are looked for.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(places),
            outcome => outcome?,
        }
        for (place, at) in places.iter_mut().zip(table.as_chunks::<4>().0) {
            let at = u32::from_le_bytes(*at);
            // A damaged table leads to no other log's entries.
            *place = if (group.at..group.end).contains(&at) { at } else { 0 };
        }
        Ok(places)
    }

    /// Looks for an entry by going from record to record of its log: where its table is damaged.
    pub(super) fn find(&self, file: &File, log: &LogId, offset: Offset) -> io::Result<Option<u32>> {
        let Some((group, index)) = self.group(log).and_then(|group| Some((group, group.index(offset)?))) else {
            return Ok(None);
        };
        let mut at = group.at;
        for _ in 0..index {
            let Some(length) = length_at(file, at, group.end)? else {
                return Ok(None);
            };
            at = at.saturating_add(length);
        }
        Ok((at < group.end).then_some(at))
    }

    /// Whether a directory that was made from the records says the same, as far as they are whole.
    pub(super) fn agrees(&self, walked: &Self, file: &File, store: &StoreId) -> io::Result<bool> {
        if self.batches(file, store)? != walked.batches || self.table_of_batches(file)?.is_none() {
            return Ok(false);
        }
        for group in &walked.logs {
            let found = walked.places(file, &group.log, group.first, group.entries as usize)?;
            let said = self.places(file, &group.log, group.first, group.entries as usize)?;
            if found.iter().zip(&said).any(|(found, said)| *found > 0 && found != said) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Makes a directory from the records, where the file's own is damaged. Reads the whole file.
    pub(super) fn walk(file: &File, store: &StoreId) -> io::Result<Self> {
        let length = file.metadata()?.len();
        let end = u32::try_from(length).unwrap_or(u32::MAX);
        let mut logs: BTreeMap<LogId, BTreeMap<u64, u32>> = BTreeMap::new();
        let mut ends: BTreeMap<LogId, u32> = BTreeMap::new();
        let mut groups = Self::default();
        let (mut at, mut written) = (HEADER_BYTES, HEADER_BYTES);
        while let Some(bytes) = length_at(file, at, end)? {
            let next = at.saturating_add(bytes);
            match read_record(file, at, length)? {
                Some(record) if record.kind == KIND_ENTRY => {
                    if let Ok(frame) = Frame::decode(record.payload.clone()) {
                        let log = frame.header().log;
                        logs.entry(log).or_default().insert(record.offset.get(), at);
                        ends.insert(log, next);
                    }
                }
                Some(record) if record.kind == KIND_MARK => {
                    let Some(mark) = Mark::decode(&record, store) else {
                        break;
                    };
                    groups.spine_at = if groups.spine_at == 0 { at } else { groups.spine_at };
                    groups.batches.push((written, at));
                    let records = mark.records.iter();
                    let records = records.map(|record| record::HEADER_BYTES as u32 + record.length);
                    written = written.saturating_add(bytes).saturating_add(records.sum());
                }
                Some(record) if record.kind == KIND_STATE => {}
                Some(_) => break,
                // A damaged entry: its length may be whole.
                None => {}
            }
            at = next;
            groups.spine_end = at;
        }
        groups.written_end = written;
        let mut walked = Vec::new();
        for (log, places) in logs {
            let (Some((first, begin)), Some((last, _))) = (places.first_key_value(), places.last_key_value()) else {
                continue;
            };
            let entries = u32::try_from(last - first + 1)
                .unwrap_or(u32::MAX)
                .min(end / record::HEADER_BYTES as u32);
            groups.logs.push(Group {
                log,
                first: Offset::new(*first),
                entries,
                at: *begin,
                end: ends.get(&log).copied().unwrap_or(*begin),
                table_at: 0,
            });
            let table = (0..u64::from(entries)).map(|index| places.get(&(first + index)).copied().unwrap_or_default());
            walked.push(table.collect());
        }
        groups.walked = Some(walked);
        Ok(groups)
    }
}

/// The length of the record at a place, if a record's header is there.
fn length_at(file: &File, at: u32, end: u32) -> io::Result<Option<u32>> {
    if end.saturating_sub(at) < record::HEADER_BYTES as u32 {
        return Ok(None);
    }
    let mut header = [0; record::HEADER_BYTES];
    file.read_exact_at(&mut header, u64::from(at))?;
    let left = (end - at) as usize - record::HEADER_BYTES;
    let peeked = record::peek(&header, OWN_PAYLOAD_BYTES_MAX.min(left)).ok();
    Ok(peeked.and_then(|(length, _)| u32::try_from(record::HEADER_BYTES + length).ok()))
}

/// The record at a place, if a whole one is there.
pub(super) fn read_record(file: &File, at: u32, end: u64) -> io::Result<Option<Record>> {
    let end = u32::try_from(end).unwrap_or(u32::MAX);
    let Some(length) = length_at(file, at, end)? else {
        return Ok(None);
    };
    let mut bytes = vec![0; length as usize];
    file.read_exact_at(&mut bytes, u64::from(at))?;
    let record = Record::decode(&Bytes::from(bytes), OWN_PAYLOAD_BYTES_MAX);
    Ok(record.ok().map(|(record, _)| record))
}

fn count(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use skytale_proto::{AgentId, ChannelId};

    fn logs() -> impl Strategy<Value = BTreeMap<LogId, (u64, Vec<u32>)>> {
        let log = prop_oneof![
            any::<[u8; 16]>().prop_map(|id| ChannelId::from_bytes(id).log()),
            any::<[u8; 32]>().prop_map(|id| AgentId::from_bytes(id).log()),
        ];
        let entries = (1..1u64 << 40, proptest::collection::vec(64..1_000u32, 1..20));
        proptest::collection::btree_map(log, entries, 1..8)
    }

    proptest! {
        #[test]
        fn a_directory_comes_back_as_it_was_built(
            logs in logs(),
            batches in proptest::collection::vec(any::<(u32, u32)>(), 0..20),
        ) {
            let mut builder = GroupsBuilder::default();
            builder.groups.batches = batches.clone();
            builder.groups.written_end = 77;
            for (log, (first, table)) in &logs {
                let mut table = table.clone();
                table.sort_unstable();
                builder.group(*log, Offset::new(*first), table, 1_001);
            }
            let (bytes, at) = builder.finish(2_000, 9)?;
            let file = tempfile::tempfile()?;
            file.write_all_at(&bytes, 2_000)?;
            let end = 2_000 + bytes.len() as u64;
            let (groups, ends) = Groups::read(&file, at, end)?.expect("a directory");
            prop_assert_eq!((u64::from(ends), groups.written_end), (end, 77));
            prop_assert_eq!(groups.batches(&file, &StoreId([1; 16]))?, batches);
            for (log, (first, table)) in &logs {
                let mut table = table.clone();
                table.sort_unstable();
                prop_assert_eq!(&groups.places(&file, log, Offset::new(*first), table.len())?, &table);
                let past = Offset::new(first + table.len() as u64);
                prop_assert_eq!(groups.places(&file, log, past, 2)?, [0, 0]);
                prop_assert_eq!(groups.places(&file, log, Offset::new(first - 1), 1)?, [0]);
            }
        }

        #[test]
        fn any_payload_is_a_directory_or_none(payload in proptest::collection::vec(any::<u8>(), 0..200)) {
            let record = Record { kind: KIND_GROUPS, offset: Offset::FIRST, time_ms: 0, payload: payload.into() };
            let _ = Groups::decode(&record);
        }
    }
}
