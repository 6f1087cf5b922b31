//! Whole runs: readers, counts and the report.

use super::*;

#[test]
fn a_sound_run_has_no_fault_and_its_readers_agree() {
    let (monitor, channel) = begun();
    read(&channel, 1, &log(1..=12), 12);
    read(&channel, 2, &log(2..=12), 12);
    read(&channel, 3, &log(6..=9), 9);
    read(&channel, 4, &log(2..=12), 12);
    // Removed, and added again.
    read(&channel, 3, &log(11..=12), 12);
    let report = monitor.finish();
    assert_eq!(report.faults, []);
    assert_eq!((report.fault_count, report.deliveries), (0, 40));
    let expected = ChannelReport {
        channel: CHANNEL,
        entries: 12,
        in_flight: 0,
        unread: 0,
        readers: 4,
        finished: 4,
        agree: true,
    };
    assert_eq!(report.channels, [expected]);
    assert_eq!(Monitor::new().finish().fault_count, 0);
}

#[test]
fn frames_in_flight_and_readers_that_did_not_finish_are_no_faults() {
    let (monitor, channel) = begun();
    channel.sent(agent(1), frame(77));
    channel.acknowledged(agent(2), frame(78), at(14));
    channel.reader(agent(1), at(1)).delivered(&log(1..=9));
    let report = monitor.finish();
    assert_eq!(report.faults, []);
    assert_eq!((report.channels[0].readers, report.channels[0].finished), (1, 0));
    assert_eq!((report.channels[0].in_flight, report.channels[0].unread), (4, 4));
}

#[test]
fn a_reader_goes_on_after_its_cursor_when_it_connects_again() {
    let (monitor, channel) = begun();
    let mut reader = channel.reader(agent(1), at(1));
    assert_eq!(reader.cursor(), at(0));
    reader.delivered(&log(1..=5));
    assert_eq!(reader.cursor(), at(5));
    reader.delivered(&log(6..=12));
    reader.finished(at(12));
    assert_eq!(monitor.finish().faults, []);
}

#[test]
fn readers_of_one_stretch_that_were_shown_other_bytes_do_not_agree() {
    let (monitor, channel) = begun();
    read(&channel, 1, &log(1..=12), 12);
    let mut entries = log(1..=12);
    entries[4].hash = [9; 32];
    read(&channel, 2, &entries, 12);
    assert!(!monitor.finish().channels[0].agree);
}

#[test]
fn the_first_faults_are_kept_and_all_are_counted() {
    let (monitor, channel) = empty();
    for offset in 1..=1_500 {
        let frame = FrameId::generate();
        channel.acknowledged(agent(1), frame, at(offset));
    }
    let mut reader = channel.reader(agent(1), at(1));
    for offset in 1..=1_500 {
        reader.delivered(&[Delivered {
            frame: FrameId::generate(),
            offset: at(offset),
            ..shown(1)
        }]);
    }
    assert_eq!(monitor.faults().len(), FAULTS_KEPT_MAX);
    assert_eq!(monitor.progress().faults, 1_500);
    assert_eq!(monitor.progress().entries, 1_500);
    let report = monitor.finish();
    assert_eq!((report.faults.len(), report.fault_count), (FAULTS_KEPT_MAX, 1_500));
}

#[test]
fn threads_that_send_and_read_at_once_make_no_fault() {
    let (monitor, channel) = empty();
    let log = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for number in 1..=3 {
            let (channel, log) = (&channel, &log);
            scope.spawn(move || {
                for _ in 0..500 {
                    let frame = FrameId::generate();
                    channel.sent(agent(number), frame);
                    let mut log = log.lock();
                    let offset = at(log.len() as u64 + 1);
                    log.push(Delivered {
                        offset,
                        frame,
                        author: agent(number),
                        parent: Offset::ZERO,
                        kind: EntryKind::Message,
                        hash: Digest::hash_frame(frame.as_bytes()),
                    });
                    drop(log);
                    channel.acknowledged(agent(number), frame, offset);
                }
            });
        }
        for number in 4..=7 {
            let (channel, log) = (&channel, &log);
            scope.spawn(move || {
                let mut reader = channel.reader(agent(number), Offset::FIRST);
                let mut read = 0;
                while read < 1_500 {
                    let new = log.lock()[read..].to_vec();
                    reader.delivered(&new);
                    read += new.len();
                    std::thread::yield_now();
                }
                reader.finished(at(1_500));
            });
        }
    });
    let report = monitor.finish();
    assert_eq!(report.faults, []);
    assert_eq!(report.deliveries, 6_000);
    let channel = report.channels[0];
    assert_eq!((channel.entries, channel.in_flight, channel.readers), (1_500, 0, 4));
    assert!(channel.agree && channel.finished == 4);
}
