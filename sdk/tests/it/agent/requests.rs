//! Agents of two accounts: rights to add each other, and additions by strangers until they are accepted.

use super::world::{World, event, soon};
use skytale_proto::{AccountId, Code};
use skytale_sdk::{AgentError, Consent, Event};
use std::time::Duration;

const FOREIGN: AccountId = AccountId::from_bytes([0xf0; 16]);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_adds_nobody_without_consent_and_asks_with_it() {
    let world = World::new().await;
    let bob = world.agent("bob").await;
    let mallory = world.agent_of("mallory", FOREIGN).await;
    let channel = mallory.create_channel("offers").await.expect("made");
    let refused = soon("an answer", channel.add(&[bob.id()])).await;
    let code = |error: &AgentError| error.code();
    assert_eq!(
        refused.as_ref().err().map(code),
        Some(Code::ClaimNotAllowed),
        "{refused:?}"
    );

    bob.set_consent(Consent::Anyone).await.expect("kept");
    soon("in force", bob.caught_up()).await.expect("current");
    let status = bob.consent().await.expect("known");
    assert!(status.in_force && status.account.is_some());
    let mut to_bob = bob.events();
    let added = soon("claimed", channel.add(&[bob.id()])).await.expect("claimed");
    soon("added", added.delivered()).await.expect("delivered");
    let sent = channel.send("buy now").await.expect("sent");
    soon("delivered", sent.delivered()).await.expect("delivered");
    let asked = event(&mut to_bob, "a request", |event| {
        matches!(event, Event::Requested { .. })
    })
    .await;
    assert_eq!(asked.channel(), Some(channel.id()));
    soon("current", bob.caught_up())
        .await
        .expect("nothing is owed for what waits");
    assert!(bob.channels().await.expect("listed").is_empty());
    let requests = bob.requests().await.expect("listed");
    assert_eq!((requests.len(), requests[0].by), (1, Some(mallory.id())));
    assert_eq!(requests[0].account, Some(FOREIGN));

    // Declined: it is let go, and nobody watching sees anything of the channel.
    bob.decline(channel.id()).await.expect("declined");
    let mut to_mallory = mallory.events();
    let is_gone = async {
        while channel.members().await.expect("listed").len() > 1 {
            let _ = tokio::time::timeout(Duration::from_millis(50), to_mallory.next()).await;
        }
    };
    soon("bob gone", is_gone).await;
    assert!(bob.channels().await.expect("listed").is_empty());
    assert!(bob.requests().await.expect("listed").is_empty());
    assert_eq!(
        bob.channel(channel.id()).await.err().as_ref().map(code),
        Some(Code::ChannelUnknown)
    );

    // Another one is accepted.
    let other = mallory.create_channel("talks").await.expect("made");
    let added = soon("claimed", other.add(&[bob.id()])).await.expect("claimed");
    soon("added", added.delivered()).await.expect("delivered");
    let sent = other.send("shall we talk?").await.expect("sent");
    soon("delivered", sent.delivered()).await.expect("delivered");
    let mut seen = Vec::new();
    let asked = async {
        loop {
            let event = to_bob.next().await.expect("open");
            let is_request = matches!(event, Event::Requested { .. });
            seen.extend(event.channel());
            if is_request {
                return;
            }
        }
    };
    soon("a request", asked).await;
    assert_eq!(seen, [other.id()], "nothing was told of what was declined");
    bob.accept(other.id()).await.expect("accepted");
    soon("joined", bob.caught_up()).await.expect("current");
    let joined = bob.channel(other.id()).await.expect("in the vault");
    let message = soon("a message", joined.messages().next()).await.expect("a message");
    assert_eq!(message.payload, "shall we talk?");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_agent_allows_is_kept_while_it_is_offline_and_in_force_when_it_is_back() {
    let world = World::new().await;
    let bob = world.open("bob").await;
    bob.set_consent(Consent::Anyone).await.expect("kept");
    assert!(!bob.consent().await.expect("known").in_force);
    bob.close(Duration::from_secs(5)).await;
    let bob = world.agent("bob").await;
    let status = bob.consent().await.expect("known");
    assert_eq!((status.consent, status.in_force), (Consent::Anyone, true));
    let mallory = world.agent_of("mallory", FOREIGN).await;
    let channel = mallory.create_channel("offers").await.expect("made");
    soon("claimed", channel.add(&[bob.id()])).await.expect("allowed");
}
