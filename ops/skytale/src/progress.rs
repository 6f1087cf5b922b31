//! Waits that last for as long as they advance.

use crate::output::Outcome;
use skytale_proto::ChannelId;
use skytale_sdk::{Agent, Event, Events};
use std::future::pending;
use std::time::Duration;
use tokio::time::sleep;

/// Waits for sends of a channel to leave its outbox. Returns `None` if none has for `within`.
pub(crate) async fn while_sends_leave<T>(
    agent: &Agent,
    channel: ChannelId,
    within: Duration,
    work: impl Future<Output = Outcome<T>>,
) -> Option<Outcome<T>> {
    let mut left = Left {
        events: agent.events(),
        agent,
        channel,
        outbox: u64::MAX,
    };
    while_it_advances(|| sleep(within), async || left.next().await, work).await
}

/// Waits for an agent to become current. Returns `None` if it has read nothing, and reached no channel's head, for
/// `within`.
pub(crate) async fn while_it_catches_up<T>(
    agent: &Agent,
    within: Duration,
    work: impl Future<Output = Outcome<T>>,
) -> Option<Outcome<T>> {
    let mut events = agent.events();
    let advanced = async || {
        loop {
            match events.next().await {
                Some(Event::CaughtUp { .. } | Event::Joined { .. } | Event::Message { .. }) => return,
                Some(_) => {}
                None => pending().await,
            }
        }
    };
    while_it_advances(|| sleep(within), advanced, work).await
}

/// Sees sends leave a channel's outbox.
struct Left<'a> {
    events: Events,
    agent: &'a Agent,
    channel: ChannelId,
    /// Items in the outbox at the last look.
    outbox: u64,
}

impl Left<'_> {
    async fn next(&mut self) {
        loop {
            match self.events.next().await {
                Some(
                    Event::Delivered { channel, .. }
                    | Event::Unneeded { channel, .. }
                    | Event::SendFailed { channel, .. },
                ) if channel == self.channel => return,
                // Which events were missed is unknown.
                Some(Event::Lagged { .. }) => {
                    let Ok(channel) = self.agent.channel(self.channel).await else {
                        continue;
                    };
                    let outbox = channel.info().await.map_or(u64::MAX, |info| info.outbox);
                    if outbox < std::mem::replace(&mut self.outbox, outbox) {
                        return;
                    }
                }
                Some(_) => {}
                None => pending().await,
            }
        }
    }
}

/// Does `work`. Returns `None` if a `countdown` ends; a new one begins whenever `advanced` resolves.
async fn while_it_advances<T, C: Future<Output = ()>>(
    mut countdown: impl FnMut() -> C,
    mut advanced: impl AsyncFnMut(),
    work: impl Future<Output = T>,
) -> Option<T> {
    tokio::pin!(work);
    loop {
        tokio::select! {
            biased;
            done = &mut work => return Some(done),
            () = advanced() => {}
            () = countdown() => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use tokio::task::yield_now;

    /// Work of many steps, each of which takes less than the countdown, and `steps` of which are done.
    async fn done_of(steps: u32) -> Option<u32> {
        const ALL: u32 = 20;
        let clock = Cell::new(0_u32);
        let countdown = async || {
            for _ in 0..5 {
                yield_now().await;
            }
        };
        let mut seen = 0;
        let advanced = async || {
            while seen == clock.get() / 3 {
                yield_now().await;
            }
            seen = clock.get() / 3;
        };
        let work = async {
            while clock.get() < ALL * 3 {
                if clock.get() < steps * 3 {
                    clock.set(clock.get() + 1);
                }
                yield_now().await;
            }
            ALL
        };
        while_it_advances(countdown, advanced, work).await
    }

    #[tokio::test]
    async fn a_wait_lasts_for_as_long_as_it_advances_and_no_longer() {
        assert_eq!(done_of(20).await, Some(20));
        assert_eq!(done_of(19).await, None);
        assert_eq!(done_of(0).await, None);
    }
}
