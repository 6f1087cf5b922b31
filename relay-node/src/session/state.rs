//! The session's rule: what to do with what the agent says, and with time that passes. Pure.
//!
//! ```text
//!  heard ── keepalive ──> ping ── keepalive ──> KeepaliveLost
//!  token ── expires - notice ──> Notice ── expires + skew ──> TokenExpired
//! ```

use crate::clock::Now;
use crate::session::end::Ending;
use skytale_proto::session::{
    ControlRequest, Notice, Ping, Pong, Refusal, TokenAccepted, control_event::Event, control_request::Request, notice,
};
use skytale_proto::token::Claims;
use skytale_proto::{AccountId, AgentId, Code, EndpointId, limits};
use std::time::Duration;
use tokio::time::Instant;

/// One session, without its connection.
#[derive(Debug)]
pub(crate) struct SessionState {
    agent: AgentId,
    account: AccountId,
    endpoint: EndpointId,
    keepalive: Duration,
    notice: Duration,
    token_expires_s: u64,
    told_ending: bool,
    heard: Instant,
    pinged: bool,
    nonce: u64,
}

/// Next step of the session.
#[derive(Debug, PartialEq)]
pub(crate) enum Step {
    /// Send an event.
    Send(Event),
    /// Verify a token, then tell [`SessionState::on_token`].
    Verify(String),
    /// Go on under new claims: send the event, use the claims.
    Refresh(Event, Box<Claims>),
    /// The session is over.
    End(Ending),
}

impl SessionState {
    /// A session that has just started under `claims`, which were verified.
    pub(crate) fn new(claims: &Claims, keepalive: Duration, notice: Duration, now: Now) -> Self {
        Self {
            agent: claims.sub,
            account: claims.acct,
            endpoint: claims.cnf.eid,
            keepalive,
            notice,
            token_expires_s: claims.exp,
            told_ending: false,
            heard: now.instant,
            pinged: false,
            nonce: 0,
        }
    }

    /// The agent said something.
    pub(crate) fn on_request(&mut self, request: ControlRequest, now: Now) -> Option<Step> {
        self.heard = now.instant;
        self.pinged = false;
        match request.request {
            Some(Request::Ping(Ping { nonce })) => Some(Step::Send(Event::Pong(Pong { nonce }))),
            Some(Request::Pong(_)) => None,
            Some(Request::TokenRefresh(refresh)) => Some(Step::Verify(refresh.token)),
            None => Some(Step::End(Ending::new(
                Code::MessageMalformed,
                "a control request of no known kind",
            ))),
        }
    }

    /// A token that came for a refresh has been verified. One that is refused changes nothing.
    pub(crate) fn on_token(&mut self, verified: Result<Claims, Refusal>) -> Step {
        let claims = match verified.and_then(|claims| self.same(claims)) {
            Ok(claims) => claims,
            Err(refusal) => return Step::Send(Event::Refusal(refusal)),
        };
        self.token_expires_s = claims.exp;
        self.told_ending = false;
        let accepted = TokenAccepted {
            token_expires_s: claims.exp,
        };
        Step::Refresh(Event::TokenAccepted(accepted), Box::new(claims))
    }

    /// Time has passed.
    pub(crate) fn on_time(&mut self, now: Now) -> Option<Step> {
        if now.unix_ms >= self.ends_ms() {
            return Some(Step::End(Ending::new(
                Code::TokenExpired,
                "the session's token has ended",
            )));
        }
        if now.instant >= self.heard + self.keepalive * 2 {
            return Some(Step::End(Ending::new(
                Code::KeepaliveLost,
                "nothing was heard for twice the keepalive",
            )));
        }
        if !self.told_ending && now.unix_ms >= self.notice_ms() {
            self.told_ending = true;
            return Some(Step::Send(Event::Notice(Notice {
                kind: notice::Kind::TokenEnding.into(),
                within_ms: self.expires_ms().saturating_sub(now.unix_ms),
                detail: "the token is about to end: send a TokenRefresh".into(),
            })));
        }
        if !self.pinged && now.instant >= self.heard + self.keepalive {
            self.pinged = true;
            self.nonce += 1;
            return Some(Step::Send(Event::Ping(Ping { nonce: self.nonce })));
        }
        None
    }

    /// Returns the time at which [`SessionState::on_time`] has something to do next, as far as is known now.
    pub(crate) fn wake(&self, now: Now) -> Instant {
        let silence = if self.pinged {
            self.keepalive * 2
        } else {
            self.keepalive
        };
        let token_ms = if self.told_ending {
            self.ends_ms()
        } else {
            self.notice_ms()
        };
        (self.heard + silence).min(now.at(token_ms))
    }

    /// Returns the expiry in the token.
    fn expires_ms(&self) -> u64 {
        self.token_expires_s.saturating_mul(1000)
    }

    /// Returns the end of the session: a token is in force for as long as its verification says so, which forgives a
    /// clock's skew.
    fn ends_ms(&self) -> u64 {
        self.expires_ms().saturating_add(millis(limits::CLOCK_SKEW_MAX))
    }

    fn notice_ms(&self) -> u64 {
        self.expires_ms().saturating_sub(millis(self.notice))
    }

    fn same(&self, claims: Claims) -> Result<Claims, Refusal> {
        if (claims.sub, claims.acct) != (self.agent, self.account) {
            return Err(Refusal::because(
                Code::TokenSubject,
                "the token is another agent's than the session's",
            ));
        }
        of_endpoint(claims, &self.endpoint)
    }
}

/// Claims, if they are for this endpoint.
pub(crate) fn of_endpoint(claims: Claims, endpoint: &EndpointId) -> Result<Claims, Refusal> {
    if claims.cnf.eid == *endpoint {
        Ok(claims)
    } else {
        Err(Refusal::because(
            Code::TokenEndpoint,
            "the token belongs to another endpoint than this connection's",
        ))
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use skytale_proto::KeyId;
    use skytale_proto::session::TokenRefresh;
    use skytale_proto::token::Confirmation;

    const KEEPALIVE: Duration = Duration::from_secs(15);
    const NOTICE: Duration = Duration::from_secs(60);
    const EXPIRES_S: u64 = 10_000;

    fn claims() -> Claims {
        Claims {
            iss: "issuer".into(),
            aud: "audience".into(),
            sub: AgentId::from_bytes([1; 32]),
            acct: AccountId::from_bytes([2; 16]),
            key: KeyId::from_bytes([3; 16]),
            scope: String::new(),
            cnf: Confirmation {
                eid: EndpointId::from_bytes([4; 32]),
            },
            exp: EXPIRES_S,
            iat: 0,
            jti: "jti".into(),
        }
    }

    fn begin() -> Now {
        Now {
            instant: Instant::now(),
            unix_ms: 9_000_000,
        }
    }

    fn later(now: Now, by: Duration) -> Now {
        Now {
            instant: now.instant + by,
            unix_ms: now.unix_ms + millis(by),
        }
    }

    fn state(now: Now) -> SessionState {
        SessionState::new(&claims(), KEEPALIVE, NOTICE, now)
    }

    fn request(request: Request) -> ControlRequest {
        ControlRequest { request: Some(request) }
    }

    fn ended(step: Option<Step>) -> Option<Code> {
        match step {
            Some(Step::End(ending)) => Some(ending.code),
            _ => None,
        }
    }

    #[test]
    fn a_ping_is_answered_with_its_nonce() {
        let now = begin();
        let step = state(now).on_request(request(Request::Ping(Ping { nonce: 77 })), now);
        assert_eq!(step, Some(Step::Send(Event::Pong(Pong { nonce: 77 }))));
    }

    #[test]
    fn silence_is_pinged_once_and_ends_the_session_at_twice_the_keepalive() {
        let now = begin();
        let mut state = state(now);
        assert_eq!(state.wake(now), now.instant + KEEPALIVE);
        assert_eq!(state.on_time(later(now, KEEPALIVE / 2)), None);
        let at = later(now, KEEPALIVE);
        assert_eq!(state.on_time(at), Some(Step::Send(Event::Ping(Ping { nonce: 1 }))));
        assert_eq!(state.on_time(at), None);
        assert_eq!(state.wake(at), now.instant + KEEPALIVE * 2);
        assert_eq!(
            ended(state.on_time(later(now, KEEPALIVE * 2))),
            Some(Code::KeepaliveLost)
        );
    }

    #[test]
    fn whoever_answers_stays() {
        let now = begin();
        let mut state = state(now);
        for round in 1..20 {
            let at = later(now, KEEPALIVE * round);
            assert_eq!(
                state.on_time(at),
                Some(Step::Send(Event::Ping(Ping { nonce: round.into() })))
            );
            assert_eq!(
                state.on_request(request(Request::Pong(Pong { nonce: round.into() })), at),
                None
            );
        }
    }

    #[test]
    fn the_token_is_told_to_end_once_and_then_ends_the_session() {
        let now = begin();
        let mut state = state(now);
        let speak = |state: &mut SessionState, at| {
            assert_eq!(state.on_request(request(Request::Pong(Pong::default())), at), None)
        };
        let notice = later(now, Duration::from_secs(940));
        speak(&mut state, notice);
        let Some(Step::Send(Event::Notice(told))) = state.on_time(notice) else {
            panic!("a notice is due")
        };
        assert_eq!((told.kind(), told.within_ms), (notice::Kind::TokenEnding, 60_000));
        assert_eq!(state.on_time(notice), None);
        let end = later(now, Duration::from_secs(1_000) + limits::CLOCK_SKEW_MAX);
        speak(&mut state, end);
        assert_eq!(ended(state.on_time(end)), Some(Code::TokenExpired));
    }

    #[test]
    fn a_refresh_prolongs_the_session_for_the_same_agent_only() {
        let now = begin();
        let mut state = state(now);
        let refresh = TokenRefresh { token: "token".into() };
        let step = state.on_request(request(Request::TokenRefresh(refresh)), now);
        assert_eq!(step, Some(Step::Verify("token".into())));

        let refused = |step| match step {
            Step::Send(Event::Refusal(refusal)) => refusal.known_code(),
            _ => None,
        };
        let mut other = claims();
        other.sub = AgentId::from_bytes([9; 32]);
        assert_eq!(refused(state.on_token(Ok(other))), Some(Code::TokenSubject));
        let mut other = claims();
        other.acct = AccountId::from_bytes([9; 16]);
        assert_eq!(refused(state.on_token(Ok(other))), Some(Code::TokenSubject));
        let mut other = claims();
        other.cnf.eid = EndpointId::from_bytes([9; 32]);
        assert_eq!(refused(state.on_token(Ok(other))), Some(Code::TokenEndpoint));
        assert_eq!(state.token_expires_s, EXPIRES_S);

        let mut longer = claims();
        longer.exp = EXPIRES_S + 3_600;
        let step = state.on_token(Ok(longer.clone()));
        let accepted = Event::TokenAccepted(TokenAccepted {
            token_expires_s: longer.exp,
        });
        assert_eq!(step, Step::Refresh(accepted, Box::new(longer)));
        assert_eq!(
            ended(state.on_time(Now {
                instant: now.instant,
                unix_ms: 10_100_000
            })),
            None
        );
    }

    /// Generates a session's events: time passes, and the agent speaks or not.
    fn story() -> impl Strategy<Value = Vec<(u64, bool)>> {
        proptest::collection::vec((0..40_000u64, any::<bool>()), 1..80)
    }

    proptest! {
        #[test]
        fn a_session_ends_for_a_reason_and_never_wakes_for_nothing(story in story()) {
            let mut now = begin();
            let mut state = state(now);
            let mut heard = now;
            'story: for (pass_ms, speaks) in story {
                now = later(now, Duration::from_millis(pass_ms));
                // Due steps are done before anything else is heard, as time was there first.
                while let Some(step) = state.on_time(now) {
                    let silent = now.instant - heard.instant;
                    match step {
                        Step::End(ending) if ending.code == Code::KeepaliveLost => {
                            prop_assert!(silent >= KEEPALIVE * 2);
                            break 'story;
                        }
                        Step::End(ending) => {
                            prop_assert_eq!(ending.code, Code::TokenExpired);
                            prop_assert!(now.unix_ms >= (EXPIRES_S + limits::CLOCK_SKEW_MAX.as_secs()) * 1000);
                            break 'story;
                        }
                        Step::Send(Event::Ping(_)) => prop_assert!(silent >= KEEPALIVE),
                        Step::Send(Event::Notice(_)) => prop_assert!(now.unix_ms + millis(NOTICE) >= EXPIRES_S * 1000),
                        other => prop_assert!(false, "{:?}", other),
                    }
                }
                prop_assert!(now.instant - heard.instant < KEEPALIVE * 2);
                prop_assert!(state.wake(now) > now.instant);
                if speaks {
                    state.on_request(request(Request::Pong(Pong::default())), now);
                    heard = now;
                }
            }
        }
    }
}
