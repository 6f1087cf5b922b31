//! Keys that were verified lately.

use super::text::{KeyName, KeyText};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::time::{Duration, Instant};
use zeroize::Zeroizing;

/// Maximum number of keys that one generation remembers.
const GENERATION_MAX: usize = 4_096;
/// Time for which a generation is filled; a key is remembered for one to two of these.
const GENERATION: Duration = Duration::from_secs(60);

/// Remembers, for a minute or two, the texts of keys that fitted their hash.
///
/// Why: Argon2 takes tens of milliseconds and 19 MiB by design, and an agent asks several times in a row (nonce, token,
/// names). Without this a fleet that reconnects would be refused for want of hashing room. It saves the hash and
/// nothing else: each request still reads the key's row, so a key that was revoked, by any process, is refused at once.
/// It holds no keys but BLAKE3 hashes of them under a key of this process: in a memory dump they are of no use
/// elsewhere.
pub(crate) struct VerifiedKeys {
    key: Zeroizing<[u8; 32]>,
    generations: Mutex<Generations>,
}

struct Generations {
    /// Hash of a key's text, by the key's id.
    young: HashMap<[u8; 16], [u8; 32]>,
    old: HashMap<[u8; 16], [u8; 32]>,
    began: Instant,
}

impl VerifiedKeys {
    pub(crate) fn new() -> Result<Self, getrandom::Error> {
        let mut key = Zeroizing::new([0; 32]);
        getrandom::fill(key.as_mut_slice())?;
        Ok(Self {
            key,
            generations: Mutex::new(Generations {
                young: HashMap::new(),
                old: HashMap::new(),
                began: Instant::now(),
            }),
        })
    }

    /// Whether this key's text was verified lately.
    pub(crate) fn contains<I: KeyName>(&self, key: &KeyText<'_, I>) -> bool {
        let hash = self.hash(key.secret);
        let mut generations = self.generations.lock();
        generations.turn(Instant::now());
        let known = [&generations.young, &generations.old];
        known.iter().any(|known| known.get(key.id.as_bytes()) == Some(&hash))
    }

    /// Remembers a text that was verified now.
    pub(crate) fn insert<I: KeyName>(&self, key: &KeyText<'_, I>) {
        let hash = self.hash(key.secret);
        let mut generations = self.generations.lock();
        generations.turn(Instant::now());
        generations.young.insert(*key.id.as_bytes(), hash);
    }

    /// Forgets a key that was revoked here, and no other: the others' next requests cost them no hash.
    pub(crate) fn forget<I: KeyName>(&self, id: I) {
        let mut generations = self.generations.lock();
        generations.young.remove(id.as_bytes());
        generations.old.remove(id.as_bytes());
    }

    fn hash(&self, text: &str) -> [u8; 32] {
        *blake3::keyed_hash(&self.key, text.as_bytes()).as_bytes()
    }
}

impl Generations {
    fn turn(&mut self, now: Instant) {
        let age = now.duration_since(self.began);
        if age >= GENERATION || self.young.len() >= GENERATION_MAX {
            self.old = std::mem::take(&mut self.young);
            self.began = now;
        }
        if age >= 2 * GENERATION {
            self.old.clear();
        }
    }
}

impl std::fmt::Debug for VerifiedKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("VerifiedKeys([redacted])")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use skytale_proto::KeyId;

    fn key(number: u32, secret: &str) -> KeyText<'_, KeyId> {
        let mut id = [0; 16];
        id[..4].copy_from_slice(&number.to_be_bytes());
        KeyText {
            id: KeyId::from_bytes(id),
            secret,
        }
    }

    #[test]
    fn a_key_is_remembered_until_it_is_forgotten_and_no_other_with_it() {
        let cache = VerifiedKeys::new().unwrap();
        assert!(!cache.contains(&key(1, "a")));
        cache.insert(&key(1, "a"));
        cache.insert(&key(2, "b"));
        assert!(cache.contains(&key(1, "a")) && cache.contains(&key(2, "b")));
        assert!(!cache.contains(&key(1, "b")) && !cache.contains(&key(2, "a")));
        cache.forget(key(1, "a").id);
        assert!(!cache.contains(&key(1, "a")) && cache.contains(&key(2, "b")));
    }

    #[test]
    fn it_holds_two_generations_and_no_more() {
        let cache = VerifiedKeys::new().unwrap();
        for n in 0..3 * GENERATION_MAX {
            cache.insert(&key(n as u32, "a"));
        }
        let generations = cache.generations.lock();
        assert!(generations.young.len() + generations.old.len() <= 2 * GENERATION_MAX);
    }

    #[test]
    fn a_key_is_forgotten_with_time() {
        let cache = VerifiedKeys::new().unwrap();
        cache.insert(&key(1, "a"));
        let mut generations = cache.generations.lock();
        let began = generations.began;
        generations.turn(began + GENERATION);
        assert_eq!(generations.old.len(), 1);
        generations.turn(began + 2 * GENERATION);
        assert!(generations.old.is_empty() && generations.young.is_empty());
    }
}
