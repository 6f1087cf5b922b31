//! Which keys were verified lately.

use parking_lot::Mutex;
use std::collections::HashSet;
use std::time::{Duration, Instant};
use zeroize::Zeroizing;

/// How many keys one generation remembers.
const GENERATION_MAX: usize = 4_096;
/// How long a generation is filled; a key is remembered for one to two of these.
const GENERATION: Duration = Duration::from_secs(60);

/// Remembers, for a minute or two, the texts of keys that fitted their hash.
///
/// Why: Argon2 takes tens of milliseconds and 19 MiB by design, and an agent asks several times in a row (nonce,
/// token, names). Without this a fleet that reconnects would be refused for want of hashing room. What it saves is
/// the hash and nothing else: each request still reads the key's row, so a key that was revoked, by any process,
/// is refused at once. It holds no keys but BLAKE3 hashes of them under a key of this process: in a memory dump
/// they are of no use elsewhere.
pub(crate) struct VerifiedKeys {
    key: Zeroizing<[u8; 32]>,
    generations: Mutex<Generations>,
}

struct Generations {
    young: HashSet<[u8; 32]>,
    old: HashSet<[u8; 32]>,
    began: Instant,
}

impl VerifiedKeys {
    pub(crate) fn new() -> Result<Self, getrandom::Error> {
        let mut key = Zeroizing::new([0; 32]);
        getrandom::fill(key.as_mut_slice())?;
        Ok(Self {
            key,
            generations: Mutex::new(Generations {
                young: HashSet::new(),
                old: HashSet::new(),
                began: Instant::now(),
            }),
        })
    }

    /// Whether this text was verified lately.
    pub(crate) fn contains(&self, text: &str) -> bool {
        let hash = self.hash(text);
        let mut generations = self.generations.lock();
        generations.turn(Instant::now());
        generations.young.contains(&hash) || generations.old.contains(&hash)
    }

    /// Remembers a text that was verified now.
    pub(crate) fn insert(&self, text: &str) {
        let hash = self.hash(text);
        let mut generations = self.generations.lock();
        generations.turn(Instant::now());
        generations.young.insert(hash);
    }

    /// Forgets everything: a key was revoked here.
    pub(crate) fn clear(&self) {
        let mut generations = self.generations.lock();
        generations.young.clear();
        generations.old.clear();
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

    #[test]
    fn a_key_is_remembered_until_it_is_forgotten() {
        let cache = VerifiedKeys::new().unwrap();
        assert!(!cache.contains("a"));
        cache.insert("a");
        assert!(cache.contains("a") && !cache.contains("b"));
        cache.clear();
        assert!(!cache.contains("a"));
    }

    #[test]
    fn it_holds_two_generations_and_no_more() {
        let cache = VerifiedKeys::new().unwrap();
        for n in 0..3 * GENERATION_MAX {
            cache.insert(&n.to_string());
        }
        let generations = cache.generations.lock();
        assert!(generations.young.len() + generations.old.len() <= 2 * GENERATION_MAX);
    }

    #[test]
    fn a_key_is_forgotten_with_time() {
        let cache = VerifiedKeys::new().unwrap();
        cache.insert("a");
        let mut generations = cache.generations.lock();
        let began = generations.began;
        generations.turn(began + GENERATION);
        assert_eq!(generations.old.len(), 1);
        generations.turn(began + 2 * GENERATION);
        assert!(generations.old.is_empty() && generations.young.is_empty());
    }
}
