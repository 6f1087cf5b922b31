//! Configuration of `skytale bridge`: the section `[bridge]`, and the file of accounts that it names.

use super::secret::secret_file;
use super::{Loaded, Problems, Secret, loopback};
use crate::local::write_private;
use crate::output::{Context as _, Failure, Outcome};
use data_encoding::HEXLOWER_PERMISSIVE;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use skytale_bridge::policy::{Pattern, Policy, Rules};
use skytale_bridge::{
    AuthConfig, Bearer, BridgeConfig, BridgeError, BridgeLimits, BridgeTimes, Certificate, TlsConfig,
};
use skytale_proto::{Code, Region};
use skytale_sdk::internals::raw::RawConfig;
use skytale_sdk::{ApiClient, NetworkConfig, RelaySource, TokenSource};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// A bearer that is shorter can be guessed.
const BEARER_BYTES_MIN: usize = 32;

/// The section `[bridge]`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Bridge {
    /// Address for gRPC (TCP).
    pub listen: SocketAddr,
    /// Address for health and metrics.
    pub admin_listen: SocketAddr,
    /// The file with the secret of its identity; made with mode 0600 where it is missing. No default.
    pub secret_key_file: Option<PathBuf>,
    /// The API that gives it tokens. No default.
    pub api_url: Option<String>,
    /// An API key of the account whose logs it uses. No default.
    pub api_key: Option<Secret>,
    /// Name of the bridge in link negotiation.
    pub node_id: String,
    /// The bridges of one domain serve the same channels; the account by default.
    pub domain: Option<String>,
    /// The home region of the logs that it creates, and the region that it is in or nearest to.
    pub region: u8,
    /// Whether other bridges of the domain get transient frames.
    pub exchange: bool,
    /// The file with its accounts. Other users may not open it, unless `shared-file:` is before its path. No default: no accounts,
    /// no start.
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
    /// Its private key, PEM. Other users may not open it, unless `shared-file:` is before its path.
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

/// Usable parts of a bridge's configuration.
pub(super) struct Checked {
    pub(super) config: BridgeConfig,
    pub(super) auth: AuthConfig,
    pub(super) tls: Option<TlsConfig>,
    pub(super) api: Option<ApiClient>,
}

/// The file of accounts.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Accounts {
    #[serde(default)]
    account: Vec<Account>,
}

/// One account: its credentials, and its rules.
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
    /// The bridge's configuration: all that is missing or wrong is refused at once.
    pub(crate) fn bridge(&self) -> Outcome<BridgeSetup> {
        let mut problems = self.problems.clone();
        let setup = self.bridge_setup(&mut problems);
        problems.outcome(" of `skytale bridge`")?;
        let (file, api) = match (&self.config.bridge.secret_key_file, setup.api) {
            (Some(file), Some(api)) => (file, api),
            _ => return Err(Failure::new(Code::Config, "the bridge's configuration is not whole")),
        };
        let client = identity(file)?.config(api, self.config.bridge.region);
        Ok(BridgeSetup {
            config: setup.config,
            auth: setup.auth,
            tls: setup.tls,
            client,
        })
    }

    /// The bridge's configuration as far as it can be used, and its problems. Nothing is made.
    pub(super) fn bridge_setup(&self, problems: &mut Problems) -> Checked {
        let bridge = &self.config.bridge;
        if let Some(file) = problems.need(self, "bridge.secret_key_file", bridge.secret_key_file.as_ref()) {
            let usable = match file.exists() {
                true => read_identity(file).map(|_| ()),
                false => self.can_be_made("bridge.secret_key_file", file),
            };
            problems.take("bridge.secret_key_file", usable);
        }
        let api = self.api_client(
            ("bridge.api_url", bridge.api_url.as_deref()),
            ("bridge.api_key", bridge.api_key.as_ref()),
            problems,
        );
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
        let accounts_file = problems.need(self, "bridge.accounts_file", bridge.accounts_file.as_ref());
        let mut auth = match accounts_file.map(|file| self.bridge_accounts(file)) {
            Some(Ok(auth)) => auth,
            Some(Err(failures)) => {
                let found = failures.into_iter();
                problems.extend(found.map(|failure| ("bridge.accounts_file".to_owned(), failure)));
                AuthConfig::default()
            }
            None => AuthConfig::default(),
        };
        auth.api_url = bridge.api_url.clone().filter(|_| bridge.api_keys);
        let tls = self.bridge_tls(problems);
        let found = config
            .problems_with(&auth, tls.as_ref())
            .into_iter()
            .filter_map(|error| {
                let BridgeError::Config { key, .. } = &error else {
                    return None;
                };
                Some((format!("bridge.{key}"), self.refused_bridge(&error)))
            });
        problems.extend(found);
        Checked { config, auth, tls, api }
    }

    /// Reads the file of accounts. Bearer secrets may be in it.
    fn bridge_accounts(&self, file: &Path) -> Result<AuthConfig, Vec<Failure>> {
        let key = "bridge.accounts_file";
        let what = format!("the bridge's accounts, `{key}` ({}),", self.source(key));
        let file = secret_file(file, &what).map_err(|failure| vec![failure])?;
        accounts(file)
    }

    fn bridge_tls(&self, problems: &mut Problems) -> Option<TlsConfig> {
        let tls = &self.config.bridge.tls;
        let Some(certificates) = &tls.certificate_file else {
            for (key, is_set) in [
                ("bridge.tls.key_file", tls.key_file.is_some()),
                ("bridge.tls.client_roots_file", tls.client_roots_file.is_some()),
            ] {
                if is_set {
                    problems.add(
                        key,
                        self.refused(key, "is of no use without `bridge.tls.certificate_file`"),
                    );
                }
            }
            return None;
        };
        let key = problems.need(self, "bridge.tls.key_file", tls.key_file.as_ref())?;
        let what = format!(
            "the private key of `bridge.tls.key_file` ({})",
            self.source("bridge.tls.key_file")
        );
        let key = match secret_file(key, &what) {
            Ok(key) => key.to_owned(),
            Err(failure) => {
                problems.add("bridge.tls.key_file", failure);
                return None;
            }
        };
        let tls = TlsConfig {
            certificates: certificates.clone(),
            key,
            client_roots: tls.client_roots_file.clone(),
            client_required: tls.client_required,
        };
        let usable = tls.check().map_err(|error| {
            let failure = Failure::new(
                error.code(),
                "the certificate of the bridge cannot be used ([bridge.tls])",
            );
            failure.because(&error)
        });
        problems.take("bridge.tls.certificate_file", usable);
        Some(tls)
    }

    /// A configuration that the bridge does not take.
    pub(crate) fn refused_bridge(&self, error: &BridgeError) -> Failure {
        match error {
            BridgeError::Config { key, problem } => self.refused(&format!("bridge.{key}"), problem),
            error => Failure::new(error.code(), "cannot start the bridge").because(error),
        }
    }
}

/// Reads the file of accounts, or returns all problems with it.
fn accounts(path: &Path) -> Result<AuthConfig, Vec<Failure>> {
    let shown = path.display();
    let text = std::fs::read_to_string(path)
        .map(Zeroizing::new)
        .failing(Code::Environment, || {
            format!("cannot read the bridge's accounts from {shown}")
        })
        .map_err(|failure| vec![failure])?;
    // The error of a parser repeats the line, in which a secret may be.
    let file: Accounts = toml::from_str(&text).map_err(|error| {
        let line = error
            .span()
            .map_or(0, |span| text.get(..span.start).unwrap_or_default().lines().count());
        let failure = Failure::new(Code::Config, format!("cannot read the bridge's accounts from {shown}"));
        vec![failure.since(format!("line {line} is not what is expected there"))]
    })?;
    let (mut auth, mut policy, mut wrong) = (AuthConfig::default(), Policy::default(), Vec::new());
    for account in file.account {
        let name = account.name.clone();
        let mut refuse = |problem: &str| {
            let what = format!("{shown}: account `{name}`: {problem}");
            wrong.push(Failure::new(Code::Config, what));
        };
        if policy.accounts.contains_key(&name) {
            refuse("is listed twice");
        }
        let rules = account.take(&mut auth, &mut refuse);
        policy.accounts.insert(name, rules);
    }
    auth.policy = policy;
    if wrong.is_empty() { Ok(auth) } else { Err(wrong) }
}

impl Account {
    /// Adds the account's credentials, and returns its rules. Problems are refused.
    fn take(self, auth: &mut AuthConfig, refuse: &mut impl FnMut(&str)) -> Rules {
        let mut patterns = |texts: &[String]| -> Vec<Pattern> {
            let mut read = |text: &String| {
                let pattern = text.parse();
                pattern.map_err(|error| refuse(&format!("`{text}` is {error}"))).ok()
            };
            texts.iter().filter_map(&mut read).collect()
        };
        let rules = Rules {
            names: patterns(&self.names),
            destinations: patterns(&self.destinations),
            node: self.node,
        };
        match self.bearer.as_ref().map(|bearer| bearer.reveal("bearer")) {
            Some(Ok(secret)) if secret.len() >= BEARER_BYTES_MIN => auth.bearers.push(Bearer {
                account: self.name.clone(),
                secret: SecretString::from(secret.as_str()),
            }),
            Some(Ok(_)) => refuse("its bearer is shorter than 32 bytes: `openssl rand -hex 32`"),
            Some(Err(_)) => refuse("the file of its bearer cannot be read"),
            None => {}
        }
        for text in &self.certificates {
            let sha256 = HEXLOWER_PERMISSIVE
                .decode(text.replace(':', "").as_bytes())
                .ok()
                .and_then(|bytes| bytes.try_into().ok());
            match sha256 {
                Some(sha256) => auth.certificates.push(Certificate {
                    account: self.name.clone(),
                    sha256,
                }),
                None => refuse(&format!("`{text}` is not the SHA-256 of a certificate in hex")),
            }
        }
        rules
    }
}

/// A bridge's identity at the relay.
pub(crate) struct Identity(Zeroizing<[u8; 32]>);

impl Identity {
    /// Returns the configuration of a client of raw logs.
    pub(crate) fn config(&self, api: ApiClient, region: u8) -> RawConfig {
        let derive = |context| Zeroizing::new(blake3::derive_key(context, self.0.as_slice()));
        RawConfig {
            identity: derive("skytale bridge v1 identity"),
            endpoint: derive("skytale bridge v1 endpoint"),
            tokens: TokenSource::new(api),
            relays: RelaySource::Directory,
            region: Some(Region(region)),
            network: NetworkConfig::default(),
        }
    }
}

/// The identity whose secret a file has; made where there is none. One bridge process for each.
pub(crate) fn identity(file: &Path) -> Outcome<Identity> {
    if file.exists() {
        return read_identity(file);
    }
    let mut secret = Zeroizing::new([0; 32]);
    getrandom::fill(secret.as_mut_slice())
        .map_err(|error| Failure::new(Code::Environment, unusable(file)).since(error.to_string()))?;
    let text = Zeroizing::new(data_encoding::HEXLOWER.encode(secret.as_slice()));
    write_private(file, text.as_bytes())?;
    Ok(Identity(secret))
}

fn unusable(file: &Path) -> String {
    format!("cannot use the bridge's secret key in {}", file.display())
}

fn read_identity(file: &Path) -> Outcome<Identity> {
    let text = Zeroizing::new(std::fs::read_to_string(file).failing(Code::Environment, || unusable(file))?);
    let bytes = HEXLOWER_PERMISSIVE
        .decode(text.trim().as_bytes())
        .map(Zeroizing::new)
        .ok()
        .and_then(|bytes| <[u8; 32]>::try_from(bytes.as_slice()).ok())
        .ok_or_else(|| Failure::new(Code::Environment, unusable(file)).since("it does not hold 64 hex digits"))?;
    Ok(Identity(Zeroizing::new(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<AuthConfig, Vec<Failure>> {
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
            let failures = read(text).expect_err(text);
            for failure in failures {
                assert_eq!(failure.code(), Code::Config, "{text}");
                assert!(!failure.text(&crate::output::Style::PLAIN).contains("marker"), "{text}");
            }
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
