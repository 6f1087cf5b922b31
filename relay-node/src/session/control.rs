//! The control stream: one task's loop over requests, time, drain and the end. It never waits for a slow agent.

use crate::drain::told_over;
use crate::refusal::counted;
use crate::session::Session;
use crate::session::end::Ending;
use crate::session::registry::{self, Registration};
use crate::session::state::{SessionState, Step};
use crate::stream::{ReceiveError, Receiver, Sender};
use bytes::{Buf, BytesMut};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use skytale_proto::session::{
    ControlEvent, ControlRequest, Notice, Refusal, control_event::Event, frame_message, notice,
};
use skytale_proto::token::Claims;
use skytale_proto::{Code, limits};
use skytale_workload::tap::Fact;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::Instant;

/// Events waiting for an agent that does not read: with this many bytes waiting, it is not read from either.
const WAITING_BYTES_MAX: usize = 16 * 1024;
/// Time over which agents get the notice to go elsewhere, and interval at which they get it again: for those who find
/// nowhere to go.
const ELSEWHERE_EVERY: Duration = Duration::from_secs(30);
/// Maximum time for the last events.
const FLUSH_WITHIN: Duration = Duration::from_millis(500);

/// The control stream of a session.
pub(crate) struct Control<'a> {
    session: &'a Arc<Session>,
    registration: &'a Registration,
    state: SessionState,
    sender: Sender,
    receiver: Receiver,
    waiting: BytesMut,
    verifying: Option<BoxFuture<'a, Result<Claims, Refusal>>>,
}

impl<'a> Control<'a> {
    pub(crate) fn new(
        session: &'a Arc<Session>,
        state: SessionState,
        registration: &'a Registration,
        sender: Sender,
        receiver: Receiver,
    ) -> Self {
        Self {
            session,
            registration,
            state,
            sender,
            receiver,
            waiting: BytesMut::new(),
            verifying: None,
        }
    }

    /// An event is to be sent.
    pub(crate) fn queue(&mut self, event: Event) {
        let event = match event {
            Event::Refusal(refusal) => Event::Refusal(counted(refusal)),
            event => event,
        };
        self.waiting
            .extend_from_slice(&frame_message(&ControlEvent { event: Some(event) }));
    }

    /// Runs until the session's end was said, or the agent has left.
    pub(crate) async fn run(&mut self) {
        let mut drain = self.session.node.drain.subscribe();
        let (mut turn, mut told_drain) = (None, false);
        let mut clock = self.session.node.clock.subscribe();
        let mut elsewhere = None;
        loop {
            if let Some(deadline) = *drain.borrow_and_update()
                && !told_drain
            {
                // A later drain may leave less time.
                let at = turn.map_or_else(|| self.turn(deadline), |at: Instant| at.min(deadline));
                turn = Some(at);
                if at <= Instant::now() {
                    (turn, told_drain) = (None, true);
                    self.session.going.store(true, Ordering::Relaxed);
                    self.queue(draining(deadline));
                }
            }
            if *clock.borrow_and_update() && !told_drain {
                let at = elsewhere.unwrap_or_else(|| self.turn(Instant::now() + ELSEWHERE_EVERY));
                elsewhere = Some(at);
                if at <= Instant::now() && self.waiting.len() < WAITING_BYTES_MAX {
                    elsewhere = Some(Instant::now() + ELSEWHERE_EVERY);
                    self.queue(go_elsewhere());
                }
            } else {
                elsewhere = None;
            }
            while let Some(step) = self.state.on_time(self.session.node.clock.now()) {
                if self.take(step) {
                    return;
                }
            }
            let wake = self.state.wake(self.session.node.clock.now());
            let wake = [turn, elsewhere].into_iter().flatten().fold(wake, Instant::min);
            let listening = self.verifying.is_none() && self.waiting.len() < WAITING_BYTES_MAX;
            tokio::select! {
                written = self.sender.write(&self.waiting), if !self.waiting.is_empty() => match written {
                    Ok(bytes) => self.waiting.advance(bytes),
                    Err(_) => return,
                },
                request = self.receiver.message::<ControlRequest>(limits::HELLO_BYTES_MAX), if listening => {
                    if self.on_received(request) {
                        return;
                    }
                }
                verified = verified(&mut self.verifying) => {
                    self.verifying = None;
                    let step = self.state.on_token(verified);
                    if let Step::Send(Event::Refusal(refusal)) = &step {
                        self.session.tap_refusal(refusal);
                    }
                    self.take(step);
                }
                () = tokio::time::sleep_until(wake) => {}
                _ = drain.changed(), if !told_drain => {}
                _ = clock.changed() => {}
                () = self.session.end.ended() => return,
            }
        }
    }

    /// Returns the time at which the agent learns that the node is about to stop: not all of them at one moment.
    fn turn(&self, deadline: Instant) -> Instant {
        let now = Instant::now();
        let over = told_over(
            self.session.node.sessions.len(),
            deadline.saturating_duration_since(now),
        );
        now + over.mul_f64(rand::random())
    }

    fn on_received(&mut self, received: Result<Option<ControlRequest>, ReceiveError>) -> bool {
        match received {
            Ok(Some(request)) => {
                let step = self.state.on_request(request, self.session.node.clock.now());
                step.is_some_and(|step| self.take(step))
            }
            // The agent has finished its control stream: it leaves.
            Ok(None) => true,
            Err(error) => {
                match error.code() {
                    Some(Code::MessageTooLarge) => {
                        self.end(Code::MessageTooLarge, "a control request over the size limit")
                    }
                    Some(code) => self.end(code, "a control request that cannot be read"),
                    None => {}
                }
                true
            }
        }
    }

    /// Does a step; true where the session is over.
    fn take(&mut self, step: Step) -> bool {
        match step {
            Step::Send(event) => self.queue(event),
            Step::Verify(token) => {
                let node = &self.session.node;
                self.verifying = Some(async move { node.trust.verify(&token).await }.boxed());
            }
            Step::Refresh(event, claims) => {
                self.session.tap(Fact::Token);
                self.registration.set_key(claims.key);
                self.session.refresh(*claims);
                if self.session.node.trust.is_revoked(&self.session.claims()) {
                    self.session.end.end(registry::revoked_ending());
                }
                self.queue(event);
            }
            Step::End(ending) => {
                self.session.end.end(ending);
                return true;
            }
        }
        false
    }

    fn end(&self, code: Code, message: &'static str) {
        self.session.end.end(Ending::new(code, message));
    }

    /// Writes the waiting events, for a moment, and gives the stream back.
    pub(crate) async fn into_sender(mut self) -> Sender {
        let flush = async {
            while !self.waiting.is_empty() {
                match self.sender.write(&self.waiting).await {
                    Ok(bytes) => self.waiting.advance(bytes),
                    Err(_) => break,
                }
            }
        };
        // An agent that does not read has to do without them.
        let _ = tokio::time::timeout(FLUSH_WITHIN, flush).await;
        self.sender
    }
}

fn draining(deadline: Instant) -> Event {
    let within = deadline.saturating_duration_since(Instant::now());
    Event::Notice(Notice {
        kind: notice::Kind::Drain.into(),
        within_ms: u64::try_from(within.as_millis()).unwrap_or(u64::MAX),
        detail: "this relay node is about to stop: connect elsewhere".into(),
    })
}

fn go_elsewhere() -> Event {
    Event::Notice(Notice {
        kind: notice::Kind::Elsewhere.into(),
        within_ms: 0,
        detail: "this relay node's clock is wrong: connect elsewhere if another one takes you".into(),
    })
}

async fn verified(verifying: &mut Option<BoxFuture<'_, Result<Claims, Refusal>>>) -> Result<Claims, Refusal> {
    match verifying {
        Some(verifying) => verifying.await,
        None => std::future::pending().await,
    }
}
