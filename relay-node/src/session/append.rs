//! Append streams: requests are pipelined, answers come in their order.
//!
//! ```text
//!  stream -> [bytes in flight] -> rate -> decode -> authorize -> store ->  queue of verdicts -> answers -> stream
//! ```
//!
//! A request holds its bytes of the connection's bound from before its body is read until its answer is written. With
//! none left nothing is read, and QUIC holds the agent back.

use crate::authorize;
use crate::metrics::{self, Verdict};
use crate::refusal::{self, Short, counted};
use crate::session::Session;
use crate::stream::{ReceiveError, Receiver, Sender};
use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use skytale_log_store::{Accepted, AppendError, PendingAppend};
use skytale_proto::session::{
    AppendRequest, AppendResponse, Appended, Durability, Refusal, append_response::Outcome, decode_message,
    frame_message,
};
use skytale_proto::{Code, Frame, Kind, limits};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::Instant;
use tracing::warn;

/// What a request costs at least of the bytes in flight: it is kept with its verdict, however short its frame.
const REQUEST_BYTES_MIN: usize = 512;
/// Answers waiting in order on one stream.
const ANSWERS_MAX: usize = 4_096;
/// Answers written at once, in bytes.
const WRITE_BYTES_MAX: usize = 16 * 1024;

/// One request's answer, or the verdict that it waits for.
struct Answer {
    kind: Option<Kind>,
    outcome: Result<PendingAppend, Refusal>,
    read: Instant,
    in_flight: OwnedSemaphorePermit,
}

/// Serves an append stream until either side ends it.
pub(crate) async fn serve(session: &Arc<Session>, mut sender: Sender, mut receiver: Receiver) {
    let (queue, answers) = mpsc::channel(ANSWERS_MAX);
    let ended = {
        let mut write = pin!(write(session, answers, &mut sender));
        tokio::select! {
            ended = read(session, &mut receiver, queue) => {
                // What was read is answered, also when the session has ended.
                if write.await { ended } else { Ended::Gone }
            }
            _ = &mut write => Ended::Gone,
        }
    };
    match ended {
        Ended::Finished => sender.finish(),
        Ended::Refused(refusal) => {
            let code = refusal.known_code().unwrap_or(Code::RelayInternal);
            let response = AppendResponse {
                outcome: Some(Outcome::Refusal(counted(refusal))),
            };
            if sender.send(&response).await.is_ok() {
                sender.finish();
            }
            receiver.stop(code);
        }
        Ended::Session => {
            // The answers written still arrive: the stream is ended, not given up.
            sender.finish();
            if let Some(why) = session.end.why() {
                receiver.stop(why.code);
            }
        }
        // Dropped, the stream is stopped.
        Ended::Gone => {}
    }
}

/// How the reading side ended.
enum Ended {
    /// The agent has finished the stream, or reset it.
    Finished,
    /// What came is not of the protocol: the stream ends with this after the answers.
    Refused(Refusal),
    /// The session has ended.
    Session,
    /// Nobody reads answers.
    Gone,
}

/// Reads requests and queues their answers.
async fn read(session: &Arc<Session>, receiver: &mut Receiver, queue: mpsc::Sender<Answer>) -> Ended {
    let mut hold = Hold::default();
    loop {
        let request = tokio::select! {
            biased;
            () = session.end.ended() => return Ended::Session,
            request = request(session, receiver) => request,
        };
        let (request, in_flight) = match request {
            Ok(Some(request)) => request,
            Ok(None) => return Ended::Finished,
            Err(error) => return refusal::of_receive(&error).map_or(Ended::Finished, Ended::Refused),
        };
        let read = Instant::now();
        metrics::append_requested(request.len());
        let mut kind = None;
        let outcome = tokio::select! {
            biased;
            outcome = begin(session, request, &mut hold, &mut kind) => outcome,
            () = session.end.ended() => return Ended::Session,
        };
        let answer = Answer {
            kind,
            outcome,
            read,
            in_flight,
        };
        if queue.send(answer).await.is_err() {
            return Ended::Gone;
        }
    }
}

/// One request's frame, with its part of the bytes in flight.
async fn request(
    session: &Session,
    receiver: &mut Receiver,
) -> Result<Option<(Bytes, OwnedSemaphorePermit)>, ReceiveError> {
    let Some(length) = receiver.length(limits::MESSAGE_BYTES_MAX).await? else {
        return Ok(None);
    };
    let in_flight = take_in_flight(session, length).await;
    let message: AppendRequest = decode_message(receiver.bytes(length).await?)?;
    Ok(Some((message.frame, in_flight)))
}

/// Waits for room among the connection's bytes in flight.
#[allow(clippy::expect_used)]
pub(crate) async fn take_in_flight(session: &Session, length: usize) -> OwnedSemaphorePermit {
    let bytes = u32::try_from(length.max(REQUEST_BYTES_MIN)).unwrap_or(u32::MAX);
    let room = session.in_flight.clone().acquire_many_owned(bytes).await;
    room.expect("the semaphore is never closed")
}

/// Checks a frame and hands it to the store, or says why not.
async fn begin(
    session: &Session,
    encoded: Bytes,
    hold: &mut Hold,
    kind: &mut Option<Kind>,
) -> Result<PendingAppend, Refusal> {
    let node = &session.node;
    if node.is_draining() {
        return Err(Refusal::because(Code::Draining, "this relay node is about to stop"));
    }
    hold.check(Instant::now())?;
    if let Err(wait) = node.rates.take(&session.agent, encoded.len()) {
        return Err(hold.begin(Instant::now(), wait));
    }
    let frame = Frame::decode(encoded).map_err(|error| Refusal::because(error.code(), error.to_string()))?;
    *kind = Some(frame.header().kind());
    authorize::append(&session.claims(), frame.header()).map_err(authorize::Denied::refusal)?;
    let pending = node.store.append(frame).await;
    pending.map_err(|error| {
        warn!(agent = %Short(&session.agent), %error, "the store takes no append");
        refusal::of_store(&error)
    })
}

/// Once a frame was refused for its rate, those behind it on its stream are too, until the wait is over: else a shorter
/// frame would overtake it.
#[derive(Debug, Default)]
struct Hold {
    until: Option<Instant>,
}

impl Hold {
    fn begin(&mut self, now: Instant, wait: Duration) -> Refusal {
        self.until = Some(now + wait);
        Self::refusal(wait)
    }

    fn check(&mut self, now: Instant) -> Result<(), Refusal> {
        match self.until.filter(|until| *until > now) {
            Some(until) => Err(Self::refusal(until - now)),
            None => {
                self.until = None;
                Ok(())
            }
        }
    }

    fn refusal(wait: Duration) -> Refusal {
        let wait = wait.max(Duration::from_millis(1));
        Refusal::because(
            Code::RateLimited,
            "more frames or bytes than this agent may append a second",
        )
        .after(wait)
    }
}

/// Writes answers in order; false where nobody reads them. Those that are known at once go in one write.
async fn write(session: &Session, mut answers: mpsc::Receiver<Answer>, sender: &mut Sender) -> bool {
    let durability = session.node.store.durability();
    let mut out = BytesMut::new();
    let mut written = Vec::new();
    loop {
        let next = match answers.try_recv() {
            Ok(answer) => Some(answer),
            Err(_) => {
                if !flush(&mut out, &mut written, sender).await {
                    return false;
                }
                answers.recv().await
            }
        };
        let Some(answer) = next else { return true };
        let outcome = match answer.outcome {
            Ok(pending) => {
                let mut verdict = pin!(pending.verdict());
                let verdict = match verdict.as_mut().now_or_never() {
                    Some(verdict) => verdict,
                    None => {
                        if !flush(&mut out, &mut written, sender).await {
                            return false;
                        }
                        verdict.await
                    }
                };
                metrics::append_took(answer.read.elapsed());
                outcome_of(verdict, durability)
            }
            Err(refusal) => Outcome::Refusal(counted(refusal)),
        };
        metrics::append_answered(answer.kind, verdict_of(&outcome));
        out.extend_from_slice(&frame_message(&AppendResponse { outcome: Some(outcome) }));
        written.push(answer.in_flight);
        if out.len() >= WRITE_BYTES_MAX && !flush(&mut out, &mut written, sender).await {
            return false;
        }
    }
}

/// Writes answers, then lets go of their bytes in flight.
async fn flush(out: &mut BytesMut, written: &mut Vec<OwnedSemaphorePermit>, sender: &mut Sender) -> bool {
    if out.is_empty() {
        return true;
    }
    let sent = sender.send_chunks(&mut [out.split().freeze()]).await.is_ok();
    written.clear();
    sent
}

fn outcome_of(verdict: Result<Accepted, AppendError>, durability: Durability) -> Outcome {
    match verdict {
        Ok(accepted) => Outcome::Appended(Appended {
            offset: accepted.offset.get(),
            time_ms: accepted.time_ms,
            durability: durability.into(),
            duplicate: accepted.duplicate,
        }),
        Err(error) => {
            if let AppendError::Store(error) = &error {
                warn!(%error, "the store did not answer an append");
            }
            Outcome::Refusal(counted(refusal::of_append(&error)))
        }
    }
}

fn verdict_of(outcome: &Outcome) -> Verdict {
    match outcome {
        Outcome::Appended(appended) if appended.duplicate => Verdict::Duplicate,
        Outcome::Appended(_) => Verdict::Appended,
        Outcome::Refusal(refusal) => Verdict::Refused(refusal.known_code()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn behind_a_frame_that_must_wait_every_frame_waits_as_long() {
        let now = Instant::now();
        let wait = Duration::from_millis(200);
        let mut hold = Hold::default();
        assert_eq!(hold.check(now), Ok(()));
        assert_eq!(hold.begin(now, wait).retry_after_ms, 200);
        let behind = hold.check(now + wait / 2).expect_err("is held");
        assert_eq!(
            (behind.known_code(), behind.retry_after_ms),
            (Some(Code::RateLimited), 100)
        );
        assert_eq!(hold.check(now + wait), Ok(()));
    }
}
