//! The keys that sign tokens: one that does, and those whose tokens have not all ended.
//!
//! They are in the database, so that every API process signs with the same one. A process looks there again every
//! few seconds, so for as long after a rotation another may still sign with the old key, which it has in memory;
//! the old key stays in the key set until the last such token has ended. Its seed is erased at once.
//!
//! The seed may be encrypted under another key encryption key while processes run ([`crate::rewrap`]): one that has the
//! signing key in memory goes on signing with it, and rotates no more until it is started with the new one.

use crate::audit::{Action, Actor, Series, Target};
use crate::config::KeyEncryptionKey;
use crate::request::Meta;
use crate::seal::{self, NONCE_BYTES, SealError};
use crate::store::signing_keys::{self, StoredSigningKey};
use crate::store::{Store, StoreError};
use parking_lot::RwLock;
use skytale_proto::limits::{CLOCK_SKEW_MAX, TOKEN_LIFETIME_MAX};
use skytale_proto::rest::{Jwk, Jwks};
use skytale_proto::token::{JWKS_KEYS_MAX, TokenSigner};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Mutex;
use zeroize::Zeroizing;

/// Maximum age of the view by which a process signs.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// Maximum age of the key set that a process gives out: another process may sign with a key that is a moment old.
const KEY_SET_AGE_MAX: Duration = Duration::from_secs(1);
/// Maximum time for which a look may keep back a key set that is at hand.
const LOOK_PATIENCE: Duration = Duration::from_secs(1);
/// Time for which a retired key stays in the key set: as long as a token lives, with the possible differences of clocks
/// and views.
const KEEP: Duration = Duration::from_secs(TOKEN_LIFETIME_MAX.as_secs() + CLOCK_SKEW_MAX.as_secs() + 60);

/// Reason why there is no key to sign with.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SigningError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Seal(#[from] SealError),
    #[error("the system gave no random bytes: {0}")]
    Random(#[from] getrandom::Error),
    #[error("the database has no key to sign with")]
    Missing,
    #[error("another rotation was under way, or {JWKS_KEYS_MAX} keys are in the key set already")]
    Contended,
}

/// Knowledge of a process about the keys.
#[derive(Clone)]
pub(crate) struct View {
    pub signer: Arc<TokenSigner>,
    pub jwks: Arc<Jwks>,
    /// Time at which the signing key was made, unix seconds.
    pub created_s: u64,
    looked: Instant,
}

/// The keys.
pub(crate) struct KeyRing {
    store: Store,
    key: KeyEncryptionKey,
    view: RwLock<View>,
    /// Time at which the key set was last looked for. Anyone may ask for it: it is looked for once at a time.
    tried: Mutex<Instant>,
}

impl KeyRing {
    /// Loads the keys; makes the first one where there is none.
    pub(crate) async fn open(store: Store, key: KeyEncryptionKey, now_s: u64) -> Result<Self, SigningError> {
        let view = match load(&store, &key, None, now_s).await {
            Err(SigningError::Missing) => {
                let first = generate(&key, now_s)?;
                let mut write = store.write().await?;
                match signing_keys::insert_active(&mut write, &first).await {
                    Ok(()) => write.commit().await?,
                    // Another process was first.
                    Err(error) if error.is_taken() => drop(write),
                    Err(error) => return Err(error.into()),
                }
                load(&store, &key, None, now_s).await?
            }
            loaded => loaded?,
        };
        Ok(Self {
            store,
            key,
            tried: Mutex::new(view.looked),
            view: RwLock::new(view),
        })
    }

    /// The key set, no older than a second; the one at hand where the database does not answer.
    pub(crate) async fn key_set(&self, now_s: u64) -> Arc<Jwks> {
        {
            let mut tried = self.tried.lock().await;
            let is_fresh = |at: Instant| at.elapsed() < KEY_SET_AGE_MAX;
            let looked = self.view.read().looked;
            if !is_fresh(*tried) && !is_fresh(looked) {
                match tokio::time::timeout(LOOK_PATIENCE, self.look(now_s)).await {
                    Ok(Ok(_)) => {}
                    Ok(Err(error)) => {
                        tracing::warn!(%error, "the key set at hand is given out: it cannot be looked up")
                    }
                    Err(_) => tracing::warn!("the key set at hand is given out: the database does not answer"),
                }
                *tried = Instant::now();
            }
        }
        Arc::clone(&self.view.read().jwks)
    }

    /// The keys, no older than a few seconds.
    pub(crate) async fn view(&self, now_s: u64) -> Result<View, SigningError> {
        let view = self.view.read().clone();
        if view.looked.elapsed() < LOOK_AGAIN {
            return Ok(view);
        }
        self.look(now_s).await
    }

    async fn look(&self, now_s: u64) -> Result<View, SigningError> {
        let signer = Arc::clone(&self.view.read().signer);
        let view = load(&self.store, &self.key, Some(signer), now_s).await?;
        *self.view.write() = view.clone();
        Ok(view)
    }

    /// Signs with a new key from now on. The old one verifies until its last token has ended.
    pub(crate) async fn rotate(&self, actor: Actor, meta: &Meta, now_s: u64) -> Result<View, SigningError> {
        let before = self.look(now_s).await?;
        if before.jwks.keys.len() >= JWKS_KEYS_MAX {
            return Err(SigningError::Contended);
        }
        let next = generate(&self.key, now_s)?;
        let mut write = self.store.write().await?;
        // A key that this process would seal under its own key must be found there under the same.
        for (kid, sealed) in signing_keys::lock_sealed(&mut write).await? {
            seal::open(&self.key, &kid, &sealed)?;
        }
        if !signing_keys::retire(&mut write, before.signer.kid(), now_s).await? {
            return Err(SigningError::Contended);
        }
        signing_keys::insert_active(&mut write, &next).await?;
        let action = Action {
            account: None,
            actor,
            name: "signing_key.rotate",
            target: Target::SigningKey(&next.kid),
            code: None,
            counted: Series::Single,
        };
        action.record(&mut write, meta, now_s).await?;
        write.commit().await?;
        tracing::info!(kid = next.kid, "tokens are signed with a new key");
        self.look(now_s).await
    }

    /// Drops the keys whose last token has ended.
    pub(crate) async fn tidy(&self, now_s: u64) -> Result<(), SigningError> {
        let mut write = self.store.write().await?;
        signing_keys::drop_retired(&mut write, now_s.saturating_sub(KEEP.as_secs())).await?;
        Ok(write.commit().await?)
    }
}

/// `known` is the signer that this process has, if it has one: the same key is not decrypted again.
async fn load(
    store: &Store,
    key: &KeyEncryptionKey,
    known: Option<Arc<TokenSigner>>,
    now_s: u64,
) -> Result<View, SigningError> {
    let retired_after_s = now_s.saturating_sub(KEEP.as_secs());
    let keys = signing_keys::list(&mut *store.read().await?, retired_after_s).await?;
    let active = keys.iter().find(|key| key.is_active).ok_or(SigningError::Missing)?;
    let sealed = active.sealed_seed.as_deref().ok_or(SigningError::Missing)?;
    let signer = match known {
        Some(known) if known.kid() == active.kid => known,
        _ => Arc::new(TokenSigner::from_seed(seal::open(key, &active.kid, sealed)?)),
    };
    let jwk = |key: &StoredSigningKey| Jwk {
        kid: key.kid.clone(),
        x: key.public_key.clone(),
        ..signer.jwk()
    };
    let jwks = Jwks {
        keys: keys.iter().take(JWKS_KEYS_MAX).map(jwk).collect(),
    };
    Ok(View {
        created_s: active.created_s,
        jwks: Arc::new(jwks),
        signer,
        looked: Instant::now(),
    })
}

fn generate(key: &KeyEncryptionKey, now_s: u64) -> Result<StoredSigningKey, SigningError> {
    let mut seed = Zeroizing::new([0; 32]);
    getrandom::fill(seed.as_mut_slice())?;
    let mut nonce = [0; NONCE_BYTES];
    getrandom::fill(&mut nonce)?;
    let signer = TokenSigner::from_seed(seed.clone());
    Ok(StoredSigningKey {
        kid: signer.kid().to_owned(),
        public_key: signer.jwk().x,
        sealed_seed: Some(seal::seal(key, signer.kid(), &seed, nonce)?),
        is_active: true,
        created_s: now_s,
    })
}
