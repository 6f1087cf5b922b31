//! One connection: admitted, run, ended with a code.

use crate::endpoint;
use crate::metrics;
use crate::node::Shared;
use crate::refusal::{Short, counted};
use crate::session::end::Ending;
use crate::session::state::SessionState;
use crate::session::{Session, control, hello, registry, streams};
use crate::stream::{Receiver, Sender, error_code};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use iroh::endpoint::{Connection, Incoming, VarInt};
use skytale_http::addresses::Begun;
use skytale_proto::Code;
use skytale_proto::session::{ControlEvent, Refusal, Started, control_event::Event};
use skytale_proto::token::Claims;
use skytale_workload::tap::Fact;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};
use tracing::{debug, info};

/// Maximum time that an ending waits for its last words to arrive, and for appends in flight to be answered.
const CLOSE_WITHIN: Duration = Duration::from_secs(1);

/// Serves a connection until it ends. Each part of that is boxed for itself: most of the time a session idles, and then it
/// keeps nothing of the room that its beginning and its end take.
pub(crate) fn serve(
    node: Arc<Shared>,
    incoming: Incoming,
    place: OwnedSemaphorePermit,
    waits: Begun,
) -> impl Future<Output = ()> + Send + 'static {
    let begun = Box::pin(begun(node, incoming, waits));
    async move {
        let _place = place;
        let serving = begun.await;
        if let Some(serving) = serving {
            serving.await;
        }
    }
}

/// Admits a connection, and gives what serves it from then on. Until then it waits at its address.
async fn begun(node: Arc<Shared>, incoming: Incoming, _waits: Begun) -> Option<BoxFuture<'static, ()>> {
    let deadline = Instant::now() + node.config.session.hello_timeout();
    let accepting = node.send_windows.accept(incoming, node.connections());
    let handshake = async { accepting?.await };
    let connection = match timeout_at(deadline, handshake).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => {
            debug!(%error, "handshake failed");
            return None;
        }
        Err(_) => {
            debug!("handshake took too long");
            return None;
        }
    };
    let admitted = hello::admit(&node, &connection, deadline).await;
    match admitted.and_then(|admitted| begin(node, connection.clone(), admitted)) {
        Ok(serving) => Some(serving),
        Err(refused) => {
            close(&connection, refused.sender, refused.refusal).await;
            None
        }
    }
}

/// Tells a connection that there is no place for it.
pub(crate) async fn turn_away(incoming: Incoming, why: Ending, _place: OwnedSemaphorePermit) {
    if let Ok(Ok(connection)) = timeout(CLOSE_WITHIN, incoming).await {
        close(&connection, None, Some(why.refusal())).await;
    }
}

/// Begins a session, and gives what serves it.
fn begin(
    node: Arc<Shared>,
    connection: Connection,
    admitted: hello::Admitted,
) -> Result<BoxFuture<'static, ()>, hello::Refused> {
    let hello::Admitted {
        sender,
        receiver,
        claims,
    } = admitted;
    let whose = registry::Whose {
        agent: claims.sub,
        account: claims.acct,
        key: claims.key,
    };
    let session = Arc::new(Session::new(node.clone(), claims));
    let most = node.config.limits.account_connections_max();
    let registered = node
        .sessions
        .register(whose, most, session.end.clone(), session.streams.clone());
    let Some(registration) = registered else {
        let why = "the account has as many connections to this relay node as it may have";
        let refusal = Refusal::because(Code::AccountConnections, why);
        session.node.limited.note(refusal.known_code());
        session.tap_refusal(&refusal);
        return Err(hello::Refused {
            sender: Some(sender),
            refusal: Some(refusal),
        });
    };
    if node.trust.is_revoked(&session.claims()) {
        // Revoked between verification and registration: the notice came before this session was registered.
        session.end.end(registry::revoked_ending());
    }
    if let Some(barred) = node.trust.barred() {
        // The same, for the node itself.
        session.end.end(barred.ending());
    }
    info!(agent = %Short(&session.agent), sessions = node.sessions.len(), "session started");
    metrics::session_started();
    session.tap(Fact::Token);
    session.tap(|agent| Fact::Connect {
        agent,
        session: registration.number(),
    });
    let of_account = node.sessions.of_account(&session.account.id);
    endpoint::widen(&connection, &node.config.limits, node.sessions.len(), of_account);
    Ok(run(session, connection, registration, sender, receiver))
}

/// A block, since a function's future would keep room for its arguments twice.
fn run(
    session: Arc<Session>,
    connection: Connection,
    registration: registry::Registration,
    sender: Sender,
    receiver: Receiver,
) -> BoxFuture<'static, ()> {
    async move {
        let mut control = control::Control::new(&session, state(&session), &registration, sender, receiver);
        control.queue(started(&session, &session.claims()));
        drive(&session, &connection, &mut control).await;
        let sender = Box::pin(control.into_sender()).await;

        session.tap(|agent| Fact::Disconnect {
            agent,
            session: registration.number(),
        });
        drop(registration);
        let why = session.end.why();
        metrics::session_ended(why.map(|why| why.code));
        match why {
            Some(why) => info!(agent = %Short(&session.agent), code = %why.code, why.message, "session ended"),
            None => info!(agent = %Short(&session.agent), "session closed by the agent"),
        }
        Box::pin(close(&connection, Some(sender), why.map(Ending::refusal))).await;
    }
    .boxed()
}

/// Runs the session's streams until the session ends, then lets them finish their work.
async fn drive(session: &Arc<Session>, connection: &Connection, control: &mut control::Control<'_>) {
    let mut serving = JoinSet::new();
    tokio::select! {
        () = control.run() => {}
        () = streams::accept(session, connection, &mut serving) => {}
        () = session.end.ended() => {}
    }
    session.end.end_unsaid();
    let finish = async { while serving.join_next().await.is_some() {} };
    if timeout(CLOSE_WITHIN, finish).await.is_err() {
        serving.shutdown().await;
    }
}

fn state(session: &Session) -> SessionState {
    let config = &session.node.config.session;
    SessionState::new(
        &session.claims(),
        config.keepalive(),
        Duration::from_secs(config.token_notice_s),
        session.node.clock.now(),
    )
}

fn started(session: &Session, claims: &Claims) -> Event {
    let node = &session.node;
    Event::Started(Started {
        limits: Some(node.config.wire_limits()),
        keepalive_ms: node.config.session.keepalive_ms,
        durability: node.store.durability().into(),
        relay_version: env!("CARGO_PKG_VERSION").into(),
        time_ms: node.clock.tokens_ms(),
        token_expires_s: claims.exp,
        rollback_ms: node.rollback.as_ref().map_or(0, |word| word.at_ms),
    })
}

/// Last words on the control stream, then the connection is closed with the same code.
async fn close(connection: &Connection, sender: Option<Sender>, refusal: Option<Refusal>) {
    let Some(refusal) = refusal.map(counted) else {
        return connection.close(VarInt::from_u32(0), b"");
    };
    let code = refusal.known_code().unwrap_or(Code::RelayInternal);
    let reason = format!("{code} {}", refusal.message);
    if let Some(mut sender) = sender {
        let say = async {
            let event = ControlEvent {
                event: Some(Event::Refusal(refusal)),
            };
            if sender.send(&event).await.is_ok() {
                sender.finish();
                sender.stopped().await;
            }
        };
        // An agent that does not listen gets the code with the connection's end.
        let _ = timeout(CLOSE_WITHIN, say).await;
    }
    connection.close(error_code(code), reason.as_bytes());
}
