//! NATS JetStream: a stream a channel, so that a channel's offsets are its stream's sequence, which has no gaps.
//!
//! - One server, one copy in files, synced before it acknowledges (`sync_interval: always`).
//! - A connection an agent. Appends are published in order, as many as come, and acknowledged in their own time; each carries its
//!   frame's id as a message id, so that one that is sent again is stored once.
//! - A reader is an ordered pull consumer from after its cursor.
//! - Agents' own logs are subjects of one stream.

use super::feed::{Failure, Feed, Over, Sink};
use super::server::{Absent, Folder, Server, free_port, program};
use super::{BATCH_MAX, account, agent_id, lost};
use anyhow::Context as _;
use async_nats::jetstream::consumer::{DeliverPolicy, pull};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::stream::{Config, StorageType};
use async_nats::jetstream::{self, Context};
use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, StreamExt as _};
use skytale_load::target::{Appended, Failed, Session, Target};
use skytale_proto::{AccountId, AgentId, Frame, Kind, LogId, Offset, Region};
use std::future::IntoFuture as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The stream of agents' own logs.
const AGENTS: &str = "agents";
/// Maximum time for an answer: late answers are measured, not given up.
const ANSWERS_WITHIN: Duration = Duration::from_secs(60);
/// Publishes that one agent may have without an acknowledgement.
const IN_FLIGHT_MAX: usize = 4_096;

/// A server.
#[derive(Debug)]
pub struct JetStream {
    server: Server,
    url: String,
}

impl JetStream {
    /// Starts one, with its data in a folder of its own in `parent`. The program is `SKYTALE_NATS_SERVER`, or on the path.
    pub async fn start(parent: &Path) -> anyhow::Result<Self> {
        let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
        let cached = home.join(".cache/skytale-test/nats-server-2.15.1");
        let program = program("SKYTALE_NATS_SERVER", "nats-server", &[cached]).ok_or(Absent {
            program: "nats-server",
            help: "run `ops/test/run test`, which installs it, or set SKYTALE_NATS_SERVER",
        })?;
        let folder = Folder::new(parent)?;
        let port = free_port()?;
        let config = folder.path().join("nats.conf");
        let text = format!(
            "listen: \"127.0.0.1:{port}\"\nmax_payload: 2MB\n\
             jetstream {{ store_dir: {:?}, max_mem: 256MB, max_file: 20GB, sync_interval: always }}\n",
            folder.path().join("data"),
        );
        std::fs::write(&config, text)?;
        let server = Server::start(folder, &program, &["-c".into(), config.into()], "TERM")?;
        let url = format!("nats://127.0.0.1:{port}");
        let jetstream = Self { server, url };
        let client = jetstream.server.reach(async || jetstream.client().await).await?;
        let config = Config {
            name: AGENTS.to_owned(),
            subjects: vec![format!("{AGENTS}.*")],
            ..stream_config()
        };
        let context = context(client);
        let made = async || context.create_stream(config.clone()).await;
        jetstream.server.reach(made).await.context("JetStream is enabled")?;
        Ok(jetstream)
    }

    /// Its server.
    pub const fn server(&self) -> &Server {
        &self.server
    }

    async fn client(&self) -> Result<async_nats::Client, async_nats::ConnectError> {
        let options = async_nats::ConnectOptions::new().request_timeout(Some(ANSWERS_WITHIN));
        options.connect(&self.url).await
    }
}

fn context(client: async_nats::Client) -> Context {
    jetstream::ContextBuilder::new()
        .timeout(ANSWERS_WITHIN)
        .max_ack_inflight(IN_FLIGHT_MAX)
        .build(client)
}

fn stream_config() -> Config {
    Config {
        storage: StorageType::File,
        num_replicas: 1,
        ..Config::default()
    }
}

/// The stream and the subject of a log.
fn names(log: LogId) -> (String, String) {
    match log {
        LogId::Channel(id) => {
            let name = format!(
                "c{}",
                id.to_string().replace(|letter: char| !letter.is_alphanumeric(), "")
            );
            (name.clone(), name)
        }
        LogId::Agent(id) => (AGENTS.to_owned(), format!("{AGENTS}.{id}")),
    }
}

impl Target for JetStream {
    type Session = JetStreamSession;

    fn name(&self) -> &'static str {
        "jetstream"
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

    async fn connect(&self, _agent: u32) -> Result<JetStreamSession, Failed> {
        let client = self.client().await.map_err(|error| lost("no connection", error))?;
        Ok(JetStreamSession {
            context: context(client),
            failure: Failure::default(),
        })
    }
}

/// An agent's connection.
#[derive(Clone, Debug)]
pub struct JetStreamSession {
    context: Context,
    failure: Failure,
}

impl Session for JetStreamSession {
    type Pending = BoxFuture<'static, Result<Appended, Failed>>;
    type Reading = Feed;

    async fn append(&self, frame: &Frame) -> Result<Self::Pending, Failed> {
        let header = frame.header();
        let (stream, subject) = names(header.log);
        if header.kind() == Kind::Create {
            let config = Config {
                name: stream,
                subjects: vec![subject.clone()],
                ..stream_config()
            };
            let made = self.context.create_stream(config).await;
            made.map_err(|error| lost("no stream", error))?;
        }
        let message = PublishMessage::build()
            .payload(frame.encoded().clone())
            .message_id(header.id.to_string());
        let published = self.context.send_publish(subject, message).await;
        let acknowledged = published.map_err(|error| lost("not published", error))?.into_future();
        let appended = acknowledged.map(|acknowledged| {
            let acknowledged = acknowledged.map_err(|error| lost("not acknowledged", error))?;
            Ok(Appended {
                offset: Offset::new(acknowledged.sequence),
            })
        });
        Ok(appended.boxed())
    }

    async fn claim(&self, _claim: &Frame) -> Result<(), Failed> {
        Ok(())
    }

    async fn read(&self, log: LogId, after: Offset, follow: bool) -> Result<Feed, Failed> {
        let context = self.context.clone();
        Ok(Feed::start(&self.failure, follow, |sink| {
            read(context, log, after, sink)
        }))
    }

    async fn ended(&self) -> Failed {
        self.failure.wait().await
    }

    async fn close(&self) {
        // It may be closed already.
        let _ = self.context.client().drain().await;
    }
}

async fn read(context: Context, log: LogId, after: Offset, mut sink: Sink) -> Result<Over, Failed> {
    let (stream, subject) = names(log);
    let stream = context.get_stream_no_info(stream).await;
    let stream = stream.map_err(|error| lost("no stream", error))?;
    let config = pull::OrderedConfig {
        filter_subject: subject,
        deliver_policy: DeliverPolicy::ByStartSequence {
            start_sequence: after.get() + 1,
        },
        ..pull::OrderedConfig::default()
    };
    let consumer = stream.create_consumer(config).await;
    let consumer = consumer.map_err(|error| lost("no consumer", error))?;
    // Messages that were there when it was made.
    if sink.missed(consumer.cached_info().num_pending).await.is_err() {
        return Ok(Over);
    }
    let messages = consumer.messages().await;
    let messages = messages.map_err(|error| lost("no messages", error))?;
    let mut batches = messages.ready_chunks(BATCH_MAX);
    while let Some(batch) = batches.next().await {
        let entries = batch.into_iter().map(|message| {
            let message = message.map_err(|error| lost("no message", error))?;
            let info = message.info().map_err(|error| lost("no sequence", error))?;
            let offset = Offset::new(info.stream_sequence);
            let frame = Frame::decode(message.message.payload).map_err(|error| lost("no frame", error))?;
            Ok((offset, frame))
        });
        if sink.put(entries.collect::<Result<_, Failed>>()?).await.is_err() {
            return Ok(Over);
        }
    }
    Err(Failed::lost("the consumer ended"))
}
