//! A server's certificate in PEM files, taken up again when the files change.
//!
//! ```text
//!   files ── load ──> Reloading ── each handshake ──> rustls
//!     └──── watch, every 5 s ─┘
//! ```
//!
//! Files that cannot be used (one that is missing, a key of another certificate) are logged, and the certificate in use
//! stays: the two files are seldom replaced in the same moment.

use parking_lot::RwLock;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio_util::sync::CancellationToken;

/// Interval between looks at the files.
const LOOK: Duration = Duration::from_secs(5);

/// A file that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{what} {}: {problem}", .path.display())]
pub struct CertificateError {
    what: &'static str,
    path: PathBuf,
    problem: String,
}

/// A certificate and its key, as they are now. Each TLS handshake gets the newest.
#[derive(Debug)]
pub struct Reloading {
    certificates: PathBuf,
    key: PathBuf,
    /// Times of the files' last changes, before they were loaded.
    loaded: [Option<SystemTime>; 2],
    current: RwLock<Arc<CertifiedKey>>,
}

impl ResolvesServerCert for Reloading {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.current.read()))
    }
}

impl Reloading {
    /// Loads two PEM files: the server's certificate with those that lead to its root, and its private key.
    pub fn load(certificates: &Path, key: &Path) -> Result<Arc<Self>, CertificateError> {
        let loaded = changed(certificates, key);
        let certified = certified(certificates, key)?;
        Ok(Arc::new(Self {
            loaded,
            certificates: certificates.to_owned(),
            key: key.to_owned(),
            current: RwLock::new(Arc::new(certified)),
        }))
    }

    /// Takes up what the files hold when they change, until `stop`.
    pub async fn watch(self: Arc<Self>, stop: CancellationToken) {
        let mut seen = self.loaded;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(LOOK) => {}
            }
            let now = changed(&self.certificates, &self.key);
            if now == seen {
                continue;
            }
            match certified(&self.certificates, &self.key) {
                Ok(certified) => {
                    *self.current.write() = Arc::new(certified);
                    seen = now;
                    tracing::info!(certificate = %self.certificates.display(), "certificate reloaded");
                }
                // Tried again: the other file may be written yet.
                Err(error) => tracing::error!(%error, "certificate not reloaded, the old one stays"),
            }
        }
    }
}

fn changed(certificates: &Path, key: &Path) -> [Option<SystemTime>; 2] {
    [certificates, key].map(|path| std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok())
}

fn certified(certificates: &Path, key: &Path) -> Result<CertifiedKey, CertificateError> {
    let wrong_key = |error: &dyn Display| wrong("private key", key, error);
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| wrong_key(&error))?;
    let private = any_supported_type(&private).map_err(|error| wrong_key(&error))?;
    let certified = CertifiedKey::new(read_certificates(certificates)?, private);
    certified
        .keys_match()
        .map_err(|error| wrong("certificates", certificates, &error))?;
    Ok(certified)
}

/// The certificates of a PEM file, one at least.
pub fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let failed = |error: &dyn Display| wrong("certificates", path, error);
    let read: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path)
        .map_err(|error| failed(&error))?
        .collect();
    let read = read.map_err(|error| failed(&error))?;
    if read.is_empty() {
        return Err(failed(&"no certificate in it"));
    }
    Ok(read)
}

fn wrong(what: &'static str, path: &Path, problem: &dyn Display) -> CertificateError {
    CertificateError {
        what,
        path: path.to_owned(),
        problem: problem.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Files {
        _folder: tempfile::TempDir,
        certificate: PathBuf,
        key: PathBuf,
    }

    impl Files {
        fn new() -> Self {
            let folder = tempfile::tempdir().expect("a folder");
            let files = Self {
                certificate: folder.path().join("certificate.pem"),
                key: folder.path().join("key.pem"),
                _folder: folder,
            };
            let (certificate, key) = pair();
            files.write(&certificate, &key);
            files
        }

        fn write(&self, certificate: &str, key: &str) {
            std::fs::write(&self.certificate, certificate).expect("written");
            std::fs::write(&self.key, key).expect("written");
        }

        fn load(&self) -> Result<Arc<Reloading>, CertificateError> {
            Reloading::load(&self.certificate, &self.key)
        }
    }

    fn pair() -> (String, String) {
        let made = rcgen::generate_simple_self_signed(vec!["relay.test".into()]).expect("made");
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    #[test]
    fn what_cannot_be_used_is_refused_with_its_file() {
        let files = Files::new();
        files.load().expect("a pair");
        let ((certificate, key), (_, other_key)) = (pair(), pair());
        for (certificate, key, named) in [
            (certificate.as_str(), other_key.as_str(), "certificate.pem"),
            ("", key.as_str(), "certificate.pem"),
            (certificate.as_str(), "", "key.pem"),
            (certificate.as_str(), certificate.as_str(), "key.pem"),
        ] {
            files.write(certificate, key);
            let error = files.load().expect_err("refused").to_string();
            assert!(error.contains(named), "{error}");
            assert!(!error.contains("BEGIN"), "{error}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_pair_is_taken_up_when_both_files_are_there() {
        let files = Files::new();
        let reloading = files.load().expect("a pair");
        let stop = CancellationToken::new();
        let watching = tokio::spawn(Arc::clone(&reloading).watch(stop.clone()));
        let current = || reloading.current.read().cert[0].clone();
        let first = current();
        // Its first look is the pair that is in use.
        tokio::time::sleep(LOOK / 2).await;
        let (certificate, key) = pair();
        let later = SystemTime::now() + Duration::from_secs(10);
        let touch = |path: &Path, text: &str| {
            std::fs::write(path, text).expect("written");
            let file = std::fs::File::options().append(true).open(path).expect("a file");
            file.set_modified(later).expect("a time");
        };
        touch(&files.certificate, &certificate);
        tokio::time::sleep(LOOK * 2).await;
        assert_eq!(current(), first, "half of a pair");
        touch(&files.key, &key);
        tokio::time::sleep(LOOK * 2).await;
        assert_ne!(current(), first);
        assert_eq!(vec![current()], read_certificates(&files.certificate).expect("read"));
        stop.cancel();
        watching.await.expect("ended");
    }
}
