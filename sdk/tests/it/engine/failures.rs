//! Crashes, gaps, diverging logs, plaintext markers on the disk.

use super::relay::{Agent, FRAMES_BYTES, Relay, assert_agree, changed, channel_of, settle};
use bytes::Bytes;
use skytale_proto::{Code, Offset, Record};
use skytale_sdk::internals::engine::{Engine, Gap, Outcome};
use skytale_sdk::{ChannelState, EngineConfig, Event, LABEL_BYTES_MAX, VaultKey};

#[test]
fn a_crash_after_every_call_changes_nothing() {
    let relay = Relay::new();
    let (mut a, mut b, mut c) = (Agent::new(), Agent::new(), Agent::new());
    for agent in [&mut a, &mut b, &mut c] {
        agent.crashes = true;
    }
    let channel = channel_of(&relay, &mut [&mut a, &mut b, &mut c]);
    for round in 0..3 {
        a.send(channel, &format!("a{round}"));
        b.engine().update_keys(channel).expect("queued");
        a.engine().update_keys(channel).expect("queued");
        a.send(channel, &format!("a{round} again"));
        c.send(channel, &format!("c{round}"));
        a.push(&relay, channel);
        settle(&relay, channel, &mut [&mut c, &mut b, &mut a]);
    }
    c.engine().leave(channel).expect("queued");
    settle(&relay, channel, &mut [&mut c, &mut b, &mut a]);
    assert_eq!(a.history(channel).len(), 9);
    assert_eq!(a.transcript(channel), b.transcript(channel));
    assert_eq!(a.transcript(channel), c.transcript(channel));
    assert_eq!(c.engine().channel(channel).expect("known").state, ChannelState::Left);
    assert_agree(channel, &mut [&mut a, &mut b]);
    for agent in [&mut a, &mut b, &mut c] {
        assert_eq!(
            agent
                .engine()
                .unreadable(Some(channel), Offset::ZERO, 10)
                .expect("listed"),
            []
        );
    }
}

#[test]
fn a_commit_that_was_staged_survives_a_crash_whether_it_was_accepted_or_not() {
    for accepted in [true, false] {
        let relay = Relay::new();
        let (mut a, mut b) = (Agent::new(), Agent::new());
        let channel = channel_of(&relay, &mut [&mut a, &mut b]);
        a.engine().update_keys(channel).expect("queued");
        let staged = a.next_frames(channel, FRAMES_BYTES).expect("built").frames;
        if accepted {
            relay.append(staged[0].frame.clone()).expect("accepted");
        }
        a.crash();
        a.send(channel, "after");
        settle(&relay, channel, &mut [&mut a, &mut b]);
        assert_eq!(b.texts(channel), ["after"]);
        assert_agree(channel, &mut [&mut a, &mut b]);
        assert_eq!(a.engine().epoch(channel).expect("known"), 2);
    }
}

#[test]
fn a_channel_whose_create_was_accepted_and_not_seen_is_known_to_exist_in_the_next_session() {
    let relay = Relay::new();
    let mut a = Agent::new();
    let channel = a.engine().create_channel("test").expect("made");
    let mut offered = || {
        let frames = a.next_frames(channel, FRAMES_BYTES).expect("built").frames;
        let frame = frames.into_iter().next().expect("the Create").frame;
        let (id, outcome) = (frame.header().id, relay.outcome(frame));
        a.engine().outcome(channel, id, outcome).expect("told");
        a.engine().connection_lost();
        (id, outcome)
    };
    let ((first, appended), (again, duplicate)) = (offered(), offered());
    assert_eq!(first, again);
    let offset = Offset::FIRST;
    assert_eq!(appended, Outcome::Appended { offset });
    assert_eq!(duplicate, Outcome::Duplicate { offset });
    settle(&relay, channel, &mut [&mut a]);
    assert_eq!(a.engine().channel(channel).expect("known").state, ChannelState::Active);
}

/// A refusal of a relay that is temporarily unavailable.
const NOT_NOW: Outcome = Outcome::Refused {
    code: Code::RelayInternal,
    retryable: true,
};

#[test]
fn a_log_that_takes_later_messages_first_hides_none_from_their_readers() {
    let relay = Relay::new();
    let (mut a, mut b) = (Agent::new(), Agent::new());
    let channel = channel_of(&relay, &mut [&mut a, &mut b]);
    let mut sent: Vec<String> = (0..120).map(|number| format!("message {number}")).collect();
    for text in &sent {
        a.send(channel, text);
    }
    let frames = a.next_frames(channel, FRAMES_BYTES).expect("built").frames;
    assert_eq!(frames.len(), sent.len());
    // No relay node should, but one may.
    for (number, frame) in frames.into_iter().enumerate() {
        let outcome = match number {
            0..=6 | 60 | 61 => relay.outcome(frame.frame.clone()),
            _ => NOT_NOW,
        };
        let id = frame.frame.header().id;
        a.engine().outcome(channel, id, outcome).expect("taken");
    }
    settle(&relay, channel, &mut [&mut a, &mut b]);
    let mut read = b.texts(channel);
    assert_eq!(read, a.texts(channel));
    read.sort_unstable();
    sent.sort_unstable();
    assert_eq!(read, sent);
    let unreadable = b.engine().unreadable(Some(channel), Offset::ZERO, 10);
    assert_eq!(unreadable.expect("listed"), []);
}

#[test]
fn a_message_that_was_encrypted_again_is_known_by_what_the_log_has_of_it() {
    let relay = Relay::new();
    let (mut a, mut b) = (Agent::new(), Agent::new());
    let channel = channel_of(&relay, &mut [&mut a, &mut b]);
    for text in ["one", "two"] {
        a.send(channel, text);
    }
    let frames = a.next_frames(channel, FRAMES_BYTES).expect("built").frames;
    let mut outcomes = frames
        .iter()
        .map(|frame| (frame.frame.header().id, relay.outcome(frame.frame.clone())));
    let (_lost, told) = (outcomes.next().expect("one"), outcomes.next().expect("two"));
    a.engine().outcome(channel, told.0, told.1).expect("taken");
    // In this session and after a restart.
    a.engine().connection_lost();
    a.push(&relay, channel);
    a.crash();
    settle(&relay, channel, &mut [&mut a, &mut b]);
    assert_eq!(a.texts(channel), ["one", "two"]);
    assert_eq!(b.texts(channel), ["one", "two"]);
    assert_eq!(a.engine().failed(channel).expect("listed"), []);
    assert_eq!(a.engine().channel(channel).expect("known").outbox, 0);
}

#[test]
fn a_channel_whose_create_is_refused_for_good_is_told_and_takes_nothing_more() {
    let mut a = Agent::new();
    let channel = a.engine().create_channel("test").expect("made");
    a.send(channel, "to nobody");
    let frames = a.next_frames(channel, FRAMES_BYTES).expect("built").frames;
    let create = frames.into_iter().next().expect("the Create").frame.header().id;
    let refused = Outcome::Refused {
        code: Code::UnknownLog,
        retryable: false,
    };
    a.engine().outcome(channel, create, refused).expect("told");
    a.crash();
    let info = a.engine().channel(channel).expect("known");
    assert_eq!((info.state, info.outbox), (ChannelState::Left, 0));
    let failed = a.engine().failed(channel).expect("listed");
    assert!(failed.iter().all(|failed| failed.code == Code::UnknownLog));
    assert_eq!(
        failed.iter().map(|failed| failed.payload.is_some()).collect::<Vec<_>>(),
        [false, true],
        "the Create, and the message that waited for it"
    );
    assert!(a.engine().send(channel, b"more").is_err());
}

#[test]
fn a_restart_keeps_everything() {
    let relay = Relay::new();
    let (mut a, mut b) = (Agent::new(), Agent::new());
    let channel = channel_of(&relay, &mut [&mut a, &mut b]);
    a.send(channel, "kept");
    settle(&relay, channel, &mut [&mut a, &mut b]);
    b.engine().relabel(channel, "a label").expect("kept");
    let id = b.id();
    let secret = b.engine().endpoint_secret();
    let info = b.engine().channel(channel).expect("known");
    let (digest, members) = (b.engine().digest(channel), b.engine().members(channel));
    let cursor = b.engine().agent_cursor();
    b.crash();
    assert_eq!(b.id(), id);
    assert_eq!(b.engine().endpoint_secret(), secret);
    assert_ne!(secret.as_slice(), id.as_bytes());
    assert_eq!(b.engine().channel(channel).expect("known"), info);
    assert_eq!(info.label, "a label");
    assert_eq!(b.engine().digest(channel).expect("known"), digest.expect("known"));
    assert_eq!(b.engine().members(channel).expect("known"), members.expect("known"));
    assert_eq!(b.engine().agent_cursor(), cursor);
    assert_eq!(b.texts(channel), ["kept"]);
    assert_eq!(b.engine().channels().expect("listed"), [info]);
}

#[test]
fn a_label_is_short_one_line_and_no_id() {
    let mut a = Agent::new();
    let channel = a.engine().create_channel("").expect("none is one");
    let (longest, too_long) = ("x".repeat(LABEL_BYTES_MAX), "x".repeat(LABEL_BYTES_MAX + 1));
    a.engine().relabel(channel, &longest).expect("kept");
    for wrong in [too_long.as_str(), "a\u{1b}[2J", &channel.to_string()] {
        let refused = a.engine().relabel(channel, wrong).map_err(|error| error.code());
        assert_eq!(refused, Err(Code::LabelInvalid));
        let refused = a.engine().create_channel(wrong).map_err(|error| error.code());
        assert_eq!(refused, Err(Code::LabelInvalid));
    }
    assert_eq!(a.engine().channel(channel).expect("known").label, longest);
    assert_eq!(a.engine().channels().expect("listed").len(), 1);
}

#[test]
fn entries_that_come_again_are_skipped_and_a_gap_is_told() {
    let relay = Relay::new();
    let (mut a, mut b) = (Agent::new(), Agent::new());
    let channel = channel_of(&relay, &mut [&mut a, &mut b]);
    for n in 0..6 {
        a.send(channel, &format!("m{n}"));
    }
    settle(&relay, channel, &mut [&mut a]);
    let cursor = b.engine().cursor(channel).expect("known");
    let mut records = relay.entries(channel.log(), cursor);
    let lost = records.remove(3);
    let processed = b.engine().process_entries(channel, &records).expect("processed");
    let gap = Gap {
        expected: lost.offset,
        found: lost.offset.next(),
    };
    assert_eq!(processed.gap, Some(gap));
    assert_eq!(processed.cursor, lost.offset.previous());
    assert_eq!(b.texts(channel), ["m0", "m1", "m2"]);
    let processed = b.engine().process_entries(channel, &records[3..]).expect("processed");
    assert_eq!((processed.gap, processed.events), (Some(gap), vec![]));
    let all = relay.entries(channel.log(), Offset::ZERO);
    for _ in 0..2 {
        let processed = b.engine().process_entries(channel, &all).expect("processed");
        assert_eq!(processed.gap, None);
    }
    assert_eq!(b.texts(channel).len(), 6);
    assert_agree(channel, &mut [&mut a, &mut b]);
}

/// Returns the records after `cursor` without those of `hidden`, like a relay that denies their existence.
fn without(records: &[Record], cursor: Offset, hidden: Offset) -> Vec<Record> {
    let shown = records
        .iter()
        .filter(|record| record.offset > cursor && record.offset != hidden);
    shown
        .zip(cursor.get() + 1..)
        .map(|(record, offset)| Record {
            offset: Offset::new(offset),
            ..record.clone()
        })
        .collect()
}

#[test]
fn two_agents_who_are_shown_different_logs_find_out() {
    let relay = Relay::new();
    let (mut a, mut b) = (Agent::new(), Agent::new());
    let channel = channel_of(&relay, &mut [&mut a, &mut b]);
    a.send(channel, "before");
    settle(&relay, channel, &mut [&mut a, &mut b]);
    let cursor = b.engine().cursor(channel).expect("known");
    a.send(channel, "hidden from b");
    settle(&relay, channel, &mut [&mut a]);
    a.send(channel, "after");
    settle(&relay, channel, &mut [&mut a]);
    let shown = without(&relay.entries(channel.log(), Offset::ZERO), cursor, cursor.next());
    let processed = b.engine().process_entries(channel, &shown).expect("processed");
    assert_eq!(processed.gap, None);
    let divergences: Vec<_> = processed
        .events
        .iter()
        .filter_map(|event| match event {
            Event::Divergence {
                offset, author, ours, ..
            } => Some((*offset, *author, *ours)),
            _ => None,
        })
        .collect();
    // `a` had seen the hidden entry at an offset at which `b` was shown nothing yet.
    assert_eq!(divergences, [(cursor.next(), a.id(), None)]);
    b.crash();
    let kept = b.engine().divergences(channel).expect("listed");
    assert_eq!(kept.len(), 1);
    assert_eq!((kept[0].offset, kept[0].author, kept[0].ours), divergences[0]);

    // What `b` says next shows `a` that they differ, and at which offset.
    b.engine().send(channel, b"what now?").expect("queued");
    let frames = b.next_frames(channel, FRAMES_BYTES).expect("built").frames;
    relay.append(frames[0].frame.clone()).expect("accepted");
    a.pull(&relay, channel, usize::MAX);
    let ours = |event: &Event| matches!(event, Event::Divergence { offset, ours: Some(ours), theirs: Some(theirs), .. } if *offset == cursor.next() && ours != theirs);
    assert_eq!(a.take_events().iter().filter(|event| ours(event)).count(), 1);
}

#[test]
fn nothing_readable_is_on_the_disk() {
    let relay = Relay::new();
    let (mut a, mut b) = (Agent::new(), Agent::new());
    let channel = channel_of(&relay, &mut [&mut a, &mut b]);
    let marker = "a-marker-that-only-members-may-read";
    a.send(channel, marker);
    settle(&relay, channel, &mut [&mut a, &mut b]);
    a.send(channel, marker);
    b.engine().relabel(channel, marker).expect("kept");
    let secret = a.engine().endpoint_secret();
    for agent in [&a, &b] {
        for file in std::fs::read_dir(agent.folder()).expect("a folder") {
            let bytes = std::fs::read(file.expect("a file").path()).expect("readable");
            let has = |needle: &[u8]| bytes.windows(needle.len()).any(|window| window == needle);
            assert!(!has(marker.as_bytes()) && !has(secret.as_slice()) && !has(channel.as_bytes()));
        }
    }
    for record in relay.entries(channel.log(), Offset::ZERO) {
        let payload = record.payload;
        assert!(!payload.windows(marker.len()).any(|window| window == marker.as_bytes()));
    }
    assert!(!format!("{:?}", a.engine()).contains("secret"));
}

#[test]
fn an_engine_moves_between_threads_and_opens_once() {
    fn assert_send<T: Send>() {}
    assert_send::<Engine>();
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("vault.db");
    let open = |byte: u8| {
        let key = VaultKey::raw([byte; 32]);
        Engine::open(&path, key, EngineConfig::default()).map_err(|error| error.code())
    };
    let first = open(1).expect("opens");
    assert_eq!(open(1).err(), Some(Code::VaultInUse));
    drop(first);
    assert_eq!(open(2).err(), Some(Code::VaultKey));
    open(1).expect("opens");
}

#[test]
fn many_channels_share_few_places_in_memory() {
    let relay = Relay::new();
    let mut a = Agent::with(changed(|config| {
        config.channels_loaded_max = 2;
    }));
    let mut b = Agent::new();
    let channels: Vec<_> = (0..5).map(|_| channel_of(&relay, &mut [&mut b, &mut a])).collect();
    for round in 0..3 {
        for (n, channel) in channels.iter().enumerate() {
            a.send(*channel, &format!("{n} in round {round}"));
        }
        for channel in &channels {
            settle(&relay, *channel, &mut [&mut a, &mut b]);
        }
    }
    for (n, channel) in channels.iter().enumerate() {
        assert_eq!(b.texts(*channel).len(), 3);
        assert!(b.texts(*channel).iter().all(|text| text.starts_with(&n.to_string())));
        assert_agree(*channel, &mut [&mut a, &mut b]);
    }
}

#[test]
fn an_acknowledgement_that_the_log_does_not_bear_out_is_not_believed() {
    let relay = Relay::new();
    let (mut a, mut b) = (Agent::new(), Agent::new());
    let channel = channel_of(&relay, &mut [&mut a, &mut b]);
    let id = a.send(channel, "swallowed");
    let frames = a.next_frames(channel, FRAMES_BYTES).expect("built").frames;
    assert_eq!(frames.len(), 1);
    // The relay says that it took it, and did not.
    let offset = a.engine().cursor(channel).expect("known").next();
    let lie = Outcome::Appended { offset };
    assert_eq!(a.engine().outcome(channel, id, lie).expect("taken"), []);
    assert_eq!(a.next_frames(channel, FRAMES_BYTES).expect("asked").frames, []);
    b.send(channel, "something else stands there");
    settle(&relay, channel, &mut [&mut b]);
    settle(&relay, channel, &mut [&mut a, &mut b]);
    assert_eq!(b.texts(channel), ["something else stands there", "swallowed"]);
    assert_eq!(a.transcript(channel), b.transcript(channel));
}

#[test]
fn garbage_in_the_agents_own_log_is_recorded_and_passed_over() {
    let mut a = Agent::new();
    let record = |offset: u64| Record {
        kind: skytale_proto::record::KIND_ENTRY,
        offset: Offset::new(offset),
        time_ms: 0,
        payload: Bytes::from_static(b"not a frame"),
    };
    let processed = a
        .engine()
        .process_agent_entries(&[record(1), record(2), record(4)])
        .expect("processed");
    assert_eq!(processed.cursor, Offset::new(2));
    assert_eq!(processed.gap.map(|gap| gap.expected), Some(Offset::new(3)));
    a.crash();
    assert_eq!(a.engine().agent_cursor(), Offset::new(2));
    assert_eq!(a.engine().unreadable(None, Offset::ZERO, 10).expect("listed").len(), 2);
}
