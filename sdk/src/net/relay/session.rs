//! One session: its connection, the Hello exchange, and its end.

use super::activity::Activity;
use super::address::{Endpoint, Relay};
use super::control::{self, Control};
use super::error::{Refused, RelayError};
use super::message::{self, MessageReader};
use super::patience::{Patience, What};
use super::way::{Connected, OwnEndpoint};
use crate::net::token::{Token, TokenSource, TokenSubject};
use iroh::endpoint::{Connection, ConnectionError, RecvStream, SendStream, VarInt};
use skytale_proto::session::{
    ControlEvent, Durability, HELLO_EXPORTED_BYTES, HELLO_EXPORTER_LABEL, Hello, Open, Started, control_event,
    hello_proof_message, open,
};
use skytale_proto::{Code, EndpointId, limits};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

/// Longest time that a relay node may take to allow one more stream.
const STREAM_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest message of the control stream, in bytes.
pub(super) const CONTROL_BYTES_MAX: usize = 64 * 1024;
/// Priority of the control stream: its bytes go before those of other streams, whose priority is 0.
const CONTROL_PRIORITY: i32 = 1;
/// Range of keepalives that a relay node may request.
const KEEPALIVE_RANGE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(300));
/// SDK version sent in a Hello.
const SDK_VERSION: &str = concat!("skytale-sdk/", env!("CARGO_PKG_VERSION"));

/// The relay node's answer to the Hello, limited to the values that this side accepts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionInfo {
    /// The longest frame that it accepts, in bytes.
    pub frame_bytes_max: usize,
    /// Maximum bytes of unanswered append requests.
    pub append_in_flight_bytes_max: usize,
    /// Frames that an agent may append a second, sustained; 0 if the relay did not say.
    pub frames_per_second: u32,
    /// Bytes that an agent may append a second, sustained; 0 if the relay did not say.
    pub bytes_per_second: u64,
    /// Maximum number of streams that are open at once, without the control stream.
    pub streams_max: u32,
    /// Maximum number of channels that a session watches; 0 if the relay node has no watch streams.
    pub watched_max: u32,
    /// Maximum number of KeyPackages that it stores for one agent.
    pub key_packages_max: usize,
    /// Silence after which each side sends a ping.
    pub keepalive: Duration,
    /// Durability that its acknowledgement guarantees.
    pub durability: Durability,
    /// Its version.
    pub relay_version: String,
    /// Its clock minus this machine's, in milliseconds.
    pub clock_ahead_ms: i64,
    /// Expiry of the token that the session started with, unix seconds.
    pub token_expires_s: u64,
    /// Time at which its operator last said that its logs may have gone back, unix milliseconds by its clock; 0 if
    /// never.
    pub rollback_ms: u64,
}

/// A session with a relay node. Clones share the same session. It ends by [`Session::close`], by the relay, or when the
/// path is dead.
#[derive(Clone, Debug)]
pub struct Session {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    connection: Connection,
    info: SessionInfo,
    activity: Activity,
    patience: Patience,
    ending: Ending,
    draining: watch::Receiver<Option<Duration>>,
    sent_elsewhere: watch::Receiver<Option<RelayError>>,
    tasks: TaskTracker,
    /// The connection's own endpoint, if it is over HTTPS.
    own: Option<OwnEndpoint>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Tasks hold no `Session`: the last handle is gone, so nobody else would end it.
        self.ending.end(RelayError::Closed);
    }
}

/// Ends a session once, with the first reason.
#[derive(Clone, Debug)]
pub(super) struct Ending {
    connection: Connection,
    reason: watch::Sender<Option<RelayError>>,
    pub(super) cancel: CancellationToken,
}

impl Ending {
    fn new(connection: Connection) -> Self {
        Self {
            connection,
            reason: watch::Sender::new(None),
            cancel: CancellationToken::new(),
        }
    }

    /// Ends the session, unless it has ended. The connection's own reason takes precedence over a stream's error.
    pub(super) fn end(&self, error: RelayError) {
        let error = match self.connection.close_reason() {
            Some(reason)
                if matches!(
                    error,
                    RelayError::Lost {
                        code: Code::Offline,
                        ..
                    }
                ) =>
            {
                closed_by(&reason)
            }
            _ => error,
        };
        self.reason.send_if_modified(|reason| {
            let first = reason.is_none();
            if first {
                *reason = Some(error.clone());
            }
            first
        });
        self.cancel.cancel();
        self.connection.close(VarInt::from_u32(0), b"");
    }

    /// Returns why the session ended, if it has; else `error`, which ends the session if it concerns all of it.
    pub(super) fn explain(&self, error: RelayError) -> RelayError {
        if matches!(error, RelayError::Lost { .. } | RelayError::Protocol { .. }) {
            self.end(error.clone());
        }
        match error {
            RelayError::Lost { .. } => self.reason.borrow().clone().unwrap_or(error),
            error => error,
        }
    }
}

/// Returns the agent's signature over this very connection. Neither its token nor the endpoint's key is enough to make
/// it.
async fn prove(connection: &Connection, subject: &TokenSubject) -> Result<[u8; 64], RelayError> {
    let mut exported = [0; HELLO_EXPORTED_BYTES];
    connection
        .export_keying_material(&mut exported, HELLO_EXPORTER_LABEL, b"")
        .map_err(|_| RelayError::protocol("the connection has no keying material for a proof"))?;
    let relay = EndpointId::from_bytes(*connection.remote_id().as_bytes());
    let message = hello_proof_message(&relay, &subject.endpoint, &subject.agent, &exported);
    Ok(subject.sign(&message).await?)
}

impl Session {
    /// Connects to a relay node and starts a session with `token`; later tokens come from `provider`.
    pub async fn connect(
        endpoint: &Endpoint,
        relay: &Relay,
        subject: TokenSubject,
        token: Token,
        provider: TokenSource,
    ) -> Result<Self, RelayError> {
        let Connected { connection, own } = endpoint.connect(relay, &token).await?;
        let ending = Ending::new(connection.clone());
        match timeout(
            limits::HELLO_TIMEOUT,
            Self::start(connection, endpoint, &ending, subject, token, provider, own),
        )
        .await
        {
            Ok(Ok(session)) => Ok(session),
            Ok(Err(error)) => {
                let error = ending.explain(error);
                ending.end(error.clone());
                Err(error)
            }
            Err(_) => {
                let error = RelayError::lost("the Hello was not answered in time");
                ending.end(error.clone());
                Err(error)
            }
        }
    }

    async fn start(
        connection: Connection,
        endpoint: &Endpoint,
        ending: &Ending,
        subject: TokenSubject,
        token: Token,
        provider: TokenSource,
        own: Option<OwnEndpoint>,
    ) -> Result<Self, RelayError> {
        let (activity, patience) = (Activity::new(), Patience::new(endpoint.patience));
        let (mut send, receive) = connection.open_bi().await.map_err(|error| closed_by(&error))?;
        // Pings must not wait behind frames. A stream that is already closed fails at the next write.
        let _ = send.set_priority(CONTROL_PRIORITY);
        let hello = Hello {
            token: token.expose().to_owned(),
            sdk_version: SDK_VERSION.to_owned(),
            last_resort: endpoint.last_resort,
            proof: prove(&connection, &subject).await?.to_vec().into(),
        };
        message::write(&mut send, &opening(open::Stream::Hello(hello))).await?;
        let owed = patience.clone().stream(What::Control);
        let mut events = MessageReader::new(receive, CONTROL_BYTES_MAX, activity.clone(), owed);
        let started = match events.next::<ControlEvent>().await?.and_then(|event| event.event) {
            Some(control_event::Event::Started(started)) => started,
            Some(control_event::Event::Refusal(refusal)) => return Err(Refused::from(refusal).into()),
            _ => return Err(RelayError::protocol("the Hello was answered with something else")),
        };
        let info = accepted(started);
        let tasks = TaskTracker::new();
        let (drain, draining) = watch::channel(None);
        let (elsewhere, sent_elsewhere) = watch::channel(None);
        let control = Control {
            info: info.clone(),
            activity: activity.clone(),
            ending: ending.clone(),
            drain,
            elsewhere,
            subject,
            provider,
        };
        tasks.spawn(control::run(control, connection.clone(), send, events).in_current_span());
        Ok(Self {
            inner: Arc::new(Inner {
                connection,
                info,
                activity,
                patience,
                ending: ending.clone(),
                draining,
                sent_elsewhere,
                tasks,
                own,
            }),
        })
    }

    /// Returns the relay node's endpoint.
    pub fn relay(&self) -> EndpointId {
        EndpointId::from_bytes(*self.inner.connection.remote_id().as_bytes())
    }

    /// Returns the relay node's answer to the Hello.
    pub fn info(&self) -> &SessionInfo {
        &self.inner.info
    }

    /// Returns the relay node's time, unix milliseconds. Assumes that its clock and this machine's have run alike since
    /// the session started.
    pub fn relay_time_ms(&self) -> u64 {
        let relay_ms = control::unix_now_ms().saturating_add(self.inner.info.clock_ahead_ms);
        u64::try_from(relay_ms).unwrap_or(0)
    }

    /// Resolves when the session has ended, with the reason.
    pub async fn ended(&self) -> RelayError {
        let mut reason = self.inner.ending.reason.subscribe();
        // The sender lives as long as `self`.
        match reason.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or(RelayError::Closed),
            Err(_) => RelayError::Closed,
        }
    }

    /// Becomes `Some` when the relay node is about to stop, with the time that it allows.
    pub fn draining(&self) -> watch::Receiver<Option<Duration>> {
        self.inner.draining.clone()
    }

    /// Changes each time the relay node redirects this side to another node. If there is none, the session goes on.
    pub fn sent_elsewhere(&self) -> watch::Receiver<Option<RelayError>> {
        self.inner.sent_elsewhere.clone()
    }

    /// Changes each time the reachable relay node owes an answer for longer than a healthy node takes: a verdict, an
    /// entry of a log before its head, a claim's answer. A refusal is an answer. The session goes on: the answer may
    /// still arrive.
    pub fn overdue(&self) -> watch::Receiver<Option<RelayError>> {
        self.inner.patience.overdue()
    }

    /// Ends the session and waits for its tasks.
    pub async fn close(&self) {
        self.inner.ending.end(RelayError::Closed);
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
        if let Some(own) = &self.inner.own {
            own.close().await;
        }
    }

    /// Whether HTTPS carries it now: UDP was blocked when it started, and still is.
    pub fn is_over_https(&self) -> bool {
        self.inner.own.is_some()
            && !self
                .inner
                .connection
                .paths()
                .iter()
                .any(|path| path.is_selected() && path.is_ip())
    }

    /// Opens a stream of the session with its first message. The reader accepts messages of at most `limit` bytes.
    pub(super) async fn open(
        &self,
        first: open::Stream,
        limit: usize,
    ) -> Result<(SendStream, MessageReader), RelayError> {
        let owed = self.inner.patience.clone().stream(what(&first));
        let opened = async {
            let (mut send, receive): (SendStream, RecvStream) = self
                .inner
                .connection
                .open_bi()
                .await
                .map_err(|error| closed_by(&error))?;
            message::write(&mut send, &opening(first)).await?;
            Ok((
                send,
                MessageReader::new(receive, limit, self.inner.activity.clone(), owed),
            ))
        };
        match timeout(STREAM_TIMEOUT, opened).await {
            Ok(opened) => opened.map_err(|error| self.explain(error)),
            Err(_) => Err(RelayError::Local {
                code: Code::TooManyStreams,
                reason: format!(
                    "the relay node gave no room for one more stream within {} s; it allows {} at once on a connection",
                    STREAM_TIMEOUT.as_secs(),
                    self.inner.info.streams_max
                ),
            }),
        }
    }

    pub(super) fn explain(&self, error: RelayError) -> RelayError {
        self.inner.ending.explain(error)
    }

    pub(super) fn ending(&self) -> Ending {
        self.inner.ending.clone()
    }

    pub(super) fn tasks(&self) -> &TaskTracker {
        &self.inner.tasks
    }
}

const fn what(first: &open::Stream) -> What {
    match first {
        open::Stream::Hello(_) => What::Control,
        open::Stream::Append(_) => What::Verdicts,
        open::Stream::Subscribe(_) => What::Replay,
        open::Stream::KeyPackages(_) => What::KeyPackages,
        open::Stream::LogStatus(_) => What::Replay,
        open::Stream::Watch(_) => What::Replay,
    }
}

const fn opening(stream: open::Stream) -> Open {
    Open { stream: Some(stream) }
}

/// Converts a connection's end to a session's: a close with one of the project's codes is a refusal.
pub(super) fn closed_by(error: &ConnectionError) -> RelayError {
    if let ConnectionError::ApplicationClosed(close) = error
        && let Ok(number) = u32::try_from(close.error_code.into_inner())
        && let Some(code) = Code::from_number(number)
    {
        return Refused {
            number,
            message: super::error::shown(&String::from_utf8_lossy(&close.reason)),
            retryable: code.is_retryable(),
            retry_after: None,
            offset: skytale_proto::Offset::ZERO,
            agent: None,
        }
        .into();
    }
    RelayError::lost(error.to_string())
}

/// Returns the relay's limits, restricted to this side's.
fn accepted(started: Started) -> SessionInfo {
    let durability = started.durability();
    let given = started.limits.unwrap_or_default();
    let within = |value: u64, most: usize| match usize::try_from(value).unwrap_or(usize::MAX) {
        0 => most,
        value => value.min(most),
    };
    let frame_bytes_max = within(given.frame_bytes_max, limits::FRAME_BYTES_MAX);
    let in_flight = within(given.append_in_flight_bytes_max, limits::APPEND_IN_FLIGHT_BYTES_MAX);
    let (keepalive_min, keepalive_max) = KEEPALIVE_RANGE;
    let keepalive = match started.keepalive_ms {
        0 => limits::KEEPALIVE,
        ms => Duration::from_millis(ms).clamp(keepalive_min, keepalive_max),
    };
    SessionInfo {
        frame_bytes_max,
        // It must always be possible to send one frame.
        append_in_flight_bytes_max: in_flight.max(frame_bytes_max),
        frames_per_second: given.frames_per_second,
        bytes_per_second: given.bytes_per_second,
        streams_max: match given.streams_max {
            0 => limits::STREAMS_MAX,
            streams_max => streams_max,
        },
        watched_max: given.watched_max,
        key_packages_max: within(given.key_packages_max.into(), limits::KEY_PACKAGES_MAX),
        keepalive,
        durability,
        relay_version: super::error::shown(&started.relay_version),
        clock_ahead_ms: i64::try_from(started.time_ms)
            .unwrap_or(i64::MAX)
            .saturating_sub(control::unix_now_ms()),
        token_expires_s: started.token_expires_s,
        rollback_ms: started.rollback_ms,
    }
}
