//! URLs, files and folders that a configuration names, as far as they can be looked at without making anything.

use super::relay::RelaySetup;
use super::secret::secret_file;
use super::{Loaded, Problems, Secret};
use crate::output::{Failure, Outcome};
use reqwest::Url;
use rustix::fs::{Access, access};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use skytale_proto::Code;
use skytale_relay_node::check_secret_key_file;
use skytale_sdk::{ApiClient, ApiKey};
use std::path::Path;

impl Loaded {
    /// A URL of an HTTP service.
    pub(super) fn url(&self, key: &str, text: &str) -> Outcome {
        let refuse = |problem: &str| {
            let shown = skytale_proto::shown(text, 200);
            let failure = self.refused(key, &format!("is `{shown}`, which {problem}"));
            Err(failure.help("Give a URL with its scheme, such as https://api.example.org."))
        };
        let url = match Url::parse(text) {
            Ok(url) => url,
            Err(error) => return refuse(&format!("is no URL: {error}")),
        };
        if !matches!(url.scheme(), "http" | "https") {
            return refuse("does not begin with https:// or http://");
        }
        // A password may be in it: it is not shown.
        if !url.username().is_empty() || url.password().is_some() {
            return Err(self.refused(key, "holds a user or a password, and must not"));
        }
        if url.host_str().is_none_or(str::is_empty) {
            return refuse("names no host");
        }
        if url.query().is_some() || url.fragment().is_some() {
            return refuse("has a query or a fragment, and must end with its path");
        }
        Ok(())
    }

    /// A client of the API, where the URL and the key can be used.
    pub(super) fn api_client(
        &self,
        (url_key, url): (&str, Option<&str>),
        (key_key, key): (&str, Option<&Secret>),
        problems: &mut Problems,
    ) -> Option<ApiClient> {
        let url = problems.need(self, url_key, url.as_ref()).copied();
        let url = url.filter(|url| problems.take(url_key, self.client_url(url_key, url)).is_some());
        let key = problems.need(self, key_key, key);
        let key = key.and_then(|key| problems.take(key_key, self.api_key(key_key, key)));
        let client = ApiClient::new(url?, key?);
        let client = client.map_err(|error| self.refused(url_key, "cannot be used").because(&error));
        problems.take(url_key, client)
    }

    /// A URL under which API keys may be sent.
    pub(super) fn client_url(&self, key: &str, text: &str) -> Outcome {
        self.url(key, text)?;
        // Any secret does: nothing is sent.
        let client = ApiKey::operator("-").and_then(|secret| ApiClient::new(text, secret));
        client.map(|_| ()).map_err(|error| {
            let failure = self.refused(key, "cannot be used").because(&error);
            failure.help("An API key goes over this line: give an https:// URL; http:// is for this machine alone.")
        })
    }

    /// An API key.
    pub(super) fn api_key(&self, key: &str, secret: &Secret) -> Outcome<ApiKey> {
        let text = secret.reveal(key)?;
        ApiKey::new(text.as_str()).map_err(|error| {
            let failure = self.refused(key, "is no API key").because(&error);
            failure.help("Give a key as it was shown when it was made: sk_live_...")
        })
    }

    /// Certificates in a PEM file, one at least.
    pub(super) fn certificates(&self, key: &str, file: &Path) -> Outcome<Vec<Vec<u8>>> {
        let unusable = |problem: String| {
            let what = format!("`{key}` ({}): cannot use {}", self.source(key), file.display());
            Failure::new(Code::Config, what).since(problem)
        };
        let read = CertificateDer::pem_file_iter(file).map_err(|error| unusable(error.to_string()))?;
        let roots: Result<Vec<_>, _> = read.map(|root| root.map(|root| root.to_vec())).collect();
        let roots = roots.map_err(|error| unusable(error.to_string()))?;
        if roots.is_empty() {
            return Err(unusable("no certificate in it".into()));
        }
        Ok(roots)
    }

    /// A file or folder that is made at the start: the folder that it goes to must be there, or be made itself.
    pub(super) fn can_be_made(&self, key: &str, path: &Path) -> Outcome {
        let there = path
            .ancestors()
            .skip(1)
            .find(|folder| folder.exists() || folder.as_os_str().is_empty());
        let folder = there
            .filter(|folder| !folder.as_os_str().is_empty())
            .unwrap_or(Path::new("."));
        writable(folder).map_err(|problem| {
            let what = format!("`{key}` ({}): cannot make {}", self.source(key), path.display());
            Failure::new(Code::Environment, what).since(problem)
        })
    }

    /// A folder that is written to: there, or to be made.
    pub(super) fn folder(&self, key: &str, folder: &Path) -> Outcome {
        if !folder.exists() {
            return self.can_be_made(key, folder);
        }
        writable(folder).map_err(|problem| {
            let what = format!("`{key}` ({}): cannot use {}", self.source(key), folder.display());
            Failure::new(Code::Environment, what).since(problem)
        })
    }

    /// Files and folders of a relay node.
    pub(super) fn relay_files(&self, setup: &RelaySetup, problems: &mut Problems) {
        if let Some(data_dir) = &self.config.relay.data_dir {
            problems.take("relay.data_dir", self.folder("relay.data_dir", data_dir));
        }
        if let (Some(file), false) = (&setup.node.secret_key_file, problems.has("relay.data_dir")) {
            let key = "relay.secret_key_file";
            let usable = check_secret_key_file(file).map_err(|error| {
                Failure::new(error.code(), format!("`{key}` ({}) cannot be used", self.source(key))).because(&error)
            });
            problems.take(key, usable);
        }
        if let Some(dir) = &setup.node.tap.dir {
            problems.take("relay.tap.dir", self.folder("relay.tap.dir", dir));
        }
        if let Some(file) = &self.config.relay.https.key_file {
            let key = "relay.https.key_file";
            let what = format!("the private key of `{key}` ({})", self.source(key));
            problems.take(key, secret_file(file, &what).map(|_| ()));
        }
        let usable = setup.node.https.check_files().map_err(|problem| {
            let what = "the certificate of the relay node cannot be used ([relay.https])";
            Failure::new(Code::Environment, what).since(problem)
        });
        problems.take("relay.https.certificate_file", usable);
    }
}

/// Whether files can be made in a folder.
fn writable(folder: &Path) -> Result<(), String> {
    if !folder.is_dir() {
        return Err(format!("{} is no folder", folder.display()));
    }
    let may = access(folder, Access::WRITE_OK | Access::EXEC_OK);
    may.map_err(|error| format!("this user may not write in {}: {error}", folder.display()))
}
