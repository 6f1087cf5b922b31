//! Messages that answer others: what they say besides their payloads, and what they acknowledge.

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
