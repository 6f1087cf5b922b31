//! The driver: finds a relay node, keeps the session, and reconnects.

use super::error::RawError;
use crate::agent::RelaySource;
use crate::agent::backoff::Backoff;
use crate::net::relay::{Appender, Endpoint};
use crate::net::{Relay, RelayError, Session, TokenProvider, TokenSource, TokenSubject};
use skytale_proto::{AccountId, Code};
use std::collections::VecDeque;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

/// Delay between two attempts at an operation that may succeed soon.
pub(super) const PAUSE: Duration = Duration::from_millis(200);
/// Longest delay between two attempts to reach a relay node.
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// Length of a session after which the next delay is short again.
const SOUND: Duration = Duration::from_secs(10);

/// A session and what belongs to it.
#[derive(Clone, Debug)]
pub(super) struct Live {
    pub(super) session: Session,
    pub(super) appender: Appender,
    pub(super) account: AccountId,
}

pub(super) struct Driver {
    endpoint: Endpoint,
    subject: TokenSubject,
    tokens: TokenSource,
    source: RelaySource,
    publish: watch::Sender<Option<Live>>,
}

impl Driver {
    pub(super) const fn new(
        endpoint: Endpoint,
        subject: TokenSubject,
        tokens: TokenSource,
        source: RelaySource,
        publish: watch::Sender<Option<Live>>,
    ) -> Self {
        Self {
            endpoint,
            subject,
            tokens,
            source,
            publish,
        }
    }

    /// Runs until it is dropped.
    pub(super) async fn run(self) {
        let mut backoff = Backoff::new(PAUSE, PAUSE_MAX);
        // The relay node used last goes to the end of the list.
        let mut last = None;
        loop {
            let pause = match self.connect(last).await {
                Ok(live) => {
                    let (relay, began) = (live.session.relay(), Instant::now());
                    tracing::info!(%relay, "raw logs: connected");
                    self.publish.send_replace(Some(live.clone()));
                    // A node that it returns to is the only one that accepts it.
                    let reason = ended(&live.session, last == Some(relay)).await;
                    self.publish.send_replace(None);
                    tracing::info!(%relay, code = %reason.code(), %reason, "raw logs: session ended");
                    live.session.close().await;
                    last = Some(relay);
                    if began.elapsed() >= SOUND {
                        backoff.reset();
                    }
                    backoff.next(reason.retry_after())
                }
                Err(error) => {
                    tracing::debug!(code = %error.code(), %error, "raw logs: no session");
                    backoff.next(None)
                }
            };
            sleep(pause).await;
        }
    }

    async fn connect(&self, last: Option<skytale_proto::EndpointId>) -> Result<Live, RawError> {
        let token = self.tokens.token(&self.subject).await.map_err(RelayError::from)?;
        let account = token.account().ok_or(RawError::Account {
            problem: "no claims that can be read",
        })?;
        let mut relays: Vec<Relay> = match &self.source {
            RelaySource::Fixed(relays) => relays.clone(),
            RelaySource::Directory => token
                .relays()
                .iter()
                .filter_map(|relay| Relay::from_directory(relay).ok())
                .collect(),
        };
        relays.sort_by_key(|relay| Some(relay.endpoint) == last);
        let mut failed = RelayError::Unreachable {
            reason: "no relay node is known".into(),
        };
        // A node that prefers not to serve is used if there is no other.
        let last_resort = self.endpoint.clone().as_last_resort();
        let attempts = relays.iter().map(|relay| (&self.endpoint, relay));
        let mut unwilling = Vec::new();
        let mut attempts: VecDeque<_> = attempts.collect();
        while let Some((endpoint, relay)) = attempts.pop_front().or_else(|| unwilling.pop()) {
            let connecting = Session::connect(
                endpoint,
                relay,
                self.subject.clone(),
                token.clone(),
                self.tokens.clone(),
            );
            match connecting.await {
                Ok(session) => match Appender::open(&session).await {
                    Ok(appender) => {
                        return Ok(Live {
                            session,
                            appender,
                            account,
                        });
                    }
                    Err(error) => failed = error,
                },
                Err(error) => {
                    if error.code() == Code::ClockWrong {
                        unwilling.push((&last_resort, relay));
                    }
                    failed = error;
                }
            }
        }
        Err(failed.into())
    }
}

/// Resolves when a session has ended, or is to be left: the relay node drains, owes answers for too long, or redirects
/// this side, unless it is to `stay`.
async fn ended(session: &Session, stay: bool) -> RelayError {
    let (mut draining, mut overdue) = (session.draining(), session.overdue());
    let mut sent = session.sent_elsewhere();
    tokio::select! {
        reason = session.ended() => reason,
        Ok(_) = draining.wait_for(Option::is_some) => RelayError::Lost {
            code: Code::Draining,
            reason: "the relay node is about to stop".into(),
        },
        Ok(error) = overdue.wait_for(Option::is_some) => error.clone().unwrap_or(RelayError::Closed),
        Ok(error) = sent.wait_for(Option::is_some), if !stay => error.clone().unwrap_or(RelayError::Closed),
    }
}
