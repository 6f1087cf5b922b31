//! Claims KeyPackages of agents to be added, until one is still valid.

use super::Channel;
use crate::agent::bus::Bus;
use crate::agent::{AgentError, runtime};
use crate::engine::{ClaimedPackage, EngineError};
use crate::net::RelayError;
use crate::net::relay::{Claimed, KeyPackages};
use skytale_proto::limits::KEY_PACKAGES_MAX;
use skytale_proto::{AgentId, Code, Frame};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};
use tracing::Instrument as _;

/// Delay between two attempts to claim, unless the relay node gives one.
const CLAIM_RETRY: Duration = Duration::from_millis(200);

impl Channel {
    /// Claims a valid KeyPackage of an agent. Expired ones are used up and skipped. The last resort comes after all of
    /// them, and is the last one tried.
    pub(crate) async fn claim(&self, agent: AgentId) -> Result<ClaimedPackage, AgentError> {
        let mut claims = 1;
        loop {
            let (claimed, relay_ms) = self.claim_one(agent).await?;
            let package = ClaimedPackage {
                agent,
                frame: claimed.frame.encoded().clone(),
            };
            let judged = self.core.call(move |actor| {
                actor.engine.relay_time(relay_ms);
                actor.engine.check_claimed(&package).map(|_| package)
            });
            match judged.await? {
                Ok(package) => return Ok(package),
                Err(error @ (EngineError::KeyPackageExpired { .. } | EngineError::KeyPackageEarly { .. })) => {
                    // There is more than a full stock only if its owner offers more during the claims.
                    if claimed.last_resort || claims > KEY_PACKAGES_MAX {
                        return Err(error.into());
                    }
                    tracing::debug!(%agent, %error, "skipped a key package");
                    claims += 1;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Claims a KeyPackage, and returns it with the relay node's time. A claim whose answer was lost is retried with
    /// the same frame, which takes the same package.
    async fn claim_one(&self, agent: AgentId) -> Result<(Claimed, u64), AgentError> {
        let (core, waited) = (Arc::clone(&self.core), self.online_timeout);
        // In a task, which makes progress even if the caller stops polling: a claim holds one of the session's streams.
        let claiming = async move {
            let claiming = async {
                // The frame names the agent's account, which the vault knows after the first session.
                let mut sessions = core.bus.session.subscribe();
                let there = sessions.wait_for(Option::is_some).await.map(drop);
                there.map_err(|_| AgentError::Closed)?;
                let claim = core.try_call(move |actor| actor.engine.claim_frame(agent)).await?;
                claim_with(&core.bus, &claim, waited).await
            };
            let claimed = runtime::within(waited, core.bus.wait(claiming)).await?;
            claimed.unwrap_or(Err(AgentError::Offline { waited }))?
        };
        runtime::spawn(claiming.instrument(self.core.span()))?.await
    }
}

async fn claim_with(bus: &Bus, claim: &Frame, within: Duration) -> Result<(Claimed, u64), AgentError> {
    let deadline = Instant::now() + within;
    let mut sessions = bus.session.subscribe();
    loop {
        let session = match sessions.wait_for(Option::is_some).await {
            Ok(session) => session.clone(),
            Err(_) => return Err(AgentError::Closed),
        };
        let Some(session) = session else { continue };
        let claimed = match KeyPackages::open(&session).await {
            Ok(mut packages) => packages.claim(claim).await,
            Err(error) => Err(error),
        };
        match claimed {
            Ok(claimed) => return Ok((claimed, session.relay_time_ms())),
            // The same session may succeed later; if the relay node drains, the next one.
            Err(RelayError::Refused(refused)) if waits(refused.code()) => {
                let pause = refused.retry_after.unwrap_or(CLAIM_RETRY);
                if Instant::now() + pause >= deadline {
                    return Err(RelayError::Refused(refused).into());
                }
                tokio::select! {
                    () = sleep(pause) => {}
                    _ = sessions.changed() => {}
                }
            }
            Err(error @ (RelayError::Lost { .. } | RelayError::Closed)) => {
                tracing::debug!(%error, "claim not answered, trying again");
                // Wait until the driver has noticed, too.
                session.ended().await;
                let _ = sessions.changed().await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Whether a claim refused with this code is retried while there is time: the cause passes by itself, or another relay
/// node does not have it.
const fn waits(code: Code) -> bool {
    code.holds_log() && !matches!(code, Code::RelayInternal | Code::StoreStopped)
}
