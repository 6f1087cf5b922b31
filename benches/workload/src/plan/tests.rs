mod bounds;

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
