//! Location of the database.

use crate::config::ConfigError;
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use std::fmt;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::str::FromStr as _;

/// Location of the database. Prints no password.
#[derive(Clone)]
pub(crate) enum Location {
    /// A file.
    Sqlite { path: PathBuf },
    /// A server.
    Postgres { url: String },
}

impl Location {
    /// `sqlite:<path>` or `postgres://...`.
    pub(crate) fn parse(text: &str) -> Result<Self, ConfigError> {
        let refuse = |problem: &str| Err(ConfigError::new("database", problem));
        if let Some(path) = text.strip_prefix("sqlite:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            if path.is_empty() || path == ":memory:" || path.contains('?') {
                return refuse("must be `sqlite:` and the path of a file, without options");
            }
            return Ok(Self::Sqlite { path: path.into() });
        }
        if !text.starts_with("postgres://") && !text.starts_with("postgresql://") {
            return refuse("must be `sqlite:<path>` or `postgres://<user>:<password>@<host>/<name>`");
        }
        // The parser's error may repeat the URL, and with it the password.
        let Ok(options) = PgConnectOptions::from_str(text) else {
            return refuse("is not a PostgreSQL URL");
        };
        let host = options.get_host();
        let local = host.starts_with('/') || host == "localhost" || is_loopback(host) || options.get_socket().is_some();
        if !local && matches!(options.get_ssl_mode(), PgSslMode::Allow | PgSslMode::Prefer) {
            return refuse(
                "leaves it to the server whether the connection is encrypted: add `?sslmode=verify-full`, or \
                 `?sslmode=disable` where the network between is private",
            );
        }
        Ok(Self::Postgres { url: text.to_owned() })
    }

    /// Returns the URL for sqlx.
    pub(super) fn url(&self) -> String {
        match self {
            Self::Postgres { url } => url.clone(),
            Self::Sqlite { path } => {
                // Bytes that mean something in a URL, or are no character of one, are written as %xx.
                let encoded: String = path
                    .to_string_lossy()
                    .bytes()
                    .map(|byte| match byte {
                        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'_' | b'-' | b'~' => {
                            char::from(byte).to_string()
                        }
                        _ => format!("%{byte:02X}"),
                    })
                    .collect();
                format!("sqlite:{encoded}")
            }
        }
    }
}

impl fmt::Debug for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite { path } => write!(f, "sqlite:{}", path.display()),
            Self::Postgres { .. } => f.write_str("postgres://[redacted]"),
        }
    }
}

fn is_loopback(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host.parse::<std::net::IpAddr>()
        .is_ok_and(|address| address.is_loopback())
}

/// Whether a database's file is there. Where it is not, its folder must take one.
pub(super) fn is_there(path: &Path) -> Result<bool, super::StoreError> {
    let failed = |error| super::StoreError::File {
        path: path.display().to_string(),
        error,
    };
    if path.try_exists().map_err(failed)? {
        return Ok(true);
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    try_in(folder).map_err(failed)?;
    Ok(false)
}

/// Makes a file in a folder, and removes it.
fn try_in(folder: &Path) -> io::Result<()> {
    let path = folder.join(format!(".skytale-check-{}", std::process::id()));
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)?;
    std::fs::remove_file(path)
}

/// Makes the file, readable by its owner alone, before SQLite would make one for everybody. SQLite gives its
/// journal and shared memory the same mode.
pub(super) fn create_private(path: &Path) -> io::Result<()> {
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    match made {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let mode = std::fs::metadata(path)?.permissions().mode();
            if mode & 0o077 != 0 {
                std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
                tracing::warn!(path = %path.display(), "the database was open to others; its mode is 0600 now");
            }
            Ok(())
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_is_a_file_or_a_server() {
        for good in [
            "sqlite:api.db",
            "sqlite:///var/lib/api.db",
            "sqlite:/a b/ü.db",
            "postgres://u:p@localhost/n",
        ] {
            assert!(Location::parse(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "api.db",
            "sqlite:",
            "sqlite::memory:",
            "sqlite:a?mode=memory",
            "mysql://h/n",
            "postgres:",
        ] {
            assert!(Location::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_server_elsewhere_is_not_reached_in_clear_by_default() {
        let code = |text: &str| Location::parse(text).err().map(|error| error.problem);
        assert!(code("postgres://u:marker@db.example/n").is_some_and(|text| !text.contains("marker")));
        assert!(code("postgres://u:p@db.example/n?sslmode=verify-full").is_none());
        assert!(code("postgres://u:p@db.example/n?sslmode=disable").is_none());
        assert!(code("postgres://u:p@127.0.0.1/n").is_none());
        assert!(code("postgres://u:p@%2Frun%2Fpostgresql/n").is_none());
    }

    #[test]
    fn a_location_shows_no_password() {
        let location = Location::parse("postgres://u:marker@localhost/n").unwrap();
        assert!(!format!("{location:?}").contains("marker"));
    }
}
