//! An agent's messages arrive in the order in which they were sent, whatever fails at the relay node.

use super::world::{World, agent_config, assert_same, channel_of, numbered, soon, texts};
use skytale_log_store::StoreError;
use skytale_log_store::faulty::{Fails, FaultyStore};
use skytale_sdk::{Agent, Event};
use std::time::Duration;

const COUNT: usize = 200;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_keep_their_order_though_the_relay_fails_some_of_them() {
    let world = World::new().await;
    let store = FaultyStore::new();
    let (node, relay) = world.relay_over(store.clone()).await;
    let mut agents = Vec::new();
    for name in ["alice", "bob"] {
        let config = agent_config(world.vault(name), world.mint.provider(), relay.clone());
        let agent = soon("a vault opened", Agent::open(config)).await.expect("opened");
        agent.connect().await.expect("a socket");
        soon("an agent current", agent.caught_up()).await.expect("current");
        agents.push(agent);
    }
    let (alice, bob) = (&agents[0], &agents[1]);
    let channels = channel_of(&[alice, bob]).await;
    // Another channel of the same agent, on the same append stream: what fails in one is nothing to the other.
    let aside = alice.create_channel("aside").await.expect("made");
    soon("all out", alice.flushed()).await.expect("flushed");
    let mut events = alice.events();
    let mut expected = Vec::new();
    let failure = StoreError::Io {
        doing: "test".into(),
        error: "not now".into(),
    };
    for fails in [Fails::NotTaken, Fails::AtOnce, Fails::Late] {
        for positions in [&[0][..], &[1], &[7], &[63], &[150], &[COUNT - 1], &[2, 3, 90, 180]] {
            let name = format!("{fails:?} {positions:?}");
            store.fail_messages(positions, fails, &failure);
            let batch = numbered(&name, 0..COUNT);
            // All at once, and one after another.
            let (many, singly) = batch.split_at(COUNT / 2);
            let mut sent = channels[0].send_many(many.to_vec()).await.expect("sent");
            for one in singly {
                sent.push(channels[0].send(one.clone()).await.expect("sent"));
            }
            for one in sent {
                soon("delivered", one.delivered()).await.expect("delivered");
            }
            assert_eq!(store.failures_left(), 0, "{name}: what was to fail has failed");
            expected.extend(texts_of(&batch));
            let besides = aside.send(name).await.expect("sent");
            soon("delivered", besides.delivered()).await.expect("delivered");
        }
    }
    let messages = assert_same(&channels).await;
    assert_eq!(texts(&messages), expected);
    alice.close(Duration::from_secs(5)).await;
    while let Some(event) = soon("events end", events.next()).await {
        assert!(!matches!(event, Event::Connected { .. }), "no session was lost for it");
    }
    bob.close(Duration::from_secs(5)).await;
    node.shutdown().await;
}

fn texts_of(batch: &[bytes::Bytes]) -> impl Iterator<Item = String> + '_ {
    batch.iter().map(|text| String::from_utf8(text.to_vec()).expect("text"))
}
