//! TLS with rustls: a certificate that can be replaced without a restart, and client certificates.

use crate::error::BridgeError;
use parking_lot::RwLock;
use rustls::RootCertStore;
use rustls::crypto::ring::{default_provider, sign::any_supported_type};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert, ServerConfig, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio_util::sync::CancellationToken;

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(5);

/// Where certificates are. PEM files.
#[derive(Clone, Debug)]
pub struct TlsConfig {
    /// The server's certificate, and those that lead to its root.
    pub certificates: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The roots of client certificates. `None`: none are asked for.
    pub client_roots: Option<PathBuf>,
    /// Whether a connection without a client certificate is refused.
    pub client_required: bool,
}

#[derive(Debug)]
pub(crate) struct Reloading {
    files: TlsConfig,
    current: RwLock<Arc<CertifiedKey>>,
}

impl ResolvesServerCert for Reloading {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.current.read()))
    }
}

fn environment(problem: impl Into<String>) -> BridgeError {
    BridgeError::Environment {
        problem: problem.into(),
    }
}

impl TlsConfig {
    pub(crate) fn server(&self) -> Result<(Arc<ServerConfig>, Arc<Reloading>), BridgeError> {
        let reloading = Arc::new(Reloading {
            current: RwLock::new(Arc::new(self.load()?)),
            files: self.clone(),
        });
        let provider = Arc::new(default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| environment(format!("TLS: {error}")))?;
        let builder = match &self.client_roots {
            Some(path) => {
                let mut roots = RootCertStore::empty();
                for certificate in certificates(path)? {
                    roots
                        .add(certificate)
                        .map_err(|error| environment(format!("{}: {error}", path.display())))?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                let verifier = if self.client_required {
                    verifier.build()
                } else {
                    verifier.allow_unauthenticated().build()
                };
                builder.with_client_cert_verifier(
                    verifier.map_err(|error| environment(format!("{}: {error}", path.display())))?,
                )
            }
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_cert_resolver(Arc::clone(&reloading) as _);
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok((Arc::new(config), reloading))
    }

    fn load(&self) -> Result<CertifiedKey, BridgeError> {
        let key = PrivateKeyDer::from_pem_file(&self.key)
            .map_err(|error| environment(format!("private key {}: {error}", self.key.display())))?;
        let key = any_supported_type(&key)
            .map_err(|error| environment(format!("private key {}: {error}", self.key.display())))?;
        let certified = CertifiedKey::new(certificates(&self.certificates)?, key);
        certified
            .keys_match()
            .map_err(|error| environment(format!("{}: {error}", self.certificates.display())))?;
        Ok(certified)
    }

    fn changed(&self) -> [Option<SystemTime>; 2] {
        [&self.certificates, &self.key]
            .map(|path| std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok())
    }
}

fn certificates(path: &PathBuf) -> Result<Vec<CertificateDer<'static>>, BridgeError> {
    let failed = |error: &dyn std::fmt::Display| environment(format!("certificates {}: {error}", path.display()));
    let read: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path)
        .map_err(|error| failed(&error))?
        .collect();
    let read = read.map_err(|error| failed(&error))?;
    if read.is_empty() {
        return Err(failed(&"no certificate in it"));
    }
    Ok(read)
}

/// Takes up a new certificate when its files change. If one cannot be used, logs it and keeps the old one.
pub(crate) async fn reload(reloading: Arc<Reloading>, stop: CancellationToken) {
    let mut seen = reloading.files.changed();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(LOOK) => {}
        }
        let now = reloading.files.changed();
        if now == seen {
            continue;
        }
        match reloading.files.load() {
            Ok(certified) => {
                *reloading.current.write() = Arc::new(certified);
                seen = now;
                tracing::info!("certificate reloaded");
            }
            // Tried again: the other file may be written yet.
            Err(error) => tracing::error!(code = %error.code(), %error, "certificate not reloaded, the old one stays"),
        }
    }
}
