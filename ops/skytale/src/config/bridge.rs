//! What `skytale bridge` needs: the section `[bridge]`, and the file of accounts that it names.

use super::{Loaded, Secret, loopback};
use crate::local::write_private;
use crate::output::{Context as _, Failure, Outcome};
use data_encoding::HEXLOWER_PERMISSIVE;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use skytale_bridge::policy::{Pattern, Policy, Rules};
use skytale_bridge::{
    AuthConfig, Bearer, BridgeConfig, BridgeError, BridgeLimits, BridgeTimes, Certificate, TlsConfig,
};
use skytale_proto::Code;
use skytale_sdk::agent::RelaySource;
use skytale_sdk::net::relay::NetworkConfig;
use skytale_sdk::net::{ApiClient, ApiKey};
use skytale_sdk::raw::RawConfig;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use zeroize::Zeroizing;

/// A bearer that is shorter can be guessed.
const BEARER_BYTES_MIN: usize = 32;

/// The section `[bridge]`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Bridge {
    /// Where it listens, for gRPC (TCP).
    pub listen: SocketAddr,
    /// Where its health and metrics are.
    pub admin_listen: SocketAddr,
    /// The file with the secret of its identity; made with mode 0600 where it is missing. No default.
    pub secret_key_file: Option<PathBuf>,
    /// The API that gives it tokens. No default.
    pub api_url: Option<String>,
    /// An API key of the account whose logs it uses. No default.
    pub api_key: Option<Secret>,
    /// What it calls itself in link negotiation.
    pub node_id: String,
    /// The bridges of one domain serve the same channels; the account by default.
    pub domain: Option<String>,
    /// The home region of the logs that it creates, and the region that it is in or nearest to.
    pub region: u8,
    /// Whether other bridges of the domain get transient frames.
    pub exchange: bool,
    /// The file with its accounts. No default: no accounts, no start.
    pub accounts_file: Option<PathBuf>,
    /// Whether API keys are taken from SLIM agents.
    pub api_keys: bool,
    /// The section `[bridge.tls]`.
    pub tls: Tls,
    /// Limits.
    pub limits: BridgeLimits,
    /// Times.
    pub times: BridgeTimes,
}

/// The section `[bridge.tls]`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Tls {
    /// The certificate chain, PEM. Read again when it changes.
    pub certificate_file: Option<PathBuf>,
    /// Its private key, PEM.
    pub key_file: Option<PathBuf>,
    /// Roots of client certificates, PEM.
    pub client_roots_file: Option<PathBuf>,
    /// Whether a client certificate is needed.
    pub client_required: bool,
}

impl Default for Bridge {
    fn default() -> Self {
        let config = BridgeConfig::new(loopback(7603));
        Self {
            listen: config.listen,
            admin_listen: loopback(7604),
            secret_key_file: None,
            api_url: None,
            api_key: None,
            node_id: config.node_id,
            domain: None,
            region: 0,
            exchange: config.exchange,
            accounts_file: None,
            api_keys: false,
            tls: Tls::default(),
            limits: config.limits,
            times: config.times,
        }
    }
}

/// All that a bridge needs to start.
#[derive(Debug)]
pub(crate) struct BridgeSetup {
    pub config: BridgeConfig,
    pub auth: AuthConfig,
    pub tls: Option<TlsConfig>,
    pub client: RawConfig,
}

/// The file of accounts.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Accounts {
    #[serde(default)]
    account: Vec<Account>,
}

/// One account: who it is, and what it may do.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Account {
    name: String,
    bearer: Option<Secret>,
    #[serde(default)]
    certificates: Vec<String>,
    names: Vec<String>,
    #[serde(default)]
    destinations: Vec<String>,
    #[serde(default)]
    node: bool,
}

impl Loaded {
    /// The bridge's configuration: what is missing is refused.
    pub(crate) fn bridge(&self) -> Outcome<BridgeSetup> {
        let bridge = &self.config.bridge;
        let secret_key_file = self.need("bridge.secret_key_file", bridge.secret_key_file.as_ref())?;
        let api_url = self.need("bridge.api_url", bridge.api_url.as_ref())?;
        let api_key = self.need("bridge.api_key", bridge.api_key.as_ref())?;
        let accounts_file = self.need("bridge.accounts_file", bridge.accounts_file.as_ref())?;
        let config = BridgeConfig {
            admin_listen: Some(bridge.admin_listen),
            node_id: bridge.node_id.clone(),
            domain: bridge.domain.clone(),
            region: bridge.region,
            exchange: bridge.exchange,
            limits: bridge.limits.clone(),
            times: bridge.times.clone(),
            ..BridgeConfig::new(bridge.listen)
        };
        config.check().map_err(|error| self.refused_bridge(&error))?;
        let key = api_key.reveal("bridge.api_key")?;
        let api = ApiKey::new(key.as_str())
            .and_then(|key| ApiClient::new(api_url, key))
            .map_err(|error| Failure::new(error.code(), "cannot use the bridge's API key").because(&error))?;
        let mut auth = accounts(accounts_file)?;
        auth.api_url = bridge.api_keys.then(|| api_url.clone());
        let client = identity(secret_key_file)?.config(Arc::new(api), bridge.region);
        Ok(BridgeSetup {
            config,
            auth,
            tls: self.bridge_tls()?,
            client,
        })
    }

    fn bridge_tls(&self) -> Outcome<Option<TlsConfig>> {
        let tls = &self.config.bridge.tls;
        let Some(certificates) = &tls.certificate_file else {
            return Ok(None);
        };
        let key = self.need("bridge.tls.key_file", tls.key_file.as_ref())?;
        Ok(Some(TlsConfig {
            certificates: certificates.clone(),
            key: key.clone(),
            client_roots: tls.client_roots_file.clone(),
            client_required: tls.client_required,
        }))
    }

    /// A configuration that the bridge does not take.
    pub(crate) fn refused_bridge(&self, error: &BridgeError) -> Failure {
        match error {
            BridgeError::Config { key, problem } => {
                let key = format!("bridge.{key}");
                let source = self.source(&key);
                Failure::new(error.code(), format!("configuration key `{key}` ({source}) {problem}"))
            }
            error => Failure::new(error.code(), "cannot start the bridge").because(error),
        }
    }
}

fn accounts(path: &Path) -> Outcome<AuthConfig> {
    let shown = path.display();
    let text = std::fs::read_to_string(path)
        .map(Zeroizing::new)
        .failing(Code::Environment, || {
            format!("cannot read the bridge's accounts from {shown}")
        })?;
    // The error of a parser repeats the line, in which a secret may be.
    let file: Accounts = toml::from_str(&text).map_err(|error| {
        let line = error
            .span()
            .map_or(0, |span| text.get(..span.start).unwrap_or_default().lines().count());
        Failure::new(Code::Config, format!("cannot read the bridge's accounts from {shown}"))
            .since(format!("line {line} is not what is expected there"))
    })?;
    let wrong =
        |account: &str, problem: &str| Failure::new(Code::Config, format!("{shown}: account `{account}`: {problem}"));
    let (mut auth, mut policy) = (AuthConfig::default(), Policy::default());
    for account in file.account {
        let name = &account.name;
        let patterns = |texts: &[String]| -> Outcome<Vec<Pattern>> {
            texts
                .iter()
                .map(|text| {
                    text.parse()
                        .map_err(|error| wrong(name, &format!("`{text}` is {error}")))
                })
                .collect()
        };
        let rules = Rules {
            names: patterns(&account.names)?,
            destinations: patterns(&account.destinations)?,
            node: account.node,
        };
        if policy.accounts.insert(name.clone(), rules).is_some() {
            return Err(wrong(name, "is listed twice"));
        }
        if let Some(bearer) = &account.bearer {
            let secret = bearer.reveal("bearer")?;
            if secret.len() < BEARER_BYTES_MIN {
                return Err(wrong(
                    name,
                    "its bearer is shorter than 32 bytes: `openssl rand -hex 32`",
                ));
            }
            auth.bearers.push(Bearer {
                account: name.clone(),
                secret: SecretString::from(secret.as_str()),
            });
        }
        for text in &account.certificates {
            let sha256 = HEXLOWER_PERMISSIVE
                .decode(text.replace(':', "").as_bytes())
                .ok()
                .and_then(|bytes| bytes.try_into().ok())
                .ok_or_else(|| wrong(name, &format!("`{text}` is not the SHA-256 of a certificate in hex")))?;
            auth.certificates.push(Certificate {
                account: name.clone(),
                sha256,
            });
        }
    }
    auth.policy = policy;
    Ok(auth)
}

/// A bridge's identity at the relay.
pub(crate) struct Identity(Zeroizing<[u8; 32]>);

impl Identity {
    /// What a client of raw logs is opened with.
    pub(crate) fn config(&self, api: Arc<ApiClient>, region: u8) -> RawConfig {
        let derive = |context| Zeroizing::new(blake3::derive_key(context, self.0.as_slice()));
        RawConfig {
            identity: derive("skytale bridge v1 identity"),
            endpoint: derive("skytale bridge v1 endpoint"),
            tokens: api,
            relays: RelaySource::Directory,
            region: Some(region),
            network: NetworkConfig::default(),
        }
    }
}

/// The identity whose secret a file has; made where there is none. One bridge process for each.
pub(crate) fn identity(file: &Path) -> Outcome<Identity> {
    let wrong = || format!("cannot use the bridge's secret key in {}", file.display());
    if !file.exists() {
        let mut secret = Zeroizing::new([0; 32]);
        getrandom::fill(secret.as_mut_slice())
            .map_err(|error| Failure::new(Code::Environment, wrong()).since(error.to_string()))?;
        let text = Zeroizing::new(data_encoding::HEXLOWER.encode(secret.as_slice()));
        write_private(file, text.as_bytes())?;
        return Ok(Identity(secret));
    }
    let text = Zeroizing::new(std::fs::read_to_string(file).failing(Code::Environment, wrong)?);
    let bytes = HEXLOWER_PERMISSIVE
        .decode(text.trim().as_bytes())
        .map(Zeroizing::new)
        .ok()
        .and_then(|bytes| <[u8; 32]>::try_from(bytes.as_slice()).ok())
        .ok_or_else(|| Failure::new(Code::Environment, wrong()).since("it does not hold 64 hex digits"))?;
    Ok(Identity(Zeroizing::new(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Outcome<AuthConfig> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("accounts.toml");
        std::fs::write(&path, text).expect("written");
        accounts(&path)
    }

    #[test]
    fn accounts_have_secrets_certificates_and_names() {
        let auth = read(
            "[[account]]\nname = 'a'\nbearer = '0123456789abcdef0123456789abcdef'\nnames = ['org/a/*']\n\
             [[account]]\nname = 'keys'\nnames = ['org/*/*']\ndestinations = ['other/x/y']\n",
        )
        .expect("read");
        assert_eq!(auth.bearers.len(), 1);
        assert_eq!(auth.policy.accounts.len(), 2);
        assert!(!format!("{auth:?}").contains("0123456789"));
    }

    #[test]
    fn what_is_wrong_is_named_and_no_secret_with_it() {
        for text in [
            "[[account]]\nname = 'a'\nbearer = 'marker-too-short'\nnames = ['a/b/c']\n",
            "[[account]]\nname = 'a'\nbearer = ['marker']\nnames = ['a/b/c']\n",
            "[[account]]\nname = 'a'\nbaerer = 'marker'\nnames = ['a/b/c']\n",
            "[[account]]\nname = 'a'\nnames = ['a/b']\n",
            "[[account]]\nname = 'a'\nnames = ['a/b/c']\ncertificates = ['00']\n",
            "[[account]]\nname = 'a'\nnames = ['a/b/c']\n[[account]]\nname = 'a'\nnames = ['a/b/c']\n",
        ] {
            let failure = read(text).expect_err(text);
            assert_eq!(failure.code(), Code::Config, "{text}");
            assert!(!failure.text(&crate::output::Style::PLAIN).contains("marker"), "{text}");
        }
    }

    #[test]
    fn an_identity_is_made_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("bridge.key");
        let first = identity(&file).expect("made");
        assert_eq!(identity(&file).expect("read").0, first.0);
        std::fs::write(&file, "short").expect("written");
        assert!(identity(&file).is_err());
    }
}
