//! A sound history has no fault; one with a planted fault has that one.

use crate::*;
use skytale_proto::{AgentId, ChannelId, FrameId, Offset};

pub(crate) const CHANNEL: ChannelId = ChannelId::from_bytes([7; 16]);

pub(crate) fn agent(number: u8) -> AgentId {
    AgentId::from_bytes([number; 32])
}

pub(crate) fn frame(number: u8) -> FrameId {
    FrameId::from_bytes([number; 16])
}

pub(crate) fn at(offset: u64) -> Offset {
    Offset::new(offset)
}

/// Entry `offset` of the sound log: 1 Create, 2 and 5 commits by agent 1, and messages by 1 and 2 in turn.
pub(crate) fn entry(offset: u64) -> Entry {
    let is_commit = [1, 2, 5].contains(&offset);
    Entry {
        offset: at(offset),
        frame: frame(offset as u8),
        author: if is_commit || offset.is_multiple_of(2) {
            agent(1)
        } else {
            agent(2)
        },
        parent: at(match offset {
            1 => 0,
            2 => 1,
            3..=5 => 2,
            _ => 5,
        }),
        kind: match offset {
            1 => EntryKind::Create,
            _ if is_commit => EntryKind::Commit,
            _ => EntryKind::Message,
        },
        digest: format!("hash of {offset}"),
    }
}

pub(crate) fn delivered(agent: AgentId, entry: Entry) -> Event {
    Event::Delivered {
        agent,
        channel: CHANNEL,
        entry,
    }
}

/// Agents 1 and 2 send; 1 reads all of it, 2 from its Welcome at 2 on, 3 is there from 6 to 9.
pub(crate) fn sound() -> Vec<Event> {
    let channel = CHANNEL;
    let mut history = Vec::new();
    for offset in 1..=12 {
        let Entry { author, frame, .. } = entry(offset);
        history.push(Event::Sent {
            agent: author,
            channel,
            frame,
        });
        history.push(Event::Acknowledged {
            agent: author,
            channel,
            frame,
            offset: at(offset),
        });
    }
    for (number, from, to) in [(1, 1, 12), (2, 2, 12), (3, 6, 9)] {
        let agent = agent(number);
        history.push(Event::Reads {
            agent,
            channel,
            from: at(from),
        });
        history.extend((from..=to).map(|offset| delivered(agent, entry(offset))));
        history.push(Event::Finished {
            agent,
            channel,
            at: at(to),
        });
    }
    history
}

/// The sound history with what `agent` was shown changed.
pub(crate) fn shown(number: u8, mut change: impl FnMut(&Entry) -> Vec<Entry>) -> Vec<Event> {
    let changed = |event: Event| match event {
        Event::Delivered { agent: who, entry, .. } if who == agent(number) => {
            change(&entry).into_iter().map(|entry| delivered(who, entry)).collect()
        }
        event => vec![event],
    };
    sound().into_iter().flat_map(changed).collect()
}

#[test]
fn a_sound_history_has_no_fault() {
    assert_eq!(check(&sound()), []);
    assert_eq!(check(&[]), []);
}

#[test]
fn an_acknowledged_frame_that_is_missing_is_found() {
    // One agent is not shown the last entry: it says it read it.
    let faults = check(&shown(2, |entry| {
        if entry.offset == at(12) {
            vec![]
        } else {
            vec![entry.clone()]
        }
    }));
    assert!(faults.contains(&Fault::Missing {
        channel: CHANNEL,
        agent: agent(2),
        frame: frame(12),
        offset: at(12)
    }));
}

#[test]
fn a_gap_in_what_an_agent_was_shown_before_it_finished_is_missing() {
    let mut history = shown(3, |entry| {
        if entry.offset == at(7) {
            vec![]
        } else {
            vec![entry.clone()]
        }
    });
    history.retain(|event| !matches!(event, Event::Finished { agent: who, .. } if *who == agent(3)));
    let missing = Fault::Missing {
        channel: CHANNEL,
        agent: agent(3),
        frame: frame(7),
        offset: at(7),
    };
    assert!(check(&history).contains(&missing));
}

#[test]
fn an_acknowledged_frame_that_nobody_read_is_no_fault() {
    let acknowledged = |number: u8| Event::Acknowledged {
        agent: agent(1),
        channel: CHANNEL,
        frame: frame(number),
        offset: at(number.into()),
    };
    // The creator only writes; the members joined at 2. Nobody read 7 either.
    let mut history: Vec<_> = (1..=9).map(acknowledged).collect();
    for (number, from, to) in [(2, 2, 6), (3, 3, 5), (2, 8, 9)] {
        let (agent, channel) = (agent(number), CHANNEL);
        let (from_at, to_at) = (at(from), at(to));
        history.push(Event::Reads {
            agent,
            channel,
            from: from_at,
        });
        history.extend((from..=to).map(|offset| delivered(agent, entry(offset))));
        history.push(Event::Finished {
            agent,
            channel,
            at: to_at,
        });
    }
    assert_eq!(check(&history), []);
}

#[test]
fn an_acknowledged_frame_at_another_offset_is_found() {
    let mut history = sound();
    for event in &mut history {
        if let Event::Acknowledged { frame: of, offset, .. } = event
            && *of == frame(8)
        {
            *offset = at(9);
        }
    }
    assert!(
        check(&history)
            .iter()
            .any(|fault| matches!(fault, Fault::Missing { frame: found, .. } if *found == frame(8)))
    );
}

#[test]
fn a_gap_is_found() {
    let faults = check(&shown(3, |entry| {
        if entry.offset == at(7) {
            vec![]
        } else {
            vec![entry.clone()]
        }
    }));
    let gap = Fault::Gap {
        channel: CHANNEL,
        agent: agent(3),
        expected: at(7),
        found: at(8),
    };
    assert!(faults.contains(&gap));
    assert!(faults.iter().any(|fault| matches!(fault, Fault::Missing { .. })));
}

#[test]
fn a_frame_that_is_shown_twice_is_found() {
    let twice = |second: u64| {
        shown(2, move |entry| {
            let mut again = entry.clone();
            again.offset = at(second);
            if entry.offset == at(4) {
                vec![entry.clone(), again]
            } else {
                vec![entry.clone()]
            }
        })
    };
    for (second, place) in [(4, 4), (5, 5)] {
        let faults = check(&twice(second));
        let expected = Fault::Twice {
            channel: CHANNEL,
            frame: frame(4),
            first: at(4),
            second: at(place),
        };
        assert!(faults.contains(&expected), "{faults:?}");
    }
}

#[test]
fn a_frame_at_two_offsets_of_two_agents_is_found() {
    let faults = check(&shown(3, |entry| {
        let mut moved = entry.clone();
        if entry.offset == at(8) {
            moved.frame = frame(10);
        }
        vec![moved]
    }));
    assert!(
        faults
            .iter()
            .any(|fault| matches!(fault, Fault::Fork { offset, .. } if *offset == at(8)))
    );
}

#[test]
fn other_bytes_at_one_offset_are_found() {
    let faults = check(&shown(3, |entry| {
        let mut other = entry.clone();
        if entry.offset == at(6) {
            other.digest = "other".into();
        }
        vec![other]
    }));
    assert_eq!(
        faults,
        [Fault::Fork {
            channel: CHANNEL,
            offset: at(6),
            first: frame(6),
            second: frame(6)
        }]
    );
}

#[test]
fn an_author_whose_frames_change_places_is_found() {
    let mut history = sound();
    let sent: Vec<usize> = (0..history.len())
        .filter(|index| matches!(&history[*index], Event::Sent { agent: who, .. } if *who == agent(2)))
        .collect();
    history.swap(sent[1], sent[2]);
    let faults = check(&history);
    assert!(matches!(faults.as_slice(), [Fault::Order { .. }]), "{faults:?}");
}

#[test]
fn an_entry_of_another_epoch_is_found() {
    let wrong = |entry: &Entry| {
        let mut other = entry.clone();
        if entry.offset == at(7) {
            other.parent = at(2);
        }
        vec![other]
    };
    let mut history = shown(1, wrong);
    for number in [2, 3] {
        history = history
            .into_iter()
            .flat_map(|event| match event {
                Event::Delivered { agent: who, entry, .. } if who == agent(number) => {
                    wrong(&entry).into_iter().map(|entry| delivered(who, entry)).collect()
                }
                event => vec![event],
            })
            .collect();
    }
    assert_eq!(
        check(&history),
        [Fault::Epoch {
            channel: CHANNEL,
            frame: frame(7),
            offset: at(7),
            named: at(2),
            head: at(5)
        }]
    );
}

#[test]
fn a_refused_frame_that_is_there_is_found() {
    let mut history = sound();
    history.push(Event::Refused {
        agent: agent(1),
        channel: CHANNEL,
        frame: frame(10),
    });
    assert!(matches!(check(&history).as_slice(), [Fault::RefusedButThere { .. }]));
}

#[test]
fn a_frame_that_its_author_did_not_send_is_found() {
    let mut history = sound();
    history.retain(|event| !matches!(event, Event::Sent { frame: of, .. } if *of == frame(9)));
    assert!(matches!(check(&history).as_slice(), [Fault::Invented { .. }]));
}

#[test]
fn a_cursor_past_what_was_shown_is_found() {
    let mut history = sound();
    if let Some(Event::Finished { at: finished, .. }) = history.last_mut() {
        *finished = at(11);
    }
    assert!(
        check(&history)
            .iter()
            .any(|fault| matches!(fault, Fault::ShortRead { .. }))
    );
}

#[test]
fn an_agent_that_was_removed_and_added_again_need_not_have_read_in_between() {
    let mut history = sound();
    history.push(Event::Reads {
        agent: agent(3),
        channel: CHANNEL,
        from: at(11),
    });
    history.extend((11..=12).map(|offset| delivered(agent(3), entry(offset))));
    history.push(Event::Finished {
        agent: agent(3),
        channel: CHANNEL,
        at: at(12),
    });
    assert_eq!(check(&history), []);
}

#[test]
fn a_history_comes_back_from_its_lines_and_a_torn_last_line_is_left_out() {
    let mut bytes = Vec::new();
    for event in sound() {
        write_line(&event, &mut bytes).unwrap();
    }
    assert_eq!(read_lines(bytes.as_slice()).unwrap(), sound());
    let torn = &bytes[..bytes.len() - 5];
    assert_eq!(read_lines(torn).unwrap(), sound()[..sound().len() - 1]);
    assert!(matches!(
        read_lines(&b"{}\n"[..]),
        Err(HistoryError::Line { line: 1, .. })
    ));
}
