//! Several agents that change a group at once.

use super::world::{World, assert_same, channel_of, numbered, soon, texts};
use skytale_sdk::Event;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_commits_converge() {
    let world = World::new().await;
    let mut agents = Vec::new();
    for name in ["a", "b", "c", "d"] {
        agents.push(world.agent(name).await);
    }
    let channels = channel_of(&agents.iter().collect::<Vec<_>>()).await;
    let mut events: Vec<_> = agents.iter().map(|agent| agent.events()).collect();
    let before = channels[0].epoch().await.expect("an epoch");
    let mut running = tokio::task::JoinSet::new();
    for (number, channel) in channels.iter().cloned().enumerate() {
        running.spawn(async move {
            for round in 0..5 {
                channel.rotate().await.expect("queued");
                channel
                    .send_many(numbered(&format!("agent{number}"), round * 4..round * 4 + 4))
                    .await
                    .expect("sent");
            }
        });
    }
    while let Some(done) = running.join_next().await {
        done.expect("all queued");
    }
    for agent in &agents {
        soon("all out", agent.flushed()).await.expect("flushed");
    }
    let messages = assert_same(&channels).await;
    assert_eq!(messages.len(), 4 * 20);
    for number in 0..4 {
        let prefix = format!("agent{number} ");
        let of: Vec<String> = texts(&messages)
            .into_iter()
            .filter(|text| text.starts_with(&prefix))
            .collect();
        let expected: Vec<String> = (0..20).map(|round| format!("{prefix}{round}")).collect();
        assert_eq!(of, expected, "each once, in order");
    }
    let epoch = channels[0].epoch().await.expect("an epoch");
    assert!(epoch >= before + 20, "{before} to {epoch}: each rotation is a commit");
    for channel in &channels {
        assert_eq!(channel.epoch().await.expect("an epoch"), epoch);
        assert_eq!(channel.members().await.expect("members").len(), 4);
        assert!(channel.failed().await.expect("a list").is_empty());
    }
    for (agent, events) in agents.iter().zip(&mut events) {
        agent.close(std::time::Duration::from_secs(1)).await;
        while let Some(event) = soon("events end", events.next()).await {
            let alarm = matches!(
                event,
                Event::Divergence { .. } | Event::EntryUnreadable { .. } | Event::SendFailed { .. } | Event::Gap { .. }
            );
            assert!(!alarm, "{event:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_who_add_the_same_agent_add_it_once() {
    let world = World::new().await;
    let (alice, bob, carol) = (
        world.agent("alice").await,
        world.agent("bob").await,
        world.agent("carol").await,
    );
    let channels = channel_of(&[&alice, &bob]).await;
    let agents = [carol.id()];
    let (first, second) = tokio::join!(channels[0].add(&agents), channels[1].add(&agents));
    for sent in [first, second] {
        soon("an end", sent.expect("claimed").delivered())
            .await
            .expect("delivered or unneeded");
    }
    for channel in &channels {
        let members = channel.members().await.expect("members");
        assert_eq!(members.iter().filter(|member| **member == carol.id()).count(), 1);
    }
}
