//! A relay node whose log was restored from a copy.

use super::world::{World, channel_of, event, reach, soon};
use skytale_proto::Code;
use skytale_sdk::{AgentError, Event, Problem};
use std::path::Path;

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("listed") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        match entry.file_type().expect("a type").is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(std::fs::copy(entry.path(), target).expect("copied")),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_whose_log_went_back_keeps_no_other_channel_and_fails_no_send() {
    let world = World::new().await;
    let (a, b) = (world.agent("a").await, world.agent("b").await);
    let channels = channel_of(&[&a, &b]).await;
    let quiet = b.create_channel("quiet").await.expect("made");
    let sent = quiet.send("first").await.expect("queued");
    soon("delivered", sent.delivered()).await.expect("delivered");
    soon("b current", b.caught_up()).await.expect("current");

    let (log, kept) = (world.dir.path().join("log"), world.dir.path().join("log.copy"));
    world.stop_relay().await;
    copy(&log, &kept);
    world.start_relay().await;
    for text in ["one", "two"] {
        let sent = channels[0].send(text).await.expect("queued");
        let delivered = soon("delivered", sent.delivered()).await.expect("delivered");
        reach(&channels[1], delivered.offset().expect("an offset")).await;
    }
    let cursor = channels[1].cursor().await.expect("a cursor");
    let mut events = b.events();
    world.stop_relay().await;
    std::fs::remove_dir_all(&log).expect("removed");
    copy(&kept, &log);
    world.start_relay().await;

    let room = &channels[1];
    let is_told =
        |event: &Event| matches!(event, Event::RolledBack { channel: Some(channel), .. } if *channel == room.id());
    event(&mut events, "told", is_told).await;
    let error = soon("refused", room.caught_up())
        .await
        .expect_err("it cannot be followed");
    assert!(
        matches!(error, AgentError::NotFollowed { channel, code: Code::CursorBeyondHead } if channel == room.id()),
        "{error:?}"
    );
    let held = room.send("held").await.expect("queued");

    // All else goes on.
    soon("b current", b.caught_up()).await.expect("current");
    for channel in [quiet, b.create_channel("another").await.expect("made")] {
        let sent = channel.send("said").await.expect("queued");
        soon("delivered", sent.delivered()).await.expect("delivered");
        assert_eq!(channel.not_followed(), None);
        assert_eq!(channel.problems().await.expect("listed"), []);
    }
    assert_eq!(room.failed().await.expect("listed"), []);
    assert_eq!(room.outbox().await.expect("listed")[0].frame_id, held.frame_id());
    let all = b.problems().await.expect("listed");
    let [(Some(of), problems)] = all.as_slice() else {
        panic!("{all:?}")
    };
    let [Problem::RolledBack(rollback)] = problems.as_slice() else {
        panic!("{problems:?}")
    };
    assert_eq!(
        (*of, rollback.cursor, rollback.kept),
        (room.id(), cursor, cursor.previous().previous())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_reads_a_stream_settles_once_it_has_acknowledged_and_is_shown_nothing_twice() {
    let world = World::new().await;
    let (a, b, c) = (world.agent("a").await, world.agent("b").await, world.agent("c").await);
    let channels = channel_of(&[&a, &b, &c]).await;
    let (log, kept) = (world.dir.path().join("log"), world.dir.path().join("log.copy"));
    soon("c current", c.caught_up()).await.expect("current");
    c.close(std::time::Duration::from_secs(10)).await;
    world.stop_relay().await;
    copy(&log, &kept);
    world.start_relay().await;

    let room = &channels[1];
    let mut messages = room.messages();
    for text in ["m1", "m2"] {
        let sent = channels[0].send(text).await.expect("queued");
        soon("delivered", sent.delivered()).await.expect("delivered");
    }
    let mut given = Vec::new();
    for _ in 0..2 {
        given.push(soon("given", messages.next()).await.expect("a message"));
    }
    a.close(std::time::Duration::from_secs(10)).await;
    world.stop_relay().await;
    std::fs::remove_dir_all(&log).expect("removed");
    copy(&kept, &log);
    world.accept_rollback();
    world.start_relay().await;

    // One who was away writes where the others had read something else.
    let c = world.agent("c").await;
    let theirs = c.channel(room.id()).await.expect("known");
    for text in ["c1", "c2", "c3"] {
        let sent = theirs.send(text).await.expect("queued");
        soon("delivered", sent.delivered()).await.expect("delivered");
    }
    let mut events = b.events();
    for message in &given {
        message.ack().await.expect("acknowledged");
    }
    let is_told = |event: &Event| matches!(event, Event::Settled { channel, .. } if *channel == room.id());
    event(&mut events, "settled", is_told).await;
    // One that came before this agent settled is not given again.
    let mut texts = Vec::new();
    while texts.last().is_none_or(|text| *text != b"c3"[..]) {
        let message = soon("given", messages.next()).await.expect("a message");
        texts.push(message.payload.clone());
        // What was acknowledged before means no other entry now.
        given[1].ack().await.expect("taken");
        message.ack().await.expect("acknowledged");
    }
    assert!(
        texts.is_sorted() && texts.len() <= 3,
        "in the order of the log, each once: {texts:?}"
    );
    // The author of what is gone comes back.
    let a = world.agent("a").await;
    let room_of_a = a.channel(room.id()).await.expect("known");
    let sent = room_of_a.send("m3").await.expect("queued");
    soon("delivered", sent.delivered()).await.expect("delivered");
    let message = soon("given", messages.next()).await.expect("a message");
    assert_eq!(message.payload, b"m3"[..], "m1 and m2 are not given again");
    let all = room.history(skytale_proto::Offset::ZERO, 100).await.expect("read");
    let texts: Vec<&[u8]> = all.iter().map(|message| message.payload.as_ref()).collect();
    assert_eq!(texts, [&b"c1"[..], b"c2", b"c3", b"m1", b"m2", b"m3"]);
    assert_eq!(room.replaced(10).await.expect("listed"), []);
}
