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
    outcome: oneshot::Sender<Outcome>,
    _room: OwnedSemaphorePermit,
}

/// Appends frames. Those of one appender reach the log in the order of the calls to [`Appender::append`].
#[derive(Clone, Debug)]
pub struct Appender {
    requests: mpsc::Sender<Request>,
    room: Arc<Semaphore>,
    room_bytes: usize,
    frame_bytes_max: usize,
    pace: Arc<Mutex<Pace>>,
    ending: Ending,
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
        let (send, answers) = session
            .open(open::Stream::Append(AppendOpen {}), ANSWER_BYTES_MAX)
            .await?;
        let (requests, queue) = mpsc::channel(WRITE_BATCH_MAX);
        let (waiters, waiting) = mpsc::channel(IN_FLIGHT_MAX);
        let ending = session.ending();
        session.tasks().spawn(write(send, queue, waiters, ending.clone()));
        session.tasks().spawn(read(answers, waiting, ending.clone()));
        let info = session.info();
        Ok(Self {
            requests,
            room: Arc::new(Semaphore::new(info.append_in_flight_bytes_max)),
            room_bytes: info.append_in_flight_bytes_max,
            frame_bytes_max: info.frame_bytes_max,
            pace: Arc::new(Mutex::new(Pace::new(
                info.frames_per_second,
                info.bytes_per_second,
                Instant::now(),
            ))),
            ending,
        })
    }

    /// Queues an encoded frame. Waits for room among those in flight, and for its turn within the relay's rates: a frame
    /// that is refused for its rate would let others pass it.
    pub async fn append(&self, frame: Bytes) -> Result<PendingAppend, RelayError> {
        if frame.len() > self.frame_bytes_max {
            return Err(Refused {
                number: Code::FrameTooLarge.number(),
                message: format!("{} bytes, the relay takes {}", frame.len(), self.frame_bytes_max),
                retryable: false,
                retry_after: None,
                offset: Offset::ZERO,
            }
            .into());
        }
        let bytes = u32::try_from(frame.len().min(self.room_bytes)).unwrap_or(u32::MAX);
        let ended = || self.ending.explain(RelayError::lost("the append stream ended"));
        let cancelled = self.ending.cancel.cancelled();
        let queue = async {
            let turn = self.pace.lock().take(frame.len(), Instant::now());
            if let Some(turn) = turn {
                sleep_until(turn).await;
            }
            let room = Arc::clone(&self.room)
                .acquire_many_owned(bytes)
                .await
                .map_err(|_| ended())?;
            let (sender, outcome) = oneshot::channel();
            let waiter = Waiter {
                outcome: sender,
                _room: room,
            };
            self.requests
                .send(Request { frame, waiter })
                .await
                .map_err(|_| ended())?;
            Ok(PendingAppend {
                outcome,
                ending: self.ending.clone(),
            })
        };
        tokio::select! {
            queued = queue => queued,
            () = cancelled => Err(ended()),
        }
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
            let answer = match answers.next::<AppendResponse>().await? {
                Some(answer) => answer,
                None => return Err(RelayError::lost("the relay ended the append stream")),
            };
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
