//! Those who have everything of an agent but its identity key: a thief of its token and its endpoint's key, an API that signs
//! itself a token, a relay node in the middle.

use crate::client::{Agent, Client, NotStarted};
use crate::fixture::Fixture;
use crate::witness::Witness;
use iroh::SecretKey;
use skytale_proto::session::{Hello, hello_proof_message};
use skytale_proto::{Code, EndpointId};

/// The code of a Hello that begins no session.
fn code(outcome: Result<Client, NotStarted>) -> Code {
    let refused = outcome.err().expect("no session");
    let refusal = refused.refusal.expect("a refusal");
    assert_eq!(refusal.known_code(), refused.closed);
    refused.closed.expect("a code")
}

/// Says the Hello that is made of the connection and a good one.
async fn say(
    fixture: &Fixture,
    as_agent: &Agent,
    make: impl FnOnce(&iroh::endpoint::Connection, Hello) -> Hello,
) -> Code {
    let connection = as_agent.connect(&fixture.relay()).await.expect("connected");
    let hello = make(&connection, as_agent.hello(&connection, &fixture.token(as_agent)));
    code(Client::start_on(as_agent, connection, hello).await)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_and_an_endpoint_key_without_the_identity_key_start_nothing() {
    let fixture = Fixture::new().await;
    let mut witness = Witness::start(&fixture).await;
    let alice = Agent::new().await;
    // The same endpoint, the same token, another identity key: the thief's own, or that of an API that signs itself a token.
    let thief = Agent {
        identity: SecretKey::generate(),
        ..alice.clone()
    };
    assert_eq!(say(&fixture, &thief, |_, hello| hello).await, Code::AgentProof);
    let malformed: [&[u8]; 4] = [&[], &[0; 63], &[0; 64], &[0xff; 65]];
    for proof in malformed {
        let refused = say(&fixture, &alice, |_, hello| Hello {
            proof: proof.to_vec().into(),
            ..hello
        });
        assert_eq!(refused.await, Code::AgentProof, "{} bytes", proof.len());
    }
    witness.is_served().await;
    // An id that is no key at all has no proof.
    let nobody = Agent {
        id: skytale_proto::AgentId::from_bytes([0xee; 32]),
        ..alice.clone()
    };
    assert_eq!(say(&fixture, &nobody, |_, hello| hello).await, Code::AgentProof);
    fixture.session(&alice, &fixture.claims(&alice)).await.leave();
    witness.leave().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proof_is_good_for_one_connection_alone() {
    let (fixture, other) = (Fixture::new().await, Fixture::new().await);
    let alice = Agent::new().await;
    let earlier = alice.connect(&fixture.relay()).await.expect("connected");
    let seen = alice.proof(&earlier);
    let replayed = say(&fixture, &alice, |_, hello| Hello {
        proof: seen.to_vec().into(),
        ..hello
    });
    assert_eq!(replayed.await, Code::AgentProof, "of an earlier connection");
    // A relay node that passes on what an agent said to it has a connection of its own, with other keying material.
    let liar = alice.connect(&other.relay()).await.expect("connected");
    let passed_on = alice.proof(&liar);
    let passed_on = say(&fixture, &alice, |_, hello| Hello {
        proof: passed_on.to_vec().into(),
        ..hello
    });
    assert_eq!(passed_on.await, Code::AgentProof, "said to another relay node");
    // And what is signed names the relay node, the endpoint and the agent.
    let here = EndpointId::from_bytes(*fixture.relay().id.as_bytes());
    let there = EndpointId::from_bytes(*other.relay().id.as_bytes());
    let stranger = Agent::new().await;
    for (relay, endpoint, agent) in [
        (there, alice.endpoint_id(), alice.id),
        (here, stranger.endpoint_id(), alice.id),
        (here, alice.endpoint_id(), stranger.id),
    ] {
        let refused = say(&fixture, &alice, |connection, hello| {
            let exported = crate::client::exported(connection);
            let message = hello_proof_message(&relay, &endpoint, &agent, &exported);
            Hello {
                proof: alice.identity.sign(&message).to_bytes().to_vec().into(),
                ..hello
            }
        });
        assert_eq!(refused.await, Code::AgentProof);
    }
    fixture.session(&alice, &fixture.claims(&alice)).await.leave();
}
