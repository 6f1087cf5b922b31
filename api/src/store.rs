//! The database: SQLite in one file, or PostgreSQL.
//!
//! One set of queries serves both, through sqlx's `Any` driver: the schema uses TEXT and BIGINT alone, both take
//! `$1` for a parameter, `ON CONFLICT`, `RETURNING` and partial indexes. Where they differ, it is here: how a
//! transaction begins, what is set on a connection, and how a row is locked. What two writers must not do at once
//! is kept from them by unique indexes and by locks on the rows that they rely on (PostgreSQL's row locks, the one
//! writer's turn on SQLite), never by an isolation level that only one of the two has.

pub(crate) mod accounts;
pub(crate) mod agents;
pub(crate) mod audit;
pub(crate) mod channels;
pub(crate) mod enrolments;
pub(crate) mod fleet;
pub(crate) mod keys;
mod location;
pub(crate) mod nonces;
mod page;
pub(crate) mod relays;
pub(crate) mod revocations;
pub(crate) mod signing_keys;

pub(crate) use location::Location;
pub(crate) use page::Ask;

use sqlx::any::{AnyConnectOptions, AnyPoolOptions, AnyRow};
use sqlx::error::ErrorKind;
use sqlx::{AnyConnection, AnyPool, Executor as _, Row as _};
use std::ops::{Deref, DerefMut};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, OwnedMutexGuard};

static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("./migrations");

/// Connections of one API process.
const CONNECTIONS_MAX: u32 = 16;
/// How long a request waits for a connection.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long SQLite waits for another process' transaction, in milliseconds.
const BUSY_TIMEOUT_MS: u32 = 5_000;

/// What can go wrong with the database. Values are in none of its texts.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    #[error("database: {0}")]
    Database(#[from] sqlx::Error),
    #[error("database: migration: {0}")]
    Migration(#[from] sqlx::migrate::MigrateError),
    #[error("database: file {path}: {error}")]
    File { path: String, error: std::io::Error },
    #[error("database: column {column} does not hold {expected}")]
    Corrupt {
        column: &'static str,
        expected: &'static str,
    },
}

impl StoreError {
    /// Whether a unique index refused.
    pub(crate) fn is_taken(&self) -> bool {
        matches!(self, Self::Database(sqlx::Error::Database(error)) if error.kind() == ErrorKind::UniqueViolation)
    }

    /// Whether the database had no connection or no turn to give in time.
    pub(crate) fn is_busy(&self) -> bool {
        match self {
            Self::Database(sqlx::Error::PoolTimedOut) => true,
            // SQLITE_BUSY and its extended codes; PostgreSQL's serialization failure, deadlock, too many connections.
            Self::Database(sqlx::Error::Database(error)) => error
                .code()
                .is_some_and(|code| ["5", "261", "517", "773", "40001", "40P01", "53300"].contains(&code.as_ref())),
            _ => false,
        }
    }
}

/// The database.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    pool: AnyPool,
    /// SQLite has one writer. Those of this process take turns here, in order, instead of polling for its lock.
    turn: Option<Arc<Mutex<()>>>,
}

/// A transaction that writes. Dropped without a commit, it is rolled back.
pub(crate) struct Write {
    transaction: sqlx::Transaction<'static, sqlx::Any>,
    /// On SQLite; dropped after the transaction.
    turn: Option<OwnedMutexGuard<()>>,
}

impl Store {
    /// Opens the database, makes it where it is SQLite and missing, and brings its schema up to date.
    pub(crate) async fn open(location: &Location) -> Result<Self, StoreError> {
        sqlx::any::install_default_drivers();
        if let Location::Sqlite { path } = location {
            location::create_private(path).map_err(|error| StoreError::File {
                path: path.display().to_string(),
                error,
            })?;
        }
        let options = AnyConnectOptions::from_str(&location.url())?;
        let is_sqlite = matches!(location, Location::Sqlite { .. });
        let pool = AnyPoolOptions::new()
            .max_connections(CONNECTIONS_MAX)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .after_connect(move |connection, _| Box::pin(async move { configure(connection, is_sqlite).await }))
            .connect_with(options)
            .await?;
        let store = Self {
            pool,
            turn: is_sqlite.then(Arc::default),
        };
        store.migrate().await?;
        Ok(store)
    }

    async fn migrate(&self) -> Result<(), StoreError> {
        // On PostgreSQL a lock keeps two processes apart. On SQLite the second of two that start at once may find
        // its step done by the first: then it looks again.
        let mut attempts = 0;
        loop {
            attempts += 1;
            match MIGRATIONS.run(&self.pool).await {
                Ok(()) => return Ok(()),
                Err(error) if self.turn.is_none() || attempts == 5 => return Err(error.into()),
                Err(error) => tracing::debug!(%error, "migration tried again"),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// A connection to read with.
    pub(crate) async fn read(&self) -> Result<sqlx::pool::PoolConnection<sqlx::Any>, StoreError> {
        Ok(self.pool.acquire().await?)
    }

    /// A transaction to write with.
    pub(crate) async fn write(&self) -> Result<Write, StoreError> {
        let (turn, begin) = match &self.turn {
            // A transaction that reads first and writes later could not get the lock any more: it takes it first.
            Some(turn) => (Some(Arc::clone(turn).lock_owned().await), "BEGIN IMMEDIATE"),
            None => (None, "BEGIN"),
        };
        Ok(Write {
            transaction: self.pool.begin_with(begin).await?,
            turn,
        })
    }

    /// Whether the database answers.
    pub(crate) async fn ping(&self) -> Result<(), StoreError> {
        let mut connection = self.read().await?;
        connection.execute("SELECT 1").await?;
        Ok(())
    }

    /// Closes every connection, when what they do is done.
    pub(crate) async fn close(&self) {
        self.pool.close().await;
    }
}

impl Write {
    /// One of two statements that lock a row: on SQLite, where a transaction that writes is the only one, no lock
    /// has to be asked for.
    pub(crate) const fn locking(&self, sqlite: &'static str, postgres: &'static str) -> &'static str {
        if self.turn.is_some() { sqlite } else { postgres }
    }

    /// Makes it durable.
    pub(crate) async fn commit(self) -> Result<(), StoreError> {
        Ok(self.transaction.commit().await?)
    }
}

impl Deref for Write {
    type Target = AnyConnection;
    fn deref(&self) -> &AnyConnection {
        &self.transaction
    }
}

impl DerefMut for Write {
    fn deref_mut(&mut self) -> &mut AnyConnection {
        &mut self.transaction
    }
}

async fn configure(connection: &mut AnyConnection, is_sqlite: bool) -> Result<(), sqlx::Error> {
    if is_sqlite {
        // The busy timeout first: setting the journal mode takes a lock. FULL: a commit is on the disk when it
        // returns, also under WAL.
        for pragma in [
            sqlx::AssertSqlSafe(format!("PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")),
            sqlx::AssertSqlSafe("PRAGMA journal_mode = WAL".to_owned()),
            sqlx::AssertSqlSafe("PRAGMA synchronous = FULL".to_owned()),
            sqlx::AssertSqlSafe("PRAGMA foreign_keys = ON".to_owned()),
        ] {
            connection.execute(pragma).await?;
        }
    } else {
        connection.execute("SET statement_timeout = '15s'").await?;
        connection.execute("SET synchronous_commit = on").await?;
    }
    Ok(())
}

/// Reads a column that holds the text of an id.
pub(crate) fn parse<T: FromStr>(row: &AnyRow, column: &'static str, expected: &'static str) -> Result<T, StoreError> {
    let text: String = row.try_get(column)?;
    text.parse().map_err(|_| StoreError::Corrupt { column, expected })
}

/// Reads a column that holds a count or a time.
pub(crate) fn number(row: &AnyRow, column: &'static str) -> Result<u64, StoreError> {
    unsigned(row.try_get(column)?, column)
}

/// Reads a column that may hold a time.
pub(crate) fn optional_number(row: &AnyRow, column: &'static str) -> Result<Option<u64>, StoreError> {
    let value: Option<i64> = row.try_get(column)?;
    value.map(|value| unsigned(value, column)).transpose()
}

fn unsigned(value: i64, column: &'static str) -> Result<u64, StoreError> {
    value.try_into().map_err(|_| StoreError::Corrupt {
        column,
        expected: "a number that is not negative",
    })
}

/// A number as the database keeps it.
pub(crate) fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
