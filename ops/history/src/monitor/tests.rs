//! A planted fault is named, as soon as it can be seen; and nothing else is.

mod agrees;
mod runs;

use super::*;
use crate::tests::{CHANNEL, agent, at, entry, frame};
use crate::{Entry, EntryKind};
use skytale_proto::{Digest, FrameId, Offset};

fn of(entry: &Entry) -> Delivered {
    Delivered {
        offset: entry.offset,
        frame: entry.frame,
        author: entry.author,
        parent: entry.parent,
        kind: entry.kind,
        hash: Digest::hash_frame(entry.digest.as_bytes()),
    }
}

/// Entry `offset` of the sound log of the crate's tests, as shown.
fn shown(offset: u64) -> Delivered {
    of(&entry(offset))
}

fn log(offsets: impl IntoIterator<Item = u64>) -> Vec<Delivered> {
    offsets.into_iter().map(shown).collect()
}

/// A monitor, and its channel, of which all twelve entries were sent and acknowledged.
fn begun() -> (Monitor, Arc<ChannelMonitor>) {
    let (monitor, channel) = empty();
    for entry in log(1..=12) {
        channel.sent(entry.author, entry.frame);
        channel.acknowledged(entry.author, entry.frame, entry.offset);
    }
    (monitor, channel)
}

fn empty() -> (Monitor, Arc<ChannelMonitor>) {
    let monitor = Monitor::new();
    let channel = monitor.channel(CHANNEL);
    (monitor, channel)
}

fn read(channel: &Arc<ChannelMonitor>, number: u8, entries: &[Delivered], to: u64) {
    let mut reader = channel.reader(agent(number), entries[0].offset);
    reader.delivered(entries);
    reader.finished(at(to));
}

#[test]
fn an_acknowledged_frame_is_missing_where_another_was_shown_whichever_comes_first() {
    let missing = |agent| Fault::Missing {
        channel: CHANNEL,
        agent,
        frame: frame(99),
        offset: at(3),
    };
    let (monitor, channel) = begun();
    channel.acknowledged(agent(2), frame(99), at(3));
    channel.reader(agent(1), at(1)).delivered(&log(1..=4));
    assert_eq!(monitor.faults(), [missing(agent(1))]);

    let (monitor, channel) = begun();
    channel.reader(agent(1), at(1)).delivered(&log(1..=4));
    channel.acknowledged(agent(2), frame(99), at(3));
    assert_eq!(monitor.faults(), [missing(agent(2))]);
}

#[test]
fn an_acknowledged_frame_that_one_reader_is_not_shown_is_missing() {
    let (monitor, channel) = begun();
    read(&channel, 1, &log(1..=12), 12);
    read(&channel, 2, &log(2..=11), 12);
    let expected = [
        Fault::ShortRead {
            channel: CHANNEL,
            agent: agent(2),
            at: at(12),
            last: at(11),
        },
        Fault::Missing {
            channel: CHANNEL,
            agent: agent(2),
            frame: frame(12),
            offset: at(12),
        },
    ];
    assert_eq!(monitor.faults(), expected[..1]);
    assert_eq!(monitor.finish().faults, expected);
    // The verdict does not change what was seen.
    assert_eq!(monitor.finish().faults, expected);
    assert_eq!(monitor.progress().faults, 1);
}

#[test]
fn an_acknowledged_frame_that_nobody_read_is_no_fault_and_is_counted() {
    let (monitor, channel) = empty();
    // The creator only writes; the members joined at 2. Nobody read 7 either.
    for entry in log(1..=9) {
        channel.acknowledged(entry.author, entry.frame, entry.offset);
    }
    read(&channel, 2, &log(2..=6), 6);
    read(&channel, 3, &log(3..=5), 5);
    read(&channel, 2, &log(8..=9), 9);
    let report = monitor.finish();
    assert_eq!(report.faults, []);
    assert_eq!(report.channels[0].unread, 2);
    // Somebody reads there after all.
    read(&channel, 4, &log(1..=9), 9);
    let report = monitor.finish();
    assert_eq!((report.faults, report.channels[0].unread), (vec![], 0));
}

#[test]
fn an_acknowledged_frame_that_a_reader_skips_is_missing_before_it_finishes() {
    let missing = Fault::Missing {
        channel: CHANNEL,
        agent: agent(2),
        frame: frame(3),
        offset: at(3),
    };
    let (monitor, channel) = begun();
    channel.reader(agent(2), at(1)).delivered(&log([1, 2, 4, 5]));
    assert_eq!(monitor.finish().faults[1], missing);
    // It is added again.
    read(&channel, 2, &log(8..=12), 12);
    let report = monitor.finish();
    assert_eq!(report.faults[1..], [missing]);
    assert_eq!(report.channels[0].unread, 2);
}

#[test]
fn an_acknowledged_frame_is_missing_for_a_reader_that_skips_it_or_is_shown_another() {
    let missing = |number, offset| Fault::Missing {
        channel: CHANNEL,
        agent: agent(2),
        frame: frame(number),
        offset: at(offset),
    };
    // Nobody is shown it: named once, for the reader.
    let (monitor, channel) = empty();
    channel.acknowledged(agent(1), frame(99), at(3));
    read(&channel, 2, &log([1, 2, 4, 5]), 5);
    let faults = monitor.finish().faults;
    assert!(matches!(faults[0], Fault::Gap { .. }));
    assert_eq!(faults[1..], [missing(99, 3)]);
    // The others are shown it.
    let (monitor, channel) = begun();
    read(&channel, 1, &log(1..=12), 12);
    let mut entries = log(1..=12);
    entries[5].frame = frame(66);
    read(&channel, 2, &entries, 12);
    let faults = monitor.finish().faults;
    assert!(matches!(faults[0], Fault::Fork { .. }));
    assert_eq!(faults[1..], [missing(6, 6)]);
}

#[test]
fn a_gap_is_named_and_what_was_acknowledged_in_it() {
    let (monitor, channel) = begun();
    read(&channel, 1, &log(1..=12), 12);
    read(&channel, 3, &log([6, 8, 9]), 9);
    let gap = Fault::Gap {
        channel: CHANNEL,
        agent: agent(3),
        expected: at(7),
        found: at(8),
    };
    assert_eq!(monitor.faults(), std::slice::from_ref(&gap));
    let missing = Fault::Missing {
        channel: CHANNEL,
        agent: agent(3),
        frame: frame(7),
        offset: at(7),
    };
    assert_eq!(monitor.finish().faults, [gap, missing]);
}

#[test]
fn a_frame_that_is_shown_twice_is_named() {
    let twice = |second| Fault::Twice {
        channel: CHANNEL,
        frame: frame(4),
        first: at(4),
        second: at(second),
    };
    // At one offset.
    let (monitor, channel) = begun();
    channel.reader(agent(1), at(1)).delivered(&log([1, 2, 3, 4, 4, 5]));
    assert_eq!(monitor.faults(), [twice(4)]);
    // At two, once for all readers if none was shown both.
    let (monitor, channel) = begun();
    channel.reader(agent(1), at(1)).delivered(&log(1..=4));
    let mut moved = shown(4);
    moved.offset = at(8);
    channel.reader(agent(2), at(8)).delivered(&[moved]);
    assert_eq!(monitor.faults()[0], twice(8));
    assert!(matches!(monitor.finish().faults[1..], [Fault::Missing { .. }]));
    // One that also takes another's place.
    let (monitor, channel) = begun();
    read(&channel, 1, &log(1..=12), 12);
    let mut entries = log(2..=12);
    entries[6] = moved;
    read(&channel, 2, &entries, 12);
    let faults = monitor.faults();
    assert!(faults.contains(&twice(8)), "{faults:?}");
    assert!(faults.iter().any(|fault| matches!(fault, Fault::Fork { .. })));
}

#[test]
fn a_fork_is_named_once_whatever_differs() {
    let others = [
        Delivered {
            hash: [9; 32],
            ..shown(6)
        },
        Delivered {
            parent: at(4),
            ..shown(6)
        },
        Delivered {
            kind: EntryKind::Proposal,
            ..shown(6)
        },
        Delivered {
            author: agent(2),
            ..shown(6)
        },
        Delivered {
            frame: frame(66),
            ..shown(6)
        },
    ];
    for other in others {
        let (monitor, channel) = begun();
        read(&channel, 1, &log(1..=12), 12);
        for number in [2, 3] {
            let mut reader = channel.reader(agent(number), at(6));
            reader.delivered(&[other]);
        }
        let fork = Fault::Fork {
            channel: CHANNEL,
            offset: at(6),
            first: frame(6),
            second: other.frame,
        };
        let missing = |number| Fault::Missing {
            channel: CHANNEL,
            agent: agent(number),
            frame: frame(6),
            offset: at(6),
        };
        let mut expected = vec![fork];
        if other.frame != frame(6) {
            expected.extend([missing(2), missing(3)]);
        }
        assert_eq!(monitor.finish().faults, expected);
    }
}

#[test]
fn an_author_whose_frames_change_places_is_named_whoever_is_shown_them_first() {
    let order = Fault::Order {
        channel: CHANNEL,
        agent: agent(2),
        earlier: frame(7),
        later: frame(3),
    };
    let sent = |channel: &ChannelMonitor| {
        for number in [7, 3, 9, 11] {
            channel.sent(agent(2), frame(number));
        }
    };
    let (monitor, channel) = empty();
    sent(&channel);
    channel.reader(agent(1), at(1)).delivered(&log(1..=12));
    assert_eq!(monitor.faults(), std::slice::from_ref(&order));
    assert_eq!(monitor.finish().fault_count, 1);
    // The end of the log was shown before its beginning.
    let (monitor, channel) = empty();
    sent(&channel);
    channel.reader(agent(3), at(6)).delivered(&log(6..=12));
    channel.reader(agent(1), at(1)).delivered(&log(1..=12));
    assert_eq!(monitor.finish().faults, [order]);
}

#[test]
fn an_entry_of_another_epoch_is_named_whoever_is_shown_it_first() {
    let mut entries = log(1..=12);
    entries[6].parent = at(2);
    let epoch = Fault::Epoch {
        channel: CHANNEL,
        frame: frame(7),
        offset: at(7),
        named: at(2),
        head: at(5),
    };
    let (monitor, channel) = begun();
    channel.reader(agent(1), at(1)).delivered(&entries);
    assert_eq!(monitor.faults(), std::slice::from_ref(&epoch));
    assert_eq!(monitor.finish().fault_count, 1);
    let (monitor, channel) = begun();
    channel.reader(agent(3), at(7)).delivered(&entries[6..]);
    channel.reader(agent(1), at(1)).delivered(&entries);
    assert_eq!(monitor.finish().faults, [epoch]);
}

#[test]
fn a_refused_frame_that_is_there_is_named_whichever_comes_first() {
    let there = Fault::RefusedButThere {
        channel: CHANNEL,
        frame: frame(10),
        offset: at(10),
    };
    for is_first in [true, false] {
        let (monitor, channel) = begun();
        if is_first {
            channel.refused(frame(10));
        }
        channel.reader(agent(1), at(1)).delivered(&log(1..=12));
        if !is_first {
            channel.refused(frame(10));
        }
        assert_eq!(monitor.faults(), std::slice::from_ref(&there));
    }
}

#[test]
fn a_frame_that_its_author_did_not_send_is_named_when_it_sends_again() {
    let invented = |number| Fault::Invented {
        channel: CHANNEL,
        agent: agent(2),
        frame: frame(number),
        offset: at(number.into()),
    };
    let (monitor, channel) = empty();
    channel.sent(agent(2), frame(3));
    channel.reader(agent(1), at(1)).delivered(&log(1..=8));
    assert_eq!(monitor.faults(), []);
    assert_eq!(monitor.finish().faults, [invented(7)]);
    channel.sent(agent(2), frame(9));
    assert_eq!(monitor.faults(), [invented(7)]);
    assert_eq!(monitor.finish().faults, [invented(7)]);
}

#[test]
fn a_frame_that_is_shown_just_before_its_author_records_it_is_not_invented() {
    let (monitor, channel) = empty();
    let mut reader = channel.reader(agent(1), at(1));
    for entry in log(1..=12) {
        reader.delivered(&[entry]);
        channel.sent(entry.author, entry.frame);
    }
    assert_eq!(monitor.finish().faults, []);
}
