//! Checks that the application's async runtime has what this crate needs, and fails with an error if not.

use super::AgentError;
use std::net::{Ipv4Addr, UdpSocket};
use std::panic::catch_unwind;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::time::Sleep;
use tokio_util::task::AbortOnDropHandle;

/// Returns the current runtime, if it has what the background work needs: timers and sockets.
pub(super) fn current() -> Result<Handle, AgentError> {
    let handle = Handle::try_current().map_err(|_| missing("there is no tokio runtime here"))?;
    drop(sleep(Duration::ZERO)?);
    // If not even this socket is available, binding the endpoint reports why.
    if let Ok(socket) = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))
        && socket.set_nonblocking(true).is_ok()
    {
        // Tokio cannot report whether a driver exists: using a missing one panics, inside tokio.
        catch_unwind(|| drop(tokio::net::UdpSocket::from_std(socket)))
            .map_err(|_| missing("the tokio runtime has no I/O driver: build it with `enable_all`"))?;
    }
    Ok(handle)
}

/// Like [`tokio::time::sleep`].
fn sleep(duration: Duration) -> Result<Sleep, AgentError> {
    if Handle::try_current().is_err() {
        return Err(missing("there is no tokio runtime here"));
    }
    catch_unwind(|| tokio::time::sleep(duration))
        .map_err(|_| missing("the tokio runtime has no time driver: build it with `enable_all`"))
}

/// Waits for a future, but not longer than `most`: `None` if it is not ready by then.
pub(crate) async fn within<T>(most: Duration, waited: impl Future<Output = T>) -> Result<Option<T>, AgentError> {
    let over = sleep(most)?;
    tokio::select! {
        biased;
        done = waited => Ok(Some(done)),
        () = over => Ok(None),
    }
}

/// Runs a future in a task of the current runtime. The task ends when the returned handle is dropped.
pub(crate) fn spawn<T: Send + 'static>(
    task: impl Future<Output = Result<T, AgentError>> + Send + 'static,
) -> Result<impl Future<Output = Result<T, AgentError>> + Send, AgentError> {
    let here = Handle::try_current().map_err(|_| missing("there is no tokio runtime here"))?;
    let task = AbortOnDropHandle::new(here.spawn(task));
    Ok(async move {
        task.await.unwrap_or_else(|failed| {
            Err(AgentError::Environment {
                reason: format!("a task did not end by itself: {failed}"),
            })
        })
    })
}

fn missing(what: &str) -> AgentError {
    AgentError::Environment { reason: what.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use skytale_proto::Code;
    use tokio::runtime::{Builder, Runtime};

    fn bare() -> Builder {
        Builder::new_current_thread()
    }

    fn code(runtime: &Runtime) -> Option<Code> {
        let _here = runtime.enter();
        current().err().map(|error| error.code())
    }

    #[test]
    fn a_runtime_that_lacks_something_is_named_and_not_fallen_over() {
        assert_eq!(current().err().map(|error| error.code()), Some(Code::Environment));
        let runtimes = [
            bare().build(),
            bare().enable_time().build(),
            bare().enable_io().build(),
            bare().enable_all().build(),
        ];
        let codes = runtimes.map(|runtime| code(&runtime.expect("a runtime")));
        let missing = Some(Code::Environment);
        assert_eq!(codes, [missing, missing, missing, None]);
    }

    #[test]
    fn a_wait_without_a_timer_is_refused() {
        let runtime = bare().build().expect("a runtime");
        let waited = runtime.block_on(within(Duration::from_secs(1), std::future::ready(1)));
        assert_eq!(waited.err().map(|error| error.code()), Some(Code::Environment));
        let runtime = bare().enable_time().build().expect("a runtime");
        let done = runtime.block_on(within(Duration::from_secs(60), std::future::ready(1)));
        assert_eq!(done.ok().flatten(), Some(1));
        let never = runtime.block_on(within(Duration::ZERO, std::future::pending::<()>()));
        assert!(never.is_ok_and(|never| never.is_none()));
    }
}
