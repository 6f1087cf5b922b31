//! Agents.

use crate::channel::{Channel, json};
use crate::error;
use crate::messages::Messages;
use crate::process::{awaitable, runtime, same};
use pyo3::prelude::*;
use pyo3::types::PyAny;
use skytale_sdk::{AgentConfig, ApiClient, ApiError, ApiKey, ChannelId, Event, Region, VaultKey};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;

/// Longest wait for a first attempt to connect, before an agent without a network goes on without a session.
const FIRST_ATTEMPT: Duration = Duration::from_secs(5);

/// Opens a vault, or creates one; attaches to the process that has it open, if there is one.
#[pyfunction]
#[allow(clippy::too_many_arguments)]
#[pyo3(signature = (vault, api_url, api_key, passphrase=None, key_file=None, region=None, unacknowledged_max=None))]
pub(crate) fn open<'py>(
    py: Python<'py>,
    vault: PathBuf,
    api_url: &str,
    api_key: String,
    passphrase: Option<String>,
    key_file: Option<PathBuf>,
    region: Option<u8>,
    unacknowledged_max: Option<u64>,
) -> PyResult<Bound<'py, PyAny>> {
    let refused = |error: ApiError| error::raise(error.code(), error.to_string(), false, error.code().help());
    let key = match (passphrase, key_file) {
        (Some(passphrase), _) => VaultKey::passphrase(passphrase),
        (None, Some(path)) => VaultKey::file(path),
        (None, None) => VaultKey::beside(&vault),
    };
    let api = ApiClient::new(api_url, ApiKey::new(api_key).map_err(refused)?).map_err(refused)?;
    let mut config = AgentConfig::new(vault, key, api);
    config.region = region.map(Region);
    if let Some(unacknowledged_max) = unacknowledged_max {
        config.driver.inbox_messages_max = unacknowledged_max;
    }
    awaitable(py, async move {
        let agent = skytale_sdk::Agent::open_or_attach(config).await;
        agent.map(|agent| Agent { agent }).map_err(|error| error::of(&error))
    })
}

/// An agent.
#[pyclass(frozen, module = "skytale._skytale")]
pub(crate) struct Agent {
    agent: skytale_sdk::Agent,
}

/// Awaits one call of the SDK's agent.
macro_rules! call {
    ($self:ident, $py:ident, |$agent:ident| $run:expr) => {{
        let $agent = $self.agent.clone();
        awaitable($py, async move { $run.map_err(|error| error::of(&error)) })
    }};
}

#[pymethods]
impl Agent {
    #[getter]
    fn id(&self) -> String {
        self.agent.id().to_string()
    }

    #[getter]
    fn is_connected(&self) -> bool {
        self.agent.is_connected()
    }

    /// Starts to connect, and waits for a session for a few seconds. Fails if there cannot be one (the API rejects the
    /// key), but not if there is no network.
    fn connect<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        call!(self, py, |agent| async {
            let mut events = agent.events();
            agent.connect().await?;
            let failed = async {
                while let Some(event) = events.next().await {
                    if matches!(event, Event::ConnectFailed { .. } | Event::NobodyListens { .. }) {
                        return;
                    }
                }
            };
            tokio::select! {
                biased;
                connected = agent.connected() => connected,
                () = failed => Ok(()),
                () = tokio::time::sleep(FIRST_ATTEMPT) => Ok(()),
            }
        }
        .await)
    }

    fn connected<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        call!(self, py, |agent| agent.connected().await)
    }

    fn caught_up<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        call!(self, py, |agent| agent.caught_up().await)
    }

    fn flushed<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        call!(self, py, |agent| agent.flushed().await)
    }

    fn disconnect<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let agent = self.agent.clone();
        awaitable(py, async move {
            agent.disconnect().await;
            Ok(())
        })
    }

    fn close<'py>(&self, py: Python<'py>, seconds: f64) -> PyResult<Bound<'py, PyAny>> {
        let deadline = Duration::try_from_secs_f64(seconds).unwrap_or_default();
        let agent = self.agent.clone();
        awaitable(py, async move {
            agent.close(deadline).await;
            Ok(())
        })
    }

    /// Like `close`, without an event loop, for the interpreter's end. Does nothing in a forked process.
    fn close_now(&self, py: Python<'_>, seconds: f64) {
        if let Ok(runtime) = runtime() {
            let deadline = Duration::try_from_secs_f64(seconds).unwrap_or_default();
            py.detach(|| runtime.block_on(self.agent.close(deadline)));
        }
    }

    fn create_channel<'py>(&self, py: Python<'py>, label: String) -> PyResult<Bound<'py, PyAny>> {
        call!(self, py, |agent| agent.create_channel(&label).await.map(Channel::new))
    }

    fn ensure_channel<'py>(&self, py: Python<'py>, label: String) -> PyResult<Bound<'py, PyAny>> {
        call!(self, py, |agent| agent.ensure_channel(&label).await.map(Channel::new))
    }

    fn join<'py>(&self, py: Python<'py>, label: String) -> PyResult<Bound<'py, PyAny>> {
        call!(self, py, |agent| agent.join(&label).await.map(Channel::new))
    }

    fn channel<'py>(&self, py: Python<'py>, id: &str) -> PyResult<Bound<'py, PyAny>> {
        let id: ChannelId = id.parse().map_err(|error| error::of_id(&error))?;
        call!(self, py, |agent| agent.channel(id).await.map(Channel::new))
    }

    /// Lists all channels, as JSON.
    fn channels<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let agent = self.agent.clone();
        awaitable(py, async move {
            let channels = agent.channels().await.map_err(|error| error::of(&error))?;
            json(&channels)
        })
    }

    /// Lists problems: for each, the channel's id (`None` for the agent's own log) and a description.
    fn problems<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        call!(self, py, |agent| {
            let problems = agent.problems().await;
            problems.map(|problems| {
                let each = problems.into_iter().flat_map(|(channel, problems)| {
                    let channel = channel.map(|channel| channel.to_string());
                    problems
                        .into_iter()
                        .map(move |problem| (channel.clone(), problem.code().to_string(), problem.describe()))
                });
                each.collect::<Vec<_>>()
            })
        })
    }

    #[pyo3(signature = (channels=None))]
    fn messages(&self, channels: Option<Vec<String>>) -> PyResult<Messages> {
        same()?;
        let messages = match channels {
            None => self.agent.messages(),
            Some(channels) => {
                let ids = channels
                    .iter()
                    .map(|id| id.parse::<ChannelId>().map_err(|error| error::of_id(&error)));
                self.agent.messages_of(ids.collect::<PyResult<Vec<_>>>()?)
            }
        };
        Ok(Messages::of_several(messages))
    }

    fn events(&self) -> PyResult<Events> {
        same()?;
        Ok(Events {
            events: Arc::new(Mutex::new(self.agent.events())),
        })
    }
}

/// Events from now on.
#[pyclass(frozen, module = "skytale._skytale")]
pub(crate) struct Events {
    events: Arc<Mutex<skytale_sdk::Events>>,
}

#[pymethods]
impl Events {
    /// Waits for the next event, as JSON; `None` once the agent is closed.
    fn next<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let events = Arc::clone(&self.events);
        awaitable(py, async move {
            let event = events.lock().await.next().await;
            event.map(|event| json(&event)).transpose()
        })
    }
}
