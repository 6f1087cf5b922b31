use super::*;
use proptest::prelude::*;
use skytale_proto::EndpointId;

fn relay(id: u8, region: u8) -> Relay {
    Relay {
        endpoint: EndpointId::from_bytes([id; 32]),
        addresses: vec![format!("192.0.2.{id}:7601")],
        region,
        https_url: None,
    }
}

fn live(id: u8, region: u8) -> LiveRelay {
    LiveRelay {
        relay: relay(id, region),
        draining: false,
        agents: 0,
        agents_max: 100,
        lag_max: 0,
    }
}

fn asking(region: u8) -> Asking<'static> {
    Asking::new(Some(region), 0, b"agent")
}

fn ids(relays: &[Relay]) -> Vec<u8> {
    relays.iter().map(|relay| relay.endpoint.as_bytes()[0]).collect()
}

fn distances() -> Distances {
    Distances::parse(["1-2=80", "1-3=20", "0-3=10", "0-2=30"]).unwrap()
}

fn told(live: Vec<LiveRelay>, asking: Asking<'_>) -> Vec<u8> {
    ids(&nearest(live, Vec::new(), &distances(), asking))
}

#[test]
fn the_region_asked_for_is_first_then_the_nearest_to_it() {
    let all = || vec![live(1, 1), live(2, 2), live(3, 3), live(9, 9)];
    assert_eq!(told(all(), asking(1)), [1, 3, 2, 9]);
    assert_eq!(
        told(all(), asking(2)),
        [2, 1, 3, 9],
        "then by the distance from the API where nothing is known"
    );
    assert_eq!(told(all(), Asking::new(None, 3, b"agent")), [3, 1, 2, 9]);
    assert_eq!(
        told(all(), asking(77))[..2],
        [3, 2],
        "of a region that nobody knows: by the distance from the API"
    );
}

#[test]
fn within_a_region_the_one_with_less_to_do_is_first() {
    let with = |id, agents| LiveRelay { agents, ..live(id, 1) };
    assert_eq!(
        told(vec![with(1, 90), with(2, 10), with(3, 50), live(4, 3)], asking(1)),
        [2, 3, 1, 4]
    );
    let full = LiveRelay {
        agents_max: 0,
        ..live(5, 1)
    };
    assert_eq!(
        told(vec![full, with(1, 200)], asking(1)),
        [1, 5],
        "who takes none is last"
    );
}

#[test]
fn who_is_behind_comes_after_who_is_not_and_who_drains_comes_last() {
    let behind = LiveRelay {
        lag_max: BEHIND_MESSAGES + 1,
        ..live(1, 1)
    };
    let near_enough = LiveRelay {
        lag_max: BEHIND_MESSAGES,
        ..live(2, 1)
    };
    let draining = LiveRelay {
        draining: true,
        ..live(3, 1)
    };
    assert_eq!(
        told(vec![draining, behind, near_enough, live(4, 2)], asking(1)),
        [2, 4, 1, 3]
    );
}

#[test]
fn agents_are_spread_over_nodes_that_are_alike_and_each_keeps_its_order() {
    let all = || (1..=4).map(|id| live(id, 1)).collect::<Vec<_>>();
    let mut first = [0; 5];
    for agent in 0..1_000u32 {
        let who = agent.to_le_bytes();
        let order = told(all(), Asking::new(Some(1), 0, &who));
        assert_eq!(order, told(all(), Asking::new(Some(1), 0, &who)));
        first[usize::from(order[0])] += 1;
    }
    assert!(first[1..].iter().all(|count| (150..350).contains(count)), "{first:?}");
}

#[test]
fn the_answer_is_bounded_and_keeps_places_for_another_region() {
    let mut all: Vec<_> = (1..=20).map(|id| live(id, 1)).collect();
    assert_eq!(told(all.clone(), asking(1)).len(), 8);
    all.extend([live(30, 3), live(31, 2), live(32, 2)]);
    let order = told(all.clone(), asking(1));
    assert_eq!((order.len(), &order[6..]), (8, &[30, *order.last().unwrap()][..]));
    assert!(order[..6].iter().all(|id| *id <= 20) && [31, 32].contains(&order[7]));
    all.retain(|live| live.relay.region == 1);
    all.push(LiveRelay {
        draining: true,
        ..live(30, 3)
    });
    assert!(!told(all, asking(1)).contains(&30), "one that drains has no place kept");
}

#[test]
fn nodes_without_heartbeats_stay_in_the_order_they_were_heard_of() {
    let registered = vec![relay(5, 1), relay(4, 1), relay(3, 3), relay(1, 1)];
    let order = nearest(
        Vec::new(),
        registered.clone(),
        &Distances::default(),
        Asking::new(None, 1, b""),
    );
    assert_eq!(ids(&order), [5, 4, 1, 3]);
    let order = nearest(
        vec![live(9, 1), live(1, 1)],
        registered,
        &Distances::default(),
        Asking::new(None, 1, b""),
    );
    assert_eq!(ids(&order)[2..], [5, 4, 3], "those known to be there come first");
    assert_eq!(order.len(), 5, "each once");
}

#[test]
fn a_node_is_not_missed_before_its_third_heartbeat_was_due() {
    let heartbeat = Duration::from_secs(5);
    let is_live = |seen_s: u64, now_s: u64| seen_s >= live_since_s(now_s, heartbeat);
    assert!(is_live(100, 115) && !is_live(100, 116));
    assert!(is_live(100, 90), "a clock that was set back kills nobody");
    assert!(is_live(0, 3));
}

proptest! {
    #[test]
    fn any_fleet_gives_a_bounded_answer_without_repeats_in_the_order_of_the_whole(
        fleet in proptest::collection::vec((0u8..4, any::<bool>(), 0u64..200, 0u64..20_000), 0..40),
        limit in 1usize..12,
        region in 0u8..5,
    ) {
        let all: Vec<LiveRelay> = (0..).zip(&fleet).map(|(id, (region, draining, agents, lag_max))| LiveRelay {
            draining: *draining, agents: *agents, lag_max: *lag_max, ..live(id, *region)
        }).collect();
        let whole = told(all.clone(), Asking { limit: 40, ..asking(region) });
        let order = told(all, Asking { limit, ..asking(region) });
        prop_assert_eq!(order.len(), limit.min(fleet.len()));
        let places: Vec<_> = order.iter().map(|id| whole.iter().position(|one| one == id).unwrap()).collect();
        prop_assert!(places.is_sorted_by(|a, b| a < b), "{:?}", places);
        prop_assert!(places.first().is_none_or(|first| *first == 0), "the nearest is always told");
    }
}
