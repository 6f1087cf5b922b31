//! TLS with rustls: a certificate that can be replaced without a restart, and client certificates.

use crate::error::BridgeError;
use rustls::RootCertStore;
use rustls::crypto::ring::default_provider;
use rustls::server::{ServerConfig, WebPkiClientVerifier};
use skytale_certificate::{Reloading, read_certificates};
use std::fmt::Display;
use std::path::PathBuf;
use std::sync::Arc;

/// Paths of certificates. PEM files.
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

fn environment(problem: &dyn Display) -> BridgeError {
    BridgeError::Environment {
        problem: problem.to_string(),
    }
}

impl TlsConfig {
    /// Whether its files can be used.
    pub fn check(&self) -> Result<(), BridgeError> {
        self.server().map(|_| ())
    }

    pub(crate) fn server(&self) -> Result<(Arc<ServerConfig>, Arc<Reloading>), BridgeError> {
        let reloading = Reloading::load(&self.certificates, &self.key).map_err(|error| environment(&error))?;
        let provider = Arc::new(default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| environment(&format!("TLS: {error}")))?;
        let builder = match &self.client_roots {
            Some(path) => {
                let mut roots = RootCertStore::empty();
                for certificate in read_certificates(path).map_err(|error| environment(&error))? {
                    roots
                        .add(certificate)
                        .map_err(|error| environment(&format!("{}: {error}", path.display())))?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                let verifier = if self.client_required {
                    verifier.build()
                } else {
                    verifier.allow_unauthenticated().build()
                };
                builder.with_client_cert_verifier(
                    verifier.map_err(|error| environment(&format!("{}: {error}", path.display())))?,
                )
            }
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_cert_resolver(Arc::clone(&reloading) as _);
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok((Arc::new(config), reloading))
    }
}
