//! Hashing of API keys, bounded in memory and in waiting requests.

use super::turns::{Turn, Turns};
use super::workers::Workers;
use argon2::password_hash::phc::{Output, ParamsString, PasswordHash, Salt};
use argon2::{ARGON2ID_IDENT, Algorithm, Argon2, Block, Params, Version};
use skytale_proto::AccountId;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;
use zeroize::Zeroizing;

/// Memory of one hash, in KiB: OWASP's first recommendation for Argon2id (19 MiB, 2 passes, 1 lane). A key's
/// secret has 256 random bits, so no cost makes guessing feasible or infeasible: the hash is there so that a
/// stolen database gives no keys, and it costs enough for the day that a key is made by a worse generator.
const MEMORY_KIB: u32 = 19 * 1_024;
const PASSES: u32 = 2;
const LANES: u32 = 1;
const HASH_BYTES: usize = 32;
const SALT_BYTES: usize = 16;
/// Time after which a caller that found no room may retry.
pub(crate) const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Reason why a hash was not computed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HashError {
    /// Too many requests wait for a hash.
    #[error("too many keys wait to be checked")]
    TooBusy,
    /// It failed.
    #[error("key hash: {0}")]
    Failed(String),
}

/// Asker of a hash, which waits for its turn: a network, and the account of the key that it claims to have. So a flood
/// from one network, or against one account, delays those who share both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Asking {
    pub(crate) network: IpAddr,
    pub(crate) account: Option<AccountId>,
}

impl Asking {
    /// An account whose key was checked before, or the operator.
    pub(crate) const fn known(account: Option<AccountId>) -> Self {
        Self {
            network: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            account,
        }
    }
}

/// Computes key hashes: so many at once, so many waiting, and not one more. A flood of keys, right or wrong, takes the
/// memory of `at_once` hashes, and callers that exceed the queue must come back later. Those who wait take turns, asker
/// by asker.
#[derive(Clone, Debug)]
pub(crate) struct KeyHasher {
    turns: Turns<Asking>,
    /// Maximum number of waiting requests of one asker.
    each_max: usize,
    workers: Workers,
    /// The hash of a key that nobody has: an id that is not known costs what a wrong secret costs.
    nobody: Arc<str>,
}

impl KeyHasher {
    pub(crate) fn new(at_once: usize, waiting_max: usize, each_max: usize) -> Result<Self, HashError> {
        let mut secret = Zeroizing::new([0u8; 32]);
        getrandom::fill(secret.as_mut_slice()).map_err(|error| HashError::Failed(error.to_string()))?;
        Ok(Self {
            turns: Turns::new(at_once, waiting_max),
            each_max,
            nobody: new_hash(secret.as_slice(), &mut Vec::new())?.into(),
            workers: Workers::start(at_once).map_err(failed)?,
        })
    }

    /// The hash of a secret, as a PHC string.
    pub(crate) async fn hash(&self, asking: Asking, secret: Zeroizing<String>) -> Result<String, HashError> {
        let turn = self.turn(asking).await?;
        self.run(turn, move |memory| new_hash(secret.as_bytes(), memory)).await
    }

    /// Whether a secret is the one of a hash; with no hash, it takes as long and is not. A secret that was verified
    /// while this waited is in the cache, and not computed again.
    pub(crate) async fn verify(
        &self,
        asking: Asking,
        secret: &str,
        hash: Option<&str>,
        is_cached: impl Fn() -> bool,
    ) -> Result<bool, HashError> {
        let turn = self.turn(asking).await?;
        if is_cached() {
            return Ok(true);
        }
        let secret = Zeroizing::new(secret.to_owned());
        let is_somebody = hash.is_some();
        let hash = hash.unwrap_or(&self.nobody).to_owned();
        let fits = self
            .run(turn, move |memory| fits(secret.as_bytes(), &hash, memory))
            .await?;
        Ok(fits && is_somebody)
    }

    async fn turn(&self, asking: Asking) -> Result<Turn<Asking>, HashError> {
        let turn = self.turns.take(asking, self.each_max).await;
        turn.map_err(|_| HashError::TooBusy)
    }

    async fn run<T: Send + 'static>(
        &self,
        turn: Turn<Asking>,
        compute: impl FnOnce(&mut Vec<Block>) -> Result<T, HashError> + Send + 'static,
    ) -> Result<T, HashError> {
        let computed = self.workers.run(move |memory| {
            // It goes with the computation, not with the request: one that was given up still takes its memory until it ends.
            let _turn = turn;
            compute(memory)
        });
        computed.await.ok_or_else(|| failed("the computation panicked"))?
    }
}

fn failed(error: impl std::fmt::Display) -> HashError {
    HashError::Failed(error.to_string())
}

fn new_hash(secret: &[u8], memory: &mut Vec<Block>) -> Result<String, HashError> {
    let params = Params::new(MEMORY_KIB, PASSES, LANES, Some(HASH_BYTES)).map_err(failed)?;
    let mut salt = [0; SALT_BYTES];
    getrandom::fill(&mut salt).map_err(failed)?;
    let hash = PasswordHash {
        algorithm: ARGON2ID_IDENT,
        version: Some(Version::V0x13.into()),
        params: ParamsString::try_from(&params).map_err(failed)?,
        salt: Some(Salt::new(&salt).map_err(failed)?),
        hash: Some(compute(secret, &salt, params, memory)?),
    };
    Ok(hash.to_string())
}

fn fits(secret: &[u8], hash: &str, memory: &mut Vec<Block>) -> Result<bool, HashError> {
    let hash = PasswordHash::new(hash).map_err(failed)?;
    let (Some(salt), Some(expected)) = (&hash.salt, &hash.hash) else {
        return Err(failed("a stored hash has no salt or no output"));
    };
    let params = Params::try_from(&hash).map_err(failed)?;
    // Outputs are compared in constant time.
    Ok(compute(secret, salt, params, memory)? == *expected)
}

fn compute(secret: &[u8], salt: &[u8], params: Params, memory: &mut Vec<Block>) -> Result<Output, HashError> {
    memory.resize(params.block_count(), Block::new());
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    let mut output = Zeroizing::new([0; HASH_BYTES]);
    argon2
        .hash_password_into_with_memory(secret, salt, output.as_mut_slice(), memory)
        .map_err(failed)?;
    Output::new(output.as_slice()).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHO: Asking = Asking::known(None);

    fn text(secret: &str) -> Zeroizing<String> {
        Zeroizing::new(secret.to_owned())
    }

    #[tokio::test]
    async fn a_secret_fits_its_own_hash_alone() {
        let hasher = KeyHasher::new(2, 8, 8).unwrap();
        let hash = hasher.hash(WHO, text("one")).await.unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        assert!(hasher.verify(WHO, "one", Some(&hash), || false).await.unwrap());
        assert!(!hasher.verify(WHO, "two", Some(&hash), || false).await.unwrap());
        assert!(!hasher.verify(WHO, "one", None, || false).await.unwrap());
        assert_ne!(hash, hasher.hash(WHO, text("one")).await.unwrap(), "salted");
    }

    #[tokio::test]
    async fn who_finds_no_room_is_told_to_come_back() {
        let hasher = KeyHasher::new(1, 1, 1).unwrap();
        let first = hasher.turn(WHO).await.unwrap();
        let waiting = tokio::spawn({
            let hasher = hasher.clone();
            async move { hasher.verify(WHO, "one", None, || false).await.is_ok() }
        });
        while hasher.turns.waiting() == 0 {
            tokio::task::yield_now().await;
        }
        assert!(matches!(hasher.hash(WHO, text("x")).await, Err(HashError::TooBusy)));
        drop(first);
        assert!(waiting.await.unwrap());
        assert!(hasher.hash(WHO, text("x")).await.is_ok());
    }
}
