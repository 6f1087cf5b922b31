//! Append streams: requests are pipelined, answers come in their order.
//!
//! ```text
//!  stream -> pace -> [bytes in flight] -> decode -> authorize -> held? -> rate -> quota -> turn -> store -> line of verdicts -> answers -> stream
//! ```
//!
//! Reading and writing are two futures of one task, and share the [`Line`].
//!
//! A request holds its bytes of the connection's bound from before its body is read until its answer is written. With
//! none left nothing is read, and QUIC holds the agent back.

use crate::authorize;
use crate::incoming::Taken;
use crate::metrics::{self, Verdict};
use crate::pace::{PIECE_BYTES, Pieces};
use crate::rate::Cost;
use crate::refusal::{self, Short, counted};
use crate::session::Session;
use crate::session::line::{Answer, Line, Request};
use crate::stream::{ReceiveError, Receiver, Sender};
use crate::tap::Tap;
use crate::turns;
use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use parking_lot::Mutex;
use skytale_log_store::{Accepted, PendingAppend, StoreError};
use skytale_proto::session::{
    AppendRequest, AppendResponse, Appended, Durability, Refusal, append_response::Outcome, decode_message,
    frame_message,
};
use skytale_proto::{AgentId, Code, Frame, Kind, LogId, limits};
use skytale_workload::tap::{Fact, Observed, Shape};
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::task::unconstrained;
use tokio::time::{Instant, sleep};
use tracing::{debug, warn};

/// Minimum cost of a request to the bytes in flight: it is kept with its verdict, however short its frame.
const REQUEST_BYTES_MIN: usize = 512;
/// Answers waiting in order on one stream.
const ANSWERS_MAX: usize = 4_096;
/// Answers written at once, in bytes.
const WRITE_BYTES_MAX: usize = 16 * 1024;
/// Facts for the tap kept together.
const FACTS_MAX: usize = 64;
/// Wait for an account's pace from which on the operator gets a remark.
const THROTTLED: Duration = Duration::from_millis(100);

/// Serves an append stream until either side ends it.
pub(crate) async fn serve(session: Arc<Session>, mut sender: Sender, mut receiver: Receiver) {
    let (queue, queued) = mpsc::channel(ANSWERS_MAX);
    let line = Mutex::new(Line::default());
    let ended = {
        let mut write = pin!(write(&session, &line, queued, &mut sender));
        tokio::select! {
            ended = read(&session, &mut receiver, &line, queue) => {
                // Requests that were read are answered, also when the session has ended.
                if write.await { ended } else { Ended::Gone }
            }
            _ = &mut write => Ended::Gone,
        }
    };
    match ended {
        Ended::Finished => sender.finish(),
        Ended::Refused(refusal) => {
            session.tap_refusal(&refusal);
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

/// End of the reading side.
enum Ended {
    /// The agent has finished the stream, or reset it.
    Finished,
    /// A message broke the protocol: the stream ends with this after the answers.
    Refused(Refusal),
    /// The session has ended.
    Session,
    /// Nobody reads answers.
    Gone,
}

/// Reads requests and puts them in line.
async fn read(session: &Arc<Session>, receiver: &mut Receiver, line: &Mutex<Line>, queue: mpsc::Sender<()>) -> Ended {
    loop {
        let request = tokio::select! {
            biased;
            () = session.end.ended() => return Ended::Session,
            request = request(session, receiver) => request,
        };
        let (encoded, in_flight) = match request {
            Ok(Some(request)) => request,
            Ok(None) => return Ended::Finished,
            Err(error) => return refusal::of_receive(&error).map_or(Ended::Finished, Ended::Refused),
        };
        let mut request = Request {
            kind: None,
            log: None,
            shape: None,
            read: Instant::now(),
            charge: None,
            in_flight,
        };
        metrics::append_requested(encoded.len());
        let Ok(place) = queue.reserve().await else {
            return Ended::Gone;
        };
        let outcome = tokio::select! {
            biased;
            outcome = begin(session, encoded, line, &mut request) => outcome,
            () = session.end.ended() => return Ended::Session,
        };
        line.lock().push(request, outcome, Instant::now());
        place.send(());
    }
}

/// One request's frame, with its part of the bytes in flight.
async fn request(session: &Session, receiver: &mut Receiver) -> Result<Option<(Bytes, InFlight)>, ReceiveError> {
    let Some(length) = receiver.length(limits::MESSAGE_BYTES_MAX).await? else {
        return Ok(None);
    };
    let begun = Instant::now();
    let pieces = session.account.pace.wait(length).await;
    if begun.elapsed() > THROTTLED {
        session.node.limited.note(Some(Code::AccountRateLimited));
    }
    let (body, in_flight) = body(session, receiver, length, pieces).await?;
    let message: AppendRequest = decode_message(body)?;
    Ok(Some((message.frame, in_flight)))
}

/// A request's part of the bytes in flight: of its connection's, of its account's, and of the node's.
#[derive(Debug)]
pub(crate) struct InFlight {
    _connection: OwnedSemaphorePermit,
    _room: Option<Taken>,
}

impl InFlight {
    #[allow(clippy::expect_used)]
    async fn take(session: &Session, length: usize) -> Self {
        let bytes = u32::try_from(length.max(REQUEST_BYTES_MIN)).unwrap_or(u32::MAX);
        let connection = session.in_flight.clone().acquire_many_owned(bytes).await;
        Self {
            _connection: connection.expect("the semaphore is never closed"),
            _room: Some(session.node.incoming.take(&session.account, bytes).await),
        }
    }

    /// Some, of what a test has.
    #[cfg(test)]
    pub(crate) const fn of(connection: OwnedSemaphorePermit) -> Self {
        Self {
            _connection: connection,
            _room: None,
        }
    }
}

/// Waits for room, then for the bytes of a request whose length is known.
pub(crate) async fn body(
    session: &Session,
    receiver: &mut Receiver,
    length: usize,
    pieces: Pieces,
) -> Result<(Bytes, InFlight), ReceiveError> {
    let node = &session.node;
    let in_flight = InFlight::take(session, length).await;
    if let Some(bytes) = receiver.here(length) {
        return Ok((bytes, in_flight));
    }
    let begun = node.incoming.body(session.account.id, length);
    let bytes = tokio::select! {
        biased;
        bytes = paced(receiver, length, pieces) => bytes?,
        () = begun.gives_way() => return Err(ReceiveError::NoRoom),
        () = sleep(node.config.session.request_timeout()) => return Err(ReceiveError::Late),
    };
    Ok((bytes, in_flight))
}

/// The bytes of a request, read piece by piece.
async fn paced(receiver: &mut Receiver, length: usize, pieces: Pieces) -> Result<Bytes, ReceiveError> {
    for read in (PIECE_BYTES..length).step_by(PIECE_BYTES) {
        receiver.has(read).await?;
        pieces.after(read).await;
    }
    receiver.bytes(length).await
}

/// Checks a frame and hands it to the store, or says why not.
async fn begin(
    session: &Session,
    encoded: Bytes,
    line: &Mutex<Line>,
    request: &mut Request,
) -> Result<PendingAppend, Refusal> {
    let node = &session.node;
    if session.is_going() {
        return Err(Refusal::because(Code::Draining, "this relay node is about to stop"));
    }
    let bytes = encoded.len();
    let frame = readable(session, encoded, request).inspect_err(|_| {
        // A frame that cannot be read, or may not be sent, costs as much.
        let _ = node.rates.take(&session.agent, &session.account.id, Cost::unfit(bytes));
    })?;
    let log = frame.header().log;
    let cost = Cost::of(frame.header(), bytes);
    if node.tap.is_some() {
        request.shape = Shape::of(&frame);
    }
    held(line, &log).await?;
    request.charge = Some(session.charge(frame.header(), cost)?);
    let turn = node.turns.take(
        node.store.lane(&log),
        session.account.id,
        turns::weight(cost.frames, bytes),
    );
    let turn = turn.await;
    // Called before the verdicts are looked at: a failure that is reported after that look is one that the store minds.
    let append = node.store.append_lent(frame, Box::new(turn));
    held(line, &log).await?;
    append.await.map_err(|error| {
        match error {
            // The store has said so, once: a log of every refusal would fill the disk, too.
            StoreError::Full { .. } => debug!(agent = %Short(&session.agent), %error, "the store takes no append"),
            _ => warn!(agent = %Short(&session.agent), %error, "the store takes no append"),
        }
        refusal::of_store(&error)
    })
}

/// The frame, if this agent may append it.
fn readable(session: &Session, encoded: Bytes, request: &mut Request) -> Result<Frame, Refusal> {
    let frame = Frame::decode(encoded).map_err(|error| Refusal::because(error.code(), error.to_string()))?;
    let header = frame.header();
    (request.kind, request.log) = (Some(header.kind()), Some(header.log));
    authorize::append(&session.claims(), header).map_err(authorize::Denied::refusal)?;
    Ok(frame)
}

/// Whether the stream holds the log back, by all that is known so far.
async fn held(line: &Mutex<Line>, log: &LogId) -> Result<(), Refusal> {
    let check = poll_fn(|cx| Poll::Ready(line.lock().check(log, Instant::now(), cx)));
    // Without this, the runtime would keep back a report once the task has had its turn.
    unconstrained(check).await
}

/// Writes answers in order; false where nobody reads them. Those that are known at once go in one write.
async fn write(session: &Session, line: &Mutex<Line>, mut queued: mpsc::Receiver<()>, sender: &mut Sender) -> bool {
    let durability = session.node.store.durability();
    let mut out = BytesMut::new();
    let mut written = Vec::new();
    let mut facts = Facts::of(session);
    loop {
        let next = match queued.try_recv() {
            Ok(()) => Some(()),
            Err(_) => {
                facts.put();
                if !flush(&mut out, &mut written, sender).await {
                    return false;
                }
                queued.recv().await
            }
        };
        let Some(()) = next else { return true };
        let answer = || poll_fn(|cx| line.lock().next(Instant::now(), cx));
        let mut answer = match answer().now_or_never() {
            Some(answer) => answer,
            None => {
                facts.put();
                if !flush(&mut out, &mut written, sender).await {
                    return false;
                }
                answer().await
            }
        };
        facts.add(&mut answer);
        let Request {
            kind,
            log,
            read,
            charge,
            in_flight,
            ..
        } = answer.request;
        if !answer.outcome.as_ref().is_ok_and(|accepted| !accepted.duplicate)
            && let Some(charge) = charge
        {
            let is_kept = answer.asked && session.node.store.keeps_refused();
            session.node.accounts.usage.refused(charge, is_kept);
            if let (Some(Kind::Commit), Some(log)) = (kind, log) {
                session
                    .node
                    .rates
                    .commit_refused(&session.agent, &session.account.id, &log);
            }
        }
        if answer.asked {
            metrics::append_took(read.elapsed());
        }
        if answer.outcome.is_ok() {
            session.node.load.appended();
        }
        let outcome = outcome_of(answer.outcome, durability);
        metrics::append_answered(kind, verdict_of(&outcome));
        out.extend_from_slice(&frame_message(&AppendResponse { outcome: Some(outcome) }));
        written.push(in_flight);
        if out.len() >= WRITE_BYTES_MAX {
            facts.put();
            if !flush(&mut out, &mut written, sender).await {
                return false;
            }
        }
    }
}

/// Facts that an append stream has for the tap. Facts of answers that are known at once go together.
struct Facts<'a> {
    tap: Option<&'a Tap>,
    agent: AgentId,
    facts: Vec<Observed>,
}

impl<'a> Facts<'a> {
    fn of(session: &'a Session) -> Self {
        Self {
            tap: session.node.tap.as_ref(),
            agent: session.agent,
            facts: Vec::new(),
        }
    }

    fn add(&mut self, answer: &mut Answer) {
        let Some(tap) = self.tap else { return };
        let request = &mut answer.request;
        let fact = match &answer.outcome {
            Ok(accepted) if accepted.duplicate => return,
            Ok(_) => match (request.log, request.shape.take()) {
                (Some(log), Some(shape)) => Fact::Append {
                    author: self.agent,
                    log,
                    shape,
                },
                _ => return,
            },
            Err(refusal) => match refusal.known_code() {
                Some(code) => Fact::Refused {
                    agent: self.agent,
                    code,
                },
                None => return,
            },
        };
        self.facts.push(tap.observed(request.read, fact));
        if self.facts.len() >= FACTS_MAX {
            self.put();
        }
    }

    /// Before anything that is waited for: the facts are recorded even if nobody is left to answer.
    fn put(&mut self) {
        if let Some(tap) = self.tap
            && !self.facts.is_empty()
        {
            tap.put_all(&mut self.facts);
        }
    }
}

/// Writes answers, then lets go of their bytes in flight.
async fn flush(out: &mut BytesMut, written: &mut Vec<InFlight>, sender: &mut Sender) -> bool {
    if out.is_empty() {
        return true;
    }
    let sent = sender.send_chunks(&mut [out.split().freeze()]).await.is_ok();
    written.clear();
    sent
}

fn outcome_of(outcome: Result<Accepted, Refusal>, durability: Durability) -> Outcome {
    match outcome {
        Ok(accepted) => Outcome::Appended(Appended {
            offset: accepted.offset.get(),
            time_ms: accepted.time_ms,
            durability: durability.into(),
            duplicate: accepted.duplicate,
        }),
        Err(refusal) => Outcome::Refusal(counted(refusal)),
    }
}

fn verdict_of(outcome: &Outcome) -> Verdict {
    match outcome {
        Outcome::Appended(appended) if appended.duplicate => Verdict::Duplicate,
        Outcome::Appended(_) => Verdict::Appended,
        Outcome::Refusal(refusal) => Verdict::Refused(refusal.known_code()),
    }
}
