//! Consent to claims of KeyPackages, and additions by strangers that wait to be accepted.

use super::relay::{Agent, Relay, changed, channel_of, settle};
use bytes::Bytes;
use skytale_log_store::{AppendError, Refused};
use skytale_proto::{AccountId, AgentId, ChannelId, ChannelMode, Detail, Frame, FrameId, Header, LogId, Offset};
use skytale_sdk::{ChannelState, Clock, Consent, Event, Trust};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

const HOME: AccountId = AccountId::from_bytes([1; 16]);
const FOREIGN: AccountId = AccountId::from_bytes([2; 16]);

fn agent_of(account: AccountId) -> Agent {
    let mut agent = Agent::new();
    agent.engine().set_account(account).expect("kept");
    agent
}

/// Sets the rule for claims, and appends it to the log.
fn consent(relay: &Relay, agent: &mut Agent, consent: &Consent) {
    agent.engine().set_consent(consent).expect("kept");
    assert!(!agent.engine().consent().expect("known").in_force);
    let frame = agent.engine().consent_frame().expect("made").expect("a frame");
    agent.crash();
    let again = agent.engine().consent_frame().expect("made").expect("a frame");
    assert_eq!(frame, again, "the same until it is answered");
    let outcome = relay.outcome(frame.clone());
    agent
        .engine()
        .consent_outcome(frame.header().id, outcome)
        .expect("kept");
    assert!(agent.engine().consent().expect("known").in_force);
    assert_eq!(agent.engine().consent_frame().expect("asked"), None);
}

/// Creates a channel of one agent, adds another one, and sends a message.
fn added(relay: &Relay, by: &mut Agent, agent: &mut Agent) -> ChannelId {
    let channel = channel_of(relay, &mut [&mut *by]);
    let package = by.claim(relay, agent.id());
    by.engine().add(channel, vec![package]).expect("queued");
    settle(relay, channel, &mut [&mut *by]);
    by.send(channel, "buy now");
    settle(relay, channel, &mut [&mut *by, &mut *agent]);
    channel
}

/// Removes an agent, and adds it again.
fn add_again(relay: &Relay, channel: ChannelId, by: &mut Agent, agent: AgentId) {
    by.engine().remove(channel, &[agent]).expect("queued");
    settle(relay, channel, &mut [&mut *by]);
    let package = by.claim(relay, agent);
    by.engine().add(channel, vec![package]).expect("queued");
    settle(relay, channel, &mut [&mut *by]);
}

fn refused(relay: &Relay, by: &mut Agent, agent: AgentId) -> Refused {
    let claim = by.engine().claim_frame(agent).expect("a frame");
    match relay.append(claim) {
        Err(AppendError::Refused(refused)) => refused,
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn a_stranger_claims_nothing_before_the_owner_says_so_and_nothing_after_it_takes_that_back() {
    let relay = Relay::new();
    let (mut bob, mut mallory, mut alice) = (agent_of(HOME), agent_of(FOREIGN), agent_of(HOME));
    bob.stock_up(&relay);
    assert_eq!(refused(&relay, &mut mallory, bob.id()), Refused::ClaimNotAllowed);
    let listed = Consent::Listed {
        accounts: Vec::new(),
        agents: vec![mallory.id()],
    };
    consent(&relay, &mut bob, &listed);
    mallory.claim(&relay, bob.id());
    assert_eq!(
        refused(&relay, &mut agent_of(FOREIGN), bob.id()),
        Refused::ClaimNotAllowed
    );
    consent(&relay, &mut bob, &Consent::Account);
    assert_eq!(refused(&relay, &mut mallory, bob.id()), Refused::ClaimNotAllowed);
    alice.claim(&relay, bob.id());
    // What the log says is what the vault knows, also one that was restored from before.
    bob.read_own_log(&relay);
    assert_eq!(bob.engine().consent().expect("known").consent, Consent::Account);
}

#[test]
fn an_agent_of_the_own_account_adds_without_asking_and_so_does_a_contact() {
    let relay = Relay::new();
    let (mut bob, mut alice, mut carol) = (agent_of(HOME), agent_of(HOME), agent_of(FOREIGN));
    bob.stock_up(&relay);
    consent(&relay, &mut bob, &Consent::Anyone);
    let ours = added(&relay, &mut alice, &mut bob);
    assert_eq!(bob.texts(ours), ["buy now"]);
    bob.engine().set_contact("carol", carol.id()).expect("named");
    let theirs = added(&relay, &mut carol, &mut bob);
    assert_eq!(bob.texts(theirs), ["buy now"]);
    assert_eq!(bob.engine().requests().expect("listed"), []);
}

#[test]
fn a_strangers_addition_waits_and_nothing_of_it_is_shown_until_it_is_accepted() {
    let relay = Relay::new();
    let (mut bob, mut mallory) = (agent_of(HOME), agent_of(FOREIGN));
    bob.crashes = true;
    bob.stock_up(&relay);
    consent(&relay, &mut bob, &Consent::Anyone);
    let channel = added(&relay, &mut mallory, &mut bob);
    assert_eq!(bob.engine().channels().expect("listed"), []);
    let requests = bob.engine().requests().expect("listed");
    assert_eq!(requests.len(), 1);
    let request = requests[0];
    assert_eq!(
        (request.channel, request.by, request.account, request.members),
        (channel, Some(mallory.id()), Some(FOREIGN), Some(2))
    );
    let told = Event::Requested {
        channel,
        offset: request.offset,
        by: Some(mallory.id()),
        account: Some(FOREIGN),
    };
    assert_eq!(bob.take_events(), [told]);
    mallory.send(channel, "buy more");
    settle(&relay, channel, &mut [&mut mallory, &mut bob]);
    assert_eq!(bob.take_events(), [], "it is reported once");

    bob.engine().accept_request(channel).expect("accepted");
    assert_eq!(bob.engine().requests().expect("listed"), []);
    assert!(bob.engine().accept_request(channel).is_err(), "nothing waits");
    settle(&relay, channel, &mut [&mut mallory, &mut bob]);
    assert_eq!(bob.texts(channel), ["buy now", "buy more"]);
    assert_eq!(bob.engine().channel(channel).expect("known").unacked, 2);
    assert!(
        bob.take_events()
            .iter()
            .any(|event| matches!(event, Event::Joined { .. }))
    );
    bob.send(channel, "no");
    settle(&relay, channel, &mut [&mut mallory, &mut bob]);
    assert_eq!(mallory.texts(channel), ["buy now", "buy more", "no"]);
}

#[test]
fn who_declines_leaves_the_group_and_keeps_nothing_of_it() {
    let relay = Relay::new();
    let (mut bob, mut mallory) = (agent_of(HOME), agent_of(FOREIGN));
    bob.crashes = true;
    bob.stock_up(&relay);
    consent(&relay, &mut bob, &Consent::Anyone);
    let channel = added(&relay, &mut mallory, &mut bob);
    bob.take_events();
    bob.engine().decline_request(channel).expect("declined");
    // It is in the group for as long as the others need to let it go.
    bob.read_own_log(&relay);
    assert!(bob.engine().declined().expect("listed").contains(&channel));
    assert_eq!(
        bob.engine().channel(channel).expect("followed").state,
        ChannelState::Leaving
    );
    assert!(bob.engine().send(channel, b"hello").is_err(), "nothing is said there");
    mallory.send(channel, "stay");
    settle(&relay, channel, &mut [&mut mallory, &mut bob]);
    assert_eq!(mallory.engine().members(channel).expect("listed"), [mallory.id()]);
    assert_eq!(
        bob.engine().channel(channel).expect("followed").state,
        ChannelState::Left
    );
    assert_eq!(bob.history(channel), []);
    assert_eq!(bob.engine().channel(channel).expect("followed").unacked, 0);
    let shown = |event: &Event| matches!(event, Event::Message { .. } | Event::Requested { .. });
    assert!(!bob.take_events().iter().any(shown));
    assert!(bob.engine().forget_declined().expect("forgotten"));
    assert_eq!(bob.engine().channels().expect("listed"), []);
    assert_eq!(bob.engine().requests().expect("listed"), []);

    // Added once more, it is asked once more.
    let package = mallory.claim(&relay, bob.id());
    mallory.engine().add(channel, vec![package]).expect("queued");
    settle(&relay, channel, &mut [&mut mallory, &mut bob]);
    assert_eq!(bob.engine().requests().expect("listed").len(), 1);
    assert_eq!(bob.engine().channels().expect("listed"), []);
}

#[test]
fn an_owner_that_trusts_nobody_is_asked_by_its_own_account_too() {
    let relay = Relay::new();
    let (mut bob, mut alice) = (agent_of(HOME), agent_of(HOME));
    bob.stock_up(&relay);
    bob.engine().set_trust(&Trust::nobody()).expect("kept");
    let channel = added(&relay, &mut alice, &mut bob);
    assert_eq!(bob.engine().requests().expect("listed")[0].account, Some(HOME));
    let mut alice_alone = Trust::nobody();
    alice_alone.agents.push(alice.id());
    bob.engine().set_trust(&alice_alone).expect("kept");
    let other = added(&relay, &mut alice, &mut bob);
    assert_eq!(bob.texts(other), ["buy now"]);
    assert_eq!(
        bob.engine().requests().expect("listed")[0].channel,
        channel,
        "what waits goes on waiting"
    );
}

/// Broken Welcomes of an agent that may claim do not make an agent follow channels.
#[test]
fn a_strangers_welcome_that_cannot_be_used_leads_into_no_channel() {
    let relay = Relay::new();
    let (mut bob, mut mallory) = (agent_of(HOME), agent_of(FOREIGN));
    bob.stock_up(&relay);
    consent(&relay, &mut bob, &Consent::Anyone);
    mallory.claim(&relay, bob.id());
    let channel = ChannelId::generate();
    let frame = |log: LogId, parent: u64, detail| {
        let header = Header {
            log,
            id: FrameId::generate(),
            author: mallory.id(),
            parent: Offset::new(parent),
            detail,
        };
        Frame::new(header, Bytes::from_static(b"junk")).expect("a frame")
    };
    let create = Detail::Create {
        mode: ChannelMode::Mls,
        account: None,
        policy: None,
    };
    relay.append(frame(channel.log(), 0, create)).expect("created");
    let adds = vec![bob.id()];
    let bundle = Detail::Commit {
        recipients: adds.clone(),
        adds,
        removes: Vec::new(),
        roster: None,
        policy: None,
    };
    relay.append(frame(channel.log(), 1, bundle)).expect("an entry");
    bob.read_own_log(&relay);
    assert_eq!(bob.engine().pending_joins().expect("listed"), []);
    assert_eq!(bob.engine().channels().expect("listed"), []);
    assert_eq!(bob.engine().requests().expect("listed"), []);
}

#[test]
fn additions_without_end_fill_no_vault() {
    let relay = Relay::new();
    let mut bob = agent_of(HOME);
    bob.stock_up(&relay);
    consent(&relay, &mut bob, &Consent::Anyone);
    // Each account has its part, and all of them together a whole.
    for number in 0..5 {
        let account = AccountId::from_bytes([0xf0 + number; 16]);
        let mut mallory = agent_of(account);
        for _ in 0..66 {
            let channel = channel_of(&relay, &mut [&mut mallory]);
            let package = mallory.claim(&relay, bob.id());
            mallory.engine().add(channel, vec![package]).expect("queued");
            settle(&relay, channel, &mut [&mut mallory]);
        }
        bob.read_own_log(&relay);
        let requests = bob.engine().requests().expect("listed");
        assert_eq!(requests.len(), 64 * usize::from(number + 1).min(4));
    }
    assert_eq!(bob.engine().pending_joins().expect("listed"), []);
    assert_eq!(bob.engine().channels().expect("listed"), []);
}

#[test]
fn one_channel_waits_once_however_often_it_adds() {
    let relay = Relay::new();
    let (mut bob, mut mallory) = (agent_of(HOME), agent_of(FOREIGN));
    bob.stock_up(&relay);
    consent(&relay, &mut bob, &Consent::Anyone);
    let channel = added(&relay, &mut mallory, &mut bob);
    for _ in 0..8 {
        add_again(&relay, channel, &mut mallory, bob.id());
    }
    bob.read_own_log(&relay);
    while !bob.engine().pending_joins().expect("listed").is_empty() {
        bob.read_own_log(&relay);
    }
    let requests = bob.engine().requests().expect("listed");
    assert_eq!(requests.len(), 1);
    // It comes in by the Welcomes that were kept: the oldest, and the newest ones.
    bob.engine().accept_request(channel).expect("accepted");
    mallory.send(channel, "at last");
    settle(&relay, channel, &mut [&mut mallory, &mut bob]);
    assert_eq!(bob.texts(channel).last().map(String::as_str), Some("at last"));
}

/// The agent that added this one does not commit its leave.
#[test]
fn a_declined_channel_that_does_not_let_go_is_forgotten_after_a_day() {
    const DAY_MS: u64 = 24 * 3_600 * 1_000;
    let relay = Relay::new();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock");
    let hands = Arc::new(AtomicU64::new(u64::try_from(now.as_millis()).expect("fits")));
    let clock = hands.clone();
    let mut bob = Agent::with(changed(|config| {
        config.clock = Clock::new(move || clock.load(Ordering::Relaxed));
    }));
    bob.engine().set_account(HOME).expect("kept");
    let mut mallory = agent_of(FOREIGN);
    bob.stock_up(&relay);
    consent(&relay, &mut bob, &Consent::Anyone);
    let channel = added(&relay, &mut mallory, &mut bob);
    bob.engine().decline_request(channel).expect("declined");
    settle(&relay, channel, &mut [&mut bob]);
    let state = |bob: &mut Agent| bob.engine().channel(channel).map(|channel| channel.state).ok();
    assert_eq!(bob.engine().give_up_declined().expect("looked"), []);
    hands.fetch_add(DAY_MS - 1, Ordering::Relaxed);
    assert_eq!(bob.engine().give_up_declined().expect("looked"), []);
    assert_eq!(state(&mut bob), Some(ChannelState::Leaving));
    hands.fetch_add(1, Ordering::Relaxed);
    assert_eq!(bob.engine().give_up_declined().expect("looked"), [channel]);
    assert_eq!(bob.engine().give_up_declined().expect("looked"), []);
    assert_eq!(state(&mut bob), Some(ChannelState::Left));
    assert!(bob.engine().forget_declined().expect("forgotten"));
    assert_eq!(state(&mut bob), None);
    // What goes on there is nothing to it; added once more, it is asked once more.
    mallory.send(channel, "still there?");
    settle(&relay, channel, &mut [&mut mallory]);
    add_again(&relay, channel, &mut mallory, bob.id());
    bob.read_own_log(&relay);
    assert_eq!(bob.engine().requests().expect("listed").len(), 1);
}

/// The log no longer has the bundle, so its author is unknown: an agent that allowed strangers must accept it.
#[test]
fn an_addition_that_was_trimmed_waits_where_strangers_may_claim() {
    for is_open in [false, true] {
        let relay = Relay::new();
        let (mut bob, mut alice) = (agent_of(HOME), agent_of(HOME));
        bob.stock_up(&relay);
        if is_open {
            consent(&relay, &mut bob, &Consent::Anyone);
        }
        let channel = channel_of(&relay, &mut [&mut alice]);
        let package = alice.claim(&relay, bob.id());
        alice.engine().add(channel, vec![package]).expect("queued");
        settle(&relay, channel, &mut [&mut alice]);
        relay.trim(channel.log(), relay.head(channel.log()));
        bob.read_own_log(&relay);
        let requests = bob.engine().requests().expect("listed");
        let channels = bob.engine().channels().expect("listed");
        assert_eq!((requests.len(), channels.len()), if is_open { (1, 0) } else { (0, 1) });
        if is_open {
            assert_eq!(requests[0].by, None);
            bob.engine().accept_request(channel).expect("accepted");
        }
        // It has asked to be added again, and is.
        settle(&relay, channel, &mut [&mut bob, &mut alice]);
        alice.send(channel, "here you are");
        settle(&relay, channel, &mut [&mut bob, &mut alice]);
        assert_eq!(bob.texts(channel), ["here you are"]);
    }
}

#[test]
fn a_list_that_is_too_long_is_refused_before_anything_is_kept() {
    let mut bob = agent_of(HOME);
    let agents = (0..300u32).map(|number| {
        let mut bytes = [1; 32];
        bytes[..4].copy_from_slice(&number.to_be_bytes());
        AgentId::from_bytes(bytes)
    });
    let long = Consent::Listed {
        accounts: Vec::new(),
        agents: agents.collect(),
    };
    assert!(bob.engine().set_consent(&long).is_err());
    assert_eq!(bob.engine().consent().expect("known").consent, Consent::Account);
}
