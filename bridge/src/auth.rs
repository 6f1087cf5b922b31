//! Who a caller is: an account, by what it shows.
//!
//! In this order: `authorization: Bearer` with a static bearer of the configuration or an API key of Skytale; else a client
//! certificate. Nothing else makes an account, and without one there is no link, unless everyone is let in (`dev`).
//!
//! A relay token is not taken: it is bound to an iroh endpoint (`cnf`), which a gRPC connection cannot prove.

use crate::error::Refusal;
use crate::policy::{Policy, Rules};
use data_encoding::HEXLOWER;
use lru::LruCache;
use parking_lot::Mutex;
use ring::digest;
use secrecy::{ExposeSecret as _, SecretString};
use skytale_proto::rest::API_KEY_PREFIX;
use skytale_proto::{Code, KeyId};
use skytale_sdk::net::{ApiClient, ApiKey};
use std::fmt;
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

/// The account of everyone, where everyone is let in.
const ANYONE: &str = "anyone";
/// How long the API's word on a key is believed: a revoked key makes no new link after that.
const KEY_BELIEVED: Duration = Duration::from_secs(20);
/// Keys whose standing is remembered.
const KEYS_MAX: usize = 1_024;
/// A credential, in bytes.
const CREDENTIAL_BYTES_MAX: usize = 4 * 1024;

/// A static bearer and the account that shows it.
#[derive(Clone)]
pub struct Bearer {
    /// The account's label in the policy.
    pub account: String,
    /// The secret.
    pub secret: SecretString,
}

impl fmt::Debug for Bearer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bearer")
            .field("account", &self.account)
            .field("secret", &"[redacted]")
            .finish()
    }
}

/// A client certificate and the account that shows it.
#[derive(Clone, Debug)]
pub struct Certificate {
    /// The account's label in the policy.
    pub account: String,
    /// SHA-256 of the certificate (DER).
    pub sha256: [u8; 32],
}

/// Whom the bridge lets in.
#[derive(Clone, Debug, Default)]
pub struct AuthConfig {
    /// Everyone, with all names. For `dev`: the bridge refuses it beyond loopback.
    pub everyone: bool,
    /// Static bearers.
    pub bearers: Vec<Bearer>,
    /// Client certificates.
    pub certificates: Vec<Certificate>,
    /// The API that knows API keys. A key's account in the policy is `key:` and the key's id; or `keys`, where that has no
    /// rules.
    pub api_url: Option<String>,
    /// What each account may do.
    pub policy: Policy,
}

/// What a connection shows.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shown {
    /// SHA-256 of its verified certificate.
    pub(crate) certificate: Option<[u8; 32]>,
}

pub(crate) struct Auth {
    config: AuthConfig,
    keys: Mutex<LruCache<[u8; 32], (String, Instant)>>,
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Auth")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl Auth {
    pub(crate) fn new(config: AuthConfig) -> Self {
        Self {
            config,
            keys: Mutex::new(LruCache::new(NonZeroUsize::new(KEYS_MAX).unwrap_or(NonZeroUsize::MIN))),
        }
    }

    /// The account of a caller, and what it may do.
    pub(crate) async fn account(
        &self,
        authorization: Option<&[u8]>,
        shown: &Shown,
    ) -> Result<(String, Rules), Refusal> {
        if self.config.everyone {
            return Ok((ANYONE.into(), Rules::everything()));
        }
        let account = match authorization {
            Some(credential) => self.bearer(credential).await?,
            None => self.certificate(shown)?,
        };
        let rules = self.config.policy.of(&account);
        Ok((account, rules))
    }

    fn certificate(&self, shown: &Shown) -> Result<String, Refusal> {
        let certificate = shown
            .certificate
            .ok_or_else(|| Refusal::new(Code::BridgeUnauthorized, "no bearer token and no client certificate"))?;
        self.config
            .certificates
            .iter()
            .find(|known| known.sha256 == certificate)
            .map(|known| known.account.clone())
            .ok_or_else(|| {
                let shown = HEXLOWER.encode(&certificate);
                Refusal::new(
                    Code::BridgeUnauthorized,
                    format!("the certificate with SHA-256 {shown} has no account"),
                )
            })
    }

    async fn bearer(&self, credential: &[u8]) -> Result<String, Refusal> {
        let unknown = || Refusal::new(Code::BridgeUnauthorized, "a bearer token that is not known");
        if credential.len() > CREDENTIAL_BYTES_MAX {
            return Err(unknown());
        }
        let text = std::str::from_utf8(credential).map_err(|_| unknown())?;
        let token = text
            .strip_prefix("Bearer ")
            .or_else(|| text.strip_prefix("bearer "))
            .ok_or_else(|| Refusal::new(Code::BridgeUnauthorized, "an authorization that is not `Bearer`"))?
            .trim();
        // Digests are compared, all of them: how long it takes tells nothing of a secret.
        let shown = digest::digest(&digest::SHA256, token.as_bytes());
        let mut found = None;
        for bearer in &self.config.bearers {
            let known = digest::digest(&digest::SHA256, bearer.secret.expose_secret().as_bytes());
            if known.as_ref() == shown.as_ref() {
                found = Some(bearer.account.clone());
            }
        }
        match (found, &self.config.api_url) {
            (Some(account), _) => Ok(account),
            (None, Some(url)) if token.starts_with(API_KEY_PREFIX) => {
                let mut digest = [0; 32];
                digest.copy_from_slice(shown.as_ref());
                self.api_key(url, token, digest).await
            }
            (None, _) => Err(unknown()),
        }
    }

    /// Asks the API whether a key is in force.
    async fn api_key(&self, url: &str, key: &str, digest: [u8; 32]) -> Result<String, Refusal> {
        if let Some((account, asked)) = self.keys.lock().get(&digest)
            && asked.elapsed() < KEY_BELIEVED
        {
            return Ok(account.clone());
        }
        let id = key
            .strip_prefix(API_KEY_PREFIX)
            .and_then(|rest| rest.split_once('_'))
            .and_then(|(id, _)| HEXLOWER.decode(id.as_bytes()).ok())
            .and_then(|id| id.try_into().ok())
            .map(KeyId::from_bytes)
            .ok_or_else(|| Refusal::new(Code::BridgeUnauthorized, "a text that is not an API key"))?;
        let refused = |error: skytale_sdk::net::ApiError| {
            let code = if error.is_retryable() {
                Code::LogUnreachable
            } else {
                Code::BridgeUnauthorized
            };
            Refusal::new(code, format!("API key not taken: {error}"))
        };
        let client = ApiKey::new(key)
            .and_then(|key| ApiClient::new(url, key))
            .map_err(refused)?;
        // Any request of a key that is in force is answered.
        client.relays().await.map_err(refused)?;
        let mut account = format!("key:{id}");
        if !self.config.policy.accounts.contains_key(&account) {
            account = "keys".into();
        }
        self.keys.lock().put(digest, (account.clone(), Instant::now()));
        Ok(account)
    }
}
