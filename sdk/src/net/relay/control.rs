//! The control stream after the Hello: keepalive, token refresh, notices.

use super::activity::Activity;
use super::error::{Refused, RelayError, shown};
use super::message::{self, MessageReader};
use super::session::{Ending, SessionInfo, closed_by};
use crate::net::token::{Token, TokenError, TokenProvider, TokenSource, TokenSubject};
use futures_util::future::BoxFuture;
use iroh::endpoint::{Connection, SendStream};
use skytale_proto::session::{
    ControlEvent, ControlRequest, Notice, Ping, Pong, TokenRefresh, control_event, control_request, notice,
};
use skytale_proto::{Code, Offset};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

/// Time before a token's expiry that is reserved for its refresh: a fifth of its life, but no more than this.
const REFRESH_LEAD_MAX: Duration = Duration::from_secs(120);
/// Shortest interval between two refreshes, whatever the relay says about the token's expiry.
const REFRESH_INTERVAL_MIN: Duration = Duration::from_secs(1);
/// Longest delay between two attempts to get a token.
const REFRESH_RETRY_MAX: Duration = Duration::from_secs(30);
/// Longest time by which a refresh is planned ahead.
const REFRESH_AHEAD_MAX: Duration = Duration::from_secs(24 * 3_600);
/// A timer that is this late shows that this process was suspended.
const STOOD_STILL_MIN: Duration = Duration::from_millis(250);

pub(super) struct Control {
    pub(super) info: SessionInfo,
    pub(super) activity: Activity,
    pub(super) ending: Ending,
    pub(super) drain: watch::Sender<Option<Duration>>,
    pub(super) elsewhere: watch::Sender<Option<RelayError>>,
    pub(super) subject: TokenSubject,
    pub(super) provider: TokenSource,
}

/// State of the token's refresh.
enum Refresh {
    /// Starts at this time.
    At(Instant),
    /// A request to the provider is pending.
    Asking(BoxFuture<'static, Result<Token, TokenError>>),
    /// The request was sent, and the relay has not answered.
    Sent(Token),
    /// The provider gives no more tokens: the session ends with the present one.
    GivenUp,
}

/// Runs until the session ends; ends it.
pub(super) async fn run(control: Control, connection: Connection, mut send: SendStream, mut events: MessageReader) {
    let cancel = control.ending.cancel.clone();
    let reason = tokio::select! {
        () = cancel.cancelled() => return,
        error = connection.closed() => after_close(&error, &mut events).await,
        error = drive(&control, &mut send, &mut events) => error,
    };
    tracing::debug!(code = %reason.code(), %reason, "relay session ended");
    control.ending.end(reason);
}

/// Reads the reason from the buffer: a relay that ends a session sends it on the control stream, then closes.
async fn after_close(error: &iroh::endpoint::ConnectionError, events: &mut MessageReader) -> RelayError {
    while let Ok(Some(event)) = events.next::<ControlEvent>().await {
        if let Some(control_event::Event::Refusal(refusal)) = event.event {
            return Refused::from(refusal).into();
        }
    }
    closed_by(error)
}

/// Drives the control stream. The relay node's keepalive determines how soon its failure is detected: nothing else
/// shows that its process was killed or its machine lost. After one keepalive of silence it sends a ping, after two it
/// ends the session.
async fn drive(control: &Control, send: &mut SendStream, events: &mut MessageReader) -> RelayError {
    let keepalive = control.info.keepalive;
    let mut refresh = Refresh::At(refresh_at(control, control.info.token_expires_s, Duration::ZERO));
    let mut refreshed = Instant::now();
    let mut nonce = 0_u64;
    // Whether a ping was sent for the current silence: one ping for each.
    let mut pinged = false;
    loop {
        let silence = control.activity.silence();
        if silence >= 2 * keepalive {
            return keepalive_lost(silence);
        }
        if silence < keepalive {
            pinged = false;
        } else if !pinged {
            pinged = true;
            nonce += 1;
            let ping = control_request::Request::Ping(Ping { nonce });
            if let Err(error) = request(control, send, ping).await {
                return error;
            }
            continue;
        }
        let patience = if pinged { 2 * keepalive } else { keepalive };
        let wake = Instant::now() + patience.saturating_sub(silence).max(Duration::from_millis(1));
        let outcome = tokio::select! {
            event = events.next::<ControlEvent>() => match event {
                Ok(Some(event)) => handle(control, send, event, &mut refresh, &mut refreshed).await,
                Ok(None) => Err(RelayError::lost("the relay ended the control stream")),
                Err(error) => Err(error),
            },
            () = sleep_until(wake) => Ok(()),
            next = advance(control, &mut refresh, refreshed) => match next {
                Step::To(next) => {
                    refresh = next;
                    Ok(())
                }
                Step::Send(token) => {
                    let text = token.expose().to_owned();
                    refresh = Refresh::Sent(token);
                    request(control, send, control_request::Request::TokenRefresh(TokenRefresh { token: text })).await
                }
            },
        };
        if let Err(error) = outcome {
            return error;
        }
        if Instant::now() > wake + (keepalive / 2).max(STOOD_STILL_MIN) {
            // This process was suspended, and cannot know whether the relay was silent meanwhile: start listening
            // again.
            control.activity.heard();
        }
    }
}

async fn handle(
    control: &Control,
    send: &mut SendStream,
    event: ControlEvent,
    refresh: &mut Refresh,
    refreshed: &mut Instant,
) -> Result<(), RelayError> {
    match event.event {
        Some(control_event::Event::Ping(ping)) => {
            request(
                control,
                send,
                control_request::Request::Pong(Pong { nonce: ping.nonce }),
            )
            .await
        }
        Some(control_event::Event::Pong(_)) => Ok(()),
        Some(control_event::Event::TokenAccepted(accepted)) => {
            let Refresh::Sent(token) = refresh else {
                return Err(RelayError::protocol("a token accepted that was not sent"));
            };
            let ends = accepted.token_expires_s.min(token.expires_s());
            *refreshed = Instant::now();
            *refresh = Refresh::At(refresh_at(control, ends, REFRESH_INTERVAL_MIN));
            Ok(())
        }
        Some(control_event::Event::Notice(notice)) => {
            heed(control, &notice, refresh, *refreshed);
            Ok(())
        }
        Some(control_event::Event::Refusal(refusal)) => {
            let refused = Refused::from(refusal);
            // The relay cannot reach the API now, or does not know its signing key yet. The present token stays valid,
            // here more than elsewhere.
            if matches!(refused.code(), Code::TrustStale | Code::TokenKeyUnknown) && matches!(refresh, Refresh::Sent(_))
            {
                *refresh = retry(*refreshed, refused.retry_after);
                return Ok(());
            }
            Err(refused.into())
        }
        Some(control_event::Event::Started(_)) => Err(RelayError::protocol("Started twice")),
        // An event of a later version.
        None => Ok(()),
    }
}

fn heed(control: &Control, notice: &Notice, refresh: &mut Refresh, refreshed: Instant) {
    match notice.kind() {
        notice::Kind::Drain => {
            let _ = control
                .drain
                .send_replace(Some(Duration::from_millis(notice.within_ms)));
        }
        notice::Kind::TokenEnding => {
            if let Refresh::At(at) = refresh {
                *at = (*at).min((refreshed + REFRESH_INTERVAL_MIN).max(Instant::now()));
            }
        }
        notice::Kind::Elsewhere => {
            let _ = control.elsewhere.send_replace(Some(sent_elsewhere(&notice.detail)));
        }
        notice::Kind::Unspecified => {}
    }
}

/// Returns the error for a relay node that prefers not to serve this side.
fn sent_elsewhere(detail: &str) -> RelayError {
    let code = Code::ClockWrong;
    RelayError::Refused(Refused {
        number: code.number(),
        message: shown(detail),
        retryable: code.is_retryable(),
        retry_after: None,
        offset: Offset::ZERO,
        agent: None,
    })
}

enum Step {
    To(Refresh),
    Send(Token),
}

/// Does the refresh's next step. Cancel-safe: a pending request to the provider is kept.
async fn advance(control: &Control, refresh: &mut Refresh, refreshed: Instant) -> Step {
    match refresh {
        Refresh::At(at) => {
            sleep_until(*at).await;
            let (provider, subject) = (control.provider.clone(), control.subject.clone());
            Step::To(Refresh::Asking(Box::pin(async move { provider.token(&subject).await })))
        }
        Refresh::Asking(asking) => match asking.await {
            Ok(token) => Step::Send(token),
            Err(error) if error.is_retryable() => {
                tracing::warn!(code = %error.code(), %error, "token not refreshed, trying again");
                Step::To(retry(refreshed, error.retry_after()))
            }
            Err(error) => {
                tracing::warn!(code = %error.code(), %error, "token not refreshed: the session ends with its token");
                Step::To(Refresh::GivenUp)
            }
        },
        Refresh::Sent(_) | Refresh::GivenUp => std::future::pending().await,
    }
}

/// Schedules the retry of a failed refresh: the younger the token, the sooner.
fn retry(refreshed: Instant, asked: Option<Duration>) -> Refresh {
    let pause = asked.unwrap_or_else(|| refreshed.elapsed() / 20);
    Refresh::At(Instant::now() + pause.clamp(REFRESH_INTERVAL_MIN, REFRESH_RETRY_MAX))
}

/// Returns the time to request the next token, by the relay's clock, since the relay ends the session.
fn refresh_at(control: &Control, expires_s: u64, not_before: Duration) -> Instant {
    let relay_now_ms = unix_now_ms().saturating_add(control.info.clock_ahead_ms);
    let expires_ms = i64::try_from(expires_s.saturating_mul(1_000)).unwrap_or(i64::MAX);
    let remaining_ms = u64::try_from(expires_ms.saturating_sub(relay_now_ms)).unwrap_or(0);
    let remaining = Duration::from_millis(remaining_ms).min(REFRESH_AHEAD_MAX);
    let lead = (remaining / 5).min(REFRESH_LEAD_MAX);
    Instant::now() + (remaining - lead).max(not_before)
}

async fn request(
    control: &Control,
    send: &mut SendStream,
    request: control_request::Request,
) -> Result<(), RelayError> {
    let message = ControlRequest { request: Some(request) };
    match timeout(control.info.keepalive, message::write(send, &message)).await {
        Ok(written) => written,
        Err(_) => Err(keepalive_lost(control.activity.silence())),
    }
}

fn keepalive_lost(silence: Duration) -> RelayError {
    RelayError::Lost {
        code: Code::KeepaliveLost,
        reason: format!("the relay was silent for {} ms", silence.as_millis()),
    }
}

/// Returns the current time, unix milliseconds, by this machine's clock.
pub(super) fn unix_now_ms() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
