//! An agent whose vault fails for a while in the background.

use super::{Agent, AgentError};
use crate::event::Event;
use skytale_proto::{Code, Offset};
use world::{World, assert_same, channel_of, event, numbered, soon, texts};

/// Shared with the integration tests, with access to the database.
#[path = "../../tests/it/agent/world.rs"]
#[allow(dead_code)]
pub(super) mod world;

impl Agent {
    async fn sql(&self, statements: &'static str) {
        let done = self.inner.core.call(move |actor| {
            let done = actor.engine.sql().execute_batch(statements);
            done.expect("done");
        });
        done.await.expect("open");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_goes_on_when_its_vault_can_be_written_again() {
    for write in [
        "CREATE TEMP TRIGGER refusal BEFORE INSERT ON message BEGIN SELECT RAISE(ABORT, 'refused'); END",
        "CREATE TEMP TRIGGER refusal BEFORE UPDATE ON channel BEGIN SELECT RAISE(ABORT, 'refused'); END",
        "CREATE TEMP TRIGGER refusal BEFORE INSERT ON mls BEGIN SELECT RAISE(ABORT, 'refused'); END",
    ] {
        let world = World::new().await;
        let (alice, bob) = (world.agent("alice").await, world.agent("bob").await);
        let channels = channel_of(&[&alice, &bob]).await;
        let (mut watched, mut all) = (bob.events(), bob.events());
        bob.sql(write).await;
        for round in 0..3 {
            channels[0]
                .send_many(numbered("alice", round * 10..round * 10 + 10))
                .await
                .expect("sent");
            channels[0].rotate().await.expect("queued");
        }
        soon("all out", alice.flushed()).await.expect("flushed");
        let told = event(&mut watched, "told", |event| matches!(event, Event::VaultFailed { .. })).await;
        assert!(
            matches!(
                told,
                Event::VaultFailed {
                    code: Code::VaultIo,
                    ..
                }
            ),
            "{told:?}"
        );
        let refused = channels[1].send("not now").await;
        if let Err(error) = &refused {
            assert!(
                matches!(error, AgentError::Engine(_)) && error.is_retryable(),
                "{error}"
            );
        }
        assert!(
            channels[1]
                .history(Offset::ZERO, 100)
                .await
                .expect("readable")
                .is_empty()
        );

        bob.sql("DROP TRIGGER refusal").await;
        soon("current", channels[1].caught_up()).await.expect("current");
        channels[1].send("now").await.expect("sent");
        soon("all out", bob.flushed()).await.expect("flushed");
        let messages = texts(&assert_same(&channels).await);
        let from_alice: Vec<_> = messages.iter().filter(|text| text.starts_with("alice")).collect();
        let expected: Vec<_> = (0..30).map(|number| format!("alice {number}")).collect();
        assert_eq!(from_alice, expected.iter().collect::<Vec<_>>(), "each once, in order");
        assert!(messages.contains(&"now".to_owned()));
        assert_eq!(messages.contains(&"not now".to_owned()), refused.is_ok());

        bob.close(std::time::Duration::from_secs(1)).await;
        while let Some(event) = soon("events end", all.next()).await {
            let alarm = matches!(
                event,
                Event::Divergence { .. } | Event::EntryUnreadable { .. } | Event::SendFailed { .. } | Event::Gap { .. }
            );
            assert!(!alarm, "{event:?}");
        }
    }
}
