//! Messages, as a sequence.

use crate::channel::Sent;
use crate::error;
use crate::process::awaitable;
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyBytes};
use skytale_sdk::{AgentError, AllMessages, Outgoing, Received};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use tokio::sync::Mutex;

/// Maximum number of available messages passed to Python at once: a pass through the event loop costs more than a
/// message.
const BATCH_MAX: usize = 64;
/// Limit of such a batch in bytes of payload: the message that exceeds it is the last one.
const BATCH_BYTES_MAX: usize = 1024 * 1024;

/// A message of another agent.
#[pyclass(frozen, module = "skytale._skytale")]
pub(crate) struct Message {
    received: Received,
}

impl Message {
    pub(crate) const fn new(received: Received) -> Self {
        Self { received }
    }
}

#[pymethods]
impl Message {
    #[getter]
    fn id(&self) -> String {
        self.received.frame_id.to_string()
    }

    #[getter]
    fn channel(&self) -> String {
        self.received.channel().to_string()
    }

    #[getter]
    fn author(&self) -> String {
        self.received.author.to_string()
    }

    #[getter]
    fn offset(&self) -> u64 {
        self.received.offset.get()
    }

    #[getter]
    fn sent_ms(&self) -> u64 {
        self.received.sent_ms
    }

    #[getter]
    fn time_ms(&self) -> u64 {
        self.received.time_ms
    }

    #[getter]
    fn payload<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.received.payload)
    }

    #[getter]
    fn reply_to(&self) -> Option<String> {
        self.received.properties.reply_to.map(|id| id.to_string())
    }

    #[getter]
    fn content_type(&self) -> Option<String> {
        self.received.properties.content_type.clone()
    }

    fn ack<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let received = self.received.clone();
        awaitable(
            py,
            async move { received.ack().await.map_err(|error| error::of(&error)) },
        )
    }

    #[pyo3(signature = (payload, content_type=None, key=None))]
    fn reply<'py>(
        &self,
        py: Python<'py>,
        payload: &[u8],
        content_type: Option<String>,
        key: Option<String>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (received, answer) = (self.received.clone(), outgoing(payload, content_type, key));
        awaitable(py, async move {
            let sent = received.reply_with(answer).await;
            sent.map(Sent::new).map_err(|error| error::of(&error))
        })
    }
}

/// Creates a message to be sent from Python's arguments.
pub(crate) fn outgoing(payload: &[u8], content_type: Option<String>, key: Option<String>) -> Outgoing {
    let mut message = Outgoing::new(payload.to_vec());
    if let Some(content_type) = content_type {
        message = message.content_type(content_type);
    }
    if let Some(key) = key {
        message = message.once(key);
    }
    message
}

/// Messages of one or several channels, as they arrive.
#[pyclass(frozen, module = "skytale._skytale")]
pub(crate) struct Messages {
    reader: Arc<Mutex<Reader>>,
    /// Messages passed to Python without confirmation: an awaitable may be cancelled while its result is in flight.
    /// They are passed again, since an acknowledgement of a later message covers them, too.
    given: Arc<parking_lot::Mutex<Vec<Received>>>,
}

struct Reader {
    source: Source,
    /// An error after messages that are passed first.
    failed: Option<AgentError>,
}

enum Source {
    One(skytale_sdk::Messages),
    Several(AllMessages),
}

impl Source {
    async fn next(&mut self) -> Result<Received, AgentError> {
        match self {
            Self::One(messages) => messages.next().await,
            Self::Several(messages) => messages.next().await,
        }
    }
}

impl Reader {
    /// Waits for a message, and adds those that are already available.
    async fn batch(&mut self) -> Result<Vec<Received>, AgentError> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        let first = self.source.next().await?;
        let mut bytes = first.payload.len();
        let mut batch = vec![first];
        while batch.len() < BATCH_MAX && bytes < BATCH_BYTES_MAX {
            let mut next = pin!(self.source.next());
            match next.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(Ok(received)) => {
                    bytes = bytes.saturating_add(received.payload.len());
                    batch.push(received);
                }
                Poll::Ready(Err(error)) => {
                    self.failed = Some(error);
                    break;
                }
                // It would have to wait: drop it, which is cancel-safe.
                Poll::Pending => break,
            }
        }
        Ok(batch)
    }
}

impl Messages {
    pub(crate) fn of_one(messages: skytale_sdk::Messages) -> Self {
        Self::of(Source::One(messages))
    }

    pub(crate) fn of_several(messages: AllMessages) -> Self {
        Self::of(Source::Several(messages))
    }

    fn of(source: Source) -> Self {
        Self {
            reader: Arc::new(Mutex::new(Reader { source, failed: None })),
            given: Arc::default(),
        }
    }
}

#[pymethods]
impl Messages {
    /// Returns the next messages, or the previous ones again if [`Messages::taken`] was not called since.
    fn next<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let (reader, given) = (Arc::clone(&self.reader), Arc::clone(&self.given));
        awaitable(py, async move {
            let mut reader = reader.lock().await;
            let mut batch = given.lock().clone();
            if batch.is_empty() {
                batch = reader.batch().await.map_err(|error| error::of(&error))?;
                given.lock().clone_from(&batch);
            }
            Ok(batch.into_iter().map(Message::new).collect::<Vec<_>>())
        })
    }

    /// Confirms that the last messages have arrived.
    fn taken(&self) {
        self.given.lock().clear();
    }
}
