//! Messages under ids of the application: sent twice, they are one.

use super::relay::{Agent, Relay, channel_of, settle};
use skytale_proto::Code;
use skytale_sdk::SEND_ID_BYTES_MAX;
use skytale_sdk::internals::engine::Fate;

#[test]
fn one_id_is_one_message_whatever_became_of_it_meanwhile() {
    let relay = Relay::new();
    let (mut a, mut b) = (Agent::new(), Agent::new());
    let channel = channel_of(&relay, &mut [&mut a, &mut b]);
    let once = |agent: &mut Agent, id: &str, text: &str| {
        let sent = agent.engine().send_once(channel, id, text.as_bytes());
        sent.map_err(|error| error.code())
    };
    // While it waits, after a crash, when it is in the log, and when it is no longer in the history.
    let first = once(&mut b, "one", "hello").expect("queued");
    assert_eq!(once(&mut b, "one", "hello"), Ok(first));
    b.crash();
    assert_eq!(once(&mut b, "one", "hello"), Ok(first));
    settle(&relay, channel, &mut [&mut a, &mut b]);
    assert_eq!(once(&mut b, "one", "hello"), Ok(first));
    assert!(matches!(b.engine().fate(channel, first), Ok(Some(Fate::Delivered(_)))));
    assert_eq!(once(&mut b, "one", "something else"), Err(Code::SendIdReused));
    let end = b.engine().cursor(channel).expect("known").next();
    let purged = b.engine().purge(channel, end, 16).expect("purged");
    assert_eq!(purged.messages, 1);
    assert_eq!(once(&mut b, "one", "hello"), Ok(first));
    // Another id, another agent's same id: other messages.
    assert_ne!(once(&mut b, "two", "hello"), Ok(first));
    assert_ne!(once(&mut a, "one", "hello"), Ok(first));
    settle(&relay, channel, &mut [&mut a, &mut b]);
    assert_eq!(a.texts(channel), ["hello", "hello", "hello"]);
    for wrong in [String::new(), "x".repeat(SEND_ID_BYTES_MAX + 1)] {
        assert!(once(&mut a, &wrong, "hello").is_err());
    }
}

#[test]
fn an_id_goes_with_its_message_when_that_fails_and_is_sent_again_or_forgotten() {
    let relay = Relay::new();
    let (mut a, mut b) = (Agent::new(), Agent::new());
    let channel = channel_of(&relay, &mut [&mut a, &mut b]);
    let mut sent = Vec::new();
    for id in ["retried", "dropped"] {
        sent.push(b.engine().send_once(channel, id, id.as_bytes()).expect("queued"));
    }
    let id = b.id();
    a.engine().remove(channel, &[id]).expect("queued");
    settle(&relay, channel, &mut [&mut a]);
    settle(&relay, channel, &mut [&mut b]);
    assert!(matches!(b.engine().fate(channel, sent[0]), Ok(Some(Fate::Failed(_)))));
    b.stock_up(&relay);
    let package = a.claim(&relay, b.id());
    a.engine().add(channel, vec![package]).expect("queued");
    settle(&relay, channel, &mut [&mut a, &mut b]);

    // It failed, and is not sent by itself: that is the application's word.
    assert_eq!(
        b.engine().send_once(channel, "retried", b"retried").expect("known"),
        sent[0]
    );
    let again = b.engine().retry(channel, sent[0]).expect("queued").expect("known");
    assert_eq!(
        b.engine().send_once(channel, "retried", b"retried").expect("known"),
        again
    );
    assert!(b.engine().dismiss(channel, sent[1]).expect("forgotten"));
    let fresh = b.engine().send_once(channel, "dropped", b"dropped").expect("queued");
    assert_ne!(fresh, sent[1]);
    // What was delivered is not forgotten by a word about what failed.
    settle(&relay, channel, &mut [&mut a, &mut b]);
    assert!(!b.engine().dismiss(channel, again).expect("nothing failed"));
    assert_eq!(
        b.engine().send_once(channel, "retried", b"retried").expect("known"),
        again
    );
    settle(&relay, channel, &mut [&mut a, &mut b]);
    assert_eq!(a.texts(channel), ["retried", "dropped"]);
}
