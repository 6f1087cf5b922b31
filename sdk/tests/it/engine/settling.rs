//! A relay node's data was put back to an earlier time, and its operator says so: agents settle on the log that is there.

use super::relay::{Agent, Relay, assert_agree, channel_of, settle};
use skytale_proto::{ChannelId, Offset};
use skytale_sdk::engine::{ChannelState, Event, Problem, Standing};

fn three(relay: &Relay) -> ([Agent; 3], ChannelId) {
    let [mut alice, mut bob, mut dave] = [Agent::new(), Agent::new(), Agent::new()];
    let channel = channel_of(relay, &mut [&mut alice, &mut bob, &mut dave]);
    ([alice, bob, dave], channel)
}

fn is_diverged(agent: &mut Agent, channel: ChannelId) -> bool {
    let problems = agent.engine().problems(Some(channel)).expect("listed");
    problems.iter().any(Problem::is_divergence)
}

fn shown(agent: &mut Agent, channel: ChannelId) -> Vec<String> {
    let inbox = agent.engine().inbox(channel, Offset::ZERO, 1_000).expect("read");
    let texts = inbox
        .iter()
        .map(|message| String::from_utf8(message.payload.to_vec()).expect("text"));
    texts.collect()
}

#[test]
fn those_who_were_ahead_settle_with_one_who_was_not() {
    let relay = Relay::new();
    let ([mut alice, mut bob, mut dave], channel) = three(&relay);
    alice.send(channel, "m1");
    settle(&relay, channel, &mut [&mut alice, &mut bob, &mut dave]);
    let moment = relay.moment();
    alice.send(channel, "m2");
    alice.send(channel, "m3");
    settle(&relay, channel, &mut [&mut alice, &mut bob]);
    assert_eq!(bob.texts(channel), ["m1", "m2", "m3"]);
    bob.engine().ack(channel, Offset::MAX).expect("acknowledged");
    let ahead = bob.engine().cursor(channel).expect("known");

    relay.go_back(moment);
    for text in ["d1", "d2", "d3", "d4"] {
        dave.send(channel, text);
        settle(&relay, channel, &mut [&mut dave]);
    }
    settle(&relay, channel, &mut [&mut bob]);
    assert!(is_diverged(&mut bob, channel));
    assert_eq!(bob.texts(channel), ["m1", "m2", "m3", "d3", "d4"]);
    bob.engine().ack(channel, Offset::MAX).expect("acknowledged");
    bob.take_events();

    relay.accept_rollback();
    settle(&relay, channel, &mut [&mut bob]);
    let kept = Offset::new(ahead.get() - 2);
    let told = Event::Settled {
        channel,
        kept,
        cursor: Offset::new(ahead.get() + 2),
    };
    assert!(bob.take_events().contains(&told));
    assert!(!is_diverged(&mut bob, channel));
    assert_eq!(bob.texts(channel), ["m1", "d1", "d2", "d3", "d4"]);
    assert_eq!(shown(&mut bob, channel), ["d1", "d2"], "the others were shown before");
    let gone: Vec<_> = bob.engine().replaced(channel, 10).expect("listed");
    assert_eq!(gone.len(), 2, "what is gone is kept apart");

    // Their author comes back: it sends again what is gone, and nobody is shown it twice.
    settle(&relay, channel, &mut [&mut alice, &mut bob, &mut dave]);
    let all = ["m1", "d1", "d2", "d3", "d4", "m2", "m3"];
    for agent in [&mut alice, &mut bob, &mut dave] {
        assert_eq!(agent.texts(channel), all);
        assert!(!is_diverged(agent, channel));
        assert_eq!(
            agent
                .engine()
                .unreadable(Some(channel), Offset::ZERO, 10)
                .expect("listed"),
            []
        );
        assert_eq!(agent.engine().lost(Some(channel)).expect("listed"), []);
        assert_eq!(agent.engine().replaced(channel, 10).expect("listed"), []);
    }
    assert_eq!(shown(&mut bob, channel), ["d1", "d2"]);
    alice.send(channel, "m4");
    dave.send(channel, "d5");
    settle(&relay, channel, &mut [&mut alice, &mut bob, &mut dave]);
    alice.send(channel, "m5");
    settle(&relay, channel, &mut [&mut alice, &mut bob, &mut dave]);
    assert_agree(channel, &mut [&mut alice, &mut bob, &mut dave]);
    for agent in [&mut alice, &mut bob, &mut dave] {
        assert!(!is_diverged(agent, channel));
    }
}

#[test]
fn nobody_wrote_before_the_agents_that_were_ahead_came_back() {
    let relay = Relay::new();
    let ([mut alice, mut bob, mut dave], channel) = three(&relay);
    let moment = relay.moment();
    alice.send(channel, "m1");
    settle(&relay, channel, &mut [&mut alice, &mut bob]);
    relay.go_back(moment);
    settle(&relay, channel, &mut [&mut bob]);
    assert!(is_diverged(&mut bob, channel));
    bob.send(channel, "b1");
    relay.accept_rollback();
    settle(&relay, channel, &mut [&mut alice, &mut bob, &mut dave]);
    settle(&relay, channel, &mut [&mut alice, &mut bob, &mut dave]);
    for agent in [&mut alice, &mut bob, &mut dave] {
        let mut texts = agent.texts(channel);
        texts.sort_unstable();
        assert_eq!(texts, ["b1", "m1"]);
        assert!(!is_diverged(agent, channel));
        assert_eq!(agent.engine().channel(channel).expect("known").outbox, 0);
    }
    assert_agree(channel, &mut [&mut alice, &mut bob, &mut dave]);
}

#[test]
fn nothing_is_settled_without_the_operators_word_nor_beyond_it() {
    let relay = Relay::new();
    let ([mut alice, mut bob, mut dave], channel) = three(&relay);
    let moment = relay.moment();
    alice.send(channel, "m1");
    settle(&relay, channel, &mut [&mut alice, &mut bob]);
    relay.go_back(moment);
    relay.accept_rollback();
    settle(&relay, channel, &mut [&mut alice, &mut bob, &mut dave]);
    assert_agree(channel, &mut [&mut alice, &mut bob, &mut dave]);

    // The node goes back once more, and has only the word of before: it is about earlier entries.
    let moment = relay.moment();
    alice.send(channel, "m2");
    settle(&relay, channel, &mut [&mut alice, &mut bob]);
    relay.go_back(moment);
    dave.send(channel, "d1");
    dave.send(channel, "d2");
    settle(&relay, channel, &mut [&mut dave]);
    for agent in [&mut bob, &mut alice] {
        settle(&relay, channel, &mut [agent]);
        assert!(is_diverged(agent, channel), "the word was about another rollback");
    }
    relay.accept_rollback();
    settle(&relay, channel, &mut [&mut alice, &mut bob, &mut dave]);
    alice.send(channel, "the end");
    settle(&relay, channel, &mut [&mut alice, &mut bob, &mut dave]);
    assert_agree(channel, &mut [&mut alice, &mut bob, &mut dave]);
    for agent in [&mut alice, &mut bob, &mut dave] {
        assert!(!is_diverged(agent, channel));
    }
}

#[test]
fn a_removal_that_was_undone_is_made_again_and_an_addition_too() {
    let relay = Relay::new();
    let ([mut alice, mut bob, mut mallory], channel) = three(&relay);
    let mut dave = Agent::new();
    dave.stock_up(&relay);
    let package = alice.claim(&relay, dave.id());
    alice.engine().add(channel, vec![package]).expect("queued");
    settle(&relay, channel, &mut [&mut alice, &mut bob, &mut mallory, &mut dave]);
    let moment = relay.moment();
    let mut carol = Agent::new();
    carol.stock_up(&relay);
    alice.engine().remove(channel, &[mallory.id()]).expect("queued");
    settle(&relay, channel, &mut [&mut alice, &mut bob]);
    let package = alice.claim(&relay, carol.id());
    alice.engine().add(channel, vec![package]).expect("queued");
    settle(&relay, channel, &mut [&mut alice, &mut bob, &mut carol]);
    alice.send(channel, "between us");
    settle(&relay, channel, &mut [&mut alice, &mut bob, &mut carol]);
    for agent in [&mut alice, &mut bob, &mut carol] {
        agent.engine().ack(channel, Offset::MAX).expect("acknowledged");
    }

    relay.go_back(moment);
    relay.accept_rollback();
    // Dave has seen nothing of it, and is in the group with Mallory.
    dave.send(channel, "hello");
    settle(&relay, channel, &mut [&mut dave, &mut mallory]);
    for _ in 0..4 {
        settle(&relay, channel, &mut [&mut alice, &mut bob, &mut dave, &mut carol]);
        carol.stock_up(&relay);
        for agent in [&mut alice, &mut bob] {
            add_deferred(&relay, agent);
        }
    }
    settle(
        &relay,
        channel,
        &mut [&mut alice, &mut bob, &mut dave, &mut carol, &mut mallory],
    );
    assert_eq!(
        mallory.engine().channel(channel).expect("known").state,
        ChannelState::Left
    );
    let members = alice.engine().members(channel).expect("listed");
    assert!(
        !members.contains(&mallory.id()) && members.contains(&carol.id()),
        "{members:?}"
    );
    for agent in [&mut alice, &mut bob, &mut dave, &mut carol] {
        let info = agent.engine().channel(channel).expect("known");
        assert_eq!(
            (info.state, info.standing, info.outbox),
            (ChannelState::Active, Standing::Current, 0)
        );
    }
    assert_eq!(dave.texts(channel), ["hello", "between us"], "it was sent again");
    alice.send(channel, "once more");
    settle(&relay, channel, &mut [&mut alice, &mut bob, &mut dave, &mut carol]);
    assert_eq!(carol.texts(channel).last().map(String::as_str), Some("once more"));
    assert_agree(channel, &mut [&mut alice, &mut bob, &mut dave, &mut carol]);
}

/// Adds those who were to be added later and have KeyPackages.
fn add_deferred(relay: &Relay, agent: &mut Agent) {
    for deferred in agent.engine().deferred_to_try().expect("listed") {
        if relay.key_packages(deferred.agent).0 > 0 {
            let package = agent.claim(relay, deferred.agent);
            agent.engine().add(deferred.channel, vec![package]).expect("queued");
        }
    }
}

#[test]
fn all_were_ahead_by_a_commit_and_begin_the_group_again_without_who_was_removed() {
    let relay = Relay::new();
    let ([mut alice, mut bob, mut mallory], channel) = three(&relay);
    let moment = relay.moment();
    alice.engine().remove(channel, &[mallory.id()]).expect("queued");
    settle(&relay, channel, &mut [&mut alice, &mut bob]);
    alice.send(channel, "between us");
    settle(&relay, channel, &mut [&mut alice, &mut bob]);
    relay.go_back(moment);
    relay.accept_rollback();
    settle(&relay, channel, &mut [&mut alice, &mut bob]);
    for agent in [&mut alice, &mut bob] {
        assert_eq!(
            agent.engine().channel(channel).expect("known").standing,
            Standing::OutOfSync
        );
        assert!(agent.engine().is_reboot_due(channel).expect("known"));
    }
    alice.engine().reboot(channel, Vec::new()).expect("queued");
    settle(&relay, channel, &mut [&mut alice, &mut bob, &mut mallory]);
    assert_eq!(
        mallory.engine().channel(channel).expect("known").state,
        ChannelState::Left
    );
    bob.send(channel, "and again");
    settle(&relay, channel, &mut [&mut alice, &mut bob]);
    assert_eq!(bob.texts(channel), ["between us", "and again"]);
    assert_eq!(mallory.texts(channel), Vec::<String>::new());
    assert_agree(channel, &mut [&mut alice, &mut bob]);
}

#[test]
fn a_commit_that_the_log_has_now_is_not_one_that_was_undone() {
    let relay = Relay::new();
    let ([mut alice, mut bob, mut dave], channel) = three(&relay);
    let moment = relay.moment();
    alice.send(channel, "m1");
    settle(&relay, channel, &mut [&mut alice, &mut bob]);
    relay.go_back(moment);
    // The log goes on, and the others with it, though they have noticed.
    dave.send(channel, "d1");
    dave.send(channel, "d2");
    settle(&relay, channel, &mut [&mut dave]);
    settle(&relay, channel, &mut [&mut alice, &mut bob]);
    dave.engine().update_keys(channel).expect("queued");
    settle(&relay, channel, &mut [&mut dave, &mut alice, &mut bob]);
    dave.send(channel, "d3");
    settle(&relay, channel, &mut [&mut dave, &mut alice, &mut bob]);
    assert!(is_diverged(&mut bob, channel) && is_diverged(&mut alice, channel));

    relay.accept_rollback();
    settle(&relay, channel, &mut [&mut alice, &mut bob]);
    for agent in [&mut alice, &mut bob] {
        assert_eq!(
            agent.engine().channel(channel).expect("known").standing,
            Standing::Current
        );
        // Its key is gone with its epoch: this one message stood where they had read another.
        let lost = agent.engine().lost(Some(channel)).expect("listed");
        assert_eq!(lost.len(), 1);
    }
    settle(&relay, channel, &mut [&mut alice, &mut bob, &mut dave]);
    assert_eq!(dave.texts(channel), ["d1", "d2", "d3", "m1"]);
    assert_eq!(bob.texts(channel), ["d2", "d3", "m1"]);
    assert_agree(channel, &mut [&mut alice, &mut bob, &mut dave]);
}

#[test]
fn it_waits_until_the_application_has_acknowledged_what_it_was_shown() {
    let relay = Relay::new();
    let ([mut alice, mut bob, _dave], channel) = three(&relay);
    let moment = relay.moment();
    alice.send(channel, "m1");
    settle(&relay, channel, &mut [&mut alice, &mut bob]);
    relay.go_back(moment);
    let head = relay.head(channel.log());
    bob.engine().log_is_short(channel, head).expect("noted");
    relay.accept_rollback();
    let word = relay.word(channel.log()).expect("said");
    let mut fork = bob.engine().fork(channel).expect("known");
    fork.feed(&relay.entries(channel.log(), fork.after()));
    assert_eq!(fork.kept(), head);
    let engine = bob.engine();
    assert_eq!(engine.accept_rollback(channel, word, &fork, head).expect("asked"), None);
    engine.ack(channel, Offset::MAX).expect("acknowledged");
    assert!(
        engine
            .accept_rollback(channel, word, &fork, head)
            .expect("settled")
            .is_some()
    );
    assert_eq!(engine.cursor(channel).expect("known"), head);
    // What a purge takes is taken here, too.
    assert_eq!(engine.replaced(channel, 10).expect("listed").len(), 1);
    let _ = engine.purge(channel, Offset::MAX, 100).expect("purged");
    assert_eq!(engine.replaced(channel, 10).expect("listed"), []);
}
