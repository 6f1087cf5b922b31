//! A channel whose log no longer has what this agent was shown: entries that are gone are passed over, and a log that went
//! back is settled.

use super::super::follow::local;
use super::Worker;
use super::state::Ask;
use crate::engine::{Acceptance, Fork};
use crate::event::Event;
use crate::net::RelayError;
use crate::net::relay::{Refused, Session, Subscription, SubscriptionItem, log_status};
use skytale_proto::{ChannelId, Code};
use tokio::time::Instant;

impl Worker {
    /// Moves past entries after the cursor that the log no longer shows.
    pub(super) async fn move_on(&mut self, ask: Ask) -> Result<(), RelayError> {
        let channel = self.channel;
        let status = match ask {
            Ask::Trimmed => Some(log_status(&self.ground.session, channel.log()).await?),
            Ask::Nothing | Ask::AbsentUntil(_) | Ask::Short(_) => None,
        };
        let moved = self.ground.core.try_call(move |actor| {
            let events = match (ask, status) {
                (Ask::Trimmed, Some(status)) => actor.engine.trimmed(channel, &status.into())?,
                (Ask::AbsentUntil(next), _) => actor.engine.absent_until(channel, next)?,
                (Ask::Short(head), _) => actor.engine.log_is_short(channel, head)?,
                _ => Vec::new(),
            };
            actor.bus.tell_all(events);
            Ok((actor.engine.is_diverged(channel)?, actor.engine.channel(channel)?))
        });
        let before = self.state.cursor();
        let (diverged, view) = local(moved.await)?;
        self.see(view);
        self.state.on_evidence(diverged);
        if self.state.cursor() > before {
            self.state.on_moved_on(Instant::now());
        }
        Ok(())
    }

    /// Handles evidence that the log went back. If the relay node's operator has confirmed it, this agent finds the
    /// offset, and continues with the present log.
    pub(super) async fn settle(&mut self) -> Result<(), RelayError> {
        let channel = self.channel;
        let status = match log_status(&self.ground.session, channel.log()).await {
            Ok(status) => crate::engine::LogStatus::from(status),
            Err(RelayError::Refused(refused)) => {
                tracing::debug!(%channel, %refused, "no log status");
                self.not_settled(&refused);
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let mut fork = local(self.ground.core.try_call(move |actor| actor.engine.fork(channel)).await)?;
        fork.skip_to(status.first);
        match compare(&self.ground.session, channel, &mut fork).await {
            Ok(()) => {}
            Err(RelayError::Refused(refused)) if refused.code() == Code::NotMember => fork.deny(),
            Err(RelayError::Refused(refused)) if refused.code() == Code::UnknownLog => fork.gone(),
            // It ends before the entries to compare.
            Err(RelayError::Refused(refused)) if refused.code() == Code::CursorBeyondHead => {}
            Err(RelayError::Refused(refused)) => {
                tracing::debug!(%channel, %refused, "the log cannot be compared");
                self.not_settled(&refused);
                return Ok(());
            }
            Err(error) => return Err(error),
        }
        // A reader may still acknowledge messages that it got before.
        let is_read = self.state.may_wait_for_reader(Instant::now()) && self.signals.readers.receiver_count() > 0;
        let settled = self.ground.core.try_call(move |actor| {
            actor.bus.tell_all(actor.engine.compared(channel, &fork)?);
            let settled = actor.engine.accept_rollback(channel, &fork, &status, is_read)?;
            if let Acceptance::Settled(events) = &settled {
                actor.bus.tell_all(events.clone());
            }
            Ok((settled, actor.engine.channel(channel)?))
        });
        let (settled, view) = local(settled.await)?;
        let unacked = view.unacked;
        self.see(view);
        match settled {
            Acceptance::Unconfirmed => {
                self.state.on_settled();
                self.show();
            }
            Acceptance::Settled(_) => {
                self.unsubscribe();
                self.state.on_settled();
                self.state.on_moved_on(Instant::now());
                self.show();
            }
            Acceptance::Unacked => {
                self.unsubscribe();
                self.state.on_unacked(Instant::now());
                self.show();
                self.ground.core.bus.tell(Event::Paused { channel, unacked });
            }
        }
        Ok(())
    }

    /// Handles that the relay node did not answer the question.
    fn not_settled(&mut self, refused: &Refused) {
        match refused.code().is_retryable() {
            true => self.state.on_settle_failed(refused.retry_after, Instant::now()),
            false => self.state.on_settled(),
        }
        self.show();
    }
}

/// Feeds the log's entries to the comparison, as far as it needs them.
async fn compare(session: &Session, channel: ChannelId, fork: &mut Fork) -> Result<(), RelayError> {
    if !fork.is_open() {
        return Ok(());
    }
    let mut subscription = Subscription::open(session, channel.log(), fork.after(), false, None).await?;
    while fork.is_open()
        && let Some(SubscriptionItem::Batch(records)) = subscription.next().await?
    {
        fork.feed(&records);
    }
    Ok(())
}
