//! The cost of an agent's work, counted in steps of its vault's database, never in time.

use super::faults::world::{World, soon};
use super::{Agent, ChannelState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Returns the steps that an agent's vault takes while something is done. What the agent does beside it counts, too.
async fn steps<T>(agent: &Agent, work: impl Future<Output = T>) -> (u64, T) {
    let count = Arc::new(AtomicU64::new(0));
    let counting = Arc::clone(&count);
    let begin = agent.inner.core.call(move |actor| {
        let each = move || {
            counting.fetch_add(1, Ordering::Relaxed);
            false
        };
        actor.engine.sql().progress_handler(8, Some(each));
    });
    begin.await.expect("open");
    let done = work.await;
    let end = agent
        .inner
        .core
        .call(|actor| actor.engine.sql().progress_handler(8, None::<fn() -> bool>));
    end.await.expect("open");
    (count.load(Ordering::Relaxed), done)
}

/// Creates channels, one after the other, and waits for each to be in its log.
async fn create(agent: &Agent, count: usize) {
    for number in 0..count {
        let channel = agent.create_channel(&format!("channel {number}")).await.expect("made");
        soon("in the log", agent.flushed()).await.expect("flushed");
        soon("current", channel.caught_up()).await.expect("current");
        assert_eq!(channel.info().await.expect("known").state, ChannelState::Active);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_channel_costs_the_same_however_many_there_are() {
    let world = World::new().await;
    let alice = world.agent("alice").await;
    // A session's first steps are over.
    create(&alice, 10).await;
    let (first, ()) = steps(&alice, create(&alice, 20)).await;
    create(&alice, 370).await;
    let (last, ()) = steps(&alice, create(&alice, 20)).await;
    assert!(
        last <= first * 3 / 2,
        "{last} steps with 400 channels, and {first} with 10"
    );
    let again = async {
        for number in 0..20 {
            alice.ensure_channel(&format!("channel {number}")).await.expect("there");
        }
    };
    let (found, ()) = steps(&alice, again).await;
    assert!(
        found <= first,
        "{found} steps to find 20 channels, and {first} to make as many"
    );
    alice.close(std::time::Duration::from_secs(1)).await;
}
