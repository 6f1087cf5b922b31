//! Answers to messages: their properties, and their acknowledgements.

use super::relay::{Agent, Relay, assert_agree, channel_of, settle};
use skytale_proto::{ChannelId, Offset};
use skytale_sdk::{Message, Outgoing, Properties};

fn last(agent: &mut Agent, channel: ChannelId) -> Message {
    agent.history(channel).pop().expect("a message")
}

fn asked(relay: &Relay, a: &mut Agent, b: &mut Agent, channel: ChannelId) -> Message {
    a.send(channel, "what is it?");
    settle(relay, channel, &mut [a, b]);
    b.engine()
        .inbox(channel, Offset::ZERO, 1)
        .expect("read")
        .pop()
        .expect("a question")
}

#[test]
fn an_answer_acknowledges_what_it_answers_and_says_so() {
    let relay = Relay::new();
    let (mut a, mut b) = (Agent::new(), Agent::new());
    let channel = channel_of(&relay, &mut [&mut a, &mut b]);
    let question = asked(&relay, &mut a, &mut b, channel);
    let answer = Outgoing::new("this")
        .content_type("text/plain")
        .once("answer 1")
        .reply_to(question.frame_id)
        .acknowledging(question.offset, question.frame_id);
    let sent = b.engine().send_message(channel, &answer).expect("queued");
    b.crash();
    assert_eq!(b.engine().unacked(channel).expect("known"), 0);
    // After a crash the application may not know that it has answered: it answers again.
    assert_eq!(b.engine().send_message(channel, &answer).expect("known"), sent);
    settle(&relay, channel, &mut [&mut a, &mut b]);
    for agent in [&mut a, &mut b] {
        let message = last(agent, channel);
        assert_eq!((message.frame_id, &message.payload[..]), (sent, &b"this"[..]));
        assert_eq!(message.properties.reply_to, Some(question.frame_id));
        assert_eq!(message.properties.content_type.as_deref(), Some("text/plain"));
    }
    let plain = a.history(channel).swap_remove(0);
    assert_eq!(plain.properties, Properties::default());
    assert_agree(channel, &mut [&mut a, &mut b]);
}

#[test]
fn what_an_answer_says_outlives_a_log_that_went_back() {
    let relay = Relay::new();
    let (mut a, mut b) = (Agent::new(), Agent::new());
    let channel = channel_of(&relay, &mut [&mut a, &mut b]);
    let question = asked(&relay, &mut a, &mut b, channel);
    let before = relay.moment();
    let answer = Outgoing::new("this").reply_to(question.frame_id);
    let sent = b.engine().send_message(channel, &answer).expect("queued");
    settle(&relay, channel, &mut [&mut a, &mut b]);
    assert_eq!(last(&mut a, channel).frame_id, sent);
    a.engine().ack(channel, Offset::MAX).expect("acknowledged");
    b.engine().ack(channel, Offset::MAX).expect("acknowledged");
    relay.go_back(before);
    relay.accept_rollback();
    settle(&relay, channel, &mut [&mut a, &mut b]);
    for agent in [&mut a, &mut b] {
        let message = last(agent, channel);
        assert_eq!(
            (message.frame_id, message.properties.reply_to),
            (sent, Some(question.frame_id))
        );
    }
    assert_agree(channel, &mut [&mut a, &mut b]);
}

#[test]
fn the_first_answer_of_another_agent_is_found_wherever_the_search_begins() {
    let relay = Relay::new();
    let (mut a, mut b) = (Agent::new(), Agent::new());
    let channel = channel_of(&relay, &mut [&mut a, &mut b]);
    let waits = a.send(channel, "what is it?");
    let before = a.engine().requested(channel, waits).expect("known");
    assert!(!before.delivered);
    settle(&relay, channel, &mut [&mut a, &mut b]);
    let asked = a.engine().requested(channel, waits).expect("known");
    assert!(asked.delivered && asked.after > before.after);
    let nothing = a.engine().reply_to(channel, waits, before.after).expect("searched");
    assert_eq!((nothing.reply, nothing.more), (None, false));
    // An answer of its own is none, nor is one to something else.
    let own = Outgoing::new("I do not know").reply_to(waits);
    a.engine().send_message(channel, &own).expect("queued");
    let other = Outgoing::new("another").reply_to(skytale_proto::FrameId::generate());
    b.engine().send_message(channel, &other).expect("queued");
    for text in ["first", "second"] {
        let answer = Outgoing::new(text).content_type("text/plain").reply_to(waits);
        b.engine().send_message(channel, &answer).expect("queued");
    }
    settle(&relay, channel, &mut [&mut a, &mut b]);
    a.crash();
    a.engine().ack(channel, Offset::MAX).expect("acknowledged");
    for after in [Offset::ZERO, before.after, asked.after, nothing.until] {
        let found = a.engine().reply_to(channel, waits, after).expect("searched");
        let payload = found.reply.map(|reply| reply.payload);
        assert_eq!(payload.as_deref(), Some(&b"first"[..]), "{after}");
    }
}
