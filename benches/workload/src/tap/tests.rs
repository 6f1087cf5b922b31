use super::*;
use crate::event::{Agent, Channel, Frame, Log};
use crate::file::{End, Reader};
use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use skytale_proto::{ChannelId, ChannelMode, Code, Detail, FrameId, Header as FrameHeader, LogId, Offset};
use std::fs;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

const START_MS: u64 = 1_700_000_000_000;
const LIMITS: TapLimits = TapLimits {
    file_bytes: 64 << 20,
    bytes_max: 1 << 30,
};

fn id(number: u8) -> AgentId {
    AgentId::from_bytes([number; 32])
}

fn channel(number: u8) -> ChannelId {
    ChannelId::from_bytes([number; 16])
}

fn us(us: u64) -> Duration {
    Duration::from_micros(us)
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn writer(dir: &Path, limits: TapLimits) -> TapWriter {
    TapWriter::new(dir.to_owned(), limits, "a test", START_MS).expect("random bytes")
}

const OFFER: Detail = Detail::KeyPackage {
    last_resort: true,
    account: None,
};
const CLAIM: Detail = Detail::KeyPackageClaim { account: None };

fn append(author: AgentId, log: LogId, detail: Detail, body_bytes: usize) -> Fact {
    let header = FrameHeader {
        log,
        id: FrameId::generate(),
        author,
        parent: if matches!(
            detail,
            Detail::Create { .. } | Detail::KeyPackage { .. } | Detail::KeyPackageClaim { .. }
        ) {
            Offset::ZERO
        } else {
            Offset::FIRST
        },
        detail,
    };
    let frame = skytale_proto::Frame::new(header, Bytes::from(vec![7; body_bytes])).expect("a frame");
    let shape = Shape::of(&frame).expect("of an agent");
    Fact::Append { author, log, shape }
}

fn message(author: u8, of: u8, body_bytes: usize) -> Fact {
    append(id(author), channel(of).log(), Detail::Message, body_bytes)
}

fn told(writer: &mut TapWriter, facts: impl IntoIterator<Item = (u64, Fact)>) {
    for (at, fact) in facts {
        writer.observe(Observed { at: us(at), fact });
    }
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(dir)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    files.sort();
    files
}

struct File {
    header: Header,
    events: Vec<Event>,
    end: End,
}

fn read(bytes: &[u8]) -> File {
    let mut reader = Reader::new(bytes).expect("a workload");
    let mut events = Vec::new();
    while let Some(event) = reader.next_event().expect("an event or the end") {
        events.push(event);
    }
    File {
        header: reader.header().clone(),
        events,
        end: reader.end().expect("an end").clone(),
    }
}

fn read_file(path: &Path) -> File {
    read(&fs::read(path).expect("readable"))
}

/// All events of a folder, by unix microseconds.
fn all(dir: &Path) -> Vec<(u64, What)> {
    let files = files(dir).into_iter().map(|path| read_file(&path));
    files
        .flat_map(|file| {
            let start_us = file.header.start_ms.expect("a start") * 1_000;
            let event = move |event: Event| (start_us + event.at.as_micros() as u64, event.what);
            file.events.into_iter().map(event)
        })
        .collect()
}

#[test]
fn each_fact_is_its_event_in_the_order_of_their_times() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut tap = writer(dir.path(), LIMITS);
    let log = channel(9).log();
    let create = Detail::Create {
        mode: ChannelMode::Mls,
        account: None,
        policy: None,
    };
    let commit = Detail::Commit {
        adds: vec![id(2), id(3)],
        removes: vec![],
        recipients: vec![id(2)],
        roster: None,
        policy: None,
    };
    let facts = [
        (1_000, Fact::Token(id(1))),
        (
            1_000,
            Fact::Connect {
                agent: id(1),
                session: 7,
            },
        ),
        (1_205, append(id(1), log, create, 100)),
        (1_300, append(id(1), id(1).log(), OFFER, 330)),
        (1_310, append(id(1), id(2).log(), CLAIM, 0)),
        (2_000, append(id(1), log, commit, 900)),
        (
            2_001,
            Fact::Subscribe {
                agent: id(2),
                log,
                behind: 2,
                follow: true,
            },
        ),
        (
            2_002,
            Fact::Subscribe {
                agent: id(2),
                log: id(2).log(),
                behind: 0,
                follow: false,
            },
        ),
        (2_003, append(id(2), log, Detail::Message, 5)),
        (2_004, append(id(2), log, Detail::Proposal, 6)),
        (2_005, append(id(2), log, Detail::Rejoin, 7)),
        (
            2_006,
            Fact::Refused {
                agent: id(4),
                code: Code::NotMember,
            },
        ),
        (
            3_000,
            Fact::Disconnect {
                agent: id(1),
                session: 7,
            },
        ),
    ];
    // As they come out: not in order.
    let mut shuffled = facts.to_vec();
    shuffled.reverse();
    shuffled.swap(11, 12);
    told(
        &mut tap,
        shuffled
            .into_iter()
            .filter(|(_, fact)| !matches!(fact, Fact::Disconnect { .. })),
    );
    told(&mut tap, facts.last().cloned());
    let turn = tap.finish(seconds(1));
    assert_eq!((turn.written, turn.dropped), (13, 0));
    assert!(turn.error.is_none());

    let paths = files(dir.path());
    assert_eq!(paths.len(), 1);
    assert_eq!(
        paths[0].file_name().and_then(|name| name.to_str()),
        Some("tap-1700000000001-000000.skw")
    );
    let mode = fs::metadata(&paths[0]).expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let file = read_file(&paths[0]);
    assert_eq!(file.end, End::Whole);
    assert_eq!(file.header.source, Source::Tap);
    assert_eq!(file.header.start_ms, Some(START_MS + 1));
    assert_eq!(
        file.header.part,
        Some(Part {
            life_ms: START_MS,
            number: 0
        })
    );
    let times: Vec<_> = file.events.iter().map(|event| event.at.as_micros() as u64).collect();
    assert_eq!(times, facts.iter().map(|(at, _)| at - 1_000).collect::<Vec<_>>());
    // Numbers are in the order in which facts came.
    let number = |wanted: &dyn Fn(&What) -> Option<Agent>| {
        file.events
            .iter()
            .find_map(|event| wanted(&event.what))
            .expect("an agent")
    };
    let one = number(&|what| match what {
        What::Connect(agent) => Some(*agent),
        _ => None,
    });
    let two = number(&|what| match what {
        What::Subscribe { agent, .. } => Some(*agent),
        _ => None,
    });
    let three = number(&|what| match what {
        What::Append {
            frame: Frame::Commit { adds, .. },
            ..
        } => adds.get(1).copied(),
        _ => None,
    });
    let four = number(&|what| match what {
        What::Refused { agent, .. } => Some(*agent),
        _ => None,
    });
    let channel = Channel(0);
    let appended = |author, body_bytes, frame| What::Append {
        author,
        body_bytes,
        frame,
    };
    let wanted = [
        What::Token(one),
        What::Connect(one),
        appended(
            one,
            100,
            Frame::Create {
                channel,
                mode: ChannelMode::Mls,
            },
        ),
        appended(one, 330, Frame::KeyPackage { last_resort: true }),
        appended(one, 0, Frame::Claim(two)),
        appended(
            one,
            900,
            Frame::Commit {
                channel,
                adds: vec![two, three],
                removes: vec![],
                recipients: vec![two],
            },
        ),
        What::Subscribe {
            agent: two,
            log: Log::Channel(channel),
            behind: 2,
            follow: true,
        },
        What::Subscribe {
            agent: two,
            log: Log::Agent(two),
            behind: 0,
            follow: false,
        },
        appended(two, 5, Frame::Message(channel)),
        appended(two, 6, Frame::Proposal(channel)),
        appended(two, 7, Frame::Rejoin(channel)),
        What::Refused {
            agent: four,
            code: Code::NotMember,
        },
        What::Disconnect(one),
    ];
    let events: Vec<_> = file.events.into_iter().map(|event| event.what).collect();
    assert_eq!(events, wanted);
}

#[test]
fn what_comes_too_late_never_goes_back_in_time() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut tap = writer(dir.path(), LIMITS);
    told(&mut tap, [(900_000, message(1, 1, 1)), (1_990_000, message(1, 1, 2))]);
    // The second one is held: others may have been before it.
    assert_eq!(tap.turn(seconds(2)).written, 1);
    told(&mut tap, [(1_980_000, message(1, 1, 3)), (100, message(1, 1, 4))]);
    assert_eq!(tap.turn(us(2_100_000)).written, 0, "not due");
    assert_eq!(tap.finish(seconds(3)).written, 3);
    let events = all(dir.path());
    let times: Vec<_> = events.iter().map(|(at, _)| at - START_MS * 1_000).collect();
    assert_eq!(times, [900_000, 900_000, 1_980_000, 1_990_000]);
}

#[test]
fn an_agent_has_one_session_at_a_time_in_whatever_order_they_are_told() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut tap = writer(dir.path(), LIMITS);
    let connect = |session| Fact::Connect { agent: id(1), session };
    let disconnect = |session| Fact::Disconnect { agent: id(1), session };
    let facts = [
        connect(1),
        connect(3),
        connect(2),
        disconnect(1),
        disconnect(2),
        disconnect(3),
        disconnect(3),
    ];
    told(&mut tap, facts.into_iter().zip(0..).map(|(fact, at)| (at, fact)));
    tap.finish(seconds(1));
    let agent = Agent(0);
    let events: Vec<_> = all(dir.path()).into_iter().map(|(_, what)| what).collect();
    assert_eq!(
        events,
        [
            What::Connect(agent),
            What::Disconnect(agent),
            What::Connect(agent),
            What::Disconnect(agent)
        ]
    );
}

/// Many messages, a turn after each ten of them, and what was written in all.
fn many(tap: &mut TapWriter, dir: &Path, count: u64, bytes_max: u64) -> u64 {
    let mut written = 0;
    for number in 0..count {
        // Sizes that do not compress.
        let body_bytes = (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 50) as usize;
        let author = (number % 200) as u8;
        told(tap, [(number * 100_000 + 7, message(author, author, body_bytes))]);
        if number % 10 == 9 {
            let turn = tap.turn(us((number + 10) * 100_000));
            assert!(turn.error.is_none(), "{:?}", turn.error);
            written += turn.written;
            let bytes: u64 = files(dir)
                .iter()
                .map(|path| fs::metadata(path).expect("there").len())
                .sum();
            assert!(bytes <= bytes_max, "{bytes} bytes");
        }
    }
    written
}

#[test]
fn files_rotate_and_each_can_be_read_alone() {
    let dir = tempfile::tempdir().expect("a folder");
    let limits = TapLimits {
        file_bytes: 2_000,
        bytes_max: 1 << 20,
    };
    let mut tap = writer(dir.path(), limits);
    let mut written = many(&mut tap, dir.path(), 1_000, limits.bytes_max);
    written += tap.finish(seconds(200)).written;
    assert_eq!(written, 1_000);
    let paths = files(dir.path());
    assert!(paths.len() > 3, "{} files", paths.len());
    for (path, number) in paths.iter().zip(0..) {
        let file = read_file(path);
        assert_eq!(file.end, End::Whole);
        assert_eq!(
            file.header.part,
            Some(Part {
                life_ms: START_MS,
                number
            })
        );
        assert!(!file.events.is_empty());
    }
    // Times and numbers fit together.
    let events = all(dir.path());
    assert_eq!(events.len(), 1_000);
    for ((at, what), number) in events.into_iter().zip(0..) {
        assert_eq!(at, START_MS * 1_000 + number * 100_000 + 7);
        let What::Append { author, .. } = what else {
            panic!("{what:?}")
        };
        assert_eq!(u64::from(author.0), number % 200);
    }
}

#[test]
fn a_tap_is_bounded_and_the_oldest_files_go_first_of_whatever_life() {
    let dir = tempfile::tempdir().expect("a folder");
    let limits = TapLimits {
        file_bytes: 2_000,
        bytes_max: 10_000,
    };
    fs::write(dir.path().join("mine.skw"), [0; 100]).expect("written");
    let earlier = dir.path().join("tap-1600000000000-000000.skw");
    fs::write(&earlier, [0; 5_000]).expect("written");
    let mut tap = writer(dir.path(), limits);
    let written = many(&mut tap, dir.path(), 5_000, limits.bytes_max + 100);
    tap.finish(seconds(600));
    assert!(written > 4_900);
    assert!(!earlier.exists());
    assert!(dir.path().join("mine.skw").exists(), "not of a tap");
    fs::remove_file(dir.path().join("mine.skw")).expect("removed");
    let parts: Vec<_> = files(dir.path())
        .iter()
        .map(|path| read_file(path).header.part.expect("a part").number)
        .collect();
    assert!(parts.windows(2).all(|two| two[0] + 1 == two[1]), "{parts:?}");
    assert!(parts[0] > 3, "{parts:?}");
    let last = all(dir.path()).pop().expect("an event").0;
    assert_eq!(last, START_MS * 1_000 + 4_999 * 100_000 + 7);
}

#[test]
fn a_tap_that_nobody_ends_is_good_up_to_the_last_turn() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut tap = writer(dir.path(), LIMITS);
    told(
        &mut tap,
        (0..500).map(|number| (number, message(1, 1, number as usize))),
    );
    assert_eq!(tap.turn(seconds(1)).written, 500);
    told(&mut tap, [(1_500_000, message(1, 1, 1))]);
    // As a process that is killed.
    drop(tap);
    let paths = files(dir.path());
    let file = read_file(&paths[0]);
    assert_eq!((file.events.len(), file.end), (500, End::Cut));
}

#[test]
fn no_id_comes_to_the_disk() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut tap = writer(dir.path(), LIMITS);
    let commit = Detail::Commit {
        adds: vec![id(0xc3)],
        removes: vec![id(0xd4)],
        recipients: vec![id(0xc3)],
        roster: None,
        policy: None,
    };
    let log = channel(0xb2).log();
    told(
        &mut tap,
        [
            (
                0,
                Fact::Connect {
                    agent: id(0xa1),
                    session: 0xe5e5_e5e5,
                },
            ),
            (1, append(id(0xa1), log, commit, 1)),
            (2, append(id(0xa1), log, Detail::Message, 100)),
            (3, append(id(0xa1), id(0xc3).log(), CLAIM, 0)),
            (4, Fact::Token(id(0xa1))),
        ],
    );
    tap.finish(seconds(1));
    let raw = fs::read(&files(dir.path())[0]).expect("readable");
    let mut text = Vec::new();
    MultiGzDecoder::new(raw.as_slice())
        .read_to_end(&mut text)
        .expect("gzip");
    assert!(text.windows(7).any(|part| part == b"\"m\",0,0"));
    let mut markers: Vec<Vec<u8>> = vec![vec![7; 8]];
    for marker in [0xa1, 0xb2, 0xc3, 0xd4] {
        markers.push(vec![marker; 4]);
        markers.push(format!("{marker:02x}").repeat(2).into_bytes());
        markers.push(format!("{marker:02X}").repeat(2).into_bytes());
        for shown in [
            id(marker).to_string(),
            channel(marker).to_string(),
            format!("{:?}", id(marker)),
        ] {
            markers.push(shown.as_bytes()[4..12].to_vec());
        }
    }
    for marker in markers {
        for bytes in [&raw, &text] {
            let is_in = bytes.windows(marker.len()).any(|part| part == marker);
            assert!(!is_in, "{}", String::from_utf8_lossy(&marker));
        }
    }
    assert!(!format!("{:?}", writer(dir.path(), LIMITS)).contains("AgentId"));
}

#[test]
fn a_tap_that_cannot_write_counts_and_tries_again() {
    let parent = tempfile::tempdir().expect("a folder");
    let dir = parent.path().join("tap");
    fs::write(&dir, "a file where the folder should be").expect("written");
    let mut tap = writer(&dir, LIMITS);
    told(&mut tap, (0..10).map(|at| (at, message(1, 1, 1))));
    let turn = tap.turn(seconds(1));
    let error = turn.error.expect("no folder").to_string();
    assert!(error.contains(&*dir.to_string_lossy()), "{error}");
    assert_eq!((turn.written, turn.dropped), (0, 10));
    // Until it tries again it only counts.
    told(&mut tap, (0..5).map(|at| (1_000_000 + at, message(1, 1, 1))));
    let turn = tap.turn(seconds(2));
    assert!(turn.error.is_none());
    assert_eq!((turn.written, turn.dropped), (0, 5));
    fs::remove_file(&dir).expect("removed");
    tap.turn(seconds(1) + RETRY_EVERY);
    told(&mut tap, [(7_000_000, message(1, 1, 77))]);
    let turn = tap.finish(seconds(8));
    assert!(turn.error.is_none());
    assert_eq!((turn.written, turn.dropped), (1, 0));
    assert_eq!(all(&dir).len(), 1);
    let mode = fs::metadata(&dir).expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
}

#[test]
fn a_life_with_too_many_ids_is_followed_by_one_with_other_numbers() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut tap = writer(dir.path(), LIMITS);
    told(&mut tap, [(0, message(1, 1, 1)), (1, message(2, 1, 1))]);
    tap.renew(seconds(1), 4).expect("not yet");
    assert_eq!(files(dir.path()).len(), 0);
    tap.renew(seconds(1), 3).expect("another life");
    told(&mut tap, [(2_000_000, message(2, 1, 1))]);
    assert_eq!(tap.finish(seconds(3)).written, 3);
    let files: Vec<_> = files(dir.path()).iter().map(|path| read_file(path)).collect();
    let parts: Vec<_> = files.iter().map(|file| file.header.part.expect("a part")).collect();
    let life = |life_ms| Part { life_ms, number: 0 };
    assert_eq!(parts, [life(START_MS), life(START_MS + 1_000)]);
    assert_eq!(files[0].end, End::Whole);
    let What::Append { author, .. } = files[1].events[0].what else {
        panic!("an append")
    };
    assert_eq!(author, Agent(0));
}

#[test]
fn a_cut_file_is_good_up_to_the_cut() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut tap = writer(dir.path(), LIMITS);
    many(&mut tap, dir.path(), 200, u64::MAX);
    tap.finish(seconds(60));
    let bytes = fs::read(&files(dir.path())[0]).expect("readable");
    let whole = read(&bytes);
    assert_eq!(whole.events.len(), 200);
    let mut before = 0;
    for cut in 0..=bytes.len() {
        let Ok(_) = Reader::new(&bytes[..cut]) else {
            assert_eq!(before, 0, "the header was there");
            continue;
        };
        let file = read(&bytes[..cut]);
        assert!(whole.events.starts_with(&file.events));
        assert!(file.events.len() >= before, "fewer events of a longer file");
        before = file.events.len();
    }
    assert_eq!(before, 200);
}
