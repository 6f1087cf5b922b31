//! Backups of an agent at work.

use super::world::{World, assert_same, channel_of, numbered, soon, texts, transcript};
use skytale_proto::{Code, Offset};
use skytale_sdk::{Agent, QueuedKind, restore};
use std::time::Duration;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_of_a_running_agent_is_of_one_moment_and_stops_nothing() {
    let world = World::new().await;
    let (alice, bob) = (world.agent("alice").await, world.agent("bob").await);
    let channels = channel_of(&[&alice, &bob]).await;
    let file = world.dir.path().join("bob.backup");
    let mut backups = Vec::new();
    for round in 0..5 {
        channels[0]
            .send_many(numbered("alice", round * 40..round * 40 + 40))
            .await
            .expect("sent");
        channels[1]
            .send_many(numbered("bob", round * 20..round * 20 + 20))
            .await
            .expect("sent");
        let file = file.with_extension(round.to_string());
        let made = bob.backup(&file, false).await.expect("made");
        assert_eq!(made.bytes, std::fs::metadata(&file).expect("there").len());
        backups.push(file);
    }
    let error = bob.backup(&backups[0], false).await.expect_err("it exists");
    assert_eq!(error.code(), Code::Environment);
    bob.backup(&backups[0], true).await.expect("replaced");
    for agent in [&alice, &bob] {
        soon("all out", agent.flushed()).await.expect("flushed");
        soon("current", agent.caught_up()).await.expect("current");
    }
    let all = texts(&assert_same(&channels).await);
    assert_eq!(all.len(), 300);

    let id = channels[1].id();
    let config = world.config("bob");
    for (number, file) in backups.iter().enumerate() {
        let vault = world.dir.path().join(format!("restored-{number}.vault"));
        let done = restore(file, &vault, &config.key, false).expect("restored");
        assert!(done.backup_ms.is_some());
        let mut config = world.config("bob");
        config.vault = vault;
        // Never connected: two copies of one agent are not to be used at a time.
        let copy = Agent::open(config).await.expect("opens");
        assert_eq!(copy.id(), bob.id());
        let channel = copy.channel(id).await.expect("there");
        let read = texts(&transcript(&channel).await);
        assert!(all.starts_with(&read), "a beginning of the history");
        let info = channel.info().await.expect("known");
        let outbox = channel.outbox().await.expect("listed").into_iter();
        let waiting = outbox.filter(|queued| queued.kind == QueuedKind::Message).count();
        let own = read.iter().filter(|text| text.starts_with("bob")).count();
        let sent = if number == 0 { 100 } else { (number + 1) * 20 };
        assert_eq!(
            own + waiting,
            sent,
            "all that was sent is in the history or in the outbox"
        );
        assert!(info.cursor >= Offset::new(read.len() as u64));
        copy.close(Duration::from_secs(1)).await;
    }
}
