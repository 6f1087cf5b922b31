use super::*;
use crate::event::{Frame, What};
use std::collections::{BTreeMap, BTreeSet};

const SIZE: Size = Size {
    duration: Duration::from_secs(60),
    agents: 40,
    messages_per_second: 50,
};

#[test]
fn a_seed_gives_the_same_events_and_another_seed_gives_others() {
    for profile in Profile::ALL {
        let made = |seed| synthesize(profile, SIZE, seed).expect("a size");
        assert!(made(7) == made(7), "{profile:?}");
        assert!(made(7) != made(8), "{profile:?}");
        assert_eq!(Profile::named(profile.name()), Some(profile));
    }
}

/// Only what a log would accept, and what can have happened.
#[test]
fn every_profile_is_possible() {
    for profile in Profile::ALL {
        let events = synthesize(profile, SIZE, 1).expect("a size");
        let mut before = Duration::ZERO;
        let (mut rosters, mut online) = (BTreeMap::new(), BTreeSet::new());
        let mut stock: BTreeMap<_, u64> = BTreeMap::new();
        let mut messages = 0;
        for event in &events {
            assert!(event.at >= before && event.at <= SIZE.duration, "{profile:?}");
            before = event.at;
            match &event.what {
                What::Connect(agent) => assert!(online.insert(*agent)),
                What::Disconnect(agent) => assert!(online.remove(agent)),
                What::Token(_) => {}
                What::Subscribe { agent, .. } => assert!(online.contains(agent)),
                What::Refused { .. } => panic!("nobody is refused"),
                What::Append { author, frame, .. } => {
                    assert!(online.contains(author), "{profile:?}");
                    match frame {
                        Frame::KeyPackage { .. } => *stock.entry(*author).or_default() += 1,
                        Frame::Claim(of) => assert!(stock.contains_key(of)),
                        Frame::Create { channel, .. } => {
                            assert!(rosters.insert(*channel, BTreeSet::from([*author])).is_none());
                        }
                        Frame::Commit {
                            channel,
                            adds,
                            recipients,
                            ..
                        } => {
                            assert_eq!(adds, recipients);
                            let roster = rosters.get_mut(channel).expect("a channel");
                            assert!(roster.contains(author));
                            assert!(adds.iter().all(|agent| roster.insert(*agent)));
                        }
                        Frame::Message(channel) => {
                            assert!(rosters[channel].contains(author));
                            messages += 1;
                        }
                        other => panic!("{other:?}"),
                    }
                }
            }
        }
        // At night a quarter is written.
        let least = if profile == Profile::NightlyTeam { 1_200 } else { 2_000 };
        assert!((least..4_000).contains(&messages), "{profile:?}: {messages}");
    }
}

#[test]
fn those_who_were_away_come_back_to_a_backlog() {
    for (profile, least) in [(Profile::NightlyTeam, 20), (Profile::ReconnectStorm, 300)] {
        let events = synthesize(profile, SIZE, 1).expect("a size");
        let most = events.iter().filter_map(|event| match event.what {
            What::Subscribe { behind, .. } => Some(behind),
            _ => None,
        });
        assert!(most.max().expect("some") >= least, "{profile:?}");
    }
}

#[test]
fn a_size_that_cannot_be_is_refused() {
    for wrong in [
        Size { agents: 1, ..SIZE },
        Size {
            agents: 100_001,
            ..SIZE
        },
        Size {
            duration: Duration::ZERO,
            ..SIZE
        },
        Size {
            messages_per_second: 0,
            ..SIZE
        },
        Size {
            messages_per_second: u32::MAX,
            ..SIZE
        },
    ] {
        synthesize(Profile::FanOut, wrong, 1).expect_err("refused");
    }
}
