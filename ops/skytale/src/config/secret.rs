//! Secrets in the configuration.

use crate::output::{Context, Failure, Outcome};
use secrecy::SecretString;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use skytale_proto::Code;
use std::fmt;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use zeroize::Zeroizing;

/// Text before the path of a file that holds the secret.
const FILE_PREFIX: &str = "file:";
/// The same of one that other users may read: the operator says that there are none, as in a container.
const SHARED_PREFIX: &str = "shared-file:";
/// The largest file that can be a secret, in bytes.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// A secret, or `file:` and the path of the file that holds it, which other users of the machine may not open. With
/// `shared-file:` they may. Prints `[redacted]`.
#[derive(Clone)]
pub(crate) struct Secret(Zeroizing<String>);

impl Secret {
    /// From its text.
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    /// The file that holds it, if one does.
    pub(crate) fn file(&self) -> Option<&Path> {
        let prefixes = [FILE_PREFIX, SHARED_PREFIX];
        prefixes
            .iter()
            .find_map(|prefix| self.0.strip_prefix(prefix))
            .map(Path::new)
    }

    /// The secret itself. `key` is the configuration key it is under.
    pub(crate) fn reveal(&self, key: &str) -> Outcome<Zeroizing<String>> {
        let Some(path) = self.file() else {
            return Ok(self.0.clone());
        };
        let reading = || format!("cannot read the secret of `{key}` from {}", path.display());
        if self.0.starts_with(FILE_PREFIX) {
            private(path, &format!("the secret of `{key}`"))?;
        }
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

/// Refuses a file that other users of this machine can open. A file in a folder that they cannot enter is out of their reach,
/// whatever its own rights; and so is one that only the group of root may read, as systemd gives credentials.
pub(crate) fn private(path: &Path, what: &str) -> Outcome {
    let looking = || format!("cannot read {what} from {}", path.display());
    let real = std::fs::canonicalize(path).failing(Code::Environment, looking)?;
    let file = std::fs::metadata(&real).failing(Code::Environment, looking)?;
    let (mut others, mut group) = (file.mode() & 0o006 != 0, file.mode() & 0o060 != 0 && file.gid() != 0);
    for folder in real.ancestors().skip(1) {
        if !(others || group) {
            return Ok(());
        }
        let folder = std::fs::metadata(folder).failing(Code::Environment, looking)?;
        let enters = |bits: u32| folder.mode() & bits != 0;
        others &= enters(0o001);
        // Members of the file's group that are of the folder's as well, or enter it as everybody may.
        group &= if folder.gid() == file.gid() {
            enters(0o010)
        } else {
            enters(0o001)
        };
    }
    if !(others || group) {
        return Ok(());
    }
    let mode = file.mode() & 0o7777;
    let problem = format!(
        "{what} in {} can be opened by other users of this machine: its mode is {mode:04o}",
        path.display()
    );
    Err(Failure::new(Code::SecretReadable, problem).help(format!(
        "Take their rights away: chmod 600 {0} (and chown it to the user that runs this). Where there are no other users, as in a container \
         whose secrets are mounted with mode 0444, write `shared-file:{0}`.",
        path.display()
    )))
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

    fn set_mode(path: &Path, mode: u32) {
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).expect("set");
    }

    /// A folder that every user of this machine can enter. The tests' own temporary folder may be private.
    fn everybodys() -> tempfile::TempDir {
        let enters = |folder: &Path| std::fs::metadata(folder).is_ok_and(|found| found.mode() & 0o001 != 0);
        let own = std::env::temp_dir();
        let above = [
            own.as_path(),
            Path::new("/tmp"),
            Path::new("/var/tmp"),
            Path::new("/dev/shm"),
        ]
        .into_iter()
        .filter_map(|folder| folder.canonicalize().ok())
        .find(|folder| folder.ancestors().all(enters))
        .expect("a temporary folder that every user can enter");
        let folder = tempfile::tempdir_in(above).expect("a folder");
        set_mode(folder.path(), 0o755);
        folder
    }

    #[test]
    fn a_secret_that_other_users_can_open_is_refused_with_the_command_that_mends_it() {
        let folder = everybodys();
        let path = folder.path().join("key");
        std::fs::write(&path, "sk_live_abc").expect("written");
        let of = |prefix: &str| Secret::new(format!("{prefix}{}", path.display()));
        for mode in [0o644, 0o604, 0o666, 0o602, 0o444] {
            set_mode(&path, mode);
            let refused = of("file:").reveal("relay.relay_secret").expect_err("readable");
            assert_eq!(refused.code(), Code::SecretReadable, "{mode:o}");
            let text = refused.text(&crate::output::Style::PLAIN);
            let command = format!("chmod 600 {}", path.display());
            assert!(
                text.contains(&command) && text.contains(&format!("{mode:04o}")),
                "{text}"
            );
            assert!(
                text.contains("relay.relay_secret") && !text.contains("sk_live"),
                "{text}"
            );
            assert_eq!(
                of("shared-file:").reveal("k").expect("read").as_str(),
                "sk_live_abc",
                "{mode:o}"
            );
        }
        let is_roots = std::fs::metadata(&path).expect("there").gid() == 0;
        set_mode(&path, 0o640);
        assert_eq!(of("file:").reveal("k").is_ok(), is_roots, "a group that is not root's");
        for mode in [0o600, 0o400] {
            set_mode(&path, mode);
            assert!(of("file:").reveal("k").is_ok(), "{mode:o}");
        }
        // Nobody else gets to it.
        set_mode(&path, 0o644);
        set_mode(folder.path(), 0o700);
        assert!(of("file:").reveal("k").is_ok());
        // By a link from where everybody is, either.
        let open = everybodys();
        let link = open.path().join("link");
        std::os::unix::fs::symlink(&path, &link).expect("a link");
        assert!(Secret::new(format!("file:{}", link.display())).reveal("k").is_ok());
        set_mode(folder.path(), 0o755);
        assert!(Secret::new(format!("file:{}", link.display())).reveal("k").is_err());
    }

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
        set_mode(&path, 0o600);
        let secret = Secret::new(format!("file:{}", path.display()));
        assert_eq!(secret.reveal("api_key").expect("read").as_str(), "sk_live_abc");
        let missing = Secret::new("file:/nowhere/at/all")
            .reveal("api_key")
            .expect_err("no file");
        assert_eq!(missing.code(), Code::Environment);
    }
}
