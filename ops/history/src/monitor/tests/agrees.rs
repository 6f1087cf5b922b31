//! Histories, sound and corrupted, as `check` sees them and as a monitor does.

use super::of;
use crate::tests::{CHANNEL, agent, at};
use crate::{Entry, EntryKind, Event, Fault, Monitor, Reader, check};
use proptest::prelude::*;
use proptest::sample::Index;
use skytale_proto::{AgentId, FrameId};
use std::collections::{BTreeSet, HashMap};

const AUTHORS: u8 = 3;
const CORRUPTIONS: u8 = 16;
/// The corruption that puts an entry under another author's name, for all readers.
const OTHER_AUTHOR: u8 = 8;

/// Records of agents: a list for all that one author sent, for all that it learned, and for each reader.
type Lists = Vec<Vec<Event>>;

/// Choices from which a random run is made.
#[derive(Clone, Debug)]
struct Run {
    is_raw: bool,
    /// Each entry's author, and what it is, at random.
    entries: Vec<(u8, u8)>,
    /// Whether each author records what it sends.
    records: [bool; AUTHORS as usize],
    /// Start of one reader, who reads to the end: at the beginning, or anywhere.
    joins: Option<Index>,
    /// Stretches that readers read, as places in the log.
    stretches: Vec<(Index, Index)>,
    in_flight: u8,
}

fn runs() -> impl Strategy<Value = Run> {
    let entries = prop::collection::vec((1..=AUTHORS, 0..10_u8), 2..24);
    let stretches = prop::collection::vec(any::<(Index, Index)>(), 0..4);
    let joins = any::<Option<Index>>();
    (any::<bool>(), entries, any::<[bool; 3]>(), joins, stretches, 0..3_u8).prop_map(
        |(is_raw, entries, records, joins, stretches, in_flight)| Run {
            is_raw,
            entries,
            records,
            joins,
            stretches,
            in_flight,
        },
    )
}

fn frame(number: u64) -> FrameId {
    FrameId::from_bytes([number as u8; 16])
}

impl Run {
    fn log(&self) -> Vec<Entry> {
        let mut head = 0;
        let entry = |(offset, &(author, kind)): (u64, &(u8, u8))| {
            let parent = at(if self.is_raw { 0 } else { head });
            let kind = match kind {
                _ if self.is_raw => EntryKind::Other,
                _ if offset == 1 => EntryKind::Create,
                0 | 1 => EntryKind::Commit,
                2 => EntryKind::Proposal,
                3 => EntryKind::Other,
                _ => EntryKind::Message,
            };
            if kind.is_head() {
                head = offset;
            }
            Entry {
                offset: at(offset),
                frame: frame(offset),
                author: agent(author),
                parent,
                kind,
                digest: format!("hash of {offset}"),
            }
        };
        (1..).zip(&self.entries).map(entry).collect()
    }

    fn lists(&self) -> Lists {
        let channel = CHANNEL;
        let log = self.log();
        let mut lists = Lists::new();
        for (number, records) in (1..).zip(self.records) {
            let agent = agent(number);
            let (mut sent, mut told) = (Vec::new(), Vec::new());
            for &Entry { frame, offset, .. } in log.iter().filter(|entry| entry.author == agent) {
                sent.push(Event::Sent { agent, channel, frame });
                told.push(Event::Acknowledged {
                    agent,
                    channel,
                    frame,
                    offset,
                });
            }
            for number in 0..self.in_flight {
                let frame = frame(100 + u64::from(number));
                sent.push(Event::Sent { agent, channel, frame });
            }
            lists.push(if records { sent } else { Vec::new() });
            lists.push(told);
        }
        // One reads to the end; the others a stretch, and every third another after it. Nobody may have read the beginning.
        let joined = self.joins.map_or(1, |place| place.index(log.len()) + 1);
        let longest = (joined, log.len());
        let stretches = self.stretches.iter().map(|(from, to)| {
            let (from, to) = (from.index(log.len()) + 1, to.index(log.len()) + 1);
            (from.min(to), from.max(to))
        });
        for (number, (from, to)) in (0..).zip(std::iter::once(longest).chain(stretches)) {
            // Agents with ids below and above those of the authors: `check` takes the lowest first.
            let mut list = stretch(agent([10, 0, 11, 20][number]), &log[from - 1..to]);
            if number == 2 && to + 1 < log.len() {
                list.extend(stretch(agent(11), &log[to + 1..]));
            }
            lists.push(list);
        }
        lists
    }
}

fn stretch(agent: AgentId, entries: &[Entry]) -> Vec<Event> {
    let channel = CHANNEL;
    let from = entries[0].offset;
    let to = entries[entries.len() - 1].offset;
    let mut events = vec![Event::Reads { agent, channel, from }];
    events.extend(
        entries
            .iter()
            .map(|entry| crate::tests::delivered(agent, entry.clone())),
    );
    events.push(Event::Finished { agent, channel, at: to });
    events
}

/// Changes one event of those that fit, or each account of one entry.
fn corrupt(lists: &mut Lists, kind: u8, which: Index, other: Index) {
    let fits = |event: &Event| match kind {
        0..=9 => matches!(event, Event::Delivered { .. }),
        10 | 11 => matches!(event, Event::Sent { .. }),
        12 | 13 => matches!(event, Event::Acknowledged { .. }),
        // 14 moves where a reader finished, and 15 leaves that out.
        _ => matches!(event, Event::Finished { .. }),
    };
    let places: Vec<(usize, usize)> = (0..lists.len())
        .flat_map(|list| (0..lists[list].len()).map(move |index| (list, index)))
        .filter(|(list, index)| fits(&lists[*list][*index]))
        .collect();
    if places.is_empty() {
        return;
    }
    let (list, index) = places[which.index(places.len())];
    let far = other.index(30) as u64;
    let events = &mut lists[list];
    match (kind, events[index].clone()) {
        // One reader: an entry is left out, shown again, shown too early, or is another.
        (0, _) => drop(events.remove(index)),
        (1, event) => events.insert(index + 1, event),
        (2, _) if matches!(events.get(index + 1), Some(Event::Delivered { .. })) => events.swap(index, index + 1),
        (2, _) => {}
        (3..=5, Event::Delivered { .. }) => {
            let Event::Delivered { entry, .. } = &mut events[index] else {
                unreachable!()
            };
            match kind {
                3 => entry.digest = "other".into(),
                4 => entry.frame = frame(200),
                _ => entry.offset = at(far + 1),
            }
        }
        // All readers: an entry is left out, or names another head, author or frame.
        (6..=9, Event::Delivered { entry: changed, .. }) => {
            for list in lists.iter_mut() {
                list.retain_mut(|event| match event {
                    Event::Delivered { entry, .. } if entry.offset == changed.offset => {
                        match kind {
                            6 => return false,
                            7 => entry.parent = at(far),
                            OTHER_AUTHOR => entry.author = agent(1 + far as u8 % AUTHORS),
                            _ => entry.frame = frame(200 + far % 2),
                        }
                        true
                    }
                    _ => true,
                });
            }
        }
        (10, _) => drop(events.remove(index)),
        (11, _) => {
            let next = other.index(events.len());
            events.swap(index, next);
        }
        (
            12,
            Event::Acknowledged {
                agent, channel, frame, ..
            },
        ) => {
            events[index] = Event::Refused { agent, channel, frame };
        }
        (13, Event::Acknowledged { .. }) => {
            let Event::Acknowledged { offset, .. } = &mut events[index] else {
                unreachable!()
            };
            *offset = at(far + 1);
        }
        (15, _) => drop(events.remove(index)),
        _ => {
            let Event::Finished { at: finished, .. } = &mut events[index] else {
                unreachable!()
            };
            *finished = at(finished.get() + far % 4);
        }
    }
}

/// Feeds a monitor with the lists, merged at random. No frame is shown before its author recorded it.
fn watch(lists: &Lists, mut seed: u64) -> Vec<Fault> {
    let monitor = Monitor::new();
    let channel = monitor.channel(CHANNEL);
    let mut readers: HashMap<AgentId, Reader> = HashMap::new();
    let mut rest: Vec<&[Event]> = lists.iter().map(Vec::as_slice).collect();
    let mut unsent: Vec<FrameId> = lists.iter().flatten().filter_map(sent).collect();
    while rest.iter().any(|list| !list.is_empty()) {
        // Knuth's MMIX generator.
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let index = (seed >> 33) as usize % rest.len();
        let Some((event, after)) = rest[index].split_first() else {
            continue;
        };
        match event {
            Event::Delivered { entry, .. } if unsent.contains(&entry.frame) => continue,
            Event::Delivered { agent, entry, .. } => {
                readers.get_mut(agent).expect("it reads").delivered(&[of(entry)]);
            }
            Event::Sent { agent, frame, .. } => {
                unsent.remove(unsent.iter().position(|other| other == frame).expect("unsent"));
                channel.sent(*agent, *frame);
            }
            Event::Acknowledged {
                agent, frame, offset, ..
            } => channel.acknowledged(*agent, *frame, *offset),
            Event::Refused { frame, .. } => channel.refused(*frame),
            Event::Reads { agent, from, .. } => {
                readers.insert(*agent, channel.reader(*agent, *from));
            }
            Event::Finished { agent, at, .. } => readers.remove(agent).expect("it reads").finished(*at),
        }
        rest[index] = after;
    }
    monitor.finish().faults
}

fn sent(event: &Event) -> Option<FrameId> {
    match event {
        Event::Sent { frame, .. } => Some(*frame),
        _ => None,
    }
}

/// The kinds of faults, by their names.
fn kinds(faults: &[Fault]) -> BTreeSet<String> {
    let name = |fault: &Fault| format!("{fault:?}").split(' ').next().map(str::to_owned);
    faults.iter().filter_map(name).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn a_sound_history_has_no_fault_however_it_is_merged(run in runs(), seeds in any::<[u64; 3]>()) {
        let lists = run.lists();
        prop_assert_eq!(check(&lists.concat()), []);
        for seed in seeds {
            prop_assert_eq!(watch(&lists, seed), []);
        }
    }

    #[test]
    fn a_corrupted_history_has_the_same_faults_for_both(
        run in runs(),
        corruptions in prop::collection::vec((0..CORRUPTIONS, any::<Index>(), any::<Index>()), 1..4),
        seeds in any::<[u64; 3]>(),
    ) {
        let mut lists = run.lists();
        for (kind, which, other) in &corruptions {
            corrupt(&mut lists, *kind, *which, *other);
        }
        let has_other_author = corruptions.iter().any(|(kind, ..)| *kind == OTHER_AUTHOR);
        // The monitor does not check the order of frames under another agent's name.
        let is_compared = |fault: &Fault| !has_other_author || !matches!(fault, Fault::Order { .. });
        let mut expected = check(&lists.concat());
        expected.retain(is_compared);
        let expected_kinds = kinds(&expected);
        for seed in seeds {
            let mut found = watch(&lists, seed);
            found.retain(is_compared);
            prop_assert_eq!(expected.is_empty(), found.is_empty(), "check: {:?}\nmonitor: {:?}", &expected, &found);
            let mut found_kinds = kinds(&found);
            let mut expected_kinds = expected_kinds.clone();
            // Which of two entries, or of two places of a frame, is canonical decides what follows from it.
            let follows: &[&str] = if expected_kinds.contains("Fork") {
                &["Twice", "Gap", "Epoch", "Order", "Invented", "RefusedButThere", "Missing"]
            } else if expected_kinds.contains("Twice") {
                &["Gap", "Order"]
            } else {
                &[]
            };
            for kind in follows {
                found_kinds.remove(*kind);
                expected_kinds.remove(*kind);
            }
            prop_assert_eq!(&found_kinds, &expected_kinds, "check: {:?}\nmonitor: {:?}", &expected, &found);
        }
    }
}
