//! The feed of revocations stays small, and its followers miss nothing.

use crate::agent::TestAgent;
use crate::database::Backend;
use crate::harness::{TestApi, on_both};
use skytale_proto::KeyId;
use skytale_proto::limits::REVOCATIONS_KEPT;
use skytale_proto::rest::Revocations;
use std::time::Duration;

/// Makes a key and revokes it.
async fn revoke_one(api: &TestApi, by: &str) -> KeyId {
    let made = api.key(by, &["relay:append"]).await.key.id;
    api.delete(&format!("/v1/keys/{made}"), by).await.done();
    made
}

/// Makes an agent and ends it.
async fn end_one(api: &TestApi, by: &str) -> TestAgent {
    let agent = TestAgent::new();
    api.token(by, &agent).await;
    api.delete(&format!("/v1/agents/{}", agent.id()), by).await.done();
    agent
}

/// Another process on the same database: its upkeep begins as it starts. Gives its feed once `trimmed` holds of it.
async fn swept(api: &TestApi, trimmed: impl Fn(&Revocations) -> bool) -> TestApi {
    let other = api.another().await;
    while !trimmed(&other.revocations("").await) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    other
}

fn keys(feed: &Revocations) -> Vec<KeyId> {
    feed.revocations.iter().map(|revocation| revocation.key).collect()
}

fn sequences(feed: &Revocations) -> Vec<u64> {
    feed.revocations.iter().map(|revocation| revocation.sequence).collect()
}

on_both! {
    async fn what_ends_no_token_any_more_leaves_and_an_old_cursor_is_told_to_start_over(backend: Backend) {
        let api = TestApi::start(backend).await;
        let key = api.account("acme").await.key.secret;
        for _ in 0..3 {
            revoke_one(&api, &key).await;
        }
        end_one(&api, &key).await;
        let begun = api.revocations("?after=1").await;
        assert_eq!((sequences(&begun), begun.start_over, begun.agents_start_over), (vec![2, 3], false, false));

        api.advance(REVOCATIONS_KEPT / 2);
        let kept = [revoke_one(&api, &key).await, revoke_one(&api, &key).await];
        api.advance(REVOCATIONS_KEPT / 2 + Duration::from_secs(2));
        let other = swept(&api, |feed| feed.revocations.len() == 2 && feed.agents.is_empty()).await;

        // The cursor is behind what has left: the whole current set, and the word that it is that.
        for after in [0, 1, 2] {
            let feed = api.revocations(&format!("?after={after}")).await;
            assert_eq!((keys(&feed), sequences(&feed)), (kept.to_vec(), vec![4, 5]), "after {after}");
            assert_eq!((feed.start_over, feed.next), (true, 5), "after {after}");
        }
        // It is where the feed goes on.
        for (after, expected) in [(3, vec![4, 5]), (4, vec![5]), (5, vec![])] {
            let feed = api.revocations(&format!("?after={after}")).await;
            assert_eq!((sequences(&feed), feed.start_over, feed.next), (expected, false, 5), "after {after}");
        }
        // All of the agents' feed has left: a follower that was behind learns once, and goes on from its end.
        let feed = api.revocations("?after=5").await;
        assert_eq!((feed.agents.len(), feed.agents_start_over, feed.agents_next), (0, true, 1));
        let feed = api.revocations("?after=5&agents_after=1").await;
        assert_eq!((feed.agents_start_over, feed.agents_next), (false, 1));
        let ended = end_one(&api, &key).await;
        let feed = other.revocations("?after=5&agents_after=1").await;
        assert_eq!((feed.agents[0].sequence, feed.agents[0].agent), (2, ended.id()));
        assert!(!feed.agents_start_over);
        // Numbers go on as if nothing had left.
        let next = revoke_one(&api, &key).await;
        let feed = other.revocations("?after=5").await;
        assert_eq!((keys(&feed), sequences(&feed), feed.start_over), (vec![next], vec![6], false));
        other.stop().await;
        api.stop().await;
    }

    async fn a_cursor_from_another_database_misses_nothing(backend: Backend) {
        let api = TestApi::start(backend).await;
        let key = api.account("acme").await.key.secret;
        let (revoked, ended) = (revoke_one(&api, &key).await, end_one(&api, &key).await);
        for after in [2, 1_000_000, i64::MAX.cast_unsigned()] {
            let feed = api.revocations(&format!("?after={after}&agents_after={after}")).await;
            assert_eq!((keys(&feed), feed.next, feed.start_over), (vec![revoked], 1, true));
            assert_eq!((feed.agents[0].agent, feed.agents_next, feed.agents_start_over), (ended.id(), 1, true));
        }
        api.stop().await;
    }

    async fn a_page_is_bounded_and_pages_give_everything_once(backend: Backend) {
        let api = TestApi::start(backend).await;
        let key = api.account("acme").await.key.secret;
        revoke_one(&api, &key).await;
        api.advance(REVOCATIONS_KEPT + Duration::from_secs(2));
        let mut revoked = Vec::new();
        for _ in 0..7 {
            revoked.push(revoke_one(&api, &key).await);
        }
        let other = swept(&api, |feed| feed.revocations.len() == 7).await;
        let (mut after, mut told, mut beginnings) = (0, Vec::new(), 0);
        loop {
            let feed = other.revocations(&format!("?after={after}&limit=3")).await;
            assert!(feed.revocations.len() <= 3);
            if feed.revocations.is_empty() {
                break;
            }
            beginnings += usize::from(feed.start_over);
            told.extend(keys(&feed));
            after = feed.next;
        }
        assert_eq!((told, beginnings), (revoked, 1));
        other.stop().await;
        api.stop().await;
    }
}
