//! Follows the agent's own log, and joins the channels that it points to.

use super::backoff::Backoff;
use super::core::Actor;
use super::running::{End, Ground, Refusals};
use crate::engine::{PendingJoin, Processed};
use crate::event::Event;
use crate::net::RelayError;
use crate::net::relay::{Subscription, SubscriptionItem};
use skytale_proto::{Code, Offset, Record};
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// Between attempts to read the agent's log, or a bundle.
const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// How long one bundle may take to come.
const FETCH_TIMEOUT: Duration = Duration::from_secs(30);

/// Follows the agent's own log for the whole session.
pub(super) async fn agent_log(ground: Ground) -> End {
    let (mut backoff, mut refusals) = (Backoff::new(RETRY.0, RETRY.1), Refusals::default());
    loop {
        let error = match follow(&ground, &mut backoff, &mut refusals).await {
            Err(error) => error,
            Ok(()) => RelayError::Lost {
                code: Code::Offline,
                reason: "the relay ended the subscription to the agent's log".into(),
            },
        };
        ground.core.bus.readiness.send_modify(|ready| ready.log = false);
        match error {
            // The session's end tells it.
            RelayError::Refused(refused) if refused.code() == Code::Draining => {
                sleep(backoff.next(refused.retry_after)).await;
            }
            RelayError::Refused(refused) => {
                ground.count(&mut refusals, &refused);
                ground.core.bus.tell(Event::Refused {
                    channel: None,
                    code: refused.code(),
                    reason: refused.message.clone(),
                    offset: refused.offset,
                });
                sleep(backoff.next(refused.retry_after)).await;
            }
            RelayError::Local { code, reason } => {
                ground.core.bus.tell(Event::VaultFailed { code, reason });
                sleep(backoff.next(None)).await;
            }
            error => {
                if let RelayError::Gap { expected, found } = error {
                    ground.core.bus.tell(Event::Gap {
                        channel: None,
                        expected,
                        found,
                    });
                }
                return End::Session(error);
            }
        }
    }
}

async fn follow(ground: &Ground, backoff: &mut Backoff, refusals: &mut Refusals) -> Result<(), RelayError> {
    let core = &ground.core;
    let cursor = local(core.call(|actor| actor.engine.agent_cursor()).await)?;
    let log = core.agent.log();
    let mut subscription = Subscription::open(&ground.session, log, cursor, true, None).await?;
    while let Some(item) = subscription.next().await? {
        backoff.reset();
        refusals.reset();
        match item {
            SubscriptionItem::Batch(records) => process(ground, records).await?,
            SubscriptionItem::CaughtUp { .. } => {
                local(core.try_call(Actor::joins_pending).await)?;
                core.bus.readiness.send_modify(|ready| ready.log = true);
            }
        }
    }
    Ok(())
}

/// Gives entries to the engine.
async fn process(ground: &Ground, records: Vec<Record>) -> Result<(), RelayError> {
    let bus = &ground.core.bus;
    let processed = ground.core.try_call(move |actor| {
        let Processed { events, gap, .. } = actor.engine.process_agent_entries(&records)?;
        actor.bus.tell_all(events);
        actor.joins_pending()?;
        Ok(gap)
    });
    let gap = local(processed.await)?;
    // Among the entries may be claims of this agent's KeyPackages.
    bus.stock_changed.notify_one();
    match gap {
        Some(gap) => Err(RelayError::Gap {
            expected: gap.expected,
            found: gap.found,
        }),
        None => Ok(()),
    }
}

/// Fetches bundles and joins, for the whole session.
pub(super) async fn joins(ground: Ground) -> End {
    let (mut backoff, mut refusals) = (Backoff::new(RETRY.0, RETRY.1), Refusals::default());
    loop {
        let bus = &ground.core.bus;
        let pending = ground.core.try_call(|actor| {
            let pending = actor.engine.pending_joins()?;
            // On the engine's thread: what is pending next is told after this.
            actor
                .bus
                .readiness
                .send_modify(|ready| ready.joins = pending.is_empty());
            Ok(pending)
        });
        let pending = match pending.await {
            Ok(pending) => pending,
            Err(error) => {
                bus.tell(Event::VaultFailed {
                    code: error.code(),
                    reason: error.to_string(),
                });
                sleep(backoff.next(None)).await;
                continue;
            }
        };
        let mut failed = false;
        for join in &pending {
            match timeout(FETCH_TIMEOUT, fetch_and_join(&ground, *join)).await {
                Ok(Ok(())) => refusals.reset(),
                // The bundle is gone for good. What a relay refuses for another reason another relay may give.
                Ok(Err(RelayError::Refused(refused))) if refused.code() == Code::Trimmed => {
                    if let Err(error) = abandon(&ground, *join, refused.message).await {
                        tracing::debug!(channel = %join.channel, %error, "join not abandoned");
                        failed = true;
                    }
                }
                // The session's end tells it.
                Ok(Err(RelayError::Refused(refused))) if refused.code() == Code::Draining => failed = true,
                Ok(Err(RelayError::Refused(refused))) => {
                    ground.count(&mut refusals, &refused);
                    bus.tell(Event::Refused {
                        channel: Some(join.channel),
                        code: refused.code(),
                        reason: refused.message.clone(),
                        offset: refused.offset,
                    });
                    failed = true;
                }
                Ok(Err(error)) => {
                    tracing::debug!(channel = %join.channel, %error, "bundle not fetched");
                    failed = true;
                }
                Err(_) => failed = true,
            }
        }
        if pending.is_empty() || failed {
            let pause = if failed {
                backoff.next(None)
            } else {
                Duration::from_secs(3_600)
            };
            tokio::select! {
                () = bus.joins_pending.notified() => {}
                () = sleep(pause) => {}
            }
        }
        if !failed {
            backoff.reset();
        }
    }
}

async fn abandon(ground: &Ground, join: PendingJoin, reason: String) -> Result<(), RelayError> {
    let abandoned = ground.core.try_call(move |actor| {
        let events = actor.engine.abandon_join(join, &reason)?;
        actor.bus.tell_all(events);
        actor.bus.bump_inbox(join.channel);
        Ok(())
    });
    local(abandoned.await)
}

async fn fetch_and_join(ground: &Ground, join: PendingJoin) -> Result<(), RelayError> {
    let bundle = fetch(ground, join).await?;
    let joined = ground.core.try_call(move |actor| {
        let events = actor.engine.join(join.channel, &bundle)?;
        actor.bus.tell_all(events);
        // Whether it was joined or cannot be.
        actor.bus.bump_inbox(join.channel);
        Ok(())
    });
    local(joined.await)
}

async fn fetch(ground: &Ground, join: PendingJoin) -> Result<Record, RelayError> {
    let (log, after) = (join.channel.log(), join.offset.previous());
    let mut subscription = Subscription::open(&ground.session, log, after, false, Some(1)).await?;
    loop {
        match subscription.next().await? {
            Some(SubscriptionItem::Batch(records)) => {
                if let Some(record) = records.into_iter().next() {
                    return Ok(record);
                }
            }
            Some(SubscriptionItem::CaughtUp { .. }) => {}
            None => {
                return Err(RelayError::Gap {
                    expected: join.offset,
                    found: Offset::ZERO,
                });
            }
        }
    }
}

/// The vault's refusal, as a reason on this side.
pub(super) fn local<T>(result: Result<T, super::AgentError>) -> Result<T, RelayError> {
    result.map_err(|error| RelayError::Local {
        code: error.code(),
        reason: error.to_string(),
    })
}
