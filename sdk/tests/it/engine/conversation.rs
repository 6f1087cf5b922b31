//! Messages: sent, received, stored, acknowledged.

use super::relay::{Agent, FRAMES_BYTES, Relay, assert_agree, changed, channel_of, settle};
use bytes::Bytes;
use skytale_proto::{Code, Detail, Offset};
use skytale_sdk::internals::engine::{Fate, Outcome};
use skytale_sdk::{ChannelState, Event, PAYLOAD_BYTES_MAX, QueuedKind};

#[test]
fn two_agents_talk() {
    let relay = Relay::new();
    let (mut a, mut b) = (Agent::new(), Agent::new());
    let channel = channel_of(&relay, &mut [&mut a, &mut b]);
    assert_eq!(a.engine().members(channel).expect("known").len(), 2);
    let hello = a.send(channel, "hello");
    settle(&relay, channel, &mut [&mut a, &mut b]);
    b.send(channel, "hello yourself");
    settle(&relay, channel, &mut [&mut a, &mut b]);
    assert_eq!(a.texts(channel), ["hello", "hello yourself"]);
    assert_eq!(a.transcript(channel), b.transcript(channel));
    assert_agree(channel, &mut [&mut a, &mut b]);
    let offset = a.history(channel)[0].offset;
    assert!(a.take_events().contains(&Event::Delivered {
        channel,
        frame_id: hello,
        offset
    }));
    assert!(b.take_events().contains(&Event::Message {
        channel,
        offset,
        author: a.id()
    }));
}

#[test]
fn a_message_comes_whole_up_to_the_limit_and_no_further() {
    let relay = Relay::new();
    let (mut a, mut b) = (Agent::new(), Agent::new());
    let channel = channel_of(&relay, &mut [&mut a, &mut b]);
    let largest = vec![42; PAYLOAD_BYTES_MAX];
    a.engine().send(channel, &largest).expect("queued");
    a.engine().send(channel, &[]).expect("queued");
    let refused = a.engine().send(channel, &vec![0; PAYLOAD_BYTES_MAX + 1]);
    assert_eq!(refused.map_err(|error| error.code()), Err(Code::PayloadTooLarge));
    settle(&relay, channel, &mut [&mut a, &mut b]);
    let received = b.history(channel);
    assert_eq!(received.len(), 2);
    assert_eq!(received[0].payload, largest);
    assert_eq!(received[1].payload, Bytes::new());
}

#[test]
fn what_waits_says_since_when_how_often_it_was_refused_and_why() {
    let relay = Relay::new();
    let (mut a, mut b) = (Agent::new(), Agent::new());
    let channel = channel_of(&relay, &mut [&mut a, &mut b]);
    let first = a.send(channel, "first");
    let second = a.engine().update_keys(channel).expect("queued");
    let waiting = a.engine().outbox(channel).expect("listed");
    let kinds: Vec<_> = waiting.iter().map(|queued| (queued.frame_id, queued.kind)).collect();
    assert_eq!(kinds, [(first, QueuedKind::Message), (second, QueuedKind::UpdateKeys)]);
    assert_eq!((waiting[0].channel, waiting[0].bytes), (channel, 5));
    assert_eq!((waiting[0].attempts, waiting[0].last_refusal), (0, None));
    assert!(waiting[0].since_ms > 1_600_000_000_000);

    for _ in 0..2 {
        let offered = a.next_frames(channel, FRAMES_BYTES).expect("built").frames;
        assert_eq!(offered[0].frame.header().id, first);
        let refused = Outcome::Refused {
            code: Code::RateLimited,
            retryable: true,
        };
        assert_eq!(a.engine().outcome(channel, first, refused).expect("taken"), []);
    }
    // Another's commit comes first.
    b.engine().update_keys(channel).expect("queued");
    b.push(&relay, channel);
    a.push(&relay, channel);
    a.crash();
    let waiting = a.engine().outbox(channel).expect("listed");
    assert_eq!(waiting[0].attempts, 3);
    assert_eq!(
        waiting[0].last_refusal.map(|refusal| refusal.code),
        Some(Code::StaleEpoch)
    );
    assert!(
        waiting[0]
            .last_refusal
            .is_some_and(|refusal| refusal.at_ms >= waiting[0].since_ms)
    );
    assert_eq!(a.engine().fate(channel, first).expect("known"), Some(Fate::Waiting));

    settle(&relay, channel, &mut [&mut a, &mut b]);
    a.crash();
    assert_eq!(a.engine().outbox(channel).expect("listed"), []);
    let offset = a.history(channel)[0].offset;
    assert_eq!(
        a.engine().fate(channel, first).expect("known"),
        Some(Fate::Delivered(offset))
    );
    assert_eq!(
        a.engine().fate(channel, second).expect("known"),
        None,
        "changes leave no trace"
    );
    // Of others' messages and of other channels nothing is known.
    assert_eq!(b.engine().fate(channel, first).expect("known"), None);
    let other = a.engine().create_channel("other").expect("made");
    assert_eq!(a.engine().fate(other, first).expect("known"), None);
    let create = a.engine().outbox(other).expect("listed").swap_remove(0);
    assert_eq!(create.kind, QueuedKind::Create);
    assert_eq!(
        a.engine().fate(other, create.frame_id).expect("known"),
        None,
        "nobody has sent it"
    );

    let hopeless = a.send(channel, "hopeless");
    a.next_frames(channel, FRAMES_BYTES).map(drop).expect("built");
    let refused = Outcome::Refused {
        code: Code::FrameTooLarge,
        retryable: false,
    };
    assert_eq!(a.engine().outcome(channel, hopeless, refused).expect("taken").len(), 1);
    let fate = a.engine().fate(channel, hopeless).expect("known");
    assert_eq!(fate, Some(Fate::Failed(Code::FrameTooLarge)));
    let _ = a.engine().purge(channel, Offset::MAX, 10).expect("purged");
    assert_eq!(a.engine().fate(channel, first).expect("known"), None);
}

#[test]
fn a_purge_takes_messages_and_nothing_else() {
    let relay = Relay::new();
    let (mut a, mut b) = (Agent::new(), Agent::new());
    let channel = channel_of(&relay, &mut [&mut a, &mut b]);
    for n in 0..20 {
        a.send(channel, &format!("a{n}"));
        b.send(channel, &format!("b{n}"));
        settle(&relay, channel, &mut [&mut a, &mut b]);
    }
    b.engine().ack(channel, Offset::MAX).expect("acked");
    let waiting = b.send(channel, "waiting");
    let state = |agent: &mut Agent| {
        let engine = agent.engine();
        (
            engine.channel(channel).expect("known"),
            engine.digest(channel).expect("known"),
            engine.acked(channel).expect("known"),
        )
    };
    let before = state(&mut b);
    assert_eq!(before.0.outbox, 1);
    let purged = b.engine().purge(channel, Offset::MAX, u32::MAX).expect("purged");
    assert_eq!((purged.messages, purged.unacked, purged.more), (40, 0, false));
    while b.engine().compact().expect("compacted") {}
    for _ in 0..2 {
        assert_eq!(b.texts(channel), Vec::<String>::new());
        assert_eq!(state(&mut b), before);
        b.crash();
    }
    // What was replayed is not replayed again, and the talk goes on.
    settle(&relay, channel, &mut [&mut b, &mut a]);
    a.send(channel, "still here?");
    settle(&relay, channel, &mut [&mut b, &mut a]);
    assert_eq!(b.texts(channel), ["waiting", "still here?"]);
    assert_eq!(a.history(channel).len(), 42);
    assert_eq!(a.history(channel)[40].frame_id, waiting);
    assert_agree(channel, &mut [&mut a, &mut b]);
}

#[test]
fn the_inbox_holds_what_was_not_acknowledged_and_the_history_all() {
    let relay = Relay::new();
    let (mut a, mut b) = (Agent::new(), Agent::new());
    let channel = channel_of(&relay, &mut [&mut a, &mut b]);
    for n in 0..5 {
        a.send(channel, &format!("a{n}"));
        b.send(channel, &format!("b{n}"));
        settle(&relay, channel, &mut [&mut a, &mut b]);
    }
    assert_eq!(b.engine().unacked(channel).expect("known"), 5);
    let inbox = b.engine().inbox(channel, Offset::ZERO, 10).expect("readable");
    assert_eq!(inbox.len(), 5);
    assert!(inbox.iter().all(|message| !message.own));
    b.engine().ack(channel, inbox[2].offset).expect("kept");
    b.crash();
    assert_eq!(b.engine().unacked(channel).expect("known"), 2);
    assert_eq!(b.engine().acked(channel).expect("known"), inbox[2].offset);
    let rest = b.engine().inbox(channel, Offset::ZERO, 10).expect("readable");
    assert_eq!(rest, inbox[3..]);
    // An acknowledgement never goes back.
    b.engine().ack(channel, inbox[0].offset).expect("kept");
    assert_eq!(b.engine().unacked(channel).expect("known"), 2);
    b.engine().ack(channel, Offset::MAX).expect("kept");
    assert_eq!(b.engine().unacked(channel).expect("known"), 0);
    assert_eq!(b.history(channel).len(), 10);
    assert_eq!(b.engine().channel(channel).expect("known").unacked, 0);
}

#[test]
fn what_is_sent_while_offline_goes_out_in_order_also_after_a_restart() {
    let relay = Relay::new();
    let (mut a, mut b) = (Agent::new(), Agent::new());
    let channel = channel_of(&relay, &mut [&mut a, &mut b]);
    let texts: Vec<String> = (0..600).map(|n| format!("message {n}")).collect();
    for batch in texts.chunks(50) {
        let payloads: Vec<Bytes> = batch
            .iter()
            .map(|text| Bytes::copy_from_slice(text.as_bytes()))
            .collect();
        a.engine().send_many(channel, &payloads).expect("queued");
        a.crash();
    }
    b.engine().update_keys(channel).expect("queued");
    settle(&relay, channel, &mut [&mut b]);
    settle(&relay, channel, &mut [&mut a, &mut b]);
    assert_eq!(b.texts(channel), texts);
    assert_eq!(a.transcript(channel), b.transcript(channel));
    assert_eq!(a.engine().channel(channel).expect("known").outbox, 0);
}

#[test]
fn a_channel_that_is_not_in_the_log_yet_takes_messages() {
    let relay = Relay::new();
    let (mut a, mut b) = (Agent::new(), Agent::new());
    b.stock_up(&relay);
    let channel = a.engine().create_channel("early").expect("made");
    assert_eq!(
        a.engine().channel(channel).expect("known").state,
        ChannelState::Creating
    );
    a.send(channel, "before the Create");
    let package = a.claim(&relay, b.id());
    a.engine().add(channel, vec![package]).expect("queued");
    a.send(channel, "after the add");
    a.crash();
    settle(&relay, channel, &mut [&mut a, &mut b]);
    assert_eq!(a.engine().channel(channel).expect("known").state, ChannelState::Active);
    assert_eq!(a.texts(channel), ["before the Create", "after the add"]);
    assert_eq!(b.texts(channel), ["after the add"]);
    assert_agree(channel, &mut [&mut a, &mut b]);
}

#[test]
fn a_message_of_a_passed_epoch_is_encrypted_again_under_its_id_and_in_its_order() {
    let relay = Relay::new();
    let (mut a, mut b) = (Agent::new(), Agent::new());
    let channel = channel_of(&relay, &mut [&mut a, &mut b]);
    let ids: Vec<_> = (0..3).map(|n| a.send(channel, &format!("m{n}"))).collect();
    let stale = a.next_frames(channel, FRAMES_BYTES).expect("built").frames;
    assert_eq!(stale.len(), 3);
    b.engine().update_keys(channel).expect("queued");
    settle(&relay, channel, &mut [&mut b]);
    for frame in &stale {
        let outcome = relay.outcome(frame.frame.clone());
        assert!(matches!(outcome, Outcome::StaleEpoch { .. }));
        let events = a
            .engine()
            .outcome(channel, frame.frame.header().id, outcome)
            .expect("taken");
        assert_eq!(events, []);
    }
    // Nothing is offered before the head is reached.
    assert_eq!(a.next_frames(channel, FRAMES_BYTES).expect("asked").frames, []);
    assert!(a.pull(&relay, channel, usize::MAX));
    let again = a.next_frames(channel, FRAMES_BYTES).expect("built").frames;
    let again_ids: Vec<_> = again.iter().map(|frame| frame.frame.header().id).collect();
    assert_eq!(again_ids, ids);
    assert!(
        again
            .iter()
            .zip(&stale)
            .all(|(new, old)| new.frame.body() != old.frame.body())
    );
    a.engine().connection_lost();
    settle(&relay, channel, &mut [&mut a, &mut b]);
    assert_eq!(b.texts(channel), ["m0", "m1", "m2"]);
}

#[test]
fn a_message_that_a_later_one_overtook_can_still_be_read() {
    let relay = Relay::new();
    let (mut a, mut b) = (Agent::new(), Agent::new());
    let channel = channel_of(&relay, &mut [&mut a, &mut b]);
    a.send(channel, "first");
    a.send(channel, "second");
    let frames = a.next_frames(channel, FRAMES_BYTES).expect("built").frames;
    let later = relay.outcome(frames[1].frame.clone());
    let busy = Outcome::Refused {
        code: Code::RateLimited,
        retryable: true,
    };
    let ids: Vec<_> = frames.iter().map(|frame| frame.frame.header().id).collect();
    assert_eq!(a.engine().outcome(channel, ids[0], busy).expect("taken"), []);
    assert_eq!(a.engine().outcome(channel, ids[1], later).expect("taken"), []);
    settle(&relay, channel, &mut [&mut a, &mut b]);
    assert_eq!(b.texts(channel), ["second", "first"]);
    assert_eq!(a.transcript(channel), b.transcript(channel));
}

#[test]
fn a_lost_answer_is_harmless() {
    let relay = Relay::new();
    let (mut a, mut b) = (Agent::new(), Agent::new());
    let channel = channel_of(&relay, &mut [&mut a, &mut b]);
    a.send(channel, "once");
    let frames = a.next_frames(channel, FRAMES_BYTES).expect("built").frames;
    relay.append(frames[0].frame.clone()).expect("accepted");
    // The answer never came, and the process ended.
    a.crash();
    let again = a.next_frames(channel, FRAMES_BYTES).expect("built").frames;
    assert_eq!(again, frames);
    let outcome = relay.outcome(again[0].frame.clone());
    assert!(matches!(outcome, Outcome::Duplicate { .. }));
    a.engine()
        .outcome(channel, again[0].frame.header().id, outcome)
        .expect("taken");
    settle(&relay, channel, &mut [&mut a, &mut b]);
    assert_eq!(a.texts(channel), ["once"]);
    assert_eq!(b.texts(channel), ["once"]);
}

#[test]
fn a_full_outbox_refuses_and_keeps_what_it_has() {
    let relay = Relay::new();
    let mut a = Agent::with(changed(|config| {
        config.outbox_messages_max = 3;
    }));
    let channel = channel_of(&relay, &mut [&mut a]);
    for _ in 0..3 {
        a.send(channel, "x");
    }
    let refused = a.engine().send(channel, b"x");
    assert_eq!(refused.map_err(|error| error.code()), Err(Code::OutboxFull));
    settle(&relay, channel, &mut [&mut a]);
    assert_eq!(a.history(channel).len(), 3);
    a.send(channel, "x");
}

#[test]
fn what_the_relay_refuses_for_good_is_told_and_kept() {
    let relay = Relay::new();
    let (mut a, mut b) = (Agent::new(), Agent::new());
    let channel = channel_of(&relay, &mut [&mut a, &mut b]);
    let id = a.send(channel, "unwanted");
    let frames = a.next_frames(channel, FRAMES_BYTES).expect("built").frames;
    assert_eq!(frames[0].frame.header().detail, Detail::Message);
    let refused = Outcome::Refused {
        code: Code::KindRefused,
        retryable: false,
    };
    let failed = Event::SendFailed {
        channel,
        frame_id: id,
        code: Code::KindRefused,
    };
    assert_eq!(a.engine().outcome(channel, id, refused).expect("taken"), [failed]);
    a.crash();
    let kept = a.engine().failed(channel).expect("listed");
    assert_eq!(kept.len(), 1);
    assert_eq!(kept[0].payload.as_deref(), Some(b"unwanted".as_slice()));
    a.engine().dismiss(channel, id).expect("forgotten");
    assert_eq!(a.engine().failed(channel).expect("listed"), []);
    a.send(channel, "wanted");
    settle(&relay, channel, &mut [&mut a, &mut b]);
    assert_eq!(b.texts(channel), ["wanted"]);
}
