//! Racing several relay nodes for the first answer: connections start shortly after one another (as in RFC 8305).

use crate::net::{Relay, RelayError};
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use std::time::Duration;
use tokio::time::sleep;

/// Maximum number of concurrent attempts.
const AT_ONCE_MAX: usize = 3;

/// Tries relay nodes in order until one answers; the other attempts are dropped. The next attempt starts when one has
/// failed, or when there was no answer for `stagger`. That doubles each time, so that nodes slowed by a crowd of agents
/// are not slowed further. `failed` is called for each failure, as it happens.
pub(super) async fn race<T, Connecting>(
    relays: &[Relay],
    mut stagger: Duration,
    connect: impl Fn(Relay) -> Connecting,
    mut failed: impl FnMut(&Relay, RelayError),
) -> Option<(Relay, T)>
where
    Connecting: Future<Output = Result<T, RelayError>>,
{
    let mut waiting = relays.iter();
    let mut under_way = FuturesUnordered::new();
    loop {
        if under_way.len() < AT_ONCE_MAX
            && let Some(relay) = waiting.next()
        {
            under_way.push(connect(relay.clone()).map(move |answer| (relay, answer)));
        }
        let more = under_way.len() < AT_ONCE_MAX && !waiting.as_slice().is_empty();
        tokio::select! {
            biased;
            answer = under_way.next() => match answer? {
                (relay, Ok(session)) => return Some((relay.clone(), session)),
                (relay, Err(error)) => failed(relay, error),
            },
            () = sleep(stagger), if more => stagger *= 2,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use parking_lot::Mutex;
    use skytale_proto::EndpointId;
    use tokio::time::Instant;

    const STAGGER: Duration = Duration::from_millis(250);

    fn relays(count: u8) -> Vec<Relay> {
        let relay = |number| Relay {
            endpoint: EndpointId::from_bytes([number; 32]),
            addresses: Vec::new(),
            https_url: None,
        };
        (0..count).map(relay).collect()
    }

    /// Returns which node answered and when, which failed, and the maximum number of concurrent attempts. `answers` has
    /// each node's delay in milliseconds, and whether it succeeds.
    async fn run(answers: &[(u64, bool)]) -> (Option<usize>, u128, Vec<usize>, usize) {
        let began = Instant::now();
        let (now_and_most, failures) = (Mutex::new((0_usize, 0_usize)), Mutex::new(Vec::new()));
        let connect = |relay: Relay| {
            let (number, counts) = (usize::from(relay.endpoint.as_bytes()[0]), &now_and_most);
            async move {
                {
                    let mut counts = counts.lock();
                    counts.0 += 1;
                    counts.1 = counts.1.max(counts.0);
                }
                let (after_ms, well) = answers[number];
                sleep(Duration::from_millis(after_ms)).await;
                counts.lock().0 -= 1;
                if well { Ok(number) } else { Err(RelayError::Closed) }
            }
        };
        let relays = relays(u8::try_from(answers.len()).expect("few"));
        let failed = |relay: &Relay, _| failures.lock().push(usize::from(relay.endpoint.as_bytes()[0]));
        let won = race(&relays, STAGGER, connect, failed).await;
        let most = now_and_most.lock().1;
        (
            won.map(|(_, number)| number),
            began.elapsed().as_millis(),
            failures.into_inner(),
            most,
        )
    }

    const DEAD: (u64, bool) = (5_000, false);

    #[tokio::test(start_paused = true)]
    async fn one_that_answers_at_once_is_the_only_one_that_is_asked() {
        assert_eq!(run(&[(20, true), (1, true)]).await, (Some(0), 20, vec![], 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_dead_one_costs_the_stagger() {
        assert_eq!(run(&[DEAD, (20, true), (1, true)]).await, (Some(1), 270, vec![], 2));
        assert_eq!(run(&[DEAD, DEAD, (20, true)]).await, (Some(2), 770, vec![], 3));
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_refuses_costs_nothing() {
        assert_eq!(
            run(&[(5, false), (5, false), (5, true)]).await,
            (Some(2), 15, vec![0, 1], 1)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn all_are_tried_a_few_at_once() {
        let (won, _, failed, most) = run(&[DEAD, DEAD, DEAD, DEAD, DEAD, (1, true)]).await;
        assert_eq!((won, failed.len(), most), (Some(5), 3, AT_ONCE_MAX));
        assert_eq!(run(&[DEAD; 4]).await.0, None);
        assert_eq!(run(&[]).await.0, None);
    }
}
