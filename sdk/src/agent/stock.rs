//! Keeps KeyPackages on offer.

use super::backoff::Backoff;
use super::follow::local;
use super::outcome::outcome_of;
use super::refusals::Refusals;
use super::running::{End, Ground};
use crate::event::Event;
use crate::net::RelayError;
use crate::net::relay::{Appender, KeyPackages};
use skytale_proto::Code;
use std::time::Duration;
use tokio::time::sleep;

const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(60));

/// Counts and offers for the whole session: at its beginning, when packages may have been claimed, and now and then.
pub(super) async fn keep(ground: Ground) -> End {
    let (mut backoff, mut refusals) = (Backoff::new(RETRY.0, RETRY.1), Refusals::default());
    let mut appender = ground.appender.clone();
    loop {
        let bus = &ground.core.bus;
        let pause = match replenish(&ground, &appender).await {
            Ok(()) => {
                backoff.reset();
                refusals.reset();
                bus.readiness.send_modify(|ready| ready.stock = true);
                ground.config.stock_interval
            }
            Err(RelayError::Local { code, reason }) => {
                bus.tell(Event::VaultFailed { code, reason });
                backoff.next(None)
            }
            // The session is about to be left: the next one is soon there.
            Err(RelayError::Refused(refused)) if refused.code() == Code::Draining => backoff.next(refused.retry_after),
            Err(RelayError::Refused(refused)) => {
                ground.count(&mut refusals, &refused);
                // A token without the scope, perhaps: nobody can add this agent, but the rest goes on.
                bus.tell(Event::Refused {
                    channel: None,
                    code: refused.code(),
                    reason: refused.message.clone(),
                    offset: refused.offset,
                });
                bus.readiness.send_modify(|ready| ready.stock = true);
                if refused.code().holds_log()
                    && let Err(error) = appender.renew(&ground.session).await
                {
                    return End::Session(error);
                }
                backoff.next(refused.retry_after)
            }
            Err(error) => return End::Session(error),
        };
        tokio::select! {
            () = bus.stock_changed.notified() => {}
            () = sleep(pause) => {}
        }
    }
}

async fn replenish(ground: &Ground, appender: &Appender) -> Result<(), RelayError> {
    let stock = KeyPackages::open(&ground.session).await?.count().await?;
    let wanted = ground
        .core
        .try_call(move |actor| actor.engine.key_packages_wanted(stock.live, stock.last_resort));
    let mut pending = Vec::new();
    if ground.is_leaving() {
        return Ok(());
    }
    for frame in local(wanted.await)? {
        pending.push((frame.header().id, appender.append(frame.encoded().clone()).await?));
    }
    let mut outcomes = Vec::with_capacity(pending.len());
    let mut problem = None;
    for (frame_id, pending) in pending {
        let answer = pending.outcome().await;
        // What is ambiguous has no outcome: it is offered again, the same.
        outcomes.extend(outcome_of(&answer).map(|outcome| (frame_id, outcome)));
        if let Err(error) = answer {
            problem.get_or_insert(error);
        }
    }
    let told = ground.core.try_call(move |actor| {
        outcomes
            .into_iter()
            .try_for_each(|(frame_id, outcome)| actor.engine.key_package_outcome(frame_id, outcome))
    });
    local(told.await)?;
    problem.map_or(Ok(()), Err)
}
