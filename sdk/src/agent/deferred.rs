//! Adds agents that could not be added when it was asked for, once they have KeyPackages on offer.

use super::backoff::Backoff;
use super::running::{End, Ground};
use crate::channel::Channel;
use crate::engine::DeferredAdd;
use crate::event::Event;
use skytale_proto::Code;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

/// Between attempts. Each may be an entry in the log of the agent that is to be added.
const RETRY: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(3_600));
/// How long one attempt may take.
const TRY_MAX: Duration = Duration::from_secs(3);
/// How long after its beginning a round makes new attempts: an agent is not current before the first round is over.
const ROUND_MAX: Duration = Duration::from_secs(5);

/// Tries what waits, for the whole session: at its beginning, when there is more, and now and then.
pub(super) async fn keep(ground: Ground) -> End {
    let mut backoff = Backoff::new(RETRY.0, RETRY.1);
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
        for add in waiting {
            if began.elapsed() < ROUND_MAX {
                attempt(&ground, add).await;
            }
        }
        bus.readiness.send_modify(|ready| ready.deferred = true);
        tokio::select! {
            () = bus.deferred_changed.notified() => backoff.reset(),
            () = sleep(backoff.next(None)) => {}
        }
    }
}

async fn attempt(ground: &Ground, DeferredAdd { channel, agent, .. }: DeferredAdd) {
    let claiming = Channel::new(Arc::clone(&ground.core), channel, ground.config.online_timeout);
    let told = match timeout(TRY_MAX, claiming.claim(agent)).await {
        Ok(Ok(package)) => {
            let added = ground.core.try_call(move |actor| {
                let queued = actor.engine.add_deferred(channel, package)?;
                actor.bus.signals(channel).work.notify_one();
                Ok(queued)
            });
            added
                .await
                .map(|queued| tracing::info!(%channel, %agent, ?queued, "adding an agent that was away"))
        }
        refused => {
            let code = refused.map_or(Code::Offline, |error| {
                error.err().map_or(Code::Offline, |error| error.code())
            });
            tracing::debug!(%channel, %agent, %code, "an agent cannot be added yet");
            let refused = ground
                .core
                .try_call(move |actor| actor.engine.deferred_refused(channel, agent, code));
            refused.await
        }
    };
    if let Err(error) = told {
        ground.core.bus.tell(Event::VaultFailed {
            code: error.code(),
            reason: error.to_string(),
        });
    }
}
