//! What is made of a look at the stream.

use super::Follower;
use crate::fleet::guard::{Contradiction, Look};
use async_nats::jetstream::stream::Info;
use futures_util::future::BoxFuture;
use tokio::time::Instant;

impl Follower<'_> {
    /// What a look at the stream means. A contradiction is believed when it has stood for a while: a server that was cut
    /// off from the others answers from what it has until it notices.
    pub(super) fn judge(&mut self, look: Look) -> Result<Option<Info>, Contradiction> {
        match look {
            Look::Well(info) => {
                self.suspected = None;
                Ok(Some(*info))
            }
            Look::Unknown(_) => Ok(None),
            Look::Contradicts(contradiction) => {
                let same = |suspected: &&(Contradiction, Instant)| {
                    std::mem::discriminant(&suspected.0) == std::mem::discriminant(&contradiction)
                };
                let since = match self.suspected.as_ref().filter(same) {
                    Some((_, since)) => *since,
                    None => {
                        tracing::warn!(shard = %self.shard.label, %contradiction, "looking again before this is believed");
                        Instant::now()
                    }
                };
                if since.elapsed() >= self.node.config.alarm_after {
                    return Err(contradiction);
                }
                self.suspected = Some((contradiction, since));
                Ok(None)
            }
        }
    }
}

/// What a look under way gives; never, where there is none.
pub(super) async fn look_done(looking: &mut Option<BoxFuture<'static, Look>>) -> Look {
    let look = match looking {
        Some(look) => look.await,
        None => std::future::pending().await,
    };
    *looking = None;
    look
}
