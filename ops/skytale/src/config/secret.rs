//! Secrets in the configuration.

use crate::output::{Context, Failure, Outcome};
use secrecy::SecretString;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use skytale_proto::Code;
use std::fmt;
use std::path::Path;
use zeroize::Zeroizing;

/// Text before the path of a file that holds the secret.
const FILE_PREFIX: &str = "file:";
/// The largest file that can be a secret, in bytes.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// A secret, or `file:` and the path of the file that holds it. Prints `[redacted]`.
#[derive(Clone)]
pub(crate) struct Secret(Zeroizing<String>);

impl Secret {
    /// From its text.
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    /// The file that holds it, if one does.
    pub(crate) fn file(&self) -> Option<&Path> {
        self.0.strip_prefix(FILE_PREFIX).map(Path::new)
    }

    /// The secret itself. `key` is the configuration key it is under.
    pub(crate) fn reveal(&self, key: &str) -> Outcome<Zeroizing<String>> {
        let Some(path) = self.0.strip_prefix(FILE_PREFIX) else {
            return Ok(self.0.clone());
        };
        let reading = || format!("cannot read the secret of `{key}` from {path}");
        let size = std::fs::metadata(path).failing(Code::Environment, reading)?.len();
        if size > FILE_BYTES_MAX {
            return Err(Failure::new(Code::Environment, reading()).since(format!("the file has {size} bytes")));
        }
        let text = Zeroizing::new(std::fs::read_to_string(path).failing(Code::Environment, reading)?);
        let text = Zeroizing::new(text.trim_end_matches(['\r', '\n']).to_owned());
        if text.is_empty() {
            return Err(Failure::new(Code::Environment, reading()).since("the file is empty"));
        }
        Ok(text)
    }
}

impl Secret {
    /// The secret itself, as the API takes it.
    pub(crate) fn expose(&self, key: &str) -> Outcome<SecretString> {
        Ok(SecretString::from(self.reveal(key)?.as_str()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("[redacted]")
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_never_prints_itself() {
        let secret = Secret::new("sk_live_marker");
        assert_eq!(format!("{secret:?}"), "[redacted]");
        assert_eq!(serde_json::to_string(&secret).expect("JSON"), "\"[redacted]\"");
    }

    #[test]
    fn a_secret_is_read_from_its_file_without_the_last_newline() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("key");
        std::fs::write(&path, "sk_live_abc\n").expect("written");
        let secret = Secret::new(format!("file:{}", path.display()));
        assert_eq!(secret.reveal("api_key").expect("read").as_str(), "sk_live_abc");
        let missing = Secret::new("file:/nowhere/at/all")
            .reveal("api_key")
            .expect_err("no file");
        assert_eq!(missing.code(), Code::Environment);
    }
}
