//! An author's order: frames of one log never change places, whatever fails.

use crate::client::{Appends, Client, soon};
use crate::fixture::{Fixture, commit, config, message};
use skytale_log_store::StoreError;
use skytale_log_store::faulty::{Fails, FaultyStore};
use skytale_proto::{ChannelId, Code, Frame, Offset};

const COUNT: usize = 20;

fn io() -> StoreError {
    StoreError::Io {
        doing: "test".into(),
        error: "not now".into(),
    }
}

fn stopped() -> StoreError {
    StoreError::Stopped { reason: "test".into() }
}

/// The bodies of a channel's entries after its Create.
async fn bodies(client: &Client, channel: ChannelId) -> Vec<String> {
    let replayed = client.replay(channel.log(), Offset::FIRST).await;
    let body = |record: skytale_proto::Record| {
        let frame = Frame::decode(record.payload).expect("a frame");
        String::from_utf8(frame.body().to_vec()).expect("text")
    };
    replayed.entries.into_iter().map(body).collect()
}

async fn send_all(appends: &mut Appends, frames: &[Frame]) {
    for frame in frames {
        appends.send(frame).await.expect("sent");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_a_frame_that_failed_no_other_of_its_log_is_accepted_on_the_stream() {
    let store = FaultyStore::new();
    let fixture = Fixture::over(config(), store.clone()).await;
    let (alice, a) = fixture.agent().await;
    for (fails, error, code) in [
        (Fails::NotTaken, io(), Code::RelayInternal),
        (Fails::NotTaken, stopped(), Code::StoreStopped),
        (Fails::AtOnce, io(), Code::RelayInternal),
        (Fails::Untold, io(), Code::RelayInternal),
        (Fails::Untold, stopped(), Code::StoreStopped),
    ] {
        for position in [0, 1, 7, COUNT - 1] {
            let channel = fixture.channel(&alice, &a).await;
            let other = fixture.channel(&alice, &a).await;
            let texts: Vec<String> = (0..COUNT).map(|n| format!("{fails:?} {position} {n}")).collect();
            let frames: Vec<Frame> = texts
                .iter()
                .map(|text| message(channel, alice.id, 1, text.clone()))
                .collect();
            store.fail(texts[position].clone(), fails, error.clone());
            let before = store.frames();

            let mut appends = a.appends().await;
            for (n, frame) in frames.iter().enumerate() {
                appends.send(frame).await.expect("sent");
                let aside = message(other, alice.id, 1, n.to_string());
                appends.send(&aside).await.expect("sent");
            }
            if fails == Fails::Untold {
                // All of them are in the store by then.
                soon(store.taken(before + 2 * COUNT)).await;
                store.tell();
            }
            for n in 0..COUNT {
                let expected = (n >= position).then_some(code);
                assert_eq!(
                    appends.verdict().await,
                    expected,
                    "{fails:?}: frame {n}, {position} failed"
                );
                assert_eq!(appends.verdict().await, None, "another log goes on");
            }
            // The store would take it now. The stream does not, for as long as it lasts.
            for _ in 0..3 {
                appends.send(&frames[COUNT - 1]).await.expect("sent");
                assert_eq!(appends.verdict().await, Some(code));
            }
            assert_eq!(bodies(&a, channel).await, texts[..position]);

            let mut again = a.appends().await;
            send_all(&mut again, &frames).await;
            for n in 0..COUNT {
                let appended = again.answer().await.expect("answered").expect("appended");
                assert_eq!((appended.offset, appended.duplicate), (n as u64 + 2, n < position));
            }
            assert_eq!(bodies(&a, channel).await, texts);
            // A log that is held on one stream is held on no other, nor let go by it.
            appends.send(&frames[COUNT - 1]).await.expect("sent");
            assert_eq!(appends.verdict().await, Some(code));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_log_refuses_holds_nothing_back() {
    let fixture = Fixture::new().await;
    let (alice, a) = fixture.agent().await;
    let (bob, _b) = fixture.agent().await;
    let channel = fixture.channel(&alice, &a).await;
    let mut appends = a.appends().await;
    let frames = [
        commit(channel, alice.id, 1, &[bob.id], &[]),
        message(channel, alice.id, 1, "stale"),
        commit(channel, alice.id, 1, &[], &[bob.id]),
        message(channel, alice.id, 2, "in time"),
        message(channel, bob.id, 2, "another author's"),
        message(channel, alice.id, 2, "in time, too"),
    ];
    send_all(&mut appends, &frames).await;
    for expected in [
        None,
        Some(Code::StaleEpoch),
        Some(Code::StaleHandshake),
        None,
        Some(Code::AuthorMismatch),
        None,
    ] {
        assert_eq!(appends.verdict().await, expected);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_that_must_wait_for_their_rate_keep_their_order() {
    let mut config = config();
    config.limits.frames_per_second = 40;
    config.limits.burst_s = 1;
    let fixture = Fixture::with(config).await;
    let (alice, a) = fixture.agent().await;
    let channel = fixture.channel(&alice, &a).await;
    let texts: Vec<String> = (0..120).map(|n| n.to_string()).collect();
    let frames: Vec<Frame> = texts
        .iter()
        .map(|text| message(channel, alice.id, 1, text.clone()))
        .collect();
    // An agent that sends at nearly the rate that it may, whatever it learns: many of its frames come when a wait is over.
    soon(async {
        let mut rest = &frames[..];
        while !rest.is_empty() {
            let mut appends = a.appends().await;
            let mut accepted = 0;
            for frame in rest {
                appends.send(frame).await.expect("sent");
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
            for n in 0..rest.len() {
                match appends.verdict().await {
                    None => {
                        assert_eq!(n, accepted, "one that was refused was overtaken");
                        accepted += 1;
                    }
                    Some(code) => assert_eq!(code, Code::RateLimited),
                }
            }
            rest = &rest[accepted..];
        }
    })
    .await;
    assert_eq!(bodies(&a, channel).await, texts);
}
