//! API keys: whether they are in force, by the API's word.
//!
//! The API is asked when a key's first link comes in, and then again and again while links of the key are up: once for all of
//! them. A key that was revoked or has ended takes its links with it.

use crate::error::Refusal;
use data_encoding::HEXLOWER;
use lru::LruCache;
use parking_lot::Mutex;
use skytale_proto::rest::{API_KEY_PREFIX, Relays};
use skytale_proto::{AccountId, Code, KeyId};
use skytale_sdk::internals::net::Method;
use skytale_sdk::{ApiClient, ApiError, ApiKey};
use std::collections::HashMap;
use std::fmt;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use tokio::time::sleep;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Maximum time for which links go on while the API gives no answer: as long as an agent's token would.
const UNHEARD_MAX: Duration = Duration::from_hours(1);
/// Keys that were refused, as far as they are remembered.
const REFUSED_MAX: NonZeroUsize = NonZeroUsize::new(4_096).expect("not 0");
/// Questions to the API at once, for keys that are new here.
const ASKING_MAX: usize = 8;

/// SHA-256 of a key.
pub(crate) type KeyDigest = [u8; 32];

/// Reason why a key's links must end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The API does not take it any more.
    NotInForce,
    /// The API has not been heard for too long.
    Unheard,
}

impl From<Ended> for Refusal {
    fn from(ended: Ended) -> Self {
        match ended {
            Ended::NotInForce => Self::new(Code::BridgeUnauthorized, "the API key is no longer in force"),
            Ended::Unheard => Self::new(Code::LogUnreachable, "the API has not confirmed the key for an hour"),
        }
    }
}

/// A key that links are open with.
#[derive(Debug)]
struct Key {
    account: Option<AccountId>,
    heard: Mutex<Instant>,
    why: Mutex<Ended>,
    ended: CancellationToken,
}

/// A link's hold on its key.
#[derive(Clone, Debug)]
pub(crate) struct InForce(Arc<Key>);

impl InForce {
    /// The key's account, if the API names it.
    pub(crate) fn account(&self) -> Option<AccountId> {
        self.0.account
    }

    /// Ends when the key does.
    pub(crate) async fn ended(&self) -> Ended {
        self.0.ended.cancelled().await;
        *self.0.why.lock()
    }
}

/// The keys that links are open with.
pub(crate) struct Keys {
    url: String,
    every: Duration,
    known: Arc<Mutex<HashMap<KeyDigest, Arc<Key>>>>,
    /// Texts that are no keys, or none any more: nobody asks for them again and again.
    refused: Mutex<LruCache<KeyDigest, Instant>>,
    asking: Semaphore,
    stop: CancellationToken,
    _stop: DropGuard,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys").field("url", &self.url).finish_non_exhaustive()
    }
}

impl Keys {
    /// The API's word is asked for each `every`.
    pub(crate) fn new(url: String, every: Duration) -> Self {
        let stop = CancellationToken::new();
        Self {
            url,
            every,
            known: Arc::default(),
            refused: Mutex::new(LruCache::new(REFUSED_MAX)),
            asking: Semaphore::new(ASKING_MAX),
            _stop: stop.clone().drop_guard(),
            stop,
        }
    }

    /// Whether a key is in force, by an answer no older than `every`.
    pub(crate) async fn check(&self, key: &str, digest: KeyDigest) -> Result<InForce, Refusal> {
        if let Some(known) = self.known.lock().get(&digest)
            && known.heard.lock().elapsed() < self.every
        {
            return Ok(InForce(Arc::clone(known)));
        }
        if let Some(at) = self.refused.lock().get(&digest)
            && at.elapsed() < self.every
        {
            return Err(Refusal::new(
                Code::BridgeUnauthorized,
                "the API did not take this key a moment ago",
            ));
        }
        let _turn = self.asking.acquire().await;
        let client = ApiKey::new(key)
            .and_then(|key| ApiClient::new(&self.url, key))
            .map_err(|error| refusal(&error))?;
        let account = ask(&client).await.map_err(|error| {
            if is_denial(&error) {
                self.refused.lock().put(digest, Instant::now());
            }
            refusal(&error)
        })?;
        let mut known = self.known.lock();
        if let Some(key) = known.get(&digest) {
            *key.heard.lock() = Instant::now();
            return Ok(InForce(Arc::clone(key)));
        }
        let key = Arc::new(Key {
            account,
            heard: Mutex::new(Instant::now()),
            why: Mutex::new(Ended::NotInForce),
            ended: CancellationToken::new(),
        });
        known.insert(digest, Arc::clone(&key));
        drop(known);
        let watch = watch(Arc::clone(&self.known), client, digest, Arc::clone(&key), self.every);
        let stop = self.stop.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = watch => {}
            }
        });
        Ok(InForce(key))
    }
}

/// Any request of a key that is in force is answered. This one names the key's account.
async fn ask(client: &ApiClient) -> Result<Option<AccountId>, ApiError> {
    let answer: Relays = client.call(Method::Get, "/v1/relays?limit=1", None::<&()>).await?;
    Ok(answer.account)
}

/// Whether an answer means that the key is in force no more. A proxy's or a later version's error does not.
const fn is_denial(error: &ApiError) -> bool {
    matches!(error, ApiError::Refused { status: 401 | 403, .. })
}

async fn watch(
    known: Arc<Mutex<HashMap<KeyDigest, Arc<Key>>>>,
    client: ApiClient,
    digest: KeyDigest,
    key: Arc<Key>,
    every: Duration,
) {
    loop {
        sleep(every).await;
        {
            let mut known = known.lock();
            // The map's, and this task's: no link has it, and none can get it meanwhile.
            if Arc::strong_count(&key) <= 2 {
                known.remove(&digest);
                return;
            }
        }
        let why = match ask(&client).await {
            Ok(_) => {
                *key.heard.lock() = Instant::now();
                continue;
            }
            Err(error) if is_denial(&error) => Ended::NotInForce,
            Err(error) => {
                if key.heard.lock().elapsed() < UNHEARD_MAX {
                    tracing::warn!(%error, "the API does not say whether a key is in force");
                    continue;
                }
                Ended::Unheard
            }
        };
        *key.why.lock() = why;
        let mut known = known.lock();
        key.ended.cancel();
        known.remove(&digest);
        return;
    }
}

/// The id in a key's text.
pub(crate) fn id(key: &str) -> Option<KeyId> {
    let (id, _) = key.strip_prefix(API_KEY_PREFIX)?.split_once('_')?;
    let id = HEXLOWER.decode(id.as_bytes()).ok()?;
    Some(KeyId::from_bytes(id.try_into().ok()?))
}

fn refusal(error: &ApiError) -> Refusal {
    let code = if error.is_retryable() {
        Code::LogUnreachable
    } else {
        Code::BridgeUnauthorized
    };
    Refusal::new(code, format!("API key not taken: {error}"))
}
