//! The beginning: a Hello with a token that holds, or nothing.

use crate::node::Shared;
use crate::refusal;
use crate::session::state::of_endpoint;
use crate::stream::{Receiver, Sender, abort};
use iroh::endpoint::Connection;
use iroh::{PublicKey, Signature};
use skytale_proto::session::{HELLO_EXPORTED_BYTES, HELLO_EXPORTER_LABEL, Open, Refusal, hello_proof_message, open};
use skytale_proto::token::Claims;
use skytale_proto::{Code, EndpointId, limits};
use tokio::time::{Instant, timeout_at};

/// A control stream whose Hello was good.
#[derive(Debug)]
pub(crate) struct Admitted {
    pub(crate) sender: Sender,
    pub(crate) receiver: Receiver,
    pub(crate) claims: Claims,
}

/// A connection that gets no session.
#[derive(Debug)]
pub(crate) struct Refused {
    /// The control stream, where there was one.
    pub(crate) sender: Option<Sender>,
    /// Refusal to send; `None` if nobody is there to hear it.
    pub(crate) refusal: Option<Refusal>,
}

/// Waits for the Hello on the connection's first stream and verifies its token.
pub(crate) async fn admit(node: &Shared, connection: &Connection, deadline: Instant) -> Result<Admitted, Refused> {
    let nothing = |refusal| Refused { sender: None, refusal };
    let (sender, mut receiver) = match timeout_at(deadline, connection.accept_bi()).await {
        Ok(Ok((send, receive))) => (Sender::new(send), Receiver::new(receive)),
        Ok(Err(_)) => return Err(nothing(None)),
        Err(_) => return Err(nothing(Some(late()))),
    };
    match hello(node, connection, &mut receiver, deadline).await {
        Ok(claims) => Ok(Admitted {
            sender,
            receiver,
            claims,
        }),
        Err(refusal) => {
            if let Some(code) = refusal.as_ref().and_then(Refusal::known_code) {
                receiver.stop(code);
            }
            Err(Refused {
                sender: Some(sender),
                refusal,
            })
        }
    }
}

async fn hello(
    node: &Shared,
    connection: &Connection,
    receiver: &mut Receiver,
    deadline: Instant,
) -> Result<Claims, Option<Refusal>> {
    let read = timeout_at(deadline, first_message(connection, receiver));
    let open = read.await.map_err(|_| Some(late()))??;
    let Some(open::Stream::Hello(hello)) = open.stream else {
        return Err(Some(Refusal::because(
            Code::HelloExpected,
            "the first stream must begin with a Hello",
        )));
    };
    let endpoint = EndpointId::from_bytes(*connection.remote_id().as_bytes());
    let claims = node.trust.authentic(&hello.token).await.map_err(Some)?;
    let agent = claims.sub;
    let admitted = admissible(node, claims, &endpoint, hello.last_resort);
    let admitted = admitted.and_then(|claims| proven(node, connection, &endpoint, &hello.proof, claims));
    admitted.map_err(|refusal| {
        if let Some(tap) = &node.tap {
            tap.refused(agent, refusal.known_code());
        }
        Some(refusal)
    })
}

/// The claims of a known agent, if they give it a session here and now.
fn admissible(node: &Shared, claims: Claims, endpoint: &EndpointId, last_resort: bool) -> Result<Claims, Refusal> {
    node.trust.in_force(&claims)?;
    let claims = of_endpoint(claims, endpoint)?;
    if node.is_draining() {
        return Err(Refusal::because(Code::Draining, "this relay node is about to stop"));
    }
    if node.clock.is_wrong() && !last_resort {
        return Err(Refusal::because(
            Code::ClockWrong,
            "this relay node's clock differs from the one that it is measured by",
        ));
    }
    Ok(claims)
}

/// The claims, if the holder of the agent's identity key is at the other end of this very connection. Neither the API
/// nor a thief of a token and an endpoint's key can sign that.
fn proven(
    node: &Shared,
    connection: &Connection,
    endpoint: &EndpointId,
    proof: &[u8],
    claims: Claims,
) -> Result<Claims, Refusal> {
    let refused = |reason| Refusal::because(Code::AgentProof, reason);
    let mut exported = [0; HELLO_EXPORTED_BYTES];
    connection
        .export_keying_material(&mut exported, HELLO_EXPORTER_LABEL, b"")
        .map_err(|_| refused("this connection has no keying material for a proof"))?;
    let message = hello_proof_message(&node.endpoint, endpoint, &claims.sub, &exported);
    let proof: &[u8; 64] = proof
        .try_into()
        .map_err(|_| refused("the Hello must carry a proof of 64 bytes"))?;
    let key = PublicKey::from_bytes(claims.sub.as_bytes()).map_err(|_| refused("the agent's id is no Ed25519 key"))?;
    key.verify(&message, &Signature::from_bytes(proof))
        .map_err(|_| refused("the Hello's proof is not by the agent that the token names, for this connection"))?;
    Ok(claims)
}

/// The first stream's Open. Other streams that come before it are given back.
async fn first_message(connection: &Connection, receiver: &mut Receiver) -> Result<Open, Option<Refusal>> {
    loop {
        tokio::select! {
            biased;
            open = receiver.message::<Open>(limits::HELLO_BYTES_MAX) => {
                return match open {
                    Ok(Some(open)) => Ok(open),
                    Ok(None) => Err(Some(Refusal::because(Code::HelloExpected, "the control stream ended without a Hello"))),
                    Err(error) => Err(refusal::of_receive(&error)),
                };
            }
            stream = connection.accept_bi() => {
                let (send, receive) = stream.map_err(|_| None)?;
                abort(&mut Sender::new(send), &mut Receiver::new(receive), Code::HelloExpected);
                crate::metrics::refused(Some(Code::HelloExpected));
            }
        }
    }
}

fn late() -> Refusal {
    Refusal::because(Code::HelloTimeout, "no Hello came in time")
}
