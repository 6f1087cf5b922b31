//! The database: SQLite in one file, or PostgreSQL.
//!
//! One set of queries serves both, through sqlx's `Any` driver: the schema uses TEXT and BIGINT alone, both take `$1`
//! for a parameter, `ON CONFLICT`, `RETURNING` and partial indexes. Their differences are here: how a transaction
//! begins, the settings of a connection, and how a row is locked. Conflicts of two writers are prevented by unique
//! indexes and by locks on the rows that they rely on (PostgreSQL's row locks, the one writer's turn on SQLite), never
//! by an isolation level that only one of the two has.

pub(crate) mod accounts;
pub(crate) mod agents;
pub(crate) mod audit;
pub(crate) mod channels;
mod counts;
pub(crate) mod enrolments;
pub(crate) mod fleet;
pub(crate) mod keys;
mod location;
mod migrations;
pub(crate) mod nonces;
mod page;
pub(crate) mod relays;
pub(crate) mod revocations;
pub(crate) mod signing_keys;
mod trouble;

pub(crate) use counts::{Counts, counts};
pub(crate) use location::Location;
use migrations::MIGRATIONS;
pub(crate) use page::Ask;
pub(crate) use trouble::Trouble;

use sqlx::any::{AnyConnectOptions, AnyPoolOptions, AnyRow};
use sqlx::error::ErrorKind;
use sqlx::{AnyConnection, AnyPool, ConnectOptions as _, Connection as _, Executor as _, Row as _};
use std::collections::HashSet;
use std::ops::{Deref, DerefMut};
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Mutex, OwnedMutexGuard};

/// Connections of one API process.
const CONNECTIONS_MAX: u32 = 16;
/// Maximum time that a request waits for a connection.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum time that SQLite waits for another process' transaction, in milliseconds.
const BUSY_TIMEOUT_MS: u32 = 5_000;
/// Minimum interval between attempts at a connection beside the pool, and the maximum time for one.
const REACH_AGAIN: Duration = Duration::from_secs(1);
const REACH_PATIENCE: Duration = Duration::from_secs(2);

/// Failure of the database. Values are in none of its texts.
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
    #[error("database: no connection: {reason}")]
    Away { reason: String },
}

impl StoreError {
    /// Whether a unique index refused.
    pub(crate) fn is_taken(&self) -> bool {
        matches!(self, Self::Database(sqlx::Error::Database(error)) if error.kind() == ErrorKind::UniqueViolation)
    }
}

/// The database.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    pool: AnyPool,
    /// SQLite has one writer. Those of this process take turns here, in order, instead of polling for its lock.
    turn: Option<Arc<Mutex<()>>>,
    /// Opens a connection beside the pool.
    options: AnyConnectOptions,
    /// Connections from before this are not used again.
    renewed: Arc<parking_lot::Mutex<Instant>>,
    reached: Arc<Mutex<Option<Reached>>>,
}

/// Time of the last attempt at a connection beside the pool, and its result.
#[derive(Clone, Debug)]
struct Reached {
    at: Instant,
    result: Result<(), String>,
}

/// A transaction that writes. Dropped without a commit, it is rolled back.
pub(crate) struct Write {
    transaction: sqlx::Transaction<'static, sqlx::Any>,
    /// The writer's turn on SQLite; dropped after the transaction.
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
        let renewed = Arc::new(parking_lot::Mutex::new(Instant::now()));
        let from = Arc::clone(&renewed);
        let pool = AnyPoolOptions::new()
            .max_connections(CONNECTIONS_MAX)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .before_acquire(move |_, connection| {
                let is_younger = connection.age <= from.lock().elapsed();
                Box::pin(async move { Ok(is_younger) })
            })
            .after_connect(move |connection, _| Box::pin(async move { configure(connection, is_sqlite).await }))
            .connect_with(options.clone())
            .await?;
        let store = Self {
            pool,
            turn: is_sqlite.then(Arc::default),
            options,
            renewed,
            reached: Arc::default(),
        };
        store.migrate().await?;
        Ok(store)
    }

    /// Connects to the database once, and changes nothing in it. A SQLite file that is missing can be made.
    pub(crate) async fn try_out(location: &Location) -> Result<(), StoreError> {
        sqlx::any::install_default_drivers();
        if let Location::Sqlite { path } = location
            && !location::is_there(path)?
        {
            return Ok(());
        }
        let options = AnyConnectOptions::from_str(&location.url())?;
        let connecting = AnyConnection::connect_with(&options);
        let connection = tokio::time::timeout(ACQUIRE_TIMEOUT, connecting).await;
        let mut connection = connection.map_err(|_| StoreError::Away {
            reason: format!("it does not answer within {} s", ACQUIRE_TIMEOUT.as_secs()),
        })??;
        connection.ping().await?;
        connection.close().await?;
        Ok(())
    }

    async fn migrate(&self) -> Result<(), StoreError> {
        if self.takes_no_writes().await? && self.is_current().await? {
            tracing::warn!("the database takes no writes; its schema is current, so what needs none is answered");
            return Ok(());
        }
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

    /// Whether PostgreSQL says so, or SQLite's file is read-only.
    async fn takes_no_writes(&self) -> Result<bool, StoreError> {
        if self.turn.is_some() {
            let begun = self.pool.begin_with("BEGIN IMMEDIATE").await;
            return match begun {
                Ok(transaction) => Ok(transaction.rollback().await.map(|()| false)?),
                Err(error) => Ok(StoreError::from(error).trouble() == Some(Trouble::ReadOnly)),
            };
        }
        let setting = sqlx::query("SELECT current_setting('transaction_read_only') AS setting");
        let setting: String = setting.fetch_one(&mut *self.read().await?).await?.try_get("setting")?;
        Ok(setting == "on")
    }

    /// Whether nothing is left to migrate.
    async fn is_current(&self) -> Result<bool, StoreError> {
        let applied = sqlx::query("SELECT version FROM _sqlx_migrations WHERE success");
        let applied = match applied.fetch_all(&mut *self.read().await?).await {
            Ok(rows) => rows
                .iter()
                .map(|row| row.try_get("version"))
                .collect::<Result<HashSet<i64>, _>>()?,
            // No such table: an empty database.
            Err(sqlx::Error::Database(_)) => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        Ok(MIGRATIONS.iter().all(|migration| applied.contains(&migration.version)))
    }

    /// A connection to read with.
    pub(crate) async fn read(&self) -> Result<sqlx::pool::PoolConnection<sqlx::Any>, StoreError> {
        match self.pool.acquire().await {
            Ok(connection) => Ok(connection),
            Err(error) => Err(self.no_connection(error).await),
        }
    }

    /// The pool gives none in time where all are in use, and where none can be opened: which of the two it is.
    async fn no_connection(&self, error: sqlx::Error) -> StoreError {
        if !matches!(error, sqlx::Error::PoolTimedOut) || self.turn.is_some() {
            return error.into();
        }
        match self.reach().await {
            Ok(()) => error.into(),
            Err(reason) => StoreError::Away { reason },
        }
    }

    /// Whether a connection can be opened beside those of the pool; tried once a second at most. The error has no values.
    pub(crate) async fn reach(&self) -> Result<(), String> {
        let mut reached = self.reached.lock().await;
        if let Some(reached) = &*reached
            && reached.at.elapsed() < REACH_AGAIN
        {
            return reached.result.clone();
        }
        let result = match tokio::time::timeout(REACH_PATIENCE, self.options.connect()).await {
            Ok(Ok(connection)) => connection.close().await.map_err(|error| error.to_string()),
            Ok(Err(error)) => {
                let error = StoreError::from(error);
                match error.trouble() {
                    // It answers that it has as many connections as it takes.
                    Some(Trouble::Busy) => Ok(()),
                    _ => Err(error.to_string()),
                }
            }
            Err(_) => Err("no answer".to_owned()),
        };
        *reached = Some(Reached {
            at: Instant::now(),
            result: result.clone(),
        });
        result
    }

    /// No connection that there is now is used for another request.
    pub(crate) fn renew_connections(&self) {
        *self.renewed.lock() = Instant::now();
    }

    /// A transaction to write with.
    pub(crate) async fn write(&self) -> Result<Write, StoreError> {
        let (turn, begin) = match &self.turn {
            // A transaction that reads first and writes later could not get the lock any more: it takes it first.
            Some(turn) => (Some(Arc::clone(turn).lock_owned().await), "BEGIN IMMEDIATE"),
            None => (None, "BEGIN"),
        };
        Ok(Write {
            transaction: self.begin(begin).await?,
            turn,
        })
    }

    async fn begin(&self, begin: &'static str) -> Result<sqlx::Transaction<'static, sqlx::Any>, StoreError> {
        let mut begun = self.pool.begin_with(begin).await;
        if let Err(sqlx::Error::InvalidSavePointStatement) = begun {
            // SQLite has rolled a transaction back by itself (its disk was full), and sqlx takes it for open. The pool would
            // give this connection out again and again.
            self.renew_connections();
            begun = self.pool.begin_with(begin).await;
        }
        match begun {
            Ok(transaction) => Ok(transaction),
            Err(error) => Err(self.no_connection(error).await),
        }
    }

    /// Whether the database takes writes.
    pub(crate) async fn probe(&self) -> Result<(), StoreError> {
        let mut write = self.write().await?;
        write
            .execute("UPDATE counters SET value = value + 1 WHERE name = 'readiness'")
            .await?;
        write.commit().await
    }

    /// Closes every connection, when its work is done.
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
