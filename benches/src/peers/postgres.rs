//! PostgreSQL: one table of entries, and a counter a channel that gives offsets inside the insert.
//!
//! - One server, one copy; `fsync` and `synchronous_commit` on, and no other setting changed that bears on speed. Frames are not tried to
//!   be compressed, as ciphertext cannot be.
//! - Agents have no connections of their own: PostgreSQL's users do not make hundreds of those. As in a service before
//!   the database, all share [`WRITERS`] connections that append and [`READERS`] that read. A log's appends go through
//!   one writer: so they come in order, and no counter is locked by two. The unit that waits for a writer is one
//!   statement, which commits by itself.
//! - Readers are woken by `LISTEN` on one connection, and read after their cursors. `NOTIFY` is sent after the insert has committed, by
//!   a connection that does not wait for the disk: inside the insert it would let one transaction commit at a time. A notification that
//!   is lost is made up for by reading again now and then.
//! - There is no guard against an append that is sent again after its answer was lost: it would be there twice.

use super::feed::{Failure, Feed, Over, Sink};
use super::server::{Absent, Folder, STARTS_WITHIN, Server, free_port, program};
use super::{BATCH_MAX, account, agent_id, lost, name};
use anyhow::{Context as _, ensure};
use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use skytale_load::target::{Appended, Failed, Session, Target};
use skytale_proto::{AccountId, AgentId, Frame, LogId, Offset, Region};
use sqlx::postgres::{PgConnectOptions, PgListener, PgPool, PgPoolOptions, PgSslMode};
use sqlx::{Connection as _, Executor as _, PgConnection};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

/// Connections that append.
pub const WRITERS: usize = 8;
/// Connections that read, at most.
pub const READERS: u32 = 16;
/// Appends that one statement takes at most.
const APPENDS_MAX: usize = 256;
/// Appends that wait for one writer, at most.
const WAITING_MAX: usize = 4_096;
/// Interval at which a reader looks without having been woken.
const LOOK_EVERY: Duration = Duration::from_secs(5);

const TABLES: &str = r#"
CREATE TABLE heads (channel bytea PRIMARY KEY, head bigint NOT NULL);
CREATE TABLE entries (
    channel bytea NOT NULL, "offset" bigint NOT NULL, frame bytea NOT NULL, PRIMARY KEY (channel, "offset")
);
ALTER TABLE entries ALTER COLUMN frame SET STORAGE EXTERNAL;
"#;

/// Appends frames, and gives their offsets, in the order of the frames.
const APPEND: &str = r#"
WITH given AS (
    SELECT channel, frame, place FROM unnest($1::bytea[], $2::bytea[]) WITH ORDINALITY AS given (channel, frame, place)
), counted AS (
    SELECT channel, count(*) AS count FROM given GROUP BY channel
), counters AS (
    INSERT INTO heads AS old (channel, head) SELECT channel, count FROM counted ORDER BY channel
    ON CONFLICT (channel) DO UPDATE SET head = old.head + excluded.head RETURNING channel, head
), placed AS (
    SELECT given.channel, given.frame, given.place,
        head - count + row_number() OVER (PARTITION BY given.channel ORDER BY given.place) AS "offset"
    FROM given JOIN counted USING (channel) JOIN counters USING (channel)
), stored AS (
    INSERT INTO entries (channel, "offset", frame) SELECT channel, "offset", frame FROM placed
)
SELECT "offset" FROM placed ORDER BY place
"#;

const READ: &str =
    r#"SELECT "offset", frame FROM entries WHERE channel = $1 AND "offset" > $2 ORDER BY "offset" LIMIT $3"#;

/// The channel of notifications, which hold a log and its head.
const APPENDED: &str = "appended";

/// A server, and the service before it.
#[derive(Debug)]
pub struct Postgres {
    service: Arc<Service>,
    /// Writers, the one that notifies, and the one that listens. They end before their server.
    _tasks: JoinSet<()>,
    server: Server,
}

/// State shared by sessions.
#[derive(Debug)]
struct Service {
    writers: Vec<mpsc::Sender<Append>>,
    readers: PgPool,
    heads: Heads,
}

/// An append, and the caller that waits for its offset.
#[derive(Debug)]
struct Append {
    log: Vec<u8>,
    frame: Bytes,
    done: oneshot::Sender<Offset>,
}

/// Notified head of each log that somebody reads.
#[derive(Debug, Default)]
struct Heads(Mutex<HashMap<String, watch::Sender<u64>>>);

impl Postgres {
    /// Starts one, with its data in a folder of its own on the disk of `parent`. The programs are in `/usr/lib/postgresql`, or on the path.
    pub async fn start(parent: &Path) -> anyhow::Result<Self> {
        let installed = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
        let mut folders: Vec<PathBuf> = installed.map(|version| version.path().join("bin")).collect();
        folders.sort();
        folders.reverse();
        let absent = Absent {
            program: "postgres",
            help: "install it (Debian: apt-get install postgresql)",
        };
        let postgres = program("SKYTALE_POSTGRES", "postgres", &folders).ok_or(absent)?;
        let initdb = postgres.with_file_name("initdb");
        let folder = Folder::for_user(parent, "postgres")?;
        let data = folder.path().join("data");
        let made = folder
            .command(initdb)
            .arg("-D")
            .arg(&data)
            .args(["-U", "postgres", "-A", "trust", "--locale=C", "-E", "UTF8"])
            .stdout(Stdio::null())
            .status()
            .map_err(|_| absent)?;
        ensure!(made.success(), "initdb makes a database");
        let port = free_port()?;
        let setting = |name: &str, value: String| ["-c".into(), format!("{name}={value}").into()];
        let arguments = [
            ["-D".into(), data.into()],
            setting("listen_addresses", "127.0.0.1".into()),
            setting("port", port.to_string()),
            setting("unix_socket_directories", String::new()),
            setting("fsync", "on".into()),
            setting("synchronous_commit", "on".into()),
        ];
        let server = Server::start(folder, &postgres, &arguments.concat(), "INT")?;
        let options = PgConnectOptions::new_without_pgpass()
            .host("127.0.0.1")
            .port(port)
            .username("postgres")
            .database("postgres")
            .ssl_mode(PgSslMode::Disable);
        let connect = async || PgConnection::connect_with(&options).await;
        let mut connection = server.reach(connect).await?;
        connection.execute(TABLES).await.context("tables")?;
        connection.close().await?;
        Self::serve(server, &options).await
    }

    async fn serve(server: Server, options: &PgConnectOptions) -> anyhow::Result<Self> {
        let readers = PgPoolOptions::new()
            .max_connections(READERS + 1)
            .acquire_timeout(STARTS_WITHIN)
            .connect_with(options.clone())
            .await?;
        let mut tasks = JoinSet::new();
        let (committed, notifying) = mpsc::channel(WAITING_MAX);
        let mut connection = PgConnection::connect_with(options).await?;
        connection.execute("SET synchronous_commit = off").await?;
        tasks.spawn(notify(connection, notifying));
        let mut writers = Vec::with_capacity(WRITERS);
        for _ in 0..WRITERS {
            let (writer, appends) = mpsc::channel(WAITING_MAX);
            writers.push(writer);
            let connection = PgConnection::connect_with(options).await?;
            tasks.spawn(write(connection, appends, committed.clone()));
        }
        let mut listener = PgListener::connect_with(&readers).await?;
        listener.listen(APPENDED).await?;
        let service = Arc::new(Service {
            writers,
            readers,
            heads: Heads::default(),
        });
        tasks.spawn(listen(listener, Arc::clone(&service)));
        Ok(Self {
            service,
            _tasks: tasks,
            server,
        })
    }

    /// Its server.
    pub const fn server(&self) -> &Server {
        &self.server
    }
}

/// Appends the waiting entries, in one statement, as long as somebody may append. After an error all that wait learn
/// that it is lost.
async fn write(
    mut connection: PgConnection,
    mut queue: mpsc::Receiver<Append>,
    committed: mpsc::Sender<(Vec<u8>, Offset)>,
) {
    let mut appends = Vec::new();
    while queue.recv_many(&mut appends, APPENDS_MAX).await > 0 {
        let logs: Vec<&[u8]> = appends.iter().map(|append: &Append| append.log.as_slice()).collect();
        let frames: Vec<&[u8]> = appends.iter().map(|append| &*append.frame).collect();
        let appended = sqlx::query_scalar::<_, i64>(APPEND)
            .bind(logs)
            .bind(frames)
            .fetch_all(&mut connection)
            .await;
        let offsets = match appended {
            Ok(offsets) if offsets.len() == appends.len() => offsets,
            // Each waits for an answer that will not come.
            _ => return,
        };
        let mut heads = HashMap::new();
        for (append, offset) in appends.drain(..).zip(offsets) {
            let offset = Offset::new(offset.unsigned_abs());
            heads.insert(append.log, offset);
            // A caller that no longer waits needs no answer.
            let _ = append.done.send(offset);
        }
        for head in heads {
            if committed.send(head).await.is_err() {
                return;
            }
        }
    }
}

/// Tells readers of committed entries.
async fn notify(mut connection: PgConnection, mut committed: mpsc::Receiver<(Vec<u8>, Offset)>) {
    let mut heads = Vec::new();
    while committed.recv_many(&mut heads, APPENDS_MAX).await > 0 {
        // Of each log the last.
        let heads: HashMap<_, _> = heads.drain(..).collect();
        let payloads: Vec<String> = heads
            .into_iter()
            .map(|(log, head)| format!("{}:{}", name(&log), head.get()))
            .collect();
        let notified = sqlx::query("SELECT pg_notify($1, payload) FROM unnest($2::text[]) AS payload")
            .bind(APPENDED)
            .bind(payloads)
            .execute(&mut connection)
            .await;
        if notified.is_err() {
            return;
        }
    }
}

/// Wakes readers.
async fn listen(mut listener: PgListener, service: Arc<Service>) {
    // An error lasts, and readers look without it.
    while let Ok(notified) = listener.recv().await {
        let head = notified.payload().split_once(':');
        if let Some((log, Ok(head))) = head.map(|(log, head)| (log, head.parse())) {
            service.heads.moved(log, head);
        }
    }
}

impl Heads {
    fn moved(&self, log: &str, head: u64) {
        if let Some(known) = self.0.lock().get(log) {
            known.send_if_modified(|known| std::mem::replace(known, head.max(*known)) < head);
        }
    }

    fn of(&self, log: &[u8]) -> watch::Receiver<u64> {
        self.0.lock().entry(name(log)).or_default().subscribe()
    }
}

impl Target for Postgres {
    type Session = PostgresSession;

    fn name(&self) -> &'static str {
        "postgres"
    }

    fn agent_id(&self, agent: u32) -> AgentId {
        agent_id(agent)
    }

    fn account(&self) -> Option<AccountId> {
        Some(account())
    }

    fn home(&self, _agent: u32) -> Region {
        Region(0)
    }

    async fn token(&self, _agent: u32) -> Result<(), Failed> {
        Ok(())
    }

    async fn connect(&self, _agent: u32) -> Result<PostgresSession, Failed> {
        Ok(PostgresSession {
            service: Arc::clone(&self.service),
            failure: Failure::default(),
        })
    }
}

/// An agent at the service.
#[derive(Clone, Debug)]
pub struct PostgresSession {
    service: Arc<Service>,
    failure: Failure,
}

impl Session for PostgresSession {
    type Pending = BoxFuture<'static, Result<Appended, Failed>>;
    type Reading = Feed;

    async fn append(&self, frame: &Frame) -> Result<Self::Pending, Failed> {
        let (done, told) = oneshot::channel();
        let log = frame.header().log.to_bytes();
        let sum = log
            .iter()
            .fold(0usize, |sum, byte| sum.wrapping_mul(31).wrapping_add((*byte).into()));
        let append = Append {
            log,
            frame: frame.encoded().clone(),
            done,
        };
        let gone = || Failed::lost("the database does not answer");
        let writers = &self.service.writers;
        let writer = writers.get(sum % writers.len()).ok_or_else(gone)?;
        writer.send(append).await.map_err(|_| gone())?;
        let appended = async move {
            let offset = told.await.map_err(|_| gone())?;
            Ok(Appended { offset })
        };
        Ok(appended.boxed())
    }

    async fn claim(&self, _claim: &Frame) -> Result<(), Failed> {
        Ok(())
    }

    async fn read(&self, log: LogId, after: Offset, follow: bool) -> Result<Feed, Failed> {
        let service = Arc::clone(&self.service);
        Ok(Feed::start(&self.failure, follow, |sink| {
            read(service, log.to_bytes(), after, sink)
        }))
    }

    async fn ended(&self) -> Failed {
        self.failure.wait().await
    }

    async fn close(&self) {}
}

async fn read(service: Arc<Service>, log: Vec<u8>, after: Offset, mut sink: Sink) -> Result<Over, Failed> {
    let number = |offset: Offset| i64::try_from(offset.get()).unwrap_or(i64::MAX);
    let mut moved = service.heads.of(&log);
    let head = sqlx::query_scalar::<_, i64>("SELECT head FROM heads WHERE channel = $1")
        .bind(&log)
        .fetch_optional(&service.readers)
        .await
        .map_err(|error| lost("no head", error))?;
    let missed = head.unwrap_or(0).saturating_sub(number(after));
    if sink.missed(u64::try_from(missed).unwrap_or(0)).await.is_err() {
        return Ok(Over);
    }
    let mut cursor = after;
    loop {
        let rows = sqlx::query_as::<_, (i64, Vec<u8>)>(READ)
            .bind(&log)
            .bind(number(cursor))
            .bind(BATCH_MAX as i64)
            .fetch_all(&service.readers)
            .await
            .map_err(|error| lost("not read", error))?;
        let entries = rows.into_iter().map(|(offset, frame)| {
            let frame = Frame::decode(frame.into()).map_err(|error| lost("no frame", error))?;
            Ok((Offset::new(offset.unsigned_abs()), frame))
        });
        let entries: Vec<_> = entries.collect::<Result<_, Failed>>()?;
        let is_more = entries.len() == BATCH_MAX;
        cursor = entries.last().map_or(cursor, |(offset, _)| *offset);
        if sink.put(entries).await.is_err() {
            return Ok(Over);
        }
        if !is_more {
            let is_moved = moved.wait_for(|head| *head > cursor.get());
            // Whether or not it was woken, it looks.
            let _ = tokio::time::timeout(LOOK_EVERY, is_moved).await;
        }
    }
}
