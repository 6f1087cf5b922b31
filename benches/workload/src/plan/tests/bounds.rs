//! Plans that do not fit, and settings at which something may break.

use super::*;

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
                roster: None,
                policy: None,
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
