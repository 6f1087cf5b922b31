//! Follows the agent's own log, and joins the channels that it points to.

mod state;

use self::state::{FetchDecision, JoinsState, LogDecision, LogState, Tell};
use super::core::Actor;
use super::running::{End, Ground};
use crate::engine::{LogStatus, PendingJoin, Processed};
use crate::event::Event;
use crate::net::RelayError;
use crate::net::relay::{Refused, Subscription, SubscriptionItem, log_status};
use skytale_proto::{ChannelId, Code, Offset, Record};
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// Longest time to fetch one bundle.
const FETCH_TIMEOUT: Duration = Duration::from_secs(30);

/// Follows the agent's own log for the whole session.
pub(super) async fn agent_log(ground: Ground) -> End {
    let mut state = LogState::new();
    loop {
        let error = match follow(&ground, &mut state).await {
            Err(error) => error,
            Ok(()) => RelayError::Lost {
                code: Code::Offline,
                reason: "the relay ended the subscription to the agent's log".into(),
            },
        };
        let bus = &ground.core.bus;
        if !state.is_short() {
            bus.readiness.send_modify(|ready| ready.log = false);
        }
        if error.refused().is_some_and(|refused| refused.code() == Code::Trimmed) {
            match trimmed(&ground).await {
                Ok(true) => continue,
                Ok(false) => {}
                Err(error) => tracing::debug!(%error, "no status of the agent's log"),
            }
        }
        match state.on_end(&error) {
            LogDecision::Again { pause, tell, move_on } => {
                match (tell, &error) {
                    (Tell::Refused, RelayError::Refused(refused)) => bus.tell(refused_event(None, refused)),
                    (Tell::VaultFailed, error) => bus.tell(Event::VaultFailed {
                        code: error.code(),
                        reason: error.to_string(),
                    }),
                    _ => {}
                }
                if state.is_short()
                    && let Some(refused) = error.refused()
                {
                    note_short(&ground, refused.offset).await;
                }
                if move_on {
                    ground.move_on(error);
                }
                sleep(pause).await;
            }
            LogDecision::EndSession => {
                if let RelayError::Gap { expected, found } = error {
                    bus.tell(Event::Gap {
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

/// Records that the agent's own log is permanently shorter than its cursor; everything else goes on without it.
async fn note_short(ground: &Ground, head: Offset) {
    let noted = ground.core.try_call(move |actor| {
        let events = actor.engine.agent_log_is_short(head)?;
        actor.bus.tell_all(events);
        actor.joins_pending()?;
        Ok(())
    });
    if let Err(error) = noted.await {
        tracing::warn!(%error, "a short log was not recorded");
    }
    ground.core.bus.readiness.send_modify(|ready| ready.log = true);
}

/// Skips trimmed entries of the agent's own log, and takes their Welcomes from the relay node. Returns whether that
/// made progress.
async fn trimmed(ground: &Ground) -> Result<bool, RelayError> {
    let status = log_status(&ground.session, ground.core.agent.log()).await?;
    let moved = ground.core.try_call(move |actor| {
        let before = actor.engine.agent_cursor();
        let events = actor.engine.agent_log_trimmed(&status.into())?;
        actor.bus.tell_all(events);
        actor.joins_pending()?;
        Ok(actor.engine.agent_cursor() > before)
    });
    let moved = local(moved.await)?;
    // The stock may be lost with them.
    ground.core.bus.stock_changed.notify_one();
    Ok(moved)
}

fn refused_event(channel: Option<ChannelId>, refused: &Refused) -> Event {
    Event::Refused {
        channel,
        code: refused.code(),
        reason: refused.message.clone(),
        offset: refused.offset,
    }
}

/// Handles that the agent's own log may have gone back with a channel's, or ends before the cursor: if the relay node's
/// operator has confirmed it, the log is read again from there.
async fn settle(ground: &Ground) -> Result<(), RelayError> {
    let word_ms = ground.session.info().rollback_ms;
    let due = (ground.core).try_call(move |actor| actor.engine.is_word_news_of_agent_log(word_ms));
    if !local(due.await)? {
        return Ok(());
    }
    let status: LogStatus = log_status(&ground.session, ground.core.agent.log()).await?.into();
    let Some(word) = status.rollback else { return Ok(()) };
    let settled = ground.core.try_call(move |actor| {
        let events = actor.engine.accept_agent_log_rollback(word)?;
        actor.bus.tell_all(events);
        Ok(())
    });
    local(settled.await)?;
    // Offered keys may be lost.
    ground.core.bus.stock_changed.notify_one();
    Ok(())
}

async fn follow(ground: &Ground, state: &mut LogState) -> Result<(), RelayError> {
    settle(ground).await?;
    let core = &ground.core;
    let cursor = local(core.call(|actor| actor.engine.agent_cursor()).await)?;
    let log = core.agent.log();
    let mut subscription = Subscription::open(&ground.session, log, cursor, true, None).await?;
    while let Some(item) = subscription.next().await? {
        state.on_item();
        match item {
            SubscriptionItem::Batch(records) => process(ground, records).await?,
            SubscriptionItem::CaughtUp { .. } => {
                let reached = core.try_call(|actor| {
                    actor.engine.agent_log_reached()?;
                    actor.joins_pending()
                });
                local(reached.await)?;
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
    // The entries may include claims of this agent's KeyPackages.
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
    let mut state = JoinsState::new();
    loop {
        let bus = &ground.core.bus;
        let pending = ground.core.try_call(|actor| {
            let pending = actor.engine.pending_joins()?;
            // On the engine's thread: the next pending joins are reported after this.
            actor
                .bus
                .readiness
                .send_modify(|ready| ready.joins = !actor.bus.waits_for(&pending));
            Ok(pending)
        });
        let pending = pending.await.unwrap_or_else(|error| {
            bus.tell(Event::VaultFailed {
                code: error.code(),
                reason: error.to_string(),
            });
            state.on_vault_failed();
            Vec::new()
        });
        for join in &pending {
            let error = match timeout(FETCH_TIMEOUT, fetch_and_join(&ground, *join)).await {
                Ok(Ok(())) => {
                    state.on_fetched();
                    continue;
                }
                Ok(Err(error)) => Some(error),
                Err(_) => None,
            };
            tracing::debug!(channel = %join.channel, ?error, "bundle not fetched");
            let refused = error.as_ref().and_then(RelayError::refused);
            if refused.is_some_and(|refused| state.lasts(*join, refused.code())) {
                bus.unfetched.lock().insert((join.channel, join.offset));
                // Notifies all waiters.
                if let Err(error) = ground.core.try_call(Actor::joins_pending).await {
                    tracing::debug!(%error, "pending joins not listed");
                }
            }
            let decision = state.on_not_fetched(error.as_ref());
            match (decision, error) {
                (FetchDecision::GiveUp, error) => {
                    let reason = match error {
                        Some(RelayError::Refused(refused)) => refused.message,
                        _ => String::new(),
                    };
                    let given_up = match join_trimmed(&ground, *join).await {
                        Err(RelayError::Refused(_)) => abandon(&ground, *join, reason).await,
                        other => other,
                    };
                    if let Err(error) = given_up {
                        tracing::debug!(channel = %join.channel, %error, "join not abandoned");
                        state.on_vault_failed();
                    }
                }
                (FetchDecision::Again { tell, move_on }, Some(RelayError::Refused(refused))) => {
                    if tell {
                        bus.tell(refused_event(Some(join.channel), &refused));
                    }
                    if move_on {
                        ground.move_on(refused.into());
                    }
                }
                (FetchDecision::Again { .. }, _) => {}
            }
        }
        if let Some(pause) = state.on_round(pending.len()) {
            tokio::select! {
                () = bus.joins_pending.notified() => {}
                () = sleep(pause) => {}
            }
        }
    }
}

/// Handles that the bundle was trimmed from the channel's log: the agent follows the rest, and asks to be added again.
async fn join_trimmed(ground: &Ground, join: PendingJoin) -> Result<(), RelayError> {
    let status = log_status(&ground.session, join.channel.log()).await?;
    let joined = ground.core.try_call(move |actor| {
        let events = actor.engine.join_trimmed(join, &status.into())?;
        actor.bus.tell_all(events);
        actor.bus.bump_inbox(join.channel);
        Ok(())
    });
    local(joined.await)
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
        // The channel may be a declined one.
        actor.bus.hide(actor.engine.declined()?);
        actor.bus.tell_all(events);
        // Whether it was joined or cannot be joined.
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

/// Converts a refusal of the vault to a local error.
pub(super) fn local<T>(result: Result<T, super::AgentError>) -> Result<T, RelayError> {
    result.map_err(|error| RelayError::Local {
        code: error.code(),
        reason: error.to_string(),
    })
}
