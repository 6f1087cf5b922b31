//! Failed sends: kept with their reason until they are dismissed or sent again.

use super::relay::{Agent, Relay, changed, channel_of, settle};
use skytale_proto::{Code, FrameId};
use skytale_sdk::QueuedKind;

#[test]
fn what_failed_since_its_sender_was_removed_is_kept_and_goes_out_once_it_is_back() {
    let relay = Relay::new();
    let (mut a, mut b) = (Agent::new(), Agent::new());
    let channel = channel_of(&relay, &mut [&mut a, &mut b]);
    let sent = [b.send(channel, "first"), b.send(channel, "second")];
    let change = b.engine().update_keys(channel).expect("queued");
    let id = b.id();
    a.engine().remove(channel, &[id]).expect("queued");
    settle(&relay, channel, &mut [&mut a]);
    settle(&relay, channel, &mut [&mut b]);
    b.crash();
    let failed = b.engine().failed(channel).expect("listed");
    let seen: Vec<_> = failed.iter().map(|failed| (failed.frame_id, failed.kind)).collect();
    assert_eq!(
        seen,
        [
            (sent[0], QueuedKind::Message),
            (sent[1], QueuedKind::Message),
            (change, QueuedKind::UpdateKeys)
        ]
    );
    assert!(
        failed
            .iter()
            .all(|failed| failed.code == Code::ChannelLeft && failed.channel == channel && failed.failed_ms.is_some())
    );
    assert_eq!(b.engine().channel(channel).expect("known").failed, 3);

    // Not as long as it is out, and that loses nothing.
    let refused = b.engine().retry(channel, sent[0]).map_err(|error| error.code());
    assert_eq!(refused, Err(Code::ChannelLeft));
    assert_eq!(b.engine().failed(channel).expect("listed"), failed);

    b.stock_up(&relay);
    let package = a.claim(&relay, b.id());
    a.engine().add(channel, vec![package]).expect("queued");
    settle(&relay, channel, &mut [&mut a, &mut b]);
    let again = b.engine().retry(channel, sent[0]).expect("queued").expect("known");
    assert_ne!(again, sent[0], "the log may know the one before");
    assert_eq!(b.engine().retry(channel, sent[0]).expect("asked"), None, "once");
    let refused = b.engine().retry(channel, change).map_err(|error| error.code());
    assert_eq!(
        refused,
        Err(Code::RosterChange),
        "a change is made again, or not at all"
    );
    assert_eq!(b.engine().retry(channel, FrameId::generate()).expect("asked"), None);
    settle(&relay, channel, &mut [&mut a, &mut b]);
    assert_eq!(a.texts(channel), ["first"]);
    assert_eq!(b.texts(channel), ["first"]);

    assert!(b.engine().dismiss(channel, sent[1]).expect("forgotten"));
    assert!(b.engine().dismiss(channel, change).expect("forgotten"));
    assert!(!b.engine().dismiss(channel, change).expect("asked"));
    assert_eq!(b.engine().channel(channel).expect("known").failed, 0);
}

#[test]
fn a_message_is_not_sent_again_into_a_full_outbox_and_stays_failed() {
    let relay = Relay::new();
    let mut a = Agent::new();
    let mut b = Agent::with(changed(|config| {
        config.outbox_messages_max = 1;
        config.key_packages_target = 4;
    }));
    let channel = channel_of(&relay, &mut [&mut a, &mut b]);
    let sent = b.send(channel, "first");
    let id = b.id();
    a.engine().remove(channel, &[id]).expect("queued");
    settle(&relay, channel, &mut [&mut a, &mut b]);
    b.stock_up(&relay);
    let package = a.claim(&relay, b.id());
    a.engine().add(channel, vec![package]).expect("queued");
    settle(&relay, channel, &mut [&mut a, &mut b]);
    b.send(channel, "in the way");
    let refused = b.engine().retry(channel, sent).map_err(|error| error.code());
    assert_eq!(refused, Err(Code::OutboxFull));
    settle(&relay, channel, &mut [&mut a, &mut b]);
    b.engine().retry(channel, sent).expect("queued").expect("known");
    settle(&relay, channel, &mut [&mut a, &mut b]);
    assert_eq!(a.texts(channel), ["in the way", "first"]);
}
