use super::*;
use crate::synth::{Profile, Size, synthesize};
use proptest::prelude::*;

fn synth(profile: Profile) -> Vec<Event> {
    let size = Size {
        duration: Duration::from_secs(30),
        agents: 24,
        messages_per_second: 40,
    };
    synthesize(profile, size, 5).expect("a size")
}

/// The same traffic as a log has it: without sessions.
fn log_of(events: Vec<Event>) -> Vec<Event> {
    events
        .into_iter()
        .filter(|event| matches!(event.what, What::Append { .. }))
        .collect()
}

/// A plan does only what is possible: sessions before acts, channels before frames, members before messages, one subscription a log.
fn assert_possible(plan: &Plan) {
    let mut online = HashSet::new();
    let mut rosters: HashMap<Channel, HashSet<Agent>> = HashMap::new();
    let mut following: HashSet<(Agent, Log)> = HashSet::new();
    let mut packages = HashSet::new();
    assert!(plan.events.is_sorted_by_key(|event| event.at));
    for event in &plan.events {
        let (mut agents, mut channels) = (Vec::new(), Vec::new());
        event
            .what
            .names(|agent| agents.push(agent), |channel| channels.push(channel));
        assert!(agents.iter().all(|agent| agent.0 < plan.agents), "{event:?}");
        assert!(channels.iter().all(|channel| channel.0 < plan.channels), "{event:?}");
        match &event.what {
            What::Append { author, frame, .. } => {
                assert!(online.contains(author), "{event:?}");
                match frame {
                    Frame::Create { channel, .. } => {
                        assert!(
                            rosters.insert(*channel, HashSet::from([*author])).is_none(),
                            "{event:?}"
                        );
                    }
                    Frame::KeyPackage { .. } => {
                        packages.insert(*author);
                    }
                    Frame::Claim(of) => assert!(packages.contains(of), "{event:?}"),
                    frame => {
                        let roster = frame
                            .channel()
                            .and_then(|channel| rosters.get_mut(&channel))
                            .expect("a channel");
                        assert!(roster.contains(author), "{event:?}");
                        if let Frame::Commit { adds, removes, .. } = frame {
                            assert!(removes.iter().all(|agent| roster.remove(agent)), "{event:?}");
                            assert!(adds.iter().all(|agent| roster.insert(*agent)), "{event:?}");
                        }
                    }
                }
            }
            What::Connect(agent) => assert!(online.insert(*agent), "{event:?}"),
            What::Disconnect(agent) => {
                assert!(online.remove(agent), "{event:?}");
                following.retain(|(other, _)| other != agent);
            }
            What::Subscribe { agent, log, .. } => {
                assert!(online.contains(agent), "{event:?}");
                assert!(following.insert((*agent, *log)), "{event:?}");
                if let Log::Channel(channel) = log {
                    assert!(rosters[channel].contains(agent), "{event:?}");
                }
            }
            What::Token(_) => {}
            What::Refused { .. } => panic!("{event:?}"),
        }
    }
}

fn messages(plan: &Plan) -> usize {
    let is_message = |event: &&Event| {
        matches!(
            event.what,
            What::Append {
                frame: Frame::Message(_),
                ..
            }
        )
    };
    plan.events.iter().filter(is_message).count()
}

fn plan(events: Vec<Event>, knobs: &Knobs) -> Plan {
    knobs.check().expect("knobs");
    let plan = Plan::new(events, knobs).expect("a plan");
    assert_possible(&plan);
    plan
}

#[test]
fn a_workload_with_sessions_is_planned_as_it_is() {
    for profile in Profile::ALL {
        let events = synth(profile);
        let plan = plan(events.clone(), &Knobs::default());
        assert!(plan.events == events, "{}", profile.name());
        assert_eq!(plan.made_up, 0);
    }
}

#[test]
fn agents_of_a_log_come_online_and_follow_their_channels() {
    for profile in Profile::ALL {
        let events = log_of(synth(profile));
        let plan = plan(events.clone(), &Knobs::default());
        let appends: Vec<Event> = log_of(plan.events.clone());
        assert_eq!(appends.len() as u64, plan.appends());
        assert!(
            appends.iter().zip(&events).all(|(one, other)| one.at == other.at),
            "{}",
            profile.name()
        );
        let of = |kind| plan.events.iter().filter(|event| event.what.kind() == kind).count();
        assert_eq!(of("connect") as u32, plan.agents);
        assert!(of("subscribe") > plan.agents as usize);
    }
}

#[test]
fn parts_laid_over_each_other_take_less_time_and_hold_every_message() {
    for profile in Profile::ALL {
        for events in [synth(profile), log_of(synth(profile))] {
            let whole = plan(events.clone(), &Knobs::default());
            let knobs = Knobs {
                folds: 4,
                shift: Duration::from_millis(10),
                ..Knobs::default()
            };
            let folded = plan(events, &knobs);
            assert_eq!(messages(&folded), messages(&whole));
            assert!(folded.duration <= whole.duration / 4 + Duration::from_millis(40));
            assert!(folded.channels >= whole.channels);
        }
    }
}

#[test]
fn copies_have_agents_of_their_own_and_readers_are_added() {
    let events = synth(Profile::ChattyPair);
    let one = plan(events.clone(), &Knobs::default());
    let knobs = Knobs {
        clones: 3,
        fan_out: 2,
        shift: Duration::from_secs(1),
        ..Knobs::default()
    };
    let three = plan(events, &knobs);
    assert_eq!(three.channels, one.channels * 3);
    assert_eq!(three.agents, (one.agents + one.channels * 2) * 3);
    assert_eq!(messages(&three), messages(&one) * 3);
    assert_eq!(three.duration, one.duration + Duration::from_secs(2));
    assert!(three.deliveries() > one.deliveries() * 8);
}

#[test]
fn who_stays_away_comes_back_at_the_end() {
    let knobs = Knobs {
        offline_share: Fraction::new(0.5),
        ..Knobs::default()
    };
    let plan = plan(synth(Profile::FanOut), &knobs);
    let back = plan.events.iter().filter(|event| event.at == plan.duration);
    assert_eq!(back.filter(|event| matches!(event.what, What::Connect(_))).count(), 12);
    let nobody_only_reads = Plan::new(synth(Profile::ChattyPair), &knobs);
    assert_eq!(nobody_only_reads, Err(PlanError::NoReaders));
}

#[test]
fn gaps_are_shortened_and_times_divided() {
    let mut events = synth(Profile::ChattyPair);
    let last = events.last().expect("an event").clone();
    events.push(Event {
        at: last.at + Duration::from_secs(3_600),
        what: last.what,
    });
    let knobs = Knobs {
        max_gap: Some(Duration::from_secs(2)),
        speed: Some(10.0),
        ..Knobs::default()
    };
    let fast = plan(events.clone(), &knobs);
    assert_eq!(fast.duration, (last.at + Duration::from_secs(2)).div_f64(10.0));
    let knobs = Knobs {
        duration: Some(Duration::from_secs(10)),
        ..Knobs::default()
    };
    assert!(plan(events, &knobs).duration <= Duration::from_secs(10));
}

#[test]
fn settings_that_cannot_be_are_refused() {
    let wrong = [
        Knobs {
            speed: Some(0.0),
            ..Knobs::default()
        },
        Knobs {
            speed: Some(f64::NAN),
            ..Knobs::default()
        },
        Knobs {
            clones: 0,
            ..Knobs::default()
        },
        Knobs {
            folds: 0,
            ..Knobs::default()
        },
        Knobs {
            part: (3, 2),
            ..Knobs::default()
        },
        Knobs {
            part: (0, 2),
            ..Knobs::default()
        },
        Knobs {
            shift: Duration::from_secs(1),
            ..Knobs::default()
        },
        Knobs {
            fan_out: 10_000,
            ..Knobs::default()
        },
        Knobs {
            part: (1, 4_096),
            ..Knobs::default()
        },
        Knobs {
            clones: 2,
            shift: Duration::MAX,
            ..Knobs::default()
        },
        Knobs {
            clones: 6,
            folds: 7,
            shift: Duration::from_secs(366 * 24 * 3_600),
            ..Knobs::default()
        },
    ];
    for knobs in wrong {
        knobs.check().expect_err("no such plan");
    }
    assert!(Plan::new(Vec::new(), &Knobs::default()).is_err());
    let most = [
        Knobs {
            part: (4_095, 4_095),
            ..Knobs::default()
        },
        Knobs {
            clones: 6,
            folds: 6,
            shift: Duration::from_secs(366 * 24 * 3_600),
            ..Knobs::default()
        },
    ];
    for knobs in most {
        knobs.check().expect("knobs");
    }
}

fn at(seconds: u64, what: What) -> Event {
    let at = Duration::from_secs(seconds);
    Event { at, what }
}

fn append(author: u32, frame: Frame) -> What {
    What::Append {
        author: Agent(author),
        body_bytes: 100,
        frame,
    }
}

const OFFER: Frame = Frame::KeyPackage { last_resort: false };

fn commit(channel: u32, adds: &[u32], removes: &[u32]) -> Frame {
    let agents = |list: &[u32]| list.iter().copied().map(Agent).collect::<Vec<_>>();
    Frame::Commit {
        channel: Channel(channel),
        adds: agents(adds),
        removes: agents(removes),
        recipients: agents(adds),
    }
}

fn subscribe(agent: u32, channel: u32) -> What {
    What::Subscribe {
        agent: Agent(agent),
        log: Log::Channel(Channel(channel)),
        behind: 0,
        follow: true,
    }
}

/// An author, agent 0, of two channels, and readers 1 and 2 of both, from the beginning on.
fn two_channels() -> Vec<Event> {
    let mut events = Vec::new();
    for agent in 0..3 {
        events.extend([at(0, What::Connect(Agent(agent))), at(0, append(agent, OFFER))]);
    }
    for channel in 0..2 {
        let create = Frame::Create {
            channel: Channel(channel),
            mode: ChannelMode::Mls,
        };
        events.extend([
            at(0, append(0, create)),
            at(0, append(0, commit(channel, &[1, 2], &[]))),
            at(0, subscribe(1, channel)),
            at(0, subscribe(2, channel)),
        ]);
    }
    events
}

/// All who only read stay away after 20 of 100 seconds.
fn plan_away(mut events: Vec<Event>) -> Plan {
    events.push(at(100, append(0, Frame::Message(Channel(1)))));
    let knobs = Knobs {
        offline_share: Fraction::new(1.0),
        ..Knobs::default()
    };
    plan(events, &knobs)
}

#[test]
fn who_was_removed_does_not_follow_the_channel_when_it_is_back() {
    let mut events = two_channels();
    events.extend([
        at(10, append(0, commit(0, &[], &[1]))),
        // Offline already when the others go.
        at(15, What::Disconnect(Agent(2))),
        at(30, What::Connect(Agent(2))),
        at(50, append(0, commit(1, &[], &[2]))),
        at(60, append(0, commit(0, &[], &[2]))),
        at(70, append(0, commit(0, &[2], &[]))),
        at(70, subscribe(2, 0)),
    ]);
    let plan = plan_away(events);
    let back: Vec<What> = plan
        .events
        .into_iter()
        .filter(|event| event.at == Duration::from_secs(100))
        .map(|event| event.what)
        .filter(|what| matches!(what, What::Subscribe { .. }))
        .collect();
    assert_eq!(back, [subscribe(1, 1), subscribe(2, 0)]);
}

#[test]
fn who_is_away_does_nothing_and_is_claimed_from_what_it_offered_before() {
    let mut events = two_channels();
    events.extend([
        at(50, append(1, OFFER)),
        at(50, append(1, Frame::Claim(Agent(0)))),
        at(51, append(0, Frame::Claim(Agent(1)))),
        // Comes while it is away.
        at(52, What::Token(Agent(3))),
        at(52, What::Connect(Agent(3))),
        at(52, append(3, OFFER)),
        at(53, append(0, Frame::Claim(Agent(3)))),
        at(54, append(0, commit(0, &[3], &[]))),
        at(54, subscribe(3, 0)),
    ]);
    let plan = plan_away(events);
    let between = |event: &&Event| (Duration::from_secs(20)..Duration::from_secs(100)).contains(&event.at);
    let done: Vec<What> = plan
        .events
        .iter()
        .filter(between)
        .map(|event| event.what.clone())
        .collect();
    let expected = [
        What::Disconnect(Agent(1)),
        What::Disconnect(Agent(2)),
        append(0, Frame::Claim(Agent(1))),
        append(0, commit(0, &[3], &[])),
    ];
    assert_eq!(done, expected);
    assert!(plan.events.iter().any(|event| event.what == What::Connect(Agent(3))));
}

#[test]
fn too_many_events_are_refused_before_they_are_built() {
    let events = synth(Profile::ToolSwarm);
    let whole = plan(events.clone(), &Knobs::default());
    // 30 billion events.
    let knobs = Knobs {
        clones: 10_000,
        fan_out: 9_000,
        ..Knobs::default()
    };
    let too_many = Plan::new(events.clone(), &knobs).expect_err("too many");
    let PlanError::TooMany { events: count } = too_many else {
        panic!("{too_many}");
    };
    let least = (whole.events.len() as u64 + u64::from(whole.channels) * (9_000 * 3 + 18)) * 10_000;
    assert!(count >= least && count < least + least / 20, "{count}, {least}");
    assert!(too_many.to_string().contains(&count.to_string()), "{too_many}");
    let mut layer = Layer::numbered(events.clone());
    let refused = readers::add(&mut layer, 9_000, 1, 100_000);
    assert!(matches!(refused, Err(PlanError::TooMany { .. })), "{refused:?}");
    assert!(layer.events == events, "built before it was refused");
    // Each part makes up what it needs: it ends at the first event that is too much.
    let knobs = Knobs {
        folds: 10_000,
        ..Knobs::default()
    };
    let log = log_of(events);
    let most = log.len() as u64 + 100;
    match Plan::within(most, log, &knobs) {
        Err(PlanError::TooMany { events }) => assert!((most..most + 100).contains(&events), "{events}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn agents_that_commits_name_count() {
    let mut events = two_channels();
    let readers: Vec<u32> = (3..50_000).collect();
    events.push(at(1, append(0, commit(0, &readers, &[]))));
    let knobs = Knobs {
        clones: 10_000,
        ..Knobs::default()
    };
    Footprint::of(&events).must_fit(1, EVENTS_MAX as u64).expect("one fits");
    // One event of 99,994 names: as much as 3,125 events.
    let large = Footprint::of(&events[events.len() - 1..]);
    large.must_fit(15_000, EVENTS_MAX as u64).expect("it fits");
    large.must_fit(17_000, EVENTS_MAX as u64).expect_err("too many names");
    let too_many = Plan::new(events, &knobs);
    assert!(matches!(too_many, Err(PlanError::TooMany { .. })), "{too_many:?}");
    let mut most = Layer {
        agents: u32::MAX,
        ..Layer::default()
    };
    let one = Layer {
        agents: 1,
        ..Layer::default()
    };
    assert!(matches!(most.add(&one, Duration::ZERO), Err(PlanError::TooMany { .. })));
}

#[test]
fn the_size_of_added_readers_is_known_before() {
    for fan_out in [1, 512, 513, 2_000] {
        let mut layer = Layer::numbered(synth(Profile::ToolSwarm));
        let raw = Frame::Create {
            channel: Channel(layer.channels),
            mode: ChannelMode::Raw,
        };
        layer.channels += 1;
        layer.events.push(at(100, append(0, raw)));
        let size = Footprint::of(&layer.events).and(Footprint::of_readers(&layer, fan_out));
        readers::add(&mut layer, fan_out, 1, EVENTS_MAX as u64).expect("it fits");
        assert_eq!(Footprint::of(&layer.events), size);
    }
}

#[test]
fn a_plan_without_appends_or_time_is_empty() {
    let is_empty = |events: Vec<Event>, knobs: &Knobs| matches!(Plan::new(events, knobs), Err(PlanError::Empty(_)));
    let nothing = Knobs {
        duration: Some(Duration::ZERO),
        ..Knobs::default()
    };
    assert!(is_empty(two_channels(), &nothing));
    let sessions = vec![at(0, What::Connect(Agent(0))), at(1, What::Disconnect(Agent(0)))];
    assert!(is_empty(sessions.clone(), &Knobs::default()));
    let mut later = sessions;
    later.push(at(10, append(0, OFFER)));
    plan(later.clone(), &Knobs::default());
    let short = Knobs {
        duration: Some(Duration::from_secs(5)),
        ..Knobs::default()
    };
    assert!(is_empty(later, &short));
}

#[test]
fn a_body_that_fits_no_frame_is_planned_as_the_largest_that_does() {
    use skytale_proto::{AgentId, ChannelId, Detail, FrameId, Header, Offset};
    let mut events = two_channels();
    let adds: Vec<u32> = (3..3 + limits::ROSTER_CHANGE_MAX as u32).collect();
    let frames = [Frame::Message(Channel(0)), commit(0, &[], &[1]), commit(0, &adds, &[])];
    events.extend(frames.map(|frame| {
        let what = What::Append {
            author: Agent(0),
            body_bytes: u32::MAX,
            frame,
        };
        at(1, what)
    }));
    let fits = limits::FRAME_BYTES_MAX as u32 - 64 * 1024;
    let large = What::Append {
        author: Agent(0),
        body_bytes: fits,
        frame: commit(1, &[], &[1]),
    };
    events.push(at(2, large.clone()));
    let knobs = Knobs {
        clones: 2,
        ..Knobs::default()
    };
    let plan = plan(events, &knobs);
    assert_eq!(plan.clamped, 6);
    assert_eq!(
        plan.events
            .iter()
            .filter(|event| matches!(event.what, What::Append { body_bytes, .. } if body_bytes == fits))
            .count(),
        4
    );
    for event in &plan.events {
        let What::Append { body_bytes, frame, .. } = &event.what else {
            continue;
        };
        let id = |agent: &Agent| {
            let mut id = [1; 32];
            id[..4].copy_from_slice(&agent.0.to_be_bytes());
            AgentId::from_bytes(id)
        };
        let ids = |list: &[Agent]| list.iter().map(id).collect();
        let detail = match frame {
            Frame::Message(_) => Detail::Message,
            Frame::Commit {
                adds,
                removes,
                recipients,
                ..
            } => Detail::Commit {
                adds: ids(adds),
                removes: ids(removes),
                recipients: ids(recipients),
            },
            _ => continue,
        };
        let header = Header {
            log: ChannelId::generate().log(),
            id: FrameId::generate(),
            author: id(&Agent(0)),
            parent: Offset::new(u64::MAX),
            detail,
        };
        skytale_proto::Frame::new(header, vec![0; *body_bytes as usize]).expect("a frame");
    }
}

/// Numbers at which something may break, and others.
fn extreme() -> impl Strategy<Value = u32> {
    prop_oneof![
        3 => prop::sample::select(vec![1, 2, 3]),
        1 => prop::sample::select(vec![0, 511, 512, 4_095, 4_096, 9_000, 9_001, 10_000, 10_001, u32::MAX - 1, u32::MAX]),
        1 => any::<u32>(),
    ]
}

fn extreme_time() -> impl Strategy<Value = Duration> {
    let year = 365 * 24 * 3_600;
    prop_oneof![
        3 => prop::sample::select(vec![Duration::ZERO, Duration::from_nanos(1), Duration::from_secs(year)]),
        1 => prop::sample::select(vec![Duration::from_secs(10 * year), Duration::from_secs(u64::MAX), Duration::MAX]),
        1 => (any::<u64>(), 0..1_000_000_000u32).prop_map(|(seconds, nanos)| Duration::new(seconds, nanos)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn settings_are_refused_or_no_plan_panics(
        counts in (extreme(), extreme(), extreme()),
        times in (extreme_time(), prop::option::of(extreme_time()), prop::option::of(extreme_time()), extreme_time()),
        speed in prop::option::of(prop_oneof![
            Just(1.0), Just(0.001), Just(1_000_000.0), Just(f64::MIN_POSITIVE), Just(f64::INFINITY), Just(f64::NAN), any::<f64>(),
        ]),
        share in prop::option::of(prop_oneof![Just(1.0), Just(f64::MIN_POSITIVE), any::<f64>()]),
        part in prop_oneof![Just((1, 1)), Just((4_095, 4_095)), (extreme(), extreme())],
        seed: u64,
    ) {
        let (clones, folds, fan_out) = counts;
        let (shift, max_gap, duration, last) = times;
        let knobs = Knobs {
            speed, clones, fan_out, folds, shift, max_gap, seed, duration, part,
            offline_share: share.and_then(Fraction::new),
        };
        if knobs.check().is_ok() {
            let mut events = two_channels();
            events.push(at(5, append(0, Frame::Message(Channel(1)))));
            events.push(Event { at: last, what: append(0, Frame::Message(Channel(0))) });
            events.sort_by_key(|event| event.at);
            let _ = Plan::within(50_000, events, &knobs);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_settings_give_a_plan_that_is_possible(
        profile in 0..Profile::ALL.len(), from_log: bool, from in 0usize..400, clones in 1u32..4, folds in 1u32..6, fan_out in 0u32..4, parts in 1u32..4,
    ) {
        let mut events = synth(Profile::ALL[profile]);
        if from_log {
            events = log_of(events);
        }
        // A capture that begins in the middle.
        let mut events = events.split_off(from.min(events.len() / 2));
        let start = events[0].at;
        events.iter_mut().for_each(|event| event.at -= start);
        let whole = plan(events.clone(), &Knobs { clones, folds, fan_out, ..Knobs::default() });
        let mut sum = (0, 0);
        for number in 1..=parts {
            let knobs = Knobs { clones, folds, fan_out, part: (number, parts), ..Knobs::default() };
            if let Ok(one) = Plan::new(events.clone(), &knobs) {
                assert_possible(&one);
                sum.0 += messages(&one);
                sum.1 += one.deliveries();
            }
        }
        prop_assert_eq!(sum, (messages(&whole), whole.deliveries()));
    }
}
