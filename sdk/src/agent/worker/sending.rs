//! The way out: frames from the engine to the append stream, and their verdicts back.

use super::super::follow::local;
use super::super::outcome::outcome_of;
use super::Worker;
use crate::event::Event;
use crate::net::RelayError;
use crate::net::relay::{PendingAppend, Receipt};
use futures_util::{FutureExt, StreamExt};
use skytale_proto::FrameId;
use tokio::time::Instant;

impl Worker {
    pub(super) async fn pump(&mut self, renew: bool, bytes: usize) -> Result<(), RelayError> {
        if renew {
            self.appender.renew(&self.ground.session).await?;
            self.state.on_renewed();
        }
        let channel = self.channel;
        let given = self.ground.core.try_call(move |actor| {
            let next = actor.engine.next_frames(channel, bytes)?;
            actor.bus.tell_all(next.events);
            Ok((
                next.frames,
                next.turn,
                actor.engine.refresh_due(channel),
                actor.engine.channel(channel)?,
            ))
        });
        let (frames, turn, refresh, view) = local(given.await)?;
        self.see(view);
        self.state.on_refresh_due(refresh, Instant::now());
        self.state.on_frames(frames.len(), turn, Instant::now());
        tracing::trace!(%channel, frames = frames.len(), outbox = self.state.outbox(), "frames to append");
        for given in frames {
            let frame_id = given.frame.header().id;
            let pending = match self.appender.append(given.frame.encoded().clone()).await {
                Ok(pending) => pending,
                // Possibly too large for this relay: a verdict like any other.
                Err(RelayError::Refused(refused)) => {
                    let verdict = std::future::ready((frame_id, Err(RelayError::Refused(refused))));
                    self.in_flight.push_back(verdict.boxed());
                    continue;
                }
                Err(error) => return Err(error),
            };
            self.in_flight.push_back(verdict(frame_id, pending).boxed());
        }
        Ok(())
    }

    /// Passes this verdict, and later ones that are already available, to the engine.
    pub(super) async fn on_verdicts(
        &mut self,
        first: (FrameId, Result<Receipt, RelayError>),
    ) -> Result<(), RelayError> {
        let mut verdicts = vec![first];
        while let Some(Some(verdict)) = self.in_flight.next().now_or_never() {
            verdicts.push(verdict);
        }
        let mut outcomes = Vec::with_capacity(verdicts.len());
        let mut lost = None;
        for (frame_id, answer) in verdicts {
            let outcome = outcome_of(&answer);
            tracing::trace!(channel = %self.channel, %frame_id, ?outcome, "verdict");
            let asked = answer.as_ref().err().and_then(RelayError::retry_after);
            let decision = self.state.on_verdict(outcome.as_ref(), asked, Instant::now());
            if let (Some(offset), Some(subscription)) = (decision.expect, &mut self.subscription) {
                subscription.expect(offset);
            }
            match (outcome, answer.err()) {
                (None, error) => lost = error,
                (Some(outcome), error) => {
                    outcomes.push((frame_id, outcome));
                    if let (Some(error), Some(retry_in)) = (error, decision.tell_held) {
                        self.ground.core.bus.tell(Event::SendHeld {
                            channel: self.channel,
                            code: error.code(),
                            reason: error.to_string(),
                            retry_in,
                        });
                        if decision.move_on {
                            self.ground.move_on(error);
                        }
                    }
                }
            }
        }
        let channel = self.channel;
        let told = self.ground.core.try_call(move |actor| {
            // Report each outcome, even if an earlier one could not be.
            let mut result = Ok(());
            for (frame_id, outcome) in outcomes {
                match actor.engine.outcome(channel, frame_id, outcome) {
                    Ok(events) => actor.bus.tell_all(events),
                    Err(error) => result = Err(error),
                }
            }
            result?;
            actor.engine.channel(channel)
        });
        self.see(local(told.await)?);
        lost.map_or(Ok(()), Err)
    }
}

async fn verdict(frame_id: FrameId, pending: PendingAppend) -> (FrameId, Result<Receipt, RelayError>) {
    (frame_id, pending.outcome().await)
}
