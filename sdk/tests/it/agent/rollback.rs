//! A relay node whose log was restored from a copy.

use super::world::{World, channel_of, event, reach, soon};
use skytale_proto::Code;
use skytale_sdk::{Agent, AgentError, Channel, Event, Messages, Problem, Received};
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

/// A channel whose log went back and had grown past the reader's cursor again before that one could look.
struct Fork {
    world: World,
    reader: Agent,
    room: Channel,
    messages: Messages,
    /// Messages that are gone from the log. The reader was given them, and has not acknowledged them.
    given: Vec<Received>,
}

impl Fork {
    async fn new() -> Self {
        let world = World::new().await;
        let (a, b, c) = (world.agent("a").await, world.agent("b").await, world.agent("c").await);
        let channels = channel_of(&[&a, &b, &c]).await;
        let folder = |name: &str| world.dir.path().join(name);
        let (log, before, present) = (folder("log"), folder("log.before"), folder("log.present"));
        soon("c current", c.caught_up()).await.expect("current");
        for agent in [a, b, c] {
            agent.close(std::time::Duration::from_secs(10)).await;
        }
        world.stop_relay().await;
        copy(&log, &before);

        // The log as it will be: one who reads nothing else has written.
        world.start_relay().await;
        let c = world.agent("c").await;
        let theirs = c.channel(channels[0].id()).await.expect("known");
        for text in ["c1", "c2", "c3"] {
            let sent = theirs.send(text).await.expect("queued");
            soon("delivered", sent.delivered()).await.expect("delivered");
        }
        c.close(std::time::Duration::from_secs(10)).await;
        world.stop_relay().await;
        copy(&log, &present);

        // The log as the others know it.
        std::fs::remove_dir_all(&log).expect("removed");
        copy(&before, &log);
        world.start_relay().await;
        let (a, reader) = (world.agent("a").await, world.agent("b").await);
        let theirs = a.channel(channels[0].id()).await.expect("known");
        let room = reader.channel(theirs.id()).await.expect("known");
        let mut messages = room.messages();
        let mut given = Vec::new();
        for text in ["m1", "m2"] {
            let sent = theirs.send(text).await.expect("queued");
            soon("delivered", sent.delivered()).await.expect("delivered");
            given.push(soon("given", messages.next()).await.expect("a message"));
        }
        a.close(std::time::Duration::from_secs(10)).await;
        world.stop_relay().await;
        std::fs::remove_dir_all(&log).expect("removed");
        copy(&before, &log);
        world.accept_rollback();
        std::fs::remove_dir_all(&log).expect("removed");
        copy(&present, &log);
        Self {
            world,
            reader,
            room,
            messages,
            given,
        }
    }

    /// Starts the relay node, and waits until the reader learns that it must acknowledge.
    async fn wait(&self) {
        let mut events = self.reader.events();
        self.world.start_relay().await;
        let id = self.room.id();
        let is_told = |event: &Event| matches!(event, Event::Paused { channel, unacked: 2 } if *channel == id);
        event(&mut events, "told", is_told).await;
        assert_eq!(self.room.info().await.expect("known").settlements, 0);
    }

    /// Returns the next texts of the stream, acknowledging each.
    async fn next(&mut self, count: usize) -> Vec<String> {
        let mut texts = Vec::new();
        for _ in 0..count {
            let message = soon("given", self.messages.next()).await.expect("a message");
            message.ack().await.expect("acknowledged");
            texts.push(String::from_utf8(message.payload.to_vec()).expect("text"));
        }
        texts
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_reads_a_stream_settles_once_it_has_acknowledged_and_is_shown_nothing_twice() {
    let mut fork = Fork::new().await;
    let room = fork.room.clone();
    fork.wait().await;
    for message in &fork.given {
        message.ack().await.expect("acknowledged");
    }
    assert_eq!(fork.next(1).await, ["c1"]);
    // What was acknowledged before means no other entry now.
    fork.given[1].ack().await.expect("taken");
    assert_eq!(fork.next(2).await, ["c2", "c3"], "in the order of the log, each once");

    // The author of what is gone comes back.
    let a = fork.world.agent("a").await;
    let room_of_a = a.channel(room.id()).await.expect("known");
    let sent = room_of_a.send("m3").await.expect("queued");
    soon("delivered", sent.delivered()).await.expect("delivered");
    assert_eq!(fork.next(1).await, ["m3"], "m1 and m2 are not given again");
    let all = room.history(skytale_proto::Offset::ZERO, 100).await.expect("read");
    let texts: Vec<&[u8]> = all.iter().map(|message| message.payload.as_ref()).collect();
    assert_eq!(texts, [&b"c1"[..], b"c2", b"c3", b"m1", b"m2", b"m3"]);
    assert_eq!(room.replaced(10).await.expect("listed"), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_stops_reading_settles_and_the_next_reader_is_given_what_it_had_not_acknowledged() {
    let mut fork = Fork::new().await;
    fork.wait().await;
    fork.messages = fork.room.watch(None).await.expect("a stream");
    soon("settled", fork.room.caught_up()).await.expect("current");
    fork.messages = fork.room.messages();
    assert_eq!(fork.next(3).await, ["c1", "c2", "c3"]);
    let _a = fork.world.agent("a").await;
    assert_eq!(fork.next(2).await, ["m1", "m2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_acknowledges_only_what_it_has_answered_settles_and_is_answered() {
    let mut fork = Fork::new().await;
    fork.wait().await;
    // It waits for its answer to be durable before it acknowledges.
    let answer = fork.room.send("answer").await.expect("queued");
    soon("delivered", answer.delivered()).await.expect("delivered");
    for message in &fork.given {
        message.ack().await.expect("acknowledged");
    }
    assert_eq!(fork.next(3).await, ["c1", "c2", "c3"]);
    let a = fork.world.agent("a").await;
    let sent = a.channel(fork.room.id()).await.expect("known").send("m3").await;
    soon("delivered", sent.expect("queued").delivered())
        .await
        .expect("delivered");
    assert_eq!(fork.next(1).await, ["m3"], "m1 and m2 were acknowledged");
}
