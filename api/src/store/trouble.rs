//! Trouble with the database itself, as opposed to a statement that it refuses.

use super::StoreError;
use skytale_proto::Code;

/// Trouble that keeps the database from its work, for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// It has no connection or no turn to give in time.
    Busy,
    /// It takes no writes: `default_transaction_read_only`, a standby, a file or file system that is read-only.
    ReadOnly,
    /// Its disk is full.
    Full,
    /// It does not answer, or its files cannot be read or written.
    Away,
}

impl Trouble {
    pub(crate) const fn code(self) -> Code {
        match self {
            Self::Busy => Code::ApiBusy,
            Self::ReadOnly => Code::DatabaseReadOnly,
            Self::Full => Code::DatabaseFull,
            Self::Away => Code::DatabaseAway,
        }
    }

    /// A sentence for clients and for the operator.
    pub(crate) const fn detail(self) -> &'static str {
        match self {
            Self::Busy => "the database has too much to do",
            Self::ReadOnly => {
                "the API's database takes no writes (it is read-only, or a standby): what needs none is answered"
            }
            Self::Full => "the disk of the API's database is full: what needs no write is answered",
            Self::Away => "the API's database does not answer",
        }
    }

    fn of_code(code: &str) -> Option<Self> {
        match code {
            // PostgreSQL (appendix A of its manual): serialization failure, deadlock, too many connections, no lock in time,
            // statement timeout.
            "40001" | "40P01" | "53300" | "55P03" | "57014" => Some(Self::Busy),
            "25006" => Some(Self::ReadOnly),
            "53100" => Some(Self::Full),
            // It shuts down, has crashed, starts up; its input or output fails.
            "57P01" | "57P02" | "57P03" | "57P05" | "58030" => Some(Self::Away),
            // Class 08: the connection failed.
            _ if code.len() == 5 && code.starts_with("08") => Some(Self::Away),
            // SQLite: the low byte of an extended code is the primary one.
            _ if code.len() < 5 => match code.parse::<u32>().ok()? & 0xff {
                5 | 6 => Some(Self::Busy),
                8 => Some(Self::ReadOnly),
                13 => Some(Self::Full),
                10 | 14 => Some(Self::Away),
                _ => None,
            },
            _ => None,
        }
    }
}

impl StoreError {
    /// The trouble with the database, if that is the reason.
    pub(crate) fn trouble(&self) -> Option<Trouble> {
        use sqlx::Error;
        match self {
            Self::Away { .. } => Some(Trouble::Away),
            Self::Database(Error::PoolTimedOut) => Some(Trouble::Busy),
            Self::Database(Error::Io(_) | Error::Tls(_) | Error::PoolClosed | Error::WorkerCrashed) => {
                Some(Trouble::Away)
            }
            Self::Database(Error::Database(error)) => Trouble::of_code(&error.code()?),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_of_both_databases_say_what_is_wrong() {
        for (code, trouble) in [
            ("25006", Some(Trouble::ReadOnly)),
            ("53100", Some(Trouble::Full)),
            ("08006", Some(Trouble::Away)),
            ("57P01", Some(Trouble::Away)),
            ("40001", Some(Trouble::Busy)),
            ("23505", None),
            ("42P01", None),
            ("5", Some(Trouble::Busy)),
            ("261", Some(Trouble::Busy)),
            ("8", Some(Trouble::ReadOnly)),
            ("1032", Some(Trouble::ReadOnly)),
            ("13", Some(Trouble::Full)),
            ("778", Some(Trouble::Away)),
            ("14", Some(Trouble::Away)),
            ("2067", None),
        ] {
            assert_eq!(Trouble::of_code(code), trouble, "{code}");
        }
    }
}
