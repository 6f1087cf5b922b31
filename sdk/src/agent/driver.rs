//! The background work: connect, run a session until it ends, connect again.

use super::backoff::Backoff;
use super::config::{DriverConfig, RelaySource};
use super::core::{Core, CoreSigner};
use super::running;
use crate::event::Event;
use crate::net::relay::Endpoint;
use crate::net::{Relay, RelayError, Session, Token, TokenProvider, TokenSubject};
use skytale_proto::Code;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

/// A token with less life than this left is not used for another session.
const TOKEN_LIFE_MIN: Duration = Duration::from_secs(30);
/// A session that lasted so long was a good one: the next attempt comes soon.
const SESSION_GOOD: Duration = Duration::from_secs(5);
/// Relay nodes of a directory that are tried.
const RELAYS_MAX: usize = 64;

pub(super) struct Driver {
    pub(super) core: Arc<Core>,
    pub(super) endpoint: Endpoint,
    pub(super) tokens: Arc<dyn TokenProvider>,
    pub(super) relays: RelaySource,
    pub(super) config: DriverConfig,
}

impl Driver {
    /// Runs until cancelled.
    pub(super) async fn run(self, cancel: CancellationToken) {
        let mut backoff = Backoff::new(self.config.backoff_min, self.config.backoff_max);
        let mut token = None;
        let mut turn = 0;
        loop {
            let connected = tokio::select! {
                () = cancel.cancelled() => break,
                connected = self.connect(&mut token, &mut turn) => connected,
            };
            let error = match connected {
                Ok((session, relay)) => {
                    let began = Instant::now();
                    let error = self.hold(&session, &relay, &cancel).await;
                    if is_about_this_relay(&error) {
                        turn = turn.wrapping_add(1);
                    }
                    if began.elapsed() >= SESSION_GOOD {
                        backoff.reset();
                    }
                    if matches!(error, RelayError::Closed) && cancel.is_cancelled() {
                        break;
                    }
                    error
                }
                Err(error) => error,
            };
            if is_about_the_token(error.code()) {
                token = None;
            }
            let retry_in = if error.is_retryable() {
                backoff.next(error.retry_after())
            } else {
                backoff.longest(error.retry_after())
            };
            self.core.bus.tell(Event::ConnectFailed {
                code: error.code(),
                reason: error.to_string(),
                retry_in,
            });
            tracing::debug!(code = %error.code(), %error, ?retry_in, "no session with a relay node");
            tokio::select! {
                () = cancel.cancelled() => break,
                () = sleep(retry_in) => {}
            }
        }
    }

    /// One attempt at one relay node.
    async fn connect(&self, kept: &mut Option<Token>, turn: &mut usize) -> Result<(Session, Relay), RelayError> {
        let subject = TokenSubject {
            agent: self.core.agent,
            endpoint: self.endpoint.id(),
            signer: Arc::new(CoreSigner(Arc::clone(&self.core))),
        };
        let token = match kept.take().filter(|token| token.remaining() >= TOKEN_LIFE_MIN) {
            Some(token) => token,
            None => self.tokens.token(&subject).await?,
        };
        *kept = Some(token.clone());
        let relays = match &self.relays {
            RelaySource::Fixed(relays) => relays.clone(),
            RelaySource::Directory => token
                .relays()
                .iter()
                .take(RELAYS_MAX)
                .filter_map(|relay| match Relay::from_directory(relay) {
                    Ok(relay) => Some(relay),
                    Err(error) => {
                        tracing::warn!(%error, "relay directory entry not usable");
                        None
                    }
                })
                .collect(),
        };
        let Some(relay) = relays.get(*turn % relays.len().max(1)).cloned() else {
            return Err(RelayError::Unreachable {
                reason: "the relay directory is empty".into(),
            });
        };
        // Whatever comes of this one, the next attempt is at the next; a session that was good stays.
        *turn = turn.wrapping_add(1);
        let session = Session::connect(&self.endpoint, &relay, subject, token, Arc::clone(&self.tokens)).await?;
        *turn = turn.wrapping_sub(1);
        Ok((session, relay))
    }

    /// Works with a session until it ends, and cleans up after it.
    async fn hold(&self, session: &Session, relay: &Relay, cancel: &CancellationToken) -> RelayError {
        let bus = &self.core.bus;
        bus.session.send_replace(Some(session.clone()));
        bus.tell(Event::Connected { relay: relay.endpoint });
        tracing::info!(relay = %relay.endpoint, "connected");
        let error = running::run(&self.core, &self.config, session, cancel).await;
        bus.session.send_replace(None);
        bus.readiness.send_replace(Default::default());
        session.close().await;
        // Every frame in flight is ambiguous now: each is offered again in the next session.
        let _ = self.core.call(|actor| actor.engine.connection_lost()).await;
        tracing::info!(code = %error.code(), %error, "disconnected");
        bus.tell(Event::Disconnected {
            code: error.code(),
            reason: error.to_string(),
        });
        error
    }
}

/// Whether another relay node is likely to be better than this one.
fn is_about_this_relay(error: &RelayError) -> bool {
    matches!(error, RelayError::Gap { .. } | RelayError::Protocol { .. }) || error.code() == Code::Draining
}

/// Whether another token may help.
const fn is_about_the_token(code: Code) -> bool {
    matches!(code.number(), 3_001..=3_999)
}
