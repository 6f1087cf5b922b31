use super::*;
use curve25519_dalek::constants::{ED25519_BASEPOINT_TABLE, EIGHT_TORSION};
use curve25519_dalek::edwards::EdwardsPoint;
use curve25519_dalek::scalar::Scalar;
use ed25519_dalek::{Signer as _, SigningKey};
use proptest::prelude::*;

type Signed = ([u8; 32], Vec<u8>, [u8; 64]);

fn sound(number: u8) -> Signed {
    let key = SigningKey::from_bytes(&[number; 32]);
    let data = vec![number; usize::from(number) + 1];
    let signature = key.sign(&data).to_bytes();
    (key.verifying_key().to_bytes(), data, signature)
}

/// Whether a signature is valid alone.
fn alone((key, data, signature): &Signed) -> bool {
    verify(key, data, signature).is_ok()
}

/// Whether signatures are valid in the batches of one transaction.
fn together(all: &[Signed]) -> bool {
    let signatures = Signatures::default();
    signatures.start();
    signatures.allow_batches();
    for (key, data, signature) in all {
        let put = signatures.deferring(|| signatures.verify(key, data, signature));
        assert_eq!(put, Ok(()), "judged later");
    }
    signatures.hand_over_rest();
    signatures.settle()
}

/// Encodings of all points of small order, those that are not canonical too.
fn small_order_encodings() -> Vec<[u8; 32]> {
    let mut encodings: Vec<[u8; 32]> = EIGHT_TORSION.iter().map(|point| point.compress().to_bytes()).collect();
    // y = 1 and y = 0 as p + 1 and p; and x = 0 with its sign bit set.
    let mut p = [0xff; 32];
    (p[0], p[31]) = (0xed, 0x7f);
    let mut p_plus_1 = p;
    p_plus_1[0] += 1;
    let mut one = [0; 32];
    one[0] = 1;
    let mut minus_one = p;
    minus_one[0] -= 1;
    for mut encoding in [p, p_plus_1, one, minus_one] {
        encodings.push(encoding);
        encoding[31] |= 0x80;
        encodings.push(encoding);
    }
    encodings.sort_unstable();
    encodings.dedup();
    encodings
}

#[test]
fn points_of_small_order_are_judged_alike_alone_and_in_batches() {
    let encodings = small_order_encodings();
    assert_eq!(encodings.len(), 14, "as ZIP 215 counts them");
    let mut all = Vec::new();
    for key in &encodings {
        for r in &encodings {
            let mut signature = [0; 64];
            signature[..32].copy_from_slice(r);
            let signed = (*key, b"Zcash".to_vec(), signature);
            assert!(alone(&signed), "{signed:?}");
            assert!(together(std::slice::from_ref(&signed)), "{signed:?}");
            all.push(signed);
        }
    }
    all.extend((0..100).map(sound));
    assert!(together(&all));
}

/// A signature whose key and nonce have parts of small order: `verify_strict` and the equation without cofactor refuse it.
fn mixed(number: u8, of_key: usize, of_nonce: usize) -> Signed {
    let (secret, nonce) = (
        Scalar::from(u64::from(number) + 7),
        Scalar::from(u64::from(number) + 11),
    );
    let point = |scalar: &Scalar, torsion: usize| -> EdwardsPoint {
        ED25519_BASEPOINT_TABLE * scalar + EIGHT_TORSION[torsion % EIGHT_TORSION.len()]
    };
    let key = point(&secret, of_key).compress().to_bytes();
    let r = point(&nonce, of_nonce).compress().to_bytes();
    let data = vec![number; 33];
    let k = challenge(&r, &key, &data);
    let s = nonce + k * secret;
    let mut signature = [0; 64];
    signature[..32].copy_from_slice(&r);
    signature[32..].copy_from_slice(s.as_bytes());
    (key, data, signature)
}

fn challenge(r: &[u8; 32], key: &[u8; 32], data: &[u8]) -> Scalar {
    use sha2::Digest as _;
    let hash = sha2::Sha512::new().chain_update(r).chain_update(key).chain_update(data);
    Scalar::from_bytes_mod_order_wide(&hash.finalize().into())
}

#[test]
fn points_of_mixed_order_are_judged_alike_alone_and_in_batches() {
    let all: Vec<Signed> = (0..64_u8)
        .map(|number| mixed(number, usize::from(number / 8), usize::from(number % 8)))
        .collect();
    assert!(all.iter().all(alone));
    assert!(all.iter().all(|signed| together(std::slice::from_ref(signed))));
    assert!(together(&all));
    let strictly = |(key, data, signature): &Signed| {
        let key = ed25519_dalek::VerifyingKey::from_bytes(key).expect("a point");
        key.verify_strict(data, &Signature::from_bytes(signature)).is_ok()
    };
    assert!(!all.iter().all(strictly), "they are not what this test is for");
}

#[test]
fn a_signature_whose_scalar_is_not_reduced_is_refused_in_both() {
    // s + l, the group's order.
    let (key, data, mut signature) = sound(3);
    let order: [u8; 32] = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
    ];
    let mut carry = 0;
    for (byte, add) in signature[32..].iter_mut().zip(order) {
        let sum = u16::from(*byte) + u16::from(add) + carry;
        *byte = u8::try_from(sum & 0xff).expect("a byte");
        carry = sum >> 8;
    }
    let signed = (key, data, signature);
    assert!(!alone(&signed));
    assert!(!together(&[signed]));
}

#[test]
fn a_key_or_a_signature_of_another_length_is_an_error_at_once() {
    let signatures = Signatures::default();
    signatures.start();
    signatures.allow_batches();
    let (key, data, signature) = sound(1);
    let put = |key: &[u8], signature: &[u8]| signatures.deferring(|| signatures.verify(key, &data, signature));
    assert_eq!(put(&key[..31], &signature), Err(CryptoError::CryptoLibraryError));
    assert_eq!(put(&key, &signature[..63]), Err(CryptoError::CryptoLibraryError));
    assert_eq!(
        put(&key, &[signature.as_slice(), &[0]].concat()),
        Err(CryptoError::CryptoLibraryError)
    );
    assert!(signatures.settle());
    assert_eq!(signatures.counts(), SignatureCounts::default());
}

#[test]
fn outside_of_what_may_wait_every_signature_is_verified_at_once() {
    let signatures = Signatures::default();
    let (key, data, mut signature) = sound(1);
    signature[40] ^= 1;
    let bad = Err(CryptoError::InvalidSignature);
    // Without a transaction that allows batches; and with one, outside of `deferring`.
    assert_eq!(signatures.deferring(|| signatures.verify(&key, &data, &signature)), bad);
    signatures.start();
    signatures.allow_batches();
    assert_eq!(signatures.verify(&key, &data, &signature), bad);
    assert!(signatures.settle());
    assert_eq!(signatures.counts().single, 2);
}

#[test]
fn what_a_transaction_left_behind_does_not_count_for_the_next_one() {
    let signatures = Signatures::default();
    let (key, data, mut signature) = sound(1);
    signature[40] ^= 1;
    signatures.start();
    signatures.allow_batches();
    for _ in 0..SIGNATURES_HANDED_OVER + 1 {
        let put = signatures.deferring(|| signatures.verify(&key, &data, &signature));
        assert_eq!(put, Ok(()));
    }
    // Rolled back for another reason.
    signatures.start();
    assert!(signatures.settle());
    assert!(!signatures.take_batch_failed());
}

#[test]
fn a_key_of_a_bad_signature_is_trusted_with_no_batch_again() {
    let signatures = Signatures::default();
    let (key, data, mut signature) = sound(1);
    signature[40] ^= 1;
    signatures.start();
    signatures.allow_batches();
    assert_eq!(
        signatures.deferring(|| signatures.verify(&key, &data, &signature)),
        Ok(())
    );
    assert!(!signatures.settle());
    assert!(signatures.take_batch_failed());
    assert!(!signatures.take_batch_failed(), "it is reported once");
    // The repetition.
    signatures.start();
    let bad = Err(CryptoError::InvalidSignature);
    assert_eq!(signatures.deferring(|| signatures.verify(&key, &data, &signature)), bad);
    assert!(signatures.settle());
    signatures.start();
    signatures.allow_batches();
    assert_eq!(signatures.deferring(|| signatures.verify(&key, &data, &signature)), bad);
    assert!(signatures.settle());
    assert_eq!(signatures.counts().repeated, 1);
}

#[test]
fn the_keys_that_are_remembered_are_bounded() {
    let mut distrusted = Distrusted::default();
    for number in 0..DISTRUSTED_MAX + 10 {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&number.to_le_bytes());
        distrusted.add(key);
        distrusted.add(key);
    }
    assert_eq!(distrusted.keys.len(), DISTRUSTED_MAX);
    assert_eq!(distrusted.oldest_first.len(), DISTRUSTED_MAX);
    assert!(!distrusted.keys.contains(&[0; 32]), "the oldest was forgotten");
}

proptest! {
    /// A batch fails exactly if one of its signatures is not valid alone, whatever was changed, and wherever it lies.
    #[test]
    fn a_batch_is_valid_if_each_of_its_signatures_is(
        count in 1_u8..150,
        changes in prop::collection::vec((any::<prop::sample::Index>(), 0_usize..100, 1_u8..=255), 0..3),
    ) {
        let mut all: Vec<Signed> = (0..count).map(|number| match number % 3 {
            0 => mixed(number, usize::from(number), usize::from(number / 3)),
            _ => sound(number),
        }).collect();
        for (which, byte, flip) in changes {
            let which = which.index(all.len());
            let (key, data, signature) = &mut all[which];
            match byte {
                0..64 => signature[byte] ^= flip,
                64..96 => key[byte - 64] ^= flip,
                _ => data[0] ^= flip,
            }
        }
        prop_assert_eq!(together(&all), all.iter().all(alone));
    }
}

/// Occupies all threads that verify, until it is dropped. Two would wait for each other's threads.
struct Occupied {
    _held: Vec<Sender<()>>,
    _alone: parking_lot::MutexGuard<'static, ()>,
}

impl Occupied {
    fn all() -> Self {
        static ALONE: Mutex<()> = Mutex::new(());
        let alone = ALONE.lock();
        let threads = pool().map_or(0, ThreadPool::current_num_threads);
        let (began, begun) = channel();
        let hold = |_| {
            let (release, released) = channel::<()>();
            let began = began.clone();
            if let Some(pool) = pool() {
                pool.spawn(move || {
                    let _ = began.send(());
                    let _ = released.recv();
                });
            }
            release
        };
        let held = (0..threads).map(hold).collect();
        assert_eq!(begun.iter().take(threads).count(), threads);
        Self {
            _held: held,
            _alone: alone,
        }
    }
}

#[test]
fn batches_that_no_thread_has_begun_are_verified_where_they_are_awaited() {
    let occupied = Occupied::all();
    let mut all: Vec<Signed> = (0..200).map(sound).collect();
    assert!(together(&all), "and it does not wait for the threads");
    for bad in [0, 100, 199] {
        all[bad].2[40] ^= 1;
        assert!(!together(&all), "signature {bad} is bad");
        all[bad].2[40] ^= 1;
    }
    drop(occupied);
}

#[test]
fn batches_of_a_transaction_that_ended_are_given_up() {
    let occupied = Occupied::all();
    let signatures = Signatures::default();
    signatures.start();
    signatures.allow_batches();
    let (key, data, mut signature) = sound(1);
    signature[40] ^= 1;
    for _ in 0..100 {
        assert_eq!(
            signatures.deferring(|| signatures.verify(&key, &data, &signature)),
            Ok(())
        );
    }
    signatures.hand_over_rest();
    // The next one has only its own.
    signatures.start();
    let batches = signatures.state.lock().handed_over.batches.len();
    assert_eq!(batches, 0);
    drop(occupied);
    assert!(signatures.settle());
    assert!(!signatures.take_batch_failed());
}
