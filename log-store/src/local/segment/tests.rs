//! Findings of a scan after any cut or any flipped byte.

use super::super::config::LocalConfig;
use super::super::folder::StoreId;
use super::super::space::Space;
use super::{
    End, Extent, FooterBuilder, HEADER_BYTES, Mark, MarkRecord, OpenSegment, Scan, SegmentFile, SegmentHeader, Step,
    file_name,
};
use bytes::BytesMut;
use skytale_proto::record::{self, KIND_ENTRY};
use skytale_proto::{ChannelId, LogId, Offset};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const STORE: StoreId = StoreId([0xc3; 16]);

fn log() -> LogId {
    ChannelId::from_bytes([4; 16]).log()
}

/// A segment with batches of so many entries each, open; with where each batch and each entry ends.
struct Written {
    dir: tempfile::TempDir,
    batches: Vec<u32>,
    entries: Vec<u32>,
}

fn space(dir: &Path) -> Space {
    Space::new(&LocalConfig::new(dir))
}

impl Written {
    fn new(batches: &[u64]) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let header = SegmentHeader::new(1, STORE, 0);
        let mut segment = OpenSegment::create(dir.path(), &header, 4_096, &space(dir.path())).expect("a segment");
        let (mut ends, mut entries, mut next) = (Vec::new(), Vec::new(), Offset::FIRST);
        for (number, count) in (1..).zip(batches) {
            let mut records = BytesMut::new();
            let (first, mut marks, mut lengths) = (next, Vec::new(), Vec::new());
            for _ in 0..*count {
                let payload = vec![next.get() as u8; 20 + next.get() as usize];
                record::encode_parts(KIND_ENTRY, next, 7, &payload, &mut records);
                marks.push(MarkRecord {
                    log: 0,
                    length: payload.len() as u32,
                    state: false,
                });
                lengths.push(records.len() as u32);
                next = next.next();
            }
            let mark = Mark {
                number,
                time_ms: 7,
                logs: vec![(log(), first)],
                records: marks,
                ..Mark::default()
            };
            let mut encoded = BytesMut::new();
            mark.encode_into(&STORE, &mut encoded);
            let start = segment.at + encoded.len() as u32;
            segment.write(&encoded, &records).expect("written");
            entries.extend(lengths.iter().map(|length| start + length));
            ends.push(segment.at);
        }
        segment.sync().expect("synced");
        Self {
            dir,
            batches: ends,
            entries,
        }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join(file_name(1))
    }

    fn change(&self, change: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = fs::read(self.path()).expect("read");
        change(&mut bytes);
        fs::write(self.path(), bytes).expect("written");
    }
}

/// Findings of a scan: offsets of whole entries, offsets of damaged ones, lost stretches, the end.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    whole: Vec<u64>,
    damaged: Vec<u64>,
    lost: Vec<(u32, u32)>,
    end: End,
}

fn scan(path: &Path, extent: Extent) -> Seen {
    let segment = Arc::new(SegmentFile::open(path.to_owned(), 1, &STORE).expect("opens"));
    let mut scan = Scan::new(segment, STORE, extent, 0, 0).expect("a scan");
    let (mut whole, mut damaged, mut lost) = (Vec::new(), Vec::new(), Vec::new());
    loop {
        match scan.next().expect("read").expect("an end comes first") {
            Step::Entry { log: of, record, .. } => {
                assert_eq!(of, log());
                assert_eq!(record.payload.len() as u64, 20 + record.offset.get());
                whole.push(record.offset.get());
            }
            Step::Damaged { offset, .. } => damaged.push(offset.get()),
            Step::Lost { at, to, .. } => lost.push((at, to)),
            Step::End(end) => {
                assert!(scan.next().expect("read").is_none());
                return Seen {
                    whole,
                    damaged,
                    lost,
                    end,
                };
            }
            _ => {}
        }
    }
}

#[test]
fn a_whole_segment_ends_where_its_reserved_space_begins() {
    let written = Written::new(&[2, 3]);
    let seen = scan(&written.path(), Extent::Last);
    let end = End::Clean { at: written.batches[1] };
    assert_eq!((seen.whole.as_slice(), seen.end), ([1, 2, 3, 4, 5].as_slice(), end));
}

#[test]
fn a_last_batch_cut_at_any_byte_keeps_what_is_whole_before_the_cut() {
    let written = Written::new(&[2, 3]);
    let bytes = fs::read(written.path()).expect("read");
    for cut in written.batches[0]..written.batches[1] {
        let expected: Vec<u64> = (1..)
            .zip(&written.entries)
            .filter(|(_, end)| **end <= cut)
            .map(|(n, _)| n)
            .collect();
        for rest in [None, Some(0u8), Some(0xa5)] {
            let mut cut_off = bytes[..cut as usize].to_vec();
            cut_off.resize(rest.map_or(cut_off.len(), |_| bytes.len()), rest.unwrap_or_default());
            fs::write(written.path(), cut_off).expect("written");
            let seen = scan(&written.path(), Extent::Last);
            assert_eq!(seen.whole, expected, "cut at {cut}, then {rest:?}");
            assert_eq!(
                (seen.damaged.len(), seen.lost.len()),
                (0, 0),
                "cut at {cut}, then {rest:?}"
            );
            let at = match seen.end {
                End::Clean { at } | End::Torn { at } => at,
                End::Footer { .. } => panic!("there is none"),
            };
            // A store that continues there overwrites nothing that is whole, and leaves no gap.
            let last = expected.len();
            let ends = [written.batches[0], written.entries[last - 1]];
            assert!(
                ends.contains(&at) || at > written.batches[0] && last == 2,
                "{at} for a cut at {cut}"
            );
        }
    }
}

#[test]
fn any_flipped_byte_before_the_last_batch_is_told_and_hits_nothing_else() {
    let written = Written::new(&[2, 3, 1]);
    let bytes = fs::read(written.path()).expect("read");
    for place in HEADER_BYTES..written.batches[1] {
        let mut flipped = bytes.clone();
        flipped[place as usize] ^= 0x10;
        fs::write(written.path(), flipped).expect("written");
        let seen = scan(&written.path(), Extent::Last);
        assert_eq!(
            seen.damaged.len() + seen.lost.len(),
            1,
            "one thing is wrong at {place}: {seen:?}"
        );
        match (seen.damaged.as_slice(), seen.lost.as_slice()) {
            ([damaged], []) => {
                let others: Vec<u64> = (1..=6).filter(|offset| offset != damaged).collect();
                assert_eq!(seen.whole, others);
            }
            ([], [(at, to)]) => {
                assert!((*at..*to).contains(&place));
                assert!(seen.whole.contains(&6));
            }
            _ => unreachable!("one thing is wrong"),
        }
        assert_eq!(seen.end, End::Clean { at: written.batches[2] });
    }
}

#[test]
fn a_segment_sealed_after_a_cut_is_whole() {
    let written = Written::new(&[2, 3]);
    let cut = written.entries[3];
    written.change(|bytes| bytes.truncate(cut as usize));
    let (footer, header) = (FooterBuilder::default(), SegmentHeader::new(1, STORE, 0));
    let mut segment =
        OpenSegment::resume(written.path(), header, cut, footer, true, 4_096, &space(Path::new("/"))).expect("resumed");
    let mark = Mark {
        number: 3,
        ..Mark::default()
    };
    let mut encoded = BytesMut::new();
    mark.encode_into(&STORE, &mut encoded);
    segment.write(&encoded, &[]).expect("written");
    for sealed in [false, true] {
        let extent = if sealed {
            let (trailer, _) = OpenSegment::resume(
                written.path(),
                header,
                cut + encoded.len() as u32,
                FooterBuilder::default(),
                false,
                4_096,
                &space(Path::new("/")),
            )
            .expect("resumed")
            .seal()
            .expect("sealed");
            Extent::Sealed {
                footer_at: trailer.footer_at,
            }
        } else {
            Extent::Last
        };
        let seen = scan(&written.path(), extent);
        assert_eq!(
            (seen.whole.len(), seen.damaged.len(), seen.lost.len()),
            (4, 0, 0),
            "{seen:?}"
        );
    }
}
