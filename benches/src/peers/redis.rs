//! Redis Streams: a stream a key, with ids given out as `0-*`, so that a log's offsets are 0-1, 0-2 and so on.
//!
//! - One server, no replica, with its append-only file synced before it answers (`appendfsync always`).
//! - A connection an agent for its appends, which are pipelined: so they come in order.
//! - A connection a subscription, as `XREAD BLOCK` takes one for itself.
//! - There is no guard against an append that is sent again after its answer was lost: it would be there twice.

use super::feed::{Failure, Feed, Over, Sink};
use super::server::{Absent, Folder, Server, free_port, program};
use super::{BATCH_MAX, account, agent_id, lost, name};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, StreamExt as _};
use redis::aio::MultiplexedConnection;
use redis::streams::{StreamId, StreamReadReply};
use redis::{AsyncConnectionConfig, Client, Cmd, RedisResult};
use skytale_load::target::{Appended, Failed, Session, Target};
use skytale_proto::{AccountId, AgentId, Frame, LogId, Offset, Region};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// The one field of an entry.
const FIELD: &str = "f";
/// Appends of an agent that have no answer yet, at most.
const IN_FLIGHT_MAX: usize = 4_096;
/// Maximum time for an answer: late answers are measured, not given up.
const ANSWERS_WITHIN: Duration = Duration::from_secs(60);

/// A server.
#[derive(Debug)]
pub struct Redis {
    server: Server,
    client: Client,
    address: SocketAddr,
}

impl Redis {
    /// Starts one, with its data in a folder of its own in `parent`. The program is `SKYTALE_REDIS_SERVER`, or on the path.
    pub async fn start(parent: &Path) -> anyhow::Result<Self> {
        let program = program("SKYTALE_REDIS_SERVER", "redis-server", &[]).ok_or(Absent {
            program: "redis-server",
            help: "install it (Debian: apt-get install redis-server), or set SKYTALE_REDIS_SERVER",
        })?;
        let folder = Folder::new(parent)?;
        let port = free_port()?;
        let settings = [
            ("--port", port.to_string()),
            ("--bind", "127.0.0.1".to_owned()),
            ("--dir", folder.path().display().to_string()),
            ("--save", String::new()),
            ("--appendonly", "yes".to_owned()),
            ("--appendfsync", "always".to_owned()),
        ];
        let arguments: Vec<_> = settings
            .into_iter()
            .flat_map(|(name, value)| [name.into(), value.into()])
            .collect();
        let server = Server::start(folder, &program, &arguments, "TERM")?;
        let client = Client::open(format!("redis://127.0.0.1:{port}"))?;
        let ping = async || {
            let mut connection = connection(&client, Some(ANSWERS_WITHIN)).await?;
            redis::cmd("PING").query_async::<String>(&mut connection).await
        };
        server.reach(ping).await?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        Ok(Self {
            server,
            client,
            address,
        })
    }

    /// Returns its address.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its server.
    pub const fn server(&self) -> &Server {
        &self.server
    }
}

async fn connection(client: &Client, answers_within: Option<Duration>) -> RedisResult<MultiplexedConnection> {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(ANSWERS_WITHIN))
        .set_response_timeout(answers_within);
    client.get_multiplexed_async_connection_with_config(&config).await
}

impl Target for Redis {
    type Session = RedisSession;

    fn name(&self) -> &'static str {
        "redis"
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

    async fn connect(&self, _agent: u32) -> Result<RedisSession, Failed> {
        let connection = connection(&self.client, Some(ANSWERS_WITHIN)).await;
        let connection = connection.map_err(|error| lost("no connection", error))?;
        let (appends, queue) = mpsc::channel(IN_FLIGHT_MAX);
        tokio::spawn(append_all(connection, queue));
        Ok(RedisSession {
            client: self.client.clone(),
            appends,
            failure: Failure::default(),
        })
    }
}

/// An append, and the caller that waits for its offset.
type Append = (LogId, Bytes, oneshot::Sender<RedisResult<String>>);

/// An agent's connections.
#[derive(Clone, Debug)]
pub struct RedisSession {
    client: Client,
    appends: mpsc::Sender<Append>,
    failure: Failure,
}

/// Appends in the order in which they come, without waiting for answers. Ends with the session that gives them.
async fn append_all(connection: MultiplexedConnection, queue: mpsc::Receiver<Append>) {
    let queue = futures_util::stream::unfold(queue, async |mut queue| {
        let append = queue.recv().await?;
        Some((append, queue))
    });
    let answers = queue.map(|(log, frame, done)| {
        let mut connection = connection.clone();
        async move {
            let mut command = Cmd::with_capacity(5, frame.len() + 64);
            command
                .arg("XADD")
                .arg(name(&log.to_bytes()))
                .arg("0-*")
                .arg(FIELD)
                .arg(&*frame);
            // A caller that no longer waits needs no answer.
            let _ = done.send(command.query_async(&mut connection).await);
        }
    });
    // Each is handed to the connection in turn: those that wait for room there are served in order.
    answers.buffered(IN_FLIGHT_MAX).for_each(async |()| {}).await;
}

impl Session for RedisSession {
    type Pending = BoxFuture<'static, Result<Appended, Failed>>;
    type Reading = Feed;

    async fn append(&self, frame: &Frame) -> Result<Self::Pending, Failed> {
        let (done, told) = oneshot::channel();
        let append = (frame.header().log, frame.encoded().clone(), done);
        let given = self.appends.send(append).await;
        given.map_err(|_| Failed::lost("the connection is closed"))?;
        let appended = async {
            let id = told.await.map_err(|_| Failed::lost("the connection is closed"))?;
            let id = id.map_err(|error| lost("not appended", error))?;
            Ok(Appended { offset: offset(&id)? })
        };
        Ok(appended.boxed())
    }

    async fn claim(&self, _claim: &Frame) -> Result<(), Failed> {
        Ok(())
    }

    async fn read(&self, log: LogId, after: Offset, follow: bool) -> Result<Feed, Failed> {
        let client = self.client.clone();
        Ok(Feed::start(&self.failure, follow, |sink| {
            read(client, log, after, sink)
        }))
    }

    async fn ended(&self) -> Failed {
        self.failure.wait().await
    }

    /// Its connections go with the last clone.
    async fn close(&self) {}
}

/// The number of an id `0-number`.
fn offset(id: &str) -> Result<Offset, Failed> {
    let number = id.strip_prefix("0-").and_then(|number| number.parse().ok());
    let number = number.ok_or_else(|| Failed::lost(format!("no id of ours: {id}")))?;
    Ok(Offset::new(number))
}

async fn read(client: Client, log: LogId, after: Offset, mut sink: Sink) -> Result<Over, Failed> {
    // It blocks as long as nothing comes.
    let connection = connection(&client, None).await;
    let mut connection = connection.map_err(|error| lost("no connection", error))?;
    let key = name(&log.to_bytes());
    let mut last = Cmd::new();
    last.arg("XREVRANGE").arg(&key).arg("+").arg("-").arg("COUNT").arg(1);
    let last: redis::streams::StreamRangeReply = last
        .query_async(&mut connection)
        .await
        .map_err(|error| lost("no head", error))?;
    let head = last.ids.first().map_or(Ok(Offset::ZERO), |last| offset(&last.id))?;
    let mut cursor = after;
    if sink.missed(head.get().saturating_sub(after.get())).await.is_err() {
        return Ok(Over);
    }
    loop {
        let mut command = Cmd::new();
        command.arg("XREAD").arg("COUNT").arg(BATCH_MAX).arg("BLOCK").arg(0);
        command.arg("STREAMS").arg(&key).arg(format!("0-{}", cursor.get()));
        let reply: StreamReadReply = command
            .query_async(&mut connection)
            .await
            .map_err(|error| lost("not read", error))?;
        let entries = reply.keys.into_iter().flat_map(|key| key.ids).map(entry);
        let entries: Vec<_> = entries.collect::<Result<_, _>>()?;
        cursor = entries.last().map_or(cursor, |(offset, _)| *offset);
        if sink.put(entries).await.is_err() {
            return Ok(Over);
        }
    }
}

fn entry(mut entry: StreamId) -> Result<(Offset, Frame), Failed> {
    let offset = offset(&entry.id)?;
    let Some(redis::Value::BulkString(bytes)) = entry.map.remove(FIELD) else {
        return Err(Failed::lost("an entry without a frame"));
    };
    let frame = Frame::decode(bytes.into()).map_err(|error| lost("no frame", error))?;
    Ok((offset, frame))
}
