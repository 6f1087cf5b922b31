//! Identity of a caller: an account, by its credentials.
//!
//! In this order: `authorization: Bearer` with a static bearer of the configuration or an API key of Skytale; else a client
//! certificate. Nothing else makes an account, and without one there is no link, unless everyone is let in (`dev`).
//!
//! A relay token is not taken: it is bound to an iroh endpoint (`cnf`), which a gRPC connection cannot prove.

use crate::error::Refusal;
use crate::keys::{self, InForce, KeyDigest, Keys};
use crate::policy::{Policy, Rules};
use data_encoding::HEXLOWER;
use ring::digest;
use secrecy::{ExposeSecret as _, SecretString};
use skytale_proto::Code;
use skytale_proto::rest::API_KEY_PREFIX;
use std::fmt;
use std::time::Duration;

/// The account of everyone, where everyone is let in.
const ANYONE: &str = "anyone";
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

/// Callers that the bridge lets in.
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
    /// Rules of each account.
    pub policy: Policy,
}

/// Credentials of a connection.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shown {
    /// SHA-256 of its verified certificate.
    pub(crate) certificate: Option<[u8; 32]>,
}

/// A caller that is let in.
#[derive(Debug)]
pub(crate) struct Admitted {
    pub(crate) account: String,
    /// The account that its usage counts for: all keys of one account of the API are one.
    pub(crate) usage: String,
    pub(crate) rules: Rules,
    /// The key that it showed, if it was one.
    pub(crate) key: Option<InForce>,
}

pub(crate) struct Auth {
    config: AuthConfig,
    keys: Option<Keys>,
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Auth")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl Auth {
    /// The API's answer on a key is believed for `believed`.
    pub(crate) fn new(config: AuthConfig, believed: Duration) -> Self {
        let keys = config.api_url.clone().map(|url| Keys::new(url, believed));
        Self { config, keys }
    }

    /// The account of a caller, and its rules.
    pub(crate) async fn account(&self, authorization: Option<&[u8]>, shown: &Shown) -> Result<Admitted, Refusal> {
        if self.config.everyone {
            return Ok(Admitted {
                account: ANYONE.into(),
                usage: ANYONE.into(),
                rules: Rules::everything(),
                key: None,
            });
        }
        let (account, key) = match authorization {
            Some(credential) => self.bearer(credential).await?,
            None => (self.certificate(shown)?, None),
        };
        let rules = self.rules(&account);
        let of_api = key.as_ref().and_then(InForce::account);
        Ok(Admitted {
            usage: of_api.map_or_else(|| account.clone(), |id| format!("account:{id}")),
            account,
            rules,
            key,
        })
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

    async fn bearer(&self, credential: &[u8]) -> Result<(String, Option<InForce>), Refusal> {
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
        match (found, &self.keys) {
            (Some(account), _) => Ok((account, None)),
            (None, Some(keys)) if token.starts_with(API_KEY_PREFIX) => {
                let mut digest = [0; 32];
                digest.copy_from_slice(shown.as_ref());
                let (account, key) = self.api_key(keys, token, digest).await?;
                Ok((account, Some(key)))
            }
            (None, _) => Err(unknown()),
        }
    }

    async fn api_key(&self, keys: &Keys, key: &str, digest: KeyDigest) -> Result<(String, InForce), Refusal> {
        let id =
            keys::id(key).ok_or_else(|| Refusal::new(Code::BridgeUnauthorized, "a text that is not an API key"))?;
        let in_force = keys.check(key, digest).await?;
        Ok((format!("key:{id}"), in_force))
    }

    /// Returns the rules of an account. A key without rules of its own has those of `keys`.
    fn rules(&self, account: &str) -> Rules {
        let policy = &self.config.policy;
        let shared = account.starts_with("key:") && !policy.accounts.contains_key(account);
        policy.of(if shared { "keys" } else { account })
    }
}
