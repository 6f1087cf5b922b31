//! The append stream: frames out, pipelined; verdicts back, in order.

use super::error::{Refused, RelayError};
use super::message::{MessageReader, write_error};
use super::pace::Pace;
use super::session::{Ending, Session};
use bytes::Bytes;
use iroh::endpoint::SendStream;
use parking_lot::Mutex;
use skytale_proto::session::{self, AppendOpen, AppendRequest, AppendResponse, Durability, append_response, open};
use skytale_proto::{Code, Offset};
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

/// Append requests unanswered, in number. Bytes are bounded by the relay's limit.
const IN_FLIGHT_MAX: usize = 1_024;
/// Requests written at once.
const WRITE_BATCH_MAX: usize = 64;
/// An answer, in bytes.
const ANSWER_BYTES_MAX: usize = 16 * 1024;

/// What the log said of a frame that it accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// Where it stands.
    pub offset: Offset,
    /// The time stored with it, unix milliseconds by the relay node's clock.
    pub time_ms: u64,
    /// What the acknowledgement means.
    pub durability: Durability,
    /// True where the frame had been accepted before, at this offset.
    pub duplicate: bool,
}

type Outcome = Result<Receipt, RelayError>;

struct Request {
    frame: Bytes,
    waiter: Waiter,
}

struct Waiter {
    /// Of its frame.
    bytes: usize,
    outcome: oneshot::Sender<Outcome>,
    _room: OwnedSemaphorePermit,
}

/// Appends frames. Those of one log reach it in the order of the calls to [`Appender::append`], or not at all: once one of
/// them was refused with a code that [holds the log](Code::holds_log), the relay node refuses all that follow, until
/// [`Appender::renew`].
///
/// Clones begin with the same stream and keep within the same bounds; each is renewed for itself.
#[derive(Clone, Debug)]
pub struct Appender {
    stream: Stream,
    shared: Arc<Shared>,
}

/// What the appenders of one session have in common.
#[derive(Debug)]
struct Shared {
    newest: tokio::sync::Mutex<Stream>,
    room: Arc<Semaphore>,
    room_bytes: usize,
    frame_bytes_max: usize,
    pace: Mutex<Pace>,
    ending: Ending,
}

/// One append stream. It ends with the last appender that uses it.
#[derive(Clone, Debug)]
struct Stream {
    number: u64,
    requests: mpsc::Sender<Request>,
}

/// An append on its way. Dropping it does not take the append back.
#[derive(Debug)]
pub struct PendingAppend {
    outcome: oneshot::Receiver<Outcome>,
    ending: Ending,
}

impl PendingAppend {
    /// The verdict. An error other than [`RelayError::Refused`] is ambiguous: the frame may be in the log.
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
        let stream = Stream::open(session, 0).await?;
        let info = session.info();
        let pace = Pace::new(info.frames_per_second, info.bytes_per_second, Instant::now());
        Ok(Self {
            stream: stream.clone(),
            shared: Arc::new(Shared {
                newest: tokio::sync::Mutex::new(stream),
                room: Arc::new(Semaphore::new(info.append_in_flight_bytes_max)),
                room_bytes: info.append_in_flight_bytes_max,
                frame_bytes_max: info.frame_bytes_max,
                pace: Mutex::new(pace),
                ending: session.ending(),
            }),
        })
    }

    /// Goes on with another append stream of the same session, on which no log is held: a new one, or the newest that a
    /// clone has begun meanwhile. To be called when all that was appended to the log in question has its outcome, since
    /// frames on two streams have no order; then the log's frames are appended again, in order.
    pub async fn renew(&mut self, session: &Session) -> Result<(), RelayError> {
        let mut newest = self.shared.newest.lock().await;
        if newest.number == self.stream.number {
            *newest = Stream::open(session, newest.number + 1).await?;
        }
        self.stream = newest.clone();
        Ok(())
    }

    /// Resolves when nothing is in flight: all that was queued before has its outcome, or the session has ended.
    pub async fn settled(&self) {
        let all = u32::try_from(self.shared.room_bytes).unwrap_or(u32::MAX);
        tokio::select! {
            _ = self.shared.room.acquire_many(all) => {}
            () = self.shared.ending.cancel.cancelled() => {}
        }
    }

    /// Queues an encoded frame. Waits for room among those in flight, and for its turn within the relay's rates: a frame
    /// that is refused for its rate holds its log back.
    pub async fn append(&self, frame: Bytes) -> Result<PendingAppend, RelayError> {
        let shared = &*self.shared;
        if frame.len() > shared.frame_bytes_max {
            return Err(Refused {
                number: Code::FrameTooLarge.number(),
                message: format!("{} bytes, the relay takes {}", frame.len(), shared.frame_bytes_max),
                retryable: false,
                retry_after: None,
                offset: Offset::ZERO,
            }
            .into());
        }
        let bytes = u32::try_from(frame.len().min(shared.room_bytes)).unwrap_or(u32::MAX);
        let ended = || shared.ending.explain(RelayError::lost("the append stream ended"));
        let cancelled = shared.ending.cancel.cancelled();
        let queue = async {
            let turn = shared.pace.lock().take(frame.len(), Instant::now());
            if let Some(turn) = turn {
                sleep_until(turn).await;
            }
            let room = Arc::clone(&shared.room)
                .acquire_many_owned(bytes)
                .await
                .map_err(|_| ended())?;
            let (sender, outcome) = oneshot::channel();
            let waiter = Waiter {
                bytes: frame.len(),
                outcome: sender,
                _room: room,
            };
            self.stream
                .requests
                .send(Request { frame, waiter })
                .await
                .map_err(|_| ended())?;
            Ok(PendingAppend {
                outcome,
                ending: shared.ending.clone(),
            })
        };
        tokio::select! {
            queued = queue => queued,
            () = cancelled => Err(ended()),
        }
    }
}

impl Stream {
    async fn open(session: &Session, number: u64) -> Result<Self, RelayError> {
        let (send, answers) = session
            .open(open::Stream::Append(AppendOpen {}), ANSWER_BYTES_MAX)
            .await?;
        let (requests, queue) = mpsc::channel(WRITE_BATCH_MAX);
        let (waiters, waiting) = mpsc::channel(IN_FLIGHT_MAX);
        let ending = session.ending();
        session.tasks().spawn(write(send, queue, waiters, ending.clone()));
        session.tasks().spawn(read(answers, waiting, ending));
        Ok(Self { number, requests })
    }
}

async fn write(
    mut send: SendStream,
    mut queue: mpsc::Receiver<Request>,
    waiters: mpsc::Sender<Waiter>,
    ending: Ending,
) {
    let mut requests = Vec::with_capacity(WRITE_BATCH_MAX);
    let writing = async {
        while queue.recv_many(&mut requests, WRITE_BATCH_MAX).await > 0 {
            let mut chunks = Vec::with_capacity(requests.len());
            for Request { frame, waiter } in requests.drain(..) {
                chunks.push(session::frame_message(&AppendRequest { frame }));
                // The waiter stands in line before its request is out: no answer can come too early.
                if waiters.send(waiter).await.is_err() {
                    return Ok(());
                }
            }
            send.write_all_chunks(&mut chunks).await.map_err(write_error)?;
        }
        let _ = send.finish();
        Ok(())
    };
    let written: Result<(), RelayError> = tokio::select! {
        () = ending.cancel.cancelled() => return,
        written = writing => written,
    };
    if let Err(error) = written {
        ending.end(error);
    }
}

/// Gives each answer to the one who waits longest. What is left when the stream ends learns it by its channel's end.
async fn read(mut answers: MessageReader, mut waiting: mpsc::Receiver<Waiter>, ending: Ending) {
    let reading = async {
        while let Some(waiter) = waiting.recv().await {
            // It may be on its way for a while.
            answers.owed().begin(waiter.bytes);
            let answer = match answers.next::<AppendResponse>().await? {
                Some(answer) => answer,
                None => return Err(RelayError::lost("the relay ended the append stream")),
            };
            answers.owed().end();
            // Whoever asked may have gone.
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

/// A verdict; or the error of an answer that is none.
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
