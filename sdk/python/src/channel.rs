//! Channels.

use crate::error;
use crate::messages::{Message, Messages, outgoing};
use crate::process::{awaitable, same};
use pyo3::prelude::*;
use pyo3::types::{PyAny, PyBytes};
use skytale_sdk::{AgentId, Code, FrameId, Message as Kept, Offset, QueuedKind};
use std::sync::Arc;
use std::time::Duration;

/// A message of the history for Python: id, author, offset, sent_ms, time_ms, payload, reply_to, content type, own.
type Row = (
    String,
    String,
    u64,
    u64,
    u64,
    Payload,
    Option<String>,
    Option<String>,
    bool,
);

/// Bytes that become Python's `bytes` instead of a list of numbers.
pub(crate) struct Payload(bytes::Bytes);

impl<'py> IntoPyObject<'py> for Payload {
    type Target = PyBytes;
    type Output = Bound<'py, PyBytes>;
    type Error = std::convert::Infallible;

    fn into_pyobject(self, py: Python<'py>) -> Result<Self::Output, Self::Error> {
        Ok(PyBytes::new(py, &self.0))
    }
}

/// A channel.
#[pyclass(frozen, module = "skytale._skytale")]
pub(crate) struct Channel {
    channel: skytale_sdk::Channel,
}

impl Channel {
    pub(crate) const fn new(channel: skytale_sdk::Channel) -> Self {
        Self { channel }
    }
}

/// Awaits one call of the SDK's channel.
macro_rules! call {
    ($self:ident, $py:ident, |$channel:ident| $run:expr) => {{
        let $channel = $self.channel.clone();
        awaitable($py, async move { $run.map_err(|error| error::of(&error)) })
    }};
}

#[pymethods]
impl Channel {
    #[getter]
    fn id(&self) -> String {
        self.channel.id().to_string()
    }

    #[pyo3(signature = (payload, content_type=None, key=None, reply_to=None, wait=false))]
    fn send<'py>(
        &self,
        py: Python<'py>,
        payload: &[u8],
        content_type: Option<String>,
        key: Option<String>,
        reply_to: Option<&str>,
        wait: bool,
    ) -> PyResult<Bound<'py, PyAny>> {
        let mut message = outgoing(payload, content_type, key);
        if let Some(reply_to) = reply_to {
            message = message.reply_to(frame_id(reply_to)?);
        }
        call!(self, py, |channel| {
            let sent = match wait {
                true => channel.send_when_room(message).await,
                false => channel.send_message(message).await,
            };
            sent.map(Sent::new)
        })
    }

    /// Sends a message and returns the first one that answers it.
    #[pyo3(signature = (payload, seconds=None, content_type=None, key=None))]
    fn request<'py>(
        &self,
        py: Python<'py>,
        payload: &[u8],
        seconds: Option<f64>,
        content_type: Option<String>,
        key: Option<String>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let request = outgoing(payload, content_type, key);
        // A number that is not a valid duration is either too long for one, or means none at all.
        let timeout = match seconds {
            Some(seconds) if seconds <= 0.0 => Duration::ZERO,
            Some(seconds) => Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX),
            None => Duration::MAX,
        };
        call!(self, py, |channel| channel
            .request(request, timeout)
            .await
            .map(Message::new))
    }

    fn messages(&self) -> PyResult<Messages> {
        same()?;
        Ok(Messages::of_one(self.channel.messages()))
    }

    fn ack<'py>(&self, py: Python<'py>, offset: u64) -> PyResult<Bound<'py, PyAny>> {
        call!(self, py, |channel| channel.ack(Offset::new(offset)).await)
    }

    fn history<'py>(&self, py: Python<'py>, after: u64, limit: u32) -> PyResult<Bound<'py, PyAny>> {
        call!(self, py, |channel| {
            let kept = channel.history(Offset::new(after), limit).await;
            kept.map(|kept| kept.into_iter().map(row).collect::<Vec<_>>())
        })
    }

    fn add<'py>(&self, py: Python<'py>, agents: Vec<String>) -> PyResult<Bound<'py, PyAny>> {
        let agents = agent_ids(&agents)?;
        call!(self, py, |channel| channel.add(&agents).await.map(Sent::new))
    }

    fn ensure_members<'py>(&self, py: Python<'py>, agents: Vec<String>) -> PyResult<Bound<'py, PyAny>> {
        let agents = agent_ids(&agents)?;
        call!(self, py, |channel| channel.ensure_members(&agents).await)
    }

    fn remove<'py>(&self, py: Python<'py>, agents: Vec<String>) -> PyResult<Bound<'py, PyAny>> {
        let agents = agent_ids(&agents)?;
        call!(self, py, |channel| channel.remove(&agents).await.map(Sent::new))
    }

    fn leave<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        call!(self, py, |channel| channel.leave().await.map(Sent::new))
    }

    fn rotate<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        call!(self, py, |channel| channel.rotate().await.map(Sent::new))
    }

    fn members<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        call!(self, py, |channel| {
            let members = channel.members().await;
            members.map(|members| members.iter().map(AgentId::to_string).collect::<Vec<_>>())
        })
    }

    fn caught_up<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        call!(self, py, |channel| channel.caught_up().await)
    }

    fn relabel<'py>(&self, py: Python<'py>, label: String) -> PyResult<Bound<'py, PyAny>> {
        call!(self, py, |channel| channel.relabel(&label).await)
    }

    fn forget<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        call!(self, py, |channel| channel.forget().await)
    }

    /// Returns the channel's state in the vault, as JSON.
    fn info<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let channel = self.channel.clone();
        awaitable(py, async move {
            let info = channel.info().await.map_err(|error| error::of(&error))?;
            json(&info)
        })
    }

    /// Lists the outbox: id, kind, since_ms, bytes, attempts, payload, reply_to, content type.
    fn outbox<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        call!(self, py, |channel| {
            let queued = channel.outbox().await;
            queued.map(|queued| {
                let row = |queued: skytale_sdk::Queued| {
                    (
                        queued.frame_id.to_string(),
                        kind(queued.kind),
                        queued.since_ms,
                        queued.bytes,
                        queued.attempts,
                        queued.payload.map(Payload),
                        queued.properties.reply_to.map(|id| id.to_string()),
                        queued.properties.content_type,
                    )
                };
                queued.into_iter().map(row).collect::<Vec<_>>()
            })
        })
    }
}

const fn kind(kind: QueuedKind) -> &'static str {
    match kind {
        QueuedKind::Message => "message",
        QueuedKind::Add | QueuedKind::AddWaiting => "add",
        QueuedKind::Remove => "remove",
        QueuedKind::UpdateKeys => "rotate",
        QueuedKind::Leave => "leave",
        QueuedKind::Reboot => "reboot",
        _ => "internal",
    }
}

fn row(message: Kept) -> Row {
    (
        message.frame_id.to_string(),
        message.author.to_string(),
        message.offset.get(),
        message.sent_ms,
        message.time_ms,
        Payload(message.payload),
        message.properties.reply_to.map(|id| id.to_string()),
        message.properties.content_type,
        message.own,
    )
}

/// Encodes a value of the SDK as JSON for Python.
pub(crate) fn json(value: &impl serde::Serialize) -> PyResult<String> {
    serde_json::to_string(value)
        .map_err(|error| error::raise(Code::Environment, error.to_string(), false, Code::Environment.help()))
}

pub(crate) fn agent_ids(agents: &[String]) -> PyResult<Vec<AgentId>> {
    let each = agents
        .iter()
        .map(|agent| agent.parse().map_err(|error| error::of_id(&error)));
    each.collect()
}

fn frame_id(id: &str) -> PyResult<FrameId> {
    id.parse().map_err(|error| error::of_id(&error))
}

/// Handle of a sent message or change.
#[pyclass(frozen, module = "skytale._skytale")]
pub(crate) struct Sent {
    sent: Arc<skytale_sdk::Sent>,
}

impl Sent {
    pub(crate) fn new(sent: skytale_sdk::Sent) -> Self {
        Self { sent: Arc::new(sent) }
    }
}

#[pymethods]
impl Sent {
    #[getter]
    fn id(&self) -> String {
        self.sent.frame_id().to_string()
    }

    /// Waits until it is in the log and returns its offset; `None` if a change needed no entry.
    fn delivered<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let sent = Arc::clone(&self.sent);
        awaitable(py, async move {
            let delivered = sent.delivered().await.map_err(|error| error::of(&error))?;
            Ok(delivered.offset().map(Offset::get))
        })
    }
}
