//! The greeting: version, and proof of the vault's key from both sides.

use super::frame::{self, Frame, GREETING_BYTES_MAX, Kind};
use super::message::{decode, encode};
use crate::vault::{Key, random};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use skytale_proto::{AgentId, Code, EndpointId};
use std::io::{self, ErrorKind};
use tokio::io::{AsyncRead, AsyncWrite};

/// Version of the protocol after the greeting.
pub(super) const VERSION: u16 = 1;

type Nonce = [u8; 32];

/// The first frame. The same in every version: fields may be added.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Hello {
    pub(super) version: u16,
    pub(super) nonce: Nonce,
}

#[derive(Debug, Serialize, Deserialize)]
struct Challenge {
    nonce: Nonce,
}

#[derive(Debug, Serialize, Deserialize)]
struct Proof {
    proof: [u8; 32],
}

/// The owner's greeting.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Welcome {
    proof: [u8; 32],
    pub(super) agent: AgentId,
    pub(super) endpoint: EndpointId,
    pub(super) relay: Option<EndpointId>,
}

/// Reason for refusing a guest. The same in every version.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Refused {
    /// A code's number.
    pub(super) code: u32,
    pub(super) reason: String,
}

impl Refused {
    pub(super) fn new(code: Code, reason: impl Into<String>) -> Self {
        Self {
            code: code.number(),
            reason: reason.into(),
        }
    }

    /// Returns the code; [`Code::VaultOwnerVersion`] if this version does not know it.
    pub(super) fn code(&self) -> Code {
        Code::from_number(self.code).unwrap_or(Code::VaultOwnerVersion)
    }

    /// Encodes it as a frame.
    pub(super) fn frame(&self) -> io::Result<Vec<u8>> {
        frame::encode(Kind::Refused, 0, &encode(self)?)
    }
}

/// The side that proves: neither side can be shown its own proof.
#[derive(Clone, Copy)]
enum Side {
    Guest,
    Owner,
}

fn proof(key: &Key, side: Side, guest: &Nonce, owner: &Nonce) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new_keyed(key);
    hasher.update(match side {
        Side::Guest => b"guest",
        Side::Owner => b"owner",
    });
    hasher.update(guest);
    hasher.update(owner);
    hasher.finalize()
}

fn nonce() -> io::Result<Nonce> {
    let mut nonce = [0; 32];
    random(&mut nonce).map_err(io::Error::other)?;
    Ok(nonce)
}

/// Result of a greeting.
pub(super) enum Greeted<T> {
    In(T),
    Refused(Refused),
}

/// Runs the owner's side. `welcome` is called once the guest has proven the key.
pub(super) async fn receive<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    key: &Key,
    welcome: impl FnOnce() -> (AgentId, EndpointId, Option<EndpointId>),
) -> io::Result<Greeted<()>> {
    let hello: Hello = expect(next(stream).await?, Kind::Hello)?;
    if hello.version != VERSION {
        let reason = format!(
            "the process that has the vault open shares it in version {VERSION}, not {}",
            hello.version
        );
        return Ok(Greeted::Refused(Refused::new(Code::VaultOwnerVersion, reason)));
    }
    let nonce = nonce()?;
    send(stream, Kind::Challenge, &Challenge { nonce }).await?;
    let shown: Proof = expect(next(stream).await?, Kind::Proof)?;
    // In constant time.
    if proof(key, Side::Guest, &hello.nonce, &nonce) != shown.proof {
        return Ok(Greeted::Refused(Refused::new(Code::VaultKey, "the key is wrong")));
    }
    let (agent, endpoint, relay) = welcome();
    let welcome = Welcome {
        proof: proof(key, Side::Owner, &hello.nonce, &nonce).into(),
        agent,
        endpoint,
        relay,
    };
    send(stream, Kind::Welcome, &welcome).await?;
    Ok(Greeted::In(()))
}

/// Runs the guest's side.
pub(super) async fn introduce<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    key: &Key,
) -> io::Result<Greeted<Welcome>> {
    let nonce = nonce()?;
    send(
        stream,
        Kind::Hello,
        &Hello {
            version: VERSION,
            nonce,
        },
    )
    .await?;
    let challenge: Challenge = match refused(next(stream).await?)? {
        Ok(frame) => expect(frame, Kind::Challenge)?,
        Err(refused) => return Ok(Greeted::Refused(refused)),
    };
    let shown = Proof {
        proof: proof(key, Side::Guest, &nonce, &challenge.nonce).into(),
    };
    send(stream, Kind::Proof, &shown).await?;
    let welcome: Welcome = match refused(next(stream).await?)? {
        Ok(frame) => expect(frame, Kind::Welcome)?,
        Err(refused) => return Ok(Greeted::Refused(refused)),
    };
    if proof(key, Side::Owner, &nonce, &challenge.nonce) != welcome.proof {
        let reason = "the process at the vault's socket does not have the vault's key";
        return Ok(Greeted::Refused(Refused::new(Code::VaultKey, reason)));
    }
    Ok(Greeted::In(welcome))
}

async fn next(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Frame> {
    let frame = frame::read(stream, GREETING_BYTES_MAX, None).await?;
    frame.ok_or_else(|| ErrorKind::UnexpectedEof.into())
}

async fn send(stream: &mut (impl AsyncWrite + Unpin), kind: Kind, message: &impl Serialize) -> io::Result<()> {
    let frame = frame::encode(kind, 0, &encode(message)?)?;
    frame::write(stream, &frame).await
}

fn refused(frame: Frame) -> io::Result<Result<Frame, Refused>> {
    if frame.kind == Some(Kind::Refused) {
        return Ok(Err(decode(&frame.body)?));
    }
    Ok(Ok(frame))
}

fn expect<T: DeserializeOwned>(frame: Frame, kind: Kind) -> io::Result<T> {
    if frame.kind != Some(kind) {
        return Err(io::Error::new(ErrorKind::InvalidData, "unexpected message"));
    }
    decode(&frame.body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use zeroize::Zeroizing;

    type Ends = (io::Result<Greeted<()>>, io::Result<Greeted<Welcome>>);

    async fn greet(owner: [u8; 32], guest: [u8; 32]) -> Ends {
        let (mut a, mut b) = tokio::io::duplex(4096);
        let (owner, guest) = (Zeroizing::new(owner), Zeroizing::new(guest));
        let who = || (AgentId::from_bytes([1; 32]), EndpointId::from_bytes([2; 32]), None);
        let receiving = async {
            let received = receive(&mut a, &owner, who).await;
            if let Ok(Greeted::Refused(refused)) = &received {
                let frame = refused.frame().expect("small");
                frame::write(&mut a, &frame).await.expect("written");
            }
            received
        };
        tokio::join!(receiving, introduce(&mut b, &guest))
    }

    #[tokio::test]
    async fn both_sides_that_have_the_key_get_in() {
        let (owner, guest) = greet([7; 32], [7; 32]).await;
        assert!(matches!(owner, Ok(Greeted::In(()))));
        assert!(matches!(guest, Ok(Greeted::In(welcome)) if welcome.agent == AgentId::from_bytes([1; 32])));
    }

    #[tokio::test]
    async fn a_guest_without_the_key_is_refused_and_told_so() {
        let (owner, guest) = greet([7; 32], [8; 32]).await;
        assert!(matches!(owner, Ok(Greeted::Refused(refused)) if refused.code() == Code::VaultKey));
        assert!(matches!(guest, Ok(Greeted::Refused(refused)) if refused.code() == Code::VaultKey));
    }

    #[tokio::test]
    async fn an_owner_without_the_key_is_not_trusted() {
        let (mut a, mut b) = tokio::io::duplex(4096);
        let impostor = async {
            let hello: Hello = expect(next(&mut a).await.expect("read"), Kind::Hello).expect("a hello");
            send(&mut a, Kind::Challenge, &Challenge { nonce: [1; 32] })
                .await
                .expect("sent");
            let shown: Proof = expect(next(&mut a).await.expect("read"), Kind::Proof).expect("a proof");
            // The only proof it has seen is the guest's own.
            assert_eq!(hello.version, VERSION);
            let welcome = Welcome {
                proof: shown.proof,
                agent: AgentId::from_bytes([1; 32]),
                endpoint: EndpointId::from_bytes([2; 32]),
                relay: None,
            };
            send(&mut a, Kind::Welcome, &welcome).await.expect("sent");
        };
        let key = Zeroizing::new([7; 32]);
        let ((), guest) = tokio::join!(impostor, introduce(&mut b, &key));
        assert!(matches!(guest, Ok(Greeted::Refused(refused)) if refused.code() == Code::VaultKey));
    }

    #[tokio::test]
    async fn another_version_is_refused_by_name() {
        let (mut a, mut b) = tokio::io::duplex(4096);
        let hello = Hello {
            version: 2,
            nonce: [0; 32],
        };
        send(&mut b, Kind::Hello, &hello).await.expect("sent");
        let who = || (AgentId::from_bytes([1; 32]), EndpointId::from_bytes([2; 32]), None);
        let received = receive(&mut a, &Zeroizing::new([7; 32]), who).await;
        assert!(matches!(received, Ok(Greeted::Refused(refused)) if refused.code() == Code::VaultOwnerVersion));
    }
}
