//! The append stream: frames out, pipelined; verdicts back, in order.

use super::error::{Refused, RelayError};
use super::message::{MessageReader, write_error};
use super::pace::Pace;
use super::session::{Ending, Session};
use crate::line::{Line, Place};
use bytes::Bytes;
use iroh::endpoint::SendStream;
use parking_lot::Mutex;
use skytale_proto::session::{self, AppendOpen, AppendRequest, AppendResponse, Durability, append_response, open};
use skytale_proto::{Code, Offset};
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};
use tracing::Instrument as _;

/// Maximum number of unanswered append requests. Bytes are bounded by the relay's limit.
const IN_FLIGHT_MAX: usize = 1_024;
/// Maximum number of requests per write.
const WRITE_BATCH_MAX: usize = 64;
/// Longest answer, in bytes.
const ANSWER_BYTES_MAX: usize = 16 * 1024;

/// The log's receipt for an accepted frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The frame's offset.
    pub offset: Offset,
    /// The time stored with it, unix milliseconds by the relay node's clock.
    pub time_ms: u64,
    /// Durability that the acknowledgement guarantees.
    pub durability: Durability,
    /// Whether the frame had been accepted before, at this offset.
    pub duplicate: bool,
}

type Outcome = Result<Receipt, RelayError>;

struct Request {
    frame: Bytes,
    outcome: oneshot::Sender<Outcome>,
    room: Room,
    unsettled: Unsettled,
}

/// A request's room among the requests in flight.
enum Room {
    /// The request has its room.
    Taken(OwnedSemaphorePermit),
    /// The stream's task acquires it, at this time at the earliest, and reports it.
    Wanted {
        turn: Option<Instant>,
        taken: oneshot::Sender<()>,
        _waits: Waits,
    },
}

/// Counts one request while it has no room.
struct Waits(Arc<Mutex<usize>>);

impl Drop for Waits {
    fn drop(&mut self) {
        *self.0.lock() -= 1;
    }
}

struct Waiter {
    /// Length of its frame.
    bytes: usize,
    outcome: oneshot::Sender<Outcome>,
    _room: OwnedSemaphorePermit,
    _unsettled: Unsettled,
}

/// Counts one request, from when it was queued until it has its outcome.
struct Unsettled(watch::Sender<usize>);

impl Unsettled {
    fn new(count: &watch::Sender<usize>) -> Self {
        count.send_modify(|count| *count += 1);
        Self(count.clone())
    }
}

impl Drop for Unsettled {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

/// Appends frames. Frames of one log reach it in the order of the calls to [`Appender::append`], or not at all. Once a
/// frame is refused with a code that [holds the log](Code::holds_log), the relay node refuses all later ones until
/// [`Appender::renew`].
///
/// Clones start with the same stream and share its bounds; each is renewed separately. Their futures may be left
/// unpolled: the stream's own task waits for room and rates, in the order of the calls, so no future holds what others
/// need.
#[derive(Clone, Debug)]
pub struct Appender {
    stream: Stream,
    shared: Arc<Shared>,
}

/// State shared by the appenders of one session.
#[derive(Debug)]
struct Shared {
    newest: tokio::sync::Mutex<Stream>,
    limits: Arc<Limits>,
    frame_bytes_max: usize,
    unsettled: watch::Sender<usize>,
    ending: Ending,
}

/// Limits shared by all append streams of one session. Only their tasks wait for them.
#[derive(Debug)]
struct Limits {
    room: Arc<Semaphore>,
    room_bytes: usize,
    pace: Mutex<Pace>,
}

/// One append stream. It ends with the last appender that uses it.
#[derive(Clone, Debug)]
struct Stream {
    number: u64,
    requests: Arc<Requests>,
}

#[derive(Debug)]
struct Requests {
    line: Arc<Line<Request>>,
    /// Number of queued requests without room. While there are any, later requests take no room: the writer needs it
    /// for the earlier ones first.
    waiting: Arc<Mutex<usize>>,
}

impl Drop for Requests {
    fn drop(&mut self) {
        self.line.close();
    }
}

/// An append in flight. Dropping it does not withdraw the append.
#[derive(Debug)]
pub struct PendingAppend {
    outcome: oneshot::Receiver<Outcome>,
    ending: Ending,
}

impl PendingAppend {
    /// Waits for the verdict. An error other than [`RelayError::Refused`] is ambiguous: the frame may be in the log.
    pub async fn outcome(self) -> Outcome {
        match self.outcome.await {
            Ok(outcome) => outcome,
            Err(_) => Err(self.ending.explain(RelayError::lost("the append stream ended"))),
        }
    }
}

impl Appender {
    /// Opens an append stream.
    pub async fn open(session: &Session) -> Result<Self, RelayError> {
        let info = session.info();
        let limits = Arc::new(Limits {
            room: Arc::new(Semaphore::new(info.append_in_flight_bytes_max)),
            room_bytes: info.append_in_flight_bytes_max,
            pace: Mutex::new(Pace::new(info.frames_per_second, info.bytes_per_second, Instant::now())),
        });
        let stream = Stream::open(session, &limits, 0).await?;
        Ok(Self {
            stream: stream.clone(),
            shared: Arc::new(Shared {
                newest: tokio::sync::Mutex::new(stream),
                limits,
                frame_bytes_max: info.frame_bytes_max,
                unsettled: watch::Sender::new(0),
                ending: session.ending(),
            }),
        })
    }

    /// Switches to another append stream of the same session, on which no log is held: a new one, or the newest one
    /// that a clone has opened meanwhile. Call it when all frames appended to the log in question have their outcome,
    /// since frames on two streams have no order. Then append the log's frames again, in order.
    pub async fn renew(&mut self, session: &Session) -> Result<(), RelayError> {
        let (shared, session, number) = (Arc::clone(&self.shared), session.clone(), self.stream.number);
        let (ending, tasks) = (session.ending(), session.tasks().clone());
        // In a task, which makes progress even if the caller stops polling: other appenders wait for the lock.
        let renewing = async move {
            let mut newest = shared.newest.lock().await;
            if newest.number == number {
                *newest = Stream::open(&session, &shared.limits, number + 1).await?;
            }
            Ok::<_, RelayError>(newest.clone())
        };
        let renewing = renewing.in_current_span();
        self.stream = tasks
            .spawn(renewing)
            .await
            .map_err(|_| ending.explain(RelayError::lost("no other append stream was opened")))??;
        Ok(())
    }

    /// Resolves when nothing is in flight: all queued frames have their outcome, or the session has ended.
    pub async fn settled(&self) {
        let mut unsettled = self.shared.unsettled.subscribe();
        tokio::select! {
            _ = unsettled.wait_for(|count| *count == 0) => {}
            () = self.shared.ending.cancel.cancelled() => {}
        }
    }

    /// Queues an encoded frame. Waits for room among the frames in flight, and for its turn within the relay's rates: a
    /// frame that is refused for its rate holds back its log. If the call is dropped early, the frame may be appended
    /// or not.
    pub async fn append(&self, frame: Bytes) -> Result<PendingAppend, RelayError> {
        let shared = &*self.shared;
        if frame.len() > shared.frame_bytes_max {
            return Err(Refused {
                number: Code::FrameTooLarge.number(),
                message: format!("{} bytes, the relay takes {}", frame.len(), shared.frame_bytes_max),
                retryable: false,
                retry_after: None,
                offset: Offset::ZERO,
                agent: None,
            }
            .into());
        }
        let ended = || shared.ending.explain(RelayError::lost("the append stream ended"));
        let (sender, outcome) = oneshot::channel();
        let pending = PendingAppend {
            outcome,
            ending: shared.ending.clone(),
        };
        let unsettled = Unsettled::new(&shared.unsettled);
        if let Some((_place, goes_out)) = self.queue(frame, sender, unsettled).ok_or_else(ended)? {
            tokio::select! {
                biased;
                taken = goes_out => taken.map_err(|_| ended())?,
                () = shared.ending.cancel.cancelled() => return Err(ended()),
            }
        }
        Ok(pending)
    }

    /// Adds a request to the stream's queue, without waiting. Returns what it must wait for if there is no room yet;
    /// `None` once the stream has ended.
    fn queue(
        &self,
        frame: Bytes,
        outcome: oneshot::Sender<Outcome>,
        unsettled: Unsettled,
    ) -> Option<Option<(Place<Request>, oneshot::Receiver<()>)>> {
        let (requests, limits) = (&*self.stream.requests, &*self.shared.limits);
        // Held until the request is queued: a request with room must not be behind one that waits for room.
        let mut waiting = requests.waiting.lock();
        let turn = limits.pace.lock().take(frame.len(), Instant::now());
        let at_once = *waiting == 0 && turn.is_none() && requests.line.len() < WRITE_BATCH_MAX;
        if let Some(room) = at_once.then(|| limits.try_room(frame.len())).flatten() {
            let request = Request {
                frame,
                outcome,
                room: Room::Taken(room),
                unsettled,
            };
            return requests.line.push(request).map(|_| None);
        }
        *waiting += 1;
        let _waits = Waits(Arc::clone(&requests.waiting));
        drop(waiting);
        let (taken, goes_out) = oneshot::channel();
        let request = Request {
            frame,
            outcome,
            room: Room::Wanted { turn, taken, _waits },
            unsettled,
        };
        Some(Some((requests.line.join(request)?, goes_out)))
    }
}

impl Stream {
    async fn open(session: &Session, limits: &Arc<Limits>, number: u64) -> Result<Self, RelayError> {
        let (send, answers) = session
            .open(open::Stream::Append(AppendOpen {}), ANSWER_BYTES_MAX)
            .await?;
        let requests = Arc::new(Line::new());
        let (waiters, waiting) = mpsc::channel(IN_FLIGHT_MAX);
        let writer = Writer {
            send,
            requests: Arc::clone(&requests),
            waiters,
            limits: Arc::clone(limits),
        };
        let ending = session.ending();
        session.tasks().spawn(write(writer, ending.clone()).in_current_span());
        session.tasks().spawn(read(answers, waiting, ending).in_current_span());
        Ok(Self {
            number,
            requests: Arc::new(Requests {
                line: requests,
                waiting: Arc::default(),
            }),
        })
    }
}

/// Writes the requests of one stream, in order, as room becomes available.
struct Writer {
    send: SendStream,
    requests: Arc<Line<Request>>,
    waiters: mpsc::Sender<Waiter>,
    limits: Arc<Limits>,
}

impl Writer {
    async fn run(&mut self) -> Result<(), RelayError> {
        let mut chunks = Vec::with_capacity(WRITE_BATCH_MAX);
        while let Some(request) = self.requests.recv().await {
            let mut next = Some(request);
            while let Some(request) = next.take() {
                let bytes = request.frame.len();
                if let Some(room) = self.room(request.room, bytes, &mut chunks).await? {
                    chunks.push(session::frame_message(&AppendRequest { frame: request.frame }));
                    // The waiter is queued before its request is sent, so no answer can arrive too early.
                    let waiter = Waiter {
                        bytes,
                        outcome: request.outcome,
                        _room: room,
                        _unsettled: request.unsettled,
                    };
                    if self.waiters.send(waiter).await.is_err() {
                        return Ok(());
                    }
                }
                if chunks.len() < WRITE_BATCH_MAX {
                    next = self.requests.try_next();
                }
            }
            self.flush(&mut chunks).await?;
        }
        let _ = self.send.finish();
        Ok(())
    }

    /// Waits for the room of a request; `None` if its caller is gone.
    async fn room(
        &mut self,
        room: Room,
        bytes: usize,
        chunks: &mut Vec<Bytes>,
    ) -> Result<Option<OwnedSemaphorePermit>, RelayError> {
        let (turn, taken, _waits) = match room {
            Room::Taken(room) => return Ok(Some(room)),
            Room::Wanted { turn, taken, _waits } => (turn, taken, _waits),
        };
        // Write what is ready before waiting.
        self.flush(chunks).await?;
        if let Some(turn) = turn {
            sleep_until(turn).await;
        }
        let room = self.limits.room(bytes).await;
        Ok(room.filter(|_| taken.send(()).is_ok()))
    }

    async fn flush(&mut self, chunks: &mut Vec<Bytes>) -> Result<(), RelayError> {
        if !chunks.is_empty() {
            self.send.write_all_chunks(chunks).await.map_err(write_error)?;
            chunks.clear();
        }
        Ok(())
    }
}

impl Limits {
    fn permits(&self, bytes: usize) -> u32 {
        u32::try_from(bytes.min(self.room_bytes)).unwrap_or(u32::MAX)
    }

    fn try_room(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.room).try_acquire_many_owned(self.permits(bytes)).ok()
    }

    /// Waits for room; `None` if there will be none, which does not happen: the semaphore is never closed.
    async fn room(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.room)
            .acquire_many_owned(self.permits(bytes))
            .await
            .ok()
    }
}

async fn write(mut writer: Writer, ending: Ending) {
    let written = tokio::select! {
        () = ending.cancel.cancelled() => Ok(()),
        written = writer.run() => written,
    };
    // The remaining requests fail.
    writer.requests.abandon();
    if let Err(error) = written {
        ending.end(error);
    }
}

/// Passes each answer to the longest waiter. When the stream ends, the remaining waiters see their channels close.
async fn read(mut answers: MessageReader, mut waiting: mpsc::Receiver<Waiter>, ending: Ending) {
    let reading = async {
        while let Some(waiter) = waiting.recv().await {
            // It may be in flight for a while.
            answers.owed().begin(waiter.bytes);
            let answer = match answers.next::<AppendResponse>().await? {
                Some(answer) => answer,
                None => return Err(RelayError::lost("the relay ended the append stream")),
            };
            answers.owed().end();
            // The caller may be gone.
            let _ = waiter.outcome.send(Ok(outcome(answer)?).and_then(|outcome| outcome));
        }
        Ok(())
    };
    let outcome = tokio::select! {
        () = ending.cancel.cancelled() => return,
        outcome = reading => outcome,
    };
    if let Err(error) = outcome {
        ending.end(error);
    }
}

/// Converts an answer to a verdict, or to an error if it is not one.
fn outcome(answer: AppendResponse) -> Result<Outcome, RelayError> {
    match answer.outcome {
        Some(append_response::Outcome::Appended(appended)) if appended.offset > 0 => Ok(Ok(Receipt {
            offset: Offset::new(appended.offset),
            time_ms: appended.time_ms,
            durability: appended.durability(),
            duplicate: appended.duplicate,
        })),
        Some(append_response::Outcome::Refusal(refusal)) => Ok(Err(Refused::from(refusal).into())),
        Some(append_response::Outcome::Appended(_)) => Err(RelayError::protocol("an entry at offset 0")),
        None => Err(RelayError::protocol("an append answered with nothing")),
    }
}
