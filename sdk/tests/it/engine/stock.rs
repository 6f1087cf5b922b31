//! Expiring KeyPackages: renewed by their owner, skipped by claimers.

use super::relay::{Agent, Relay, changed, channel_of, settle};
use skytale_proto::limits::KEY_PACKAGES_MAX;
use skytale_proto::{AgentId, ChannelId, Code, Detail};
use skytale_sdk::internals::engine::ClaimedPackage;
use skytale_sdk::{Clock, EngineError};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const DAY_MS: u64 = 24 * 3_600 * 1_000;
const HOUR: Duration = Duration::from_secs(3_600);

/// A clock that a test sets.
#[derive(Clone)]
struct Hands(Arc<AtomicU64>);

impl Hands {
    fn at(ms: u64) -> Self {
        Self(Arc::new(AtomicU64::new(ms)))
    }

    fn now() -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock");
        u64::try_from(since.as_millis()).expect("fits")
    }

    fn set(&self, ms: u64) {
        self.0.store(ms, Ordering::Relaxed);
    }

    fn agent(&self) -> Agent {
        let hands = self.clone();
        Agent::with(changed(|config| {
            config.key_packages_low = 2;
            config.key_packages_target = 4;
            config.clock = Clock::new(move || hands.0.load(Ordering::Relaxed));
        }))
    }
}

/// Acts like an online agent: offers KeyPackages, claims its own expiring ones, offers again. Returns how many it has
/// withdrawn.
fn renew(relay: &Relay, agent: &mut Agent) -> u32 {
    let due = head_is_due(relay, agent);
    agent.stock_up(relay);
    let mut taken = 0;
    if due {
        while head_is_due(relay, agent) {
            let own = agent.id();
            let claimed = agent.claim(relay, own);
            taken += 1;
            if !agent.engine().key_package_was_due(id_of(&claimed)).expect("judged") {
                break;
            }
        }
    }
    agent.stock_up(relay);
    taken
}

fn head_is_due(relay: &Relay, agent: &mut Agent) -> bool {
    let live = relay.key_packages(agent.id()).0;
    live > 0 && agent.engine().key_package_is_due(live).expect("judged")
}

fn id_of(package: &ClaimedPackage) -> skytale_proto::FrameId {
    let frame = skytale_proto::Frame::decode(package.frame.clone()).expect("a frame");
    frame.header().id
}

/// Claims like an agent that adds another one: until a KeyPackage is valid, or the last resort is not. Returns how many
/// were claimed.
fn add(relay: &Relay, by: &mut Agent, agent: AgentId, channel: ChannelId) -> (usize, Result<(), EngineError>) {
    for claims in 1..=KEY_PACKAGES_MAX + 1 {
        let package = by.claim(relay, agent);
        let frame = skytale_proto::Frame::decode(package.frame.clone()).expect("a frame");
        let is_last = matches!(frame.header().detail, Detail::KeyPackage { last_resort: true, .. });
        match by.engine().add(channel, vec![package]) {
            Err(error) if error.code() == Code::KeyPackageExpired && !is_last => {}
            done => return (claims, done.map(drop)),
        }
    }
    panic!("the last resort comes at the end");
}

/// Checks that the agent can be added, reads its Welcome, and receives messages.
fn assert_joins(relay: &Relay, by: &mut Agent, agent: &mut Agent) {
    let channel = channel_of(relay, &mut [&mut *by]);
    let (claims, added) = add(relay, by, agent.id(), channel);
    added.expect("in force");
    assert_eq!(claims, 1, "the head of the queue is fresh");
    settle(relay, channel, &mut [&mut *by, &mut *agent]);
    by.send(channel, "welcome");
    settle(relay, channel, &mut [&mut *by, &mut *agent]);
    assert_eq!(agent.texts(channel), ["welcome"]);
}

#[test]
fn a_run_of_expired_key_packages_is_skipped_and_the_last_resort_says_what_is_to_be_done() {
    let relay = Relay::new();
    let now = Hands::now();
    let (mut a, mut away) = (Agent::new(), Hands::at(now - 100 * DAY_MS).agent());
    let channel = channel_of(&relay, &mut [&mut a]);
    away.stock_up(&relay);
    assert_eq!(relay.key_packages(away.id()), (4, true));
    let (claims, refused) = add(&relay, &mut a, away.id(), channel);
    assert_eq!(claims, 5, "all of them, and the last resort");
    let error = refused.expect_err("all have expired");
    let text = error.to_string();
    assert!(
        text.contains(&away.id().to_string()) && text.contains("come online"),
        "{text}"
    );
    let EngineError::KeyPackageExpired { age_s, limit_s, .. } = error else {
        panic!("{error}");
    };
    assert_eq!((age_s / 86_400, limit_s / 86_400), (100, 90));
}

#[test]
fn an_agent_replaces_what_has_aged_as_soon_as_it_is_back() {
    let relay = Relay::new();
    let now = Hands::now();
    let clock = Hands::at(now - 100 * DAY_MS);
    let (mut a, mut away) = (Agent::new(), clock.agent());
    away.stock_up(&relay);
    assert_eq!(renew(&relay, &mut away), 0, "all are fresh");
    // Before half of their life has passed they stay, after it they go.
    clock.set(now - 56 * DAY_MS);
    assert_eq!(renew(&relay, &mut away), 0);
    clock.set(now - 54 * DAY_MS);
    assert_eq!(renew(&relay, &mut away), 4);
    assert_eq!(relay.key_packages(away.id()), (4, true));
    clock.set(now);
    away.crash();
    assert_eq!(renew(&relay, &mut away), 4);
    assert_eq!(renew(&relay, &mut away), 0);
    assert_joins(&relay, &mut a, &mut away);
    // With the stock used up, the last resort is a fresh one.
    for _ in 0..4 {
        let channel = channel_of(&relay, &mut [&mut a]);
        let (claims, added) = add(&relay, &mut a, away.id(), channel);
        added.expect("in force");
        assert_eq!(claims, 1);
    }
    assert_eq!(relay.key_packages(away.id()), (0, true));
}

#[test]
fn key_packages_made_by_a_clock_of_1970_are_replaced_once_the_time_is_known() {
    let relay = Relay::new();
    let clock = Hands::at(5_000);
    let (mut a, mut b) = (Agent::new(), clock.agent());
    b.stock_up(&relay);
    b.read_own_log(&relay);
    // Its clock is set right, or a relay node tells the time.
    for told in [false, true] {
        if told {
            b = clock.agent();
            b.stock_up(&relay);
            b.read_own_log(&relay);
            b.engine().relay_time(Hands::now());
        } else {
            clock.set(Hands::now());
        }
        assert_eq!(renew(&relay, &mut b), 4);
        assert_joins(&relay, &mut a, &mut b);
        clock.set(5_000);
    }
}

#[test]
fn who_adds_with_a_clock_of_1970_goes_by_the_relay_nodes() {
    let relay = Relay::new();
    let (mut late, mut b) = (Hands::at(5_000).agent(), Agent::new());
    let channel = channel_of(&relay, &mut [&mut late]);
    b.stock_up(&relay);
    let package = late.claim(&relay, b.id());
    let early = late.engine().add(channel, vec![package.clone()]);
    assert!(matches!(early, Err(EngineError::KeyPackageEarly { .. })), "{early:?}");
    late.engine().relay_time(Hands::now());
    late.engine().add(channel, vec![package]).expect("in force");
}

#[test]
fn a_relay_node_that_lies_about_the_time_brings_no_key_package_back_and_deletes_none() {
    let relay = Relay::new();
    let now = Hands::now();
    let (mut a, mut away) = (Agent::new(), Hands::at(now - 100 * DAY_MS).agent());
    let channel = channel_of(&relay, &mut [&mut a]);
    away.stock_up(&relay);
    let expired = a.claim(&relay, away.id());
    for lie in [0, now - 100 * DAY_MS] {
        a.engine().relay_time(lie);
        let refused = a
            .engine()
            .add(channel, vec![expired.clone()])
            .map_err(|error| error.code());
        assert_eq!(refused, Err(Code::KeyPackageExpired));
    }

    // A Welcome is on its way while the relay node says that it is the year 9999, or no year at all.
    let mut b = Agent::new();
    b.stock_up(&relay);
    let package = a.claim(&relay, b.id());
    let other = channel_of(&relay, &mut [&mut a]);
    a.engine().add(other, vec![package]).expect("in force");
    settle(&relay, other, &mut [&mut a]);
    for lie in [now + 8_000 * 365 * DAY_MS, u64::MAX] {
        b.engine().relay_time(lie);
        renew(&relay, &mut b);
    }
    settle(&relay, other, &mut [&mut a, &mut b]);
    a.send(other, "still readable");
    settle(&relay, other, &mut [&mut a, &mut b]);
    assert_eq!(b.texts(other), ["still readable"]);
    // Once it tells the truth, what was made by its lie is replaced.
    b.engine().relay_time(now);
    assert!(renew(&relay, &mut b) > 0);
    assert_joins(&relay, &mut a, &mut b);
}

#[test]
fn key_packages_that_no_vault_has_the_keys_of_are_replaced() {
    let relay = Relay::new();
    let (mut a, mut b) = (Agent::new(), Agent::new());
    // As after the vault was put back as it was before it offered them: the log has more than the vault knows.
    let before = b.folder().join("before");
    b.copy_vault(&before);
    b.stock_up(&relay);
    b.put_vault_back(&before);
    assert!(b.engine().key_package_is_due(4).expect("judged"));
    b.read_own_log(&relay);
    assert_eq!(renew(&relay, &mut b), 4);
    assert_joins(&relay, &mut a, &mut b);
    for _ in 0..4 {
        let channel = channel_of(&relay, &mut [&mut a]);
        let (_, added) = add(&relay, &mut a, b.id(), channel);
        added.expect("in force");
        settle(&relay, channel, &mut [&mut a, &mut b]);
        assert_eq!(b.engine().members(channel).expect("joined").len(), 2);
    }
}

#[test]
fn a_stock_of_aged_key_packages_that_cannot_be_taken_back_gets_fresh_ones_behind_it() {
    let relay = Relay::new();
    let now = Hands::now();
    let clock = Hands::at(now - 100 * DAY_MS);
    let (mut a, mut b) = (Agent::new(), clock.agent());
    b.stock_up(&relay);
    clock.set(now);
    // Without the right to claim: only what can be offered.
    b.stock_up(&relay);
    assert_eq!(relay.key_packages(b.id()), (8, true));
    b.stock_up(&relay);
    assert_eq!(relay.key_packages(b.id()), (8, true), "and no more of them");
    let channel = channel_of(&relay, &mut [&mut a]);
    let (claims, added) = add(&relay, &mut a, b.id(), channel);
    added.expect("in force");
    assert_eq!(claims, 5, "the four that have expired are skipped");
}

#[test]
fn an_agent_whose_key_packages_live_shorter_than_an_hour_is_not_busy_with_them() {
    let relay = Relay::new();
    let mut b = Agent::with(changed(|config| {
        config.key_packages_low = 2;
        config.key_packages_target = 4;
        config.key_package_lifetime = HOUR - Duration::from_millis(1);
        config.clock = {
            let (calls, now) = (AtomicU64::new(0), Hands::now());
            // An hour passes whenever it looks.
            Clock::new(move || now + calls.fetch_add(1, Ordering::Relaxed) * 3_600_000)
        };
    }));
    b.stock_up(&relay);
    for _ in 0..3 {
        assert_eq!(renew(&relay, &mut b), 0);
    }
    assert_eq!(relay.key_packages(b.id()), (4, true));
}

#[test]
fn a_key_package_says_when_it_expires_under_its_owners_signature() {
    let mut b = Hands::at(1_000 * DAY_MS).agent();
    let frames = b.engine().key_packages_wanted(0, false).expect("made");
    let mut a = Agent::new();
    let channel = a.engine().create_channel("test").expect("made");
    let expires_s = 1_090 * DAY_MS / 1_000;
    let at = |bytes: &[u8]| {
        let wanted = expires_s.to_be_bytes();
        bytes.windows(8).position(|window| window == wanted)
    };
    for frame in frames {
        let body = frame.body().to_vec();
        let place = at(&body).expect("the time of expiry");
        let mut later = body.clone();
        later[place + 3] ^= 1;
        let forged = skytale_proto::Frame::new(frame.header().clone(), later).expect("a frame");
        let package = |frame: &skytale_proto::Frame| ClaimedPackage {
            agent: frame.header().author,
            frame: frame.encoded().clone(),
        };
        let refused = a
            .engine()
            .add(channel, vec![package(&forged)])
            .map_err(|error| error.code());
        assert_eq!(refused, Err(Code::KeyPackageForeign));
        let refused = a
            .engine()
            .add(channel, vec![package(&frame)])
            .map_err(|error| error.code());
        assert_eq!(refused, Err(Code::KeyPackageExpired));
    }
}
