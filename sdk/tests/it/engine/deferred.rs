//! Deferred additions: they wait until the agent to be added has KeyPackages.

use super::relay::{Agent, Relay, channel_of, settle};
use skytale_proto::Code;
use skytale_sdk::Event;

#[test]
fn an_addition_waits_for_its_agent_over_restarts_and_is_made_once() {
    let relay = Relay::new();
    let (mut a, mut b, mut late) = (Agent::new(), Agent::new(), Agent::new());
    let channel = channel_of(&relay, &mut [&mut a, &mut b]);
    let ids = [b.id(), late.id()];
    a.engine().add_later(channel, &ids).expect("kept");
    a.engine().add_later(channel, &ids).expect("kept once");
    a.crash();
    let waiting = a.engine().deferred_to_try().expect("listed");
    assert_eq!(waiting.len(), 1, "a member is left out");
    assert_eq!((waiting[0].channel, waiting[0].agent), (channel, late.id()));
    let refused = Code::KeyPackagesExhausted;
    a.engine().deferred_refused(channel, late.id(), refused).expect("kept");
    a.crash();
    let waiting = a.engine().deferred_adds(channel).expect("listed");
    assert_eq!(waiting[0].last_refusal.map(|refusal| refusal.code), Some(refused));

    late.stock_up(&relay);
    let package = a.claim(&relay, late.id());
    let queued = a.engine().add_deferred(channel, package.clone()).expect("queued");
    assert!(queued.is_some());
    assert_eq!(a.engine().add_deferred(channel, package).expect("asked"), None);
    assert_eq!(a.engine().deferred_adds(channel).expect("listed"), []);
    settle(&relay, channel, &mut [&mut a, &mut b, &mut late]);
    assert_eq!(late.engine().members(channel).expect("joined").len(), 3);
}

#[test]
fn an_addition_that_waits_is_forgotten_when_it_is_moot_or_cancelled() {
    let relay = Relay::new();
    let (mut a, mut b, mut c) = (Agent::new(), Agent::new(), Agent::new());
    let (mut late, strangers) = (Agent::new(), [[1; 32], [2; 32]].map(skytale_proto::AgentId::from_bytes));
    let channel = channel_of(&relay, &mut [&mut a, &mut b]);
    a.engine().add_later(channel, &[late.id()]).expect("kept");
    a.engine().add_later(channel, &strangers).expect("kept");
    b.engine().add_later(channel, &strangers).expect("kept");
    assert_eq!(a.engine().cancel_add(channel, &strangers[..1]).expect("forgotten"), 1);
    assert_eq!(a.engine().cancel_add(channel, &strangers[..1]).expect("asked"), 0);
    // Another member adds the one that was waited for.
    late.stock_up(&relay);
    let package = b.claim(&relay, late.id());
    b.engine().add(channel, vec![package]).expect("queued");
    settle(&relay, channel, &mut [&mut a, &mut b, &mut late]);
    let waiting = a.engine().deferred_to_try().expect("listed");
    assert_eq!(waiting.iter().map(|add| add.agent).collect::<Vec<_>>(), strangers[1..]);
    assert_eq!(a.engine().deferred_adds(channel).expect("listed"), waiting);

    // Who has left adds nobody, also if it comes back.
    let id = b.id();
    a.engine().remove(channel, &[id]).expect("queued");
    settle(&relay, channel, &mut [&mut a, &mut b]);
    assert!(b.take_events().iter().any(|event| matches!(event, Event::Left { .. })));
    assert_eq!(b.engine().deferred_to_try().expect("listed"), []);
    assert_eq!(b.engine().deferred_adds(channel).expect("listed"), []);
    let refused = b.engine().add_later(channel, &[c.id()]).map_err(|error| error.code());
    assert_eq!(refused, Err(Code::ChannelLeft));
    c.stock_up(&relay);
    let package = b.claim(&relay, c.id());
    assert_eq!(b.engine().add_deferred(channel, package).expect("asked"), None);
}
