//! Messages, one after another.

use crate::channel::Sent;
use crate::error;
use crate::process::awaitable;
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyBytes};
use skytale_sdk::{AgentError, AllMessages, Outgoing, Received};
use std::sync::Arc;
use tokio::sync::Mutex;

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

/// A message to be sent, as Python gives it.
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

/// Messages of one channel or of several, as they come.
#[pyclass(frozen, module = "skytale._skytale")]
pub(crate) struct Messages {
    source: Arc<Mutex<Source>>,
    /// Given, and not known to have arrived: an awaitable may be cancelled when its result is on its way. It is given again, since
    /// an acknowledgement of a later message counts for it, too.
    given: Arc<parking_lot::Mutex<Option<Received>>>,
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

impl Messages {
    pub(crate) fn of_one(messages: skytale_sdk::Messages) -> Self {
        Self::of(Source::One(messages))
    }

    pub(crate) fn of_several(messages: AllMessages) -> Self {
        Self::of(Source::Several(messages))
    }

    fn of(source: Source) -> Self {
        Self {
            source: Arc::new(Mutex::new(source)),
            given: Arc::default(),
        }
    }
}

#[pymethods]
impl Messages {
    /// The next message: the one before, where [`Messages::taken`] was not called since.
    fn next<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let (source, given) = (Arc::clone(&self.source), Arc::clone(&self.given));
        awaitable(py, async move {
            let mut source = source.lock().await;
            let before = given.lock().clone();
            if let Some(received) = before {
                return Ok(Message::new(received));
            }
            let received = source.next().await.map_err(|error| error::of(&error))?;
            *given.lock() = Some(received.clone());
            Ok(Message::new(received))
        })
    }

    /// The last message has arrived.
    fn taken(&self) {
        self.given.lock().take();
    }
}
