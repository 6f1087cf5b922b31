//! Asks again where nobody answers, and still listens to what was asked before.
//!
//! While a stream or the cluster has no leader, a question is lost, and whoever waits for its timeout learns late that there is
//! a leader again. A server that is only slow answers the first question, however often it was asked.

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use std::time::Duration;

/// How long an answer is waited for before it is asked for again.
pub(super) const AGAIN_AFTER: Duration = Duration::from_millis(500);

/// Asks again and again until an answer comes for which `answered` holds, or any: then those under way are waited for, and
/// no more is asked. So this ends when two questions do, at the latest.
pub(super) async fn again<T, F: Future<Output = T>>(
    mut after: Duration,
    answered: impl Fn(&T) -> bool,
    mut ask: impl FnMut() -> F,
) -> T {
    let mut asked = FuturesUnordered::new();
    let mut asking = true;
    loop {
        if asking {
            asked.push(ask());
        }
        tokio::select! {
            biased;
            Some(answer) = asked.next() => {
                if answered(&answer) || asked.is_empty() {
                    return answer;
                }
                asking = false;
            }
            () = tokio::time::sleep(after), if asking => after = after.mul_f64(1.5),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use tokio::sync::Notify;

    const AFTER: Duration = Duration::from_millis(5);

    #[tokio::test]
    async fn a_question_that_is_lost_is_asked_again_and_the_answer_taken() {
        let asked = Cell::new(0);
        let answer = again(AFTER, Option::is_some, || {
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
        let (asked, third) = (Cell::new(0), Notify::new());
        let answer = again(AFTER, Option::is_some, || {
            asked.set(asked.get() + 1);
            let (number, third) = (asked.get(), &third);
            async move {
                match number {
                    1 => third.notified().await,
                    2 => return None,
                    _ => {}
                }
                Some(number)
            }
        });
        let (answer, ()) = tokio::join!(answer, async {
            tokio::time::sleep(20 * AFTER).await;
            third.notify_one();
        });
        assert_eq!(answer, Some(1), "what failed meanwhile ends nothing");
    }

    #[tokio::test]
    async fn where_all_fail_it_is_said() {
        let never = again(AFTER, Option::is_some, || async { None::<()> });
        assert_eq!(never.await, None);
    }
}
