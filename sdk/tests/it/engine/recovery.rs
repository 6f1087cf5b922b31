//! Recovery: a vault that is an older copy, a trimmed log, a group that this agent cannot follow.

use super::relay::{Agent, Relay, assert_agree, channel_of, settle};
use skytale_proto::{ChannelId, Code, Offset};
use skytale_sdk::{ChannelState, Event, LostReason, Standing};

fn standing(agent: &mut Agent, channel: ChannelId) -> Standing {
    agent.engine().channel(channel).expect("known").standing
}

fn has(events: &[Event], wanted: impl Fn(&Event) -> bool) -> bool {
    events.iter().any(wanted)
}

/// Everybody can say something that everybody reads.
fn assert_talks(relay: &Relay, channel: ChannelId, agents: &mut [&mut Agent]) {
    let mut said = Vec::new();
    for (number, agent) in agents.iter_mut().enumerate() {
        let text = format!("still here {number}");
        agent.send(channel, &text);
        said.push(text);
    }
    settle(relay, channel, agents);
    for agent in agents.iter_mut() {
        let texts = agent.texts(channel);
        let mut last = texts[texts.len() - said.len()..].to_vec();
        last.sort_unstable();
        assert_eq!(last, said);
    }
    assert_agree(channel, agents);
}

// ---- a vault that is an older copy

#[test]
fn a_vault_that_was_put_back_takes_new_keys_before_it_sends() {
    let relay = Relay::new();
    let (mut a, mut b, mut c) = (Agent::new(), Agent::new(), Agent::new());
    let channel = channel_of(&relay, &mut [&mut a, &mut b, &mut c]);
    a.send(channel, "zero");
    settle(&relay, channel, &mut [&mut a, &mut b, &mut c]);
    let copy = a.vault_files();
    for text in ["one", "two", "three"] {
        a.send(channel, text);
    }
    settle(&relay, channel, &mut [&mut a, &mut b]);
    a.roll_back(&copy);
    assert_eq!(
        standing(&mut a, channel),
        Standing::Current,
        "nothing about the files tells"
    );
    // Offline, it encrypts under keys that were used; none of that goes out.
    for text in ["four", "five", "six", "seven", "eight"] {
        a.send(channel, text);
    }
    a.take_events();
    settle(&relay, channel, &mut [&mut a, &mut b, &mut c]);
    let events = a.take_events();
    assert!(
        has(&events, |event| matches!(event, Event::Renewing { .. })),
        "{events:?}"
    );
    assert!(
        has(&events, |event| matches!(event, Event::Renewed { .. })),
        "{events:?}"
    );
    let all = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight"];
    for reader in [&mut b, &mut c] {
        assert_eq!(reader.texts(channel), all);
        assert_eq!(
            reader
                .engine()
                .unreadable(Some(channel), Offset::ZERO, 10)
                .expect("listed"),
            []
        );
    }
    // What the other copy sent is reported as lost to this one: nobody can decrypt what it sent itself.
    let lost = a.engine().lost(Some(channel)).expect("listed");
    assert_eq!(lost.len(), 1);
    assert_eq!(lost[0].reason, LostReason::OtherCopy);
    assert_eq!(lost[0].last.get() - lost[0].first.get(), 2);
    assert_eq!(standing(&mut a, channel), Standing::Current);
    assert_talks(&relay, channel, &mut [&mut a, &mut b, &mut c]);
}

#[test]
fn a_restored_vault_takes_new_keys_though_the_other_copy_sent_nothing() {
    let relay = Relay::new();
    let (mut a, mut b) = (Agent::new(), Agent::new());
    let channel = channel_of(&relay, &mut [&mut a, &mut b]);
    let copy = a.vault_files();
    a.put_back(&copy);
    assert_eq!(standing(&mut a, channel), Standing::Renewing);
    let epoch = b.engine().epoch(channel).expect("known");
    a.send(channel, "under new keys");
    settle(&relay, channel, &mut [&mut a, &mut b]);
    assert_eq!(b.engine().epoch(channel).expect("known"), epoch + 1);
    assert!(has(&b.take_events(), |event| matches!(
        event,
        Event::MemberRejoined { .. }
    )));
    assert_eq!(b.texts(channel), ["under new keys"]);
    // Once is enough.
    a.crash();
    assert_eq!(standing(&mut a, channel), Standing::Current);
    assert_talks(&relay, channel, &mut [&mut a, &mut b]);
}

#[test]
fn what_was_queued_before_a_copy_and_sent_by_the_other_is_not_sent_twice() {
    let relay = Relay::new();
    let (mut a, mut b) = (Agent::new(), Agent::new());
    let channel = channel_of(&relay, &mut [&mut a, &mut b]);
    let id = a.send(channel, "once");
    let copy = a.vault_files();
    b.engine().update_keys(channel).expect("queued");
    settle(&relay, channel, &mut [&mut b]);
    settle(&relay, channel, &mut [&mut a, &mut b]);
    a.roll_back(&copy);
    a.take_events();
    a.send(channel, "twice");
    settle(&relay, channel, &mut [&mut a, &mut b]);
    let events = a.take_events();
    assert!(has(
        &events,
        |event| matches!(event, Event::Delivered { frame_id, .. } if *frame_id == id)
    ));
    assert_eq!(a.texts(channel), ["once", "twice"]);
    assert_eq!(b.texts(channel), ["once", "twice"]);
}

#[test]
fn a_vault_put_back_behind_its_own_commit_is_added_again() {
    let relay = Relay::new();
    let (mut a, mut b) = (Agent::new(), Agent::new());
    let channel = channel_of(&relay, &mut [&mut a, &mut b]);
    let copy = a.vault_files();
    a.engine().update_keys(channel).expect("queued");
    a.send(channel, "in another epoch");
    settle(&relay, channel, &mut [&mut a, &mut b]);
    b.send(channel, "read by one");
    settle(&relay, channel, &mut [&mut a, &mut b]);
    a.roll_back(&copy);
    a.send(channel, "from the older copy");
    a.take_events();
    settle(&relay, channel, &mut [&mut a, &mut b]);
    let events = a.take_events();
    assert!(
        has(&events, |event| matches!(event, Event::OutOfSync { .. })),
        "{events:?}"
    );
    assert!(
        has(&events, |event| matches!(event, Event::Rejoined { missed: 2, .. })),
        "{events:?}"
    );
    assert_eq!(
        b.texts(channel),
        ["in another epoch", "read by one", "from the older copy"]
    );
    assert_talks(&relay, channel, &mut [&mut a, &mut b]);
}

#[test]
fn what_the_other_copy_sent_after_a_commit_of_its_own_is_told_as_lost() {
    let relay = Relay::new();
    let (mut a, mut b) = (Agent::new(), Agent::new());
    let channel = channel_of(&relay, &mut [&mut a, &mut b]);
    let copy = a.vault_files();
    a.engine().update_keys(channel).expect("queued");
    a.send(channel, "by the copy");
    settle(&relay, channel, &mut [&mut a, &mut b]);
    let sent = relay.head(channel.log());
    a.roll_back(&copy);
    a.take_events();
    settle(&relay, channel, &mut [&mut a, &mut b]);
    let events = a.take_events();
    assert!(
        has(&events, |event| matches!(event, Event::Rejoined { missed: 1, .. })),
        "{events:?}"
    );
    let lost = a.engine().lost(Some(channel)).expect("listed");
    let told = |lost: &skytale_sdk::Lost| lost.first <= sent && sent <= lost.last;
    assert!(lost.iter().any(told), "{sent}: {lost:?}");
    assert_eq!(b.texts(channel), ["by the copy"]);
    assert_talks(&relay, channel, &mut [&mut a, &mut b]);
}

#[test]
fn of_two_live_copies_that_nothing_tells_apart_one_is_stopped() {
    let relay = Relay::new();
    let (mut a, mut b) = (Agent::new(), Agent::new());
    let channel = channel_of(&relay, &mut [&mut a, &mut b]);
    let copy = a.vault_files();
    let mut second = a.second(&copy);
    second.roll_back_to(&copy);
    a.send(channel, "from the first");
    settle(&relay, channel, &mut [&mut a, &mut b]);
    for round in 0..3 {
        second.send(channel, &format!("second {round}"));
        settle(&relay, channel, &mut [&mut second, &mut b]);
        a.crash();
        settle(&relay, channel, &mut [&mut a, &mut b]);
    }
    assert_eq!(standing(&mut a, channel), Standing::Superseded);
    assert_eq!(standing(&mut second, channel), Standing::Current);
    assert_eq!(b.texts(channel), ["from the first", "second 0", "second 1", "second 2"]);
}

#[test]
fn of_two_live_copies_one_is_stopped_for_good() {
    let relay = Relay::new();
    let (mut a, mut b) = (Agent::new(), Agent::new());
    let channel = channel_of(&relay, &mut [&mut a, &mut b]);
    let copy = a.vault_files();
    let mut second = a.second(&copy);
    a.send(channel, "from the first");
    settle(&relay, channel, &mut [&mut a, &mut b]);
    second.send(channel, "from the second");
    settle(&relay, channel, &mut [&mut second, &mut b]);
    let held = a.send(channel, "sent later");
    for _ in 0..5 {
        settle(&relay, channel, &mut [&mut a, &mut b]);
        a.crash();
        settle(&relay, channel, &mut [&mut second, &mut b]);
    }
    assert_eq!(standing(&mut a, channel), Standing::Superseded);
    assert_eq!(standing(&mut second, channel), Standing::Current);
    assert!(has(&a.take_events(), |event| matches!(event, Event::Superseded { .. })));
    assert_eq!(b.texts(channel), ["from the first", "from the second"]);
    assert_talks(&relay, channel, &mut [&mut second, &mut b]);
    // The one that was stopped takes over when it is asked to; then the other is.
    assert_eq!(
        a.engine().send(channel, b"refused").expect_err("stopped").code(),
        Code::Superseded
    );
    assert_eq!(a.engine().failed(channel).expect("listed")[0].code, Code::Superseded);
    settle(&relay, channel, &mut [&mut a]);
    let passed = relay.head(channel.log());
    a.engine().take_over().expect("taken");
    a.engine().retry(channel, held).expect("queued again");
    for _ in 0..5 {
        settle(&relay, channel, &mut [&mut a, &mut b]);
        settle(&relay, channel, &mut [&mut second, &mut b]);
    }
    assert_eq!(standing(&mut a, channel), Standing::Current);
    assert_eq!(standing(&mut second, channel), Standing::Superseded);
    assert!(b.texts(channel).contains(&"sent later".to_owned()));
    let lost = a.engine().lost(Some(channel)).expect("listed");
    assert!(
        lost.iter().any(|lost| lost.first <= passed && passed <= lost.last),
        "what it was shown while it was stopped is told: {passed}: {lost:?}"
    );
    assert_talks(&relay, channel, &mut [&mut a, &mut b]);
}

// ---- a log that has given up entries

#[test]
fn an_agent_overtaken_by_retention_reads_on_behind_the_gap() {
    let relay = Relay::new();
    let (mut a, mut b) = (Agent::new(), Agent::new());
    let channel = channel_of(&relay, &mut [&mut a, &mut b]);
    for number in 0..5 {
        a.send(channel, &format!("gone {number}"));
    }
    settle(&relay, channel, &mut [&mut a]);
    let before = b.engine().cursor(channel).expect("known");
    let head = relay.head(channel.log());
    relay.trim(channel.log(), head);
    a.send(channel, "there");
    settle(&relay, channel, &mut [&mut a, &mut b]);
    assert_eq!(b.texts(channel), ["there"]);
    let lost = b.engine().lost(Some(channel)).expect("listed");
    assert_eq!(lost.len(), 1);
    assert_eq!(
        (lost[0].first, lost[0].last, lost[0].reason),
        (before.next(), head, LostReason::Trimmed)
    );
    assert_eq!(standing(&mut b, channel), Standing::Current);
    assert_talks(&relay, channel, &mut [&mut a, &mut b]);
}

#[test]
fn a_quiet_channel_that_got_only_trims_has_lost_nothing() {
    let relay = Relay::new();
    let (mut a, mut b) = (Agent::new(), Agent::new());
    let channel = channel_of(&relay, &mut [&mut a, &mut b]);
    a.send(channel, "early");
    settle(&relay, channel, &mut [&mut a, &mut b]);
    for _ in 0..4 {
        relay.trim(channel.log(), relay.head(channel.log()));
    }
    let digest = b.engine().digest(channel).expect("known");
    assert!(digest.is_some());
    b.take_events();
    settle(&relay, channel, &mut [&mut a, &mut b]);
    assert_eq!(b.engine().lost(Some(channel)).expect("listed"), []);
    assert_eq!(b.engine().digest(channel).expect("known"), digest);
    assert!(!has(&b.take_events(), |event| matches!(
        event,
        Event::EntriesLost { .. }
    )));
    assert_talks(&relay, channel, &mut [&mut a, &mut b]);
}

#[test]
fn an_agent_that_missed_a_commit_is_added_again() {
    let relay = Relay::new();
    let (mut a, mut b, mut c) = (Agent::new(), Agent::new(), Agent::new());
    let channel = channel_of(&relay, &mut [&mut a, &mut b, &mut c]);
    a.engine().update_keys(channel).expect("queued");
    a.send(channel, "gone");
    settle(&relay, channel, &mut [&mut a, &mut c]);
    relay.trim(channel.log(), relay.head(channel.log()));
    a.send(channel, "not readable");
    settle(&relay, channel, &mut [&mut a, &mut c]);
    b.send(channel, "held");
    b.take_events();
    settle(&relay, channel, &mut [&mut b]);
    assert_eq!(standing(&mut b, channel), Standing::OutOfSync);
    assert_eq!(b.engine().channel(channel).expect("known").state, ChannelState::Active);
    settle(&relay, channel, &mut [&mut a, &mut b, &mut c]);
    let events = b.take_events();
    assert!(
        has(&events, |event| matches!(event, Event::Rejoined { missed: 1, .. })),
        "{events:?}"
    );
    assert_eq!(b.texts(channel), ["held"]);
    assert_eq!(a.texts(channel), ["gone", "not readable", "held"]);
    let lost = b.engine().lost(Some(channel)).expect("listed");
    assert_eq!(
        lost.iter().map(|lost| lost.reason).collect::<Vec<_>>(),
        [LostReason::Trimmed, LostReason::OutOfSync]
    );
    assert_talks(&relay, channel, &mut [&mut a, &mut b, &mut c]);
}

#[test]
fn a_welcome_that_retention_took_from_both_logs_is_made_good() {
    let relay = Relay::new();
    let (mut a, mut b) = (Agent::new(), Agent::new());
    let channel = channel_of(&relay, &mut [&mut a]);
    b.stock_up(&relay);
    let package = a.claim(&relay, b.id());
    a.engine().add(channel, vec![package]).expect("queued");
    a.send(channel, "gone");
    settle(&relay, channel, &mut [&mut a]);
    relay.trim(channel.log(), relay.head(channel.log()));
    relay.trim(b.id().log(), relay.head(b.id().log()));
    assert_eq!(relay.key_packages(b.id()), (0, false));
    a.send(channel, "not readable");
    settle(&relay, channel, &mut [&mut a, &mut b]);
    b.stock_up(&relay);
    assert_eq!(relay.key_packages(b.id()), (4, true), "there is stock again");
    assert_eq!(standing(&mut b, channel), Standing::Current);
    let members = a.engine().members(channel).expect("known");
    assert_eq!(members, b.engine().members(channel).expect("known"));
    assert_talks(&relay, channel, &mut [&mut a, &mut b]);
}

#[test]
fn what_may_be_among_the_entries_that_are_gone_is_not_sent_twice() {
    let relay = Relay::new();
    let (mut a, mut b) = (Agent::new(), Agent::new());
    let channel = channel_of(&relay, &mut [&mut a, &mut b]);
    let sent = b.send(channel, "in doubt");
    // It is in the log; the answer is lost.
    let frames = b.next_frames(channel, 1 << 20).expect("built").frames;
    relay.outcome(frames[0].frame.clone());
    b.engine().connection_lost();
    let queued = b.send(channel, "never offered");
    settle(&relay, channel, &mut [&mut a]);
    relay.trim(channel.log(), relay.head(channel.log()));
    settle(&relay, channel, &mut [&mut a, &mut b]);
    assert_eq!(a.texts(channel), ["in doubt", "never offered"]);
    let failed = b.engine().failed(channel).expect("listed");
    assert_eq!(failed.len(), 1);
    assert_eq!((failed[0].frame_id, failed[0].code), (sent, Code::DeliveryUnknown));
    assert!(has(
        &b.take_events(),
        |event| matches!(event, Event::Delivered { frame_id, .. } if *frame_id == queued)
    ));
}

// ---- a group that begins again

#[test]
fn a_group_that_nobody_can_go_on_with_begins_again() {
    let relay = Relay::new();
    let (mut a, mut b, mut c) = (Agent::new(), Agent::new(), Agent::new());
    let channel = channel_of(&relay, &mut [&mut a, &mut b, &mut c]);
    let copies = [a.vault_files(), b.vault_files(), c.vault_files()];
    a.engine().update_keys(channel).expect("queued");
    settle(&relay, channel, &mut [&mut a, &mut b, &mut c]);
    b.engine().update_keys(channel).expect("queued");
    settle(&relay, channel, &mut [&mut a, &mut b, &mut c]);
    // The one who made the last commit is gone for good with its vault, and the others' are older than it.
    c.engine().update_keys(channel).expect("queued");
    settle(&relay, channel, &mut [&mut c]);
    relay.trim(channel.log(), relay.head(channel.log()));
    a.put_back(&copies[0]);
    b.put_back(&copies[1]);
    c.put_back(&copies[2]);
    settle(&relay, channel, &mut [&mut a, &mut b, &mut c]);
    for agent in [&mut a, &mut b, &mut c] {
        assert_eq!(standing(agent, channel), Standing::OutOfSync);
        assert!(agent.engine().is_reboot_due(channel).expect("known"));
    }
    // Two begin it at once: the first wins, and the other comes over.
    for agent in [&mut a, &mut b] {
        assert_eq!(agent.engine().reboot_wants(channel).expect("known"), []);
        agent.engine().reboot(channel, Vec::new()).expect("queued");
    }
    settle(&relay, channel, &mut [&mut a, &mut b, &mut c]);
    let mut agents = [&mut a, &mut b, &mut c];
    for agent in &mut agents {
        let unreadable = agent
            .engine()
            .unreadable(Some(channel), Offset::ZERO, 10)
            .expect("listed");
        assert_eq!(unreadable, [], "{:?}", agent.events);
        assert_eq!(standing(agent, channel), Standing::Current, "{:?}", agent.events);
        assert_eq!(agent.engine().members(channel).expect("known").len(), 3);
    }
    assert_talks(&relay, channel, &mut agents);
}

#[test]
fn a_group_begins_again_without_a_member_that_was_removed_meanwhile() {
    let relay = Relay::new();
    let (mut a, mut b, mut c) = (Agent::new(), Agent::new(), Agent::new());
    let channel = channel_of(&relay, &mut [&mut a, &mut b, &mut c]);
    let copies = [a.vault_files(), b.vault_files()];
    a.engine().update_keys(channel).expect("queued");
    settle(&relay, channel, &mut [&mut a, &mut b, &mut c]);
    relay.trim(channel.log(), relay.head(channel.log()));
    let gone = c.id();
    b.engine().remove(channel, &[gone]).expect("queued");
    settle(&relay, channel, &mut [&mut a, &mut b, &mut c]);
    assert_eq!(c.engine().channel(channel).expect("known").state, ChannelState::Left);
    // Both copies are older than what the log has; of the removal they see the header alone.
    a.put_back(&copies[0]);
    b.put_back(&copies[1]);
    settle(&relay, channel, &mut [&mut a, &mut b]);
    for agent in [&mut a, &mut b] {
        assert_eq!(standing(agent, channel), Standing::OutOfSync);
        agent.crash();
        settle(&relay, channel, &mut [agent]);
        assert!(agent.engine().is_reboot_due(channel).expect("known"));
        assert_eq!(agent.engine().reboot_wants(channel).expect("known"), []);
    }
    a.engine().reboot(channel, Vec::new()).expect("queued");
    settle(&relay, channel, &mut [&mut a, &mut b]);
    let agents = [a.id(), b.id()].into_iter().collect::<std::collections::BTreeSet<_>>();
    for agent in [&mut a, &mut b] {
        assert_eq!(standing(agent, channel), Standing::Current, "{:?}", agent.events);
        let members = agent.engine().members(channel).expect("known");
        assert_eq!(members.into_iter().collect::<std::collections::BTreeSet<_>>(), agents);
    }
    assert_talks(&relay, channel, &mut [&mut a, &mut b]);
}
