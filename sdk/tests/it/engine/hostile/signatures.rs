//! Signatures that are bad, or that only some rules of Ed25519 accept, in a catch-up that verifies many at once.

use super::*;
use curve25519_dalek::constants::{ED25519_BASEPOINT_TABLE, EIGHT_TORSION};
use curve25519_dalek::scalar::Scalar;
use sha2::Digest as _;

fn hash(parts: &[&[u8]]) -> Scalar {
    let mut hash = sha2::Sha512::new();
    parts.iter().for_each(|part| hash.update(part));
    Scalar::from_bytes_mod_order_wide(&hash.finalize().into())
}

/// A member whose signatures have nonces of mixed order. By RFC 8032's equation without the cofactor they are bad, by the
/// one with it they are valid.
struct Mixed<'a>(&'a Key);

impl Signer for Mixed<'_> {
    fn sign(&self, payload: &[u8]) -> Result<Vec<u8>, SignerError> {
        let public = self.0.public();
        let nonce = hash(&[b"nonce", payload]);
        let r = (ED25519_BASEPOINT_TABLE * &nonce + EIGHT_TORSION[1])
            .compress()
            .to_bytes();
        let s = nonce + hash(&[&r, &public, payload]) * self.0.0.to_scalar();
        Ok([r, s.to_bytes()].concat())
    }

    fn signature_scheme(&self) -> SignatureScheme {
        SignatureScheme::ED25519
    }
}

/// A member that signs every message badly.
struct Bad<'a>(&'a Key);

impl Signer for Bad<'_> {
    fn sign(&self, payload: &[u8]) -> Result<Vec<u8>, SignerError> {
        let mut signature = self.0.signature(payload);
        signature[40] ^= 1;
        Ok(signature.to_vec())
    }

    fn signature_scheme(&self) -> SignatureScheme {
        SignatureScheme::ED25519
    }
}

impl Rogue {
    /// Appends a message with another signature than OpenMLS would make.
    fn append_signed_by(&mut self, relay: &Relay, signer: impl Fn(&Key) -> Box<dyn Signer + '_>) -> Offset {
        let id = FrameId::generate();
        let group = self.group.as_mut().expect("a group");
        let signer = Boxed(signer(&self.key));
        let message = group.create_message(&self.provider, &signer, &envelope(id).encode_to_vec());
        let body = message.expect("encrypted").to_bytes().expect("encodes");
        let frame = self.frame(self.id(), id, Detail::Message, body);
        relay.append(frame).expect("the relay reads no MLS").offset
    }

    fn append_badly_signed(&mut self, relay: &Relay) -> Offset {
        self.append_signed_by(relay, |key| Box::new(Bad(key)))
    }
}

/// OpenMLS takes no trait objects.
struct Boxed<'a>(Box<dyn Signer + 'a>);

impl Signer for Boxed<'_> {
    fn sign(&self, payload: &[u8]) -> Result<Vec<u8>, SignerError> {
        self.0.sign(payload)
    }

    fn signature_scheme(&self) -> SignatureScheme {
        self.0.signature_scheme()
    }
}

/// Lets an agent say so many things, which nobody has read yet.
fn say(relay: &Relay, channel: ChannelId, agent: &mut Agent, messages: usize) {
    for number in 0..messages {
        agent.send(channel, &format!("{number}"));
    }
    settle(relay, channel, &mut [agent]);
}

/// Processes all entries that an agent has not seen, so many in each transaction.
fn catch_up(relay: &Relay, channel: ChannelId, agent: &mut Agent, at_once: usize) {
    let cursor = agent.engine().cursor(channel).expect("known");
    for records in relay.entries(channel.log(), cursor).chunks(at_once) {
        let processed = agent.engine().process_entries(channel, records).expect("processed");
        assert_eq!(processed.gap, None);
        agent.events.extend(processed.events);
    }
}

fn unreadable_offsets(events: &[Event]) -> Vec<Offset> {
    let offset = |event: &Event| match event {
        Event::EntryUnreadable { offset, .. } => Some(*offset),
        _ => None,
    };
    events.iter().filter_map(offset).collect()
}

#[test]
fn one_bad_signature_among_two_hundred_costs_one_repetition_and_is_named() {
    let relay = Relay::new();
    let (mut a, mut b) = (Agent::new(), Agent::new());
    let mut rogue = Rogue::among(&relay, &mut [&mut a, &mut b]);
    let channel = rogue.channel;
    say(&relay, channel, &mut a, 100);
    let bad = rogue.append_badly_signed(&relay);
    say(&relay, channel, &mut a, 100);
    let before = b.engine().signature_counts();
    catch_up(&relay, channel, &mut b, 1_000);
    let after = b.engine().signature_counts();
    assert_eq!(after.repeated - before.repeated, 1);
    // Each once in a batch, and once alone.
    assert_eq!(after.batched - before.batched, after.single - before.single);
    assert_eq!(unreadable_offsets(&b.take_events()), [bad]);
    assert_eq!(b.texts(channel).len(), 200);
    // Somebody who reads one entry at a time judges alike.
    assert_eq!(unreadable_offsets(&a.take_events()), [bad]);
    settle(&relay, channel, &mut [&mut a, &mut b]);
    assert_eq!(a.transcript(channel), b.transcript(channel));
    assert_agree(channel, &mut [&mut a, &mut b]);
}

#[test]
fn a_member_that_signs_nothing_well_costs_one_repetition_in_all() {
    let relay = Relay::new();
    let (mut a, mut b) = (Agent::new(), Agent::new());
    let mut rogue = Rogue::among(&relay, &mut [&mut a, &mut b]);
    let channel = rogue.channel;
    let mut bad = Vec::new();
    for _ in 0..20 {
        say(&relay, channel, &mut a, 10);
        bad.extend((0..10).map(|_| rogue.append_badly_signed(&relay)));
    }
    let before = b.engine().signature_counts();
    catch_up(&relay, channel, &mut b, 40);
    let after = b.engine().signature_counts();
    assert_eq!(after.repeated - before.repeated, 1);
    // In each transaction after the first two passes, only the bad member's signatures are verified alone.
    assert_eq!(after.single - before.single, 20 + 200);
    assert_eq!(unreadable_offsets(&b.take_events()), bad);
    assert_eq!(b.texts(channel).len(), 200);
}

#[test]
fn who_catches_up_takes_the_same_signatures_as_who_reads_live() {
    let relay = Relay::new();
    let (mut a, mut b) = (Agent::new(), Agent::new());
    let mut rogue = Rogue::among(&relay, &mut [&mut a, &mut b]);
    let channel = rogue.channel;
    let signature = Mixed(&rogue.key).sign(b"data").expect("signed");
    let signature = ed25519_dalek::Signature::from_slice(&signature).expect("64 bytes");
    let strictly = rogue.key.0.verifying_key().verify_strict(b"data", &signature);
    assert!(strictly.is_err(), "not what this test is for");
    for _ in 0..10 {
        rogue.append_signed_by(&relay, |key| Box::new(Mixed(key)));
        catch_up(&relay, channel, &mut a, 1);
        say(&relay, channel, &mut a, 3);
    }
    catch_up(&relay, channel, &mut b, 1_000);
    assert!(b.engine().signature_counts().batched >= 10);
    for agent in [&mut a, &mut b] {
        assert_eq!(unreadable_offsets(&agent.take_events()), []);
        assert_eq!(agent.texts(channel).len(), 40);
    }
    assert_eq!(a.transcript(channel), b.transcript(channel));
}
