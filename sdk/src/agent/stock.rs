//! Keeps KeyPackages on offer to agents that may claim them, and replaces them before they expire.

use super::backoff::Backoff;
use super::follow::local;
use super::outcome::outcome_of;
use super::refusals::Refusals;
use super::running::{End, Ground};
use crate::event::Event;
use crate::net::RelayError;
use crate::net::relay::{Appender, KeyPackages, Stock};
use skytale_proto::Code;
use std::time::Duration;
use tokio::time::sleep;

const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(60));

/// Counts, replaces and offers for the whole session: at its start, when packages may have been claimed, and
/// periodically.
pub(super) async fn keep(ground: Ground) -> End {
    let (mut backoff, mut refusals) = (Backoff::new(RETRY.0, RETRY.1), Refusals::default());
    let mut appender = ground.appender.clone();
    let relay_ms = ground.session.relay_time_ms();
    // A closed vault ends the session by other means.
    let _ = ground.core.call(move |actor| actor.engine.relay_time(relay_ms)).await;
    loop {
        let bus = &ground.core.bus;
        let pause = match replenish(&ground, &appender).await {
            Ok(()) => {
                backoff.reset();
                refusals.reset();
                match stocked(&ground).await {
                    Ok(true) => ground.config.stock_interval,
                    // The owner has set another rule meanwhile.
                    Ok(false) => continue,
                    Err(_) => backoff.next(None),
                }
            }
            Err(RelayError::Local { code, reason }) => {
                bus.tell(Event::VaultFailed { code, reason });
                backoff.next(None)
            }
            // The session is about to be left: the next one comes soon.
            Err(RelayError::Refused(refused)) if refused.code() == Code::Draining => backoff.next(refused.retry_after),
            Err(RelayError::Refused(refused)) => {
                ground.count(&mut refusals, &refused);
                // Possibly a token without the scope: nobody can add this agent, but the rest goes on.
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

/// Whether the stock and its rule are as the owner wants them. Notifies waiters.
async fn stocked(ground: &Ground) -> Result<bool, RelayError> {
    let stocked = ground.core.try_call(|actor| {
        let status = actor.engine.consent()?;
        // Before the agent's account is known no rule can be appended.
        let in_force = status.in_force || status.account.is_none();
        // On the engine's thread: the owner's next change comes after this.
        actor.bus.readiness.send_modify(|ready| ready.stock = in_force);
        Ok(in_force)
    });
    local(stocked.await)
}

/// Appends the rule for claims to the agent's log if it differs from the one in force, before new packages can be
/// claimed.
async fn consent(ground: &Ground, appender: &Appender) -> Result<(), RelayError> {
    let wanted = ground.core.try_call(|actor| actor.engine.consent_frame());
    let Some(frame) = local(wanted.await)? else {
        return Ok(());
    };
    if ground.is_leaving() {
        return Ok(());
    }
    let frame_id = frame.header().id;
    let answer = appender.append(frame.encoded().clone()).await?.outcome().await;
    if let Some(outcome) = outcome_of(&answer) {
        let told = ground
            .core
            .try_call(move |actor| actor.engine.consent_outcome(frame_id, outcome));
        local(told.await)?;
    }
    answer.map(drop)
}

async fn replenish(ground: &Ground, appender: &Appender) -> Result<(), RelayError> {
    consent(ground, appender).await?;
    let mut packages = KeyPackages::open(&ground.session).await?;
    let stock = packages.count().await?;
    let is_due = ground
        .core
        .try_call(move |actor| actor.engine.key_package_is_due(stock.live));
    let is_due = local(is_due.await)?;
    // New ones first, as far as there is room, so that the stock is never empty.
    offer(ground, appender, stock).await?;
    if is_due && withdraw(ground, &mut packages).await? {
        let stock = packages.count().await?;
        offer(ground, appender, stock).await?;
    }
    Ok(())
}

/// Claims KeyPackages of this agent itself until the next one in the stock is fresh. Returns whether it claimed any.
async fn withdraw(ground: &Ground, packages: &mut KeyPackages) -> Result<bool, RelayError> {
    let own = ground.core.agent;
    let live = packages.count().await?.live;
    let mut claimed = 0;
    while claimed < live && !ground.is_leaving() {
        let claim = ground.core.try_call(move |actor| {
            let is_due = actor.engine.key_package_is_due(live - claimed)?;
            is_due.then(|| actor.engine.claim_frame(own)).transpose()
        });
        let Some(claim) = local(claim.await)? else { break };
        let package = match packages.claim(&claim).await {
            Ok(package) => package,
            // The token lacks the scope. Agents that add this one skip what is too old.
            Err(RelayError::Refused(refused)) if !refused.retryable => {
                tracing::debug!(code = %refused.code(), "key packages that are too old stay on offer");
                break;
            }
            Err(RelayError::Refused(refused)) if refused.code() == Code::KeyPackagesExhausted => break,
            Err(error) => return Err(error),
        };
        claimed += 1;
        let frame_id = package.frame.header().id;
        let was_due = ground
            .core
            .try_call(move |actor| actor.engine.key_package_was_due(frame_id));
        if !local(was_due.await)? || package.last_resort {
            break;
        }
    }
    if claimed > 0 {
        tracing::info!(claimed, "took back key packages that were too old");
    }
    Ok(claimed > 0)
}

async fn offer(ground: &Ground, appender: &Appender, stock: Stock) -> Result<(), RelayError> {
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
        // An ambiguous frame has no outcome: the same frame is offered again.
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
