//! Adds agents that could not be added at the time of the call, once they have KeyPackages on offer.

use super::AgentError;
use super::backoff::Backoff;
use super::running::{End, Ground};
use crate::channel::Channel;
use crate::engine::{ClaimedPackage, DeferredAdd, EngineError};
use crate::event::Event;
use skytale_proto::{ChannelId, Code, FrameId};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

/// Delays between attempts. Each attempt may be an entry in the log of the agent to be added.
const RETRY: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(3_600));
/// Delays between attempts while messages wait for an addition. An agent with nothing on offer refuses without an
/// entry.
const HOLDING_RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(5));
/// Longest time of one attempt.
const TRY_MAX: Duration = Duration::from_secs(3);
/// Time after its start during which a round makes new attempts: an agent is not current before the first round is
/// over.
const ROUND_MAX: Duration = Duration::from_secs(5);

/// Tries deferred additions, for the whole session: at its start, when there are new ones, and periodically; often
/// while they hold back messages.
pub(super) async fn keep(ground: Ground) -> End {
    let mut backoff = Backoff::new(RETRY.0, RETRY.1);
    let mut holding = Backoff::new(HOLDING_RETRY.0, HOLDING_RETRY.1);
    loop {
        let bus = &ground.core.bus;
        let waiting = match ground.core.try_call(|actor| actor.engine.deferred_to_try()).await {
            Ok(waiting) => waiting,
            Err(error) => {
                bus.tell(Event::VaultFailed {
                    code: error.code(),
                    reason: error.to_string(),
                });
                Vec::new()
            }
        };
        let began = Instant::now();
        let mut holds = false;
        for add in waiting {
            holds |= add.holds;
            if began.elapsed() < ROUND_MAX && attempt(&ground, add).await {
                holding.reset();
            }
        }
        bus.readiness.send_modify(|ready| ready.deferred = true);
        let pause = match holds {
            true => holding.next(None),
            false => backoff.next(None),
        };
        tokio::select! {
            () = bus.deferred_changed.notified() => {
                backoff.reset();
                holding.reset();
            }
            () = sleep(pause) => {}
        }
    }
}

/// Reason why an attempt failed.
struct Missed {
    code: Code,
    /// Time for which messages still wait for the addition; `None` if the reason does not lie with the agent to be
    /// added.
    hold: Option<Duration>,
}

impl Missed {
    fn of(error: &AgentError, member_wait: Duration) -> Self {
        let code = error.code();
        let hold = match error {
            AgentError::Engine(EngineError::KeyPackageExpired { .. } | EngineError::KeyPackageEarly { .. }) => {
                Some(member_wait)
            }
            _ if matches!(code, Code::KeyPackagesExhausted | Code::UnknownLog) => Some(member_wait),
            error if error.is_own() || error.is_retryable() => None,
            _ => Some(Duration::ZERO),
        };
        Self { code, hold }
    }
}

/// Tries an addition. Returns whether the agent could be added.
async fn attempt(ground: &Ground, DeferredAdd { channel, agent, .. }: DeferredAdd) -> bool {
    let claiming = Channel::new(Arc::clone(&ground.core), channel, ground.config.online_timeout);
    let member_wait = ground.config.member_wait;
    let missed = match timeout(TRY_MAX, claiming.claim(agent)).await {
        Ok(Ok(package)) => match add(ground, channel, package).await {
            Ok(queued) => {
                tracing::info!(%channel, %agent, ?queued, "adding an agent that was away");
                return true;
            }
            Err(error) => Missed::of(&error, member_wait),
        },
        Ok(Err(error)) => Missed::of(&error, member_wait),
        Err(_) => Missed {
            code: Code::Offline,
            hold: None,
        },
    };
    let Missed { code, hold } = missed;
    tracing::debug!(%channel, %agent, %code, "an agent cannot be added yet");
    let told = ground.core.try_call(move |actor| {
        let Some(hold) = hold else {
            return actor.engine.deferred_refused(channel, agent, code);
        };
        let events = actor.engine.deferred_failed(channel, agent, code, hold)?;
        if !events.is_empty() {
            // Messages that waited for it go out.
            actor.bus.signals(channel).work.notify_one();
        }
        actor.bus.tell_all(events);
        Ok(())
    });
    if let Err(error) = told.await {
        ground.core.bus.tell(Event::VaultFailed {
            code: error.code(),
            reason: error.to_string(),
        });
    }
    false
}

async fn add(ground: &Ground, channel: ChannelId, package: ClaimedPackage) -> Result<Option<FrameId>, AgentError> {
    let added = ground.core.try_call(move |actor| {
        let queued = actor.engine.add_deferred(channel, package)?;
        actor.bus.signals(channel).work.notify_one();
        Ok(queued)
    });
    added.await
}
