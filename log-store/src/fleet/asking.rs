//! Repeats a question if nobody answers, and still listens for answers to the earlier ones.
//!
//! While a stream or the cluster has no leader, a question is lost, and a caller that waits for its timeout learns late
//! that there is a leader again. A server that is only slow answers the first question, however often it was asked.

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use std::time::Duration;
use tokio::time::Instant;

/// First time to wait for an answer before the question is repeated.
pub(super) const AGAIN_AFTER: Duration = Duration::from_millis(500);
/// The longest such wait: a leader that there is at last is heard within it.
const AGAIN_AFTER_MAX: Duration = Duration::from_secs(1);

/// Repeats a question until an answer comes for which `answered` holds, and asks nothing more when `within` is over. Where
/// none comes, this ends with a failure when no question is under way, or when one fails after that time: so it takes
/// `within` and one question, at the longest.
pub(super) async fn again<T, F: Future<Output = T>>(
    mut after: Duration,
    within: Duration,
    answered: impl Fn(&T) -> bool,
    mut ask: impl FnMut() -> F,
) -> T {
    let until = Instant::now() + within;
    let mut asked = FuturesUnordered::new();
    asked.push(ask());
    let mut next = Instant::now() + after;
    loop {
        tokio::select! {
            biased;
            Some(answer) = asked.next() => {
                if answered(&answer) || asked.is_empty() || until <= Instant::now() {
                    return answer;
                }
            }
            () = tokio::time::sleep_until(next), if next < until => {
                asked.push(ask());
                after = after.mul_f64(1.5).min(AGAIN_AFTER_MAX);
                next = Instant::now() + after;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use tokio::sync::Notify;

    const AFTER: Duration = Duration::from_millis(5);
    const WITHIN: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn a_question_that_is_lost_is_asked_again_and_the_answer_taken() {
        let asked = Cell::new(0);
        let answer = again(AFTER, WITHIN, Option::is_some, || {
            asked.set(asked.get() + 1);
            let number = asked.get();
            async move {
                if number < 3 {
                    return std::future::pending().await;
                }
                Some(number)
            }
        });
        assert_eq!(answer.await, Some(3));
    }

    #[tokio::test]
    async fn who_is_slow_is_listened_to() {
        let (asked, late) = (Cell::new(0), Notify::new());
        let answer = again(AFTER, WITHIN, Option::is_some, || {
            asked.set(asked.get() + 1);
            let (number, late) = (asked.get(), &late);
            async move {
                if number > 1 {
                    return None;
                }
                late.notified().await;
                Some(number)
            }
        });
        let (answer, ()) = tokio::join!(answer, async {
            tokio::time::sleep(20 * AFTER).await;
            late.notify_one();
        });
        assert_eq!(answer, Some(1), "what failed meanwhile ends nothing");
    }

    #[tokio::test(start_paused = true)]
    async fn who_answers_late_is_asked_until_then() {
        const LOST_AFTER: Duration = Duration::from_secs(5);
        // A question is lost if nobody listens yet.
        let ask = async |there_after: Duration| {
            let begun = Instant::now();
            let answer = again(AGAIN_AFTER, WITHIN, Result::is_ok, move || async move {
                if begun.elapsed() >= there_after {
                    return Ok(());
                }
                tokio::time::sleep(LOST_AFTER).await;
                Err(())
            });
            (answer.await, begun.elapsed())
        };
        let there_after = Duration::from_secs(7);
        let (answer, took) = ask(there_after).await;
        assert_eq!(answer, Ok(()));
        assert!(took <= there_after + AGAIN_AFTER_MAX, "{took:?}");
        let (answer, took) = ask(Duration::MAX).await;
        assert_eq!(answer, Err(()));
        assert!(WITHIN <= took && took <= WITHIN + LOST_AFTER, "{took:?}");
    }

    #[tokio::test]
    async fn where_all_fail_it_is_said() {
        let never = again(AFTER, WITHIN, Option::is_some, || async { None::<()> });
        assert_eq!(never.await, None);
    }
}
