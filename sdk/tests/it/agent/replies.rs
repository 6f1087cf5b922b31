//! Requests and their answers.

use super::world::{World, channel_of, soon};
use skytale_proto::{Code, Offset};
use skytale_sdk::AgentError;
use skytale_sdk::Outgoing;
use std::time::Duration;

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_gives_the_first_message_that_answers_it_and_leaves_it_to_be_acknowledged() {
    let world = World::new().await;
    let (alice, bob) = (world.agent("alice").await, world.agent("bob").await);
    let channels = channel_of(&[&alice, &bob]).await;
    let answers = async {
        let mut messages = channels[1].messages();
        for number in 0..2 {
            let question = messages.next().await.expect("a question");
            channels[1].send("by the way").await.expect("sent");
            question.reply(format!("answer {number}")).await.expect("sent");
            let late = Outgoing::new("too late").reply_to(question.frame_id);
            channels[1].send_message(late).await.expect("sent");
        }
    };
    let asks = async {
        for number in 0..2 {
            let request = Outgoing::new(format!("question {number}"));
            let reply = channels[0].request(request, MINUTE).await.expect("an answer");
            assert_eq!(reply.payload, format!("answer {number}"));
            assert_eq!(reply.author, bob.id());
        }
    };
    soon("both", async { tokio::join!(answers, asks) }).await;
    // They are messages like others, for whoever reads them.
    let mut messages = channels[0].messages();
    let expected = [
        "by the way",
        "answer 0",
        "too late",
        "by the way",
        "answer 1",
        "too late",
    ];
    for expected in expected {
        let message = soon("a message", messages.next()).await.expect("a message");
        assert_eq!(message.payload, expected);
        message.ack().await.expect("acknowledged");
    }
    assert_eq!(channels[0].info().await.expect("known").unacked, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_with_an_id_goes_on_after_a_timeout_and_a_restart() {
    let world = World::new().await;
    let (alice, bob) = (world.agent("alice").await, world.agent("bob").await);
    let channels = channel_of(&[&alice, &bob]).await;
    let id = channels[0].id();
    soon("all out", alice.flushed()).await.expect("flushed");
    alice.disconnect().await;
    let request = || Outgoing::new("what is it?").once("question 1");
    let ended = channels[0].request(request(), Duration::from_millis(1)).await;
    let Err(AgentError::NoReply {
        frame_id, delivered, ..
    }) = ended
    else {
        panic!("{ended:?}");
    };
    assert!(!delivered, "nobody is there to take it");
    alice.connect().await.expect("a socket");
    soon("all out", alice.flushed()).await.expect("flushed");
    let error = channels[0].request(request(), Duration::from_millis(1)).await;
    let error = error.expect_err("nobody answers");
    assert!(
        matches!(&error, AgentError::NoReply { frame_id: same, delivered: true, .. } if *same == frame_id),
        "{error:?}"
    );
    assert!(error.code() == Code::NoReply && error.is_retryable());
    alice.close(Duration::from_secs(5)).await;

    // The answer comes while nobody waits for it.
    let mut messages = channels[1].messages();
    let question = soon("a question", messages.next()).await.expect("a question");
    assert_eq!(question.frame_id, frame_id);
    let sent = question.reply("this").await.expect("sent");
    soon("delivered", sent.delivered()).await.expect("delivered");

    let alice = world.agent("alice").await;
    let channel = alice.channel(id).await.expect("in the vault");
    let reply = soon("an answer", channel.request(request(), MINUTE))
        .await
        .expect("an answer");
    assert_eq!(reply.payload, "this");
    assert_eq!(reply.properties.reply_to, Some(frame_id));
    reply.ack().await.expect("acknowledged");
    // What was acknowledged is given all the same, offline too.
    alice.disconnect().await;
    let again = channel.request(request(), MINUTE).await.expect("the answer");
    assert_eq!(again.frame_id, reply.frame_id);
    assert_eq!(channel.inbox(Offset::ZERO, 9).await.expect("read"), []);
    let own = channel.history(Offset::ZERO, 100).await.expect("read");
    assert_eq!(own.iter().filter(|message| message.own).count(), 1, "it was sent once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_ends_with_the_reason_where_no_answer_can_come() {
    let world = World::new().await;
    let (alice, bob) = (world.agent("alice").await, world.agent("bob").await);
    let channels = channel_of(&[&alice, &bob]).await;
    soon("all out", alice.flushed()).await.expect("flushed");
    alice.disconnect().await;
    let waiting = tokio::spawn({
        let channel = channels[0].clone();
        async move { channel.request(Outgoing::new("anyone?"), Duration::MAX).await }
    });
    let queued = async {
        while channels[0].info().await.expect("known").outbox == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    soon("queued", queued).await;
    let removed = channels[1].remove(&[alice.id()]).await.expect("queued");
    soon("removed", removed.delivered()).await.expect("delivered");
    alice.connect().await.expect("a socket");
    let ended = soon("an end", waiting).await.expect("no panic");
    let code = ended.as_ref().err().map(AgentError::code);
    assert_eq!(code, Some(Code::ChannelLeft), "{ended:?}");
    let failed = channels[0].failed().await.expect("listed");
    assert_eq!(failed.len(), 1);
    let sent = channels[0]
        .sent(failed[0].frame_id)
        .await
        .expect("asked")
        .expect("known");
    let ended = soon("an end", channels[0].reply(&sent)).await;
    assert!(ended.is_err(), "{ended:?}");
}
