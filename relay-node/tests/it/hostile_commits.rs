//! A member that commits without pause: the others' commits are taken all the same.

use crate::client::Client;
use crate::fixture::{Fixture, claim, claim_as, commit, config, key_package, key_package_of, message, policy};
use crate::key_packages::claimed;
use skytale_proto::{AccountId, AgentId, ChannelId, ClaimRule, Code};

/// Commits until the relay node takes no more for now. Returns the handshake head.
async fn commit_without_pause(client: &Client, channel: ChannelId, author: AgentId, head: u64) -> u64 {
    let (head, code) = commit_until_refused(client, channel, author, head).await;
    assert_eq!(code, Code::RateLimited);
    head
}

async fn commit_until_refused(client: &Client, channel: ChannelId, author: AgentId, mut head: u64) -> (u64, Code) {
    loop {
        match client.append(&commit(channel, author, head, &[], &[])).await {
            Ok(appended) => head = appended.offset,
            Err(refusal) => {
                assert!(refusal.retryable && refusal.retry_after_ms > 0, "{refusal:?}");
                assert!(refusal.message.contains("commits"), "{refusal:?}");
                return (head, refusal.known_code().expect("a code"));
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_commits_without_pause_leaves_a_moment_for_anothers_commit() {
    let mut config = config();
    config.limits.commits_per_minute = 3;
    let fixture = Fixture::with(config).await;
    let (alice, a) = fixture.agent().await;
    let (mallory, m) = fixture.agent().await;
    m.append(&key_package(mallory.id, false)).await.expect("offered");
    claimed(&a, &claim(mallory.id, alice.id)).await;
    let channel = fixture.channel(&alice, &a).await;
    let adds = commit(channel, alice.id, 1, &[mallory.id], &[]);
    let head = a.append(&adds).await.expect("added").offset;

    let head = commit_without_pause(&m, channel, mallory.id, head).await;
    assert!(head >= 5, "three commits, then no more for a while");
    // A new session changes nothing; other frames and channels go on.
    let m = fixture.session(&mallory, &fixture.claims(&mallory)).await;
    let head = commit_without_pause(&m, channel, mallory.id, head).await;
    let spoken = m.append(&message(channel, mallory.id, head, "goes on")).await;
    spoken.expect("messages are no commits");
    let other = fixture.channel(&mallory, &m).await;
    m.append(&commit(other, mallory.id, 1, &[], &[]))
        .await
        .expect("another channel");

    // The correction of another member comes in.
    let removal = commit(channel, alice.id, head, &[], &[mallory.id]);
    a.append(&removal).await.expect("taken");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_puts_many_agents_of_its_own_on_the_roster_commits_no_more_with_them() {
    let mut config = config();
    config.limits.commits_per_minute = 3;
    config.limits.account_commits_per_minute = Some(7);
    let fixture = Fixture::with(config).await;
    let (alice, a) = fixture.agent().await;
    let channel = fixture.channel(&alice, &a).await;
    let mallory = AccountId::generate();
    let mut own = Vec::new();
    let mut head = 1;
    for _ in 0..4 {
        let (agent, client) = fixture.agent_with(|claims| claims.acct = mallory).await;
        for frame in [
            policy(agent.id, mallory, ClaimRule::Anyone),
            key_package_of(agent.id, mallory, false),
        ] {
            client.append(&frame).await.expect("offered");
        }
        own.push((agent, client));
    }
    // Alice adds the first; it adds the others.
    claimed(&a, &claim(own[0].0.id, alice.id)).await;
    for (agent, _) in &own[1..] {
        let claim = claim_as(agent.id, own[0].0.id, mallory);
        claimed(&own[0].1, &claim).await;
    }
    let adds = commit(channel, alice.id, head, &[own[0].0.id], &[]);
    head = a.append(&adds).await.expect("added").offset;
    let others: Vec<AgentId> = own[1..].iter().map(|(agent, _)| agent.id).collect();
    let adds = commit(channel, own[0].0.id, head, &others, &[]);
    head = own[0].1.append(&adds).await.expect("added").offset;
    let begun = head;

    let mut codes = Vec::new();
    for (agent, client) in &own {
        let code;
        (head, code) = commit_until_refused(client, channel, agent.id, head).await;
        codes.push(code);
    }
    assert!(codes.contains(&Code::AccountRateLimited), "{codes:?}");
    assert!(head - begun < 11, "as many as one account may: {}", head - begun);
    let removal = commit(channel, alice.id, head, &[], &[own[0].0.id]);
    a.append(&removal).await.expect("taken");
}
